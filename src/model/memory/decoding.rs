//! How much an engine takes on at once: what it is told, and what follows from the device where it is told nothing.
//!
//! On a GPU the cache gets what the model and its trainer leave, less a tenth (vLLM's `gpu_memory_utilization = 0.9`,
//! of what is left): CUDA's own graphs and fragments need room, and other processes may.

use super::token_bytes;
use crate::backend::{Backend, STEP_ROWS, StepShape};
use crate::model::Config;

/// Limits of an engine, on each device that has the model; what is open follows from the device. They change no bit of what is
/// written, on a GPU as long as neither `batch` nor `prefill` is above [`STEP_ROWS`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// Sequences decoded together.
    pub batch: Option<usize>,
    /// Bytes of KV cache.
    pub cache_bytes: Option<usize>,
    /// Prompt tokens run through the model in one step.
    pub prefill: Option<usize>,
}

/// Room for continuous batching on one device, as an engine takes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decoding {
    /// Sequences decoded together, over all workers.
    pub batch: usize,
    /// Bytes of KV cache, over all workers; one sequence always fits. Sequences share them by pages.
    pub cache_bytes: usize,
    /// Prompt tokens run through the model in one step.
    pub prefill: usize,
}

/// Sequences and prompt tokens where memory is short or nothing is known of it.
const SMALL: (usize, usize) = (256, 512);
/// Where it is not: products of few rows leave a GPU idle.
const LARGE: (usize, usize) = (STEP_ROWS, STEP_ROWS);
/// Bytes of KV cache where the device does not tell what it has.
const UNTOLD: usize = 1 << 30;
/// What stays free at least where the cache is sized by what is left.
const RESERVE: u64 = 512 << 20;
/// Such a cache is a multiple of this, so that equal runs have equal ones.
const GRAIN: u64 = 256 << 20;

impl Limits {
    /// What an engine takes of a device that has so many bytes left beside the model and its trainer; `None` where
    /// the device does not tell.
    pub fn within<B: Backend>(&self, config: &Config, left: Option<u64>) -> Decoding {
        let sized = |(batch, prefill): (usize, usize)| Decoding {
            batch: self.batch.unwrap_or(batch),
            prefill: self.prefill.unwrap_or(prefill),
            cache_bytes: 0,
        };
        let step = |decoding: &Decoding| decoding.step_bytes::<B>(config) as u64;
        let sequence = config.context * token_bytes::<B>(config);
        let (small, large) = (sized(SMALL), sized(LARGE));
        let is_ample = left.is_some_and(|left| step(&large) <= left / 8 && step(&large) + sequence as u64 <= left);
        let decoding = if is_ample { large } else { small };
        let room = || match left {
            None => UNTOLD,
            Some(left) => {
                let free = left.saturating_sub(step(&decoding));
                let cache = free.saturating_sub((free / 10).max(RESERVE));
                usize::try_from(cache / GRAIN * GRAIN).unwrap_or(usize::MAX)
            }
        };
        let bytes = self.cache_bytes.unwrap_or_else(room);
        Decoding { cache_bytes: bytes.clamp(sequence, decoding.batch.max(1).saturating_mul(sequence)), ..decoding }
    }
}

impl Decoding {
    /// Most rows of a step.
    pub(super) fn rows(&self) -> usize {
        self.prefill.max(self.batch)
    }

    /// Bytes of the activations of a step, and of the logits that are drawn from.
    pub(super) fn activation_bytes<B: Backend>(&self, config: &Config) -> usize {
        let (hidden, ff, heads) = (config.hidden_size, config.intermediate_size, config.heads);
        let qk = if config.qk_norm { 1 } else { 0 };
        let acts = 4 * hidden + (1 + qk) * heads.qkv_width() + heads.out_width() + 3 * ff;
        let row = acts * B::ACT_BYTES + 4 * (3 + qk * (heads.query + heads.kv));
        self.rows() * row + 4 * self.batch * config.vocab_size
    }

    /// All that an engine takes at most: with a trainer, some of its steps' memory is the trainer's too.
    pub(super) fn bytes<B: Backend>(&self, config: &Config) -> usize {
        self.cache_bytes + self.step_bytes::<B>(config)
    }

    /// All that a step takes beside the cache.
    fn step_bytes<B: Backend>(&self, config: &Config) -> usize {
        let shape = StepShape {
            rows: 0,
            vocab: config.vocab_size,
            hidden: config.hidden_size,
            intermediate: config.intermediate_size,
            heads: config.heads,
            decoding: Some((self.batch, self.rows())),
            muon: None,
            adapter: None,
        };
        self.activation_bytes::<B>(config) + B::scratch_bytes(&shape)
    }
}
