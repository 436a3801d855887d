use super::super::objective::{Estimate, PreferenceLoss, Reweighting};
use super::super::trainer::testing::{VOCAB, assert_resumes_bit_for_bit, shared, tiny_model, train};
use super::*;
use crate::seed::Rng;

/// Group 0 (easy, many) prefers low tokens, group 1 (few) prefers high ones; the prompt tells which.
fn pairs(count: usize) -> Vec<Pair> {
    let mut rng = Rng::new(9);
    let pair = |i: usize| {
        let group = usize::from(i % 4 == 3);
        let (low, high) = (2 + rng.below(4) as u32, 7 + rng.below(4) as u32);
        let (chosen, rejected) = if group == 0 { (low, high) } else { (high, low) };
        let prompt = vec![1, 2 + rng.below(u64::from(VOCAB) - 2) as u32, group as u32];
        Pair {
            prompt_id: format!("p{i}"),
            prompt,
            chosen: vec![chosen, 0],
            rejected: vec![rejected, rejected, 0],
            group,
        }
    };
    (0..count).map(pair).collect()
}

fn trainer(change: impl FnOnce(&mut PreferenceTrainerConfig)) -> PreferenceTrainer<'static, Cpu> {
    let mut config = PreferenceTrainerConfig {
        steps: 12,
        batch_size: 8,
        schedule: Schedule::constant(0.01),
        seed: 4,
        ..PreferenceTrainerConfig::default()
    };
    change(&mut config);
    let groups = [("easy", 30), ("hard", 10)].map(|(name, pairs)| Group { name: name.into(), pairs });
    PreferenceTrainer::new(shared(2), tiny_model(2), pairs(40), groups.to_vec(), config).unwrap()
}

fn robust(config: &mut PreferenceTrainerConfig) {
    config.groups = GroupRobustConfig {
        reweighting: Reweighting::Robust,
        estimate: Estimate::GroupMean,
        step_size: 0.5,
        adjustment: 0.1,
    };
}

#[test]
fn training_ranks_the_pairs_rightly_with_dpo_and_ipo() {
    for loss in [PreferenceLoss::Dpo, PreferenceLoss::Ipo] {
        let steps = train(&mut trainer(|c| (c.objective.loss, c.steps) = (loss, 150)));
        let (first, last) = (&steps[0], &steps[149]);
        assert_eq!((first.pair_accuracy, first.chosen_reward), (Some(0.0), Some(0.0)), "π is π_ref at first");
        let late = steps[140..].iter().filter_map(|m| m.pair_accuracy).sum::<f64>() / 10.0;
        assert!(late > 0.95, "{loss:?}: {late}");
        assert!(last.pair_loss < first.pair_loss);
        assert!(last.worst_group_loss >= last.pair_loss);
    }
}

#[test]
fn robust_weights_follow_the_group_that_loses() {
    let steps = train(&mut trainer(|c| {
        robust(c);
        c.steps = 30;
    }));
    let last = &steps[29].groups;
    assert_eq!(last[0].group, "easy");
    assert!((last[0].weight + last[1].weight - 1.0).abs() < 1e-9);
    assert!(last[1].weight > 0.5, "the small group is harder: {last:?}");
}

#[test]
fn cutting_the_batch_changes_neither_group_weights_nor_gradient() {
    let first = |budget| {
        let mut trainer = trainer(|c| {
            robust(c);
            c.tokens_per_microbatch = budget;
        });
        trainer.advance().unwrap();
        let metrics = trainer.advance().unwrap().remove(0);
        (metrics.loss.unwrap(), metrics.grad_norm.unwrap(), metrics.groups[0].weight)
    };
    let (whole, cut) = (first(10_000), first(25));
    for (a, b) in [(whole.0, cut.0), (whole.1, cut.1), (whole.2, cut.2)] {
        assert!((a - b).abs() < 1e-4 * (1.0 + a.abs()), "{whole:?} against {cut:?}");
    }
}

#[test]
fn a_killed_run_resumes_bit_for_bit_with_its_group_weights() {
    let make = || {
        trainer(|c| {
            robust(c);
            c.tokens_per_microbatch = 25;
        })
    };
    assert_resumes_bit_for_bit(make, 6);
}

#[test]
fn pairs_that_do_not_fit_or_are_of_no_group_end_the_run_and_are_named() {
    let groups = vec![Group { name: "all".into(), pairs: 2 }];
    let config = PreferenceTrainerConfig { batch_size: 2, ..PreferenceTrainerConfig::default() };
    let refused = |change: fn(&mut Pair)| {
        let mut data = pairs(2);
        change(&mut data[1]);
        let trainer = PreferenceTrainer::new(shared(2), tiny_model(2), data, groups.clone(), config.clone());
        trainer.unwrap().advance().unwrap_err().to_string()
    };
    let long = refused(|pair| pair.chosen = vec![3; 60]);
    assert!(long.contains("cannot be trained on: chosen: ") && long.contains("context of 24"), "{long}");
    let empty = refused(|pair| pair.rejected.clear());
    assert!(empty.contains("rejected: there is no token to train on"), "{empty}");
    assert!(refused(|pair| pair.group = 7).contains("unknown group"));
}

#[test]
fn a_reference_of_another_shape_and_settings_out_of_range_are_refused() {
    use crate::backend::Heads;
    use crate::model::Config;
    let groups = vec![Group { name: "all".into(), pairs: 2 }];
    let refused = |reference, change: fn(&mut PreferenceTrainerConfig)| {
        let mut config = PreferenceTrainerConfig::default();
        change(&mut config);
        PreferenceTrainer::new(shared(2), reference, pairs(2), groups.clone(), config).err().unwrap().to_string()
    };
    let heads = Heads { query: 4, kv: 2, dim: 4 };
    let others = Model::init(Config::fresh(VOCAB as usize, 16, 32, 1, heads, 24, &[0]).unwrap(), 1);
    assert!(refused(others, |_| {}).contains("num_attention_heads: 2 and 4"), "the same weights, other heads");
    assert!(refused(tiny_model(2), |c| c.epochs = 0).contains("nothing would be trained"));
    assert!(refused(tiny_model(2), |c| c.batch_size = 0).contains("`batch_size` is 0"));
    assert!(refused(tiny_model(2), |c| c.objective.beta = 0.0).contains("`beta` is 0"));
    assert!(refused(tiny_model(2), |c| c.groups.step_size = -1.0).contains("`step_size` is -1"));
    assert!(refused(tiny_model(2), |c| c.schedule.learning_rate = -1.0).contains("`learning_rate` is -1"));
}

#[test]
fn one_key_of_a_table_leaves_the_others_as_they_are() {
    let read = |text: &str| serde_json::from_str::<PreferenceTrainerConfig>(text).unwrap();
    let own = PreferenceTrainerConfig::default();
    let warm = Schedule { warmup_steps: 10, ..own.schedule.clone() };
    assert_eq!(read(r#"{"schedule": {"warmup_steps": 10}}"#).schedule, warm);
    for table in ["schedule", "optimizer", "objective", "groups"] {
        assert_eq!(read(&format!(r#"{{"{table}": {{}}}}"#)), own, "an empty `{table}` changes nothing");
    }
}

#[test]
fn more_epochs_than_steps_can_be_counted_are_as_many_as_can() {
    let trainer = trainer(|c| (c.steps, c.epochs) = (0, u64::MAX));
    assert_eq!(trainer.total_steps(), u64::MAX);
}
