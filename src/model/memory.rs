//! How much memory training takes, before any of it is taken.
//!
//! Everything a model allocates has a size that follows from its config and the tokens of a
//! micro-batch, so the sum is known beforehand: for `--dry-run`, and for an error that names the
//! micro-batch that would fit instead of one in the middle of the first step.
//!
//! ```text
//! parameters   4 bytes a weight for the f32 master, and what the kernels read (bf16 on a GPU)
//! gradients    4 bytes a trained weight
//! optimizer    8 bytes a trained weight: two moments
//! activations  bytes a token of a micro-batch, times the layers that keep them
//! workspace    gradients of activations, what operations use within themselves, a decoding step
//! logits       those kept for the backward pass, in a quarter of what the rest leaves; the others are made again
//! KV cache     pages of tokens, as many as the engine was given room for, or as the rest leaves (`decoding`)
//! ```
//!
//! On several devices this is what the fullest of them holds.

mod decoding;

use std::fmt;

use super::Config;
use super::parameters::{Layout, ParamKind};
use super::replicas::owners;
use crate::backend::{Backend, StepShape};
use crate::bytes::size;
use crate::error::{Error, Result};
pub use decoding::{Decoding, Limits};

/// What is to be held at once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Load {
    /// Packed tokens of a micro-batch, where its rows of data are no longer.
    pub rows: usize,
    /// Tokens of the longest row of data, as far as it is known; a pair is one. It is not cut, so a micro-batch holds as
    /// many at least.
    pub longest: usize,
    /// Tokens that a row of data may have at most.
    pub longest_possible: usize,
    /// Activations are made again in the backward pass ([`super::Model::recomputing_workspace`]).
    pub recompute: bool,
    /// Gradients and optimizer state; else the model only scores.
    pub trains: bool,
    /// Matrices are updated by Muon.
    pub muon: bool,
    /// Adapters of this rank are trained in place of the weights.
    pub lora: Option<usize>,
    /// Optimizer state lies in the host's memory, where the device has its own.
    pub offload: bool,
    /// A frozen copy of the model beside it.
    pub reference: bool,
    /// The engine's, where one decodes with the same weights.
    pub decoding: Option<Limits>,
    /// Devices with a copy of the model each, which share the optimizer state; 0 counts as 1.
    pub devices: usize,
}

/// Bytes by purpose.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Estimate {
    /// f32 masters and what the kernels read, rotary angles, and the same of the reference.
    pub parameters: u64,
    /// One f32 for each weight that is trained; with adapters also room for those of one matrix.
    pub gradients: u64,
    /// Both moments.
    pub optimizer: u64,
    /// Kept from the forward pass for the backward pass.
    pub activations: u64,
    /// Gradients of activations, what operations use within themselves, and a decoding step.
    pub workspace: u64,
    /// Logits kept for the backward pass; none is needed.
    pub logits: u64,
    /// Keys and values of the sequences being decoded, of all engines.
    pub kv_cache: u64,
    /// Optimizer state in the host's memory: beside all of the above.
    pub host: u64,
}

impl Load {
    /// Tokens of the largest micro-batch.
    pub fn most_rows(&self) -> usize {
        self.rows.max(self.longest)
    }
}

impl Estimate {
    /// All that the device holds.
    pub fn total(&self) -> u64 {
        self.parts().iter().map(|part| part.1).sum()
    }

    fn parts(&self) -> [(&'static str, u64); 7] {
        [
            ("parameters", self.parameters),
            ("gradients", self.gradients),
            ("optimizer", self.optimizer),
            ("activations", self.activations),
            ("workspace", self.workspace),
            ("logits", self.logits),
            ("KV cache", self.kv_cache),
        ]
    }
}

/// One line: the sum, then its parts.
impl fmt::Display for Estimate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", size(self.total()))?;
        for (i, (name, bytes)) in self.parts().iter().filter(|part| part.1 > 0).enumerate() {
            write!(f, "{}{name} {}", if i == 0 { ": " } else { ", " }, size(*bytes))?;
        }
        match self.host {
            0 => Ok(()),
            bytes => write!(f, "; and {} of the host's for the optimizer", size(bytes)),
        }
    }
}

/// What a model of this config takes on a backend, of a device that does not tell how much it has.
pub fn estimate<B: Backend>(config: &Config, load: &Load) -> Estimate {
    estimate_within::<B>(config, load, None)
}

/// What a model of this config takes of a device with so many free bytes: the logits that are kept and an engine's cache
/// take of what the rest leaves.
pub fn estimate_within<B: Backend>(config: &Config, load: &Load, free: Option<u64>) -> Estimate {
    let others = sum::<B>(config, load, None);
    let left = free.map(|free| free.saturating_sub(others.total()));
    let logits = match left {
        Some(left) if load.trains && B::RESERVES => {
            let room = logits_room::<B>(config, left, load.decoding);
            4 * B::kept_logits(load.most_rows(), config.vocab_size, room as usize / 4) as u64
        }
        _ => 0,
    };
    let whole = match load.decoding {
        None => others,
        Some(limits) => sum::<B>(config, load, Some(limits.within::<B>(config, left.map(|left| left - logits)))),
    };
    Estimate { logits, ..whole }
}

/// Bytes for the logits that a trainer keeps, of so many that are left beside the model and the trainer's buffers: a quarter,
/// after the least that an engine on the device takes. More would be worth less than an engine's cache.
pub fn logits_room<B: Backend>(config: &Config, left: u64, engine: Option<Limits>) -> u64 {
    let least = engine.map_or(0, |limits| limits.within::<B>(config, Some(0)).bytes::<B>(config));
    left.saturating_sub(least as u64) / 4
}

fn sum<B: Backend>(config: &Config, load: &Load, decoding: Option<Decoding>) -> Estimate {
    let layout = Layout::new(config);
    let elements: usize = layout.stored.iter().map(|&(rows, cols, _)| rows * cols).sum();
    let ready: usize = layout.stored.iter().map(|&(rows, cols, linear)| B::ready_bytes(rows, cols, linear)).sum();
    let model = 4 * elements + ready + 4 * config.context * config.heads.dim;
    let matrices = || layout.infos.iter().filter(|info| info.kind == ParamKind::Matrix);
    let largest = matrices().map(|info| (info.shape[0], info.shape[1])).max_by_key(|(rows, cols)| rows * cols);
    // Projections that are stored as one matrix share an adapter.
    let mut stored: Vec<usize> = matrices().map(|info| info.param).collect();
    stored.dedup();
    let shapes = || stored.iter().map(|&i| (layout.stored[i].0, layout.stored[i].1));
    let widest = shapes().max_by_key(|(rows, cols)| rows * cols).unwrap_or((0, 0));
    let adapters = load.lora.map_or(0, |rank| shapes().map(|(rows, cols)| rank * (rows + cols)).sum());
    let trained = match (load.trains, load.lora) {
        (false, _) => 0,
        (true, None) => 4 * elements,
        (true, Some(_)) => 4 * adapters,
    };
    // The gradient of the matrix at hand, and of two vectors.
    let passing =
        if trained > 0 && load.lora.is_some() { 4 * (widest.0 * widest.1 + 2 * config.hidden_size) } else { 0 };
    let rows = load.most_rows();
    let shape = StepShape {
        rows,
        vocab: config.vocab_size,
        hidden: config.hidden_size,
        intermediate: config.intermediate_size,
        heads: config.heads,
        decoding: decoding.map(|decoding| (decoding.batch, decoding.rows())),
        muon: largest.filter(|_| load.muon && load.lora.is_none()),
        adapter: load.lora.map(|rank| (widest, rank)),
    };
    // Optimizer state is parted among the devices; adapters are small enough to count them evenly.
    let devices = load.devices.max(1);
    let owned = match load.lora {
        None if trained > 0 && devices > 1 => {
            let owners = owners(&layout, devices);
            let sizes = layout.stored.iter().map(|&(rows, cols, _)| 4 * rows * cols);
            let mut shares = vec![0; devices];
            sizes.zip(owners).for_each(|(bytes, owner)| shares[owner] += bytes);
            shares.into_iter().max().unwrap_or(0)
        }
        _ => trained.div_ceil(devices),
    };
    let (optimizer, host) = if load.offload && B::RESERVES { (0, 2 * trained) } else { (2 * owned, 0) };
    let backward = if load.trains { rows * backward_bytes::<B>(config) } else { 0 };
    let step = decoding.map_or(0, |decoding| decoding.activation_bytes::<B>(config));
    Estimate {
        parameters: (model * if load.reference { 2 } else { 1 } + 4 * adapters) as u64,
        gradients: (trained + passing) as u64,
        optimizer: optimizer as u64,
        activations: (rows * forward_bytes::<B>(config, load.recompute)) as u64,
        workspace: (backward + step + B::scratch_bytes(&shape)) as u64,
        logits: 0,
        kv_cache: decoding.map_or(0, |decoding| decoding.cache_bytes as u64),
        host: host as u64,
    }
}

/// Of each token, what `Workspace::plan` takes.
fn forward_bytes<B: Backend>(config: &Config, recompute: bool) -> usize {
    let (hidden, ff, heads) = (config.hidden_size, config.intermediate_size, config.heads);
    let qk = if config.qk_norm { 1 } else { 0 };
    let acts = 3 * hidden + (1 + qk) * heads.qkv_width() + heads.out_width() + 3 * ff;
    let floats = 2 + heads.query + qk * (heads.query + heads.kv);
    let sets = if recompute { 1 } else { config.layers };
    let layers = config.layers * hidden * B::ACT_BYTES + sets * (acts * B::ACT_BYTES + 4 * floats);
    // Tokens, positions, the last norm's rstd, three numbers a scored token; branch, and scored rows of attention's
    // output, of the residual stream beside it and at the end, and of the last norm.
    layers + 4 * 6 + (4 * hidden + heads.out_width()) * B::ACT_BYTES
}

/// Of each token, what the gradients of activations take.
fn backward_bytes<B: Backend>(config: &Config) -> usize {
    let (hidden, ff, heads) = (config.hidden_size, config.intermediate_size, config.heads);
    B::ACT_BYTES * (2 * hidden + 2 * hidden.max(heads.out_width()) + heads.qkv_width() + 3 * ff)
}

/// Tokens of a micro-batch beyond which training this model is slower; see [`Backend::cached_rows`].
pub fn cached_rows<B: Backend>(config: &Config) -> usize {
    let weights = Layout::new(config).stored.iter().map(|&(rows, cols, _)| rows * cols).sum();
    B::cached_rows(weights, forward_bytes::<B>(config, false) + backward_bytes::<B>(config))
}

/// Bytes of KV cache that a token takes.
pub fn token_bytes<B: Backend>(config: &Config) -> usize {
    config.layers * 2 * config.heads.kv * config.heads.dim * B::ACT_BYTES
}

/// The estimate, where it fits into `free` bytes.
///
/// # Errors
/// Where it does not, with the micro-batch that would fit.
pub fn check<B: Backend>(config: &Config, load: &Load, free: u64) -> Result<Estimate> {
    check_part::<B>(config, load, free, Estimate::total)
}

/// As [`check`], of what a micro-batch takes beside weights, gradients and optimizer state that are there already.
///
/// # Errors
/// As [`check`].
pub fn check_batch<B: Backend>(config: &Config, load: &Load, free: u64) -> Result<Estimate> {
    check_part::<B>(config, load, free, |estimate| estimate.activations + estimate.workspace)
}

fn check_part<B: Backend>(config: &Config, load: &Load, free: u64, part: fn(&Estimate) -> u64) -> Result<Estimate> {
    let whole = estimate_within::<B>(config, load, Some(free));
    let needed = part(&whole);
    if needed <= free {
        return Ok(whole);
    }
    let (needed, free_size) = (size(needed), size(free));
    let error = match load.most_rows() {
        0 => Error::new(format!("decoding needs {needed} of memory; {free_size} are free")),
        rows => Error::new(format!("micro-batches of {rows} tokens need {needed} of memory; {free_size} are free")),
    };
    // A micro-batch that does not hold the longest row is none.
    let most = |load: &Load| match most_rows::<B>(config, load, free, part) {
        rows if rows < load.longest => 0,
        rows => rows,
    };
    let recomputing = Load { recompute: true, ..*load };
    let offloading = Load { offload: true, ..recomputing };
    let adapting = Load { lora: Some(ADVISED_RANK), ..recomputing };
    let mut hints = Vec::new();
    match most(load) {
        0 => {}
        rows => hints.push(format!("tokens_per_microbatch = {rows} would fit")),
    }
    match most(&recomputing) {
        _ if load.recompute => {}
        0 => {}
        rows => hints.push(format!("recompute = true would fit up to {rows}")),
    }
    if hints.is_empty() {
        hints.push(match most_rows::<B>(config, load, free, part) {
            0 => nothing(load, part(&estimate_within::<B>(config, &Load { rows: 0, longest: 0, ..*load }, Some(free)))),
            rows => format!("rows of {} tokens are not cut: leave out those of more than {rows}", load.longest),
        });
        match most(&offloading) {
            _ if !load.trains || load.offload => {}
            0 => {}
            rows => hints.push(format!("optimizer.offload = true with recompute = true would fit up to {rows} tokens")),
        }
        match most(&adapting) {
            _ if !load.trains || load.lora.is_some() => {}
            0 => {}
            rows => hints.push(format!(
                "lora = {{ rank = {ADVISED_RANK} }} with recompute = true would fit up to {rows} tokens"
            )),
        }
    }
    Err(error.hint(hints.join("; ")))
}

/// Rank of the adapters that are offered where whole training does not fit.
const ADVISED_RANK: usize = 16;

/// Where the batch is not what is too large.
fn nothing(load: &Load, fixed: u64) -> String {
    let instead = match (load.trains, load.lora) {
        (true, None) => "train adapters (LoRA), or take a smaller model or KV cache",
        _ => "take a smaller model or KV cache",
    };
    match load.most_rows() {
        0 => instead.to_owned(),
        _ => format!("no micro-batch would fit: what does not depend on it is {}; {instead}", size(fixed)),
    }
}

/// The longest micro-batch up to about the load's that fits, in steps of 64 tokens; 0 where not even 64 do.
fn most_rows<B: Backend>(config: &Config, load: &Load, free: u64, part: fn(&Estimate) -> u64) -> usize {
    let of = |steps: usize| Load { rows: 64 * steps, longest: 0, ..*load };
    let fits = |steps: usize| part(&estimate_within::<B>(config, &of(steps), Some(free))) <= free;
    let (mut low, mut high) = (0, load.most_rows().div_ceil(64) + 1);
    while high - low > 1 {
        let middle = low + (high - low) / 2;
        if fits(middle) { low = middle } else { high = middle }
    }
    64 * low
}

#[cfg(test)]
mod tests;
