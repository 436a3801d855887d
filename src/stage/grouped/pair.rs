//! The pair that a group makes for preference training.

use crate::schema::{FinishReason, GroupRow};

/// The best-rewarded completion of a group and the worst, of equals the first sampled.
///
/// The better one shows how to answer and where to end, which one that was cut at its token limit does not: it is
/// passed over unless `truncated` allows it.
///
/// # Errors
/// Why the group makes no pair, as the reason of its drop.
pub fn best_and_worst(
    group: &[GroupRow],
    margin: f64,
    truncated: bool,
) -> Result<(&GroupRow, &GroupRow), &'static str> {
    let scored = || group.iter().filter(|row| row.text.is_some()).filter_map(|row| Some((row.reward?, row)));
    if scored().count() < 2 {
        return Err("no_scored_pair");
    }
    let better = |a: (f64, _), b: (f64, _)| if b.0 > a.0 { b } else { a };
    let worst = scored().reduce(|a, b| if b.0 < a.0 { b } else { a });
    let apart = |best: Option<(f64, _)>| Some((best?, worst?)).filter(|(best, worst)| best.0 - worst.0 >= margin);
    let whole = |row: &GroupRow| truncated || row.finish_reason != FinishReason::Length;
    match apart(scored().filter(|(_, row)| whole(row)).reduce(better)) {
        Some(((_, best), (_, worst))) => Ok((best, worst)),
        None if apart(scored().reduce(better)).is_some() => Err("chosen_truncated"),
        None => Err("rewards_do_not_differ"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schema::Outcome;

    fn row((sample_index, &(reward, finish_reason)): (usize, &(f64, FinishReason))) -> GroupRow {
        GroupRow {
            prompt_id: "p".into(),
            policy_step: 0,
            sample_index: sample_index as u32,
            completion_id: String::new(),
            domain: String::new(),
            language: String::new(),
            difficulty: None,
            reward: (!reward.is_nan()).then_some(reward),
            advantage: None,
            outcome: Outcome::CannotTell,
            reason: String::new(),
            scores: Vec::new(),
            group_size: 0,
            reward_mean: None,
            reward_std: None,
            pass_rate: None,
            finish_reason,
            completion_tokens: None,
            text: Some("text".into()),
            prompt_token_ids: None,
            token_ids: None,
            logprobs: None,
            model: String::new(),
            model_digest: String::new(),
            rules_digest: String::new(),
            sampling: String::new(),
        }
    }

    fn pair(group: &[(f64, FinishReason)], truncated: bool) -> Result<(u32, u32), &'static str> {
        let rows: Vec<GroupRow> = group.iter().enumerate().map(row).collect();
        best_and_worst(&rows, 0.5, truncated).map(|(best, worst)| (best.sample_index, worst.sample_index))
    }

    #[test]
    fn what_was_cut_is_no_better_answer_but_may_be_the_worse_one() {
        use FinishReason::{Length, Stop};
        let group = [(1.0, Length), (0.0, Length), (0.8, Stop), (0.8, Stop), (0.0, Stop), (f64::NAN, Stop)];
        assert_eq!(pair(&group, false), Ok((2, 1)));
        assert_eq!(pair(&group, true), Ok((0, 1)));
        assert_eq!(pair(&[(1.0, Length), (0.0, Stop)], false), Err("chosen_truncated"));
        assert_eq!(pair(&[(0.4, Length), (0.0, Stop)], false), Err("rewards_do_not_differ"));
        assert_eq!(pair(&[(f64::NAN, Stop)], false), Err("no_scored_pair"));
    }
}
