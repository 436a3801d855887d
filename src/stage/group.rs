//! `group`: completions and their verdicts become groups with rewards and advantages.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, Float64Array, RecordBatch, StringArray, StringBuilder, UInt32Array};
use arrow::datatypes::{DataType, Field};
use serde::Deserialize;

use super::grouped::{self, Aligned, Batches, boundaries, require_distinct};
use super::{Input, InputRows, Stage, StageContext, StageOutcome};
use crate::error::{Error, Result};
use crate::eval::pass_rate;
use crate::schema::{self, BatchExt, DatasetKind};
use crate::store::{Lookup, Shard, ShardWriter, WriterOptions};
use crate::train::advantage::AdvantageKind;

/// The stage's table in a recipe.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GroupConfig {
    /// The prompts that were asked: their domain, language and difficulty go into the groups.
    #[serde(default = "default_prompts")]
    pub prompts: String,
    /// The completions to group, those of a prompt one after the other; `generate` if left out.
    #[serde(default = "default_completions")]
    pub completions: String,
    /// Verdicts of those completions, in the same order.
    #[serde(default = "default_verdicts")]
    pub verdicts: String,
    /// Whether groups carry text, token ids and logprobs, so that a trainer needs nothing else.
    #[serde(default = "yes")]
    pub carry: bool,
}

fn default_prompts() -> String {
    "prompts".to_owned()
}
fn default_completions() -> String {
    "generate".to_owned()
}
fn default_verdicts() -> String {
    "verify".to_owned()
}
fn yes() -> bool {
    true
}

const COMPLETION_COLUMNS: &[&str] = &[
    "prompt_id",
    "sample_index",
    "completion_id",
    "policy_step",
    "finish_reason",
    "completion_tokens",
    "model",
    "model_digest",
    "sampling",
];
const CARRIED: &[&str] = &["text", "prompt_token_ids", "token_ids", "logprobs"];
const VERDICT_COLUMNS: &[&str] = &["completion_id", "reward", "outcome", "reason", "scores", "rules_digest"];
const PROMPT_COLUMNS: &[&str] = &["prompt_id", "domain", "language", "difficulty"];

impl Stage for GroupConfig {
    fn inputs(&self) -> Vec<Input> {
        vec![
            Input::new("prompts", &self.prompts, DatasetKind::Prompts),
            Input::new("completions", &self.completions, DatasetKind::Completions),
            Input::new("verdicts", &self.verdicts, DatasetKind::Verdicts),
        ]
    }

    /// 2: rewards that differ by rounding alone are the same reward, as in training. 3: another program's word for a finish
    /// reason is that reason.
    fn version(&self) -> u32 {
        3
    }

    fn output(&self) -> Option<DatasetKind> {
        Some(DatasetKind::Groups)
    }

    fn expected_rows(&self, inputs: &InputRows<'_>) -> Option<u64> {
        inputs.of("completions")
    }

    fn run(&self, cx: &StageContext<'_>) -> Result<StageOutcome> {
        let completions = cx.input("completions")?;
        let verdicts = cx.input("verdicts")?;
        if completions.shards().len() != verdicts.shards().len() {
            return Err(Error::new(format!(
                "there are {} shards of completions but {} of verdicts",
                completions.shards().len(),
                verdicts.shards().len()
            ))
            .hint("verdicts belong to the completions they were made from: make them again with `gristmill verify`"));
        }
        let prompts =
            Lookup::build(cx.input("prompts")?, Some(DatasetKind::Prompts), "prompt_id", Some(PROMPT_COLUMNS))?;
        cx.progress.start(completions.rows()?, "completions");
        grouped::each_shard(
            cx,
            completions,
            DatasetKind::Completions,
            |shard| self.joined(&completions.shards()[shard], &verdicts.shards()[shard]),
            |batch| group_rows(&batch, Vec::new()),
            |(shard, _), groups| {
                let mut writer = ShardWriter::create(cx.folder, shard, DatasetKind::Groups, WriterOptions::default())?;
                let mut outcome = StageOutcome::default();
                for batch in groups {
                    let grouped = with_group_columns(&batch?, &prompts, &mut outcome)
                        .map_err(|e| e.in_file(completions.location()))?;
                    cx.progress.advance(grouped.num_rows() as u64);
                    writer.push(&grouped)?;
                }
                outcome.shards.push(writer.finish()?);
                Ok(outcome)
            },
        )
    }
}

impl GroupConfig {
    /// A shard's completions with their verdicts beside them.
    fn joined<'a>(&self, completions: &'a Shard, verdicts: &'a Shard) -> Result<Batches<'a>> {
        let mut columns = COMPLETION_COLUMNS.to_vec();
        if self.carry {
            columns.extend(CARRIED);
        }
        let pairs = Aligned::new(
            completions.batches(Some(DatasetKind::Completions), Some(&columns))?,
            verdicts.batches(Some(DatasetKind::Verdicts), Some(VERDICT_COLUMNS))?,
        );
        let mut first = 0;
        let joined = move |pair: Result<(RecordBatch, RecordBatch)>| {
            let (left, right) = pair?;
            let (ids, others) = (left.text("completion_id")?, right.text("completion_id")?);
            if let Some(row) = (0..ids.len()).find(|&row| ids.value(row) != others.value(row)) {
                return Err(Error::new("the verdicts are not of these completions: their ids differ")
                    .at_row(first + row as u64)
                    .hint("make the verdicts again with `gristmill verify`"));
            }
            first += ids.len() as u64;
            Ok(join(&left, &right))
        };
        Ok(Box::new(pairs.map(joined).map(move |batch| batch.map_err(|e| e.in_file(completions)))))
    }
}

/// The columns of both, side by side (`completion_id` once).
fn join(completions: &RecordBatch, verdicts: &RecordBatch) -> RecordBatch {
    let columns = |batch: &RecordBatch, skip: &str| -> Vec<(String, ArrayRef, bool)> {
        let schema = batch.schema();
        let fields = schema.fields().iter().zip(batch.columns());
        fields
            .filter(|(f, _)| f.name() != skip)
            .map(|(f, c)| (f.name().clone(), Arc::clone(c), f.is_nullable()))
            .collect()
    };
    let all = columns(completions, "").into_iter().chain(columns(verdicts, "completion_id"));
    RecordBatch::try_from_iter_with_nullable(all).expect("slices of equal length with distinct names")
}

/// Adds the columns that a group has and its completions do not.
fn with_group_columns(batch: &RecordBatch, prompts: &Lookup, outcome: &mut StageOutcome) -> Result<RecordBatch> {
    let rows = batch.num_rows();
    let rewards = batch.f64("reward")?;
    let outcomes = batch.cells::<schema::Outcome>("outcome")?;
    let ids = batch.text("prompt_id")?;
    let bounds = boundaries(batch)?;
    require_distinct(batch, &bounds)?;
    let mut advantages: Vec<Option<f64>> = Vec::with_capacity(rows);
    let mut means = Vec::with_capacity(rows);
    let mut stds = Vec::with_capacity(rows);
    let mut pass_rates = Vec::with_capacity(rows);
    let mut sizes = Vec::with_capacity(rows);
    let mut difficulties = Vec::with_capacity(rows);
    let mut domains = StringBuilder::with_capacity(rows, rows * 8);
    let mut languages = StringBuilder::with_capacity(rows, rows * 2);
    for pair in bounds.windows(2) {
        let (start, end) = (pair[0], pair[1]);
        let known: Vec<Option<f64>> =
            (start..end).map(|row| rewards.is_valid(row).then(|| rewards.value(row))).collect();
        let group = AdvantageKind::GroupStd.advantages(&known);
        let decided =
            |of: schema::Outcome| outcomes[start..end].iter().filter(|&&outcome| outcome == of).count() as u64;
        let (correct, wrong) = (decided(schema::Outcome::Correct), decided(schema::Outcome::Wrong));
        let pass_rate = pass_rate(correct + wrong, correct);
        let id = ids.value(start);
        let (prompt, at) = prompts.get(id)?.ok_or_else(|| {
            Error::new(format!("the completions answer a prompt that is not there: {id}"))
                .in_field("prompt_id")
                .hint("give the prompts that the completions were made from")
        })?;
        let (domain, language) = (prompt.text("domain")?.value(at), prompt.text("language")?.value(at));
        let difficulty = prompt.f64("difficulty")?;
        let difficulty = difficulty.is_valid(at).then(|| difficulty.value(at));
        advantages.extend(group.advantages);
        for _ in start..end {
            means.push(group.mean);
            stds.push(group.std);
            pass_rates.push(pass_rate);
            sizes.push((end - start) as u32);
            difficulties.push(difficulty);
            domains.append_value(domain);
            languages.append_value(language);
        }
        outcome.count("groups", 1);
        outcome.count("correct", correct);
        outcome.count("wrong", wrong);
        outcome.count("cannot_tell", (end - start) as u64 - correct - wrong);
        if !group.varied {
            outcome.count("groups_without_variance", 1);
        }
    }
    let made: Vec<(&str, ArrayRef)> = vec![
        ("domain", Arc::new(domains.finish())),
        ("language", Arc::new(languages.finish())),
        ("difficulty", Arc::new(Float64Array::from(difficulties))),
        ("advantage", Arc::new(Float64Array::from(advantages))),
        ("group_size", Arc::new(UInt32Array::from(sizes))),
        ("reward_mean", Arc::new(Float64Array::from(means))),
        ("reward_std", Arc::new(Float64Array::from(stds))),
        ("pass_rate", Arc::new(Float64Array::from(pass_rates))),
    ];
    group_rows(batch, made)
}

/// The contract's columns: those made, else the batch's, else nothing: null, or empty where null is not allowed.
fn group_rows(batch: &RecordBatch, made: Vec<(&str, ArrayRef)>) -> Result<RecordBatch> {
    let schema = DatasetKind::Groups.arrow();
    let rows = batch.num_rows();
    let nothing = |field: &Field| match (field.is_nullable(), field.data_type()) {
        (true, _) => arrow::array::new_null_array(field.data_type(), rows),
        (false, DataType::UInt32) => Arc::new(UInt32Array::from(vec![0; rows])),
        (false, _) => Arc::new(StringArray::from_iter_values(std::iter::repeat_n("", rows))) as ArrayRef,
    };
    let columns = schema.fields().iter().map(|field| {
        let made = made.iter().find(|(name, _)| name == field.name()).map(|(_, array)| Arc::clone(array));
        made.or_else(|| batch.column_by_name(field.name()).cloned()).unwrap_or_else(|| nothing(field))
    });
    RecordBatch::try_new(schema.clone(), columns.collect())
        .map_err(|e| Error::new("the group's columns do not fit the schema").caused_by(e))
}
