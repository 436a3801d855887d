//! Micro-batches dealt to the devices that hold a copy of the model.
//!
//! Micro-batch i goes to device i mod D, and each device takes its own in their order. So what is added to which
//! gradient depends on the micro-batches and on D, and on nothing else. Losses and scores come back in the order of
//! the micro-batches.

use super::super::batch::MicroBatch;
use super::super::objective::LossOutputs;
use super::passes::{Passed, Passes};
use crate::backend::Backend;
use crate::error::{Error, Result};
use crate::model::{Grads, Model, Scores};

/// Room for the passes of every device.
pub(super) struct Devices<B: Backend> {
    passes: Vec<Passes<B>>,
}

impl<B: Backend> Devices<B> {
    pub fn new(model: &Model<B>, recompute: bool) -> Self {
        Devices { passes: (0..model.devices()).map(|device| Passes::new(model.on(device), recompute)).collect() }
    }

    /// Takes the memory of micro-batches of up to `rows` tokens.
    ///
    /// # Errors
    /// Where a device does not have as much.
    pub fn reserve(&mut self, model: &Model<B>, rows: usize) -> Result<()> {
        let mut devices = self.passes.iter_mut().enumerate();
        devices.try_for_each(|(device, passes)| passes.reserve(model.on(device), rows))
    }

    /// Keeps logits for the backward pass in `bytes` of every device's memory.
    ///
    /// # Errors
    /// Where a device does not have as much.
    pub fn keep_logits(&mut self, model: &Model<B>, bytes: u64) -> Result<()> {
        let mut devices = self.passes.iter_mut().enumerate();
        devices.try_for_each(|(device, passes)| passes.keep_logits(model.on(device), bytes))
    }

    pub fn score(&mut self, model: &Model<B>, micros: &[MicroBatch]) -> Result<Vec<Scores>> {
        if let [passes] = &mut self.passes[..] {
            return passes.score(model, &micros.iter().collect::<Vec<_>>());
        }
        let devices = self.passes.iter_mut().map(|passes| (passes, ()));
        at_once(model, micros, devices, |model, passes, (), dealt| passes.score(model, &dealt.micros))
    }

    /// Adds each micro-batch's gradient to those of its device.
    pub fn accumulate(
        &mut self,
        model: &Model<B>,
        micros: &[MicroBatch],
        grads: &mut [Grads<B>],
        loss: &(impl Fn(usize, &Scores) -> Result<LossOutputs> + Sync),
    ) -> Result<Vec<Passed>> {
        if let ([passes], [grads]) = (&mut self.passes[..], &mut *grads) {
            return passes.accumulate(model, &micros.iter().collect::<Vec<_>>(), grads, loss);
        }
        at_once(model, micros, self.passes.iter_mut().zip(grads), |model, passes, grads, dealt| {
            passes.accumulate(model, &dealt.micros, grads, &|i, scores: &Scores| loss(dealt.indices[i], scores))
        })
    }
}

/// A device's share of the micro-batches.
struct Dealt<'a> {
    indices: Vec<usize>,
    micros: Vec<&'a MicroBatch>,
}

/// Runs `work` for every device's share, each on a thread of its own, and puts what comes back in order.
fn at_once<'p, B: Backend, G: Send, R: Send>(
    model: &Model<B>,
    micros: &[MicroBatch],
    devices: impl Iterator<Item = (&'p mut Passes<B>, G)>,
    work: impl Fn(&Model<B>, &mut Passes<B>, G, &Dealt<'_>) -> Result<Vec<R>> + Sync,
) -> Result<Vec<R>> {
    let count = model.devices();
    let deal = |device: usize| {
        let indices: Vec<usize> = (device..micros.len()).step_by(count).collect();
        Dealt { micros: indices.iter().map(|&i| &micros[i]).collect(), indices }
    };
    let results: Vec<Result<Vec<R>>> = std::thread::scope(|scope| {
        let work = &work;
        let threads: Vec<_> = devices
            .enumerate()
            .map(|(device, (passes, grads))| {
                let dealt = deal(device);
                scope.spawn(move || work(model.on(device), passes, grads, &dealt))
            })
            .collect();
        let joined = |thread: std::thread::ScopedJoinHandle<'_, _>| {
            thread.join().unwrap_or_else(|_| Err(Error::new("a device's passes panicked")))
        };
        threads.into_iter().map(joined).collect()
    });
    let mut shares = results.into_iter().map(|share| share.map(Vec::into_iter)).collect::<Result<Vec<_>>>()?;
    Ok((0..micros.len()).map(|i| shares[i % count].next().expect("a result for each micro-batch")).collect())
}

#[cfg(test)]
mod tests {
    use super::super::super::batch::Sequence;
    use super::super::super::optimizer::{OptimizerConfig, OptimizerKind};
    use super::super::super::trainer::testing::{CONTEXT, VOCAB, bits};
    use super::super::Learner;
    use crate::backend::{Cpu, Heads};
    use crate::model::{Config, LoraConfig, Model, SharedModel};
    use crate::train::objective::LossOutputs;

    fn model(devices: usize, lora: bool) -> SharedModel {
        let config =
            Config::fresh(VOCAB as usize, 16, 32, 2, Heads { query: 2, kv: 1, dim: 8 }, CONTEXT, &[0]).unwrap();
        let model = Model::init_on(Cpu::new().as_devices(devices), config, 1);
        assert_eq!(model.devices(), devices);
        let lora = lora.then_some(LoraConfig { rank: 2, alpha: 4.0 });
        SharedModel::new(match lora {
            Some(lora) => model.with_lora(lora, 2).unwrap(),
            None => model,
        })
    }

    fn learner(devices: usize, kind: OptimizerKind, lora: bool) -> Learner {
        let config = OptimizerConfig { kind, max_grad_norm: 0.5, ..OptimizerConfig::default() };
        Learner::new(model(devices, lora), config).unwrap()
    }

    fn sequences() -> Vec<Sequence> {
        let sequence = |i: u32| {
            let tokens: Vec<u32> = (0..5 + i % 7).map(|t| (t * 5 + i) % VOCAB).collect();
            Sequence::completion(&tokens[..2], &tokens[2..])
        };
        (0..24).map(sequence).collect()
    }

    /// A step on all sequences, in micro-batches of at most so many tokens; the gradient's norm.
    fn step(learner: &mut Learner, budget: usize) -> f64 {
        let sequences = sequences();
        let micros = learner.pack(&sequences.iter().collect::<Vec<_>>(), 1, budget);
        let loss = |i: usize, scores: &crate::model::Scores| {
            let logprob_gradient = vec![-0.1 - i as f32 * 0.01; scores.logprobs.len()];
            Ok(LossOutputs { loss: i as f64, logprob_gradient, ..LossOutputs::default() })
        };
        let passed = learner.accumulate(&micros, loss).unwrap();
        assert!(passed.iter().enumerate().all(|(i, (_, outputs))| outputs.loss == i as f64), "in their order");
        let again = learner.score(&micros).unwrap();
        assert!(again.iter().zip(&passed).all(|(scores, (before, _))| scores.logprobs == before.logprobs));
        let applied = learner.step(0.01, String::new).unwrap();
        assert!(applied.applied && applied.clipped);
        applied.grad_norm
    }

    fn weights(learner: &Learner) -> Vec<Vec<u32>> {
        let model = learner.model().read();
        (0..model.devices()).map(|device| bits(model.on(device))).collect()
    }

    #[test]
    fn several_devices_train_as_one_does_and_agree_to_the_bit() {
        for kind in [OptimizerKind::Adamw, OptimizerKind::Muon] {
            for lora in [false, true] {
                // Micro-batches so small that packing them for several devices makes the same ones.
                let mut one = learner(1, kind, lora);
                let norms: Vec<f64> = (0..3).map(|_| step(&mut one, 12)).collect();
                let alone = weights(&one).remove(0);
                for devices in [2, 3, 5] {
                    let run = || {
                        let mut learner = learner(devices, kind, lora);
                        let norms: Vec<f64> = (0..3).map(|_| step(&mut learner, 12)).collect();
                        (norms, weights(&learner))
                    };
                    let (found, copies) = run();
                    assert_eq!(run(), (found.clone(), copies.clone()), "the same bits again");
                    assert!(copies.iter().all(|copy| *copy == copies[0]), "{devices} devices hold one model");
                    for (one, several) in norms.iter().zip(&found) {
                        assert!((one - several).abs() < 1e-5 * one, "{kind:?}, {devices} devices: {several} for {one}");
                    }
                    let differs = alone.iter().zip(&copies[0]).map(|(a, b)| f32::from_bits(*a) - f32::from_bits(*b));
                    let most = differs.map(f32::abs).fold(0.0, f32::max);
                    assert!(most < 2e-3, "{kind:?}, lora {lora}, {devices} devices: weights differ by {most}");
                }
            }
        }
    }

    #[test]
    fn a_checkpoint_of_several_devices_continues_there_to_the_bit_and_on_one() {
        for lora in [false, true] {
            let dir = tempfile::tempdir().unwrap();
            let mut whole = learner(3, OptimizerKind::Adamw, lora);
            step(&mut whole, 12);
            whole.write(dir.path()).unwrap();
            let state = whole.state();
            step(&mut whole, 12);
            let mut resumed = learner(3, OptimizerKind::Adamw, lora);
            resumed.read(dir.path(), state).unwrap();
            step(&mut resumed, 12);
            assert_eq!(weights(&resumed), weights(&whole));
            let mut alone = learner(1, OptimizerKind::Adamw, lora);
            alone.read(dir.path(), state).unwrap();
            step(&mut alone, 12);
            let (alone, whole) = (weights(&alone).remove(0), weights(&whole).remove(0));
            let close = |(a, b): (&u32, &u32)| (f32::from_bits(*a) - f32::from_bits(*b)).abs() < 2e-3;
            assert!(alone.iter().zip(&whole).all(close));
        }
    }

    #[test]
    fn a_batch_is_packed_so_that_every_device_has_a_share() {
        let sequences = sequences();
        let all: Vec<&Sequence> = sequences.iter().collect();
        for devices in [1, 2, 5] {
            let micros = learner(devices, OptimizerKind::Adamw, false).pack(&all, 1, 100_000);
            assert!(micros.len() >= devices, "{} micro-batches for {devices} devices", micros.len());
        }
    }
}
