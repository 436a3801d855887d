//! Forward and backward passes over the micro-batches of a step, on one device.
//!
//! A large model takes one micro-batch after the other, each on every core. The operations of a small one are too short
//! to be shared out, so there every core has a micro-batch of its own, and their gradients are added in the order of the
//! micro-batches: the same bits on any number of threads, since which of the two it is depends on the model alone.

use rayon::prelude::*;

use super::super::batch::MicroBatch;
use super::super::objective::LossOutputs;
use crate::backend::Backend;
use crate::error::Result;
use crate::model::memory;
use crate::model::{Grads, Model, Scores, Workspace};

/// Room for the passes of one model, or of several of the same shape.
pub(super) enum Passes<B: Backend> {
    InTurn(Workspace<B>),
    AtOnce(Vec<Worker<B>>),
}

/// What one of several passes at once works in.
pub(super) struct Worker<B: Backend> {
    work: Workspace<B>,
    grads: Grads<B>,
}

/// What the passes of a micro-batch gave.
pub(super) type Passed = (Scores, LossOutputs);

/// Whether loss and gradient are numbers.
pub(super) fn is_finite(outputs: &LossOutputs) -> bool {
    outputs.loss.is_finite() && seeds(outputs).all(f32::is_finite)
}

fn seeds(outputs: &LossOutputs) -> impl Iterator<Item = f32> + '_ {
    outputs.logprob_gradient.iter().chain(outputs.entropy_gradient.iter().flatten()).copied()
}

/// Whether there is a gradient to propagate.
fn teaches(outputs: &LossOutputs) -> bool {
    is_finite(outputs) && seeds(outputs).any(|g| g != 0.0)
}

impl<B: Backend> Passes<B> {
    pub fn new(model: &Model<B>, recompute: bool) -> Self {
        if memory::cached_rows::<B>(model.config()) == usize::MAX {
            return Passes::InTurn(if recompute { model.recomputing_workspace() } else { model.workspace() });
        }
        let worker = |backend: B| Worker { work: model.workspace_on(&backend, recompute), grads: model.grads() };
        Passes::AtOnce(model.backend().workers(model.size()).into_iter().map(worker).collect())
    }

    /// Takes the memory of micro-batches of up to `rows` tokens.
    ///
    /// # Errors
    /// Where the device does not have as much.
    pub fn reserve(&mut self, model: &Model<B>, rows: usize) -> Result<()> {
        match self {
            Passes::InTurn(work) => model.reserve(work, rows),
            Passes::AtOnce(workers) => workers.iter_mut().try_for_each(|worker| model.reserve(&mut worker.work, rows)),
        }
    }

    /// Keeps logits for the backward pass in `bytes` of memory.
    ///
    /// # Errors
    /// Where the device does not have as much.
    pub fn keep_logits(&mut self, model: &Model<B>, bytes: u64) -> Result<()> {
        match self {
            Passes::InTurn(work) => model.keep_logits(work, bytes),
            // The logits of a small model's micro-batches are kept anyway.
            Passes::AtOnce(_) => Ok(()),
        }
    }

    pub fn score(&mut self, model: &Model<B>, micros: &[&MicroBatch]) -> Result<Vec<Scores>> {
        match self {
            Passes::InTurn(work) => micros.iter().map(|micro| model.forward(work, &micro.batch)).collect(),
            Passes::AtOnce(workers) => {
                let mut scores = Vec::with_capacity(micros.len());
                for some in micros.chunks(workers.len()) {
                    let pass = |worker: &mut Worker<B>, i: usize| model.forward(&mut worker.work, &some[i].batch);
                    at_once(model.backend(), &mut workers[..some.len()], pass, |_, result| {
                        scores.push(result?);
                        Ok(())
                    })?;
                }
                Ok(scores)
            }
        }
    }

    /// Adds each micro-batch's gradient to `grads`.
    pub fn accumulate(
        &mut self,
        model: &Model<B>,
        micros: &[&MicroBatch],
        grads: &mut Grads<B>,
        loss: &(impl Fn(usize, &Scores) -> Result<LossOutputs> + Sync),
    ) -> Result<Vec<Passed>> {
        let workers = match self {
            Passes::AtOnce(workers) => workers,
            Passes::InTurn(work) => {
                let pass = |(i, micro)| pass(model, micro, work, grads, |scores| loss(i, scores));
                return micros.iter().copied().enumerate().map(pass).collect();
            }
        };
        let mut all = Vec::with_capacity(micros.len());
        for (turn, some) in micros.chunks(workers.len()).enumerate() {
            let first = turn * workers.len();
            let pass = |worker: &mut Worker<B>, i: usize| {
                worker.grads.zero();
                pass(model, some[i], &mut worker.work, &mut worker.grads, |scores| loss(first + i, scores))
            };
            at_once(model.backend(), &mut workers[..some.len()], pass, |worker, result| {
                let passed = result?;
                if teaches(&passed.1) {
                    grads.add(&worker.grads);
                }
                all.push(passed);
                Ok(())
            })?;
        }
        Ok(all)
    }
}

/// Runs `pass(worker, index)` on every worker, then hands the results over in order.
fn at_once<B: Backend, R: Send>(
    backend: &B,
    workers: &mut [Worker<B>],
    pass: impl Fn(&mut Worker<B>, usize) -> R + Sync,
    mut take: impl FnMut(&Worker<B>, R) -> Result<()>,
) -> Result<()> {
    let results: Vec<R> = match workers {
        [worker] => vec![pass(worker, 0)],
        _ => backend.run(|| workers.par_iter_mut().enumerate().with_max_len(1).map(|(i, w)| pass(w, i)).collect()),
    };
    workers.iter().zip(results).try_for_each(|(worker, result)| take(worker, result))
}

/// Forward, loss and backward of one micro-batch.
fn pass<B: Backend>(
    model: &Model<B>,
    micro: &MicroBatch,
    work: &mut Workspace<B>,
    grads: &mut Grads<B>,
    loss: impl FnOnce(&Scores) -> Result<LossOutputs>,
) -> Result<Passed> {
    let scores = model.forward(work, &micro.batch)?;
    let outputs = loss(&scores)?;
    if teaches(&outputs) {
        let (g, h) = (&outputs.logprob_gradient, outputs.entropy_gradient.as_deref());
        model.backward(work, &micro.batch, g, h, grads)?;
    }
    Ok((scores, outputs))
}

#[cfg(test)]
mod tests {
    use super::super::super::batch::{Sequence, pack};
    use super::super::super::trainer::testing::{CONTEXT, VOCAB};
    use super::*;
    use crate::backend::{Cpu, Heads};
    use crate::error::Error;
    use crate::model::Config;

    fn micros() -> Vec<MicroBatch> {
        let sequence = |i: u32| {
            let tokens: Vec<u32> = (0..5 + i % 7).map(|t| (t * 5 + i) % VOCAB).collect();
            Sequence::completion(&tokens[..2], &tokens[2..])
        };
        let sequences: Vec<Sequence> = (0..24).map(sequence).collect();
        pack(&sequences.iter().collect::<Vec<_>>(), 1, 24)
    }

    fn gradient(threads: usize, micros: &[MicroBatch]) -> (Vec<u32>, f64) {
        let config =
            Config::fresh(VOCAB as usize, 16, 32, 1, Heads { query: 2, kv: 1, dim: 8 }, CONTEXT, &[0]).unwrap();
        let model = Model::init_on(Cpu::with_threads(threads).unwrap(), config, 1);
        let (mut passes, mut grads) = (Passes::new(&model, false), model.grads());
        let loss = |i: usize, scores: &Scores| {
            let logprob_gradient = vec![-1.0 - i as f32; scores.logprobs.len()];
            Ok(LossOutputs { loss: i as f64, logprob_gradient, ..LossOutputs::default() })
        };
        let micros = &micros.iter().collect::<Vec<_>>()[..];
        let passed = passes.accumulate(&model, micros, &mut grads, &loss).unwrap();
        assert!(passed.iter().enumerate().all(|(i, (_, outputs))| outputs.loss == i as f64), "in their order");
        let scores = passes.score(&model, micros).unwrap();
        assert!(scores.iter().zip(&passed).all(|(scores, (before, _))| scores.logprobs == before.logprobs));
        let bits = model.parameters().iter().flat_map(|info| grads.get(info)).map(f32::to_bits).collect();
        (bits, grads.norm())
    }

    #[test]
    fn gradients_are_the_same_bits_on_any_number_of_threads() {
        let micros = micros();
        assert!(micros.len() > 5, "{}", micros.len());
        let one = gradient(1, &micros);
        assert!(one.1 > 0.0);
        for threads in [2, 3, 8] {
            assert_eq!(gradient(threads, &micros), one, "{threads} threads");
        }
    }

    #[test]
    fn the_first_fault_in_order_is_the_one_that_is_told() {
        let micros = micros();
        let config =
            Config::fresh(VOCAB as usize, 16, 32, 1, Heads { query: 2, kv: 1, dim: 8 }, CONTEXT, &[0]).unwrap();
        let model = Model::init_on(Cpu::with_threads(3).unwrap(), config, 1);
        let (mut passes, mut grads) = (Passes::new(&model, false), model.grads());
        let loss = |i: usize, _: &Scores| match i {
            0 => Ok(LossOutputs::default()),
            _ => Err(Error::new(format!("micro-batch {i}"))),
        };
        let error =
            passes.accumulate(&model, &micros.iter().collect::<Vec<_>>(), &mut grads, &loss).unwrap_err().to_string();
        assert!(error.contains("micro-batch 1"), "{error}");
    }
}
