//! `select`: rejection sampling. Keeps the completions worth training on; every drop has a name.

use std::collections::HashSet;

use arrow::array::{Array, AsArray, BooleanArray, RecordBatch, StringArray, StructArray};
use arrow::compute::filter_record_batch;
use serde::Deserialize;

use super::grouped::{self, Batches, boundaries, require_distinct};
use super::{Input, Stage, StageContext, StageOutcome};
use crate::error::{Error, Result};
use crate::recipe::StageTable;
use crate::schema::{self, BatchExt, DatasetKind, FinishReason};
use crate::store::{Dataset, ShardWriter, WriterOptions};

/// The stage's table in a recipe. Filters apply in the order of the fields here, and the
/// first that a completion fails names its drop.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SelectConfig {
    /// The groups to choose from; `group` if left out.
    #[serde(default = "default_groups")]
    pub groups: String,
    /// Keep groups whose pass rate is in this window, ends included: [0.1, 0.9] drops what is
    /// too hard or too easy to learn from. Groups with no decided completion are dropped.
    pub pass_rate: Option<[f64; 2]>,
    /// Whether a completion that was cut at its token limit may be kept.
    #[serde(default)]
    pub truncated: bool,
    /// Which outcomes may be kept.
    #[serde(default)]
    pub outcome: Wanted,
    /// Least reward.
    pub min_reward: Option<f64>,
    /// Rules of the rule file that must accept the completion, such as `["readability"]`.
    #[serde(default)]
    pub require: Vec<String>,
    /// Which of a prompt's completions are kept.
    #[serde(default)]
    pub policy: Policy,
    /// At most so many completions of a group; unlimited if not set. Of rollouts a prompt has a group for each policy step.
    pub per_prompt: Option<usize>,
    /// For `policy = "diverse"`: a completion whose 5-word shingles overlap a kept one's by
    /// more than this (Jaccard) is dropped.
    #[serde(default = "default_similarity")]
    pub max_similarity: f64,
}

/// Which outcomes may be kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Wanted {
    /// Those that the rules found correct; the default.
    #[default]
    Correct,
    /// Wrong ones too, and those that rules cannot tell of.
    Any,
}

/// The order in which a prompt's completions are kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Policy {
    /// In sample order.
    #[default]
    All,
    /// Highest reward first; equal rewards in sample order.
    Best,
    /// Fewest tokens first (characters where tokens are not known).
    Shortest,
    /// Highest reward first, skipping what is too similar to one already kept.
    Diverse,
}

fn default_groups() -> String {
    "group".to_owned()
}
fn default_similarity() -> f64 {
    0.7
}

impl Stage for SelectConfig {
    fn inputs(&self) -> Vec<Input> {
        vec![Input::new("groups", &self.groups, DatasetKind::Groups)]
    }

    /// 2: another program's word for a finish reason is that reason.
    fn version(&self) -> u32 {
        2
    }

    fn output(&self) -> Option<DatasetKind> {
        Some(DatasetKind::Groups)
    }

    fn run(&self, cx: &StageContext<'_>) -> Result<StageOutcome> {
        let groups = cx.input("groups")?;
        if self.per_prompt.is_some() && has_several_steps(groups)? {
            cx.progress.say(&format!(
                "{}: {} holds groups of several policy steps: `per_prompt` counts within each, so a prompt may keep more",
                cx.name,
                groups.location()
            ));
        }
        cx.progress.start(groups.rows()?, "completions");
        let rows = |shard: usize| -> Result<Batches<'_>> {
            let shard = &groups.shards()[shard];
            Ok(Box::new(shard.batches(Some(DatasetKind::Groups), None)?))
        };
        let mut outcome =
            grouped::each_shard(cx, groups, DatasetKind::Groups, rows, Ok, |(shard, _), groups_of_shard| {
                let mut writer = ShardWriter::create(cx.folder, shard, DatasetKind::Groups, WriterOptions::default())?;
                let mut outcome = StageOutcome::default();
                for batch in groups_of_shard {
                    let batch = batch?;
                    let keep = self.keep(&batch, &mut outcome).map_err(|e| e.in_file(groups.location()))?;
                    cx.progress.advance(batch.num_rows() as u64);
                    let kept = filter_record_batch(&batch, &keep)
                        .map_err(|e| Error::new("rows cannot be filtered").caused_by(e))?;
                    writer.push(&kept)?;
                }
                outcome.shards.push(writer.finish()?);
                Ok(outcome)
            })?;
        self.check_required(&mut outcome)?;
        // A biased selection should not be news: the pass rates of what came in and what went out.
        for side in ["before", "after"] {
            let bins: Vec<u64> = (0..10).map(|bin| outcome.counts.remove(&bin_name(side, bin)).unwrap_or(0)).collect();
            outcome.facts.insert(format!("groups_by_pass_rate_{side}"), bins.into());
        }
        Ok(outcome)
    }
}

/// Whether a prompt may have more than one group, under one policy each.
fn has_several_steps(groups: &Dataset) -> Result<bool> {
    let mut first = None;
    for batch in groups.batches(Some(DatasetKind::Groups), Some(&["policy_step"])) {
        let batch = batch?;
        let steps = batch.u64("policy_step")?.values();
        if steps.iter().any(|step| *first.get_or_insert(*step) != *step) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Count of the completions that a required rule judged; it leaves no trace in the manifest.
fn judged_by(rule: &str) -> String {
    format!("judged_by_{rule}")
}

fn not_judged(rule: &str) -> String {
    format!("{rule}:not_judged")
}

fn bin_name(side: &str, bin: usize) -> String {
    format!("{side}_{bin}")
}

impl SelectConfig {
    /// Reads the stage's table.
    ///
    /// # Errors
    /// An unknown key, a bound that nothing can be within, with its place.
    pub fn read(table: &StageTable) -> Result<Self> {
        let config: SelectConfig = table.config.read()?;
        let wrong = |key: &str, message: &str| {
            let origin = table.config.get(key).map_or(&table.origin, |node| &node.origin);
            Err(origin.locate(Error::usage(message)))
        };
        if config.pass_rate.is_some_and(|[low, high]| !(0.0 <= low && low <= high && high <= 1.0)) {
            return wrong("pass_rate", "`pass_rate` is a window [low, high] within [0, 1], the lower end first");
        }
        if config.min_reward.is_some_and(f64::is_nan) {
            return wrong("min_reward", "`min_reward` must be a number");
        }
        if config.per_prompt == Some(0) {
            return wrong("per_prompt", "`per_prompt` must be at least 1; leave it out to keep all");
        }
        if !(0.0..=1.0).contains(&config.max_similarity) {
            return wrong("max_similarity", "`max_similarity` is a Jaccard similarity, from 0 to 1");
        }
        Ok(config)
    }

    /// A required rule that no completion was judged by is a slip in its name.
    fn check_required(&self, outcome: &mut StageOutcome) -> Result<()> {
        for rule in &self.require {
            let judged = outcome.counts.remove(&judged_by(rule)).unwrap_or(0);
            if judged == 0 && outcome.drops.contains_key(&not_judged(rule)) {
                return Err(Error::usage(format!(
                    "`require` names `{rule}`, but no completion was judged by such a rule"
                ))
                .hint("the rules are those of the rule file that `verify` used"));
            }
        }
        Ok(())
    }

    /// Which rows of a batch of whole groups are kept.
    fn keep(&self, batch: &RecordBatch, outcome: &mut StageOutcome) -> Result<BooleanArray> {
        let view = View::of(batch)?;
        let without_text = batch.num_rows() > 0 && view.text.null_count() == batch.num_rows();
        if without_text && self.policy == Policy::Diverse {
            return Err(Error::usage("`policy = \"diverse\"` compares texts, and these groups carry none")
                .hint("run the stage `group` with `carry = true`"));
        }
        let mut keep = vec![false; batch.num_rows()];
        let bounds = boundaries(batch)?;
        require_distinct(batch, &bounds)?;
        for pair in bounds.windows(2) {
            let group = pair[0]..pair[1];
            let pass_rate = view.pass_rate.is_valid(group.start).then(|| view.pass_rate.value(group.start));
            let bin = pass_rate.map(|rate| ((rate * 10.0) as usize).min(9));
            if let Some(bin) = bin {
                outcome.count(&bin_name("before", bin), 1);
            }
            let mut candidates = Vec::with_capacity(group.len());
            for row in group {
                self.count_judged(&view, row, outcome);
                match self.fault(&view, row, pass_rate) {
                    Some(reason) => outcome.drop_row(&reason),
                    None => candidates.push(row),
                }
            }
            if self.policy == Policy::Shortest && candidates.iter().any(|&row| view.length(row).is_none()) {
                return Err(Error::usage(
                    "`policy = \"shortest\"` compares lengths, and these groups tell neither tokens nor texts",
                )
                .hint("run the stage `group` with `carry = true`"));
            }
            let kept = self.choose(&view, candidates, outcome);
            if let Some(bin) = bin.filter(|_| !kept.is_empty()) {
                outcome.count(&bin_name("after", bin), 1);
            }
            outcome.count("prompts_kept", u64::from(!kept.is_empty()));
            outcome.count("kept", kept.len() as u64);
            kept.into_iter().for_each(|row| keep[row] = true);
        }
        Ok(BooleanArray::from(keep))
    }

    fn count_judged(&self, view: &View<'_>, row: usize, outcome: &mut StageOutcome) {
        for rule in self.require.iter().filter(|rule| view.score(row, rule).is_some()) {
            outcome.count(&judged_by(rule), 1);
        }
    }

    /// The first filter that a completion fails.
    fn fault(&self, view: &View<'_>, row: usize, pass_rate: Option<f64>) -> Option<String> {
        if let Some([low, high]) = self.pass_rate {
            match pass_rate {
                None => return Some("pass_rate_unknown".to_owned()),
                Some(rate) if rate < low => return Some("pass_rate_too_low".to_owned()),
                Some(rate) if rate > high => return Some("pass_rate_too_high".to_owned()),
                Some(_) => {}
            }
        }
        match view.finish[row] {
            FinishReason::Error => return Some("failed".to_owned()),
            FinishReason::Length if !self.truncated => return Some("truncated".to_owned()),
            FinishReason::Length | FinishReason::Stop | FinishReason::Unknown => {}
        }
        let verdict = view.outcome[row];
        if self.outcome == Wanted::Correct && verdict != schema::Outcome::Correct {
            return Some(verdict.as_str().to_owned());
        }
        if let Some(least) = self.min_reward {
            match view.reward.is_valid(row).then(|| view.reward.value(row)) {
                None => return Some("reward_unknown".to_owned()),
                Some(reward) if reward < least => return Some("reward_too_low".to_owned()),
                Some(_) => {}
            }
        }
        self.require.iter().find_map(|rule| match view.score(row, rule) {
            Some((schema::Outcome::Correct, _)) => None,
            Some((_, reason)) => Some(format!("{rule}:{reason}")),
            None => Some(not_judged(rule)),
        })
    }

    /// Orders the candidates by the policy and keeps at most `per_prompt`.
    fn choose(&self, view: &View<'_>, mut candidates: Vec<usize>, outcome: &mut StageOutcome) -> Vec<usize> {
        let reward = |row: usize| if view.reward.is_valid(row) { view.reward.value(row) } else { f64::NEG_INFINITY };
        match self.policy {
            Policy::All => {}
            Policy::Best | Policy::Diverse => candidates.sort_by(|&a, &b| reward(b).total_cmp(&reward(a))),
            Policy::Shortest => candidates.sort_by_key(|&row| view.length(row)),
        }
        let limit = self.per_prompt.unwrap_or(usize::MAX);
        let mut kept: Vec<usize> = Vec::new();
        let mut shingles: Vec<HashSet<u64>> = Vec::new();
        for row in candidates {
            if kept.len() >= limit {
                outcome.drop_row("over_limit");
                continue;
            }
            if self.policy == Policy::Diverse {
                let own = view.shingles(row);
                if shingles.iter().any(|other| jaccard(&own, other) > self.max_similarity) {
                    outcome.drop_row("too_similar");
                    continue;
                }
                shingles.push(own);
            }
            kept.push(row);
        }
        kept
    }
}

fn jaccard(a: &HashSet<u64>, b: &HashSet<u64>) -> f64 {
    let both = a.intersection(b).count();
    let either = a.len() + b.len() - both;
    if either == 0 { 1.0 } else { both as f64 / either as f64 }
}

/// The columns that the filters read.
struct View<'a> {
    finish: Vec<FinishReason>,
    outcome: Vec<schema::Outcome>,
    reward: &'a arrow::array::Float64Array,
    pass_rate: &'a arrow::array::Float64Array,
    tokens: &'a arrow::array::UInt32Array,
    text: &'a StringArray,
    scores: &'a arrow::array::ListArray,
    score_rules: &'a StringArray,
    score_outcomes: Vec<schema::Outcome>,
    score_reasons: &'a StringArray,
}

impl<'a> View<'a> {
    fn of(batch: &'a RecordBatch) -> Result<Self> {
        let scores = batch.list("scores")?;
        let fields: &StructArray = scores.values().as_struct();
        let field = |name: &str| {
            let column = fields.column_by_name(name).and_then(|c| c.as_string_opt::<i32>());
            column.ok_or_else(|| Error::new(format!("a score has no `{name}`")).in_field("scores"))
        };
        Ok(View {
            finish: batch.cells("finish_reason")?,
            outcome: batch.cells("outcome")?,
            reward: batch.f64("reward")?,
            pass_rate: batch.f64("pass_rate")?,
            tokens: batch.u32("completion_tokens")?,
            text: batch.text("text")?,
            scores,
            score_rules: field("rule")?,
            score_outcomes: batch.item_cells("scores", "outcome")?,
            score_reasons: field("reason")?,
        })
    }

    /// StageOutcome and reason of a named rule.
    fn score(&self, row: usize, rule: &str) -> Option<(schema::Outcome, &'a str)> {
        let offsets = self.scores.value_offsets();
        let at = (offsets[row] as usize..offsets[row + 1] as usize).find(|&i| self.score_rules.value(i) == rule)?;
        Some((self.score_outcomes[at], self.score_reasons.value(at)))
    }

    /// Tokens, or characters where these are not known.
    fn length(&self, row: usize) -> Option<usize> {
        match self.tokens.is_valid(row) {
            true => Some(self.tokens.value(row) as usize),
            false => self.text.is_valid(row).then(|| self.text.value(row).chars().count()),
        }
    }

    /// Hashes of all runs of five words (of the whole text if it is shorter).
    fn shingles(&self, row: usize) -> HashSet<u64> {
        let words: Vec<&str> = self.text.value(row).split_whitespace().collect();
        let hash = |words: &[&str]| {
            let digest = blake3::hash(words.join(" ").as_bytes());
            u64::from_le_bytes(digest.as_bytes()[..8].try_into().expect("a digest has 32 bytes"))
        };
        words.windows(5.min(words.len().max(1))).map(hash).collect()
    }
}
