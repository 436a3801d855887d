//! `preferences`: pairs of a better and a worse answer to one prompt.
//!
//! From `prompts` whose rows bring a worse answer along (as the procedural general prompts do,
//! and imported preference sets with `chosen` and `rejected` columns), or from `groups`: the
//! best-rewarded completion against the worst.

use serde::Deserialize;
use serde_json::Value;

use super::grouped::{self, Batches, best_and_worst, boundaries};
use super::{Input, Stage, StageContext, StageOutcome};
use crate::error::{Error, Result};
use crate::prompts::messages;
use crate::recipe::StageTable;
use crate::schema::{DatasetKind, GroupRow, Preference, Prompt, Row};
use crate::store::{Lookup, RowWriter, WriterOptions};

/// The stage's table in a recipe.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct PreferencesTable {
    prompts: String,
    /// Groups of those prompts; without them, the prompts' own answers are the pairs.
    groups: Option<String>,
    /// What the group-robust objective tells apart.
    #[serde(default)]
    group_by: GroupBy,
    /// From groups: least difference in reward between the two.
    #[serde(default = "default_margin")]
    margin: f64,
    /// From groups: whether a completion that was cut at its token limit may be the better answer.
    #[serde(default)]
    truncated: bool,
}

fn default_margin() -> f64 {
    1e-6
}

/// What a pair's `group` is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum GroupBy {
    #[default]
    Domain,
    Language,
    Source,
    /// `helpful` or `harmless`, where the prompt says so; else its domain.
    Kind,
}

/// The stage.
pub struct PreferencesStage(PreferencesTable);

impl PreferencesStage {
    /// Reads the stage's table.
    ///
    /// # Errors
    /// An unknown key or a margin out of range, with its place.
    pub fn read(table: &StageTable) -> Result<Self> {
        let read: PreferencesTable = table.config.read()?;
        if !(read.margin.is_finite() && read.margin > 0.0) {
            return Err(table.origin.locate(Error::usage("`margin` must be above 0")));
        }
        Ok(PreferencesStage(read))
    }

    fn group(&self, prompt: &Prompt, kind: Option<&str>) -> String {
        match self.0.group_by {
            GroupBy::Domain => prompt.domain.clone(),
            GroupBy::Language => prompt.language.clone(),
            GroupBy::Source => prompt.source.clone(),
            GroupBy::Kind => kind.map_or_else(|| prompt.domain.clone(), str::to_owned),
        }
    }

    /// The pair a prompt brings along, in what its import kept of its row: `chosen` (or `answer`) and
    /// `rejected`, each a text or a conversation that ends with it, as TRL and the Hugging Face hub have them.
    fn own_pair(&self, prompt: Prompt) -> std::result::Result<Preference, &'static str> {
        let extra: Value = prompt.extra.as_deref().and_then(|e| serde_json::from_str(e).ok()).unwrap_or_default();
        let rejected = reply(extra.get("rejected")).ok_or("no_rejected_answer")?;
        let chosen = reply(extra.get("chosen").or_else(|| extra.get("answer"))).ok_or("no_chosen_answer")?;
        if chosen == rejected {
            return Err("answers_do_not_differ");
        }
        let group = self.group(&prompt, extra.get("preference").and_then(Value::as_str));
        Ok(Preference { group, chosen, rejected, ranked_by: prompt.source.clone(), ..of_prompt(prompt) })
    }

    /// The best against the worst of a group.
    fn group_pair(&self, prompt: Prompt, rows: &[GroupRow]) -> std::result::Result<Preference, &'static str> {
        let (best, worst) = best_and_worst(rows, self.0.margin, self.0.truncated)?;
        let text = |row: &GroupRow| row.text.clone().unwrap_or_default();
        let group = self.group(&prompt, None);
        Ok(Preference {
            group,
            chosen: text(best),
            rejected: text(worst),
            chosen_reward: best.reward,
            rejected_reward: worst.reward,
            chosen_completion_id: Some(best.completion_id.clone()),
            rejected_completion_id: Some(worst.completion_id.clone()),
            chosen_finish_reason: Some(best.finish_reason),
            rejected_finish_reason: Some(worst.finish_reason),
            ranked_by: best.rules_digest.clone(),
            ..of_prompt(prompt)
        })
    }
}

/// An answer as a column holds it: its text, or the last turn of a conversation if that is the assistant's.
fn reply(column: Option<&Value>) -> Option<String> {
    let text = match column? {
        Value::String(text) => text.clone(),
        Value::Array(turns) => {
            let turn = turns.last()?;
            let role = turn.get("role").or_else(|| turn.get("from"))?.as_str()?;
            if !matches!(role, "assistant" | "gpt" | "model") {
                return None;
            }
            let content = turn.get("content").or_else(|| turn.get("value"))?.as_str()?;
            messages::with_reasoning(turn.as_object()?, content.to_owned()).ok()?
        }
        _ => return None,
    };
    Some(text).filter(|text| !text.trim().is_empty())
}

/// The columns a pair takes over from its prompt.
fn of_prompt(prompt: Prompt) -> Preference {
    Preference {
        prompt_id: prompt.prompt_id,
        messages: prompt.messages,
        chosen: String::new(),
        rejected: String::new(),
        chosen_reward: None,
        rejected_reward: None,
        group: String::new(),
        domain: prompt.domain,
        language: prompt.language,
        source: prompt.source,
        chosen_completion_id: None,
        rejected_completion_id: None,
        chosen_finish_reason: None,
        rejected_finish_reason: None,
        ranked_by: String::new(),
    }
}

impl Stage for PreferencesStage {
    fn inputs(&self) -> Vec<Input> {
        let mut inputs = vec![Input::new("prompts", &self.0.prompts, DatasetKind::Prompts)];
        inputs.extend(self.0.groups.iter().map(|of| Input::new("groups", of, DatasetKind::Groups)));
        inputs
    }

    fn output(&self) -> Option<DatasetKind> {
        Some(DatasetKind::Preferences)
    }

    /// 2: of groups, what was cut is not the better answer, and fewer than two rewards have a reason of their own.
    /// 3: of pairs that rows bring along, chains of thought beside `content`.
    fn version(&self) -> u32 {
        if self.0.groups.is_some() { 2 } else { 3 }
    }

    fn run(&self, cx: &StageContext<'_>) -> Result<StageOutcome> {
        let prompts = cx.input("prompts")?;
        if self.0.groups.is_none() {
            cx.progress.start(prompts.rows()?, "prompts");
            return cx.each_shard(prompts.shards().len(), |shard| {
                let rows = prompts.shards()[shard].rows_of::<Prompt>()?;
                let mut pairs = Pairs::create(cx, shard)?;
                for prompt in rows {
                    pairs.push(self.own_pair(prompt?))?;
                }
                pairs.finish()
            });
        }
        let groups = cx.input("groups")?;
        cx.progress.start(groups.rows()?, "completions");
        let lookup = Lookup::build(prompts, Some(DatasetKind::Prompts), "prompt_id", None)?;
        let rows = |shard: usize| -> Result<Batches<'_>> {
            Ok(Box::new(groups.shards()[shard].batches(Some(DatasetKind::Groups), None)?))
        };
        grouped::each_shard(cx, groups, DatasetKind::Groups, rows, Ok, |(shard, _), groups| {
            let mut pairs = Pairs::create(cx, shard)?;
            for batch in groups {
                let batch = batch?;
                let rows = GroupRow::from_batch(&batch)?;
                for bounds in boundaries(&batch)?.windows(2) {
                    let rows = &rows[bounds[0]..bounds[1]];
                    let id = &rows[0].prompt_id;
                    let (batch, at) = lookup.get(id)?.ok_or_else(|| {
                        Error::new(format!("a group answers a prompt that is not there: {id}"))
                            .hint("give the prompts that the groups were made from")
                    })?;
                    let prompt = Prompt::from_batch(&batch.slice(at, 1))?.remove(0);
                    pairs.push(self.group_pair(prompt, rows))?;
                }
            }
            pairs.finish()
        })
    }
}

/// Writes one shard of pairs, counting what gives none.
struct Pairs<'a> {
    cx: &'a StageContext<'a>,
    writer: RowWriter<Preference>,
    outcome: StageOutcome,
}

impl<'a> Pairs<'a> {
    fn create(cx: &'a StageContext<'_>, shard: usize) -> Result<Pairs<'a>> {
        let writer = RowWriter::create(cx.folder, shard, WriterOptions::default())?;
        Ok(Pairs { cx, writer, outcome: StageOutcome::default() })
    }

    fn push(&mut self, pair: std::result::Result<Preference, &'static str>) -> Result<()> {
        self.cx.check_stop()?;
        match pair {
            Ok(pair) => {
                self.outcome.count(&format!("group {}", pair.group), 1);
                self.writer.push(pair)?;
            }
            Err(reason) => self.outcome.drop_row(reason),
        }
        self.cx.progress.advance(1);
        Ok(())
    }

    fn finish(mut self) -> Result<StageOutcome> {
        self.outcome.shards.push(self.writer.finish()?);
        Ok(self.outcome)
    }
}
