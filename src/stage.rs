//! Stages: each turns datasets into a dataset. A stage knows `schema` and `store`,
//! joins them to one room that does the work, and nothing of other stages.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::model::memory::Load;
use crate::model::{Config, Tokenizer};
use crate::recipe::Base;
use crate::schema::DatasetKind;
use crate::store::{FileInfo, Location, Manifest, ShardInfo};

pub mod align;
mod attend;
pub mod base_text;
mod batches;
mod chat_template;
pub mod claims;
mod context;
pub mod corpus;
pub mod eval;
pub mod export;
mod external_sort;
pub mod generate;
pub mod group;
mod grouped;
pub mod grpo;
mod judged;
mod kinds;
pub(crate) mod layout;
mod local_engine;
mod model_folder;
mod open_engine;
mod part;
pub mod preferences;
pub mod prompts;
mod record;
mod rule_files;
pub mod select;
mod servers;
pub mod sft;
mod stoppable;
mod training;
mod unruled;
pub mod verify;

pub(crate) use batches::{fitting, messages_at, take_rows};
pub(crate) use context::finished_record;
pub use context::{Progress, StageContext};
pub use kinds::{Alone, KINDS, StageKind, build};
pub(crate) use model_folder::{model_files, model_name};
pub use part::Part;
use rule_files::{check_rules, rules_path};
use training::{TRAINING_KEYS, in_training, training_materials, training_seed};
pub(crate) use training::{pending_rollouts, trained_steps};

/// One stage, configured.
pub trait Stage: Send + Sync {
    /// The datasets it reads.
    fn inputs(&self) -> Vec<Input>;

    /// The dataset it writes; `None` if it writes something else (a checkpoint, a report).
    fn output(&self) -> Option<DatasetKind>;

    /// A second dataset that it writes, and its subfolder. A later stage that reads this kind of dataset may name this stage as
    /// its input.
    fn beside(&self) -> Option<(DatasetKind, &'static str)> {
        None
    }

    /// Whether it leaves a model in the folder `model` of its own.
    fn writes_model(&self) -> bool {
        false
    }

    /// Whether models compute in it, so that its bytes depend on the kind of device.
    fn uses_device(&self) -> bool {
        self.writes_model()
    }

    /// What decides its output beside its configuration and inputs: (what, digest) of source
    /// files, rule files, weights.
    ///
    /// # Errors
    /// A file that cannot be read or a rule file that does not load: found before anything runs.
    fn materials(&self, _cx: &Materials<'_>) -> Result<Vec<(String, String)>> {
        Ok(Vec::new())
    }

    /// Looks for what is wrong with its table and can be told before anything runs: of what kind its
    /// inputs are, whether the files that it names are there.
    ///
    /// # Errors
    /// The table is wrong; the error points at the key.
    fn check(&self, _cx: &CheckContext<'_>) -> Result<(), Fault> {
        Ok(())
    }

    /// Looks for what this process lacks and the one that runs the stage must have, such as a key in its
    /// environment. A plan may be made elsewhere: it only says so.
    ///
    /// # Errors
    /// Something is missing; the error points at the key that asks for it.
    fn check_process(&self) -> Result<(), Fault> {
        Ok(())
    }

    /// Version of what the stage computes. Raise it when the same table and inputs would produce other bytes: what
    /// earlier versions made is then made again.
    fn version(&self) -> u32 {
        1
    }

    /// Whether the stage itself says, by [`StageContext::begin`], when results of an earlier run may be removed. If not,
    /// they are removed before [`Stage::run`].
    fn begins_late(&self) -> bool {
        false
    }

    /// Whether a stage of this table that trained so many steps, with all but `training.steps` as it is now, is the beginning
    /// of what it would train: it goes on from its last checkpoint then, to the same bytes.
    fn goes_on_after(&self, _steps: u64) -> bool {
        false
    }

    /// Keys of its table that the fingerprint leaves out, dotted, `*` for every item of a list: where the files of
    /// [`Stage::materials`] lie, how the work is done and not what is computed. Changing them makes nothing anew.
    fn unfingerprinted_keys(&self) -> Vec<&'static str> {
        Vec::new()
    }

    /// Rows it will write, if that can be told from the rows of its inputs: for `--dry-run`.
    fn expected_rows(&self, _inputs: &InputRows<'_>) -> Option<u64> {
        None
    }

    /// The shape of the model it leaves; `None` if it leaves none.
    ///
    /// # Errors
    /// A model it starts from that cannot be read.
    fn model_config(&self, _models: &Models<'_>) -> Result<Option<Config>> {
        Ok(None)
    }

    /// Whether the model it leaves can be shown conversations, which takes a chat template.
    ///
    /// # Errors
    /// A model it starts from that cannot be read.
    fn has_chat_template(&self, _models: &Models<'_>) -> Result<bool> {
        Ok(true)
    }

    /// Models and what goes with them, each as much as it holds at once: for `--dry-run`, and for an error
    /// before anything starts.
    ///
    /// # Errors
    /// As [`Stage::model_config`]; models that do not fit together, or that are to be shown conversations and have no chat
    /// template.
    fn memory(&self, _models: &Models<'_>) -> Result<Vec<(Config, Load)>> {
        Ok(Vec::new())
    }

    /// Most tokens it will have sampled, if it samples any and that can be told from the rows of its
    /// inputs: for `--dry-run`.
    fn expected_tokens(&self, _inputs: &InputRows<'_>) -> Option<u64> {
        None
    }

    /// What of the finished stage is taken over though it is made anew, in words: for `--dry-run`.
    fn keeps(&self, _made: &Manifest) -> Option<String> {
        None
    }

    /// Looks at what was made once it is committed, so that nothing of it is lost.
    ///
    /// # Errors
    /// There is nothing in it to go on with, such as when every request failed.
    fn accept(&self, _made: &Manifest, _folder: &Location) -> Result<()> {
        Ok(())
    }

    /// Whether what a finished stage has beside the shards that its manifest lists is still there.
    ///
    /// # Errors
    /// The disk or store refuses to look.
    fn has_its_lists(&self, _made: &Manifest, _folder: &Location) -> Result<bool> {
        Ok(true)
    }

    /// Does the work. Called again with the same configuration after a kill, it continues.
    fn run(&self, cx: &StageContext<'_>) -> Result<StageOutcome>;
}

/// What a stage reads of another stage, or of the user's.
#[derive(Clone, Debug)]
pub struct Input {
    /// What the stage calls it: the recipe's key.
    pub key: String,
    /// Another stage's name, or the path of a dataset or a model.
    pub of: String,
    /// What `of` has to be.
    pub wants: Wants,
}

/// What an [`Input`] must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wants {
    /// A dataset of this kind; `None` if any will do.
    Dataset(Option<DatasetKind>),
    /// A model in Hugging Face form: a folder, or a stage that trains one.
    Model,
    /// The figures of a stage that trains or evaluates.
    Figures,
}

impl Input {
    /// A dataset of this kind.
    pub fn new(key: impl Into<String>, of: impl Into<String>, kind: DatasetKind) -> Self {
        Input { key: key.into(), of: of.into(), wants: Wants::Dataset(Some(kind)) }
    }

    /// A model.
    pub fn model(key: impl Into<String>, of: impl Into<String>) -> Self {
        Input { key: key.into(), of: of.into(), wants: Wants::Model }
    }
}

/// The rows of a stage's inputs, by their keys, as far as they can be told before the stage runs.
pub struct InputRows<'a>(BTreeMap<&'a str, u64>);

impl<'a> InputRows<'a> {
    /// Of each input its rows, where they are known.
    pub fn new(inputs: impl IntoIterator<Item = (&'a Input, Option<u64>)>) -> Self {
        InputRows(inputs.into_iter().filter_map(|(input, rows)| Some((input.key.as_str(), rows?))).collect())
    }

    /// The rows of the input of that key; `None` if they are not known.
    pub fn of(&self, key: &str) -> Option<u64> {
        self.0.get(key).copied()
    }
}

/// What [`Stage::check`] may ask the pipeline for.
pub struct CheckContext<'a> {
    /// What relative paths of the recipe are relative to.
    pub base: &'a Base,
    /// The kind of dataset that an input is or will be, by its key; `None` if it is none of ours.
    pub kind: &'a dyn Fn(&str) -> Result<Option<DatasetKind>>,
}

/// What is wrong with a stage's table, and which of its keys says so.
pub struct Fault {
    /// Dotted.
    pub key: String,
    /// Without its place, which the pipeline adds.
    pub error: Error,
}

impl Fault {
    /// An error of the value under `key`, dotted from the stage's table.
    pub fn new(key: impl Into<String>, error: Error) -> Self {
        Fault { key: key.into(), error }
    }
}

/// What [`Stage::memory`] may ask the pipeline for: nothing of it has to have run yet.
pub struct Models<'a> {
    /// What relative paths of the recipe are relative to.
    pub base: &'a Base,
    /// The shape of a model by what an input calls it: a stage, or a folder.
    pub config: &'a dyn Fn(&str) -> Result<Config>,
    /// Whether such a model has a chat template.
    pub has_chat_template: &'a dyn Fn(&str) -> Result<bool>,
}

impl Models<'_> {
    /// Checks, before anything has run, that conversations can be shown to a model.
    ///
    /// # Errors
    /// It has no chat template; its files cannot be read.
    pub fn check_chat_template(&self, of: &str) -> Result<()> {
        match (self.has_chat_template)(of)? {
            true => Ok(()),
            false => Err(Tokenizer::without_chat_template().context(format!("the model `{of}`"))),
        }
    }
}

/// What [`Stage::materials`] may ask the pipeline for.
pub struct Materials<'a> {
    /// What relative paths of the recipe are relative to.
    pub base: &'a Base,
    /// BLAKE3 of a file's bytes; unchanged files are not read again.
    pub digest_file: &'a dyn Fn(&str) -> Result<String>,
    /// Fails once the user has asked to stop: which files there are may take long to find.
    pub check_stop: &'a dyn Fn() -> Result<()>,
}

/// What a shard, or a whole stage, came to.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct StageOutcome {
    /// Shards written, in order.
    pub shards: Vec<ShardInfo>,
    /// Other files that the manifest vouches for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub files: Vec<FileInfo>,
    /// Rows dropped by reason.
    pub drops: BTreeMap<String, u64>,
    /// Sums worth keeping, such as `correct` or `completion_tokens`; added up over shards.
    pub counts: BTreeMap<String, u64>,
    /// Anything else the manifest should say; the last shard's word wins.
    pub facts: serde_json::Map<String, serde_json::Value>,
}

impl StageOutcome {
    /// Adds another shard's outcome behind this one's.
    pub fn absorb(&mut self, other: StageOutcome) {
        self.shards.extend(other.shards);
        self.files.extend(other.files);
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

/// The last part of a path of the recipe.
fn file_name(path: &str) -> &str {
    path.rsplit(['/', '\\']).next().unwrap_or(path)
}

/// The fact of a training stage that its end left updates out: a longer run does not go on from it.
pub(crate) const CUT: &str = "last_rollout_batch_cut";

/// The key, among its manifest's counts, of rows whose request failed: a finished stage that has some asks those again.
pub(crate) const FAILED: &str = "failed";

/// The key of a stage's figures among its manifest's facts: {name: number}, for tables and claims.
pub const FIGURES: &str = "figures";
