//! Answers that only repeat the prompt: "Simplify √242" is not answered by √242, though the two are equal.
//!
//! What stands in the prompt, white space and dollar signs aside, is a copy where something was left to be done: where
//! it is no plain value, and gold says it in another form. What is written as gold is, up to the order of terms, is an
//! answer wherever it stands, and so is a number, a name, a point, a solution `x = 3` or a range `0 < x < 1`.

use std::hash::{DefaultHasher, Hash, Hasher};

use super::Gold;
use super::ast::{Func2, Id, Node, Rel};
use super::budget::Budget;
use super::clean::clean;
use super::extract::{Extracted, Place};
use super::lex::Commas;
use super::number::Q;
use super::reading::{Reading, plain_integer};
use super::text;

/// The reason for an answer that only repeats the prompt.
pub const COPIED: &str = "copied_from_prompt";

/// Words of two letters or more that make a line a sentence.
const SENTENCE: usize = 4;
/// Letters that do so in languages written without blanks.
const CHARACTERS: usize = 8;

/// A whole number in a place that says that it is the answer: most answers are, and no such one is a copy.
pub fn is_number_apart(found: &Extracted) -> bool {
    plain_integer(&found.text).is_some() && !is_running(found.place)
}

/// Places that no mark sets apart from other text.
fn is_running(place: Place) -> bool {
    matches!(place, Place::LastMath | Place::LastLine)
}

/// A prompt, and the forms in which its gold answer is no copy of it.
pub struct Question {
    prompt: String,
    golds: Vec<u64>,
    commas: Commas,
    steps: u64,
}

impl Question {
    /// `None` where nothing counts as a copy: without a prompt, or where gold is words, which only the same words meet.
    pub fn new(prompt: &str, gold: &Gold, commas: Commas, steps: u64) -> Option<Question> {
        let reading = gold.reading.as_ref().ok().filter(|reading| !reading.is_text())?;
        let prompt = bare(prompt);
        let golds = std::iter::once(reading).chain(&gold.others).flat_map(stated_forms).collect();
        (!prompt.is_empty()).then_some(Question { prompt, golds, commas, steps })
    }

    /// Whether an answer that meets gold only repeats the prompt. `meets` tells whether a part of it alone would.
    pub fn is_repeated_by(&self, found: &Extracted, completion: &str, meets: impl Fn(&str) -> bool) -> bool {
        if is_running(found.place) && self.ends(completion) || self.repeats(&found.text) {
            return true;
        }
        let parts = || found.narrower.iter().chain(&found.end);
        if !parts().any(|part| self.repeats(part)) {
            return false;
        }
        let others = parts().filter(|part| !self.repeats(part)).chain(found.boxes.iter().map(|(_, all)| all));
        !std::iter::once(&found.text).chain(others).any(|part| meets(part))
    }

    /// The prompt says this, and it is not only the end or the beginning of a number there.
    fn says(&self, part: &str) -> bool {
        let part = bare(part);
        let digit = |c: Option<char>| c.is_some_and(|c| c.is_ascii_digit());
        let (first, last) = (digit(part.chars().next()), digit(part.chars().next_back()));
        !part.is_empty()
            && self.prompt.match_indices(part.as_str()).any(|(at, _)| {
                let (before, behind) = (&self.prompt[..at], &self.prompt[at + part.len()..]);
                let begins = digit(before.strip_suffix('.').unwrap_or(before).chars().next_back());
                let goes_on = digit(behind.strip_prefix('.').unwrap_or(behind).chars().next());
                !(first && begins || last && goes_on)
            })
    }

    /// The completion closes on a sentence of the prompt.
    fn ends(&self, completion: &str) -> bool {
        let text = completion.trim_end().trim_end_matches("</answer>").trim_end();
        let line = text.lines().next_back().unwrap_or("");
        is_sentence(line) && text::behind_choice(line).is_none() && !begins_with_option(line) && self.says(line)
    }

    /// The text, or the last side of the equation that it is, stands in the prompt, and more was asked for.
    fn repeats(&self, said: &str) -> bool {
        let said = text::behind_choice(said).unwrap_or(said);
        let whole = self.says(said);
        let side = || said.rsplit_once('=').is_some_and(|(_, side)| self.says(side));
        if !whole && !side() {
            return false;
        }
        let Ok(reading) = Reading::new(said, self.commas, &mut Budget::new(self.steps)) else { return whole };
        let forms = forms(&reading);
        let as_gold = |id: Id| self.golds.contains(&forms[id as usize]);
        let root = reading.root;
        if is_worked_out(&reading, said) {
            return whole;
        }
        if as_gold(root) {
            return false;
        }
        if let Node::Text(_) = reading.node(root) {
            return whole && is_sentence(said);
        }
        let Some((&last, names)) = equation(&reading, root).and_then(<[Id]>::split_last) else {
            return whole && !is_plain(&reading, root);
        };
        let stated = |id: Id| as_gold(id) || is_plain(&reading, id);
        match whole {
            true => !(names.iter().all(|&id| is_name(&reading, id)) && stated(last)),
            // Some side says the value.
            false => !stated(last) && !names.iter().any(|&id| stated(id) && !is_name(&reading, id)),
        }
    }
}

/// A text as it is looked for: in one spelling, without what only dresses it.
fn bare(text: &str) -> String {
    let mut plain = clean(text).replace("**", "");
    for (spelled, sign) in [(r"\times", r"\cdot "), (r"\ast", r"\cdot "), ("*", r"\cdot "), (r"\div", "/")] {
        plain = plain.replace(spelled, sign);
    }
    text::bare_formula(&plain)
}

/// Four words or more beside the formulas.
fn is_sentence(line: &str) -> bool {
    let (mut words, mut run, mut command, mut wide) = (0, 0, false, 0);
    for c in line.chars().chain(" ".chars()) {
        if c.is_alphabetic() {
            run += 1;
            wide += usize::from(!c.is_ascii() && !c.is_lowercase() && !c.is_uppercase());
            continue;
        }
        words += usize::from(run >= 2 && !command);
        (run, command) = (0, c == '\\');
    }
    words >= SENTENCE || wide >= CHARACTERS
}

/// `B. The area is 24`: a line that names an option.
fn begins_with_option(line: &str) -> bool {
    let line = line.trim_start_matches(['(', '*', '-', ' ']);
    let mut chars = line.chars();
    chars.next().is_some_and(|c| c.is_ascii_uppercase()) && chars.next().is_some_and(|c| matches!(c, ')' | '.' | ':'))
}

/// Determinants and sums of matrices are worked out where they are read: their readings do not show what was asked.
fn is_worked_out(r: &Reading, said: &str) -> bool {
    let Some((before, _)) = said.split_once(r"\begin{") else { return false };
    match r.node(r.root) {
        Node::Matrix { .. } => {
            said.matches(r"\begin{").count() > 1 || before.replace(r"\left", "").contains(char::is_alphanumeric)
        }
        _ => r.arena.is_scalar(r.root),
    }
}

/// The sides of a chain of equalities.
fn equation(r: &Reading, id: Id) -> Option<&[Id]> {
    let Node::Chain { operands, rels } = *r.node(id) else { return None };
    let sides = r.arena.list(operands);
    r.arena.chain_rels(rels, sides.len()).iter().all(|rel| matches!(rel, Rel::Eq | Rel::Approx)).then_some(sides)
}

/// `x`, `f(x)`, `AB` or words.
fn is_name(r: &Reading, id: Id) -> bool {
    r.arena.subtree(id).iter().all(|node| {
        matches!(node, Node::Sym(_) | Node::Text(_) | Node::Label(_) | Node::Mul(..) | Node::Euler | Node::Imaginary)
            || matches!(node, Node::Call2(Func2::Apply, ..))
    })
}

/// A value that nothing is left to be done with: a numeral, a name, and what consists of them side by side. Its depth is
/// that of structures, see `ast::MAX_STRUCTURE`.
fn is_plain(r: &Reading, mut id: Id) -> bool {
    while let Node::Neg(inner) | Node::Percent(inner) | Node::PlusMinus(inner, _) = *r.node(id) {
        id = inner;
    }
    let all = |ids: &[Id]| ids.iter().all(|&id| is_plain(r, id));
    match *r.node(id) {
        Node::Num(ref q) => q.is_integer(),
        Node::Decimal { .. } | Node::Pi | Node::Infinity | Node::Numbers(_) | Node::Dots | Node::Unit(_) => true,
        Node::Tuple(list) | Node::List(list) | Node::Set(list) | Node::All(list) => all(r.arena.list(list)),
        Node::Matrix { entries: list, .. } | Node::Colon { parts: list, .. } => all(r.arena.list(list)),
        // The domain that a prompt gives may be the answer.
        Node::Interval { .. } => true,
        Node::Chain { operands, .. } => match (equation(r, id), r.arena.list(operands)) {
            (Some(sides), _) => is_name(r, sides[0]) && all(sides),
            (None, sides) => {
                let constant = |&id: &Id| !r.arena.any(id, |node| matches!(node, Node::Sym(_)));
                let names = sides.iter().filter(|&&id| is_name(r, id)).count();
                names == 1 && sides.iter().all(|id| is_name(r, *id) || constant(id))
            }
        },
        _ => is_name(r, id),
    }
}

/// How a gold answer is written: all of it, and its value where it is `name = value`.
fn stated_forms(gold: &Reading) -> Vec<u64> {
    let forms = forms(gold);
    let value = equation(gold, gold.root).and_then(<[Id]>::last);
    std::iter::once(&gold.root).chain(value).map(|&id| forms[id as usize]).collect()
}

/// A node's form, as a factor of a product and as a term of a sum. Forms of factors and terms are added up, so that
/// their order does not count; their numbers are kept, so that what cancels out does.
#[derive(Clone, Copy, Default)]
struct Form {
    negative: bool,
    /// Of the product that the node is, its sign and factors of one aside.
    product: u64,
    factors: u32,
    ones: u32,
    divisions: u32,
    /// Has a letter: then `\frac{1}{2}x` is no other form than `\frac{x}{2}`.
    letters: bool,
    /// Of the sum that the node is.
    sum: u64,
    terms: u32,
}

impl Form {
    fn whole(self) -> u64 {
        if self.terms > 1 { digest(&(self.terms, self.sum)) } else { digest(&(self.negative, self.term())) }
    }

    /// Of a product, its sign aside.
    fn term(self) -> u64 {
        digest(&(self.product, self.factors, if self.letters { 0 } else { self.ones }, self.divisions))
    }

    /// Of one factor.
    fn of_value(value: u64, letters: bool) -> Form {
        Form { product: value, factors: 1, letters, ..Form::default() }.as_term()
    }

    /// With its term, where everything else is set.
    fn as_term(self) -> Form {
        let term = self.term();
        Form { sum: if self.negative { term.wrapping_neg() } else { term }, terms: 1, ..self }
    }

    fn of_sum(sum: u64, terms: u32, letters: bool) -> Form {
        Form { sum, terms, ..Form::of_value(digest(&(terms, sum)), letters) }
    }

    fn negated(self) -> Form {
        match self.terms {
            0 | 1 => Form { negative: !self.negative, ..self }.as_term(),
            terms => Form::of_sum(self.sum.wrapping_neg(), terms, self.letters),
        }
    }

    fn plus(self, other: Form) -> Form {
        let (sum, terms) = (self.sum.wrapping_add(other.sum), self.terms.saturating_add(other.terms));
        Form::of_sum(sum, terms, self.letters || other.letters)
    }

    /// The product, or the quotient, of two.
    fn times(self, other: Form, divides: bool) -> Form {
        let product = if divides { other.product.wrapping_neg() } else { other.product };
        Form {
            negative: self.negative != other.negative,
            product: self.product.wrapping_add(product),
            factors: self.factors.saturating_add(other.factors),
            ones: self.ones.saturating_add(other.ones),
            divisions: self.divisions.saturating_add(other.divisions).saturating_add(u32::from(divides)),
            letters: self.letters || other.letters,
            ..self
        }
        .as_term()
    }
}

/// The form of every node, children before their parents. Units, words behind numbers and degree signs do not count:
/// an answer may leave them out.
fn forms(r: &Reading) -> Vec<u64> {
    let mut all: Vec<Form> = Vec::with_capacity(r.arena.len());
    for id in 0..r.arena.len() as Id {
        let of = |id: Id| all[id as usize];
        let whole = |id: Id| of(id).whole();
        let sorted = |ids: &[Id]| {
            let mut forms: Vec<u64> = ids.iter().map(|&id| whole(id)).collect();
            forms.sort_unstable();
            forms
        };
        let node = r.node(id);
        let mut letters = matches!(node, Node::Sym(_));
        r.arena.for_children(node, |child| letters |= of(child).letters);
        let other = |inside: u64| Form::of_value(digest(&(std::mem::discriminant(node), inside)), letters);
        let form = match *node {
            Node::Num(ref q) | Node::Decimal { value: ref q, .. } => {
                let one = q.abs() == Q::int(1);
                let value = Form { ones: u32::from(one), ..Form::default() };
                let value = if one { value } else { Form { product: digest(&q.abs()), factors: 1, ..value } };
                Form { negative: q.is_negative(), ..value }.as_term()
            }
            Node::Unit(_) | Node::Label(_) => Form::default().as_term(),
            Node::Degree(a) => of(a),
            Node::Neg(a) => of(a).negated(),
            Node::Add(a, b) => of(a).plus(of(b)),
            Node::Sub(a, b) => of(a).plus(of(b).negated()),
            Node::Mul(a, b) => of(a).times(of(b), false),
            Node::Div(a, b) => of(a).times(of(b), true),
            Node::Sym(sym) => other(sym),
            Node::Text(at) => other(digest(&r.arena.texts[at as usize])),
            Node::Numbers(set) => other(digest(&set)),
            Node::Based { ref value, base, .. } => other(digest(&(value, base))),
            Node::PlusMinus(a, plus) => other(digest(&(whole(a), plus))),
            Node::Call(function, a) => other(digest(&(function, whole(a)))),
            Node::Call2(function, a, b) => other(digest(&(function, whole(a), whole(b)))),
            Node::Interval { lo, hi, closed } => other(digest(&(whole(lo), whole(hi), closed))),
            // Braces around several values say no more.
            Node::List(list) | Node::Set(list) => Form::of_value(digest(&sorted(r.arena.list(list))), letters),
            Node::Chain { operands, rels } => {
                let ids = r.arena.list(operands);
                let sides: Vec<u64> = ids.iter().map(|&id| whole(id)).collect();
                other(digest(&(sides, r.arena.chain_rels(rels, ids.len()))))
            }
            ref node => {
                let mut inside = Vec::new();
                r.arena.for_children(node, |child| inside.push(whole(child)));
                other(digest(&inside))
            }
        };
        all.push(form);
    }
    all.into_iter().map(Form::whole).collect()
}

fn digest(value: &impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}
