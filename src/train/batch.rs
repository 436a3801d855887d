//! Sequences to train on, and how they are packed into micro-batches.
//!
//! A micro-batch holds whole sequences end to end with no padding; attention stays inside each
//! sequence. What shares a micro-batch changes only speed and rounding, never the loss, because
//! weights are normalised over the whole batch ([`super::objective::Aggregation`]).

use std::ops::Range;

use crate::model::Batch;

/// Random access to training data, so that a trainer need not hold it.
pub trait Source<T> {
    /// Number of rows.
    fn len(&self) -> usize;

    /// Whether there is no row at all.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// One row; `index` is below [`Source::len`]. The same index always gives the same row.
    ///
    /// # Errors
    /// When the row cannot be read: the training stops.
    fn get(&mut self, index: usize) -> crate::Result<T>;

    /// Packed tokens of the longest row that a model with this context can be trained on; 0 if there is none.
    fn longest(&self, context: usize) -> usize;
}

/// A row of training data, which is packed whole.
pub trait Packed {
    /// Packed tokens of what of it goes into one micro-batch; `None` where a model with this context cannot be trained on it.
    fn rows(&self, context: usize) -> Option<usize>;
}

impl Packed for Sequence {
    fn rows(&self, context: usize) -> Option<usize> {
        self.is_usable(context).then(|| self.rows())
    }
}

impl<T: Clone + Packed> Source<T> for Vec<T> {
    fn len(&self) -> usize {
        self.len()
    }

    fn get(&mut self, index: usize) -> crate::Result<T> {
        Ok(self[index].clone())
    }

    fn longest(&self, context: usize) -> usize {
        self.iter().filter_map(|row| row.rows(context)).max().unwrap_or(0)
    }
}

/// A tokenized sequence and the tokens of it that carry a loss.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sequence {
    /// Ids of prompt and completion, the end of turn included where it is to be learnt.
    pub tokens: Vec<u32>,
    /// Ascending, disjoint ranges of `tokens` to train on. The very first token follows nothing and
    /// is never trained on.
    pub trained: Vec<Range<usize>>,
}

impl Sequence {
    /// A prompt and a completion that is trained on whole.
    pub fn completion(prompt: &[u32], completion: &[u32]) -> Self {
        let tokens = [prompt, completion].concat();
        let trained = std::iter::once(prompt.len()..tokens.len()).collect();
        Sequence { tokens, trained }
    }

    fn is_trained(&self, index: usize) -> bool {
        index > 0 && self.trained.iter().any(|range| range.contains(&index))
    }

    /// Number of tokens that carry a loss.
    pub fn trained_tokens(&self) -> usize {
        let end = self.tokens.len();
        self.trained.iter().map(|r| r.start.max(1)..r.end.min(end)).map(|r| r.len()).sum()
    }

    /// Rows it takes in a batch: the last token is only a target.
    pub fn rows(&self) -> usize {
        self.tokens.len().saturating_sub(1)
    }

    /// Why a model with this context cannot be trained on it, as a code and in words; `None` if it can.
    pub fn fault(&self, context: usize) -> Option<(&'static str, String)> {
        if self.trained_tokens() == 0 {
            Some(("empty", "there is no token to train on".to_owned()))
        } else if self.rows() > context {
            Some(("too_long", format!("{} tokens do not fit the model's context of {context}", self.tokens.len())))
        } else {
            None
        }
    }

    /// The same where a sequence may have no more than `most` tokens, whatever fits the context.
    pub fn fault_within(&self, context: usize, most: Option<usize>) -> Option<(&'static str, String)> {
        let tokens = self.tokens.len();
        match most.filter(|&most| tokens > most) {
            Some(most) => {
                Some(("too_long", format!("{tokens} tokens are more than `max_tokens` allows, which is {most}")))
            }
            None => self.fault(context),
        }
    }

    /// Whether a model with this context can be trained on it.
    pub fn is_usable(&self, context: usize) -> bool {
        self.fault(context).is_none()
    }
}

/// Some sequences of a batch, packed.
#[derive(Clone, Debug)]
pub struct MicroBatch {
    /// Which sequences, in the order they are packed.
    pub sequences: Vec<usize>,
    /// Their tokens one after the other, without padding.
    pub batch: Batch,
    /// `[sequences + 1]` Where each one's trained tokens lie among the scored ones.
    pub offsets: Vec<usize>,
}

impl MicroBatch {
    fn new(sequences: Vec<usize>, all: &[&Sequence]) -> Self {
        let mut batch = Batch::new();
        let mut offsets = vec![0];
        for &i in &sequences {
            batch.push(&all[i].tokens, |t| all[i].is_trained(t));
            offsets.push(batch.scored());
        }
        MicroBatch { sequences, batch, offsets }
    }

    /// The scored range of each sequence, with its index in the batch.
    pub fn ranges(&self) -> impl Iterator<Item = (usize, Range<usize>)> + '_ {
        self.sequences.iter().zip(self.offsets.windows(2)).map(|(&i, o)| (i, o[0]..o[1]))
    }

    /// Per-sequence values brought together in this micro-batch's order.
    pub fn pick<T: Copy>(&self, values: &[T]) -> Vec<T> {
        self.sequences.iter().map(|&i| values[i]).collect()
    }

    /// Per-token values of every sequence brought together in this micro-batch's order.
    pub fn gather(&self, values: &[Vec<f32>]) -> Vec<f32> {
        self.sequences.iter().flat_map(|&i| values[i].iter().copied()).collect()
    }
}

/// Packs a batch into micro-batches of at most `budget` rows (a longer unit gets one of its own).
///
/// `unit` consecutive sequences stay together: 1, or 2 for pairs. Best fit on units by falling
/// length; equal lengths keep their order, so the packing is a function of the lengths alone. Units
/// of a micro-batch and the micro-batches themselves are in the batch's order.
pub fn pack(sequences: &[&Sequence], unit: usize, budget: usize) -> Vec<MicroBatch> {
    let lengths: Vec<usize> = sequences.chunks(unit).map(|u| u.iter().map(|s| s.rows()).sum()).collect();
    let mut by_length: Vec<usize> = (0..lengths.len()).collect();
    by_length.sort_by_key(|&u| std::cmp::Reverse(lengths[u]));
    // Room left in each open bin, smallest first; (room, bin) pairs are unique.
    let mut room = std::collections::BTreeSet::new();
    let mut bins: Vec<Vec<usize>> = Vec::new();
    for u in by_length {
        let (left, bin) = match room.range((lengths[u], 0)..).next().copied() {
            Some(best) => {
                room.remove(&best);
                best
            }
            None => {
                bins.push(Vec::new());
                (budget.max(lengths[u]), bins.len() - 1)
            }
        };
        bins[bin].push(u);
        room.insert((left - lengths[u], bin));
    }
    bins.iter_mut().for_each(|bin| bin.sort_unstable());
    bins.sort_unstable();
    let indices = |bin: Vec<usize>| bin.into_iter().flat_map(|u| u * unit..(u + 1) * unit).collect();
    bins.into_iter().map(|bin| MicroBatch::new(indices(bin), sequences)).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn of_length(n: usize) -> Sequence {
        Sequence::completion(&[1], &vec![2; n])
    }

    proptest! {
        #[test]
        fn packing_keeps_every_unit_once_and_within_the_budget(
            lengths in prop::collection::vec(0usize..40, 0..60), budget in 1usize..64, unit in 1usize..3,
        ) {
            let sequences: Vec<Sequence> =
                lengths[..lengths.len() / unit * unit].iter().map(|&n| of_length(n)).collect();
            let refs: Vec<&Sequence> = sequences.iter().collect();
            let packed = pack(&refs, unit, budget);
            let mut seen: Vec<usize> = packed.iter().flat_map(|m| m.sequences.clone()).collect();
            seen.sort_unstable();
            prop_assert!(seen.into_iter().eq(0..sequences.len()));
            for micro in &packed {
                let units = micro.sequences.chunks(unit);
                let filled = units.filter(|u| u.iter().any(|&i| sequences[i].rows() > 0)).count();
                prop_assert!(micro.batch.rows() <= budget || filled == 1);
                prop_assert_eq!(micro.offsets[micro.sequences.len()], micro.batch.scored());
                for pair in micro.sequences.chunks(unit) {
                    prop_assert!(pair[0] % unit == 0 && pair.windows(2).all(|w| w[1] == w[0] + 1));
                }
            }
        }
    }

    #[test]
    fn small_sequences_fill_the_gaps_of_large_ones() {
        let sequences = [9, 2, 7, 1, 3].map(of_length);
        let packed = pack(&sequences.iter().collect::<Vec<_>>(), 1, 10);
        let indices: Vec<Vec<usize>> = packed.into_iter().map(|m| m.sequences).collect();
        assert_eq!(indices, vec![vec![0, 3], vec![1], vec![2, 4]]);
    }

    #[test]
    fn every_turn_that_is_trained_on_is_scored_and_nothing_else() {
        let sequence = Sequence { tokens: vec![10, 11, 12, 13, 14, 15], trained: vec![0..2, 4..6] };
        assert_eq!(sequence.trained_tokens(), 3);
        let micro = &pack(&[&sequence], 1, 100)[0];
        assert_eq!((micro.batch.targets.as_slice(), micro.offsets.as_slice()), (&[11, 14, 15][..], &[0, 3][..]));
    }

    #[test]
    fn sequences_with_nothing_to_train_or_beyond_the_context_are_unusable() {
        assert!(!Sequence::completion(&[], &[5]).is_usable(10), "the only token follows nothing");
        assert!(!Sequence::completion(&[5], &[]).is_usable(10));
        assert!(Sequence::completion(&[5], &[6]).is_usable(1));
        assert!(!Sequence::completion(&[5, 6], &[7]).is_usable(1));
        assert!(!Sequence::default().is_usable(10));
    }
}
