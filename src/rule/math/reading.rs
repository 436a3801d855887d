//! One answer, read: its expression, its exact values and its normal text, ready to compare many times.

use super::ast::{Arena, Func2, Id, Node, Numbers, Sym};
use super::budget::{Budget, Stop};
use super::clean::{clean, repair};
use super::eval::exact;
use super::lex::{Commas, is_operator, is_unknown, wants_more};
use super::number::Q;
use super::parse::{self, Fault};
use super::spelled;
use super::text;

/// Longest answer looked at, in bytes.
pub const MAX_ANSWER: usize = 200_000;
/// Longest answer whose words are compared, in bytes.
const MAX_TEXT: usize = 20_000;

/// A parsed answer.
#[derive(Clone, Debug)]
pub struct Reading {
    pub arena: Arena,
    pub root: Id,
    /// The rational value of each node that has one.
    pub exact: Vec<Option<Q>>,
    /// Normal text of the whole answer.
    pub text: String,
    /// The answer as given, without delimiters.
    pub source: String,
    pub ambiguous_comma: bool,
    pub commas: Commas,
    /// Names an operator that is not worked out, or an operation that is not known.
    pub operators: bool,
}

/// Why an answer has no reading.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unread {
    Empty,
    Syntax,
    Budget,
}

impl Reading {
    /// Reads an answer.
    pub fn new(answer: &str, commas: Commas, budget: &mut Budget) -> Result<Reading, Unread> {
        let repaired = repair(answer);
        let source = strip(&repaired);
        if source.is_empty() {
            return Err(Unread::Empty);
        }
        if source.len() > MAX_ANSWER {
            return Err(Unread::Budget);
        }
        if let Some(value) = plain_integer(source) {
            return Ok(Reading::of_number(source, value, commas));
        }
        let cleaned = clean(source);
        let cleaned = spelled::digits(strip(&cleaned));
        let cleaned: &str = &cleaned;
        let mut arena = Arena::default();
        let parsed = match text::is_iso_date(cleaned) {
            true => Err(Fault::Prose),
            false => parse::parse(cleaned, commas, &mut arena, budget),
        };
        let text = if cleaned.len() <= MAX_TEXT { text::normalise(cleaned) } else { String::new() };
        let (root, ambiguous_comma) = match parsed {
            Ok(parsed) => (parsed.root, parsed.ambiguous_comma),
            Err(Fault::Budget) => return Err(Unread::Budget),
            Err(Fault::Prose | Fault::Syntax) => {
                let said = wordy(cleaned) || text::choice(&text).is_some() || text::is_iso_date(cleaned);
                if !said && !whole_formula(cleaned) {
                    return Err(Unread::Syntax);
                }
                arena.clear();
                (arena.text(text.clone()).map_err(|_| Unread::Budget)?, false)
            }
        };
        let root = match arena.node(root) {
            Node::Text(_) => match set_in_words(&text) {
                Some(set) => {
                    arena.clear();
                    arena.push(Node::Numbers(set)).map_err(|_| Unread::Budget)?
                }
                None => root,
            },
            _ => root,
        };
        let exact = match exact::fold(&arena, budget) {
            Ok(exact) => exact,
            Err(Stop::Budget) => return Err(Unread::Budget),
            Err(_) => Vec::new(),
        };
        let operators = arena.names.iter().any(|(_, name)| is_operator(name) || is_unknown(name));
        Ok(Reading { arena, root, exact, text, source: source.to_string(), ambiguous_comma, commas, operators })
    }

    fn of_number(source: &str, value: i64, commas: Commas) -> Reading {
        let mut arena = Arena::default();
        let root = arena.push(Node::Num(Q::int(value))).unwrap_or(0);
        Reading {
            arena,
            root,
            exact: vec![Some(Q::int(value))],
            text: source.to_string(),
            source: source.to_string(),
            ambiguous_comma: false,
            commas,
            operators: false,
        }
    }

    /// The same with each bare `\log` to the base ten; `None` where its values cost too much.
    pub fn to_base_ten(&self, budget: &mut Budget) -> Option<Reading> {
        let mut reading = self.clone();
        reading.arena.logs_to_base_ten();
        reading.exact = match exact::fold(&reading.arena, budget) {
            Ok(exact) => exact,
            Err(Stop::Budget) => return None,
            Err(_) => Vec::new(),
        };
        Some(reading)
    }

    /// The same with products for the values of functions, where gold uses the function's letter as a number:
    /// `h(a + 2)` beside `ah + 2h`. `None` where nothing changes. What the answer itself does with the letter
    /// counts for nothing: it would choose how it is read.
    pub fn with_products(&self, gold: &Reading, budget: &mut Budget) -> Option<Reading> {
        let called = |r: &Reading, sym: Sym| {
            r.arena.any(
                r.root,
                |n| matches!(*n, Node::Call2(Func2::Apply, function, _) if *r.node(function) == Node::Sym(sym)),
            )
        };
        let number = |sym: Sym| gold.arena.any(gold.root, |n| *n == Node::Sym(sym)) && !called(gold, sym);
        if !self.arena.any(self.root, |n| matches!(n, Node::Call2(Func2::Apply, ..))) {
            return None;
        }
        let mut reading = self.clone();
        if !reading.arena.calls_to_products(number) {
            return None;
        }
        reading.exact = match exact::fold(&reading.arena, budget) {
            Ok(exact) => exact,
            Err(Stop::Budget) => return None,
            Err(_) => Vec::new(),
        };
        Some(reading)
    }

    pub fn node(&self, id: Id) -> &Node {
        self.arena.node(id)
    }

    pub fn value(&self, id: Id) -> Option<&Q> {
        self.exact.get(id as usize).and_then(Option::as_ref)
    }

    /// True if the answer is a formula that is only understood as text: an integral, a limit.
    pub fn is_opaque(&self) -> bool {
        let words = wordy(&self.source) || text::is_iso_date(&self.source) || self.is_one_letter();
        self.is_text() && !words && text::choice(&self.text).is_none()
    }

    /// A letter in words, `(\text{E})`: the name of an option or a point.
    fn is_one_letter(&self) -> bool {
        let dressing = |c: char| c.is_whitespace() || matches!(c, '(' | ')');
        self.text.chars().filter(|&c| !dressing(c)).count() == 1 && self.text.contains(char::is_alphabetic)
    }

    /// Of how many values or relations side by side the answer consists.
    pub fn parts(&self) -> usize {
        match *self.node(self.root) {
            Node::List(list) | Node::All(list) | Node::Set(list) => self.arena.list(list).len(),
            _ => 1,
        }
    }

    /// True if there are words in the answer that its value does not need.
    pub fn has_words(&self) -> bool {
        self.arena.any(self.root, |n| matches!(n, Node::Text(_)))
    }

    /// True if the whole answer is words.
    pub fn is_text(&self) -> bool {
        matches!(self.node(self.root), Node::Text(_))
    }
}

/// Sets that answers name in words.
fn set_in_words(text: &str) -> Option<Numbers> {
    Some(match text {
        "all real numbers" | "all reals" | "any real number" | "all real number" | "全体实数" => Numbers::Reals,
        "all integers" | "any integer" => Numbers::Integers,
        "no solution" | "no solutions" | "no real solution" | "no real solutions" | "empty set" | "无解" => {
            Numbers::Empty
        }
        _ => return None,
    })
}

/// Commands and balanced braces: a formula beyond the parser, to be compared as text.
fn whole_formula(text: &str) -> bool {
    let mut depth = 0i32;
    let mut commands = 0;
    let mut previous = ' ';
    for c in text.chars() {
        match c {
            '{' if previous != '\\' => depth += 1,
            '}' if previous != '\\' => depth -= 1,
            c if c.is_ascii_alphabetic() && previous == '\\' => commands += 1,
            _ => {}
        }
        if depth < 0 {
            return false;
        }
        previous = c;
    }
    depth == 0 && commands > 0 && !matches!(previous, '+' | '-' | '=' | '^' | '_' | '/' | ',')
}

/// The text ends where more must follow: behind an operator, behind a command that wants an argument, inside
/// an environment. A number in it is no answer.
pub fn breaks_off(text: &str) -> bool {
    let text = strip(text);
    if text.matches(r"\begin{").count() > text.matches(r"\end{").count() {
        return true;
    }
    let end = text.trim_end_matches(['{', '(', '[', ' ']);
    let name = end.rfind('\\').map_or("", |at| &end[at + 1..]);
    if !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphabetic()) {
        return wants_more(name);
    }
    !wordy(text) && end.ends_with(['+', '-', '−', '×', '÷', '/', '^', '=', '<', '>'])
}

/// At least one word of two letters, so that stray symbols are no answer in words.
fn wordy(text: &str) -> bool {
    let mut run = 0;
    let mut command = false;
    for c in text.chars() {
        if c.is_alphabetic() {
            run += 1;
            if !command && (run >= 2 || !c.is_ascii()) {
                return true;
            }
        } else {
            (run, command) = (0, c == '\\');
        }
    }
    false
}

/// An ASCII integer of at most 18 digits.
pub fn plain_integer(text: &str) -> Option<i64> {
    let digits = text.strip_prefix('-').unwrap_or(text);
    if digits.is_empty() || digits.len() > 18 {
        return None;
    }
    let mut value = 0i64;
    for b in digits.bytes() {
        if !b.is_ascii_digit() {
            return None;
        }
        value = value * 10 + i64::from(b - b'0');
    }
    Some(if digits.len() < text.len() { -value } else { value })
}

/// "0.333...": these dots are part of the number.
fn decimal_goes_on(text: &str) -> bool {
    let Some(number) = text.strip_suffix("...") else { return false };
    let whole = number.trim_end_matches(|c: char| c.is_ascii_digit());
    whole.len() < number.len() && whole.strip_suffix('.').is_some_and(|w| w.ends_with(|c: char| c.is_ascii_digit()))
}

/// Without math delimiters, Markdown and sentence punctuation around it.
pub fn strip(text: &str) -> &str {
    let mut s = text.trim();
    loop {
        let before = s;
        let dressing = |c: char| c.is_whitespace() || matches!(c, '*' | '`' | '"' | '\u{200b}' | '\u{feff}');
        let open = s.trim_start_matches(dressing);
        s = open.trim_end_matches(dressing);
        // The star of ℕ^* is no Markdown.
        if s.ends_with('^') && open[s.len()..].starts_with('*') {
            return &open[..s.len() + 1];
        }
        if !decimal_goes_on(s) {
            s = s.trim_end_matches(['.', ',', ';', ':', '。', '，', '；']).trim_end();
        }
        if s.ends_with('\\') && !s.ends_with("\\\\") {
            s = &s[..s.len() - 1];
        }
        for (open, close) in [("$$", "$$"), ("$", "$"), (r"\[", r"\]"), (r"\(", r"\)")] {
            if let Some(inner) = s.strip_prefix(open).and_then(|t| t.strip_suffix(close))
                && !inner.contains('$')
                && !inner.contains(close)
                && !(open == "$" && inner.ends_with('\\'))
            {
                s = inner;
            }
        }
        if s == before {
            return s;
        }
    }
}
