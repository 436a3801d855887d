//! Is the answer the gold answer? Exact where possible, then by evaluation at random points.

mod cases;
mod colons;
mod conditions;
mod consistent;
mod constants;
mod denied;
mod families;
mod form;
mod labels;
mod names;
mod ranges;
mod relation;
mod rounding;
mod scalar;
mod sets;
mod solved;
mod units;
mod worded;

use super::MathConfig;
use super::ast::{Func2, Id, Node, Rel};
use super::budget::Budget;
use super::reading::Reading;
use super::text;

/// The reason for an answer whose own equalities contradict each other.
pub const INCONSISTENT: &str = "inconsistent_chain";
/// The step that found words which take the answer back.
pub const DENIED: &str = "denied";

/// Steps that looking at one pair of subtrees costs, besides their evaluation.
const VISIT: u64 = 32;
/// How deep sums and products of sets, rows and the like are followed: each level is one of the stack's.
const MAX_DEPTH: u32 = 100;

/// What a comparison found, and by which step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Finding {
    Equal(&'static str),
    Different(&'static str),
    Unknown(&'static str),
}

use Finding::{Different, Equal, Unknown};

impl Finding {
    pub fn is_equal(self) -> bool {
        matches!(self, Equal(_))
    }
}

/// One comparison: gold against answer.
pub struct Comparison<'a> {
    gold: &'a Reading,
    pred: &'a Reading,
    config: &'a MathConfig,
    budget: &'a mut Budget,
    /// How many comparisons of parts are open inside each other.
    depth: u32,
}

/// A value and which sign ± has in it.
#[derive(Clone, Copy, Debug)]
pub struct Val {
    pub id: Id,
    pub sign: bool,
}

impl Val {
    fn of(id: Id) -> Val {
        Val { id, sign: true }
    }
}

impl<'a> Comparison<'a> {
    /// A comparison that has yet to run, and will pay out of `budget`.
    pub fn new(gold: &'a Reading, pred: &'a Reading, config: &'a MathConfig, budget: &'a mut Budget) -> Self {
        Comparison { gold, pred, config, budget, depth: 0 }
    }

    /// The answer against itself, under the same settings and out of the same budget.
    fn of_itself(&mut self) -> Comparison<'_> {
        Comparison::new(self.pred, self.pred, self.config, self.budget)
    }

    /// Percent signs of the answer count as a hundredth even where gold has none.
    fn percent_counts(&self) -> bool {
        let percent = |r: &Reading| r.arena.any(r.root, |n| matches!(n, Node::Percent(_)));
        !self.config.bare_percent && percent(self.pred) && !percent(self.gold)
    }

    /// Compares the whole answers.
    pub fn run(&mut self) -> Finding {
        let (gold, pred) = (self.gold, self.pred);
        if gold.source == pred.source {
            return Equal("same_text");
        }
        if self.takes_itself_back() {
            return Different(DENIED);
        }
        if gold.is_text() || pred.is_text() {
            return self.words();
        }
        let found = match self.families() {
            Some(found) => found,
            None => self.compare(gold.root, pred.root),
        };
        let digits = || gold.source.bytes().any(|b| b.is_ascii_digit());
        if !found.is_equal() && gold.source.len() > 1 && !digits() && text::same_formula(&gold.source, &pred.source) {
            return Equal("same_text");
        }
        if !found.is_equal() && !digits() && self.same_words() {
            return Equal("same_text");
        }
        // "C. x = 42" is option C.
        if !found.is_equal() && self.same_choice() {
            return Equal("same_text");
        }
        if !found.is_equal() && self.same_options() {
            return Equal("options");
        }
        // Whatever one of its sides says, an answer that contradicts itself is none.
        if !matches!(found, Different(_)) && self.contradictory() {
            return Different(INCONSISTENT);
        }
        // Sides that could not be looked at in time are no licence.
        if found.is_equal() && self.budget.spent() {
            return Unknown("budget");
        }
        found
    }

    /// "Red and blue" is "red and blue", though a short word may read as a product of its letters.
    fn same_words(&self) -> bool {
        let (gold, pred) = (self.gold, self.pred);
        let letters = |r: &Reading| {
            let short = |word: &&str| word.chars().count() < 3;
            r.source.split(|c: char| !c.is_alphabetic()).filter(short).collect::<Vec<_>>().join(" ")
        };
        gold.text == pred.text
            && gold.has_words()
            && pred.has_words()
            && text::is_words(&gold.source)
            && text::is_words(&pred.source)
            // A letter alone is a variable, and A is not a.
            && letters(gold) == letters(pred)
    }

    /// Both name the same option: `(B)` and `B. 12`.
    fn same_choice(&self) -> bool {
        let (gold, pred) = (self.gold, self.pred);
        // A gold of `a` is a variable: `A` is another.
        let variable = text::small_letter(&gold.source);
        !self.lists_option()
            && text::choice(&gold.text).is_some()
            && text::choice(&pred.text).is_some()
            && variable.is_none_or(|letter| pred.source.contains(letter))
            && text::same(&gold.text, &pred.text)
    }

    /// The answer has an option and something else side by side, `(C), 12`, and gold has not.
    fn lists_option(&self) -> bool {
        worded::lists_option(&self.pred.source) && !worded::lists_option(&self.gold.source)
    }

    /// Several options, once as one word and once one by one.
    fn same_options(&self) -> bool {
        match (text::options(&self.gold.source), text::options(&self.pred.source)) {
            (Some((a, one_word)), Some((b, other))) => !(one_word && other) && a == b,
            _ => false,
        }
    }

    fn words(&self) -> Finding {
        let (gold, pred) = (&self.gold.text, &self.pred.text);
        // What is no words is compared as it is written: n! is not n, nor A a.
        let same = if text::is_words(&self.gold.source) && text::is_words(&self.pred.source) {
            text::same(gold, pred) && !(text::choice(gold).is_some() && self.lists_option())
        } else {
            text::same_formula(&self.gold.source, &self.pred.source) || self.same_choice()
        };
        // A gold of `c` is a variable: C is another.
        let variable = text::small_letter(&self.gold.source);
        if same && variable.is_none_or(|letter| self.pred.source.contains(letter)) {
            return Equal("same_text");
        }
        if self.same_options() {
            return Equal("options");
        }
        // A date in figures reads as a difference.
        if let (Some(a), Some(b)) = (text::date(gold), text::date(pred)) {
            return if a == b { Equal("date") } else { Different("date") };
        }
        if self.gold.is_text() {
            // "Area = 5" or a sentence around the words.
            if let Some(value) = self.named_text()
                && text::same(gold, &value)
            {
                return Equal("same_text");
            }
            if self.gold.is_opaque() {
                return Unknown("formula_as_text");
            }
            let words = gold.split(' ').count();
            if words > 8 && self.pred.is_text() {
                return Unknown("prose");
            }
            return Different("text");
        }
        Different("different_kind")
    }

    /// The answer's right side, when it is `name = words`.
    fn named_text(&self) -> Option<String> {
        let Node::Chain { operands, .. } = self.pred.node(self.pred.root) else { return None };
        let sides = self.pred.arena.list(*operands);
        let last = *sides.last()?;
        if form::is_sentence(self.pred, sides[0]) || worded::equates_names(&self.pred.source) {
            return None;
        }
        match self.pred.node(last) {
            Node::Text(index) => Some(text::normalise(&self.pred.arena.texts[*index as usize])),
            _ => None,
        }
    }

    /// Compares two subtrees. Structures nest no deeper than `ast::MAX_STRUCTURE`; the operations between them are
    /// bounded here.
    fn compare(&mut self, g: Id, p: Id) -> Finding {
        if self.depth >= MAX_DEPTH || self.budget.spent() || self.budget.charge(VISIT).is_err() {
            return Unknown("budget");
        }
        self.depth += 1;
        let found = self.compare_nodes(g, p);
        self.depth -= 1;
        found
    }

    fn compare_nodes(&mut self, g: Id, p: Id) -> Finding {
        let (gold, pred) = (self.gold, self.pred);
        let (gn, pn) = (gold.node(g), pred.node(p));
        if let Some(found) = self.conditioned(g, p) {
            return found;
        }
        // Words inside a structure.
        if let (Node::Text(_), _) | (_, Node::Text(_)) = (gn, pn) {
            // A letter in words beside a letter in a formula: of the same case.
            let other_case = match (form::letter_of(gold, g), form::letter_of(pred, p)) {
                (Some(a), Some(b)) => a != b,
                _ => false,
            };
            let (a, b) = (form::words_of(gold, g), form::words_of(pred, p));
            let length = |words: &Option<String>| words.as_ref().map_or(0, String::len) as u64;
            if self.budget.charge(length(&a) + length(&b)).is_err() {
                return Unknown("budget");
            }
            return match (a, b) {
                (Some(a), Some(b)) if !other_case && text::same(&a, &b) => Equal("same_text"),
                _ => Different("text"),
            };
        }
        if let (&Node::Call2(Func2::Mod, _, m), &Node::Call2(Func2::Mod, _, n)) = (gn, pn)
            && !self.compare(m, n).is_equal()
        {
            return Different("modulus");
        }
        if let (Node::Chain { .. }, Node::Chain { .. }) = (gn, pn) {
            return self.relations(g, p);
        }
        if let Node::Chain { operands, rels } = *gn {
            let ids = gold.arena.list(operands);
            let kinds = gold.arena.chain_rels(rels, ids.len());
            return self.gold_relation(g, ids, kinds, p);
        }
        if let Node::Chain { operands, rels } = *pn {
            let ids = pred.arena.list(operands);
            let kinds = pred.arena.chain_rels(rels, ids.len());
            return self.pred_relation(g, p, ids, kinds);
        }
        if gold.arena.is_scalar(g) && pred.arena.is_scalar(p) {
            let plus_minus = |n: &Node| matches!(n, Node::PlusMinus(..));
            if gold.arena.any(g, plus_minus) || pred.arena.any(p, plus_minus) {
                return self.lists(g, p);
            }
            return self.scalars(Val::of(g), Val::of(p));
        }
        // "P(3, 4)" is a point with its name.
        if let (Node::Tuple(_), &Node::Mul(name, point)) = (gn, pn)
            && matches!(pred.node(point), Node::Tuple(_))
            && form::names_point(pred, name)
        {
            return self.compare(g, point);
        }
        self.structures(g, p)
    }

    /// Gold is a relation, the answer is not.
    fn gold_relation(&mut self, g: Id, ids: &[Id], kinds: &[Rel], p: Id) -> Finding {
        let Some(&last) = ids.last() else { return Unknown("gold") };
        if kinds.iter().all(|k| matches!(k, Rel::Eq | Rel::Approx)) {
            // "7 = 11a + c" is solved for nothing: neither side alone says it.
            let stated = form::is_name(self.gold, last) || form::is_constant(self.gold, last);
            let named = form::is_name(self.gold, ids[0]) || form::is_segment(self.gold, ids[0]);
            let simple = named || (form::is_constant(self.gold, ids[0]) && stated);
            let solved = form::is_constant(self.gold, last) && self.gold.arena.is_scalar(ids[0]) && ids.len() > 2;
            if simple || solved || !self.gold.arena.is_scalar(ids[0]) {
                let mut found = Different("different_kind");
                let turned = form::is_name(self.gold, last) && form::is_constant(self.gold, ids[0]);
                // Of "5 = x" the 5 is the value.
                let values = if turned { &ids[..ids.len() - 1] } else { &ids[1..] };
                for &value in values.iter().rev().take(3) {
                    found = self.compare(value, p);
                    if found.is_equal() {
                        break;
                    }
                }
                return found;
            }
            return Different("different_kind");
        }
        if let [name, set] = *ids
            && kinds == [Rel::In]
            && form::is_named(self.gold, name)
        {
            return self.compare(set, p);
        }
        // "x ≡ 3 (mod 7)"
        if let [name, residue] = *ids
            && kinds == [Rel::Congruent]
            && form::is_name(self.gold, name)
        {
            return self.compare(residue, p);
        }
        self.ranges(g, p)
    }

    /// The answer is a relation, gold is not.
    fn pred_relation(&mut self, g: Id, p: Id, ids: &[Id], kinds: &[Rel]) -> Finding {
        let Some(&last) = ids.last() else { return Different("different_kind") };
        // "C = A" names two options, whichever is gold.
        if let Some(option) = form::option(self.gold, g)
            && ids.iter().any(|&id| form::option(self.pred, id).is_some_and(|other| other != option))
        {
            return Different("options");
        }
        // A gold of letters alone may be a name: a sentence put equal to it does not say it.
        if form::is_sentence(self.pred, ids[0]) && self.gold.text.chars().all(|c| c.is_alphabetic() || c == ' ') {
            return Different("text");
        }
        if kinds.iter().all(|k| matches!(k, Rel::Eq | Rel::Approx)) {
            // "x² − 12 = 0" says what x fulfils, and not that the answer is 0.
            if ids.len() == 2 && form::is_equation(self.pred, ids[0], last) {
                return Different("relation");
            }
            let last_is_rough = kinds.last() == Some(&Rel::Approx);
            let found = self.compare(g, last);
            // "x = 2√3 ≈ 3.46": the exact value before the rough one counts.
            if !found.is_equal() && last_is_rough && ids.len() > 2 {
                return self.compare(g, ids[ids.len() - 2]);
            }
            if !found.is_equal() && last_is_rough && ids.len() == 2 && !form::is_name(self.pred, ids[0]) {
                return self.compare(g, ids[0]);
            }
            // "30 minutes = 0.5 hours"
            if !found.is_equal() && ids.len() == 2 && ids.iter().all(|&id| form::is_quantity(self.pred, id)) {
                let sides = [Val::of(ids[0]), Val::of(last)];
                return if self.restates(&sides) { self.compare(g, ids[0]) } else { found };
            }
            // "5 = x".
            if !found.is_equal() && ids.len() == 2 && form::is_name(self.pred, last) && !form::denies(self.pred, last) {
                return self.compare(g, ids[0]);
            }
            return found;
        }
        // "−x ∈ S" says nothing of S that "x ∈ S" would.
        if let [name, set] = *ids
            && kinds == [Rel::In]
            && form::is_named(self.pred, name)
        {
            return self.compare(g, set);
        }
        if kinds.contains(&Rel::Congruent) && kinds.iter().all(|k| matches!(k, Rel::Congruent | Rel::Eq)) {
            let name = ids.len() == 2 && form::is_name(self.pred, ids[0]);
            if name || ids[..ids.len() - 1].iter().all(|&id| self.congruent(id, last)) {
                return self.compare(g, last);
            }
        }
        self.ranges(g, p)
    }
}
