//! The golden datasets: files of every version must read as they always did.
//!
//! `cargo test --release write_golden -- --ignored` writes those of the current
//! version; do so only when the version was raised, never to make a test pass.

use std::path::{Path, PathBuf};

use super::*;
use crate::store::{Dataset, Naming, ShardWriter, WriterOptions};

fn folder(version: u32) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("datasets/golden/v{version}"))
}

fn messages(answer: bool) -> Vec<Message> {
    let mut messages = vec![
        Message { role: Role::System, content: "Answer briefly.".into() },
        Message { role: Role::User, content: "Combien font 3 × 4 ?\n(数学)".into() },
    ];
    if answer {
        messages.push(Message { role: Role::Assistant, content: "<think>\n3 × 4 = 12\n</think>\n12".into() });
    }
    messages
}

fn score(score: Option<f64>, outcome: Outcome) -> Score {
    Score { rule: "math".into(), score, outcome, reason: "equal".into(), evidence: Some("{\"answer\":\"12\"}".into()) }
}

/// One row with every nullable column set (`full`) and one with all of them null.
fn prompts() -> Vec<Prompt> {
    let row = |id: &str, full: bool| Prompt {
        prompt_id: id.into(),
        messages: messages(false),
        gold: full.then(|| "12".into()),
        solution: full.then(|| "3 × 4 = 12".into()),
        verification: full.then(|| "{}".into()),
        domain: "math".into(),
        language: "fr".into(),
        difficulty: full.then_some(0.25),
        source: "golden".into(),
        license: full.then(|| "CC0-1.0".into()),
        extra: full.then(|| "{\"level\":1}".into()),
    };
    vec![row("00000000000000000000000000000001", true), row("00000000000000000000000000000002", false)]
}

fn completions() -> Vec<Completion> {
    let row = |sample_index: u32, full: bool| Completion {
        prompt_id: "00000000000000000000000000000001".into(),
        sample_index,
        completion_id: format!("{sample_index:032x}"),
        text: full.then(|| "<think>\n12\n</think>\n12".into()),
        token_ids: full.then(|| vec![1, 2, u32::MAX]),
        logprobs: full.then(|| vec![-0.5, -1.25, 0.0]),
        prompt_token_ids: full.then(Vec::new),
        finish_reason: if full { FinishReason::Stop } else { FinishReason::Error },
        stop_reason: full.then(|| "</s>".into()),
        prompt_tokens: full.then_some(9),
        completion_tokens: full.then_some(3),
        engine: "replay".into(),
        model: "golden".into(),
        model_digest: "d".into(),
        policy_step: u64::MAX,
        seed: full.then_some(7),
        sampling: "{}".into(),
        label: None,
        error: (!full).then(|| "connection refused".into()),
    };
    vec![row(0, true), row(1, false)]
}

fn verdicts() -> Vec<VerdictRow> {
    let row = |sample_index: u32, full: bool| VerdictRow {
        prompt_id: "00000000000000000000000000000001".into(),
        sample_index,
        completion_id: format!("{sample_index:032x}"),
        reward: full.then_some(1.0),
        outcome: if full { Outcome::Correct } else { Outcome::CannotTell },
        reason: "equal".into(),
        scores: if full { vec![score(Some(1.0), Outcome::Correct), score(None, Outcome::CannotTell)] } else { vec![] },
        rules_digest: "r".into(),
    };
    vec![row(0, true), row(1, false)]
}

fn groups() -> Vec<GroupRow> {
    let row = |sample_index: u32, full: bool| GroupRow {
        prompt_id: "00000000000000000000000000000001".into(),
        policy_step: 3,
        sample_index,
        completion_id: format!("{sample_index:032x}"),
        domain: "math".into(),
        language: "fr".into(),
        difficulty: full.then_some(0.25),
        reward: full.then_some(1.0),
        advantage: full.then_some(-0.5),
        outcome: if full { Outcome::Wrong } else { Outcome::CannotTell },
        reason: "equal".into(),
        scores: if full { vec![score(Some(0.0), Outcome::Wrong)] } else { vec![] },
        group_size: 2,
        reward_mean: full.then_some(0.5),
        reward_std: full.then_some(0.5),
        pass_rate: full.then_some(0.5),
        finish_reason: if full { FinishReason::Length } else { FinishReason::Unknown },
        completion_tokens: full.then_some(3),
        text: full.then(|| "12".into()),
        prompt_token_ids: full.then(|| vec![5]),
        token_ids: full.then(|| vec![1, 2, 3]),
        logprobs: full.then(|| vec![-0.5, -1.25, 0.0]),
        model: "golden".into(),
        model_digest: "d".into(),
        rules_digest: "r".into(),
        sampling: "{}".into(),
    };
    vec![row(0, true), row(1, false)]
}

fn corpus() -> Vec<CorpusRow> {
    let row = |sample_index: u32, full: bool| CorpusRow {
        messages: messages(true),
        reasoning: full.then(|| "3 × 4 = 12".into()),
        answer: "12".into(),
        track: "reasoning".into(),
        domain: "math".into(),
        language: "fr".into(),
        difficulty: full.then_some(0.25),
        source: "golden".into(),
        license: full.then(|| "CC0-1.0".into()),
        completion_tokens: full.then_some(3),
        prompt_id: "00000000000000000000000000000001".into(),
        sample_index,
        completion_id: format!("{sample_index:032x}"),
        reward: full.then_some(1.0),
        model: "golden".into(),
        model_digest: "d".into(),
        rules_digest: "r".into(),
        sampling: "{}".into(),
    };
    vec![row(0, true), row(1, false)]
}

fn preferences() -> Vec<Preference> {
    let row = |full: bool| Preference {
        prompt_id: "00000000000000000000000000000001".into(),
        messages: messages(false),
        chosen: "12".into(),
        rejected: "13".into(),
        chosen_reward: full.then_some(1.0),
        rejected_reward: full.then_some(0.0),
        group: "math".into(),
        domain: "math".into(),
        language: "fr".into(),
        source: "golden".into(),
        chosen_completion_id: full.then(|| "a".into()),
        rejected_completion_id: full.then(|| "b".into()),
        chosen_finish_reason: full.then_some(FinishReason::Stop),
        rejected_finish_reason: full.then_some(FinishReason::Length),
        ranked_by: "r".into(),
    };
    vec![row(true), row(false)]
}

fn reads_as<R: Row + Send + PartialEq + std::fmt::Debug + 'static>(version: u32, expected: &[R]) {
    let file = folder(version).join(format!("{}.parquet", R::KIND));
    let dataset = Dataset::open(&file.into()).unwrap();
    assert_eq!(dataset.kind().unwrap(), Some(R::KIND));
    let rows: Vec<R> = dataset.rows_of().collect::<crate::Result<_>>().unwrap();
    assert_eq!(rows, expected);
}

#[test]
fn version_1_of_every_dataset_reads_as_it_was_written() {
    reads_as(1, &prompts());
    reads_as(1, &completions());
    reads_as(1, &verdicts());
    reads_as(1, &groups());
    reads_as(1, &corpus());
    let unsaid = |row| Preference { chosen_finish_reason: None, rejected_finish_reason: None, ..row };
    reads_as(1, &preferences().into_iter().map(unsaid).collect::<Vec<_>>());
}

#[test]
fn version_2_of_preferences_says_why_answers_ended() {
    reads_as(2, &preferences());
}

#[test]
fn a_row_tells_the_bytes_that_it_has_in_a_batch() {
    fn agree<R: Row>(rows: &[R]) {
        let told: Vec<usize> = rows.iter().map(Row::bytes).collect();
        assert_eq!(told, crate::store::row_bytes(&R::to_batch(rows)), "{}", R::KIND);
    }
    agree(&prompts());
    agree(&completions());
    agree(&verdicts());
    agree(&groups());
    agree(&corpus());
    agree(&preferences());
}

fn write<R: Row>(rows: &[R]) {
    let scratch = tempfile::tempdir().unwrap();
    let options = WriterOptions { naming: Naming::Part, ..WriterOptions::default() };
    let mut writer = ShardWriter::create(&scratch.path().into(), 0, R::KIND, options).unwrap();
    writer.push_rows(rows).unwrap();
    let info = writer.finish().unwrap();
    let folder = folder(R::KIND.version());
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::copy(scratch.path().join(info.file), folder.join(format!("{}.parquet", R::KIND))).unwrap();
}

#[test]
#[ignore = "writes the golden files of the current version"]
fn write_golden() {
    write(&prompts());
    write(&completions());
    write(&verdicts());
    write(&groups());
    write(&corpus());
    write(&preferences());
}
