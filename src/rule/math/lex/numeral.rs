//! Numerals: thousands separators, decimal commas, repeating decimals, exponents.

use num_bigint::BigInt;
use num_rational::BigRational;

use super::super::ast::Node;
use super::super::budget::Stop;
use super::super::number::Q;
use super::super::units;
use super::{Commas, Lexer, Lit, MAX_DIGITS, Tok, Token};

impl<'a> Lexer<'a, '_> {
    /// Where the separator between groups of three digits ends, if one starts at `at`.
    fn thousands(&self, at: usize) -> Option<(usize, bool)> {
        let rest = &self.bytes[at..];
        for (mark, sure) in [
            (&br"{,}"[..], true),
            (br",\!", true),
            (br"{,\!}", true),
            (br"\,", true),
            (br"\;", true),
            (br"\ ", true),
            (b",", false),
            (b" ", true),
            (b"~", true),
            (br"{\,}", true),
            (br"{ }", true),
            (br"\:", true),
            (br"\thinspace ", true),
            (b"'", true),
        ] {
            if rest.starts_with(mark) {
                let mut end = at + mark.len();
                if mark.ends_with(b"!") {
                    while self.bytes.get(end) == Some(&b' ') {
                        end += 1;
                    }
                }
                let group = self.bytes[end..].iter().take_while(|b| b.is_ascii_digit()).count();
                return (group == 3).then_some((end, sure));
            }
        }
        None
    }

    /// `1.234.567` and `1.234,5`: points that can only part thousands. The digits, and where they end.
    fn dotted(&self, start: usize) -> Option<(String, usize)> {
        let lead = self.at - start;
        if !(1..=3).contains(&lead) || self.bytes[start] == b'0' || self.nesting > 0 {
            return None;
        }
        let group = |at: usize| {
            let digits = self.bytes.get(at + 1..)?.iter().take(4).take_while(|b| b.is_ascii_digit()).count();
            (self.bytes[at] == b'.' && digits == 3).then_some(at + 4)
        };
        let (mut end, mut groups) = (self.at, 0);
        while let Some(next) = self.bytes.get(end).and_then(|_| group(end)) {
            (end, groups) = (next, groups + 1);
        }
        let decimals = self.bytes.get(end) == Some(&b',')
            && self.bytes.get(end + 1..).is_some_and(|rest| {
                let digits = rest.iter().take(4).take_while(|b| b.is_ascii_digit()).count();
                (1..=4).contains(&digits) && digits != 3
            });
        (groups > 1 || (groups == 1 && decimals)).then(|| (self.text[start..end].replace('.', ""), end))
    }

    /// `1,25,000` behind the sign of the rupee: groups of two, then one of three. The digits, and where they end.
    fn lakhs(&self, start: usize) -> Option<(String, usize)> {
        let rupees = |t: &Token<'_>| matches!(t.tok, Tok::Atom(Node::Unit(unit)) if units::is_named(unit, "₹"));
        if !self.out.tokens.last().is_some_and(rupees) || self.commas != Commas::Thousands {
            return None;
        }
        let rest = &self.text[start..];
        let end = rest.bytes().take(32).take_while(|b| b.is_ascii_digit() || *b == b',').count();
        let mut groups = rest[..end].rsplit(',');
        let (last, mut twos) = (groups.next()?, groups.collect::<Vec<_>>());
        let first = twos.pop()?;
        let fits = last.len() == 3 && (1..=2).contains(&first.len()) && !first.starts_with('0');
        (fits && !twos.is_empty() && twos.iter().all(|two| two.len() == 2))
            .then(|| (rest[..end].replace(',', ""), start + end))
    }

    pub(super) fn number(&mut self) -> Result<(), Stop> {
        let start = self.at;
        let digits_from = |bytes: &[u8], at: usize| bytes[at..].iter().take_while(|b| b.is_ascii_digit()).count();
        let mut plain = true;
        let lead = digits_from(self.bytes, self.at);
        self.at += lead;
        let mut separated: Option<String> = None;
        if (1..=3).contains(&lead) && self.bytes[start] != b'0' {
            while let Some((end, sure)) = self.thousands(self.at) {
                if !sure {
                    if self.commas != Commas::Thousands || self.nesting > 0 {
                        self.out.ambiguous_comma = true;
                        break;
                    }
                    self.out.ambiguous_comma = true;
                }
                let buffer = separated.get_or_insert_with(|| self.text[start..self.at].to_string());
                buffer.push_str(&self.text[end..end + 3]);
                self.at = end + 3;
                plain = false;
            }
        }
        if let Some((digits, end)) = self.lakhs(start).or_else(|| self.dotted(start).filter(|_| separated.is_none())) {
            (separated, self.at, plain) = (Some(digits), end, false);
        }
        let whole_end = self.at;
        let mut fraction: &str = "";
        let mut has_point = false;
        let dotted = separated.is_some() && self.bytes[start..self.at].contains(&b'.');
        let decimal_comma = (separated.is_none() || dotted)
            && self.peek() == b','
            && self.ahead(1).is_ascii_digit()
            && (self.commas == Commas::Decimal || dotted);
        let braced_comma = separated.is_none() && self.rest().starts_with("{,}") && self.ahead(3).is_ascii_digit();
        if self.peek() == b',' && self.ahead(1).is_ascii_digit() {
            self.out.ambiguous_comma = true;
        }
        if decimal_comma || braced_comma {
            self.at += if braced_comma { 3 } else { 1 };
            let n = digits_from(self.bytes, self.at);
            fraction = &self.text[self.at..self.at + n];
            self.at += n;
            has_point = true;
            plain = false;
        } else if self.peek() == b'.' && self.ahead(1) != b'.' {
            let n = digits_from(self.bytes, self.at + 1);
            let joined = n > 0 || (!self.ahead(1).is_ascii_whitespace() && self.at + 1 < self.bytes.len());
            if joined {
                fraction = &self.text[self.at + 1..self.at + 1 + n];
                self.at += 1 + n;
                has_point = n > 0 || self.rest().starts_with('\\') || self.peek() == b'(';
                plain = false;
            }
        }
        let whole = separated.as_deref().unwrap_or(&self.text[start..whole_end]);
        let total = whole.len() + fraction.len();
        if total > MAX_DIGITS {
            return Err(Stop::Budget);
        }
        let words = total as u64 / 18 + 1;
        self.budget.charge(words * words)?;
        let places = fraction.len();
        let repetend = if has_point { self.repetend(fraction) } else { None };
        let mut value = decimal(whole, fraction);
        let mut exact = false;
        if let Some(digits) = repetend {
            // x = 0.ab(cde): add cde / (10^places · (10^len − 1)).
            let tail = decimal(digits, "");
            let nines = Q::int(10).pow(digits.len() as i64, self.budget)?.sub(&Q::ONE, self.budget)?;
            let shift = Q::int(10).pow(places as i64, self.budget)?;
            let part = tail.div(&nines.mul(&shift, self.budget)?, self.budget)?;
            value = value.add(&part, self.budget)?;
            exact = true;
        }
        if let Some((exponent, len)) = self.exponent() {
            self.at += len;
            plain = false;
            value = value.mul(&Q::int(10).pow(exponent, self.budget)?, self.budget)?;
            has_point = true;
        }
        let significant = whole.trim_start_matches('0').len();
        let digits = if significant > 0 { significant + places } else { fraction.trim_start_matches('0').len() };
        let whole_number = places == 0 && !exact && plain;
        let ordinal = if whole_number { self.ordinal() } else { 0 };
        let end = self.at;
        self.at += ordinal;
        self.push(Tok::Num(Lit {
            value,
            places: (has_point && !exact).then_some(places.min(9999) as u16),
            digits: digits.min(60_000) as u16,
            raw: &self.text[start..end],
            plain,
        }));
        Ok(())
    }

    /// `\overline{3}`, `\bar{3}`, `\dot{3}` or `(3)` right after a decimal fraction.
    fn repetend(&mut self, fraction: &'a str) -> Option<&'a str> {
        // "0.333…", "0.2727…": the digits before the dots go on.
        for dots in ["...", r"\ldots", r"\dots", r"\cdots"] {
            if self.rest().starts_with(dots) {
                let n = fraction.len();
                let period = (1..=n.min(64) / 2).find(|&p| fraction[n - p..] == fraction[n - 2 * p..n - p])?;
                self.at += dots.len();
                return Some(&fraction[n - period..]);
            }
        }
        for (open, close) in [(r"\overline{", '}'), (r"\bar{", '}'), (r"\dot{", '}'), ("(", ')'), (r"\overline ", ' ')]
        {
            if let Some(rest) = self.rest().strip_prefix(open) {
                let n = rest.bytes().take_while(u8::is_ascii_digit).count();
                if n > 0 && n <= 64 && (rest[n..].starts_with(close) || close == ' ') {
                    self.at += open.len() + n + usize::from(close != ' ');
                    return Some(&rest[..n]);
                }
            }
        }
        None
    }

    /// Length of `th`, `^{th}`, `^{\text{st}}` behind a whole number: "the 5th".
    fn ordinal(&self) -> usize {
        let rest = self.rest();
        for wrap in ["", "^{\\text{", "^\\text{", "^{\\mathrm{", "^\\mathrm{", "^{\\rm ", "^{", "\\text{", "{\\text{"] {
            let Some(inner) = rest.strip_prefix(wrap) else { continue };
            let closing = "}}".get(..wrap.matches('{').count()).unwrap_or("");
            for mark in ["st", "nd", "rd", "th"] {
                if let Some(after) = inner.strip_prefix(mark)
                    && let Some(after) = after.strip_prefix(closing)
                    && !(closing.is_empty() && after.starts_with(|c: char| c.is_alphanumeric() || c == '_'))
                {
                    return rest.len() - after.len();
                }
            }
        }
        0
    }

    /// `FF_{16}`, `AB_{12}`: a numeral of letters and digits that names its base; its value and length.
    pub(super) fn lettered(&self) -> Option<(Q, usize)> {
        let rest = self.rest();
        let len = rest.bytes().take_while(|b| b.is_ascii_digit() || (b'A'..=b'F').contains(b)).count();
        if !(2..=15).contains(&len) || rest[..len].bytes().all(|b| b.is_ascii_digit()) {
            return None;
        }
        let (base, taken) = ["_{11}", "_{12}", "_{13}", "_{14}", "_{15}", "_{16}"]
            .iter()
            .zip(11u32..)
            .find(|(mark, _)| rest[len..].starts_with(**mark))
            .map(|(mark, base)| (base, mark.len()))?;
        i64::from_str_radix(&rest[..len], base).ok().map(|value| (Q::int(value), len + taken))
    }

    /// `e-5`, `E10` glued to a number: value and length.
    fn exponent(&self) -> Option<(i64, usize)> {
        if !matches!(self.peek(), b'e' | b'E') {
            return None;
        }
        let sign = usize::from(matches!(self.ahead(1), b'+' | b'-'));
        let digits = self.rest()[1 + sign..].bytes().take_while(u8::is_ascii_digit).count();
        if digits == 0 || digits > 4 {
            return None;
        }
        let len = 1 + sign + digits;
        if self.ahead(len).is_ascii_alphabetic() {
            return None;
        }
        self.rest()[1..len].parse().ok().map(|e| (e, len))
    }
}

fn decimal(whole: &str, fraction: &str) -> Q {
    let fraction = fraction.trim_end_matches('0');
    if whole.len() + fraction.len() <= 18 {
        let mut n = 0i64;
        for b in whole.bytes().chain(fraction.bytes()) {
            n = n * 10 + i64::from(b - b'0');
        }
        return Q::ratio(n as i128, 10i128.pow(fraction.len() as u32)).unwrap_or(Q::ZERO);
    }
    let digits = [whole, fraction].concat();
    let n = BigInt::parse_bytes(digits.as_bytes(), 10).unwrap_or_default();
    if fraction.is_empty() {
        return Q::from_bigint(n);
    }
    Q::from_big(BigRational::new(n, num_traits::pow(BigInt::from(10), fraction.len())))
}
