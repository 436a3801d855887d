//! LoRA (Hu et al. 2021): matrices are trained through a product of two thin ones.
//!
//! W = W₀ + (α/r) B A, A `[r, in]`, B `[out, r]`; only A and B have gradients and optimizer state. Here the product is
//! folded into the weights after each update, so that nothing else knows of it: forward pass, decoding, saving and
//! digests see plain weights, and sampling costs nothing more. Gradients of A and B come from that of W, which exists
//! for one matrix at a time: dA = (α/r) Bᵀ dW, dB = (α/r) dW Aᵀ.
//!
//! Projections that are stored as one matrix (query, key and value; gate and up) share their A and are named after the
//! first of them. Embedding, head, norms
//! and biases stay as they are.

use serde::{Deserialize, Serialize};

use super::parameters::{Layout, ParamInfo, ParamKind};
use crate::backend::{Adapter, Backend};
use crate::error::{Error, Result};
use crate::seed;

/// Size and strength of the adapters.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LoraConfig {
    /// r, the rank of the change to a matrix.
    pub rank: usize,
    /// α; the change is scaled by α/r.
    pub alpha: f32,
}

impl Default for LoraConfig {
    fn default() -> Self {
        LoraConfig { rank: 16, alpha: 32.0 }
    }
}

/// A model's adapters, two stored tensors for each matrix: A, then B.
pub(super) struct Lora<B: Backend> {
    /// By stored parameter of the model.
    pub places: Vec<Option<usize>>,
    pub adapters: Vec<Adapter<B>>,
    pub layout: Layout,
}

impl<B: Backend> Lora<B> {
    /// A uniform in ±1/√in (as in the authors' code), B 0: the model starts as it was.
    pub fn new(backend: &B, model: &Layout, config: LoraConfig, seed: u64) -> Result<Self> {
        let LoraConfig { rank, alpha } = config;
        if rank == 0 || !(alpha.is_finite() && alpha > 0.0) {
            return Err(Error::usage(format!("LoRA of rank {rank} and alpha {alpha}"))
                .hint("both must be positive: rank 16 and alpha 32 are common"));
        }
        let mut lora = Lora { places: vec![None; model.stored.len()], adapters: Vec::new(), layout: Layout::empty() };
        for info in &model.infos {
            if info.kind != ParamKind::Matrix || lora.places[info.param].is_some() {
                continue;
            }
            let (rows, cols, _) = model.stored[info.param];
            let name = |part: &str| format!("{}.{part}.weight", info.name.trim_end_matches(".weight"));
            let mut adapter = Adapter {
                a: backend.f32(rank * cols),
                b: backend.f32(rows * rank),
                rank,
                shape: (rows, cols),
                scale: alpha / rank as f32,
            };
            let mut rng = seed::stream(seed, &name("lora_A"), 0);
            let bound = 1.0 / (cols as f64).sqrt();
            let values: Vec<f32> = (0..rank * cols).map(|_| ((2.0 * rng.uniform() - 1.0) * bound) as f32).collect();
            backend.put_f32(&mut adapter.a, 0, &values);
            lora.places[info.param] = Some(lora.adapters.len());
            lora.adapters.push(adapter);
            lora.layout.matrix(&[(name("lora_A"), rank)], cols, ParamKind::Matrix, false);
            lora.layout.matrix(&[(name("lora_B"), rows)], rank, ParamKind::Matrix, false);
        }
        Ok(lora)
    }

    /// The stored tensor of one of [`Lora::layout`]'s.
    pub fn stored(&self, info: &ParamInfo) -> &B::F32 {
        let adapter = &self.adapters[info.param / 2];
        if info.param.is_multiple_of(2) { &adapter.a } else { &adapter.b }
    }

    /// The same, to be changed.
    pub fn stored_mut(&mut self, info: &ParamInfo) -> &mut B::F32 {
        let adapter = &mut self.adapters[info.param / 2];
        if info.param.is_multiple_of(2) { &mut adapter.a } else { &mut adapter.b }
    }
}

/// What a backward pass of frozen parameters writes and nobody reads, and the gradient of the matrix at hand.
pub(super) struct Frozen<B: Backend> {
    pub matrix: B::F32,
    pub vectors: [B::F32; 2],
}

impl<B: Backend> Frozen<B> {
    pub fn new(backend: &B, model: &Layout) -> Self {
        let matrices = model.infos.iter().filter(|info| info.kind == ParamKind::Matrix);
        let matrix = matrices.map(|info| elements(model, info.param)).max().unwrap_or(0);
        let norms = model.infos.iter().filter(|info| info.kind == ParamKind::Norm);
        let vector = norms.map(|info| elements(model, info.param)).max().unwrap_or(0);
        Frozen { matrix: backend.f32(matrix), vectors: [0; 2].map(|_| backend.f32(vector)) }
    }
}

/// Elements of a stored parameter.
fn elements(layout: &Layout, param: usize) -> usize {
    let (rows, cols, _) = layout.stored[param];
    rows * cols
}
