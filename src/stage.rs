//! Stages: each turns datasets into a dataset. A stage knows `schema` and `store`,
//! joins them to one room that does the work, and nothing of other stages.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::recipe::StageTable;
use crate::schema::{BatchExt, DatasetKind, Message, Role};
use crate::store::ShardInfo;

mod context;
pub mod corpus;
pub mod export;
pub mod generate;
pub mod group;
mod grouped;
pub mod prompts;
pub mod select;
pub mod verify;

pub use context::{Progress, StageContext};

/// One stage, configured.
pub trait Stage: Send + Sync {
    /// The datasets it reads.
    fn inputs(&self) -> Vec<Input>;

    /// The dataset it writes; `None` if it writes something else (a checkpoint, a report).
    fn output(&self) -> Option<DatasetKind>;

    /// What decides its output beside its configuration and inputs: (what, digest) of source
    /// files, rule files, weights.
    ///
    /// # Errors
    /// A file that cannot be read or a rule file that does not load: found before anything runs.
    fn materials(&self, _cx: &Materials<'_>) -> Result<Vec<(String, String)>> {
        Ok(Vec::new())
    }

    /// Rows it will write, if that can be told from the rows of its inputs (in the order of
    /// [`Stage::inputs`]): for `--dry-run`.
    fn expected_rows(&self, _inputs: &[Option<u64>]) -> Option<u64> {
        None
    }

    /// Does the work. Called again with the same configuration after a kill, it continues.
    fn run(&self, cx: &StageContext<'_>) -> Result<Outcome>;
}

/// A dataset that a stage reads.
#[derive(Clone, Debug)]
pub struct Input {
    /// What the stage calls it: the recipe's key.
    pub key: String,
    /// Another stage's name, or the path of a dataset.
    pub of: String,
    /// What it must hold; `None` if any will do.
    pub kind: Option<DatasetKind>,
}

impl Input {
    pub fn new(key: impl Into<String>, of: impl Into<String>, kind: DatasetKind) -> Self {
        Input { key: key.into(), of: of.into(), kind: Some(kind) }
    }
}

/// What [`Stage::materials`] may ask the pipeline for.
pub struct Materials<'a> {
    /// Makes a path of the recipe absolute.
    pub resolve: &'a dyn Fn(&str) -> String,
    /// BLAKE3 of a file's bytes; unchanged files are not read again.
    pub digest_file: &'a dyn Fn(&str) -> Result<String>,
}

/// What a shard, or a whole stage, came to.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Outcome {
    /// Shards written, in order.
    pub shards: Vec<ShardInfo>,
    /// Rows dropped by reason.
    pub drops: BTreeMap<String, u64>,
    /// Sums worth keeping, such as `correct` or `completion_tokens`; added up over shards.
    pub counts: BTreeMap<String, u64>,
    /// Anything else the manifest should say; the last shard's word wins.
    pub facts: serde_json::Map<String, serde_json::Value>,
}

impl Outcome {
    /// Adds another shard's outcome behind this one's.
    pub fn absorb(&mut self, other: Outcome) {
        self.shards.extend(other.shards);
        for (reason, n) in other.drops {
            *self.drops.entry(reason).or_default() += n;
        }
        for (what, n) in other.counts {
            *self.counts.entry(what).or_default() += n;
        }
        self.facts.extend(other.facts);
    }

    /// Counts one dropped row.
    pub fn drop_row(&mut self, reason: &str) {
        match self.drops.get_mut(reason) {
            Some(n) => *n += 1,
            None => {
                self.drops.insert(reason.to_owned(), 1);
            }
        }
    }

    /// Adds to a count.
    pub fn count(&mut self, what: &str, n: u64) {
        match self.counts.get_mut(what) {
            Some(sum) => *sum += n,
            None => {
                self.counts.insert(what.to_owned(), n);
            }
        }
    }
}

/// A conversation out of a batch's list column.
pub(crate) fn messages_at(batch: &arrow::array::RecordBatch, column: &str, row: usize) -> Result<Vec<Message>> {
    use arrow::array::{Array, AsArray};
    let turns = batch.list(column)?.value(row);
    let turns = turns.as_struct();
    let field = |name: &str| {
        let column = turns.column_by_name(name).and_then(|c| c.as_string_opt::<i32>());
        column.ok_or_else(|| Error::new(format!("a turn has no `{name}`")).in_field(name))
    };
    let (roles, contents) = (field("role")?, field("content")?);
    (0..turns.len())
        .map(|i| {
            let role = Role::parse(roles.value(i))
                .ok_or_else(|| Error::new(format!("`{}` is no role", roles.value(i))).in_field(column))?;
            Ok(Message { role, content: contents.value(i).to_owned() })
        })
        .collect()
}

/// The rows of a batch at these indices, in their order.
pub(crate) fn take_rows(batch: &arrow::array::RecordBatch, rows: &[u32]) -> Result<arrow::array::RecordBatch> {
    let indices = arrow::array::UInt32Array::from(rows.to_vec());
    arrow::compute::take_record_batch(batch, &indices)
        .map_err(|e| Error::new("rows cannot be taken from a batch").caused_by(e))
}

/// A stage's kind and what reads its table.
type Builder = (&'static str, &'static str, fn(&StageTable) -> Result<Box<dyn Stage>>);

/// Every kind of stage, in the order of the flow, with one line for people.
pub const KINDS: &[Builder] = &[
    ("prompts", "import, generate, deduplicate and decontaminate prompts", |t| {
        Ok(Box::new(t.config.read::<prompts::PromptsConfig>()?))
    }),
    ("generate", "sample completions from an engine", |t| Ok(Box::new(generate::GenerateStage::read(t)?))),
    ("verify", "judge completions by a rule file", |t| Ok(Box::new(t.config.read::<verify::VerifyConfig>()?))),
    ("group", "rewards and advantages by prompt", |t| Ok(Box::new(t.config.read::<group::GroupConfig>()?))),
    ("select", "rejection sampling: keep what is worth training on", |t| {
        Ok(Box::new(t.config.read::<select::SelectConfig>()?))
    }),
    ("corpus", "mix tracks to quotas into an SFT dataset with its card", |t| {
        Ok(Box::new(corpus::CorpusStage::read(t)?))
    }),
    ("export", "write a dataset in the layout another tool reads", |t| {
        Ok(Box::new(t.config.read::<export::ExportConfig>()?))
    }),
];

/// Reads a stage's table by its kind.
///
/// # Errors
/// An unknown kind; an unknown key or a wrong type in the table, with its place.
pub fn build(table: &StageTable) -> Result<Box<dyn Stage>> {
    match KINDS.iter().find(|(kind, ..)| *kind == table.kind) {
        Some((_, _, read)) => read(table),
        None => {
            let names: Vec<&str> = KINDS.iter().map(|(kind, ..)| *kind).collect();
            let near =
                names.iter().min_by_key(|k| strsim::damerau_levenshtein(k, &table.kind)).expect("there are kinds");
            let origin = table.config.get("kind").map_or(&table.origin, |node| &node.origin);
            let error = Error::usage(format!("there is no stage of the kind `{}`", table.kind));
            let close = strsim::damerau_levenshtein(near, &table.kind) <= 2;
            let hint = if close {
                format!("did you mean `{near}`?")
            } else {
                format!("a stage's kind is its name, or `kind = …`; kinds: {}", names.join(", "))
            };
            Err(origin.locate(error).hint(hint))
        }
    }
}
