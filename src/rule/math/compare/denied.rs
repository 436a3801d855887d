//! Words of an answer that take it back: "not 5", `\text{It is not} = 5`.

use super::super::ast::{Id, Node};
use super::super::reading::Reading;
use super::super::{denial, text};
use super::Comparison;

/// How far from the beginning words may stand that take an answer back, in bytes.
const NEAR: usize = 200;

impl Comparison<'_> {
    /// The answer takes itself back, and gold does not.
    pub(super) fn takes_itself_back(&self) -> bool {
        let (gold, pred) = (self.gold, self.pred);
        // "Not defined" is undefined, "not 5" is not 5.
        let begins = text::begins_with_denial(&pred.source) && !text::begins_with_denial(&gold.source);
        (begins && !text::same(&gold.text, &pred.text)) || self.turned()
    }

    /// Words of the answer take back what is put equal to them, and gold has no such words.
    fn turned(&self) -> bool {
        let (gold, pred) = (self.gold, self.pred);
        let turns =
            |r: &Reading, id: Id| matches!(*r.node(id), Node::Text(at) if denial::turns(&r.arena.texts[at as usize]));
        let sides = || {
            (pred.arena.first(pred.root)..=pred.root).any(|id| match *pred.node(id) {
                Node::Chain { operands, .. } => {
                    let sides = pred.arena.list(operands);
                    sides[..sides.len().saturating_sub(1)].iter().any(|&id| turns(pred, id))
                }
                _ => false,
            })
        };
        // "It can't be = 5": short words without `\text` are read as products.
        let letters = || {
            let chain = matches!(pred.node(pred.root), Node::Chain { .. });
            let before = pred.source.rfind('=').filter(|&at| chain && at < NEAR).map_or("", |at| &pred.source[..at]);
            before.contains(' ') && denial::turns(&denial::words(&denial::without_brackets(before)))
        };
        (pred.has_words() && sides() || letters()) && !(0..=gold.root).any(|id| turns(gold, id))
    }
}
