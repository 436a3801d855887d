//! The head: scores and their gradient, from tiles of the vocabulary projection.
//!
//! A tile of logits has up to [`ROWS`] rows and [`TILE`] tokens, so its memory is bounded whatever the batch
//! and the vocabulary. Tiles of the vocabulary do not depend on the batch, so neither do a row's sums. As many tiles as
//! there is room for are kept from the forward to the backward pass, in the order in which they are made; the others are
//! made again, by the same product and so with the same bits. Kept, a logit costs 2 · hidden operations and 4 bytes
//! written less.

use half::bf16;

use super::buffer::{Buffer, Span};
use super::driver::{Arg, Kind};
use super::linear::{backward_input, backward_weight, forward};
use super::matmul::Out;
use super::ops::{Ops, int};
use crate::error::Result;

/// Tokens of the vocabulary in a tile.
pub(super) const TILE: usize = 8192;
/// Rows in a tile.
pub(super) const ROWS: usize = 4096;

/// Scratch memory of the backward pass, in bytes: a tile of logits and its gradient, and dx before it is rounded.
pub(super) fn scratch_bytes(rows: usize, vocab: usize, hidden: usize) -> usize {
    let (held, tile) = (rows.min(ROWS), vocab.min(TILE));
    6 * held * tile + 4 * held * hidden + 8 * rows
}

/// Kept tiles begin at multiples of so many logits: what cuBLASLt takes its algorithms to be for.
const ALIGNED: usize = 64;

/// First token and number of tokens of each tile of a vocabulary.
fn tiles(vocab: usize) -> impl Iterator<Item = (usize, usize)> {
    (0..vocab).step_by(TILE).map(move |first| (first, TILE.min(vocab - first)))
}

/// First row and number of rows of each piece of a batch.
fn pieces(rows: usize) -> impl Iterator<Item = (usize, usize)> {
    (0..rows).step_by(ROWS).map(move |first| (first, ROWS.min(rows - first)))
}

/// Room for all logits of a batch.
pub(super) fn kept_logits(rows: usize, vocab: usize) -> usize {
    let piece = |rows: usize| tiles(vocab).map(|(_, count)| (rows * count).next_multiple_of(ALIGNED)).sum::<usize>();
    pieces(rows).map(|(_, rows)| piece(rows)).sum()
}

/// Hands each tile its place, alike in both passes.
struct Places {
    kept: Span<f32>,
    left: usize,
    scratch: Span<f32>,
}

impl Places {
    fn new(kept: &mut Buffer<f32>, scratch: Span<f32>) -> Self {
        Places { left: kept.len(), kept: kept.part_mut(0), scratch }
    }

    /// Where the next tile of so many logits lies, and whether it stays there.
    fn next(&mut self, logits: usize) -> (Span<f32>, bool) {
        let place = logits.next_multiple_of(ALIGNED);
        if place > self.left {
            // Nor do smaller ones after it: what is kept is a prefix.
            self.left = 0;
            return (self.scratch, false);
        }
        let tile = self.kept;
        self.kept = self.kept.from(place);
        self.left -= place;
        (tile, true)
    }
}

/// The head's weight, `[vocab, hidden]`.
#[derive(Clone, Copy)]
pub(super) struct Head {
    pub weight: Span<bf16>,
    pub vocab: usize,
    pub hidden: usize,
}

/// What [`Ops::head_backward`] is seeded with.
pub(super) struct Seeds<'a> {
    pub targets: &'a [u32],
    pub entropy: &'a Buffer<f32>,
    pub lse: &'a Buffer<f32>,
    pub grad_logprob: &'a [f32],
    pub grad_entropy: Option<&'a [f32]>,
}

impl Ops<'_> {
    /// Scores `targets.len()` rows, and leaves as many of their logits in `kept` as it has room for.
    #[allow(clippy::too_many_arguments)]
    pub fn head(
        &mut self,
        x: &Buffer<bf16>,
        head: Head,
        targets: &[u32],
        logprob: &mut Buffer<f32>,
        entropy: &mut Buffer<f32>,
        lse: &mut Buffer<f32>,
        kept: &mut Buffer<f32>,
    ) -> Result<()> {
        let all = targets.len();
        let held = all.min(ROWS);
        self.begin(&[4 * held * head.vocab.min(TILE), 4 * 4 * held])?;
        let logits = self.scratch.take::<f32>(held * head.vocab.min(TILE));
        let state = self.scratch.take::<f32>(4 * held);
        let targets = self.scratch.targets.load(self.driver, targets)?;
        let mut places = Places::new(kept, logits);
        for (at, rows) in pieces(all) {
            for (first, count) in tiles(head.vocab) {
                let (logits, _) = places.next(rows * count);
                self.project(x.part(at * head.hidden), head, (first, count), rows, logits)?;
                let args = [
                    state.write(4 * rows),
                    logits.read(rows * count),
                    targets.from(at).read(rows),
                    int(rows),
                    int(first),
                    int(count),
                ];
                self.launch("head_join", rows.div_ceil(4), 128, &args)?;
            }
            let out = |buffer: &mut Buffer<f32>| buffer.part_mut(at).write(rows);
            let args = [state.read(4 * rows), int(rows), out(logprob), out(entropy), out(lse)];
            self.launch("head_finish", rows.div_ceil(128), 128, &args)?;
        }
        Ok(())
    }

    /// `dx = dlogit w`, `dw += dlogitᵀ x` if it is asked for. dx is summed over tiles in f32 and rounded once. `kept` is
    /// as the forward pass of the same rows left it.
    pub fn head_backward(
        &mut self,
        x: &Buffer<bf16>,
        head: Head,
        seeds: &Seeds,
        kept: &mut Buffer<f32>,
        dx: &mut Buffer<bf16>,
        mut dw: Option<&mut Buffer<f32>>,
    ) -> Result<()> {
        let (all, hidden) = (seeds.targets.len(), head.hidden);
        let (held, tile) = (all.min(ROWS), head.vocab.min(TILE));
        self.begin(&[4 * held * tile, 2 * held * tile, 4 * held * hidden, 4 * all, 4 * all])?;
        let logits = self.scratch.take::<f32>(held * tile);
        let dlogits = self.scratch.take::<bf16>(held * tile);
        let sum = self.scratch.take::<f32>(held * hidden);
        let by_logprob = self.scratch.take::<f32>(all);
        self.write(by_logprob, seeds.grad_logprob)?;
        let by_entropy = match seeds.grad_entropy {
            Some(values) => {
                let place = self.scratch.take::<f32>(all);
                self.write(place, values)?;
                Some(place)
            }
            None => None,
        };
        let targets = self.scratch.targets.load(self.driver, seeds.targets)?;
        let mut places = Places::new(kept, logits);
        for (at, rows) in pieces(all) {
            let x = x.part(at * hidden);
            for (first, count) in tiles(head.vocab) {
                let (logits, is_made) = places.next(rows * count);
                if !is_made {
                    self.project(x, head, (first, count), rows, logits)?;
                }
                let args = [
                    dlogits.write(rows * count),
                    logits.read(rows * count),
                    targets.from(at).read(rows),
                    seeds.entropy.part(at).read(rows),
                    seeds.lse.part(at).read(rows),
                    by_logprob.from(at).read(rows),
                    by_entropy.map_or(Arg::null(Kind::F32), |place| place.from(at).read(rows)),
                    int(rows),
                    int(first),
                    int(count),
                ];
                self.launch("head_seed", rows.div_ceil(4), 128, &args)?;
                let weight = head.weight.from(first * hidden);
                self.multiply(&backward_input(rows, (count, hidden), Out::F32, first > 0), dlogits, weight, sum)?;
                if let Some(dw) = dw.as_deref_mut() {
                    let dw = dw.part_mut(first * hidden);
                    self.multiply(&backward_weight(rows, (count, hidden)), dlogits, x, dw)?;
                }
            }
            self.round(dx.part_mut(at * hidden), sum, rows * hidden)?;
        }
        Ok(())
    }

    /// Logits `[rows, count]` of one tile.
    fn project(
        &self,
        x: Span<bf16>,
        head: Head,
        (first, count): (usize, usize),
        rows: usize,
        logits: Span<f32>,
    ) -> Result<()> {
        let product = forward(rows, (count, head.hidden), Out::F32);
        self.multiply(&product, x, head.weight.from(first * head.hidden), logits)
    }

    /// Whole rows of logits.
    pub fn logits(&self, x: &Buffer<bf16>, head: Head, rows: usize, out: &mut Buffer<f32>) -> Result<()> {
        self.multiply(&forward(rows, (head.vocab, head.hidden), Out::F32), x.part(0), head.weight, out.part_mut(0))
    }
}
