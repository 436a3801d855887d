//! `verify`: every completion is judged by a rule file.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use arrow::array::{Array, RecordBatch};
use rayon::prelude::*;
use serde::Deserialize;

use super::judged::{ensure_reached, request_failed};
use super::unruled::{Undecided, Unruled};
use super::{CheckContext, Fault, Input, InputRows, Materials, Stage, StageContext, StageOutcome, check_rules};
use crate::error::{Error, Result};
use crate::rule::{Origin, RuleSet, Sample, Unreached};
use crate::schema::{self, BatchExt, DatasetKind, FinishReason, Message, Score, VerdictRow, question};
use crate::store::{Location, Lookup, ShardWriter, WriterOptions};

/// The stage's table in a recipe.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VerifyConfig {
    /// The prompts that were asked: their gold answers are what rules compare to.
    #[serde(default = "default_prompts")]
    pub prompts: String,
    /// The completions to judge; `generate` if left out.
    #[serde(default = "default_completions")]
    pub completions: String,
    /// A rule file, or the name of a built-in one such as `r1`.
    pub rules: String,
}

fn default_prompts() -> String {
    "prompts".to_owned()
}
fn default_completions() -> String {
    "generate".to_owned()
}

/// Rows judged together by one thread.
const CHUNK: usize = 256;
/// Where the recorded label and the rules disagree: one JSON object a line.
const DISAGREEMENTS: &str = "_disagreements";

const PROMPT_COLUMNS: &[&str] = &["prompt_id", "messages", "gold", "verification", "domain", "language", "difficulty"];
const COMPLETION_COLUMNS: &[&str] =
    &["prompt_id", "sample_index", "completion_id", "text", "finish_reason", "completion_tokens", "label"];

impl Stage for VerifyConfig {
    fn inputs(&self) -> Vec<Input> {
        vec![
            Input::new("prompts", &self.prompts, DatasetKind::Prompts),
            Input::new("completions", &self.completions, DatasetKind::Completions),
        ]
    }

    /// 2: another program's word for a finish reason is that reason; the manifest counts why completions have no verdict.
    fn version(&self) -> u32 {
        2
    }

    fn output(&self) -> Option<DatasetKind> {
        Some(DatasetKind::Verdicts)
    }

    fn check(&self, cx: &CheckContext<'_>) -> Result<(), Fault> {
        check_rules("rules", &self.rules, cx)
    }

    fn materials(&self, cx: &Materials<'_>) -> Result<Vec<(String, String)>> {
        let rules = RuleSet::load(&super::rules_path(&self.rules, cx.base)?)?;
        Ok(vec![("rules".to_owned(), rules.digest().to_owned())])
    }

    fn unfingerprinted_keys(&self) -> Vec<&'static str> {
        vec!["rules"]
    }

    fn expected_rows(&self, inputs: &InputRows<'_>) -> Option<u64> {
        inputs.of("completions")
    }

    fn run(&self, cx: &StageContext<'_>) -> Result<StageOutcome> {
        let rules = RuleSet::load(&super::rules_path(&self.rules, cx.base)?)?;
        let completions = cx.input("completions")?;
        completions.require_unique(DatasetKind::Completions, "completion_id")?;
        let prompts = PromptTable::build(cx, &rules)?;
        tell_unruled(cx, &rules)?;
        cx.progress.start(completions.rows()?, "completions");
        let mut outcome =
            cx.each_shard(completions.shards().len(), |shard| judge_shard(cx, shard, &rules, &prompts))?;
        outcome.facts.insert("rules".to_owned(), rules.name().into());
        outcome.facts.insert("rules_digest".to_owned(), rules.digest().into());
        tell_verdicts(cx, &rules, &outcome);
        let (agree, labelled) = (outcome.counts.get("label_agrees"), outcome.counts.get("labelled"));
        if let Some(&labelled) = labelled.filter(|&&n| n > 0) {
            let agree = agree.copied().unwrap_or(0);
            let others = match labelled - agree {
                0 => String::new(),
                _ => format!("; the others are in {}", cx.folder.join(&format!("{DISAGREEMENTS}-*.jsonl"))),
            };
            cx.progress.say(&format!(
                "{}: agrees with {agree} of {labelled} recorded labels ({:.2}%){others}",
                cx.name,
                100.0 * agree as f64 / labelled as f64,
            ));
        }
        Ok(outcome)
    }
}

/// Says so where most prompts are of domains that the rules know nothing of.
fn tell_unruled(cx: &StageContext<'_>, rules: &RuleSet) -> Result<()> {
    let mut seen = Unruled::new(rules);
    for shard in cx.input("prompts")?.shards() {
        for batch in shard.batches(Some(DatasetKind::Prompts), Some(&["domain", "language"]))? {
            let batch = batch?;
            let (domains, languages) = (batch.text("domain")?, batch.text("language")?);
            for row in 0..batch.num_rows() {
                seen.see(domains.value(row), languages.value(row));
            }
        }
    }
    seen.warning("prompts").iter().for_each(|line| cx.progress.say(line));
    Ok(())
}

/// Says what was decided, why some was not, and so much more where that is most of it.
fn tell_verdicts(cx: &StageContext<'_>, rules: &RuleSet, outcome: &StageOutcome) {
    let count = |what: &str| outcome.counts.get(what).copied().unwrap_or(0);
    let (correct, wrong, undecided) = (count("correct"), count("wrong"), count("cannot_tell"));
    let seen = Undecided::of(correct + wrong + undecided, &outcome.counts);
    let reasons = match undecided {
        0 => String::new(),
        _ => format!(" ({})", seen.reasons()),
    };
    cx.progress.say(&format!("{}: {correct} correct, {wrong} wrong, {undecided} cannot tell{reasons}", cx.name));
    seen.warning(rules).iter().for_each(|line| cx.progress.say(line));
}

/// Prompts by id; holds one decoded row group or a few, not all prompts.
struct PromptTable(Lookup);

/// What the rules need of one prompt.
struct PromptView {
    batch: RecordBatch,
    row: usize,
    messages: Vec<Message>,
}

impl PromptTable {
    fn build(cx: &StageContext<'_>, rules: &RuleSet) -> Result<Self> {
        // It may be long, and most rules have no use for it.
        let extra = if rules.columns().is_empty() { &[][..] } else { &["extra"] };
        let columns = [PROMPT_COLUMNS, extra].concat();
        let prompts = cx.input("prompts")?;
        Ok(PromptTable(Lookup::build(prompts, Some(DatasetKind::Prompts), "prompt_id", Some(&columns))?))
    }

    fn get(&self, id: &str) -> Result<PromptView> {
        let (batch, row) = self.0.get(id)?.ok_or_else(|| {
            Error::new(format!("a completion answers a prompt that is not there: {id}"))
                .in_field("prompt_id")
                .hint("give the prompts that the completions were made from")
        })?;
        let messages = super::messages_at(&batch, "messages", row).map_err(|e| self.0.locate(id, e))?;
        Ok(PromptView { batch, row, messages })
    }
}

impl PromptView {
    fn text(&self, column: &str) -> Result<Option<&str>> {
        let array = self.batch.text(column)?;
        Ok(array.is_valid(self.row).then(|| array.value(self.row)))
    }

    /// A column that is not read for all rules.
    fn text_if_read(&self, column: &str) -> Result<Option<&str>> {
        self.batch.column_by_name(column).map_or(Ok(None), |_| self.text(column))
    }

    fn difficulty(&self) -> Result<Option<f64>> {
        let array = self.batch.f64("difficulty")?;
        Ok(array.is_valid(self.row).then(|| array.value(self.row)))
    }
}

fn judge_shard(cx: &StageContext<'_>, shard: usize, rules: &RuleSet, prompts: &PromptTable) -> Result<StageOutcome> {
    let source = &cx.input("completions")?.shards()[shard];
    let mut writer = ShardWriter::create(cx.folder, shard, DatasetKind::Verdicts, WriterOptions::default())?;
    let mut outcome = StageOutcome::default();
    let mut disagreements = String::new();
    let mut first_row = 0;
    // Whether some row was reached by the rules' servers, and the first fault where one was not.
    let (mut some, mut lost) = (false, None);
    for batch in source.batches(Some(DatasetKind::Completions), Some(COMPLETION_COLUMNS))? {
        let batch = batch?;
        cx.check_stop()?;
        // Where a server is gone, the chunks that are left do not wait for it too.
        let gone = AtomicBool::new(false);
        let judge = |start: usize| {
            if gone.load(Ordering::Relaxed) {
                return Ok(Vec::new());
            }
            let chunk = batch.slice(start, CHUNK.min(batch.num_rows() - start));
            let judged = judge_rows(&chunk, first_row + start as u64, rules, prompts)?;
            reached(Unreached::Down, &judged).inspect_err(|_| gone.store(true, Ordering::Relaxed))?;
            Ok(judged)
        };
        let judged: Vec<Result<Vec<Judged>>> =
            (0..batch.num_rows()).into_par_iter().step_by(CHUNK).map(judge).collect();
        first_row += batch.num_rows() as u64;
        for rows in judged {
            let rows = rows.map_err(|e| e.in_file(source.location()))?;
            match reached(Unreached::Call, &rows) {
                Ok(()) => some = true,
                Err(error) => _ = lost.get_or_insert(error),
            }
            for row in &rows {
                outcome.count(row.verdict.outcome.as_str(), 1);
                if row.verdict.outcome == schema::Outcome::CannotTell {
                    outcome.count(&format!("cannot_tell:{}", row.verdict.reason), 1);
                }
                if let Some(label) = row.label {
                    outcome.count("labelled", 1);
                    if label == row.verdict.outcome {
                        outcome.count("label_agrees", 1);
                    } else {
                        disagreements += &row.disagreement(label);
                    }
                }
            }
            cx.progress.advance(rows.len() as u64);
            let verdicts: Vec<VerdictRow> = rows.into_iter().map(|row| row.verdict).collect();
            writer.push_rows(&verdicts)?;
        }
    }
    if let Some(error) = lost.filter(|_| !some) {
        return Err(error);
    }
    if !disagreements.is_empty() {
        disagreements_file(cx.folder, shard).write(disagreements.into_bytes())?;
    }
    outcome.shards.push(writer.finish()?);
    Ok(outcome)
}

/// See [`ensure_reached`].
fn reached(least: Unreached, rows: &[Judged]) -> Result<()> {
    ensure_reached(least, rows.iter().map(|row| (row.verdict.reward, &*row.verdict.scores)))
}

fn disagreements_file(folder: &Location, shard: usize) -> Location {
    folder.join(&format!("{DISAGREEMENTS}-{shard:05}.jsonl"))
}

/// One judged row, with what a disagreement's line shows.
struct Judged {
    verdict: VerdictRow,
    label: Option<schema::Outcome>,
    question: Arc<str>,
    gold: Option<String>,
    text_end: String,
}

impl Judged {
    fn disagreement(&self, label: schema::Outcome) -> String {
        // The verdict is the deciding rule's, and so is its evidence.
        let decided = |score: &&Score| (score.outcome, &score.reason) == (self.verdict.outcome, &self.verdict.reason);
        let deciding = self.verdict.scores.iter().find(decided).or(self.verdict.scores.first());
        let evidence = deciding.and_then(|s| s.evidence.as_deref()).and_then(|e| serde_json::from_str(e).ok());
        let line = serde_json::json!({
            "completion_id": self.verdict.completion_id,
            "label": label,
            "outcome": self.verdict.outcome,
            "reason": self.verdict.reason,
            "gold": self.gold,
            "evidence": evidence.unwrap_or(serde_json::Value::Null),
            "question": self.question,
            "completion_end": self.text_end,
        });
        format!("{line}\n")
    }
}

/// The last characters of a text: where an answer stands.
fn tail(text: &str, chars: usize) -> String {
    let start = text.char_indices().rev().nth(chars.saturating_sub(1)).map_or(0, |(i, _)| i);
    text[start..].to_owned()
}

/// Judges the rows of a batch whose first is row `first_row` of its file.
fn judge_rows(batch: &RecordBatch, first_row: u64, rules: &RuleSet, prompts: &PromptTable) -> Result<Vec<Judged>> {
    let ids = batch.text("prompt_id")?;
    let (completion_ids, texts) = (batch.text("completion_id")?, batch.text("text")?);
    let (samples, tokens) = (batch.u32("sample_index")?, batch.u32("completion_tokens")?);
    let finishes = batch.cells::<FinishReason>("finish_reason")?;
    let labels = batch.cells::<Option<schema::Outcome>>("label")?;
    // Samples of one prompt are neighbours: one look-up serves them all.
    let mut views: Vec<PromptView> = Vec::new();
    let mut view_of = Vec::with_capacity(batch.num_rows());
    for row in 0..batch.num_rows() {
        if row == 0 || ids.value(row) != ids.value(row - 1) {
            views.push(prompts.get(ids.value(row)).map_err(|e| e.at_row(first_row + row as u64))?);
        }
        view_of.push(views.len() - 1);
    }
    let mut asked = Vec::with_capacity(batch.num_rows());
    for (row, &view) in view_of.iter().enumerate() {
        let view = &views[view];
        asked.push(Sample {
            prompt: question(&view.messages),
            completion: if texts.is_valid(row) { texts.value(row) } else { "" },
            gold: view.text("gold")?,
            verification: view.text("verification")?,
            domain: view.text("domain")?.unwrap_or_default(),
            language: view.text("language")?.unwrap_or("und"),
            difficulty: view.difficulty()?,
            finish_reason: finishes[row],
            tokens: tokens.is_valid(row).then(|| tokens.value(row)),
            origin: Origin {
                prompt_id: Some(ids.value(row)),
                messages: &view.messages,
                extra: view.text_if_read("extra")?,
            },
        });
    }
    // A request that failed has nothing to judge.
    let present: Vec<Sample<'_>> = asked.iter().copied().filter(|s| s.finish_reason != FinishReason::Error).collect();
    let mut judgements = rules.judge_batch(&present).into_iter();
    let questions: Vec<Arc<str>> = views.iter().map(|v| Arc::from(question(&v.messages))).collect();
    let mut out = Vec::with_capacity(batch.num_rows());
    for (row, (sample, &view)) in asked.iter().zip(&view_of).enumerate() {
        let judgement = match sample.finish_reason {
            FinishReason::Error => request_failed(),
            _ => judgements.next().expect("a judgement for each sample"),
        };
        out.push(Judged {
            verdict: VerdictRow {
                prompt_id: ids.value(row).to_owned(),
                sample_index: samples.value(row),
                completion_id: completion_ids.value(row).to_owned(),
                reward: judgement.reward,
                outcome: judgement.outcome,
                reason: judgement.reason,
                scores: judgement.scores,
                rules_digest: rules.digest().to_owned(),
            },
            label: labels[row],
            question: Arc::clone(&questions[view]),
            gold: sample.gold.map(str::to_owned),
            text_end: tail(sample.completion, 300),
        });
    }
    Ok(out)
}
