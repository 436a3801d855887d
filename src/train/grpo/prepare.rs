//! From scored groups to sequences with advantages.

use super::super::batch::Sequence;
use super::super::metrics::{RuleMetrics, StepMetrics, mean_std};
use super::{GrpoTrainerConfig, ScoredCompletion, ScoredGroup};

/// One completion to train on.
#[derive(Clone, Debug, PartialEq)]
pub struct Trainee {
    pub sequence: Sequence,
    pub advantage: f32,
    /// The sampler's logprob of each trained token; NaN where not known.
    pub rollout: Vec<f32>,
    pub prompt_id: String,
}

/// Whether two completions of a group have different rewards as they were judged, before overlong shaping: DAPO's dynamic
/// sampling (arXiv 2503.14476, eq. 11) asks whether some are right and some wrong. In a group that is all wrong, shaping
/// would tell the short from the long and teach nothing else.
pub fn varies(group: &ScoredGroup, config: &GrpoTrainerConfig) -> bool {
    let judged: Vec<Option<f64>> = group.completions.iter().map(|completion| completion.reward).collect();
    config.advantage.advantages(&judged).varied
}

/// Whether a group was sampled too long ago.
pub fn is_stale(group: &ScoredGroup, config: &GrpoTrainerConfig, step: u64) -> bool {
    config.staleness_limit.is_some_and(|limit| group.policy_step.saturating_add(limit) < step)
}

fn rewards(group: &ScoredGroup, config: &GrpoTrainerConfig) -> Vec<Option<f64>> {
    let shaped = |c: &ScoredCompletion| {
        let penalty = config.overlong.map_or(0.0, |o| o.penalty(c.tokens.len()));
        c.reward.filter(|r| r.is_finite()).map(|r| r + penalty)
    };
    group.completions.iter().map(shaped).collect()
}

/// What becomes of a rollout batch.
pub struct Prepared {
    /// The completions to train on.
    pub trainees: Vec<Trainee>,
    /// Groups of which two completions or more could be trained on, if their rewards differ.
    pub comparable: usize,
    /// What describes the whole batch.
    pub metrics: StepMetrics,
}

/// The completions to train on and what the rollout batch measures.
///
/// Left out are completions without a reward, of a group without variance where those are dropped,
/// cut at the limit where those are masked, beyond the context, or without a token.
pub fn prepare(groups: &[ScoredGroup], config: &GrpoTrainerConfig, context: usize) -> Prepared {
    let mut trainees = Vec::new();
    let mut comparable = 0;
    let (mut all_rewards, mut advantages) = (Vec::new(), Vec::new());
    let (mut without_variance, mut missing, mut truncated, mut unusable) = (0usize, 0usize, 0usize, 0usize);
    let mut lengths = Vec::new();
    for group in groups {
        let rewards = rewards(group, config);
        let scored = config.advantage.advantages(&rewards);
        let compared = scored.varied && (!config.drops_without_variance() || varies(group, config));
        without_variance += usize::from(!compared);
        all_rewards.extend(rewards.iter().flatten());
        advantages.extend(scored.advantages.iter().flatten());
        let mut fitting = 0;
        for (completion, advantage) in group.completions.iter().zip(&scored.advantages) {
            lengths.push(completion.tokens.len() as f64);
            truncated += usize::from(completion.truncated);
            missing += usize::from(advantage.is_none());
            let Some(advantage) = *advantage else { continue };
            if completion.truncated && config.mask_truncated {
                continue;
            }
            let sequence = Sequence::completion(&group.prompt, &completion.tokens);
            if !sequence.is_usable(context) {
                unusable += 1;
                continue;
            }
            fitting += 1;
            if !compared && config.drops_without_variance() {
                continue;
            }
            trainees.push(Trainee {
                rollout: rollout_logprobs(completion, sequence.trained_tokens()),
                sequence,
                advantage: advantage as f32,
                prompt_id: group.prompt_id.clone(),
            });
        }
        comparable += usize::from(fitting > 1);
    }
    let (reward_mean, reward_std) = mean_std(&all_rewards);
    let (completion_mean, _) = mean_std(&lengths);
    let share = |count: usize, of: usize| (of > 0).then(|| count as f64 / of as f64);
    let absolute: Vec<f64> = advantages.iter().map(|a: &f64| a.abs()).collect();
    let metrics = StepMetrics {
        reward_mean,
        reward_std,
        reward_missing: share(missing, lengths.len()),
        advantage_abs_mean: mean_std(&absolute).0,
        advantage_max: advantages.iter().copied().reduce(f64::max),
        advantage_min: advantages.iter().copied().reduce(f64::min),
        group_count: Some(groups.len() as f64),
        groups_without_variance: share(without_variance, groups.len()),
        completion_tokens_mean: completion_mean,
        completion_tokens_max: lengths.iter().copied().reduce(f64::max),
        truncated: share(truncated, lengths.len()),
        unusable: Some(unusable as f64),
        rules: rule_metrics(groups),
        ..StepMetrics::default()
    };
    Prepared { trainees, comparable, metrics }
}

/// The logprobs of the `trained` last tokens; all NaN if there is not one a token.
fn rollout_logprobs(completion: &ScoredCompletion, trained: usize) -> Vec<f32> {
    match &completion.logprobs {
        Some(logprobs) if logprobs.len() == completion.tokens.len() => logprobs[logprobs.len() - trained..].to_vec(),
        _ => vec![f32::NAN; trained],
    }
}

/// Mean and deviation of each rule's scores, rules in the order they first appear.
fn rule_metrics(groups: &[ScoredGroup]) -> Vec<RuleMetrics> {
    let mut rules: Vec<(&str, Vec<f64>, usize)> = Vec::new();
    for (rule, score) in groups.iter().flat_map(|g| &g.completions).flat_map(|c| &c.scores) {
        let at = rules.iter().position(|(name, ..)| name == rule).unwrap_or_else(|| {
            rules.push((rule, Vec::new(), 0));
            rules.len() - 1
        });
        match score.filter(|s| s.is_finite()) {
            Some(score) => rules[at].1.push(score),
            None => rules[at].2 += 1,
        }
    }
    let finish = |(rule, scores, missing): (&str, Vec<f64>, usize)| {
        let (mean, std) = mean_std(&scores);
        RuleMetrics { rule: rule.into(), mean, std, missing: missing as f64 / (missing + scores.len()).max(1) as f64 }
    };
    rules.into_iter().map(finish).collect()
}

#[cfg(test)]
mod tests {
    use super::super::super::advantage::OverlongPenalty;
    use super::*;

    fn group(rewards: &[Option<f64>]) -> ScoredGroup {
        let completion = |(i, &reward): (usize, &Option<f64>)| ScoredCompletion {
            tokens: vec![7; i + 2],
            logprobs: Some(vec![-0.5; i + 2]),
            reward,
            scores: vec![("math".into(), reward), ("format".into(), Some(1.0))],
            truncated: i == 0,
        };
        let completions = rewards.iter().enumerate().map(completion).collect();
        ScoredGroup { prompt_id: "p".into(), policy_step: 3, prompt: vec![1, 2], completions }
    }

    #[test]
    fn only_rewarded_completions_are_trained_on_and_all_are_measured() {
        let groups = [group(&[Some(1.0), None, Some(0.0)]), group(&[Some(1.0), Some(1.0)])];
        let config = GrpoTrainerConfig::default();
        let Prepared { trainees, comparable, metrics } = prepare(&groups, &config, 100);
        assert_eq!(comparable, 2);
        assert_eq!(trainees.len(), 4);
        assert_eq!(metrics.reward_missing, Some(0.2));
        assert_eq!(metrics.groups_without_variance, Some(0.5));
        assert_eq!(metrics.truncated, Some(0.4));
        assert_eq!((metrics.rules[0].rule.as_str(), metrics.rules[0].mean), ("math", Some(0.75)));
        assert_eq!(metrics.rules[1].missing, 0.0);
        let dropped = GrpoTrainerConfig { drop_without_variance: true, ..config.clone() };
        assert_eq!(prepare(&groups, &dropped, 100).trainees.len(), 2);
        let masked = GrpoTrainerConfig { mask_truncated: true, ..config.clone() };
        let trainees = prepare(&groups, &masked, 100).trainees;
        assert_eq!(trainees.len(), 2);
        assert!(trainees[0].advantage < -0.9, "a masked completion still counts in its group's mean");
        let metrics = prepare(&groups, &config, 4).metrics;
        assert_eq!(metrics.unusable, Some(1.0), "prompt 2 + completion 4 takes 5 rows");
    }

    #[test]
    fn logprobs_of_another_length_count_as_missing() {
        let mut torn = group(&[Some(1.0), Some(0.0)]);
        torn.completions[0].logprobs = Some(vec![-1.0]);
        torn.completions[1].logprobs = None;
        let trainees = prepare(&[torn], &GrpoTrainerConfig::default(), 100).trainees;
        assert!(trainees.iter().all(|t| t.rollout.len() == t.sequence.trained_tokens()));
        assert!(trainees.iter().all(|t| t.rollout.iter().all(|l| l.is_nan())));
    }

    #[test]
    fn overlong_shaping_gives_no_group_the_variance_that_dynamic_sampling_looks_for() {
        let [wrong, mixed] = [[0.0, 0.0, 0.0], [0.0, 1.0, 0.0]].map(|rewards| group(&rewards.map(Some)));
        let overlong = Some(OverlongPenalty { limit: 4, buffer: 2, factor: 1.0 });
        let config = GrpoTrainerConfig { overlong, ..GrpoTrainerConfig::default() };
        let refilled = GrpoTrainerConfig { refill_rounds: 4, ..config.clone() };
        assert!(!varies(&wrong, &refilled) && varies(&mixed, &refilled));
        let groups = [wrong, mixed];
        let kept = prepare(&groups, &refilled, 100);
        assert!(kept.trainees.len() == 3 && kept.metrics.groups_without_variance == Some(0.5));
        assert!(kept.trainees[2].advantage < kept.trainees[0].advantage, "what is trained on is shaped");
        let shaped = prepare(&groups, &config, 100);
        assert!(shaped.trainees.len() == 6 && shaped.trainees[2].advantage < -0.9, "without it, length alone teaches");
        assert_eq!(shaped.metrics.groups_without_variance, Some(0.0));
    }

    #[test]
    fn staleness_counts_optimizer_steps() {
        let group = group(&[Some(1.0)]);
        let config = GrpoTrainerConfig { staleness_limit: Some(4), ..GrpoTrainerConfig::default() };
        assert!(!is_stale(&group, &config, 7));
        assert!(is_stale(&group, &config, 8));
        assert!(!is_stale(&group, &GrpoTrainerConfig::default(), u64::MAX));
    }

    #[test]
    fn empty_groups_measure_nothing_and_break_nothing() {
        let Prepared { trainees, comparable, metrics } = prepare(&[group(&[])], &GrpoTrainerConfig::default(), 100);
        assert_eq!((trainees.len(), comparable), (0, 0));
        assert_eq!((metrics.reward_mean, metrics.truncated, metrics.group_count), (None, None, Some(1.0)));
        assert!(prepare(&[], &GrpoTrainerConfig::default(), 100).trainees.is_empty());
    }
}
