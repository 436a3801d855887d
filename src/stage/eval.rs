//! `eval`: how good models are on prompts: pass@1, pass@k, majority vote, by slice.
//!
//! pass@1 is the mean over k samples at the paper's temperature 0.6 and top-p 0.95
//! (DeepSeek-R1, section 3). Every sample is kept as a groups dataset in `samples/MODEL/`, and figures are
//! computed from there: another figure asked for does not cost the samples, nor does a kill. Samples that were made
//! and judged elsewhere, such as recordings, are measured as they are: `{ name = "…", groups = "…" }`.

mod answers;
mod entry;
mod figures;
mod recorded;
mod samples;
mod slice;
mod table;

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use serde::Deserialize;

use super::layout::SAMPLES;
use super::local_engine::LocalTable;
use super::open_engine::OpenEngine;
use super::servers::{self, HOW_SERVED, ServedModel, WHERE_SERVED};
use super::unruled::Unruled;
use super::{
    CheckContext, FAILED, FIGURES, Fault, Input, InputRows, Materials, Models, Stage, StageContext, StageOutcome,
    chat_template,
};
use crate::backend::Opened;
use crate::engine::Sampling;
use crate::engine::local::LocalEngine;
use crate::engine::vllm::{Template, VllmConfig};
use crate::error::{Error, Result};
use crate::model::memory::{Limits, Load};
use crate::model::{Config, Tokenizer};
use crate::recipe::{Node, StageTable};
use crate::rule::file::RuleSet;
use crate::schema::{DatasetKind, Prompt};
use crate::seed::content_id;
use entry::Entry;
use figures::Judged;
use recorded::{Reading, Recorded};
use samples::{Benchmark, Samples};
use slice::Slice;
use table::EvalRow;

/// The stage's table in a recipe.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct EvalTable {
    #[serde(default = "default_prompts")]
    prompts: String,
    /// Stages that train a model, or folders; a table where there is more to say of one.
    models: Vec<Entry>,
    /// A rule file, or the name of a built-in one; [`RULES`] if left out. Groups are then measured by their own verdicts.
    rules: Option<String>,
    /// Samples of each prompt; [`SAMPLES_EACH`] if left out, and of groups all.
    samples: Option<u32>,
    /// The ks of pass@k, each from 1 to `samples`; pass@1 is always there.
    #[serde(default)]
    ks: Vec<u64>,
    #[serde(default)]
    sampling: Sampling,
    /// What to tell apart beside the whole.
    #[serde(default = "default_slices")]
    slices: Vec<Slice>,
    /// Whether the samples are kept.
    #[serde(default = "yes")]
    keep_samples: bool,
}

fn default_prompts() -> String {
    "prompts".to_owned()
}
fn default_slices() -> Vec<Slice> {
    vec![Slice::Domain, Slice::Language, Slice::Difficulty]
}
fn yes() -> bool {
    true
}

/// The rules of models that are sampled, where the table names none.
const RULES: &str = "r1";
/// Samples of each prompt, where the table does not say how many.
const SAMPLES_EACH: u32 = 16;

impl EvalTable {
    fn rules(&self) -> &str {
        self.rules.as_deref().unwrap_or(RULES)
    }

    fn samples(&self) -> u32 {
        self.samples.unwrap_or(SAMPLES_EACH)
    }

    /// How many models are sampled from; the others are measured by groups that are there.
    fn sampled(&self) -> usize {
        self.models.iter().filter(|entry| entry.groups().is_none()).count()
    }
}

/// What the folder of `template = "ours"` is called among the inputs.
const TOKENIZER: &str = "engine.tokenizer";
/// Facts of one model's outcome that carry its table rows.
const ROWS: &str = "evals";
/// The fact that names the rules; of groups with verdicts of others, `rules_digest/MODEL`.
const RULES_DIGEST: &str = "rules_digest";

/// The stage.
pub struct EvalStage {
    table: EvalTable,
    /// Servers that sample in the place of this process.
    servers: Option<Box<VllmConfig>>,
    /// Of the engine in this process, where no servers are asked.
    limits: Limits,
}

impl EvalStage {
    /// Reads the stage's table.
    ///
    /// # Errors
    /// No model, two of one name, no samples, a k beyond them, an unknown key, with its place.
    pub fn read(table: &StageTable) -> Result<Self> {
        let mut node = table.config.clone();
        let (servers, limits) = node.remove("engine").map(|node| engine(table, node)).transpose()?.unwrap_or_default();
        let mut read: EvalTable = node.read()?;
        let at = |e: Error| Err::<Self, _>(table.origin.locate(e));
        if read.models.is_empty() {
            return at(Error::usage("`models` is empty").hint("name the stages that train, or folders of models"));
        }
        if read.samples() == 0 {
            return at(Error::usage("`samples` must be at least 1"));
        }
        let sampled = read.sampled();
        if sampled == 0 && table.config.get("engine").is_some() {
            let error = Error::usage("`engine` where every item of `models` has `groups`: nothing is sampled");
            return at(error.hint("leave it out"));
        }
        // How many samples groups have is seen when they are read.
        let samples = match (sampled, read.samples) {
            (0, None) => u64::MAX,
            _ => u64::from(read.samples()),
        };
        if let Some(k) = read.ks.iter().find(|k| !(1..=samples).contains(k)) {
            let from = if samples == u64::MAX { "any".to_owned() } else { samples.to_string() };
            let error = Error::usage(format!("pass@{k} cannot be told from {from} samples of each prompt"));
            let origin = node.get("ks").map_or(&table.origin, |ks| &ks.origin);
            return Err(origin.locate(error).hint("`ks` are from 1 to `samples`: raise `samples`, or leave it out"));
        }
        // A column each, beside that of pass@1.
        let mut columns = HashSet::from([1]);
        read.ks.retain(|&k| columns.insert(k));
        let others = sampled.saturating_sub(1);
        let checked = read.models.iter().try_for_each(|entry| entry.check(others, servers.is_some()));
        checked.map_err(|e| table.config.get("models").map_or(&table.origin, |node| &node.origin).locate(e))?;
        let mut names: Vec<String> = read.models.iter().map(Entry::name).collect();
        names.sort();
        if let Some(twice) = names.windows(2).find(|pair| pair[0] == pair[1]) {
            let error = Error::usage(format!("two models are called `{}`", twice[0]));
            return at(error.hint("call one otherwise: { name = \"…\", model = \"…\" }"));
        }
        Ok(EvalStage { table: read, servers, limits })
    }

    fn key(index: usize) -> String {
        format!("models.{index}")
    }

    /// The engine that samples from one model.
    fn open_engine(&self, cx: &StageContext<'_>, index: usize) -> Result<OpenEngine> {
        let entry = &self.table.models[index];
        if let (true, Some(config)) = (entry.is_served(), &self.servers) {
            let tokenizer = config.tokenizer.as_ref().map(|_| cx.input_folder(TOKENIZER)).transpose()?;
            return Ok(OpenEngine::Servers(Box::new(servers::connect(config, cx, tokenizer)?)));
        }
        let folder = cx.input_folder(&Self::key(index))?;
        if let Some(config) = &self.servers {
            return Ok(OpenEngine::Policy(Box::new(ServedModel::open(config, cx, folder, entry.chat_template())?)));
        }
        let tokenizer = Arc::new(self.tokenizer(cx, index)?);
        let (name, temperature, limits) = (entry.name(), self.table.sampling.temperature, self.limits);
        Ok(OpenEngine::Local(match cx.device.open()? {
            Opened::Cpu(on) => Box::new(LocalEngine::load(on, folder, tokenizer, name, temperature, limits)?),
            Opened::Cuda(on) => Box::new(LocalEngine::load(on, folder, tokenizer, name, temperature, limits)?),
        }))
    }

    /// What names a model and how it is shown prompts, without loading it; `None` of one that only its servers know.
    fn identity(&self, cx: &StageContext<'_>, index: usize) -> Result<Option<String>> {
        let entry = &self.table.models[index];
        if entry.is_served() {
            return Ok(None);
        }
        let folder = cx.input_folder(&Self::key(index))?;
        if let Some(config) = &self.servers {
            return ServedModel::identity(config, cx, folder, entry.chat_template()).map(Some);
        }
        let template = entry.chat_template().map(|of| chat_template::source(of, cx.base)).transpose()?;
        let parts = [servers::digest(folder)?, cx.device.make().to_owned(), template.unwrap_or_default()];
        Ok(Some(content_id(parts.iter().map(String::as_bytes))))
    }

    /// What shows a model of this process its prompts.
    fn tokenizer(&self, cx: &StageContext<'_>, index: usize) -> Result<Tokenizer> {
        let (entry, folder) = (&self.table.models[index], cx.input_folder(&Self::key(index))?);
        let tokenizer = chat_template::tokenizer(folder, entry.chat_template(), cx.base)?;
        tokenizer.check_chat_template().map_err(|e| e.context(format!("the model `{}`", entry.name())))?;
        Ok(tokenizer)
    }

    /// Samples what is not there yet of a model's samples.
    fn sample(&self, cx: &StageContext<'_>, index: usize, benchmark: &Benchmark<'_>) -> Result<Judged> {
        let (entry, table) = (&self.table.models[index], &self.table);
        let (engine, identity) = match self.identity(cx, index)? {
            Some(identity) => (None, identity),
            None => {
                let engine = self.open_engine(cx, index)?;
                let identity = engine.engine().info().model_digest;
                (Some(engine), identity)
            }
        };
        let asked = match &self.servers {
            None => identity,
            Some(config) => {
                let ours = config.tokenizer.as_ref().filter(|_| entry.is_served());
                identity
                    + &servers::rows_hold(config, ours.map(|_| cx.input_folder(TOKENIZER)).transpose()?)?.to_string()
            }
        };
        let samples = Samples::of(cx, benchmark, &cx.folder.join(SAMPLES).join(&entry.folder()), &asked, table);
        match samples.whole()? {
            Some(judged) => Ok(judged),
            None => {
                let engine = engine.map_or_else(|| self.open_engine(cx, index), Ok)?;
                cx.begin()?;
                samples.make(&engine, &entry.name())
            }
        }
    }

    /// Reads a model's samples from its groups; `outcome` notes what is left out, and whose verdicts they have.
    fn read_groups(
        &self,
        cx: &StageContext<'_>,
        index: usize,
        benchmark: &Benchmark<'_>,
        outcome: &mut StageOutcome,
    ) -> Result<Judged> {
        let (table, groups) = (&self.table, cx.input(&Self::key(index))?);
        let reading = Reading { benchmark, by_these_rules: table.rules.is_some(), first: table.samples };
        let Recorded { judged, rules_digest, others } = reading.read(cx, groups)?;
        let name = table.models[index].name();
        if others > 0 {
            outcome.drops.insert("prompt_not_measured".to_owned(), others);
        }
        let (of, without) =
            (benchmark.prompts.len(), judged.samples.iter().filter(|samples| samples.is_empty()).count());
        if without > 0 {
            outcome.count("prompts_without_samples", without as u64);
            cx.progress
                .say(&format!("{name}: the groups have no sample of {without} of {of} prompts: they do not count"));
        }
        if rules_digest != benchmark.rules.digest() {
            cx.progress.say(&format!(
                "{name}: the groups' own verdicts count. Votes compare answers as the rules `{}` do; if the groups' rules \
                 compare otherwise, name those as `rules`",
                benchmark.rules.name()
            ));
            outcome.facts.insert(format!("{RULES_DIGEST}/{name}"), rules_digest.into());
        }
        Ok(judged)
    }

    /// Measures a model by its samples.
    fn evaluate(&self, cx: &StageContext<'_>, index: usize, benchmark: &Benchmark<'_>) -> Result<StageOutcome> {
        let (entry, table) = (&self.table.models[index], &self.table);
        let (name, mut outcome) = (entry.name(), StageOutcome::default());
        let judged = match entry.groups() {
            Some(_) => self.read_groups(cx, index, benchmark, &mut outcome)?,
            None => self.sample(cx, index, benchmark)?,
        };
        let rows = figures::rows(&name, benchmark, table, cx.seed, &judged);
        outcome.count("samples", judged.samples.iter().map(|samples| samples.len() as u64).sum());
        outcome.facts.insert(format!("{ROWS}/{name}"), serde_json::to_value(&rows).expect("rows are plain data"));
        let failed = judged.failed();
        if failed > 0 {
            // Those of groups are not asked again: they are as they are.
            if entry.groups().is_none() {
                outcome.count(FAILED, failed);
            }
            cx.progress.say(&format!("{name}: {failed} samples could not be had and do not count"));
        }
        judged.too_few(&table.ks).iter().for_each(|line| cx.progress.say(&format!("{name}: {line}")));
        cx.progress.say(&format!("{name}: {}", rows[0].describe()));
        Ok(outcome)
    }
}

/// `engine = { kind = "…", … }`: servers, or limits of the engine in this process.
fn engine(table: &StageTable, mut engine: Node) -> Result<(Option<Box<VllmConfig>>, Limits)> {
    const ENGINES: &str = "engines that serve models of a run: local, vllm";
    let Some(kind) = engine.remove("kind") else {
        return Err(table.origin.locate(Error::usage("the engine has no `kind`")).hint(ENGINES));
    };
    match kind.text() {
        Some("local") => Ok((None, engine.read::<LocalTable>()?.limits())),
        Some("vllm") => Ok((Some(Box::new(engine.read()?)), Limits::default())),
        _ => Err(kind.origin.locate(Error::usage("no such engine serves models of a run")).hint(ENGINES)),
    }
}

impl Stage for EvalStage {
    fn inputs(&self) -> Vec<Input> {
        let mut inputs = vec![Input::new("prompts", &self.table.prompts, DatasetKind::Prompts)];
        for (index, entry) in self.table.models.iter().enumerate() {
            inputs.extend(entry.model().map(|model| Input::model(Self::key(index), model)));
            inputs.extend(entry.groups().map(|groups| Input::new(Self::key(index), groups, DatasetKind::Groups)));
        }
        if self.table.models.iter().any(Entry::is_served) {
            let tokenizer = self.servers.as_ref().and_then(|config| config.tokenizer.as_ref());
            inputs.extend(tokenizer.map(|of| Input::model(TOKENIZER, of)));
        }
        inputs
    }

    fn output(&self) -> Option<DatasetKind> {
        None
    }

    fn check(&self, _cx: &CheckContext<'_>) -> Result<(), Fault> {
        let policy = !self.table.models.iter().any(Entry::is_served);
        self.servers.as_ref().map_or(Ok(()), |config| servers::check(config, policy))
    }

    fn check_process(&self) -> Result<(), Fault> {
        self.servers.as_ref().map_or(Ok(()), |config| servers::check_process(config))
    }

    /// 2: prompts that have nothing to vote with are left out of the vote; samples have the logprobs of their temperature.
    /// 3: what was cut counts as the rules decided of it; samples are in shards.
    fn version(&self) -> u32 {
        3
    }

    fn uses_device(&self) -> bool {
        self.table.sampled() > 0
    }

    /// A finished evaluation is not given up for one that cannot begin.
    fn begins_late(&self) -> bool {
        true
    }

    fn materials(&self, cx: &Materials<'_>) -> Result<Vec<(String, String)>> {
        let rules = RuleSet::load(&super::rules_path(self.table.rules(), cx.base)?)?;
        let mut materials = vec![("rules".to_owned(), rules.digest().to_owned())];
        if self.table.rules.is_some() && self.table.sampled() < self.table.models.len() {
            materials.push(("whose verdicts of the groups".to_owned(), "rules".to_owned()));
        }
        for entry in &self.table.models {
            if let Some(template) = entry.chat_template() {
                let (what, digest) = chat_template::material(template, cx.base)?;
                materials.push((format!("{what} of {}", entry.name()), digest));
            }
        }
        Ok(materials)
    }

    fn unfingerprinted_keys(&self) -> Vec<&'static str> {
        // This process is the default.
        let engine = if self.servers.is_some() { WHERE_SERVED } else { "engine" };
        [&["rules", "models.*.chat_template", engine], HOW_SERVED].concat()
    }

    /// One model at a time; servers' memory is their own.
    fn memory(&self, models: &Models<'_>) -> Result<Vec<(Config, Load)>> {
        let of = |model: &str| -> Result<(Config, Load)> {
            let config = (models.config)(model)?;
            let load = Load { decoding: Some(self.limits), ..Load::default() };
            Ok((config, load))
        };
        let loads = match &self.servers {
            Some(_) => Vec::new(),
            None => self.table.models.iter().filter_map(Entry::model).map(of).collect::<Result<_>>()?,
        };
        let plain = self.servers.as_ref().is_some_and(|config| config.template == Template::Plain);
        let bare = self.table.models.iter().filter(|entry| entry.chat_template().is_none() && !plain);
        bare.filter_map(Entry::model).try_for_each(|model| models.check_chat_template(model))?;
        Ok(loads)
    }

    fn expected_tokens(&self, inputs: &InputRows<'_>) -> Option<u64> {
        let models = self.table.sampled() as u64;
        if models == 0 {
            return Some(0);
        }
        let samples = inputs.of("prompts")?.checked_mul(models)?.checked_mul(u64::from(self.table.samples()))?;
        samples.checked_mul(u64::from(self.table.sampling.max_tokens))
    }

    fn run(&self, cx: &StageContext<'_>) -> Result<StageOutcome> {
        let folder = cx.local_folder()?;
        let rules = RuleSet::load(&super::rules_path(self.table.rules(), cx.base)?)?;
        let sampled = self.table.sampled();
        if sampled > 0 {
            rules.ensure_ready()?;
        }
        cx.input("prompts")?.require_unique(DatasetKind::Prompts, "prompt_id")?;
        let prompts: Vec<Prompt> = cx.input("prompts")?.rows_of::<Prompt>().collect::<Result<_>>()?;
        if prompts.is_empty() {
            return Err(Error::new("there are no prompts to evaluate on").in_file(cx.input("prompts")?.location()));
        }
        if sampled > 0 || self.table.rules.is_some() {
            Unruled::of(&rules, &prompts).warning("prompts").iter().for_each(|line| cx.progress.say(line));
        }
        let models = self.table.models.len();
        let mut samples = (sampled * prompts.len()) as u64 * u64::from(self.table.samples());
        for (index, entry) in self.table.models.iter().enumerate() {
            if entry.groups().is_some() {
                samples += cx.input(&Self::key(index))?.rows()?;
            } else if self.servers.is_none() {
                // Before any of them is measured.
                self.tokenizer(cx, index)?;
            }
        }
        cx.progress.start(samples, "samples");
        let benchmark = Benchmark::new(&rules, &prompts);
        let mut done: BTreeMap<usize, StageOutcome> = BTreeMap::new();
        // Not in the journal yet: a finished evaluation is not given up before something is sampled for the next.
        let mut new = Vec::new();
        for index in 0..models {
            // One model at a time: each takes all cores.
            if let Some(outcome) = cx.finished(index) {
                done.insert(index, outcome.clone());
            } else if cx.is_mine(index) {
                new.push((index, self.evaluate(cx, index, &benchmark)?));
            }
            if cx.has_begun() || index + 1 == models {
                cx.begin()?;
                for (index, outcome) in new.drain(..) {
                    cx.finish_shard(index, &outcome)?;
                    done.insert(index, outcome);
                }
            }
        }
        if done.len() < models {
            return Err(cx.waits_for_others(models));
        }
        let mut sum = StageOutcome::default();
        done.into_values().for_each(|outcome| sum.absorb(outcome));
        let mut rows: Vec<EvalRow> = Vec::new();
        for entry in &self.table.models {
            let fact = sum.facts.remove(&format!("{ROWS}/{}", entry.name())).unwrap_or_default();
            let read: Vec<EvalRow> = serde_json::from_value(fact)
                .map_err(|e| Error::new("the journal's figures cannot be read").caused_by(e))?;
            rows.extend(read);
        }
        table::told(&rows).iter().for_each(|line| cx.progress.say(line));
        table::write(folder, &rows)?;
        samples::prune(&cx.folder.join(SAMPLES), |folder| {
            self.table.keep_samples && self.table.models.iter().any(|entry| entry.folder() == folder)
        })?;
        sum.facts.insert(FIGURES.to_owned(), table::figures(&rows).into());
        let by_others = |entry: &Entry| sum.facts.contains_key(&format!("{RULES_DIGEST}/{}", entry.name()));
        if !self.table.models.iter().all(by_others) {
            sum.facts.insert("rules".to_owned(), rules.name().into());
            sum.facts.insert(RULES_DIGEST.to_owned(), rules.digest().into());
        }
        Ok(sum)
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::recipe::Recipe;

    fn stage(keys: &str) -> Result<EvalStage> {
        let recipe = Recipe::parse(
            "recipe.toml",
            &format!("name = \"t\"\n[stages.eval]\nmodels = [\"m\"]\n{keys}"),
            Path::new(""),
            &[],
        )?;
        EvalStage::read(&recipe.stages[0])
    }

    #[test]
    fn groups_are_measured_without_an_engine_and_with_any_k() {
        let read = |models: &str, keys: &str| {
            let recipe = Recipe::parse(
                "recipe.toml",
                &format!("name = \"t\"\n[stages.eval]\nmodels = [{models}]\n{keys}"),
                Path::new(""),
                &[],
            );
            EvalStage::read(&recipe.unwrap().stages[0]).map_err(|e| e.render(false))
        };
        let groups = "{ name = \"g\", groups = \"group\" }";
        let stage = read(groups, "ks = [1, 64]").unwrap();
        assert!(!stage.uses_device() && stage.expected_tokens(&InputRows::new([])) == Some(0));
        assert!(read(groups, "samples = 4\nks = [64]").is_err());
        let mixed = read(&format!("\"base\", {groups}"), "ks = [16]").unwrap();
        let inputs = mixed.inputs();
        let rows = InputRows::new(inputs.iter().map(|input| (input, (input.key == "prompts").then_some(2))));
        assert!(mixed.uses_device() && mixed.expected_tokens(&rows).unwrap() > 0);
        for (models, keys, told) in [
            (groups, "engine = { kind = \"local\" }", "nothing is sampled"),
            ("{ groups = \"g\", model = \"m\" }", "", "names one of `model`, `groups` and `served = true`"),
            ("{ groups = \"g\", chat_template = \"plain\" }", "", "whose samples are there already"),
        ] {
            let error = read(models, keys).err().unwrap();
            assert!(error.contains(told), "{error}");
        }
    }

    #[test]
    fn every_k_has_one_column_and_none_that_samples_cannot_tell() {
        assert_eq!(stage("samples = 8\nks = [4, 1, 8, 4, 1]").unwrap().table.ks, [4, 8]);
        for ks in ["[2, 16]", "[0]"] {
            let error = stage(&format!("samples = 8\nks = {ks}")).err().unwrap().render(false);
            assert!(error.contains("from 8 samples") && error.contains("recipe.toml:5:6"), "{error}");
        }
    }
}
