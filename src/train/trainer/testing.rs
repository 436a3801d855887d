//! A tiny model and helpers for the trainers' tests.

use std::path::Path;

use super::super::checkpoint::Checkpoints;
use super::super::metrics::StepMetrics;
use super::{Cadence, Observer, Trainer, resume, run};
use crate::backend::{Cpu, Heads};
use crate::error::Result;
use crate::model::{Config, Model, SharedModel};

pub const VOCAB: u32 = 12;
pub const CONTEXT: usize = 24;

/// One layer over twelve tokens: a forward and backward pass takes microseconds.
pub fn tiny_model(seed: u64) -> Model<Cpu> {
    let heads = Heads { query: 2, kv: 1, dim: 8 };
    Model::init(Config::fresh(VOCAB as usize, 16, 32, 1, heads, CONTEXT, &[0]).unwrap(), seed)
}

/// The same, shared.
pub fn shared(seed: u64) -> SharedModel {
    SharedModel::new(tiny_model(seed))
}

/// Every weight's bits.
pub fn bits(model: &Model<Cpu>) -> Vec<u32> {
    model.parameters().iter().flat_map(|info| model.get(info)).map(f32::to_bits).collect()
}

/// Keeps every step's metrics; every evaluation is better than the one before.
#[derive(Default)]
pub struct Recorder {
    pub steps: Vec<StepMetrics>,
    pub evaluations: usize,
}

impl Observer for Recorder {
    fn on_step(&mut self, metrics: &StepMetrics) -> Result<()> {
        self.steps.push(metrics.clone());
        Ok(())
    }

    fn evaluate(&mut self, _step: u64) -> Result<Option<f64>> {
        self.evaluations += 1;
        Ok(Some(self.evaluations as f64))
    }
}

/// Metrics without what a clock or an evaluation measured.
pub fn untimed(steps: &[StepMetrics]) -> Vec<StepMetrics> {
    steps.iter().map(|m| StepMetrics { evaluation: None, ..m.timeless() }).collect()
}

/// Nothing on the way.
const CADENCE: Cadence = Cadence { evaluate_every: 0, checkpoint_every: 0, evaluate_before: false };

/// Trains to the end.
pub fn train(trainer: &mut dyn Trainer<Cpu>) -> Vec<StepMetrics> {
    let mut recorder = Recorder::default();
    run(trainer, None, CADENCE, &mut recorder).unwrap();
    recorder.steps
}

/// Runs `make()` straight through, and again with a kill at the first checkpoint at or after
/// `kill_at`: a new trainer resumes from the folder. Both must end in the same bits and report the
/// same numbers.
pub fn assert_resumes_bit_for_bit<T: Trainer<Cpu>>(make: impl Fn() -> T, kill_at: u64) {
    let mut straight = make();
    let expected = train(&mut straight);

    let dir = tempfile::tempdir().unwrap();
    let folder = |path: &Path| Checkpoints::open(path, 2).unwrap();
    let mut killed = make();
    let mut seen = Vec::new();
    while killed.step() < kill_at {
        seen.extend(killed.advance().unwrap());
    }
    folder(dir.path()).commit(killed.step(), None, |path| killed.write(path)).unwrap();
    // What happens after the checkpoint and before the kill is lost, and done again.
    killed.advance().unwrap();
    drop(killed);

    let mut resumed = make();
    let checkpoint = resume(&mut resumed, &folder(dir.path())).unwrap().expect("a checkpoint was committed");
    assert_eq!(resumed.step(), checkpoint.step);
    assert!(resumed.step() < resumed.total_steps(), "the kill must fall inside the run");
    seen.extend(train(&mut resumed));
    assert_eq!(untimed(&seen), untimed(&expected));
    assert_eq!(bits(&resumed.model().read()), bits(&straight.model().read()));
}

#[test]
fn a_checkpoint_of_another_run_is_refused() {
    use super::super::batch::Sequence;
    use super::super::sft::{SftConfig, SftTrainer};
    let data = vec![Sequence::completion(&[1], &[2, 3])];
    let make = |seed| SftTrainer::new(shared(1), data.clone(), SftConfig { seed, ..SftConfig::default() }).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let checkpoints = Checkpoints::open(dir.path(), 2).unwrap();
    checkpoints.commit(0, None, |path| make(1).write(path)).unwrap();
    let error = resume(&mut make(2), &checkpoints).unwrap_err();
    assert!(error.to_string().contains("seed 1; this is a sft run with seed 2"), "{error}");
    assert!(resume(&mut make(1), &checkpoints).unwrap().is_some());
}

#[test]
fn a_run_evaluates_and_saves_at_its_cadence_and_at_the_end() {
    use super::super::batch::Sequence;
    use super::super::sft::{SftConfig, SftTrainer};
    let data = vec![Sequence::completion(&[1], &[2, 3])];
    let config = SftConfig { steps: 7, ..SftConfig::default() };
    let mut trainer = SftTrainer::new(shared(1), data, config).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let checkpoints = Checkpoints::open(dir.path(), 10).unwrap();
    let mut recorder = Recorder::default();
    let cadence = Cadence { evaluate_every: 3, checkpoint_every: 2, ..CADENCE };
    run(&mut trainer, Some(&checkpoints), cadence, &mut recorder).unwrap();
    let evaluated: Vec<u64> = recorder.steps.iter().filter(|m| m.evaluation.is_some()).map(|m| m.step).collect();
    assert_eq!(evaluated, [2, 5, 6]);
    let saved: Vec<u64> = checkpoints.list().unwrap().iter().map(|c| c.step).collect();
    assert_eq!(saved, [2, 3, 4, 6, 7], "3 is no multiple of 2, and the best so far");
    assert_eq!(checkpoints.best().unwrap().unwrap().step, 7);
}

#[test]
fn what_a_run_starts_from_is_measured_once() {
    use super::super::batch::Sequence;
    use super::super::sft::{SftConfig, SftTrainer};
    let data = vec![Sequence::completion(&[1], &[2, 3])];
    let config = SftConfig { steps: 4, ..SftConfig::default() };
    let make = || SftTrainer::with_validation(shared(1), data.clone(), data.clone(), config.clone()).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let checkpoints = Checkpoints::open(dir.path(), 10).unwrap();
    let cadence = Cadence { checkpoint_every: 2, evaluate_before: true, ..CADENCE };
    let mut recorder = Recorder::default();
    let mut trainer = make();
    let untrained = trainer.validate().unwrap();
    run(&mut trainer, Some(&checkpoints), cadence, &mut recorder).unwrap();
    let before: Vec<_> = recorder.steps.iter().map(|m| (m.evaluation_before, m.validation_loss_before)).collect();
    assert_eq!(before, [(Some(1.0), untrained), (None, None), (None, None), (None, None)]);
    assert!(recorder.steps[3].validation_loss < untrained, "{:?}", recorder.steps[3]);
    let last = checkpoints.latest().unwrap().unwrap().path;
    std::fs::remove_dir_all(last).unwrap();
    let mut resumed = make();
    resume(&mut resumed, &checkpoints).unwrap().unwrap();
    let mut recorder = Recorder::default();
    run(&mut resumed, Some(&checkpoints), cadence, &mut recorder).unwrap();
    assert_eq!((recorder.steps.len(), recorder.evaluations), (2, 1), "it goes on: the end alone is measured");
}

#[test]
fn weights_that_overflow_in_the_last_step_are_not_kept() {
    use super::super::batch::Sequence;
    use super::super::optimizer::{OptimizerConfig, OptimizerKind};
    use super::super::schedule::Schedule;
    use super::super::sft::{SftConfig, SftTrainer};
    let data = vec![Sequence::completion(&[1], &[2, 3])];
    let config = SftConfig {
        steps: 1,
        schedule: Schedule::constant(1e39),
        optimizer: OptimizerConfig { kind: OptimizerKind::Adamw, ..OptimizerConfig::default() },
        ..SftConfig::default()
    };
    let mut trainer = SftTrainer::new(shared(1), data, config).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let checkpoints = Checkpoints::open(dir.path(), 10).unwrap();
    let error = run(&mut trainer, Some(&checkpoints), CADENCE, &mut Recorder::default()).unwrap_err().to_string();
    assert!(error.contains("not finite after step 1"), "{error}");
    assert!(checkpoints.latest().unwrap().is_none());
}
