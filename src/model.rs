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
mod json_object;
mod kv_pages;
mod lora;
pub mod memory;
mod parameters;
mod peft;
mod replicas;
mod rope;
mod shared;
pub mod tensor_file;
mod tokenizer;
mod transformer;
mod weights;
mod workspace;

pub use batch::{Batch, Scores};
pub use chat_template::CHAT_TEMPLATES;
pub use config::{Config, Family};
pub use decoder::{Decoder, Row};
pub use kv_pages::KvPages;
pub use lora::LoraConfig;
pub use parameters::{Grads, Moments, ParamInfo, ParamKind};
pub use rope::RopeScaling;
pub use shared::SharedModel;
pub use tokenizer::Tokenizer;
pub use weights::Dtype;
pub use workspace::Workspace;

#[cfg(test)]
mod tests;

use rayon::iter::{IntoParallelRefIterator, ParallelIterator};

use crate::backend::{AdamW, Backend, Cpu, Muon, Param};
use crate::error::{Error, Result};
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
    /// Where the logits are divided by a temperature other than 1.
    tempered: Option<Tempered<B>>,
    /// The same model on the backend's peers; they have no copies of their own.
    copies: Vec<Model<B>>,
}

/// A temperature, and the last norm's weights divided by it: what the head reads is linear in them, so its logits are
/// divided too, by the trainer's pass and the sampler's alike and with no operation of its own.
struct Tempered<B: Backend> {
    temperature: f32,
    norm: Param<B>,
}

/// What [`Model::update`] does with one tensor.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Update {
    /// Leave it as it is.
    Keep,
    /// For tensors of any shape: moments are kept for each element.
    AdamW(AdamW),
    /// For matrices; a tensor of one dimension is an error of the caller.
    Muon(Muon),
}

/// Fresh weights that lie on the host at a time, on their way to the device: a gigabyte of them.
const DRAWN_AT_ONCE: usize = 1 << 28;

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
        let draw = |info: &ParamInfo| match info.kind {
            ParamKind::Norm => vec![1.0; info.len()],
            ParamKind::Bias => vec![0.0; info.len()],
            ParamKind::Embedding | ParamKind::Head | ParamKind::Matrix => {
                let out = info.name.ends_with("o_proj.weight") || info.name.ends_with("down_proj.weight");
                let std = if out { residual } else { base };
                // One stream a tensor: its weights do not depend on the tensors before it.
                let mut rng = seed::stream(seed, &info.name, 0);
                (0..info.len()).map(|_| (rng.normal() * std) as f32).collect::<Vec<f32>>()
            }
        };
        let infos = model.layout.infos.clone();
        let mut left = &infos[..];
        while !left.is_empty() {
            // Tensors that are drawn at once; a single one may be larger.
            let mut weights = 0;
            let fit = left.iter().take_while(|info| {
                weights += info.len();
                weights <= DRAWN_AT_ONCE
            });
            let (group, rest) = left.split_at(fit.count().max(1));
            let drawn: Vec<Vec<f32>> = group.par_iter().map(draw).collect();
            group.iter().zip(drawn).for_each(|(info, values)| model.set(info, &values));
            left = rest;
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
        let copies = backend.peers().into_iter().map(|peer| Model::empty(peer, config.clone())).collect();
        Model { backend, config, layout, params, lora: None, rope, tempered: None, copies }
    }

    /// Makes this π_T from now on, the policy whose logits are divided by `temperature`: what a sampler at that
    /// temperature draws from. Scores, their gradients and what is decoded are of π_T; weights, digest and what
    /// [`Model::save`] writes stay π's, and their gradients are by them.
    ///
    /// # Errors
    /// A temperature that is not above 0.
    pub fn set_temperature(&mut self, temperature: f32) -> Result<()> {
        if !(temperature.is_finite() && temperature > 0.0) {
            return Err(Error::usage(format!("a policy at temperature {temperature}"))
                .in_field("temperature")
                .hint("it must be above 0"));
        }
        self.temper(temperature);
        self.copies.iter_mut().for_each(|copy| copy.temper(temperature));
        self.publish();
        Ok(())
    }

    fn temper(&mut self, temperature: f32) {
        let norm = &self.params[self.layout.final_norm];
        let (rows, cols) = (norm.rows, norm.cols);
        self.tempered = (temperature != 1.0).then(|| Tempered {
            temperature,
            norm: Param {
                value: self.backend.f32(rows * cols),
                ready: self.backend.ready(rows, cols, false),
                rows,
                cols,
            },
        });
    }

    /// What the logits are divided by.
    pub fn temperature(&self) -> f32 {
        self.tempered.as_ref().map_or(1.0, |tempered| tempered.temperature)
    }

    /// The last norm's weights, as passes and decoding read them.
    fn last_norm(&self) -> &Param<B> {
        self.tempered.as_ref().map_or(&self.params[self.layout.final_norm], |tempered| &tempered.norm)
    }

    /// The model's shape.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Has the model that [`Model::save`] writes stop at this token first, and at those it stopped at before: it was
    /// trained to end with it.
    pub fn end_with(&mut self, token: u32) {
        self.config.end_with(token);
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

    /// Makes weights that were [`set`](Model::set) visible to the kernels, on every device.
    pub fn publish(&mut self) {
        self.spread_weights();
        self.publish_here();
        self.copies.iter_mut().for_each(Model::publish_here);
    }

    fn publish_here(&mut self) {
        for param in &mut self.params {
            self.backend.publish(param);
        }
        if let Some(Tempered { temperature, norm }) = &mut self.tempered {
            let plain = &self.params[self.layout.final_norm];
            let values = self.backend.get_f32(&plain.value, 0..plain.rows * plain.cols);
            self.backend.put_f32(&mut norm.value, 0, &values.iter().map(|w| w / *temperature).collect::<Vec<_>>());
            self.backend.publish(norm);
        }
    }

    /// Trains adapters of low rank in place of the weights from now on (before gradients and optimizer state are
    /// made). The weights stay as they are until the first update; the same seed gives the same adapters.
    ///
    /// # Errors
    /// A rank or alpha that is not positive.
    pub fn with_lora(mut self, config: LoraConfig, seed: u64) -> Result<Self> {
        for model in &mut self.copies {
            model.lora = Some(Lora::new(&model.backend, &model.layout, config, seed)?);
        }
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
        self.copies.iter_mut().for_each(|copy| copy.set_adapter(info, values));
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
        Moments::new(&self.backend, self.trained_layout(), false, |_| true)
    }

    /// The same in the host's memory, where the device has its own: 8 bytes a weight less of it, and an update as fast
    /// as the bus. The bits are the same.
    pub fn moments_on_host(&self) -> Moments<B> {
        Moments::new(&self.backend, self.trained_layout(), true, |_| true)
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

    /// Room for one of several passes at once, each of which runs on a handle of its own ([`Backend::workers`]).
    pub fn workspace_on(&self, backend: &B, recompute: bool) -> Workspace<B> {
        Workspace::new(backend, recompute)
    }

    /// One optimizer step of a model on one device: `rule` says for each of [`Model::trained`] what to do with it.
    pub fn update(
        &mut self,
        grads: &Grads<B>,
        moments: &mut Moments<B>,
        rule: impl FnMut(&ParamInfo) -> Update + Send,
    ) {
        self.update_all(std::slice::from_ref(grads), std::slice::from_mut(moments), rule);
    }

    fn step_trained(&mut self, grads: &Grads<B>, moments: &mut Moments<B>, rule: &mut dyn FnMut(&ParamInfo) -> Update) {
        let b = &self.backend;
        match &mut self.lora {
            None => {
                for info in &self.layout.infos {
                    step(b, &mut self.params[info.param].value, info, grads, moments, rule(info));
                }
            }
            Some(lora) => {
                for info in lora.layout.infos.clone() {
                    step(b, lora.stored_mut(&info), &info, grads, moments, rule(&info));
                }
            }
        }
    }

    /// Adds the adapters' products to the weights, or takes them out (`sign` −1) as they were folded in.
    fn merge_adapters(&mut self, sign: f32) {
        let Some(lora) = &self.lora else { return };
        for (param, place) in self.params.iter_mut().zip(&lora.places) {
            if let Some(place) = *place {
                self.backend.adapter_merge(&mut param.value, &lora.adapters[place], sign);
            }
        }
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
