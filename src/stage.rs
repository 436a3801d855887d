//! Stages: each turns datasets into a dataset. A stage knows `schema` and `store`,
//! joins them to one room that does the work, and nothing of other stages.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result, nearest};
use crate::model::Config;
use crate::model::memory::Load;
use crate::recipe::StageTable;
use crate::rule::file::BUILTIN;
use crate::schema::{BatchExt, DatasetKind, Message, Role};
use crate::store::{Location, Manifest, ShardInfo, local_file};

pub mod align;
pub mod base_text;
mod buckets;
mod chat_template;
pub mod claims;
mod context;
pub mod corpus;
pub mod eval;
pub mod export;
pub mod generate;
pub mod group;
mod grouped;
pub mod grpo;
mod judged;
pub mod preferences;
pub mod prompts;
pub mod select;
mod served;
pub mod sft;
mod stoppable;
mod training;
mod unruled;
pub mod verify;

pub(crate) use context::finished_record;
pub use context::{Progress, StageContext};
pub(crate) use training::trained_steps;

/// The folder of the model in the folder of the stage that trained it.
pub(crate) const MODEL: &str = "model";

/// One stage, configured.
pub trait Stage: Send + Sync {
    /// The datasets it reads.
    fn inputs(&self) -> Vec<Input>;

    /// The dataset it writes; `None` if it writes something else (a checkpoint, a report).
    fn output(&self) -> Option<DatasetKind>;

    /// Whether it leaves a model in the folder `model` of its own.
    fn writes_model(&self) -> bool {
        false
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
    /// That, with the key at fault.
    fn check(&self, _cx: &Surroundings<'_>) -> Result<(), Fault> {
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

    /// Keys of its table that the fingerprint leaves out, dotted, `*` for every item of a list: where the files of
    /// [`Stage::materials`] lie, how the work is done and not what is computed. Changing them makes nothing anew.
    fn unfingerprinted_keys(&self) -> Vec<&'static str> {
        Vec::new()
    }

    /// Rows it will write, if that can be told from the rows of its inputs (in the order of
    /// [`Stage::inputs`]): for `--dry-run`.
    fn expected_rows(&self, _inputs: &[Option<u64>]) -> Option<u64> {
        None
    }

    /// The shape of the model it leaves; `None` if it leaves none.
    ///
    /// # Errors
    /// A model it starts from that cannot be read.
    fn model_config(&self, _models: &Models<'_>) -> Result<Option<Config>> {
        Ok(None)
    }

    /// Models and what goes with them, each as much as it holds at once: for `--dry-run`, and for an error
    /// before anything starts.
    ///
    /// # Errors
    /// As [`Stage::model_config`].
    fn memory(&self, _models: &Models<'_>) -> Result<Vec<(Config, Load)>> {
        Ok(Vec::new())
    }

    /// Most tokens it will have sampled, if it samples any and that can be told from the rows of its
    /// inputs: for `--dry-run`.
    fn expected_tokens(&self, _inputs: &[Option<u64>]) -> Option<u64> {
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
    fn run(&self, cx: &StageContext<'_>) -> Result<Outcome>;
}

/// What a stage reads of another stage, or of the user's.
#[derive(Clone, Debug)]
pub struct Input {
    /// What the stage calls it: the recipe's key.
    pub key: String,
    /// Another stage's name, or the path of a dataset or a model.
    pub of: String,
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

/// What [`Stage::check`] may ask the pipeline for.
pub struct Surroundings<'a> {
    /// Makes a path of the recipe absolute.
    pub resolve: &'a dyn Fn(&str) -> String,
    /// The kind of dataset that an input is or will be, by its key; `None` if it is none of ours.
    pub kind: &'a dyn Fn(&str) -> Result<Option<DatasetKind>>,
}

/// What is wrong with a stage's table, and which of its keys says so.
pub struct Fault {
    /// Dotted.
    pub key: String,
    pub error: Error,
}

impl Fault {
    pub fn new(key: impl Into<String>, error: Error) -> Self {
        Fault { key: key.into(), error }
    }
}

/// What [`Stage::memory`] may ask the pipeline for: nothing of it has to have run yet.
pub struct Models<'a> {
    /// Makes a path of the recipe absolute.
    pub resolve: &'a dyn Fn(&str) -> String,
    /// The shape of a model by what an input calls it: a stage, or a folder.
    pub config: &'a dyn Fn(&str) -> Result<Config>,
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

/// The last part of a path of the recipe.
fn file_name(path: &str) -> &str {
    path.rsplit(['/', '\\']).next().unwrap_or(path)
}

/// The rows of a batch at these indices, in their order.
pub(crate) fn take_rows(batch: &arrow::array::RecordBatch, rows: &[u32]) -> Result<arrow::array::RecordBatch> {
    let indices = arrow::array::UInt32Array::from(rows.to_vec());
    arrow::compute::take_record_batch(batch, &indices)
        .map_err(|e| Error::new("rows cannot be taken from a batch").caused_by(e))
}

/// The key of a stage's figures among its manifest's facts: {name: number}, for tables and claims.
pub const FIGURES: &str = "figures";

/// Where a server's log goes that is started for a stage: into the run's folder, under the stage's
/// name, unless the recipe says where. The user is told.
fn name_server_log(config: &mut crate::engine::vllm::VllmConfig, cx: &StageContext<'_>) {
    if !config.launch {
        return;
    }
    let server = &mut config.server;
    if server.log.as_os_str().is_empty() {
        server.log = match cx.run_folder.as_local() {
            Some(folder) => folder.join(format!("{}.server.log", cx.name)),
            None => server.default_log(),
        };
    }
    cx.progress.say(&format!(
        "starting `{} serve {}`; its log: {}",
        server.command,
        server.model,
        server.log.display()
    ));
}

/// A rule file's path, or the name of a built-in one if there is no such file.
///
/// # Errors
/// A URL whose object cannot be fetched.
fn rules_path(rules: &str, resolve: &dyn Fn(&str) -> String) -> Result<String> {
    let path = local_file(&resolve(rules))?;
    Ok(if std::path::Path::new(&path).exists() { path } else { rules.to_owned() })
}

/// Finds a slip in the name of a rule file before anything runs.
fn check_rules(key: &str, rules: &str, cx: &Surroundings<'_>) -> Result<(), Fault> {
    let path = (cx.resolve)(rules);
    let names = || BUILTIN.iter().map(|(name, _)| *name);
    if path.contains("://") || std::path::Path::new(&path).exists() || names().any(|name| name == rules) {
        return Ok(());
    }
    let hint = match nearest(rules, names()) {
        Some(near) => format!("did you mean `{near}`?"),
        None => format!("built-in rule files: {}", names().collect::<Vec<_>>().join(", ")),
    };
    Err(Fault::new(key, Error::usage(format!("there is no rule file `{path}`")).hint(hint)))
}

/// Points what is wrong with a stage's `training` at that table.
fn in_training(table: &StageTable, checked: Result<()>) -> Result<()> {
    let origin = table.config.get("training").map_or(&table.origin, |node| &node.origin);
    checked.map_err(|e| origin.locate(e))
}

/// Keys of every training stage that decide nothing of what is computed: how memory is saved, when a checkpoint is
/// written, when too many bad gradients end the run. A stage that was killed goes on under other ones.
///
/// `tokens_per_microbatch` decides the order in which gradients are added, so their last bits; somebody whose memory is
/// short has to be able to lower it without losing what was trained.
const TRAINING_KEYS: &[&str] = &[
    "checkpoints",
    "chat_template",
    "init.tokenizer",
    "training.tokens_per_microbatch",
    "training.recompute",
    "training.optimizer.offload",
    "training.optimizer.max_bad_steps",
];

/// The seed of a training stage: the run's, unless the table has one of its own.
fn training_seed(own: u64, cx: &StageContext<'_>) -> u64 {
    if own == 0 { cx.seed } else { own }
}

/// What decides a training stage's result beside its inputs.
fn training_materials(
    cx: &Materials<'_>,
    policy: &training::PolicyConfig,
    evaluation_rules: Option<&str>,
) -> Result<Vec<(String, String)>> {
    let mut materials = Vec::new();
    for file in policy.tokenizer_files(cx.resolve) {
        let file = file.display().to_string();
        materials.push((format!("tokenizer/{}", file_name(&file)), (cx.digest_file)(&file)?));
    }
    if let Some(template) = &policy.chat_template {
        materials.push(chat_template::material(template, cx.resolve)?);
    }
    if let Some(rules) = evaluation_rules {
        let rules = crate::rule::file::RuleSet::load(&rules_path(rules, cx.resolve)?)?;
        materials.push(("evaluation rules".to_owned(), rules.digest().to_owned()));
    }
    Ok(materials)
}

/// What completions call a model: its folder's name, or the stage's that trained it.
pub(crate) fn model_name(folder: &std::path::Path) -> String {
    let name = |path: &std::path::Path| path.file_name().map(|name| name.to_string_lossy().into_owned());
    let own = name(folder).unwrap_or_else(|| folder.display().to_string());
    match folder.parent().and_then(name) {
        // `5_r1_zero/model` is the model of the stage `r1_zero`.
        Some(stage) if own == MODEL => stage.split_once('_').map_or(stage.clone(), |(_, name)| name.to_owned()),
        _ => own,
    }
}

/// The files of a model's folder that decide what it answers, by name.
pub(crate) fn model_files(folder: &std::path::Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    let decides = |path: &std::path::PathBuf| {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        name.ends_with(".safetensors") || name.ends_with(".json") || name.ends_with(".jinja")
    };
    let mut files: Vec<String> = entries.filter(decides).map(|path| path.display().to_string()).collect();
    files.sort();
    files
}

/// A stage's kind and what reads its table.
type Builder = (&'static str, &'static str, fn(&StageTable) -> Result<Box<dyn Stage>>);

/// Every kind of stage, in the order of the flow, with one line for people.
pub const KINDS: &[Builder] = &[
    ("prompts", "import, generate, deduplicate and decontaminate prompts", |t| {
        Ok(Box::new(prompts::PromptsConfig::read(t)?))
    }),
    ("generate", "sample completions from an engine", |t| Ok(Box::new(generate::GenerateStage::read(t)?))),
    ("verify", "judge completions by a rule file", |t| Ok(Box::new(t.config.read::<verify::VerifyConfig>()?))),
    ("group", "rewards and advantages by prompt", |t| Ok(Box::new(t.config.read::<group::GroupConfig>()?))),
    ("select", "rejection sampling: keep what is worth training on", |t| Ok(Box::new(select::SelectConfig::read(t)?))),
    ("corpus", "mix tracks to quotas into an SFT dataset with its card", |t| {
        Ok(Box::new(corpus::CorpusStage::read(t)?))
    }),
    ("base_text", "write the mixed text a mini base model is pretrained on", |t| {
        Ok(Box::new(base_text::BaseTextStage::read(t)?))
    }),
    ("preferences", "pairs of a better and a worse answer", |t| Ok(Box::new(preferences::PreferencesStage::read(t)?))),
    ("sft", "fine-tune a model on a corpus", |t| Ok(Box::new(sft::SftStage::read(t)?))),
    ("grpo", "reinforcement learning on rule rewards", |t| Ok(Box::new(grpo::GrpoStage::read(t)?))),
    ("align", "preference optimisation, plain or worst group first", |t| Ok(Box::new(align::AlignStage::read(t)?))),
    ("distill", "fine-tune a smaller model on a teacher's corpus", |t| Ok(Box::new(sft::SftStage::read(t)?))),
    ("eval", "pass@1, pass@k and majority vote of models on prompts", |t| Ok(Box::new(eval::EvalStage::read(t)?))),
    ("claims", "check what a run was meant to show", |t| Ok(Box::new(claims::ClaimsStage::read(t)?))),
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
            let origin = table.config.get("kind").map_or(&table.origin, |node| &node.origin);
            let error = Error::usage(format!("there is no stage of the kind `{}`", table.kind));
            let hint = match nearest(&table.kind, names.iter().copied()) {
                Some(near) => format!("did you mean `{near}`?"),
                None => format!("a stage's kind is its name, or `kind = …`; kinds: {}", names.join(", ")),
            };
            Err(origin.locate(error).hint(hint))
        }
    }
}
