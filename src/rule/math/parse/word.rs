//! Words: units, what is counted, words that multiply, prose.

use super::super::ast::{Id, Node, Sym, hash_name};
use super::super::lex::{Delim, Tok};
use super::super::number::Q;
use super::super::units;
use super::frame::{Arg, Kind, Op, Sep};
use super::{Fault, Parser};

impl<'a> Parser<'a, '_> {
    /// "5 feet 6 inches": a number with a unit right behind a quantity adds to it.
    pub(super) fn next_part_of_quantity(&self) -> bool {
        let Some(Tok::Word(word) | Tok::Run(word)) = self.peek() else { return false };
        !self.variables
            && units::find(word).is_some()
            && self.last_value().is_some_and(|id| matches!(self.arena.node(id), Node::Unit(_)))
            && matches!(self.top_op(), Some(Op::Mul))
    }

    /// "2 hours and 15 minutes": behind "and" stands a smaller unit of the same kind.
    pub(super) fn quantity_goes_on(&self) -> bool {
        let (Some(Tok::Num(_)), Some(Tok::Word(word) | Tok::Run(word))) =
            (self.peek(), self.tokens.get(self.at + 1).map(|t| &t.tok))
        else {
            return false;
        };
        let Some(last) = self.last_value().filter(|_| !self.expecting() && !self.variables) else { return false };
        let (Node::Unit(first), Some(next)) = (self.arena.node(last), units::find(word)) else { return false };
        let (a, b) = (units::entry(*first), units::entry(next));
        let smaller = units::size(next) < units::size(*first);
        a.dims == b.dims && smaller && matches!(self.top_op(), Some(Op::Mul))
    }

    pub(super) fn letters(&mut self, run: &'a str, space: bool) -> Result<(), Fault> {
        if (!self.expecting() || self.unit_after_slash())
            && run.len() > 1
            && (!self.variables || run.len() > 3)
            && let Some(unit) = units::find(run)
            // "5 mV" is a unit, "5mV" and "kT" are products.
            && (unit.ten == 0 || (space && run != "kT"))
            // "5Rs" in a formula is a product.
            && run != "Rs"
            && self.measurable()
        {
            self.juxtapose()?;
            return self.atom(Node::Unit(unit));
        }
        let power = matches!(run, "sq" | "cu") && !self.expecting() && self.measurable();
        if run.len() > 3 || is_word(run) || power || self.is_persons_name(run) {
            return self.word(run);
        }
        // "5 at x = 0": words that are letters elsewhere.
        let next = [0, 1].map(|ahead| self.tokens.get(self.at + ahead).map(|t| &t.tok));
        if space && matches!(run, "at" | "on") && matches!(next, [Some(Tok::Sym(_) | Tok::Num(_)), Some(Tok::Rel(_))]) {
            return self.word(run);
        }
        // "IV" is no product, that "VI" would equal.
        if is_roman(run) && self.is_whole_item() {
            self.juxtapose()?;
            let sym = self.arena.symbol(run);
            return self.atom(Node::Sym(sym));
        }
        // Three points or letters of options: their order counts. Two are a segment, or a product.
        if run.len() == 3 && run.bytes().all(|b| b.is_ascii_uppercase()) {
            self.juxtapose()?;
            let sym = self.arena.symbol(run);
            return self.atom(Node::Sym(sym));
        }
        for i in 0..run.len() {
            self.juxtapose()?;
            let node = match &run[i..=i] {
                "i" => Node::Imaginary,
                "e" => Node::Euler,
                letter => Node::Sym(self.arena.symbol(letter)),
            };
            self.atom(node)?;
        }
        Ok(())
    }

    /// "Cid" as the whole of an item is a name like the longer ones, and no product that "diC" would equal; so
    /// is "red" beside "blue".
    fn is_persons_name(&self, run: &str) -> bool {
        let [capital, small @ ..] = run.as_bytes() else { return false };
        run.len() == 3
            && (capital.is_ascii_uppercase() || self.worded)
            && small.iter().all(u8::is_ascii_lowercase)
            && run.bytes().any(|b| b"aeiouyAEIOU".contains(&b))
            && self.is_whole_item()
    }

    /// What is being read begins an item and ends it.
    fn is_whole_item(&self) -> bool {
        self.expecting()
            && self.values.len() == self.top().values
            && self.ops.len() == self.top().ops
            && matches!(self.peek(), None | Some(Tok::Comma | Tok::Semi | Tok::And | Tok::Or | Tok::Close(_)))
    }

    /// A unit may follow: the item ends with a number, a constant or another unit.
    fn measurable(&self) -> bool {
        self.last_value().is_some_and(|id| {
            !self.arena.any(id, |n| matches!(n, Node::Sym(_) | Node::Text(_))) && self.arena.is_scalar(id)
        })
    }

    /// `kg·m`, `N·m`: after a unit and a dot, a word is a unit.
    fn unit_after_dot(&self) -> bool {
        let unit = |id: Id| match *self.arena.node(id) {
            Node::Pow(base, _) => matches!(self.arena.node(base), Node::Unit(_)),
            ref node => matches!(node, Node::Unit(_)),
        };
        self.expecting()
            && matches!(self.top_op(), Some(Op::Mul))
            && self.last_value().is_some_and(|id| match *self.arena.node(id) {
                Node::Mul(_, last) | Node::Div(_, last) => unit(last),
                _ => unit(id),
            })
    }

    /// `km/h`: after a unit and a slash, a letter is a unit.
    pub(super) fn unit_after_slash(&self) -> bool {
        self.expecting()
            && matches!(self.top_op(), Some(Op::Div))
            && self.last_value().is_some_and(|id| self.arena.any(id, |n| matches!(n, Node::Unit(_) | Node::Label(_))))
    }

    pub(super) fn word(&mut self, word: &'a str) -> Result<(), Fault> {
        if self.case_word(word)? || self.integer_proviso(word)? || self.condition(word)? {
            return Ok(());
        }
        if !self.expecting() && self.measurable() {
            if let Some((factor, rest)) = magnitude(word) {
                self.juxtapose()?;
                self.atom(Node::Num(factor))?;
                return if rest.is_empty() { Ok(()) } else { self.word(rest) };
            }
            let counted = self
                .last_value()
                .is_some_and(|id| !self.arena.any(id, |n| matches!(n, Node::Unit(_) | Node::Label(_))));
            if let Some(factor) = count_word(word).filter(|_| counted) {
                self.juxtapose()?;
                return self.atom(Node::Num(Q::int(factor)));
            }
            if word == "factorial" {
                return self.factorial();
            }
            let power = match word {
                "squared" => 2,
                "cubed" => 3,
                _ => 0,
            };
            if power > 0 {
                self.binary(Op::Pow)?;
                return self.atom(Node::Num(Q::int(power)));
            }
        }
        let in_fraction = self.expecting() && matches!(self.top().arg, Some(Arg::FracTop | Arg::FracBottom(_)));
        let among_units = self.unit_after_slash() || self.unit_after_dot();
        if (!self.expecting() && self.measurable()) || among_units || in_fraction {
            if let Some((unit, power)) = self.area_or_volume(word) {
                self.juxtapose()?;
                let base = self.arena.push(Node::Unit(unit))?;
                let exponent = self.arena.push(Node::Num(Q::int(power)))?;
                let id = self.arena.push(Node::Pow(base, exponent))?;
                return self.operand(id, false);
            }
            if let Some(unit) = units::find(word) {
                self.juxtapose()?;
                return self.atom(Node::Unit(unit));
            }
        }
        if !self.expecting() {
            // Chemistry and counting: "495 cookies", "18 integers".
            if let Some(last) = self.last_value()
                && let Node::Text(index) = self.arena.node(last)
            {
                let index = *index as usize;
                let text = &mut self.arena.texts[index];
                if text.len() > 4000 {
                    return Err(Fault::Prose);
                }
                text.push(' ');
                text.push_str(word);
                return Ok(());
            }
            // "5 if n is 2": a condition is no label and gives nothing its value.
            let clause = matches!(word, "if" | "unless" | "when" | "because");
            let bound = matches!(word, "least" | "most")
                && matches!(
                    self.at.checked_sub(2).map(|at| &self.tokens[at].tok),
                    Some(Tok::Word("at") | Tok::Run("at"))
                );
            if clause || bound || denies(word) || self.speaks(word) || !self.labels_only_follow() {
                self.prose = true;
            }
            self.juxtapose()?;
            return self.atom(Node::Label(label(word)));
        }
        if self.in_label_brackets() {
            self.prose |= denies(word);
            let node = match units::find(word) {
                Some(unit) => Node::Unit(unit),
                None => Node::Label(label(word)),
            };
            return self.atom(node);
        }
        let id = self.arena.text(word.to_string())?;
        self.operand(id, false)
    }

    /// "nπ for any integer n": what the parameter runs over is an item of its own.
    fn integer_proviso(&mut self, word: &str) -> Result<bool, Fault> {
        let begins = matches!(word, "for" | "where" | "with" | "any" | "all" | "every" | "each" | "when");
        if !begins || self.expecting() || self.top().kind != Kind::Root {
            return Ok(false);
        }
        let names = |tok: &Tok<'_>| matches!(tok, Tok::Word("integer" | "integers") | Tok::Run("integer" | "integers"));
        if !self.tokens[self.at..].iter().take(8).any(|t| names(&t.tok)) {
            return Ok(false);
        }
        self.separator(Sep::Comma)?;
        let goes_on = |tok: &Tok<'_>| !matches!(tok, Tok::Comma | Tok::Semi | Tok::And | Tok::Or);
        self.at += self.tokens[self.at..].iter().take_while(|t| goes_on(&t.tok)).count();
        let id = self.arena.text("integer".to_string())?;
        self.operand(id, false)?;
        Ok(true)
    }

    /// "9 (apples)": a bracket right behind a number that begins with a word.
    fn in_label_brackets(&self) -> bool {
        let frame = self.top();
        if frame.kind != Kind::Delim(Delim::Paren) || frame.arg.is_some() || self.values.len() > frame.values {
            return false;
        }
        let Some(parent) = self.frames.len().checked_sub(2).map(|i| self.frames[i]) else { return false };
        frame.values > parent.values
            && matches!(self.ops.last(), Some(Op::Mul | Op::Div))
            && self.arena.is_scalar(self.values[frame.values - 1])
            && !self.arena.any(self.values[frame.values - 1], |n| matches!(n, Node::Sym(_)))
    }

    /// "square feet", "cubic cm": the unit after this word and its power.
    fn area_or_volume(&mut self, word: &str) -> Option<(super::super::ast::Unit, i64)> {
        let power = match word {
            "square" | "sq" | "平方" => 2,
            "cubic" | "cu" | "立方" => 3,
            _ => {
                let (power, rest) = word
                    .strip_prefix("平方")
                    .map(|rest| (2, rest))
                    .or_else(|| word.strip_prefix("立方").map(|rest| (3, rest)))?;
                return units::find(rest).map(|unit| (unit, power));
            }
        };
        let Some(Tok::Word(next) | Tok::Run(next)) = self.peek() else { return None };
        let unit = units::find(next)?;
        self.at += 1;
        Some((unit, power))
    }

    /// From here to the end of the item come only words and punctuation.
    fn labels_only_follow(&mut self) -> bool {
        // Known already, or of no consequence: a long text is looked through once.
        if self.at < self.labels_until || self.prose {
            return true;
        }
        let mut closed = false;
        for (at, token) in self.tokens.iter().enumerate().skip(self.at) {
            match &token.tok {
                Tok::Comma | Tok::Semi | Tok::And | Tok::Or | Tok::Logic(_) | Tok::Rel(_) | Tok::Row | Tok::End => {
                    self.labels_until = at;
                    return true;
                }
                Tok::Close(_) => closed = true,
                Tok::Word(_) | Tok::Run(_) | Tok::Div | Tok::Caret | Tok::Percent | Tok::Prime | Tok::Times => {}
                Tok::Num(lit) if lit.plain && lit.raw.len() == 1 => {}
                Tok::Open(Delim::Group | Delim::Paren) | Tok::Sym(_) => {}
                _ => return closed,
            }
        }
        self.labels_until = self.tokens.len();
        true
    }
}

/// Words that multiply the number before them, and what is left of the word: `万元`.
fn magnitude(word: &str) -> Option<(Q, &str)> {
    let whole = |factor| Some((Q::int(factor), ""));
    if word == "k" {
        // `K` is kelvin.
        return whole(1000);
    }
    match word.to_lowercase().as_str() {
        "hundred" => whole(100),
        "thousand" | "thousands" => whole(1000),
        "million" | "millions" | "mn" => whole(1_000_000),
        "billion" | "billions" | "bn" => whole(1_000_000_000),
        "trillion" | "trillions" => whole(1_000_000_000_000),
        "tenth" | "tenths" => Some((Q::Small(1, 10), "")),
        "hundredth" | "hundredths" => Some((Q::Small(1, 100), "")),
        "thousandth" | "thousandths" => Some((Q::Small(1, 1000), "")),
        "millionth" | "millionths" => Some((Q::Small(1, 1_000_000), "")),
        _ => {
            let rest = |mark: char, factor| word.strip_prefix(mark).map(|rest| (Q::int(factor), rest));
            // 成 is a tenth.
            let tenths = (word == "成").then_some((Q::Small(1, 10), ""));
            tenths.or_else(|| rest('万', 10_000)).or_else(|| rest('亿', 100_000_000)).or_else(|| {
                let unit =
                    word.strip_prefix('千').filter(|rest| rest.is_empty() || rest.starts_with(['元', '个', '人']))?;
                Some((Q::int(1000), unit))
            })
        }
    }
}

/// What a word says is counted, in the singular: "tickets" as "ticket".
fn label(word: &str) -> Sym {
    let word = word.to_lowercase();
    let one = match word.as_str() {
        "children" => "child",
        "people" => "person",
        "men" => "man",
        "women" => "woman",
        "feet" => "foot",
        word if word.len() > 3 && !word.ends_with("ss") => word.strip_suffix('s').unwrap_or(word),
        word => word,
    };
    hash_name(one)
}

/// Two letters or more that are a Roman numeral, of a quadrant or a statement.
fn is_roman(run: &str) -> bool {
    let tens = run.trim_start_matches('X');
    matches!(tens, "" | "I" | "II" | "III" | "IV" | "V" | "VI" | "VII" | "VIII" | "IX") && run.len() > 1
}

/// "5 (incorrect)" is no 5.
fn denies(word: &str) -> bool {
    matches!(word, "wrong" | "incorrect" | "false" | "not" | "no" | "never" | "impossible" | "invalid")
        || matches!(word, "cannot" | "nicht" | "kein" | "keine")
        || word.ends_with("n't")
}

/// Words that count a bare number by the dozen.
fn count_word(word: &str) -> Option<i64> {
    match word {
        "dozen" | "dozens" => Some(12),
        "gross" => Some(144),
        "score" => Some(20),
        _ => None,
    }
}

/// Short runs that are English words rather than products of letters.
fn is_word(run: &str) -> bool {
    const WORDS: &str = "if yes no Yes No YES NO the The for all any are not DNE dne \
        Sat Sun Mon Tue Wed Thu Fri Jan Feb Mar Apr May Jun Jul Aug Sep Oct Nov Dec";
    run.len() > 1 && WORDS.split(' ').any(|word| word == run)
}
