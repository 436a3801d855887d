//! The parameters of a model: which tensors it has, under which names, and where they are stored.
//!
//! Query, key and value projections lie one after the other in one matrix, and
//! so do gate and up, so that one GEMM computes them; rows of a `[out, in]`
//! matrix are contiguous, so each keeps its Hugging Face name as a range of rows.

use std::ops::Range;

use super::config::Config;
use super::lora::Frozen;
use crate::backend::{Backend, Param};

/// What a tensor is, which decides how the optimizer treats it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ParamKind {
    /// The token embedding; also the head where the two are tied.
    Embedding,
    /// An untied head.
    Head,
    /// A linear layer's matrix: what Muon is for.
    Matrix,
    /// A norm's weight.
    Norm,
    /// A bias.
    Bias,
}

/// One named tensor of a model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParamInfo {
    /// As in Hugging Face checkpoints, such as `model.layers.0.self_attn.q_proj.weight`.
    pub name: String,
    /// One or two dimensions, `[out, in]`.
    pub shape: Vec<usize>,
    /// Decides the update rule and whether weight decay applies.
    pub kind: ParamKind,
    /// Which stored parameter holds it, and which of its elements.
    pub(super) param: usize,
    pub(super) range: Range<usize>,
}

impl ParamInfo {
    /// Elements of the tensor.
    pub fn len(&self) -> usize {
        self.range.len()
    }

    /// Whether the tensor has no elements; none of a model's has.
    pub fn is_empty(&self) -> bool {
        self.range.is_empty()
    }

    /// Whether weight decay applies: matrices, embedding and head, not norms and biases.
    pub fn decays(&self) -> bool {
        matches!(self.kind, ParamKind::Embedding | ParamKind::Head | ParamKind::Matrix)
    }
}

/// Indexes into the stored parameters of one layer.
#[derive(Clone, Copy, Debug)]
pub(super) struct LayerIndex {
    pub input_norm: usize,
    pub qkv: usize,
    pub qkv_bias: Option<usize>,
    pub qk_norm: Option<(usize, usize)>,
    pub out: usize,
    pub out_bias: Option<usize>,
    pub post_norm: usize,
    pub gate_up: usize,
    pub down: usize,
}

/// Which tensors a model of some config has, and how they are stored.
#[derive(Clone, Debug)]
pub(super) struct Layout {
    pub infos: Vec<ParamInfo>,
    /// `(rows, cols, read by linear layers)` of each stored parameter.
    pub stored: Vec<(usize, usize, bool)>,
    pub embedding: usize,
    pub layers: Vec<LayerIndex>,
    pub final_norm: usize,
    /// Equal to `embedding` where the two are tied.
    pub head: usize,
}

impl Layout {
    /// No tensors.
    pub fn empty() -> Self {
        Layout { infos: Vec::new(), stored: Vec::new(), embedding: 0, layers: Vec::new(), final_norm: 0, head: 0 }
    }

    pub fn new(config: &Config) -> Self {
        let mut layout = Layout::empty();
        let (hidden, dim) = (config.hidden_size, config.heads.dim);
        let (query, kv) = (config.heads.query * dim, config.heads.kv * dim);
        let embedding = [("model.embed_tokens.weight".to_owned(), config.vocab_size)];
        layout.embedding = layout.matrix(&embedding, hidden, ParamKind::Embedding, config.tied);
        for layer in 0..config.layers {
            let name = |part: &str| format!("model.layers.{layer}.{part}");
            let qkv = [("q_proj", query), ("k_proj", kv), ("v_proj", kv)];
            let part = |suffix: &str| qkv.map(|(proj, rows)| (name(&format!("self_attn.{proj}.{suffix}")), rows));
            let index = LayerIndex {
                input_norm: layout.vector(&[(name("input_layernorm.weight"), hidden)], ParamKind::Norm),
                qkv: layout.matrix(&part("weight"), hidden, ParamKind::Matrix, true),
                qkv_bias: config.qkv_bias.then(|| layout.vector(&part("bias"), ParamKind::Bias)),
                qk_norm: config.qk_norm.then(|| {
                    let q = layout.vector(&[(name("self_attn.q_norm.weight"), dim)], ParamKind::Norm);
                    (q, layout.vector(&[(name("self_attn.k_norm.weight"), dim)], ParamKind::Norm))
                }),
                out: layout.matrix(&[(name("self_attn.o_proj.weight"), hidden)], query, ParamKind::Matrix, true),
                out_bias: config
                    .out_bias
                    .then(|| layout.vector(&[(name("self_attn.o_proj.bias"), hidden)], ParamKind::Bias)),
                post_norm: layout.vector(&[(name("post_attention_layernorm.weight"), hidden)], ParamKind::Norm),
                gate_up: layout.matrix(
                    &["gate_proj", "up_proj"].map(|p| (name(&format!("mlp.{p}.weight")), config.intermediate_size)),
                    hidden,
                    ParamKind::Matrix,
                    true,
                ),
                down: layout.matrix(
                    &[(name("mlp.down_proj.weight"), hidden)],
                    config.intermediate_size,
                    ParamKind::Matrix,
                    true,
                ),
            };
            layout.layers.push(index);
        }
        layout.final_norm = layout.vector(&[("model.norm.weight".to_owned(), hidden)], ParamKind::Norm);
        layout.head = match config.tied {
            true => layout.embedding,
            false => layout.matrix(&[("lm_head.weight".to_owned(), config.vocab_size)], hidden, ParamKind::Head, true),
        };
        layout
    }

    /// Stores matrices of `cols` columns under one another.
    pub fn matrix(&mut self, parts: &[(String, usize)], cols: usize, kind: ParamKind, linear: bool) -> usize {
        let param = self.stored.len();
        let mut row = 0;
        for (name, rows) in parts {
            let range = row * cols..(row + rows) * cols;
            self.infos.push(ParamInfo { name: name.clone(), shape: vec![*rows, cols], kind, param, range });
            row += rows;
        }
        self.stored.push((row, cols, linear));
        param
    }

    /// Stores vectors one after the other.
    fn vector(&mut self, parts: &[(String, usize)], kind: ParamKind) -> usize {
        let param = self.stored.len();
        let mut at = 0;
        for (name, len) in parts {
            self.infos.push(ParamInfo { name: name.clone(), shape: vec![*len], kind, param, range: at..at + len });
            at += len;
        }
        self.stored.push((1, at, false));
        param
    }

    /// Zeroed storage on a backend.
    pub fn allocate<B: Backend>(&self, backend: &B) -> Vec<Param<B>> {
        self.stored
            .iter()
            .map(|&(rows, cols, linear)| Param {
                value: backend.f32(rows * cols),
                ready: backend.ready(rows, cols, linear),
                rows,
                cols,
            })
            .collect()
    }
}

/// Gradients of what is trained, zeroed by [`Grads::zero`] and added to by `backward`.
pub struct Grads<B: Backend> {
    pub(super) backend: B,
    /// As stored by the model, or by its adapters.
    pub(super) stored: Vec<B::F32>,
    /// Where adapters are trained: room for the rest.
    pub(super) frozen: Option<Frozen<B>>,
}

impl<B: Backend> Grads<B> {
    pub(super) fn new(backend: &B, layout: &Layout, frozen: Option<Frozen<B>>) -> Self {
        let stored = layout.stored.iter().map(|&(rows, cols, _)| backend.f32(rows * cols)).collect();
        Grads { backend: backend.clone(), stored, frozen }
    }

    /// Where a vector's gradient goes.
    pub(super) fn vector(&mut self, param: usize) -> &mut B::F32 {
        match &mut self.frozen {
            None => &mut self.stored[param],
            Some(frozen) => &mut frozen.vectors[0],
        }
    }

    /// Where two vectors' gradients go.
    pub(super) fn vectors(&mut self, first: usize, second: usize) -> (&mut B::F32, &mut B::F32) {
        match &mut self.frozen {
            None => {
                let (low, high) = self.stored.split_at_mut(second);
                (&mut low[first], &mut high[0])
            }
            Some(frozen) => {
                let [first, second] = &mut frozen.vectors;
                (first, second)
            }
        }
    }

    /// Sets every gradient to 0.
    pub fn zero(&mut self) {
        for grad in &mut self.stored {
            self.backend.zero_f32(grad);
        }
    }

    /// Adds another model's gradients of the same shape.
    pub fn add(&mut self, other: &Grads<B>) {
        for (sum, term) in self.stored.iter_mut().zip(&other.stored) {
            self.backend.add_f32(sum, term);
        }
    }

    /// The L2 norm over all gradients; not finite if any of them is not.
    pub fn norm(&self) -> f64 {
        self.backend.square_sums(&self.stored.iter().collect::<Vec<_>>()).into_iter().sum::<f64>().sqrt()
    }

    /// One tensor's gradient, copied to the host.
    pub fn get(&self, info: &ParamInfo) -> Vec<f32> {
        self.backend.get_f32(&self.stored[info.param], info.range.clone())
    }
}

/// Optimizer state: two moments for AdamW, the first of which serves Muon as momentum.
pub struct Moments<B: Backend> {
    pub(super) backend: B,
    pub(super) first: Vec<B::F32>,
    pub(super) second: Vec<B::F32>,
}

impl<B: Backend> Moments<B> {
    /// `owned` says of which stored parameters there is any.
    pub(super) fn new(backend: &B, layout: &Layout, on_host: bool, owned: impl Fn(usize) -> bool) -> Self {
        let buffer = |len| if on_host { backend.f32_on_host(len) } else { backend.f32(len) };
        let sizes = layout.stored.iter().enumerate();
        let sizes: Vec<usize> = sizes.map(|(i, &(rows, cols, _))| if owned(i) { rows * cols } else { 0 }).collect();
        let zeroed = || sizes.iter().map(|&len| buffer(len)).collect();
        Moments { backend: backend.clone(), first: zeroed(), second: zeroed() }
    }

    /// Both moments of one tensor, for a checkpoint.
    pub fn get(&self, info: &ParamInfo) -> [Vec<f32>; 2] {
        [&self.first, &self.second].map(|m| self.backend.get_f32(&m[info.param], info.range.clone()))
    }

    /// Restores what [`Moments::get`] gave.
    pub fn set(&mut self, info: &ParamInfo, moments: [&[f32]; 2]) {
        for (stored, values) in [&mut self.first, &mut self.second].into_iter().zip(moments) {
            assert_eq!(values.len(), info.len(), "moments of `{}`", info.name);
            self.backend.put_f32(&mut stored[info.param], info.range.start, values);
        }
    }
}
