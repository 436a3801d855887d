//! The embedded model: a decoder-only transformer in Hugging Face form.
//!
//! One decoder covers Llama, Qwen2 and Qwen3 checkpoints (RMSNorm, RoPE, GQA,
//! optional QKV bias, optional QK-norm, SwiGLU, tied or untied head). It is
//! written once over [`Backend`], its backward pass by hand:
//!
//! ```text
//! let mut model = Model::load(dir)?;                    // or Model::init(config, seed)
//! let (mut work, mut grads, mut moments) = (model.workspace(), model.grads(), model.moments());
//! let mut batch = Batch::new();
//! batch.push_completion(&prompt, &completion);
//! let scores = model.forward(&mut work, &batch)?;       // logprob and entropy of each scored token
//! grads.zero();
//! model.backward(&mut work, &batch, &grad_logprob, None, &mut grads)?;
//! model.update(&grads, &mut moments, |info| Update::AdamW(..));
//! ```
//!
//! A model knows tokens, weights and text; it knows nothing of rewards.

mod batch;
mod chat_template;
mod config;
mod decoder;
mod lora;
pub mod memory;
mod parameters;
mod rope;
mod tokenizer;
mod transformer;
mod weights;

pub use batch::{Batch, Scores};
pub use config::{Config, Family};
pub use decoder::{Decoder, Row};
pub use lora::LoraConfig;
pub use parameters::{Grads, Moments, ParamInfo, ParamKind};
pub use rope::RopeScaling;
pub use tokenizer::Tokenizer;
pub use transformer::Workspace;
pub use weights::Dtype;

#[cfg(test)]
mod tests;

use crate::backend::{AdamW, Backend, Cpu, Muon, Param};
use crate::error::Result;
use crate::seed;
use lora::{Frozen, Lora};
use parameters::Layout;

/// A transformer's weights on a backend. Everything that changes during a pass
/// lives in a [`Workspace`], so a model can be read by many threads at once.
pub struct Model<B: Backend = Cpu> {
    backend: B,
    config: Config,
    layout: Layout,
    params: Vec<Param<B>>,
    /// What is trained in place of the parameters, if it is.
    lora: Option<Lora<B>>,
    /// Cosines and sines of every position.
    rope: B::F32,
}

/// What [`Model::update`] does with one tensor.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Update {
    /// Leave it as it is.
    Keep,
    AdamW(AdamW),
    /// For matrices; a tensor of one dimension is an error of the caller.
    Muon(Muon),
}

impl Model<Cpu> {
    /// A fresh model on the CPU; the same config and seed give the same weights.
    pub fn init(config: Config, seed: u64) -> Self {
        Model::init_on(Cpu::new(), config, seed)
    }
}

impl<B: Backend> Model<B> {
    /// A fresh model: matrices and embedding normal with standard deviation
    /// 0.02 (`initializer_range`), those that write to the residual stream divided
    /// by √(2 · layers) (GPT-2), norms 1, biases 0.
    pub fn init_on(backend: B, config: Config, seed: u64) -> Self {
        let mut model = Model::empty(backend, config);
        let base = model.config.raw.get("initializer_range").and_then(serde_json::Value::as_f64).unwrap_or(0.02f64);
        let residual = base / (2.0 * model.config.layers as f64).sqrt();
        for info in model.layout.infos.clone() {
            let values: Vec<f32> = match info.kind {
                ParamKind::Norm => vec![1.0; info.len()],
                ParamKind::Bias => vec![0.0; info.len()],
                ParamKind::Embedding | ParamKind::Head | ParamKind::Matrix => {
                    let out = info.name.ends_with("o_proj.weight") || info.name.ends_with("down_proj.weight");
                    let std = if out { residual } else { base };
                    // One stream a tensor: its weights do not depend on the tensors before it.
                    let mut rng = seed::stream(seed, &info.name, 0);
                    (0..info.len()).map(|_| (rng.normal() * std) as f32).collect()
                }
            };
            model.set(&info, &values);
        }
        model.publish();
        model
    }

    /// All weights 0 and not published.
    fn empty(backend: B, config: Config) -> Self {
        let layout = Layout::new(&config);
        let params = layout.allocate(&backend);
        let table = config.rope_scaling.table(config.rope_theta, config.heads.dim, config.context);
        let mut rope = backend.f32(table.len());
        backend.put_f32(&mut rope, 0, &table);
        Model { backend, config, layout, params, lora: None, rope }
    }

    /// The model's shape.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Where the model's weights and kernels are.
    pub fn backend(&self) -> &B {
        &self.backend
    }

    /// Every tensor, in a fixed order: embedding, layers, last norm, head.
    pub fn parameters(&self) -> &[ParamInfo] {
        &self.layout.infos
    }

    /// Number of weights.
    pub fn size(&self) -> usize {
        self.layout.infos.iter().map(ParamInfo::len).sum()
    }

    /// One tensor's weights, copied to the host.
    pub fn get(&self, info: &ParamInfo) -> Vec<f32> {
        self.backend.get_f32(&self.params[info.param].value, info.range.clone())
    }

    /// Replaces one tensor's weights; call [`Model::publish`] after the last.
    pub fn set(&mut self, info: &ParamInfo, values: &[f32]) {
        assert_eq!(values.len(), info.len(), "values for `{}`", info.name);
        self.backend.put_f32(&mut self.params[info.param].value, info.range.start, values);
    }

    /// Makes weights that were [`set`](Model::set) visible to the kernels.
    pub fn publish(&mut self) {
        for param in &mut self.params {
            self.backend.publish(param);
        }
    }

    /// Trains adapters of low rank in place of the weights from now on (before gradients and optimizer state are
    /// made). The weights stay as they are until the first update; the same seed gives the same adapters.
    ///
    /// # Errors
    /// A rank or alpha that is not positive.
    pub fn with_lora(mut self, config: LoraConfig, seed: u64) -> Result<Self> {
        self.lora = Some(Lora::new(&self.backend, &self.layout, config, seed)?);
        Ok(self)
    }

    /// The adapters' rank, where they are what is trained.
    pub fn rank(&self) -> Option<usize> {
        self.lora.as_ref()?.adapters.first().map(|adapter| adapter.rank)
    }

    /// What is trained, and has gradients and optimizer state: every tensor, or both tensors of every adapter.
    pub fn trained(&self) -> &[ParamInfo] {
        &self.trained_layout().infos
    }

    fn trained_layout(&self) -> &Layout {
        self.lora.as_ref().map_or(&self.layout, |lora| &lora.layout)
    }

    /// Tensors that are not in the weights and that a checkpoint needs beside them: the adapters'.
    pub fn adapters(&self) -> &[ParamInfo] {
        self.lora.as_ref().map_or(&[], |lora| &lora.layout.infos)
    }

    /// One adapter's tensor, copied to the host.
    pub fn get_adapter(&self, info: &ParamInfo) -> Vec<f32> {
        let lora = self.lora.as_ref().expect("an info of `adapters`");
        self.backend.get_f32(lora.stored(info), info.range.clone())
    }

    /// Restores what [`Model::get_adapter`] gave, beside weights that it is folded into already.
    pub fn set_adapter(&mut self, info: &ParamInfo, values: &[f32]) {
        assert_eq!(values.len(), info.len(), "values for `{}`", info.name);
        let lora = self.lora.as_mut().expect("an info of `adapters`");
        self.backend.put_f32(lora.stored_mut(info), 0, values);
    }

    /// Zeroed gradients.
    pub fn grads(&self) -> Grads<B> {
        let frozen = self.lora.as_ref().map(|_| Frozen::new(&self.backend, &self.layout));
        Grads::new(&self.backend, self.trained_layout(), frozen)
    }

    /// Zeroed optimizer state.
    pub fn moments(&self) -> Moments<B> {
        Moments::new(&self.backend, self.trained_layout())
    }

    /// Room for activations; grows with the batches it meets.
    pub fn workspace(&self) -> Workspace<B> {
        Workspace::new(&self.backend, false)
    }

    /// The same, keeping only each layer's input and making the rest again for the backward pass: memory by an order
    /// of magnitude less for a third more work in the layers, and the same bits.
    pub fn recomputing_workspace(&self) -> Workspace<B> {
        Workspace::new(&self.backend, true)
    }

    /// One optimizer step: `rule` says for each of [`Model::trained`] what to do with it.
    pub fn update(&mut self, grads: &Grads<B>, moments: &mut Moments<B>, mut rule: impl FnMut(&ParamInfo) -> Update) {
        let b = &self.backend;
        match &mut self.lora {
            None => {
                for info in &self.layout.infos {
                    step(b, &mut self.params[info.param].value, info, grads, moments, rule(info));
                }
            }
            Some(lora) => {
                // Out with the adapters as they were folded in, in with them as they become.
                let fold = |lora: &Lora<B>, params: &mut [Param<B>], sign: f32| {
                    for (param, place) in params.iter_mut().zip(&lora.places) {
                        if let Some(place) = *place {
                            b.adapter_fold(&mut param.value, &lora.adapters[place], sign);
                        }
                    }
                };
                fold(lora, &mut self.params, -1.0);
                for info in lora.layout.infos.clone() {
                    step(b, lora.stored_mut(&info), &info, grads, moments, rule(&info));
                }
                fold(lora, &mut self.params, 1.0);
            }
        }
        self.publish();
    }
}

/// Updates one tensor of a stored buffer.
fn step<B: Backend>(
    backend: &B,
    value: &mut B::F32,
    info: &ParamInfo,
    grads: &Grads<B>,
    moments: &mut Moments<B>,
    update: Update,
) {
    let (grad, first) = (&grads.stored[info.param], &mut moments.first[info.param]);
    match update {
        Update::Keep => {}
        Update::AdamW(adamw) => {
            let moments = (first, &mut moments.second[info.param]);
            backend.adamw(value, grad, moments, info.range.clone(), &adamw);
        }
        Update::Muon(muon) => {
            assert_eq!(info.shape.len(), 2, "Muon is for matrices, not `{}`", info.name);
            let shape = (info.shape[0], info.shape[1]);
            backend.muon(value, grad, first, info.range.start, shape, &muon);
        }
    }
}
