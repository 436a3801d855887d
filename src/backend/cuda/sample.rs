//! Drawing tokens.

use super::buffer::Buffer;
use super::ops::{Ops, int};
use crate::backend::{Draw, Drawn};
use crate::error::{Error, Result};

/// Numbers of a draw, as sample.cu reads them.
const WORDS: usize = 8;
/// Tokens of the vocabulary that the kernel's fixed-point masses have room for.
const MOST_TOKENS: usize = 1 << 18;
/// Logits that a warp of the first pass takes (SEGMENT in sample.cu), and numbers that it leaves.
const SEGMENT: usize = 512;
const SEGMENT_WORDS: usize = 4;
/// Segments of a block.
const BLOCK_SEGMENTS: usize = 8;

/// Scratch memory of [`Ops::sample`], in bytes.
pub(super) fn scratch_bytes(rows: usize, vocab: usize) -> usize {
    4 * rows * (WORDS + 2 + vocab.div_ceil(SEGMENT) * SEGMENT_WORDS)
}

fn words(draw: &Draw) -> [u32; WORDS] {
    let [seed, index] = [draw.seed, draw.index].map(|x| [x as u32, (x >> 32) as u32]);
    let Draw { temperature, top_k, top_p, min_p, .. } = *draw;
    [temperature.to_bits(), top_k, top_p.to_bits(), min_p.to_bits(), seed[0], seed[1], index[0], index[1]]
}

/// Refuses a vocabulary that the kernel has no room for.
pub(super) fn check_vocab(vocab: usize) -> Result<()> {
    match vocab <= MOST_TOKENS {
        true => Ok(()),
        false => Err(Error::new(format!(
            "sampling on the GPU covers vocabularies of up to {MOST_TOKENS} tokens, not {vocab}"
        ))
        .hint("device = \"cpu\" covers all")),
    }
}

impl Ops<'_> {
    /// Draws one token of each row, and waits for them.
    pub fn sample(&mut self, logits: &Buffer<f32>, vocab: usize, draws: &[Draw], out: &mut [Drawn]) -> Result<()> {
        check_vocab(vocab)?;
        let rows = draws.len();
        let count = vocab.div_ceil(SEGMENT);
        let parts = rows * count * SEGMENT_WORDS;
        self.begin(&[4 * WORDS * rows, 4 * 2 * rows, 4 * parts])?;
        let (rules, drawn) = (self.scratch.take::<u32>(WORDS * rows), self.scratch.take::<u32>(2 * rows));
        let segments = self.scratch.take::<u32>(parts);
        let values: Vec<u32> = draws.iter().flat_map(words).collect();
        self.write(rules, &values)?;
        let [logits, rules] = [logits.read(rows * vocab), rules.read(WORDS * rows)];
        let args = [logits, rules, int(vocab), segments.write(parts)];
        self.launch_grid("sample_segments", [count.div_ceil(BLOCK_SEGMENTS), rows, 1], 256, 0, &args)?;
        self.launch("sample", rows, 512, &[logits, rules, segments.read(parts), int(vocab), drawn.write(2 * rows)])?;
        let found = self.read(drawn, 2 * rows)?;
        for (out, found) in out.iter_mut().zip(found.chunks_exact(2)) {
            *out = Drawn { token: found[0], logprob: f32::from_bits(found[1]) };
        }
        Ok(())
    }
}
