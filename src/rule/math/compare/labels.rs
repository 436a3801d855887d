//! What values are called or counted in: of "3 red, 4 blue" each number belongs to its word.

use super::super::ast::{Id, Node, Sym, hash_name};
use super::super::reading::Reading;
use super::Val;

/// Most values whose words are looked at, and most words of one.
const MANY: usize = 64;
const WORDS: usize = 16;

/// The words of the values on both sides. A value whose words are another one's is not that one, however they are
/// worded where nothing else fits better.
pub(super) struct Labels {
    gold: Vec<(Id, Vec<Sym>)>,
    pred: Vec<(Id, Vec<Sym>)>,
}

impl Labels {
    /// `None` where one side has no words, or there are too many values.
    pub(super) fn of(gold: &Reading, g: &[Val], pred: &Reading, p: &[Val]) -> Option<Labels> {
        let side = |r: &Reading, vals: &[Val]| -> Option<Vec<(Id, Vec<Sym>)>> {
            let words: Vec<_> = vals.iter().map(|v| (v.id, words(r, v.id))).collect();
            words.iter().any(|(_, words)| !words.is_empty()).then_some(words)
        };
        if g.len() < 2 || g.len() > MANY || p.len() > MANY {
            return None;
        }
        Some(Labels { gold: side(gold, g)?, pred: side(pred, p)? })
    }

    /// No other value has more words in common with one of the two.
    pub(super) fn fit(&self, g: Val, p: Val) -> bool {
        let of = |side: &[(Id, Vec<Sym>)], id: Id| side.iter().position(|(other, _)| *other == id);
        let (Some(i), Some(j)) = (of(&self.gold, g.id), of(&self.pred, p.id)) else { return true };
        let common = |i: usize, j: usize| self.gold[i].1.iter().filter(|word| self.pred[j].1.contains(word)).count();
        let own = common(i, j);
        (0..self.pred.len()).all(|other| common(i, other) <= own)
            && (0..self.gold.len()).all(|other| common(other, j) <= own)
    }
}

/// The words of a value, or of the name that is given it.
fn words(r: &Reading, id: Id) -> Vec<Sym> {
    let mut words = Vec::new();
    let (first, last) = (r.arena.first(id), id);
    let near = first..=last.min(first + 8 * WORDS as u32);
    for node in near.map(|id| r.node(id)) {
        match node {
            Node::Label(word) => words.push(*word),
            Node::Text(index) => {
                let text = &r.arena.texts[*index as usize];
                words.extend(text.split_whitespace().take(WORDS).map(|word| hash_name(&word.to_lowercase())));
            }
            _ => {}
        }
    }
    // "Bob = 3" is read as a product of letters.
    if let Node::Chain { operands, .. } = *r.node(id)
        && let Some(&name) = r.arena.list(operands).first()
        && matches!(r.node(name), Node::Mul(..) | Node::Sym(_))
    {
        let letter = |n: &Node| if let Node::Sym(sym) = n { Some(r.arena.name(*sym)) } else { None };
        let letters: String = r.arena.subtree(name).iter().take(2 * WORDS).filter_map(letter).collect();
        words.push(hash_name(&letters.to_lowercase()));
    }
    words.truncate(WORDS);
    words
}
