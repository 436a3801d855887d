use std::cell::RefCell;
use std::rc::Rc;

use super::super::advantage::AdvantageKind;
use super::super::objective::{Aggregation, Correction, GrpoConfig, Surrogate};
use super::super::optimizer::OptimizerConfig;
use super::super::schedule::Schedule;
use super::super::trainer::testing::{VOCAB, assert_resumes_bit_for_bit, bits, shared, tiny_model, train};
use super::*;
use crate::model::Batch;
use crate::seed::sample_seed;

const GROUP: u32 = 6;

/// Samples two tokens from the policy, exactly, by scoring every token of the vocabulary. A
/// completion is worth 1 if its first token is the prompt's.
struct Sampler {
    model: SharedModel,
    prompts: usize,
    recorded: Rc<RefCell<Vec<ScoredGroup>>>,
}

impl Sampler {
    fn new(model: SharedModel, prompts: usize) -> Self {
        Sampler { model, prompts, recorded: Rc::default() }
    }

    fn draw(model: &Model<Cpu>, context: &[u32], uniform: f64) -> (u32, f32) {
        let mut batch = Batch::new();
        (0..VOCAB).for_each(|token| batch.push_completion(context, &[token]));
        let logprobs = model.forward(&mut model.workspace(), &batch).unwrap().logprobs;
        let mut left = uniform;
        for (token, &logprob) in logprobs.iter().enumerate() {
            left -= f64::from(logprob).exp();
            if left < 0.0 {
                return (token as u32, logprob);
            }
        }
        (VOCAB - 1, logprobs[VOCAB as usize - 1])
    }
}

impl Rollout for Sampler {
    fn prompts(&self) -> usize {
        self.prompts
    }

    fn rollout(&mut self, step: u64, prompts: &[usize]) -> Result<Vec<ScoredGroup>> {
        let model = &*self.model.write().expect("the trainer holds no lock while it asks");
        let group = |&prompt: &usize| {
            let (id, answer) = (format!("prompt {prompt}"), 2 + (prompt % 4) as u32);
            let tokens = vec![1, answer];
            let completion = |sample: u32| {
                let mut rng = seed::Rng::new(sample_seed(1, &id, sample, step));
                let first = Sampler::draw(model, &tokens, rng.uniform());
                let second = Sampler::draw(model, &[&tokens[..], &[first.0]].concat(), rng.uniform());
                let reward = f64::from(u8::from(first.0 == answer));
                ScoredCompletion {
                    tokens: vec![first.0, second.0],
                    logprobs: Some(vec![first.1, second.1]),
                    reward: Some(reward),
                    scores: vec![("echo".into(), Some(reward))],
                    truncated: false,
                }
            };
            let completions = (0..GROUP).map(completion).collect();
            ScoredGroup { prompt_id: id.clone(), policy_step: step, prompt: tokens, completions }
        };
        let groups: Vec<ScoredGroup> = prompts.iter().map(group).collect();
        self.recorded.borrow_mut().extend(groups.iter().cloned());
        Ok(groups)
    }
}

fn config(change: impl FnOnce(&mut GrpoTrainerConfig)) -> GrpoTrainerConfig {
    let mut config = GrpoTrainerConfig {
        steps: 12,
        prompts_per_rollout: 8,
        minibatches: 2,
        objective: GrpoConfig { kl_coefficient: 0.0, ..GrpoConfig::default() },
        schedule: Schedule::constant(0.01),
        optimizer: OptimizerConfig { max_grad_norm: 0.5, ..OptimizerConfig::default() },
        reference_refresh: 4,
        tokens_per_microbatch: 40,
        seed: 8,
        ..GrpoTrainerConfig::default()
    };
    change(&mut config);
    config
}

fn on_policy(config: GrpoTrainerConfig) -> GrpoTrainer<'static, Cpu> {
    let model = shared(6);
    GrpoTrainer::new(model.clone(), Some(tiny_model(6)), Sampler::new(model, 20), config).unwrap()
}

fn stored(groups: Vec<ScoredGroup>, config: GrpoTrainerConfig) -> GrpoTrainer<'static, Cpu> {
    GrpoTrainer::new(shared(6), Some(tiny_model(6)), Offline(groups), config).unwrap()
}

/// A group of one-token completions with these rewards.
fn group(rewards: &[Option<f64>]) -> ScoredGroup {
    let completion = |(i, &reward): (usize, &Option<f64>)| ScoredCompletion {
        tokens: vec![2 + i as u32],
        reward,
        ..ScoredCompletion::default()
    };
    let completions = rewards.iter().enumerate().map(completion).collect();
    ScoredGroup { prompt_id: "stored".into(), policy_step: 0, prompt: vec![1], completions }
}

#[test]
fn reward_rises_on_policy_under_every_variant() {
    type Change = fn(&mut GrpoTrainerConfig);
    let variants: [(&str, Change); 6] = [
        ("grpo", |c| c.objective.kl_coefficient = 0.001),
        ("dr grpo", |c| {
            c.advantage = AdvantageKind::GroupMean;
            c.objective.aggregation = Aggregation::Constant { length: 2 };
        }),
        ("dapo", |c| {
            c.objective.clip_high = 0.28;
            c.objective.aggregation = Aggregation::TokenMean;
            c.refill_rounds = 1;
        }),
        ("gspo", |c| c.objective.surrogate = Surrogate::Sequence),
        ("cispo", |c| c.objective.surrogate = Surrogate::Cispo),
        ("rloo, sampler's logprobs", |c| {
            c.advantage = AdvantageKind::LeaveOneOut;
            c.old_logprobs = OldLogprobs::Rollout;
        }),
    ];
    for (name, change) in variants {
        let mut settings = config(change);
        settings.steps = 80;
        let steps = train(&mut on_policy(settings));
        let rewards: Vec<f64> = steps.iter().filter_map(|m| m.reward_mean).collect();
        let mean = |r: &[f64]| r.iter().sum::<f64>() / r.len() as f64;
        let (before, after) = (mean(&rewards[..4]), mean(&rewards[rewards.len() - 4..]));
        assert!(before < 0.3 && after > 0.7, "{name}: {before} → {after}");
    }
}

#[test]
fn our_own_samplers_logprobs_are_the_trainers_bit_for_bit() {
    for old_logprobs in [OldLogprobs::Recompute, OldLogprobs::Rollout] {
        let steps = train(&mut on_policy(config(|c| c.old_logprobs = old_logprobs)));
        let gaps: Vec<f64> = steps.iter().filter_map(|m| m.rollout_gap_max).collect();
        assert!(!gaps.is_empty() && gaps.iter().all(|&gap| gap == 0.0), "{old_logprobs:?}: {gaps:?}");
        assert!(steps.iter().step_by(2).all(|m| m.ratio_max.is_none_or(|r| r == 1.0)), "the first update has ratio 1");
        assert!(steps.iter().skip(1).step_by(2).any(|m| m.ratio_max.is_some_and(|r| r != 1.0)));
    }
}

#[test]
fn training_on_stored_groups_is_the_on_policy_run_bit_for_bit() {
    let settings = config(|c| (c.objective.kl_coefficient, c.epochs) = (0.01, 2));
    let model = shared(6);
    let sampler = Sampler::new(model.clone(), 20);
    let recorded = Rc::clone(&sampler.recorded);
    let mut online = GrpoTrainer::new(model, Some(tiny_model(6)), sampler, settings.clone()).unwrap();
    train(&mut online);
    let mut offline = stored(recorded.take(), GrpoTrainerConfig { shuffle: false, ..settings });
    train(&mut offline);
    assert_eq!(bits(&read(offline.model())), bits(&read(online.model())));
}

#[test]
fn a_killed_run_resumes_bit_for_bit_with_its_refreshed_reference() {
    let settings = config(|c| {
        c.objective.kl_coefficient = 0.05;
        c.epochs = 2;
        c.steps = 20;
        c.reference_refresh = 6;
        c.refill_rounds = 2;
    });
    // Killed once before and once after the reference was replaced.
    for kill_at in [4, 12] {
        assert_resumes_bit_for_bit(|| on_policy(settings.clone()), kill_at);
    }
}

#[test]
fn the_refreshed_reference_is_the_policy() {
    let mut trainer = on_policy(config(|c| (c.objective.kl_coefficient, c.reference_refresh) = (0.05, 2)));
    trainer.advance().unwrap();
    assert_eq!(bits(trainer.reference.as_ref().unwrap()), bits(&read(trainer.model())));
    let next = trainer.advance().unwrap().remove(0);
    assert_eq!(next.kl_reference, Some(0.0));
}

#[test]
fn a_batch_that_teaches_nothing_skips_the_update() {
    let same = [Some(1.0), Some(1.0)];
    let cases: [&[Option<f64>]; 5] = [&same, &[Some(0.5)], &[None, None], &[Some(1.0), None], &[]];
    for kl_coefficient in [0.0, 0.1] {
        for rewards in cases {
            let settings = config(|c| (c.objective.kl_coefficient, c.steps) = (kl_coefficient, 4));
            let mut trainer = stored(vec![group(rewards)], settings);
            let before = bits(&read(trainer.model()));
            let steps = train(&mut trainer);
            assert!(steps.iter().all(|m| m.skipped == Some(1.0) && m.loss == Some(0.0)), "{rewards:?}");
            assert_eq!(bits(&read(trainer.model())), before);
        }
    }
}

#[test]
fn completions_without_a_gradient_count_in_the_normaliser() {
    let first = |drop_without_variance| {
        let groups = vec![group(&[Some(1.0), Some(0.0)]), group(&[Some(1.0), Some(1.0)])];
        let settings = config(|c| {
            (c.prompts_per_rollout, c.minibatches) = (2, 1);
            c.drop_without_variance = drop_without_variance;
        });
        let metrics = stored(groups, settings).advance().unwrap().remove(0);
        (metrics.grad_norm.unwrap(), metrics.sequences.unwrap())
    };
    let (kept, dropped) = (first(false), first(true));
    assert_eq!((kept.1, dropped.1), (4.0, 2.0));
    assert!((2.0 * kept.0 - dropped.0).abs() < 1e-5 * dropped.0, "{kept:?} and {dropped:?}");
}

#[test]
fn groups_without_variance_are_refilled() {
    let flat = group(&[Some(1.0), Some(1.0)]);
    let varied = group(&[Some(1.0), Some(0.0)]);
    let data: Vec<ScoredGroup> = (0..8).map(|i| if i < 6 { flat.clone() } else { varied.clone() }).collect();
    let first = |rounds| {
        let settings = config(|c| (c.prompts_per_rollout, c.shuffle, c.refill_rounds) = (4, false, rounds));
        stored(data.clone(), settings).advance().unwrap().remove(0)
    };
    let none = first(0);
    assert_eq!((none.prompts_asked, none.skipped), (Some(4.0), Some(1.0)));
    let refilled = first(1);
    assert_eq!((refilled.prompts_asked, refilled.group_count), (Some(8.0), Some(8.0)));
    assert_eq!((refilled.groups_without_variance, refilled.skipped), (Some(0.75), Some(0.0)));
}

#[test]
fn stale_groups_are_dropped_and_counted() {
    let data = vec![group(&[Some(1.0), Some(0.0)]); 4];
    let settings = config(|c| (c.prompts_per_rollout, c.staleness_limit) = (4, Some(3)));
    let steps = train(&mut stored(data, settings));
    let stale: Vec<f64> = steps.iter().filter_map(|m| m.groups_stale).collect();
    assert_eq!(stale[..2], [0.0, 0.0], "steps 0 and 2 are near enough");
    assert!(stale[2..].iter().all(|&s| s == 4.0), "{stale:?}");
}

#[test]
fn another_engines_logprobs_are_corrected_and_measured() {
    let mut data = vec![group(&[Some(1.0), Some(0.0)]); 4];
    for completion in data.iter_mut().flat_map(|g| &mut g.completions) {
        // A uniform policy gives ln(1/12); this engine claims e times that.
        completion.logprobs = Some(vec![1.0 - f64::from(VOCAB).ln() as f32]);
    }
    data[0].completions[0].logprobs = None;
    let with = |correction| {
        let settings = config(|c| {
            (c.prompts_per_rollout, c.minibatches) = (4, 1);
            c.objective.correction = correction;
        });
        stored(data.clone(), settings).advance().unwrap().remove(0)
    };
    let (plain, corrected) = (with(None), with(Some(Correction::default())));
    assert!((plain.rollout_gap.unwrap() - 1.0).abs() < 0.2);
    assert_eq!(plain.rollout_missing, Some(0.125));
    // Seven of eight weigh about 1/e, the one without logprobs 1.
    assert!((corrected.correction_mean.unwrap() - (7.0 * (-1.0f64).exp() + 1.0) / 8.0).abs() < 0.05);
    assert!(corrected.grad_norm < plain.grad_norm);
}

#[test]
fn settings_and_data_that_cannot_work_are_refused() {
    let refused = |rollouts: Vec<ScoredGroup>, reference, config| {
        GrpoTrainer::new(shared(6), reference, Offline(rollouts), config).err().unwrap().to_string()
    };
    let groups = vec![group(&[Some(1.0), Some(0.0)])];
    assert!(refused(groups.clone(), None, config(|c| c.objective.kl_coefficient = 0.1)).contains("reference"));
    assert!(refused(Vec::new(), None, config(|_| {})).contains("no prompts"));
    assert!(refused(groups.clone(), None, config(|c| c.minibatches = 0)).contains("minibatches"));
    let scale = AdvantageKind::Fixed { scale: 0.0 };
    assert!(refused(groups, None, config(|c| c.advantage = scale)).contains("scale"));
}
