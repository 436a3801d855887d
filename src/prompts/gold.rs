//! Gold answers as the field writes them: after `####`, inside the last `\boxed{}`, as numbers, lists, or a sentinel.

use serde_json::Value;

use super::hash::hash_bytes;

/// What a row says of its gold answer.
#[derive(Clone, Debug, PartialEq)]
pub enum Gold {
    /// Trimmed, and not empty.
    Answer(String),
    /// No usable answer, with the reason that the import report counts:
    /// `absent`, `empty`, `proof`, `notfound`, `no_marker`, `no_box`, `imprecise`.
    Missing(&'static str),
}

impl Gold {
    /// Sorts sentinels from answers.
    pub fn of_text(text: &str) -> Gold {
        let text = text.trim();
        match sentinel(text) {
            Some(reason) => Gold::Missing(reason),
            None => Gold::Answer(text.to_owned()),
        }
    }

    /// The answer in a cell; a list is joined with `, `. `None` for an object: its meaning is a rule's business.
    pub fn of_value(value: &Value) -> Option<Gold> {
        Some(match value {
            Value::Null => Gold::Missing("absent"),
            Value::Bool(b) => Gold::Answer(if *b { "True" } else { "False" }.to_owned()),
            Value::Number(number) => number_text(number).map_or(Gold::Missing("imprecise"), Gold::Answer),
            Value::String(text) => Gold::of_text(text),
            Value::Array(list) => {
                let mut parts = Vec::with_capacity(list.len());
                for item in list {
                    match Gold::of_value(item)? {
                        Gold::Answer(text) => parts.push(text),
                        missing => return Some(missing),
                    }
                }
                Gold::of_text(&parts.join(", "))
            }
            Value::Object(_) => return None,
        })
    }
}

/// Words that stand where an answer should: NuminaMath writes `proof` and `notfound`; the others are export accidents.
fn sentinel(text: &str) -> Option<&'static str> {
    if text.is_empty() {
        return Some("empty");
    }
    if text.len() > 16 {
        return None;
    }
    match text.to_ascii_lowercase().as_str() {
        "proof" => Some("proof"),
        "notfound" | "not found" | "not_found" => Some("notfound"),
        "nan" | "null" | "n/a" => Some("empty"),
        _ => None,
    }
}

/// A JSON number as the text a rule should compare: `27.0` is `27`.
/// `None` beyond 2^53, where the source's own digits are already lost.
fn number_text(number: &serde_json::Number) -> Option<String> {
    if number.is_i64() || number.is_u64() {
        return Some(number.to_string());
    }
    let x = number.as_f64().filter(|x| x.abs() < (1u64 << 53) as f64)?;
    Some(if x.fract() == 0.0 { format!("{}", x as i64) } else { x.to_string() })
}

/// GSM8K's answer text: the worked solution, then `#### gold` (or a last line `A: gold`, as its
/// authors' model solutions have it). `None` without a marker.
pub fn split_marked(text: &str) -> Option<(&str, &str)> {
    // More than a line after the marks is a heading of Markdown.
    if let Some((solution, gold)) = text.rsplit_once("####").filter(|(_, gold)| !gold.trim().contains('\n')) {
        return Some((solution.trim(), gold.trim()));
    }
    let (solution, last) = text.trim_end().rsplit_once('\n')?;
    Some((solution.trim(), last.strip_prefix("A:")?.trim()))
}

/// Takes GSM8K's calculator marks `<<48/2=24>>` out of a solution.
pub fn strip_calculator(text: &str) -> String {
    let mut clean = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(start) = rest.find("<<") {
        let Some(length) = rest[start..].find(">>") else { break };
        clean.push_str(&rest[..start]);
        rest = &rest[start + length + 2..];
    }
    clean + rest
}

/// The content of the last `\boxed{…}` or `\fbox{…}` whose braces balance; also MATH's rare `\boxed 2`.
pub fn last_boxed(text: &str) -> Option<&str> {
    let mut end = text.len();
    loop {
        let start = text[..end].rfind("\\boxed").max(text[..end].rfind("\\fbox"))?;
        let after = text[start..].trim_start_matches(|c: char| c == '\\' || c.is_ascii_alphabetic());
        let body = after.trim_start();
        if let Some(inner) = body.strip_prefix('{').and_then(balanced) {
            return Some(inner.trim());
        }
        if body.len() < after.len() && !body.starts_with('{') {
            let stop = body.find(['$', '.', '\n']).unwrap_or(body.len());
            if !body[..stop].trim().is_empty() {
                return Some(body[..stop].trim());
            }
        }
        end = start;
    }
}

/// The text up to the brace that closes one already open. `\{` and `\}` are text.
fn balanced(text: &str) -> Option<&str> {
    let (mut depth, mut escaped) = (1u32, false);
    for (i, byte) in text.bytes().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'{' => depth += 1,
            b'}' => {
                depth -= 1;
                if depth == 0 {
                    return Some(&text[..i]);
                }
            }
            _ => {}
        }
    }
    None
}

/// A hash of what a gold answer says, never 0. White space, dollar signs, TeX's spacing, sizes and fonts, case, a
/// full stop, thousands separators and zeros at the end do not tell two golds apart.
pub fn key(gold: &str) -> u64 {
    let mut text = plain(gold);
    text.truncate(text.trim_end_matches('.').len());
    if let Some(number) = number(&text) {
        text = number;
    } else if text.chars().filter(|c| c.is_alphabetic()).nth(1).is_some() {
        // A single letter may be a variable.
        text = text.to_lowercase();
    }
    hash_bytes(text.as_bytes(), 3).max(1)
}

/// The text without white space, dollar signs and what TeX says of its looks.
fn plain(gold: &str) -> String {
    let mut out = String::with_capacity(gold.len());
    // For each open brace, whether it belongs to a command that was left out.
    let mut braces = Vec::new();
    let mut rest = gold;
    while let Some(c) = rest.chars().next() {
        rest = &rest[c.len_utf8()..];
        match c {
            '$' => {}
            '\\' => {
                let name = &rest[..rest.bytes().take_while(u8::is_ascii_alphabetic).count()];
                rest = &rest[name.len()..];
                match name {
                    "left" | "right" | "displaystyle" | "quad" => {}
                    "text" | "textbf" | "mathrm" | "mathbf" | "boxed" => {
                        if let Some(inside) = rest.trim_start().strip_prefix('{') {
                            braces.push(true);
                            rest = inside;
                        }
                    }
                    "dfrac" | "tfrac" => out += "\\frac",
                    "" => match rest.chars().next() {
                        Some(',' | ';' | ':' | '!' | ' ') => rest = &rest[1..],
                        Some('%' | '$') => {}
                        _ => out.push(c),
                    },
                    name => {
                        out.push(c);
                        out += name;
                    }
                }
            }
            '{' => {
                braces.push(false);
                out.push(c);
            }
            '}' => {
                if braces.pop() != Some(true) {
                    out.push(c);
                }
            }
            c if c.is_whitespace() => {}
            c => out.push(c),
        }
    }
    out
}

/// A decimal number without separators, a plus sign, and zeros that say nothing; `None` for anything else.
fn number(text: &str) -> Option<String> {
    let (sign, digits) = match text.strip_prefix('-') {
        Some(digits) => ("-", digits),
        None => ("", text.strip_prefix('+').unwrap_or(text)),
    };
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let mut groups = whole.split(',');
    let first = groups.next().unwrap_or("");
    let grouped = whole.len() == first.len() || (1..=3).contains(&first.len()) && groups.all(|group| group.len() == 3);
    let is_digits = |text: &str| text.bytes().all(|b| b.is_ascii_digit());
    let whole = whole.replace(',', "");
    if !grouped || !is_digits(&whole) || !is_digits(fraction) || whole.len() + fraction.len() == 0 {
        return None;
    }
    let (whole, fraction) = (whole.trim_start_matches('0'), fraction.trim_end_matches('0'));
    let whole = if whole.is_empty() { "0" } else { whole };
    let sign = if whole == "0" && fraction.is_empty() { "" } else { sign };
    Some(if fraction.is_empty() { format!("{sign}{whole}") } else { format!("{sign}{whole}.{fraction}") })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    #[test]
    fn boxes_nest_and_the_last_balanced_one_wins() {
        assert_eq!(last_boxed(r"so $\boxed{\frac{14}{3}}$."), Some(r"\frac{14}{3}"));
        assert_eq!(last_boxed(r"\boxed{1} then \boxed{2}"), Some("2"));
        assert_eq!(last_boxed(r"\boxed{1} then \boxed{2"), Some("1"));
        assert_eq!(last_boxed(r"\boxed{\{1, 2\}}"), Some(r"\{1, 2\}"));
        assert_eq!(last_boxed(r"$\boxed 2$."), Some("2"));
        assert_eq!(last_boxed(r"\fbox{7}"), Some("7"));
        assert_eq!(last_boxed("no box, \\boxed"), None);
    }

    #[test]
    fn gsm8k_answers_come_apart_and_lose_their_marks() {
        let (solution, gold) = split_marked("48/2 = <<48/2=24>>24 clips.\n#### 72").unwrap();
        assert_eq!((strip_calculator(solution).as_str(), gold), ("48/2 = 24 clips.", "72"));
        assert_eq!(split_marked("9 * 2 = 18\nA: 18").unwrap().1, "18");
        assert_eq!(split_marked("18"), None);
        assert_eq!(strip_calculator("1 << 2 and no end"), "1 << 2 and no end");
    }

    #[test]
    fn numbers_lists_and_sentinels() {
        let answer = |text: &str| Some(Gold::Answer(text.to_owned()));
        assert_eq!(Gold::of_value(&json!(27.0)), answer("27"));
        assert_eq!(Gold::of_value(&json!(0.5)), answer("0.5"));
        assert_eq!(Gold::of_value(&json!(-3)), answer("-3"));
        assert_eq!(Gold::of_value(&json!(["$1$", "$2$"])), answer("$1$, $2$"));
        assert_eq!(Gold::of_value(&json!(1e22)), Some(Gold::Missing("imprecise")));
        assert_eq!(Gold::of_value(&json!(" Proof ")), Some(Gold::Missing("proof")));
        assert_eq!(Gold::of_value(&json!("notfound")), Some(Gold::Missing("notfound")));
        assert_eq!(Gold::of_value(&json!([])), Some(Gold::Missing("empty")));
        assert_eq!(Gold::of_value(&json!("none")), answer("none"), "`none` answers `how many?`");
        assert_eq!(Gold::of_value(&json!({"a": 1})), None);
    }

    #[test]
    fn golds_that_say_the_same_have_one_key() {
        for (a, b) in [
            ("7", "7.0"),
            ("1,234,567", "1234567"),
            ("$\\left(1, 2\\right)$.", "(1,2)"),
            (r"\dfrac{1}{2}", r"$\frac{1}{2}$"),
            (r"5\text{ cm}", "5 cm"),
            (r"\boxed{50\%}", "50%"),
            ("Paris", "paris"),
            ("-0.50", "-.5"),
            ("+3", "03"),
            ("-0", "0"),
        ] {
            assert_eq!(key(a), key(b), "{a} {b}");
        }
        for (a, b) in [
            ("7", "70"),
            ("1,2", "12"),
            ("12,34", "1234"),
            ("a", "A"),
            (r"\frac{1}{23}", r"\frac{12}{3}"),
            ("", "0"),
            ("B", "C"),
            ("-3", "3"),
        ] {
            assert_ne!(key(a), key(b), "{a} {b}");
        }
    }

    proptest! {
        #[test]
        fn no_gold_makes_its_key_panic(text in r"(\\(left|text|boxed|,|frac)?|[{}$., ]|é|-|[0-9]|[A-z]){0,20}") {
            prop_assert_ne!(key(&text), 0);
        }

        #[test]
        fn any_balanced_content_comes_back_from_its_box(parts in prop::collection::vec(r"[a-z0-9 +]{0,8}", 4), before in "[^\\\\]{0,40}") {
            let inner = format!("{}{{{}}}\\{{{}{{}}{}", parts[0], parts[1], parts[2], parts[3]);
            let text = format!("{before} \\boxed{{{inner}}} done");
            prop_assert_eq!(last_boxed(&text), Some(inner.trim()));
        }

        #[test]
        fn no_text_makes_extraction_panic(text in r"(\\boxed|\\fbox|\{|\}|<<|>>|####|A:|\n|é| |x){0,30}") {
            let _ = (last_boxed(&text), split_marked(&text), strip_calculator(&text));
        }
    }
}
