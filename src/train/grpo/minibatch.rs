//! The loss of the completions of one update, micro-batch by micro-batch.

use super::prepare::Trainee;
use crate::error::Result;
use crate::model::Scores;
use crate::train::batch::MicroBatch;
use crate::train::objective::{Grpo, LossInputs, LossOutputs, Objective};

/// What an update trains on.
pub(super) struct Minibatch<'a> {
    pub objective: &'a Grpo,
    /// Whether π_old is the trainer's own, so that the sampler's logprobs say how far the two are apart.
    pub recomputed: bool,
    /// Whether the policy is still π_old.
    pub first: bool,
    pub trainees: &'a [Trainee],
    /// The trainees of this update; a micro-batch's sequences index it and `weights`.
    pub chosen: &'a [usize],
    pub weights: &'a [f32],
    /// Log π_old of each trainee; where it is not known yet, this very pass gives it.
    pub old: &'a [Option<Vec<f32>>],
    /// Log π_ref of each trainee, if the objective needs it.
    pub reference: Option<&'a [Vec<f32>]>,
}

impl Minibatch<'_> {
    /// # Errors
    /// As [`Objective::loss`].
    pub fn loss(&self, micro: &MicroBatch, scores: &Scores) -> Result<LossOutputs> {
        let members: Vec<usize> = micro.sequences.iter().map(|&k| self.chosen[k]).collect();
        let advantages: Vec<f32> = members.iter().map(|&i| self.trainees[i].advantage).collect();
        let rollout: Vec<f32> = members.iter().flat_map(|&i| &self.trainees[i].rollout).copied().collect();
        let reference = self.reference.map(|all| members.iter().flat_map(|&i| &all[i]).copied().collect::<Vec<f32>>());
        let ranges = micro.ranges().map(|(_, range)| &scores.logprobs[range]);
        let old: Vec<f32> = members
            .iter()
            .zip(ranges)
            .flat_map(|(&i, now)| self.old[i].as_deref().unwrap_or(now).iter().copied())
            .collect();
        let mut outputs = self.objective.loss(&LossInputs {
            offsets: &micro.offsets,
            weights: &micro.pick(self.weights),
            logprobs: &scores.logprobs,
            entropy: Some(&scores.entropies),
            old_logprobs: Some(&old),
            reference_logprobs: reference.as_deref(),
            rollout_logprobs: self.recomputed.then_some(&rollout),
            advantages: &advantages,
        })?;
        if self.first && !self.recomputed {
            // The policy has not moved yet, so its own pass shows the gap to the sampler.
            let compared = micro.ranges().zip(&advantages).filter(|(_, advantage)| **advantage != 0.0);
            for token in compared.flat_map(|((_, range), _)| range) {
                let known = rollout[token].is_finite();
                outputs.metrics.rollout_missing.count(!known);
                if known {
                    let gap = (f64::from(scores.logprobs[token]) - f64::from(rollout[token])).abs();
                    outputs.metrics.rollout_gap.add(gap);
                    outputs.metrics.rollout_gap_max.add(gap);
                }
            }
        }
        Ok(outputs)
    }
}
