//! `export`: a dataset in the layout that another tool reads.
//!
//! One row a line or record, in the order of the dataset:
//!
//! | format | from | rows |
//! |---|---|---|
//! | `messages` | corpus, prompts | `{"messages": [{"role", "content"}]}`: TRL, axolotl |
//! | `prompt_completion` | corpus | `{"prompt": [turns], "completion": [turn]}`: TRL |
//! | `sharegpt` | corpus | `{"conversations": [{"from", "value"}], "system"}`: LLaMA-Factory |
//! | `preference` | groups, preferences | `{"prompt": [turns], "chosen": [turn], "rejected": [turn]}`: TRL's DPO |
//! | `prompt_only` | prompts | `{"prompt": [turns], "gold", "verification", "domain", "language", "difficulty"}`: TRL's GRPO |
//! | `verl` | prompts | `data_source`, `prompt`, `ability`, `reward_model`, `extra_info`: verl's RL rows |
//!
//! JSON Lines, `verl` apart, which is Parquet: nothing else is read there. Files are called as the Hugging
//! Face hub's are (`train-00000-of-00004.jsonl`), which is what tells data from the manifest beside it.

mod verl;

use std::collections::BTreeSet;

use serde::Deserialize;
use serde_json::{Value, json};

use super::grouped::{self, Batches, best_and_worst, boundaries};
use super::{CheckContext, Fault, Input, Stage, StageContext, StageOutcome, Wants};
use crate::error::{Error, Result};
use crate::schema::{CorpusRow, DatasetKind, GroupRow, Message, Preference, Prompt, Role, Row};
use crate::store::{Dataset, Lookup, Shard, ShardInfo, Sink};
use crate::words::words;

/// The stage's table in a recipe.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExportConfig {
    /// The dataset to export.
    pub input: String,
    /// The layout of its rows, which must fit the dataset's kind.
    pub format: ExportFormat,
    /// For `preference` from groups: the prompts they answer.
    pub prompts: Option<String>,
    /// For `preference` from groups: the least difference in reward that makes a pair.
    #[serde(default = "half")]
    pub min_margin: f64,
    /// For `preference` from groups: whether a completion that was cut at its token limit may be the better answer.
    #[serde(default)]
    pub truncated: bool,
    /// For `verl`: what `extra_info.split` says.
    #[serde(default = "train")]
    pub split: String,
}

fn half() -> f64 {
    0.5
}
fn train() -> String {
    "train".to_owned()
}

words! {
    /// The layout of a row.
    pub enum ExportFormat {
        /// `messages`: whole conversations of a corpus, or the turns of prompts.
        Messages = "messages",
        /// `prompt` and `completion`, both as turns (TRL); of a corpus.
        PromptCompletion = "prompt_completion",
        /// `conversations` with `from` and `value`, and `system`; of a corpus.
        Sharegpt = "sharegpt",
        /// `prompt`, `chosen` and `rejected`, each as turns (TRL); of groups or preferences.
        Preference = "preference",
        /// `prompt` as turns and beside it what rules judge by, which TRL's GRPO hands to reward functions; of prompts.
        PromptOnly = "prompt_only",
        /// verl's columns, in Parquet; of prompts, where those with neither gold nor verification are dropped.
        Verl = "verl",
    }
}

impl ExportFormat {
    /// The datasets that have what its rows need.
    fn kinds(self) -> &'static [DatasetKind] {
        match self {
            ExportFormat::Messages => &[DatasetKind::Corpus, DatasetKind::Prompts],
            ExportFormat::PromptCompletion | ExportFormat::Sharegpt => &[DatasetKind::Corpus],
            ExportFormat::Preference => &[DatasetKind::Groups, DatasetKind::Preferences],
            ExportFormat::PromptOnly | ExportFormat::Verl => &[DatasetKind::Prompts],
        }
    }
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

    /// 4: verl's `extra_info` has the domain. 5: its `ground_truth` is the verification where there is no gold.
    fn version(&self) -> u32 {
        if self.format == ExportFormat::Verl { 5 } else { 3 }
    }

    fn check(&self, cx: &CheckContext<'_>) -> Result<(), Fault> {
        if self.min_margin.is_nan() || self.min_margin <= 0.0 {
            let error = Error::usage("`min_margin` must be above 0: a pair has a better and a worse answer");
            return Err(Fault::new("min_margin", error));
        }
        // A dataset that does not tell its kind, or cannot be read, is told of when it is opened.
        match (cx.kind)("input") {
            Ok(Some(kind)) if !self.format.kinds().contains(&kind) => Err(Fault::new("format", self.unfit(kind))),
            Ok(Some(kind)) if kind == DatasetKind::Groups && self.prompts.is_none() => {
                Err(Fault::new("input", without_prompts()))
            }
            _ => Ok(()),
        }
    }

    fn run(&self, cx: &StageContext<'_>) -> Result<StageOutcome> {
        let input = cx.input("input")?;
        let kind = self.kind_of(input)?;
        cx.progress.start(input.rows()?, "rows");
        let names = names(input, "train");
        match (kind, self.format) {
            (DatasetKind::Groups, _) => self.pairs(cx, input),
            (_, ExportFormat::Verl) => verl::write(cx, input, &self.split),
            _ => cx.each_shard(input.shards().len(), |shard| {
                let source = &input.shards()[shard];
                let mut out = Lines::create(cx, &names[shard])?;
                match kind {
                    DatasetKind::Corpus => each::<CorpusRow>(source, |row| out.push(&self.corpus_row(row)?))?,
                    DatasetKind::Prompts => each::<Prompt>(source, |row| out.push(&self.prompt_row(row)))?,
                    DatasetKind::Preferences => {
                        each::<Preference>(source, |row| {
                            out.push(&preference(&row.messages, &row.chosen, &row.rejected))
                        })?;
                    }
                    _ => return Err(self.unfit(kind)),
                }
                cx.progress.advance(source.rows()?);
                Ok(StageOutcome { shards: vec![out.finish()?], ..StageOutcome::default() })
            }),
        }
    }
}

fn without_prompts() -> Error {
    Error::usage("groups hold no prompts").hint("add `prompts = …`: the prompts the groups answer")
}

/// What the files made of a dataset's shards are called: as the shards are where these name their splits, else
/// as shards of `split`.
fn names(input: &Dataset, split: &str) -> Vec<String> {
    let shards = input.shards();
    let stem =
        |shard: &Shard| shard.name().rsplit('/').next().unwrap_or_default().trim_end_matches(".parquet").to_owned();
    let own: Vec<String> = shards.iter().map(stem).collect();
    let distinct = own.iter().collect::<BTreeSet<_>>().len() == own.len();
    match distinct && own.iter().all(|name| names_split(name)) {
        true => own,
        false => (0..own.len()).map(|shard| numbered(split, (shard, own.len()))).collect(),
    }
}

/// `train-00003-of-00010`: the Hugging Face hub's way.
fn numbered(split: &str, (shard, of): (usize, usize)) -> String {
    format!("{split}-{shard:05}-of-{of:05}")
}

fn names_split(name: &str) -> bool {
    let is_number = |part: &str| part.len() == 5 && part.bytes().all(|b| b.is_ascii_digit());
    let parts: Vec<&str> = name.rsplitn(4, '-').collect();
    matches!(parts[..], [of, "of", shard, _] if is_number(of) && is_number(shard))
}

fn each<R: Row>(source: &Shard, mut push: impl FnMut(R) -> Result<()>) -> Result<()> {
    source.rows_of::<R>()?.try_for_each(|row| push(row?))
}

/// JSON Lines, written as they come.
struct Lines {
    sink: Sink,
    line: Vec<u8>,
    rows: u64,
}

impl Lines {
    fn create(cx: &StageContext<'_>, stem: &str) -> Result<Self> {
        Ok(Lines { sink: Sink::create(cx.folder, format!("{stem}.jsonl"))?, line: Vec::new(), rows: 0 })
    }

    fn push(&mut self, row: &Value) -> Result<()> {
        self.line.clear();
        serde_json::to_writer(&mut self.line, row)
            .map_err(|e| Error::new("a row cannot be written as JSON").caused_by(e))?;
        self.line.push(b'\n');
        self.rows += 1;
        self.sink.push(&self.line)
    }

    fn finish(self) -> Result<ShardInfo> {
        self.sink.finish(self.rows)
    }
}

impl ExportConfig {
    fn unfit(&self, kind: DatasetKind) -> Error {
        let formats = ExportFormat::ALL.iter().filter(|format| format.kinds().contains(&kind));
        let formats: Vec<String> = formats.map(|format| format!("`{}`", format.as_str())).collect();
        let wanted: Vec<String> = self.format.kinds().iter().map(ToString::to_string).collect();
        let error = Error::usage(format!("{kind} cannot be exported as `{}`", self.format.as_str())).hint(format!(
            "`{}` is made of {}",
            self.format.as_str(),
            wanted.join(" or ")
        ));
        match formats.is_empty() {
            true => error,
            false => error.hint(format!("{kind} can be exported as {}", formats.join(", "))),
        }
    }

    /// What the dataset says it is; of one that another program wrote, what its columns say.
    fn kind_of(&self, input: &Dataset) -> Result<DatasetKind> {
        let kinds = self.format.kinds();
        match input.kind()? {
            Some(kind) if kinds.contains(&kind) => Ok(kind),
            Some(kind) => Err(self.unfit(kind)),
            None => match kinds.iter().find(|kind| input.check(**kind, None).is_ok()) {
                Some(kind) => Ok(*kind),
                None => Err(input.check(kinds[0], None).err().unwrap_or_else(|| self.unfit(kinds[0]))),
            },
        }
    }

    fn prompt_row(&self, row: Prompt) -> Value {
        match self.format {
            ExportFormat::PromptOnly => json!({
                "prompt": row.messages,
                "gold": row.gold,
                "verification": row.verification,
                "domain": row.domain,
                "language": row.language,
                "difficulty": row.difficulty,
            }),
            _ => json!({ "messages": row.messages }),
        }
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
                // The column is one text; a system turn that comes later stays where it is.
                let leading = messages.iter().take_while(|m| m.role == Role::System).count();
                let system: Vec<&str> = messages[..leading].iter().map(|m| m.content.as_str()).collect();
                let turn = |m: &Message| json!({ "from": sharegpt_name(m.role), "value": m.content });
                let turns: Vec<Value> = messages[leading..].iter().map(turn).collect();
                json!({ "conversations": turns, "system": system.join("\n\n") })
            }
            ExportFormat::Preference | ExportFormat::PromptOnly | ExportFormat::Verl => {
                return Err(self.unfit(DatasetKind::Corpus));
            }
        })
    }

    /// Of each group the best against the worst completion, where their rewards differ enough.
    fn pairs(&self, cx: &StageContext<'_>, groups: &Dataset) -> Result<StageOutcome> {
        if self.prompts.is_none() {
            return Err(without_prompts());
        }
        let columns = Some(&["prompt_id", "messages"][..]);
        let prompts = Lookup::build(cx.input("prompts")?, Some(DatasetKind::Prompts), "prompt_id", columns)?;
        let rows = |shard: usize| -> Result<Batches<'_>> {
            Ok(Box::new(groups.shards()[shard].batches(Some(DatasetKind::Groups), None)?))
        };
        grouped::each_shard(cx, groups, DatasetKind::Groups, rows, Ok, |shard, groups| {
            let mut outcome = StageOutcome::default();
            let mut out = Lines::create(cx, &numbered("train", shard))?;
            for batch in groups {
                let batch = batch?;
                let rows = GroupRow::from_batch(&batch)?;
                for bounds in boundaries(&batch)?.windows(2) {
                    let group = &rows[bounds[0]..bounds[1]];
                    match best_and_worst(group, self.min_margin, self.truncated) {
                        Ok((best, worst)) => {
                            let messages = asked(&prompts, &best.prompt_id)?;
                            let text = |row: &GroupRow| row.text.clone().unwrap_or_default();
                            out.push(&preference(&messages, &text(best), &text(worst)))?;
                        }
                        Err(reason) => outcome.drop_row(reason),
                    }
                }
                cx.progress.advance(batch.num_rows() as u64);
            }
            outcome.shards.push(out.finish()?);
            Ok(outcome)
        })
    }
}

/// The conversation of a prompt.
fn asked(prompts: &Lookup, id: &str) -> Result<Vec<Message>> {
    let (prompt, at) =
        prompts.get(id)?.ok_or_else(|| Error::new(format!("a group answers a prompt that is not there: {id}")))?;
    super::messages_at(&prompt, "messages", at).map_err(|e| prompts.locate(id, e))
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
