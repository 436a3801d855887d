//! A model being trained: forward, backward, update, for whatever objective.

mod devices;
mod passes;

use std::path::Path;

use devices::Devices;

use super::batch::{MicroBatch, Sequence, pack};
use super::checkpoint::{TensorReader, write_tensors};
use super::objective::LossOutputs;
use super::optimizer::OptimizerConfig;
use crate::backend::{Backend, Cpu};
use crate::error::{Error, Result};
use crate::model::memory::{self, Limits, Load};
use crate::model::{Dtype, Grads, Model, Moments, ParamInfo, Scores, SharedModel};

/// A policy with its gradients, optimizer state and activations.
pub struct Learner<B: Backend = Cpu> {
    model: SharedModel<B>,
    devices: Devices<B>,
    /// Of each device.
    grads: Vec<Grads<B>>,
    /// Of each device: the state of what it owns.
    moments: Vec<Moments<B>>,
    config: OptimizerConfig,
    /// Tokens of a micro-batch beyond which it is slower.
    cached_rows: usize,
    /// Bytes that micro-batches leave of the fullest device, where that tells.
    left: u64,
    /// Updates applied so far: AdamW's bias correction counts these, not the skipped ones.
    updates: u64,
    /// Updates refused in a row because a gradient was not finite.
    bad_steps: u32,
    /// Whether a loss of the batch being accumulated was not finite.
    poisoned: bool,
}

/// What became of one optimizer step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Applied {
    /// L2 norm of the gradient before clipping; not finite if the update was refused for that.
    pub grad_norm: f64,
    /// Whether the gradient was scaled down.
    pub clipped: bool,
    /// Whether the weights changed.
    pub applied: bool,
}

/// Counters of a [`Learner`] that a checkpoint keeps beside its tensors.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LearnerState {
    /// Updates that changed the weights: the t of Adam's bias correction.
    pub updates: u64,
    /// Updates in a row, up to now, whose gradient was not finite.
    pub bad_steps: u32,
}

impl<B: Backend> Learner<B> {
    /// # Errors
    /// A usage error if a setting is out of range.
    pub fn new(model: SharedModel<B>, config: OptimizerConfig) -> Result<Self> {
        config.validate()?;
        let (devices, grads, moments, cached_rows) = {
            let model = model.read();
            let moments = model.moments_of_owners(config.offload);
            let cached_rows = memory::cached_rows::<B>(model.config());
            (Devices::new(&model, false), model.grads_everywhere(), moments, cached_rows)
        };
        let (left, updates, bad_steps, poisoned) = (0, 0, 0, false);
        Ok(Learner { model, devices, grads, moments, config, cached_rows, left, updates, bad_steps, poisoned })
    }

    /// Plans memory for micro-batches of up to `rows` tokens, or of the `longest` row of data, which is not cut, before
    /// the first step where the device wants that;
    /// `recompute` makes activations again in the backward pass instead of keeping them.
    ///
    /// # Errors
    /// Where the device does not have as much, with the micro-batch that would fit.
    pub fn with_memory(mut self, rows: usize, longest: usize, recompute: bool) -> Result<Self> {
        let model = self.model.read();
        if recompute {
            self.devices = Devices::new(&model, true);
        }
        if B::RESERVES {
            // Out of memory while gradients and moments were made is said here too.
            model.backend().finish()?;
            let free = (0..model.devices()).filter_map(|device| model.on(device).backend().free_bytes()).min();
            if let Some(free) = free {
                let load = Load { rows, longest, recompute, trains: true, lora: model.rank(), ..Load::default() };
                let batch = memory::check_batch::<B>(model.config(), &load, free)?;
                self.left = free - (batch.activations + batch.workspace);
            }
            self.devices.reserve(&model, rows.max(longest))?;
        }
        drop(model);
        Ok(self)
    }

    /// Keeps logits for the backward pass where the device has memory for it beside an engine of these limits. Call it
    /// before that engine takes its cache.
    ///
    /// # Errors
    /// Where the memory is not there after all.
    pub fn keep_logits(&mut self, engine: Limits) -> Result<()> {
        let model = self.model.read();
        match memory::logits_room::<B>(model.config(), self.left, Some(engine)) {
            0 => Ok(()),
            bytes => self.devices.keep_logits(&model, bytes),
        }
    }

    /// The policy.
    pub fn model(&self) -> &SharedModel<B> {
        &self.model
    }

    /// Most tokens of prompt and completion together.
    pub fn context(&self) -> usize {
        self.model.read().config().context
    }

    /// Packs sequences as [`pack`] does, into micro-batches of at most `budget` tokens, and fewer where that is faster:
    /// every device is to have a share.
    pub fn pack(&self, sequences: &[&Sequence], unit: usize, budget: usize) -> Vec<MicroBatch> {
        let budget = budget.min(self.cached_rows);
        match self.grads.len() {
            1 => pack(sequences, unit, budget),
            devices => {
                let rows: usize = sequences.iter().map(|sequence| sequence.rows()).sum();
                pack(sequences, unit, budget.min(rows.div_ceil(devices)).max(1))
            }
        }
    }

    /// Logprobs and entropies of each micro-batch under the policy as it is.
    ///
    /// # Errors
    /// If a batch does not fit the model.
    pub fn score(&mut self, micros: &[MicroBatch]) -> Result<Vec<Scores>> {
        self.devices.score(&self.model.read(), micros)
    }

    /// The same under another model of the same shape, such as the reference; shares the activations.
    ///
    /// # Errors
    /// If a batch does not fit the model.
    pub fn score_with(&mut self, model: &Model<B>, micros: &[MicroBatch]) -> Result<Vec<Scores>> {
        self.devices.score(model, micros)
    }

    /// Adds the micro-batches' gradients, in their order: forward, `loss` (of the micro-batch of this index), backward.
    /// Returns what each forward pass and its loss gave. A gradient that is not finite is not propagated; the following
    /// [`Learner::step`] refuses the whole batch.
    ///
    /// # Errors
    /// If a batch does not fit the model or `loss` fails.
    pub fn accumulate(
        &mut self,
        micros: &[MicroBatch],
        loss: impl Fn(usize, &Scores) -> Result<LossOutputs> + Sync,
    ) -> Result<Vec<(Scores, LossOutputs)>> {
        let passed = self.devices.accumulate(&self.model.read(), micros, &mut self.grads, &loss)?;
        self.poisoned |= passed.iter().any(|(_, outputs)| !passes::is_finite(outputs));
        Ok(passed)
    }

    /// Applies what was accumulated at this learning rate, and clears it.
    ///
    /// A gradient of exactly 0 leaves weights and optimizer state as they are: momentum alone must
    /// not move a policy that learned nothing.
    ///
    /// # Errors
    /// When [`OptimizerConfig::max_bad_steps`] updates in a row had a gradient that is not finite;
    /// `culprits` then names what was trained on.
    pub fn step(&mut self, rate: f64, culprits: impl FnOnce() -> String) -> Result<Applied> {
        let grad_norm = match self.poisoned {
            true => f64::NAN,
            false => {
                let model = self.model.read();
                model.join(&mut self.grads);
                model.norm(&self.grads)
            }
        };
        if !grad_norm.is_finite() {
            // A device that failed gives no number either: that is no gradient to skip.
            self.model.read().backend().finish()?;
        }
        let scale = self.config.clip_scale(grad_norm);
        let applied = grad_norm.is_finite() && grad_norm > 0.0;
        if applied {
            self.updates += 1;
            self.bad_steps = 0;
            let (config, updates) = (&self.config, self.updates);
            let mut model = self.model.write();
            model.update_all(&self.grads, &mut self.moments, |info| config.update(info, rate, updates, scale));
        } else if !grad_norm.is_finite() {
            self.bad_steps += 1;
        }
        self.grads.iter_mut().for_each(Grads::zero);
        self.poisoned = false;
        if self.bad_steps >= self.config.max_bad_steps.max(1) {
            return Err(Error::new(format!(
                "the gradient was not finite {} steps in a row, the last time on {}",
                self.bad_steps,
                culprits()
            ))
            .hint("lower the learning rate, or look at those rows; the last checkpoint is from before"));
        }
        Ok(Applied { grad_norm, clipped: scale < 1.0, applied })
    }

    /// Counters to store beside [`Learner::write`].
    pub fn state(&self) -> LearnerState {
        LearnerState { updates: self.updates, bad_steps: self.bad_steps }
    }

    /// Writes the model (folder `model`, Hugging Face form, f32) and the optimizer's state
    /// (`optimizer.safetensors`) to a folder.
    ///
    /// # Errors
    /// When a file cannot be written, or the device has failed.
    pub fn write(&self, dir: &Path) -> Result<()> {
        let model = &*self.model.read();
        model.save(&dir.join(MODEL), Dtype::F32)?;
        let adapters = model.adapters().iter().map(|info| {
            let value = move || model.get_adapter(info);
            (format!("{}.value", info.name), info.shape.clone(), Box::new(value) as Box<dyn Fn() -> Vec<f32>>)
        });
        let moments = model.trained().iter().flat_map(|info| {
            let moments = &self.moments[model.owner(info)];
            let part = move |i: usize| move || moments.get(info)[i].clone();
            [
                (format!("{}.first", info.name), info.shape.clone(), Box::new(part(0)) as Box<dyn Fn() -> Vec<f32>>),
                (format!("{}.second", info.name), info.shape.clone(), Box::new(part(1))),
            ]
        });
        write_tensors(&dir.join(OPTIMIZER), moments.chain(adapters))?;
        // What a failed device said is no state to continue from.
        model.backend().finish()
    }

    /// Continues from what [`Learner::write`] and [`Learner::state`] gave, bit for bit.
    ///
    /// # Errors
    /// When a file is missing or damaged, or holds other tensors than the model has.
    pub fn read(&mut self, dir: &Path, state: LearnerState) -> Result<()> {
        let mut model = self.model.write();
        load_weights(&mut model, &dir.join(MODEL))?;
        let mut reader = TensorReader::open(&dir.join(OPTIMIZER))?;
        let mut part = |info: &ParamInfo, name: &str| reader.get(&format!("{}.{name}", info.name), &info.shape);
        for info in model.trained() {
            let (first, second) = (part(info, "first")?, part(info, "second")?);
            self.moments[model.owner(info)].set(info, [&first, &second]);
        }
        for info in model.adapters().to_vec() {
            let values = part(&info, "value")?;
            model.set_adapter(&info, &values);
        }
        self.grads.iter_mut().for_each(Grads::zero);
        (self.updates, self.bad_steps, self.poisoned) = (state.updates, state.bad_steps, false);
        Ok(())
    }
}

const MODEL: &str = "model";
const OPTIMIZER: &str = "optimizer.safetensors";

/// Replaces a model's weights by those of a Hugging Face folder, bit for bit if they are f32 there.
///
/// # Errors
/// When the folder is damaged or holds a model of another shape.
pub(super) fn load_weights<B: Backend>(model: &mut Model<B>, dir: &Path) -> Result<()> {
    let stored = Model::load_on(model.backend().clone(), dir)?;
    if stored.parameters() != model.parameters() {
        return Err(Error::new("the checkpoint holds a model of another shape")
            .in_file(dir.display())
            .hint("use another output folder, or the same base model"));
    }
    copy_weights(&stored, model);
    Ok(())
}

/// Makes `to` an equal copy of `from`, a model of the same shape.
pub(super) fn copy_weights<B: Backend>(from: &Model<B>, to: &mut Model<B>) {
    assert!(from.parameters() == to.parameters(), "weights of one shape go into a model of another");
    for info in from.parameters() {
        to.set(info, &from.get(info));
    }
    to.publish();
}

#[cfg(test)]
mod tests {
    use super::super::batch::{Sequence, pack};
    use super::super::trainer::testing::{bits, shared, tiny_model};
    use super::*;
    use crate::model::LoraConfig;

    fn outputs(gradient: f32, tokens: usize) -> Result<LossOutputs> {
        let logprob_gradient = vec![gradient; tokens];
        Ok(LossOutputs { loss: 1.0, logprob_gradient, ..LossOutputs::default() })
    }

    #[test]
    fn a_gradient_that_is_not_finite_is_refused_and_too_many_in_a_row_stop_the_run() {
        let config = OptimizerConfig { max_bad_steps: 3, ..OptimizerConfig::default() };
        let mut learner = Learner::new(shared(1), config).unwrap();
        let sequence = Sequence::completion(&[1, 2], &[3, 4]);
        let micro = &pack(&[&sequence], 1, 100);
        let before = bits(&learner.model().read());
        let culprits = || "prompt 7".to_owned();
        for bad in [f32::NAN, f32::INFINITY] {
            // A good micro-batch beside the bad one does not save the step.
            learner.accumulate(micro, |_, _| outputs(-1.0, 2)).unwrap();
            learner.accumulate(micro, |_, _| outputs(bad, 2)).unwrap();
            let refused = learner.step(0.1, culprits).unwrap();
            assert!(!refused.applied && !refused.grad_norm.is_finite());
        }
        assert_eq!(bits(&learner.model().read()), before);
        assert_eq!(learner.state(), LearnerState { updates: 0, bad_steps: 2 });

        learner.accumulate(micro, |_, _| outputs(-1.0, 2)).unwrap();
        assert!(learner.step(0.1, culprits).unwrap().applied, "nothing of the refused gradients is left");
        assert_eq!(learner.state(), LearnerState { updates: 1, bad_steps: 0 });
        assert_ne!(bits(&learner.model().read()), before);

        for _ in 0..2 {
            learner.accumulate(micro, |_, _| outputs(f32::NAN, 2)).unwrap();
            learner.step(0.1, culprits).unwrap();
        }
        learner.accumulate(micro, |_, _| outputs(f32::NAN, 2)).unwrap();
        let error = learner.step(0.1, culprits).unwrap_err().to_string();
        assert!(error.contains("3 steps in a row") && error.contains("prompt 7"), "{error}");
    }

    #[test]
    fn a_step_without_a_gradient_leaves_weights_and_momentum() {
        let mut learner = Learner::new(shared(1), OptimizerConfig::default()).unwrap();
        let sequence = Sequence::completion(&[1, 2], &[3, 4]);
        let micro = &pack(&[&sequence], 1, 100);
        learner.accumulate(micro, |_, _| outputs(-1.0, 2)).unwrap();
        learner.step(0.1, String::new).unwrap();
        let before = bits(&learner.model().read());
        learner.accumulate(micro, |_, _| outputs(0.0, 2)).unwrap();
        let nothing = learner.step(0.1, String::new).unwrap();
        assert_eq!((nothing.applied, nothing.grad_norm), (false, 0.0));
        assert_eq!(bits(&learner.model().read()), before);
    }

    #[test]
    fn adapters_continue_bit_for_bit() {
        let make = || {
            let lora = LoraConfig { rank: 2, alpha: 4.0 };
            let model = SharedModel::new(tiny_model(1).with_lora(lora, 9).unwrap());
            Learner::new(model, OptimizerConfig::default()).unwrap()
        };
        let sequence = Sequence::completion(&[1, 2], &[3, 4]);
        let micro = &pack(&[&sequence], 1, 100);
        let step = |learner: &mut Learner| {
            learner.accumulate(micro, |_, _| outputs(-1.0, 2)).unwrap();
            assert!(learner.step(0.01, String::new).unwrap().applied);
        };
        let (mut whole, dir) = (make(), tempfile::tempdir().unwrap());
        step(&mut whole);
        whole.write(dir.path()).unwrap();
        let state = whole.state();
        (0..2).for_each(|_| step(&mut whole));
        let mut resumed = make();
        resumed.read(dir.path(), state).unwrap();
        (0..2).for_each(|_| step(&mut resumed));
        assert_eq!(bits(&resumed.model().read()), bits(&whole.model().read()));
        assert_ne!(bits(&whole.model().read()), bits(&tiny_model(1)));
    }

    #[test]
    fn clipping_bounds_the_step_the_optimizer_sees() {
        let step = |max_grad_norm| {
            let config = OptimizerConfig { max_grad_norm, ..OptimizerConfig::default() };
            let mut learner = Learner::new(shared(1), config).unwrap();
            let sequence = Sequence::completion(&[1, 2], &[3, 4]);
            let micro = &pack(&[&sequence], 1, 100);
            learner.accumulate(micro, |_, _| outputs(-100.0, 2)).unwrap();
            learner.step(0.1, String::new).unwrap()
        };
        let (free, held) = (step(0.0), step(1.0));
        assert_eq!((free.clipped, held.clipped), (false, true));
        assert_eq!(free.grad_norm, held.grad_norm, "the norm is reported before clipping");
    }
}
