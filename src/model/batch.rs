//! A batch: sequences packed end to end, with no padding.

use crate::error::{Error, Result};

/// Packed sequences and the tokens of them that are scored.
///
/// The trainer makes one, [`super::Model::forward`] and [`super::Model::backward`] read it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Batch {
    /// Input tokens, `[rows]`, all sequences one after the other.
    pub tokens: Vec<u32>,
    /// Position of each token in its sequence, `[rows]`.
    pub positions: Vec<u32>,
    /// Sequence s is rows `cu_seqlens[s]..cu_seqlens[s + 1]`; starts with 0, ends with `rows`.
    pub cu_seqlens: Vec<u32>,
    /// Rows whose output scores a token, ascending, `[scored]`.
    pub scored: Vec<u32>,
    /// The token each of those rows should predict (the one that follows), `[scored]`.
    pub targets: Vec<u32>,
}

impl Batch {
    /// An empty batch.
    pub fn new() -> Self {
        Batch { cu_seqlens: vec![0], ..Batch::default() }
    }

    /// Adds a sequence; token i is scored where `scored(i)` holds. The first token
    /// follows nothing and is never scored; the last is only a target, so a
    /// sequence of n tokens takes n − 1 rows.
    pub fn push(&mut self, tokens: &[u32], mut scored: impl FnMut(usize) -> bool) {
        if self.cu_seqlens.is_empty() {
            self.cu_seqlens.push(0);
        }
        let rows = tokens.len().saturating_sub(1);
        let start = self.tokens.len() as u32;
        for i in 0..rows {
            self.tokens.push(tokens[i]);
            self.positions.push(i as u32);
            if scored(i + 1) {
                self.scored.push(start + i as u32);
                self.targets.push(tokens[i + 1]);
            }
        }
        self.cu_seqlens.push(start + rows as u32);
    }

    /// Adds a prompt and its completion; every completion token is scored.
    pub fn push_completion(&mut self, prompt: &[u32], completion: &[u32]) {
        let tokens = [prompt, completion].concat();
        self.push(&tokens, |i| i >= prompt.len());
    }

    /// Packed tokens.
    pub fn rows(&self) -> usize {
        self.tokens.len()
    }

    /// Scored tokens.
    pub fn scored(&self) -> usize {
        self.scored.len()
    }

    /// # Errors
    /// An empty batch, one with nothing to score, ids outside the vocabulary,
    /// positions outside the context, or offsets that do not fit together.
    pub(super) fn check(&self, vocab: usize, context: usize) -> Result<()> {
        let rows = self.rows();
        if rows == 0 {
            return Err(Error::new("the batch is empty").hint("a batch needs at least one sequence of two tokens"));
        }
        if self.scored.is_empty() {
            return Err(Error::new(format!("none of the batch's {rows} tokens is scored"))
                .hint("every target is masked: check which turns are trained on"));
        }
        let ordered = self.cu_seqlens.first() == Some(&0)
            && self.cu_seqlens.last() == Some(&(rows as u32))
            && self.cu_seqlens.windows(2).all(|w| w[0] <= w[1]);
        if !ordered || self.positions.len() != rows || self.scored.len() != self.targets.len() {
            return Err(Error::new("the batch's offsets, positions and targets do not fit its tokens"));
        }
        if let Some(row) = self.scored.iter().find(|&&row| row as usize >= rows) {
            return Err(Error::new(format!("scored row {row} of a batch of {rows} rows")));
        }
        if let Some(id) = self.tokens.iter().chain(&self.targets).find(|&&id| id as usize >= vocab) {
            return Err(Error::new(format!("token id {id} is outside the model's vocabulary of {vocab}"))
                .hint("was the text tokenized with another model's tokenizer?"));
        }
        if let Some(position) = self.positions.iter().find(|&&p| p as usize >= context) {
            return Err(Error::new(format!("position {position} is outside the model's context of {context} tokens"))
                .hint("cut or drop sequences longer than the context before packing"));
        }
        Ok(())
    }
}

/// What [`super::Model::forward`] says of each scored token, in the order of [`Batch::scored`].
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Scores {
    /// Natural-log probability of the target at temperature 1.
    pub logprobs: Vec<f32>,
    /// Entropy in nats of the distribution the target was drawn from.
    pub entropies: Vec<f32>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_completion_is_scored_from_the_last_prompt_row_on() {
        let mut batch = Batch::new();
        batch.push_completion(&[1, 2, 3], &[4, 5]);
        batch.push_completion(&[1], &[6]);
        assert_eq!(batch.tokens, [1, 2, 3, 4, 1]);
        assert_eq!(batch.positions, [0, 1, 2, 3, 0]);
        assert_eq!(batch.cu_seqlens, [0, 4, 5]);
        assert_eq!(batch.scored, [2, 3, 4]);
        assert_eq!(batch.targets, [4, 5, 6]);
        assert!(batch.check(7, 4).is_ok());
    }

    #[test]
    fn faults_are_named() {
        let message = |batch: &Batch, vocab, context| batch.check(vocab, context).unwrap_err().to_string();
        assert!(message(&Batch::new(), 9, 9).contains("empty"));
        let mut batch = Batch::new();
        batch.push(&[1, 2, 3], |_| false);
        assert!(message(&batch, 9, 9).contains("none of the batch's 2 tokens is scored"));
        batch.push_completion(&[1, 2], &[8]);
        assert!(message(&batch, 8, 9).contains("token id 8"));
        assert!(message(&batch, 9, 1).contains("position 1"));
    }
}
