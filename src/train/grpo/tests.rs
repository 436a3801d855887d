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
    /// Sampled when it was begun, for when it is asked; a story that resumes shares it, as a checkpoint would.
    begun: Begun,
}

type Begun = Rc<RefCell<Vec<((u64, Vec<usize>), Vec<ScoredGroup>)>>>;

impl Sampler {
    fn new(model: SharedModel, prompts: usize) -> Self {
        Sampler { model, prompts, recorded: Rc::default(), begun: Rc::default() }
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

    fn sample(&self, step: u64, prompts: &[usize]) -> Vec<ScoredGroup> {
        let model = &*self.model.write();
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
        prompts.iter().map(group).collect()
    }
}

impl Rollout for Sampler {
    fn prompts(&self) -> usize {
        self.prompts
    }

    fn rollout(&mut self, step: u64, prompts: &[usize]) -> Result<Vec<ScoredGroup>> {
        let begun = self.begun.borrow();
        let found = begun.iter().find(|((of, asked), _)| (*of, &asked[..]) == (step, prompts));
        let groups = found.map_or_else(|| self.sample(step, prompts), |(_, groups)| groups.clone());
        self.recorded.borrow_mut().extend(groups.iter().cloned());
        Ok(groups)
    }

    fn begin(&mut self, step: u64, prompts: &[usize]) -> Result<()> {
        self.begun.borrow_mut().push(((step, prompts.to_vec()), self.sample(step, prompts)));
        Ok(())
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
    assert_eq!(bits(&offline.model().read()), bits(&online.model().read()));
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

/// Two updates a batch; each batch of the policy `ahead` batches before.
fn settings_ahead(ahead: u64, steps: u64) -> GrpoTrainerConfig {
    config(|c| {
        c.rollouts_ahead = ahead;
        c.steps = steps;
        c.objective.correction = Some(Correction::default());
    })
}

#[test]
fn rollouts_made_ahead_are_of_an_older_policy_say_so_and_still_teach() {
    for (ahead, expected) in [(1, [0, 0, 2, 4, 6]), (2, [0, 0, 0, 2, 4])] {
        let model = shared(6);
        let sampler = Sampler::new(model.clone(), 24);
        let recorded = Rc::clone(&sampler.recorded);
        let mut trainer = GrpoTrainer::new(model, None, sampler, settings_ahead(ahead, 80)).unwrap();
        let steps = train(&mut trainer);
        let sampled: Vec<u64> = recorded.borrow().chunks(8).map(|batch| batch[0].policy_step).collect();
        assert_eq!(sampled.len(), 40, "as many batches as are trained on, and none for nothing");
        assert_eq!(sampled[..5], expected);
        let ages: Vec<f64> = steps.iter().filter_map(|m| m.rollout_age).collect();
        assert_eq!(ages[0], 0.0);
        assert!(ages[ahead as usize..].iter().all(|&age| age == 2.0 * ahead as f64), "{ages:?}");
        let gap = steps.iter().filter_map(|m| m.rollout_gap_max).fold(0.0, f64::max);
        assert!(gap > 1e-4, "the policy has moved since: {gap}");
        assert!(steps.iter().any(|m| m.correction_mean.is_some_and(|c| c != 1.0)));
        let rewards: Vec<f64> = steps.iter().filter_map(|m| m.reward_mean).collect();
        let mean = |r: &[f64]| r.iter().sum::<f64>() / r.len() as f64;
        let (before, after) = (mean(&rewards[..4]), mean(&rewards[rewards.len() - 4..]));
        assert!(before < 0.3 && after > 0.7, "{ahead} ahead: {before} → {after}");
    }
}

#[test]
fn a_run_killed_with_rollouts_under_way_resumes_bit_for_bit() {
    for ahead in [1, 2] {
        let begun = Begun::default();
        let make = || {
            let model = shared(6);
            let sampler = Sampler { begun: Rc::clone(&begun), ..Sampler::new(model.clone(), 24) };
            GrpoTrainer::new(model, None, sampler, settings_ahead(ahead, 20)).unwrap()
        };
        assert_resumes_bit_for_bit(make, 8);
    }
}

#[test]
fn rollouts_ahead_need_a_correction_and_must_not_be_dropped_as_stale() {
    let refused = |change: fn(&mut GrpoTrainerConfig)| {
        let mut config = settings_ahead(2, 8);
        change(&mut config);
        config.validate().err().map(|e| e.to_string())
    };
    assert!(refused(|c| c.objective.correction = None).unwrap().contains("nothing corrects"));
    assert!(refused(|c| c.staleness_limit = Some(3)).unwrap().contains("4 optimizer steps old"));
    assert_eq!(refused(|c| c.staleness_limit = Some(4)), None);
    assert_eq!(refused(|c| (c.objective.correction, c.old_logprobs) = (None, OldLogprobs::Rollout)), None);
}

#[test]
fn the_refreshed_reference_is_the_policy() {
    let mut trainer = on_policy(config(|c| (c.objective.kl_coefficient, c.reference_refresh) = (0.05, 2)));
    trainer.advance().unwrap();
    assert_eq!(bits(trainer.reference.as_ref().unwrap()), bits(&trainer.model().read()));
    let next = trainer.advance().unwrap().remove(0);
    assert_eq!(next.kl_reference, Some(0.0));
}

#[test]
fn a_batch_that_teaches_nothing_skips_the_update() {
    let same = [Some(1.0), Some(1.0)];
    let cases: [&[Option<f64>]; 5] = [&same, &[Some(0.5)], &[None, None], &[Some(1.0), None], &[]];
    for kl_coefficient in [0.0, 0.1] {
        for rewards in cases {
            let settings = config(|c| {
                (c.objective.kl_coefficient, c.steps) = (kl_coefficient, 4);
                (c.prompts_per_rollout, c.shuffle) = (1, false);
            });
            // What comes after could be learned from.
            let groups = vec![group(rewards), group(rewards), group(&[Some(1.0), Some(0.0)])];
            let mut trainer = stored(groups, settings);
            let before = bits(&trainer.model().read());
            for _ in 0..2 {
                let steps = trainer.advance().unwrap();
                assert!(steps.iter().all(|m| m.skipped == Some(1.0) && m.loss == Some(0.0)), "{rewards:?}");
            }
            assert_eq!(bits(&trainer.model().read()), before);
        }
    }
}

#[test]
fn a_penalty_teaches_where_no_completion_has_an_advantage() {
    let [varied, flat] = [[1.0, 0.0], [1.0, 1.0]].map(|rewards| group(&rewards.map(Some)));
    let second = |kl_coefficient, entropy_coefficient| {
        let settings = config(|c| {
            (c.prompts_per_rollout, c.minibatches, c.shuffle, c.reference_refresh) = (1, 1, false, 0);
            (c.objective.kl_coefficient, c.objective.entropy_coefficient) = (kl_coefficient, entropy_coefficient);
        });
        // The first step moves the policy away from its reference.
        let mut trainer = stored(vec![varied.clone(), flat.clone()], settings);
        assert_eq!(trainer.advance().unwrap()[0].skipped, Some(0.0));
        let before = bits(&trainer.model().read());
        let step = trainer.advance().unwrap().remove(0);
        let moved = bits(&trainer.model().read()) != before;
        assert_eq!((step.skipped == Some(0.0), step.groups_without_variance), (moved, Some(1.0)));
        (moved, step)
    };
    for (kl, entropy) in [(0.1, 0.0), (0.0, 0.1)] {
        assert!(second(kl, entropy).0, "KL {kl}, entropy {entropy}");
    }
    let (moved, step) = second(0.1, 0.0);
    assert!(moved && step.kl_reference.unwrap() > 0.0 && step.grad_norm.unwrap() > 0.0);
    // Without one there is nothing to learn, and what is said is measured all the same.
    let (moved, step) = second(0.0, 0.0);
    assert!(!moved && step.nll.is_some_and(|nll| nll > 0.0) && step.ratio_mean.is_none(), "{step:?}");
}

#[test]
fn a_run_of_which_no_group_can_be_compared_stops_after_an_epoch() {
    let cases: [&[Option<f64>]; 4] = [&[Some(0.5)], &[None, None], &[Some(1.0), None], &[]];
    for rewards in cases {
        let settings = config(|c| (c.prompts_per_rollout, c.steps) = (2, 100));
        let mut trainer = stored(vec![group(rewards); 5], settings);
        assert!(trainer.advance().is_ok() && trainer.advance().is_ok(), "two of three batches");
        let error = trainer.advance().unwrap_err().to_string();
        assert!(error.contains("nothing to learn from in 5 groups"), "{error}");
    }
    // Rewards that do not differ may differ tomorrow.
    let flat = config(|c| c.prompts_per_rollout = 2);
    assert!(train(&mut stored(vec![group(&[Some(1.0), Some(1.0)]); 5], flat)).iter().all(|m| m.skipped == Some(1.0)));
    let mut cut = group(&[Some(1.0), Some(0.0)]);
    cut.completions.iter_mut().for_each(|completion| completion.truncated = true);
    let masked = config(|c| (c.prompts_per_rollout, c.mask_truncated) = (1, true));
    let error = stored(vec![cut], masked).advance().unwrap_err().to_string();
    assert!(error.contains("`mask_truncated`") && error.contains("100 %"), "{error}");
    let long = GrpoTrainerConfig { prompts_per_rollout: 1, ..config(|_| {}) };
    let too_long = ScoredGroup { prompt: vec![1; 40], ..group(&[Some(1.0), Some(0.0)]) };
    let error = stored(vec![too_long], long).advance().unwrap_err().to_string();
    assert!(error.contains("context of 24"), "{error}");
}

#[test]
fn a_reference_of_another_shape_is_refused() {
    use crate::backend::Heads;
    use crate::model::Config;
    let heads = Heads { query: 2, kv: 1, dim: 8 };
    let wider = Model::init(Config::fresh(VOCAB as usize, 24, 32, 1, heads, 24, &[0]).unwrap(), 1);
    let groups = Offline(vec![group(&[Some(1.0), Some(0.0)])]);
    let error = GrpoTrainer::new(shared(6), Some(wider), groups, config(|_| {})).err().unwrap().to_string();
    assert!(error.contains("hidden_size: 16 and 24"), "{error}");
}

#[test]
fn no_prompt_is_asked_twice_of_one_policy() {
    // Refills of half of what there is, and epochs that end within a batch.
    let settings = config(|c| {
        (c.prompts_per_rollout, c.refill_rounds, c.minibatches, c.steps) = (6, 3, 1, 12);
    });
    let model = shared(6);
    let sampler = Sampler::new(model.clone(), 20);
    let recorded = Rc::clone(&sampler.recorded);
    let steps = train(&mut GrpoTrainer::new(model, None, sampler, settings).unwrap());
    let recorded = recorded.borrow();
    let mut asked: Vec<(u64, &str)> = recorded.iter().map(|g| (g.policy_step, &*g.prompt_id)).collect();
    let all = asked.len();
    assert!(all > 12 * 6, "there were refills: {all}");
    asked.sort_unstable();
    asked.dedup();
    assert_eq!(asked.len(), all);
    assert!(steps.iter().all(|m| m.prompts_asked.is_some_and(|n| n <= 20.0)));
}

#[test]
fn prompts_that_failed_are_counted_and_the_rest_is_trained_on() {
    struct Failing(Sampler);
    impl Rollout for Failing {
        fn prompts(&self) -> usize {
            self.0.prompts()
        }
        fn rollout(&mut self, step: u64, prompts: &[usize]) -> Result<Vec<ScoredGroup>> {
            let mut groups = self.0.rollout(step, prompts)?;
            groups.retain(|group| group.prompt_id != "prompt 3");
            Ok(groups)
        }
    }
    let model = shared(6);
    let failing = Failing(Sampler::new(model.clone(), 8));
    let steps = train(&mut GrpoTrainer::new(model, None, failing, config(|_| {})).unwrap());
    let first: Vec<_> = steps.iter().filter(|m| m.group_count.is_some()).collect();
    assert!(first.iter().all(|m| (m.groups_failed, m.group_count) == (Some(1.0), Some(7.0))));
}

#[test]
fn an_interrupted_rollout_leaves_the_trainer_as_it_was() {
    struct Stopped(Sampler, bool);
    impl Rollout for Stopped {
        fn prompts(&self) -> usize {
            self.0.prompts()
        }
        fn rollout(&mut self, step: u64, prompts: &[usize]) -> Result<Vec<ScoredGroup>> {
            match std::mem::take(&mut self.1) {
                true => Err(Error::interrupted()),
                false => self.0.rollout(step, prompts),
            }
        }
    }
    let run = |stopped: bool| {
        let model = shared(6);
        let sampler = Stopped(Sampler::new(model.clone(), 20), stopped);
        let mut trainer = GrpoTrainer::new(model, None, sampler, config(|_| {})).unwrap();
        assert_eq!(trainer.advance().is_err(), stopped);
        train(&mut trainer);
        bits(&trainer.model().read())
    };
    let straight = run(false);
    assert_eq!(run(true), straight);
}

#[test]
fn what_has_no_advantage_is_measured_all_the_same() {
    let groups = vec![group(&[Some(1.0), Some(0.0)]), group(&[Some(1.0), Some(1.0), Some(1.0)])];
    let first = |kl_coefficient| {
        let settings = config(|c| {
            (c.prompts_per_rollout, c.minibatches, c.shuffle) = (2, 1, false);
            c.objective.kl_coefficient = kl_coefficient;
        });
        stored(groups.clone(), settings).advance().unwrap().remove(0)
    };
    // A penalty scores every completion; without one the curves are to be of the same completions.
    let (all, free) = (first(1e-9), first(0.0));
    let close = |a: Option<f64>, b: Option<f64>| (a.unwrap() - b.unwrap()).abs() < 1e-6;
    assert!(close(all.entropy, free.entropy) && close(all.nll, free.nll), "{all:?} {free:?}");
    assert!(close(all.ratio_mean, free.ratio_mean) && close(all.grad_norm, free.grad_norm));
    assert_eq!(free.rollout_missing, Some(1.0), "nobody knows the sampler's logprobs, and the metrics say so");
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
    let mut trainer = stored(data, settings);
    // Steps 0 and 2 are near enough.
    for stale in [0.0, 0.0] {
        assert_eq!(trainer.advance().unwrap()[0].groups_stale, Some(stale));
    }
    assert!(trainer.advance().unwrap_err().render(false).contains("stale"), "and then there is nothing left");
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
    assert!(refused(groups.clone(), None, config(|c| c.advantage = scale)).contains("scale"));
    assert!(refused(groups.clone(), None, config(|c| c.steps = 0)).contains("`steps` is 0"));
    assert!(refused(groups.clone(), None, config(|c| c.optimizer.beta2 = 1.5)).contains("beta2"));
    let twice = |c: &mut GrpoTrainerConfig| {
        (c.objective.correction, c.old_logprobs) = (Some(Correction::default()), OldLogprobs::Rollout);
    };
    assert!(refused(groups, None, config(twice)).contains("both are the sampler's"));
}
