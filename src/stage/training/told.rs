//! What a training run tells people as it goes, a line at a time.

use crate::train::StepMetrics;

/// One line of a step's figures. `earlier` are the steps before it, of `total`.
pub fn describe(step: &StepMetrics, earlier: &[StepMetrics], total: u64) -> String {
    let figures = figures(step, earlier).into_iter().map(|(name, value)| format!("  {name} {}", short(value)));
    format!("step {}/{total}{}", step.step + 1, figures.collect::<String>())
}

/// The same in few words, for the end of another line: how good, how far from where it began, how long, how fast.
pub fn in_short(step: &StepMetrics, earlier: &[StepMetrics]) -> String {
    let wanted = match step.reward_mean.or_else(|| newest(earlier, |s| s.reward_mean)) {
        Some(_) => ["reward", "KL", "entropy", "length", "tokens/s"],
        None => ["loss", "pairs right", "entropy", "validation loss", "tokens/s"],
    };
    let figures = figures(step, earlier).into_iter().filter(|(name, _)| wanted.contains(name));
    figures.map(|(name, value)| format!("{name} {}", short(value))).collect::<Vec<_>>().join("  ")
}

fn figures(step: &StepMetrics, earlier: &[StepMetrics]) -> Vec<(&'static str, f64)> {
    // What describes a whole rollout batch is given with its first update only.
    let of_rollout = |of: fn(&StepMetrics) -> Option<f64>| of(step).or_else(|| newest(earlier, of));
    let figures = [
        ("loss", step.loss),
        ("reward", of_rollout(|s| s.reward_mean)),
        ("groups of one reward", of_rollout(|s| s.groups_without_variance).filter(|share| *share > 0.0)),
        ("pairs right", step.pair_accuracy),
        ("worst group loss", step.worst_group_loss),
        ("KL", step.kl_reference),
        ("entropy", step.entropy),
        ("length", of_rollout(|s| s.completion_tokens_mean)),
        ("gradient norm", step.grad_norm),
        ("tokens/s", step.tokens_per_second),
        ("validation loss before", step.validation_loss_before),
        ("validation loss", step.validation_loss),
        ("held-out accuracy before", step.evaluation_before),
        ("held-out accuracy", step.evaluation),
    ];
    figures.into_iter().filter_map(|(name, value)| Some((name, value?))).collect()
}

fn newest(steps: &[StepMetrics], of: fn(&StepMetrics) -> Option<f64>) -> Option<f64> {
    steps.iter().rev().find_map(of)
}

fn short(value: f64) -> String {
    if value.abs() >= 100.0 { format!("{value:.0}") } else { format!("{value:.3}") }
}

/// A line for people if most steps changed nothing, with what is known of why.
pub fn idle(steps: &[StepMetrics]) -> Option<String> {
    let skipped: Vec<&StepMetrics> = steps.iter().filter(|s| s.skipped == Some(1.0)).collect();
    if 2 * skipped.len() <= steps.len() {
        return None;
    }
    let broken = skipped.iter().filter(|s| s.grad_norm.is_some_and(|norm| !norm.is_finite())).count();
    let shares: Vec<f64> = steps.iter().filter_map(|s| s.groups_without_variance).collect();
    // Ratios are measured over tokens with an advantage alone.
    let flat = match shares.is_empty() {
        true => 0,
        false => skipped.iter().filter(|s| s.grad_norm == Some(0.0) && s.ratio_mean.is_none()).count(),
    };
    let still = skipped.len() - broken - flat;
    let mut reasons = Vec::new();
    if flat > 0 {
        let share = 100.0 * shares.iter().sum::<f64>() / shares.len() as f64;
        reasons.push(format!(
            "{flat} had no completion with an advantage: in {share:.0}% of the groups all completions had the same reward, which \
             leaves nothing to compare. Look at their rewards and reasons; harder or easier prompts, larger groups, other rules \
             or a model that can do some of it make rewards differ"
        ));
    }
    if still > 0 {
        let advantages = if shares.is_empty() { "" } else { ", though there were advantages" };
        reasons.push(format!(
            "{still} had a gradient of exactly 0{advantages}: the model is sure of every token it is trained on, or each was \
             clipped"
        ));
    }
    if broken > 0 {
        reasons.push(format!("{broken} had a gradient that is not finite: lower the learning rate"));
    }
    let (steps, skipped) = (steps.len(), skipped.len());
    let reasons = reasons.join("; ");
    Some(format!("warning: {skipped} of {steps} optimizer steps were skipped and changed nothing: {reasons}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn skipped(grad_norm: f64, ratio_mean: Option<f64>, flat: Option<f64>) -> StepMetrics {
        StepMetrics {
            skipped: Some(1.0),
            grad_norm: Some(grad_norm),
            ratio_mean,
            groups_without_variance: flat,
            ..StepMetrics::default()
        }
    }

    #[test]
    fn steps_that_changed_nothing_are_told_with_their_own_reasons() {
        let flat = skipped(0.0, None, Some(1.0));
        let sure = skipped(0.0, Some(1.0), Some(0.0));
        let broken = skipped(f64::NAN, Some(1.0), Some(0.0));
        let done = StepMetrics { skipped: Some(0.0), groups_without_variance: Some(0.0), ..StepMetrics::default() };
        assert_eq!(idle(&[flat.clone(), done.clone()]), None, "half of them taught");
        let line = idle(&[flat.clone(), flat, done.clone()]).unwrap();
        assert!(
            line.contains("2 of 3 ") && line.contains("2 had no completion with an advantage: in 67% of"),
            "{line}"
        );
        assert!(!line.contains("exactly 0") && !line.contains("not finite"), "{line}");
        let line = idle(&[sure.clone(), sure, broken, done]).unwrap();
        assert!(
            line.contains("2 had a gradient of exactly 0, though") && line.contains("1 had a gradient that"),
            "{line}"
        );
        assert!(!line.contains("same reward"), "{line}");
        let line = idle(&[skipped(0.0, None, None)]).unwrap();
        assert!(line.contains("1 had a gradient of exactly 0: the model"), "no groups, no advantages: {line}");
    }

    #[test]
    fn what_is_told_in_short_is_of_the_newest_rollouts() {
        let first =
            StepMetrics { reward_mean: Some(0.25), completion_tokens_mean: Some(812.4), ..StepMetrics::default() };
        let second = StepMetrics {
            step: 1,
            loss: Some(0.5),
            kl_reference: Some(0.0125),
            grad_norm: Some(1.0),
            tokens_per_second: Some(1234.5),
            ..StepMetrics::default()
        };
        let earlier = std::slice::from_ref(&first);
        assert_eq!(in_short(&second, earlier), "reward 0.250  KL 0.013  length 812  tokens/s 1234");
        assert_eq!(in_short(&second, &[]), "loss 0.500  tokens/s 1234");
        let whole = describe(&second, earlier, 8);
        assert!(whole.starts_with("step 2/8  loss 0.500  reward 0.250") && whole.contains("gradient norm"), "{whole}");
    }
}
