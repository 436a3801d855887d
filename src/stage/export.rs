//! `export`: a dataset in the layout that another tool reads.
//!
//! JSON Lines, one row a line, in the order of the dataset:
//!
//! | format | from | row |
//! |---|---|---|
//! | `messages` | corpus, prompts | `{"messages": [{"role", "content"}]}`: TRL, axolotl |
//! | `prompt_completion` | corpus | `{"prompt": [turns], "completion": [turn]}`: TRL |
//! | `sharegpt` | corpus | `{"conversations": [{"from", "value"}], "system"}`: LLaMA-Factory |
//! | `preference` | groups, preferences | `{"prompt": [turns], "chosen": [turn], "rejected": [turn]}`: TRL's DPO |
//! | `verl` | prompts | `{"data_source", "prompt", "ability", "reward_model", "extra_info"}`: verl's RL rows |

use serde::Deserialize;
use serde_json::{Value, json};

use super::grouped::{WholeGroups, boundaries};
use super::{Input, Outcome, Stage, StageContext, Wants};
use crate::error::{Error, Result};
use crate::schema::{CorpusRow, DatasetKind, GroupRow, Message, Preference, Prompt, Role, Row};
use crate::store::{Lookup, Shard, ShardInfo};

/// The stage's table in a recipe.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExportConfig {
    /// The dataset to export.
    pub input: String,
    pub format: ExportFormat,
    /// For `preference` from groups: the prompts they answer.
    pub prompts: Option<String>,
    /// For `preference` from groups: the least difference in reward that makes a pair.
    #[serde(default = "half")]
    pub min_margin: f64,
}

fn half() -> f64 {
    0.5
}

/// The layout of a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ExportFormat {
    Messages,
    PromptCompletion,
    Sharegpt,
    Preference,
    Verl,
}

impl Stage for ExportConfig {
    fn inputs(&self) -> Vec<Input> {
        let mut inputs = vec![Input { key: "input".to_owned(), of: self.input.clone(), wants: Wants::Dataset(None) }];
        inputs.extend(self.prompts.iter().map(|of| Input::new("prompts", of, DatasetKind::Prompts)));
        inputs
    }

    fn output(&self) -> Option<DatasetKind> {
        None
    }

    fn run(&self, cx: &StageContext<'_>) -> Result<Outcome> {
        let input = cx.input("input")?;
        let kind = input
            .kind()?
            .ok_or_else(|| Error::new("the dataset is none that gristmill knows").in_file(input.location()))?;
        let prompts = match (&self.prompts, kind) {
            (Some(_), _) => Some(Lookup::build(
                cx.input("prompts")?,
                Some(DatasetKind::Prompts),
                "prompt_id",
                Some(&["prompt_id", "messages"]),
            )?),
            (None, DatasetKind::Groups) => {
                return Err(
                    Error::usage("groups hold no prompts").hint("add `prompts = …`: the prompts the groups answer")
                );
            }
            (None, _) => None,
        };
        cx.progress.start(input.rows()?, "rows");
        cx.each_shard(input.shards().len(), |shard| {
            let source = &input.shards()[shard];
            let mut out = Lines::default();
            match kind {
                DatasetKind::Corpus => each::<CorpusRow>(source, |row| out.push(self.corpus_row(row)?))?,
                DatasetKind::Prompts => each::<Prompt>(source, |row| out.push(self.prompt_row(row)?))?,
                DatasetKind::Preferences => each::<Preference>(source, |row| out.push(self.preference_row(row)?))?,
                DatasetKind::Groups => self.pairs(source, prompts.as_ref().expect("checked above"), &mut out)?,
                DatasetKind::Completions | DatasetKind::Verdicts => return Err(self.unfit(kind)),
            }
            cx.progress.advance(source.rows()?);
            let name = source.name().rsplit('/').next().unwrap_or_default().trim_end_matches(".parquet");
            let file = format!("{name}.jsonl");
            let (rows, bytes) = (out.rows, out.bytes.len() as u64);
            let blake3 = blake3::hash(&out.bytes).to_hex().to_string();
            cx.folder.join(&file).write(out.bytes)?;
            Ok(Outcome { shards: vec![ShardInfo { file, rows, bytes, blake3 }], ..Outcome::default() })
        })
    }
}

fn each<R: Row>(source: &Shard, mut push: impl FnMut(R) -> Result<()>) -> Result<()> {
    source.rows_of::<R>()?.try_for_each(|row| push(row?))
}

#[derive(Default)]
struct Lines {
    bytes: Vec<u8>,
    rows: u64,
}

impl Lines {
    fn push(&mut self, row: Value) -> Result<()> {
        serde_json::to_writer(&mut self.bytes, &row)
            .map_err(|e| Error::new("a row cannot be written as JSON").caused_by(e))?;
        self.bytes.push(b'\n');
        self.rows += 1;
        Ok(())
    }
}

impl ExportConfig {
    fn unfit(&self, kind: DatasetKind) -> Error {
        Error::usage(format!("{kind} cannot be exported as {:?}", self.format))
            .hint("see the table in the stage's documentation: README, \"Export\"")
    }

    fn corpus_row(&self, row: CorpusRow) -> Result<Value> {
        let mut messages = row.messages;
        Ok(match self.format {
            ExportFormat::Messages => json!({ "messages": messages }),
            ExportFormat::PromptCompletion => {
                let completion = messages.split_off(messages.len().saturating_sub(1));
                json!({ "prompt": messages, "completion": completion })
            }
            ExportFormat::Sharegpt => {
                let system = messages.first().filter(|m| m.role == Role::System).map(|m| m.content.clone());
                let turns = messages.iter().filter(|m| m.role != Role::System);
                let turns: Vec<Value> =
                    turns.map(|m| json!({ "from": sharegpt_name(m.role), "value": m.content })).collect();
                json!({ "conversations": turns, "system": system.unwrap_or_default() })
            }
            ExportFormat::Preference | ExportFormat::Verl => return Err(self.unfit(DatasetKind::Corpus)),
        })
    }

    fn prompt_row(&self, row: Prompt) -> Result<Value> {
        Ok(match self.format {
            ExportFormat::Messages => json!({ "messages": row.messages }),
            ExportFormat::Verl => json!({
                "data_source": row.source,
                "prompt": row.messages,
                "ability": row.domain,
                "reward_model": { "style": "rule", "ground_truth": row.gold },
                "extra_info": { "prompt_id": row.prompt_id, "language": row.language, "difficulty": row.difficulty, "verification": row.verification },
            }),
            _ => return Err(self.unfit(DatasetKind::Prompts)),
        })
    }

    fn preference_row(&self, row: Preference) -> Result<Value> {
        match self.format {
            ExportFormat::Preference => Ok(preference(&row.messages, &row.chosen, &row.rejected)),
            _ => Err(self.unfit(DatasetKind::Preferences)),
        }
    }

    /// Of each group the best against the worst completion, where their rewards differ enough.
    fn pairs(&self, source: &Shard, prompts: &Lookup, out: &mut Lines) -> Result<()> {
        if self.format != ExportFormat::Preference {
            return Err(self.unfit(DatasetKind::Groups));
        }
        for batch in WholeGroups::new(source.batches(Some(DatasetKind::Groups), None)?) {
            let batch = batch?;
            let bounds = boundaries(&batch)?;
            let rows = GroupRow::from_batch(&batch)?;
            for pair in bounds.windows(2) {
                let scored =
                    || rows[pair[0]..pair[1]].iter().filter_map(|row| Some((row.reward?, row.text.as_deref()?)));
                // Of equals the first sampled wins on both sides.
                let best = scored().reduce(|a, b| if b.0 > a.0 { b } else { a });
                let worst = scored().reduce(|a, b| if b.0 < a.0 { b } else { a });
                let (Some(best), Some(worst)) = (best, worst) else { continue };
                if best.0 - worst.0 < self.min_margin {
                    continue;
                }
                let id = &rows[pair[0]].prompt_id;
                let (prompt, at) = prompts
                    .get(id)?
                    .ok_or_else(|| Error::new(format!("a group answers a prompt that is not there: {id}")))?;
                out.push(preference(&super::messages_at(&prompt, "messages", at)?, best.1, worst.1))?;
            }
        }
        Ok(())
    }
}

fn preference(messages: &[Message], chosen: &str, rejected: &str) -> Value {
    let turn = |text: &str| json!([{ "role": "assistant", "content": text }]);
    json!({ "prompt": messages, "chosen": turn(chosen), "rejected": turn(rejected) })
}

fn sharegpt_name(role: Role) -> &'static str {
    match role {
        Role::User => "human",
        Role::Assistant => "gpt",
        Role::System => "system",
        Role::Tool => "observation",
    }
}
