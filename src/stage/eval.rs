//! `eval`: how good models are on prompts: pass@1, pass@k, majority vote, by slice.
//!
//! pass@1 is the mean over k samples at the paper's temperature 0.6 and top-p 0.95
//! (DeepSeek-R1, section 3). Every sample is kept as a groups dataset in `samples/MODEL/`.

mod entry;
mod slice;
mod table;

use std::collections::HashSet;
use std::sync::Arc;

use serde::Deserialize;

use super::judged::{Judged, ensure_some_answer, group_rows, sample_and_judge};
use super::served::{self, HOW_SERVED, Served, WHERE_SERVED};
use super::stoppable::Stoppable;
use super::unruled::Unruled;
use super::{FIGURES, Input, Materials, Models, Outcome, Stage, StageContext, chat_template};
use crate::backend::Opened;
use crate::engine::local::{LocalEngine, Options as EngineOptions};
use crate::engine::vllm::VllmConfig;
use crate::engine::{Engine, Sampling};
use crate::error::{Error, Result};
use crate::eval::{Options, PromptResult, SampleResult, summarise};
use crate::model::memory::Load;
use crate::model::{Config, Tokenizer};
use crate::recipe::{Node, StageTable};
use crate::rule::file::RuleSet;
use crate::rule::math::{Equivalence, MathConfig, equivalent};
use crate::schema::{DatasetKind, GroupRow, Prompt};
use crate::store::{Manifest, ShardWriter, WriterOptions, sweep_unfinished};
use entry::Entry;
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
    /// A rule file, or the name of a built-in one.
    #[serde(default = "default_rules")]
    rules: String,
    /// Samples of each prompt.
    #[serde(default = "default_samples")]
    samples: u32,
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
fn default_rules() -> String {
    "r1".to_owned()
}
fn default_samples() -> u32 {
    16
}
fn default_slices() -> Vec<Slice> {
    vec![Slice::Domain, Slice::Language, Slice::Difficulty]
}
fn yes() -> bool {
    true
}

/// What the folder of `template = "ours"` is called among the inputs.
const TOKENIZER: &str = "engine.tokenizer";
/// Folder of the samples within the stage's own.
const SAMPLES: &str = "samples";
/// Prompts asked at once: what an interrupted evaluation loses at most, of one model.
const PROMPTS_AT_ONCE: usize = 512;
/// Facts of one model's outcome that carry its table rows.
const ROWS: &str = "evals";

/// The stage.
pub struct EvalStage {
    table: EvalTable,
    /// Servers that sample in the place of this process.
    servers: Option<Box<VllmConfig>>,
}

impl EvalStage {
    /// Reads the stage's table.
    ///
    /// # Errors
    /// No model, two of one name, no samples, a k beyond them, an unknown key, with its place.
    pub fn read(table: &StageTable) -> Result<Self> {
        let mut node = table.config.clone();
        let servers = node.remove("engine").map(|engine| servers(table, engine)).transpose()?.flatten();
        let mut read: EvalTable = node.read()?;
        let at = |e: Error| Err::<Self, _>(table.origin.locate(e));
        if read.models.is_empty() {
            return at(Error::usage("`models` is empty").hint("name the stages that train, or folders of models"));
        }
        if read.samples == 0 {
            return at(Error::usage("`samples` must be at least 1"));
        }
        let samples = u64::from(read.samples);
        if let Some(k) = read.ks.iter().find(|k| !(1..=samples).contains(k)) {
            let error = Error::usage(format!("pass@{k} cannot be told from {samples} samples of each prompt"));
            let origin = node.get("ks").map_or(&table.origin, |ks| &ks.origin);
            return Err(origin.locate(error).hint("`ks` are from 1 to `samples`: raise `samples`, or leave it out"));
        }
        // A column each, beside that of pass@1.
        let mut columns = HashSet::from([1]);
        read.ks.retain(|&k| columns.insert(k));
        let others = read.models.len() - 1;
        let checked = read.models.iter().try_for_each(|entry| entry.check(others, servers.is_some()));
        checked.map_err(|e| table.config.get("models").map_or(&table.origin, |node| &node.origin).locate(e))?;
        let mut names: Vec<String> = read.models.iter().map(Entry::name).collect();
        names.sort();
        if let Some(twice) = names.windows(2).find(|pair| pair[0] == pair[1]) {
            let error = Error::usage(format!("two models are called `{}`", twice[0]));
            return at(error.hint("call one otherwise: { name = \"…\", model = \"…\" }"));
        }
        Ok(EvalStage { table: read, servers })
    }

    fn key(index: usize) -> String {
        format!("models.{index}")
    }

    /// The engine that samples from one model.
    fn open_engine(&self, cx: &StageContext<'_>, index: usize) -> Result<Box<dyn Engine>> {
        let entry = &self.table.models[index];
        if let (true, Some(config)) = (entry.is_served(), &self.servers) {
            let tokenizer = config.tokenizer.as_ref().map(|_| cx.input_folder(TOKENIZER)).transpose()?;
            let servers = served::connect(config, cx, tokenizer)?;
            servers.take_news().iter().for_each(|line| cx.progress.say(line));
            return Ok(Box::new(servers));
        }
        let folder = cx.input_folder(&Self::key(index))?;
        match &self.servers {
            Some(config) => Ok(Box::new(Served::open(config, cx, folder, entry.chat_template())?)),
            None => {
                let tokenizer = Arc::new(self.tokenizer(cx, index)?);
                let (name, temperature) = (entry.name(), self.table.sampling.temperature);
                Ok(match cx.device.open()? {
                    Opened::Cpu(backend) => Box::new(LocalEngine::load(backend, folder, tokenizer, name, temperature)?),
                    Opened::Cuda(backend) => {
                        Box::new(LocalEngine::load(backend, folder, tokenizer, name, temperature)?)
                    }
                })
            }
        }
    }

    /// What shows a model of this process its prompts.
    fn tokenizer(&self, cx: &StageContext<'_>, index: usize) -> Result<Tokenizer> {
        let (entry, folder) = (&self.table.models[index], cx.input_folder(&Self::key(index))?);
        let tokenizer = chat_template::tokenizer(folder, entry.chat_template(), &|path| cx.resolve(path))?;
        tokenizer.check_chat_template().map_err(|e| e.context(format!("the model `{}`", entry.name())))?;
        Ok(tokenizer)
    }

    fn evaluate(&self, cx: &StageContext<'_>, index: usize, rules: &RuleSet, prompts: &[Prompt]) -> Result<Outcome> {
        let name = self.table.models[index].name();
        let engine = self.open_engine(cx, index)?;
        cx.begin()?;
        let info = engine.info();
        let sampling = Arc::new(self.table.sampling.clone());
        let sampling_json = serde_json::to_string(&self.table.sampling).expect("settings are plain data");
        let target = cx.folder.join(SAMPLES).join(&name);
        // What a killed evaluation of this model left; the pipeline sweeps the stage's own folder only.
        sweep_unfinished(&target)?;
        let mut writer = match self.table.keep_samples {
            true => Some(ShardWriter::create(&target, 0, DatasetKind::Groups, WriterOptions::default())?),
            false => None,
        };
        let mut judged: Vec<Vec<Brief>> = Vec::with_capacity(prompts.len());
        for chunk in prompts.chunks(PROMPTS_AT_ONCE) {
            cx.check_stop()?;
            let asked: Vec<&Prompt> = chunk.iter().collect();
            let engine = Stoppable { engine: &*engine, stop: cx.stop };
            let samples = sample_and_judge(&engine, rules, &asked, self.table.samples, &sampling, cx.seed, 0)?;
            if judged.is_empty() {
                ensure_some_answer(samples.iter().flatten())?;
            }
            for (prompt, samples) in chunk.iter().zip(samples) {
                judged.push(samples.iter().map(Brief::of).collect());
                if let Some(writer) = &mut writer {
                    let rows: Vec<GroupRow> = group_rows(prompt, samples, &info, rules.digest(), &sampling_json, 0);
                    writer.push_rows(&rows)?;
                }
                cx.progress.advance(u64::from(self.table.samples));
            }
        }
        if let Some(writer) = writer {
            let shard = writer.finish()?;
            let kind = Some(DatasetKind::Groups);
            Manifest::new(&name, "samples", kind, info.model_digest.clone(), vec![shard]).commit(&target)?;
        }
        let rows = self.rows(cx, &name, rules, prompts, &judged);
        let mut outcome = Outcome::default();
        outcome.count("samples", (prompts.len() * self.table.samples as usize) as u64);
        outcome.facts.insert(format!("{ROWS}/{name}"), serde_json::to_value(&rows).expect("rows are plain data"));
        let all = &rows[0];
        let failed = judged.iter().flatten().filter(|sample| sample.result.is_none()).count();
        if failed > 0 {
            outcome.count("failed", failed as u64);
            cx.progress.say(&format!("{name}: {failed} samples could not be had and do not count"));
        }
        cx.progress.say(&format!("{name}: {}", all.describe()));
        Ok(outcome)
    }

    /// The whole first, then each slice.
    fn rows(
        &self,
        cx: &StageContext<'_>,
        name: &str,
        rules: &RuleSet,
        prompts: &[Prompt],
        judged: &[Vec<Brief>],
    ) -> Vec<EvalRow> {
        let mut slices: Vec<(String, Vec<usize>)> = vec![("all".to_owned(), (0..prompts.len()).collect())];
        for slice in &self.table.slices {
            let mut found = std::collections::BTreeMap::<String, Vec<usize>>::new();
            for (index, prompt) in prompts.iter().enumerate() {
                found.entry(slice.of(prompt)).or_default().push(index);
            }
            slices.extend(found.into_iter().filter(|(_, members)| members.len() < prompts.len()));
        }
        let options = Options { ks: self.table.ks.clone(), seed: cx.seed, ..Options::default() };
        let math = math_config(rules);
        let equal = |a: &str, b: &str| equivalent(a, b, &math) == Equivalence::Equal;
        let results: Vec<PromptResult> = prompts
            .iter()
            .zip(judged)
            .map(|(prompt, samples)| PromptResult {
                domain: prompt.domain.clone(),
                difficulty: prompt.difficulty,
                samples: samples.iter().filter_map(|s| s.result.clone()).collect(),
            })
            .collect();
        let rows = slices.into_iter().map(|(slice, members)| {
            let summary = summarise(members.iter().map(|&i| &results[i]), &options, equal);
            let samples = || members.iter().flat_map(|&i| &judged[i]);
            let scores = rules.rules().map(|(rule, _)| {
                let scores: Vec<f64> = samples().filter_map(|s| s.scores.iter().find(|(r, _)| r == rule)?.1).collect();
                (rule.to_owned(), mean(&scores))
            });
            let failed = samples().filter(|s| s.result.is_none()).count();
            let tokens: Vec<f64> = samples().filter_map(|s| s.tokens.map(f64::from)).collect();
            EvalRow {
                model: name.to_owned(),
                slice,
                prompts: summary.prompts,
                samples: u64::from(self.table.samples),
                pass_at_1: summary.pass_at_1.map(|i| i.mean),
                pass_at_1_low: summary.pass_at_1.map(|i| i.low),
                pass_at_1_high: summary.pass_at_1.map(|i| i.high),
                pass_at_k: summary.pass_at_k.iter().map(|(k, _, i)| (*k, i.map(|i| i.mean))).collect(),
                majority: summary.majority.map(|i| i.mean),
                majority_low: summary.majority.map(|i| i.low),
                majority_high: summary.majority.map(|i| i.high),
                vote_gain: summary.vote_gain.map(|i| i.mean),
                vote_gain_low: summary.vote_gain.map(|i| i.low),
                vote_gain_high: summary.vote_gain.map(|i| i.high),
                without_vote: summary.without_vote as f64 / summary.prompts.max(1) as f64,
                truncated: summary.truncated as f64 / summary.samples.max(1) as f64,
                undecided: summary.undecided as f64 / summary.samples.max(1) as f64,
                failed: failed as f64 / samples().count().max(1) as f64,
                mean_tokens: mean(&tokens),
                scores: scores.collect(),
            }
        });
        rows.collect()
    }
}

/// `engine = { kind = "vllm", … }`; `None` for this process.
fn servers(table: &StageTable, mut engine: Node) -> Result<Option<Box<VllmConfig>>> {
    const ENGINES: &str = "engines that serve models of a run: local, vllm";
    let Some(kind) = engine.remove("kind") else {
        return Err(table.origin.locate(Error::usage("the engine has no `kind`")).hint(ENGINES));
    };
    match kind.text() {
        Some("local") => Ok(None),
        Some("vllm") => Ok(Some(Box::new(engine.read()?))),
        _ => Err(kind.origin.locate(Error::usage("no such engine serves models of a run")).hint(ENGINES)),
    }
}

impl Stage for EvalStage {
    fn inputs(&self) -> Vec<Input> {
        let mut inputs = vec![Input::new("prompts", &self.table.prompts, DatasetKind::Prompts)];
        let models = self.table.models.iter().enumerate();
        inputs.extend(models.filter_map(|(index, entry)| Some(Input::model(Self::key(index), entry.model()?))));
        if self.table.models.iter().any(Entry::is_served) {
            let tokenizer = self.servers.as_ref().and_then(|config| config.tokenizer.as_ref());
            inputs.extend(tokenizer.map(|of| Input::model(TOKENIZER, of)));
        }
        inputs
    }

    fn output(&self) -> Option<DatasetKind> {
        None
    }

    /// 2: prompts that have nothing to vote with are left out of the vote; samples have the logprobs of their temperature.
    /// 3: what was cut counts as the rules decided of it.
    fn version(&self) -> u32 {
        3
    }

    /// A finished evaluation is not given up for one that cannot begin.
    fn begins_late(&self) -> bool {
        true
    }

    fn materials(&self, cx: &Materials<'_>) -> Result<Vec<(String, String)>> {
        let rules = RuleSet::load(&super::rules_path(&self.table.rules, cx.resolve)?)?;
        let mut materials = vec![("rules".to_owned(), rules.digest().to_owned())];
        for entry in &self.table.models {
            if let Some(template) = entry.chat_template() {
                let (what, digest) = chat_template::material(template, cx.resolve)?;
                materials.push((format!("{what} of {}", entry.name()), digest));
            }
        }
        Ok(materials)
    }

    fn unfingerprinted_keys(&self) -> Vec<&'static str> {
        [&["rules", "models.*.chat_template", WHERE_SERVED], HOW_SERVED].concat()
    }

    /// One model at a time; servers' memory is their own.
    fn memory(&self, models: &Models<'_>) -> Result<Vec<(Config, Load)>> {
        if self.servers.is_some() {
            return Ok(Vec::new());
        }
        let of = |model: &str| -> Result<(Config, Load)> {
            let config = (models.config)(model)?;
            let load = Load { decoding: Some(EngineOptions::default().decoding(config.context, 1)), ..Load::default() };
            Ok((config, load))
        };
        self.table.models.iter().filter_map(Entry::model).map(of).collect()
    }

    fn expected_tokens(&self, inputs: &[Option<u64>]) -> Option<u64> {
        let samples =
            inputs[0]?.checked_mul(self.table.models.len() as u64)?.checked_mul(u64::from(self.table.samples))?;
        samples.checked_mul(u64::from(self.table.sampling.max_tokens))
    }

    fn run(&self, cx: &StageContext<'_>) -> Result<Outcome> {
        let rules = RuleSet::load(&super::rules_path(&self.table.rules, &|path| cx.resolve(path))?)?;
        rules.ensure_ready()?;
        let prompts: Vec<Prompt> = cx.input("prompts")?.rows_of::<Prompt>().collect::<Result<_>>()?;
        if prompts.is_empty() {
            return Err(Error::new("there are no prompts to evaluate on").in_file(cx.input("prompts")?.location()));
        }
        Unruled::of(&rules, &prompts).warning("prompts").iter().for_each(|line| cx.progress.say(line));
        let models = self.table.models.len();
        if self.servers.is_none() {
            // Before any of them is measured.
            (0..models).try_for_each(|index| self.tokenizer(cx, index).map(drop))?;
        }
        cx.progress.start((models * prompts.len()) as u64 * u64::from(self.table.samples), "samples");
        let mut sum = Outcome::default();
        for index in 0..models {
            // One model at a time: each takes all cores.
            let outcome = match cx.finished(index) {
                Some(outcome) => outcome.clone(),
                None => {
                    let outcome = self.evaluate(cx, index, &rules, &prompts)?;
                    cx.finish_shard(index, &outcome)?;
                    outcome
                }
            };
            sum.absorb(outcome);
        }
        // Where every model was done before.
        cx.begin()?;
        let mut rows: Vec<EvalRow> = Vec::new();
        for entry in &self.table.models {
            let fact = sum.facts.remove(&format!("{ROWS}/{}", entry.name())).unwrap_or_default();
            let read: Vec<EvalRow> = serde_json::from_value(fact)
                .map_err(|e| Error::new("the journal's figures cannot be read").caused_by(e))?;
            rows.extend(read);
        }
        table::write(cx.local_folder()?, &rows)?;
        sum.facts.insert(FIGURES.to_owned(), table::figures(&rows).into());
        sum.facts.insert("rules".to_owned(), rules.name().into());
        sum.facts.insert("rules_digest".to_owned(), rules.digest().into());
        Ok(sum)
    }
}

/// What the figures need of one sample.
struct Brief {
    /// `None` if its request failed.
    result: Option<SampleResult>,
    scores: Vec<(String, Option<f64>)>,
    tokens: Option<u32>,
}

impl Brief {
    fn of(judged: &Judged) -> Self {
        Brief {
            result: judged.result(),
            scores: judged.judgement.scores.iter().map(|s| (s.rule.clone(), s.score)).collect(),
            tokens: judged.generated.completion_tokens,
        }
    }
}

/// How the rule file reads answers: the settings of its first math rule.
fn math_config(rules: &RuleSet) -> MathConfig {
    let Some((name, _)) = rules.rules().find(|(_, kind)| *kind == "math") else { return MathConfig::default() };
    let read = || -> Option<MathConfig> {
        let file: toml::Table = rules.resolved().parse().ok()?;
        let mut settings = file.get("rules")?.get(name)?.as_table()?.clone();
        // What every kind of rule may have is none of its own settings.
        settings.retain(|key, _| !["kind", "domains", "languages", "fallback_for"].contains(&key));
        settings.try_into().ok()
    };
    read().expect("the rule file's settings were read when it was loaded")
}

fn mean(values: &[f64]) -> Option<f64> {
    (!values.is_empty()).then(|| values.iter().sum::<f64>() / values.len() as f64)
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
    fn every_k_has_one_column_and_none_that_samples_cannot_tell() {
        assert_eq!(stage("samples = 8\nks = [4, 1, 8, 4, 1]").unwrap().table.ks, [4, 8]);
        for ks in ["[2, 16]", "[0]"] {
            let error = stage(&format!("samples = 8\nks = {ks}")).err().unwrap().render(false);
            assert!(error.contains("from 8 samples") && error.contains("recipe.toml:5:6"), "{error}");
        }
    }

    #[test]
    fn votes_compare_answers_as_the_rule_file_does() {
        let file = "reward = \"sum\"\n[rules.form]\nkind = \"format\"\nstyle = \"think_answer\"\n\
                    [rules.sum]\nkind = \"math\"\ndomains = [\"math\"]\nstrict_units = true\ntolerance = { absolute = 0.5 }\n";
        let config = math_config(&RuleSet::parse(file, "test").unwrap());
        let equal = |a, b| equivalent(a, b, &config) == Equivalence::Equal;
        assert!(equal("7", "7.4") && !equal("7", "7.6"));
        let plain = "reward = \"form\"\n[rules.form]\nkind = \"format\"\nstyle = \"think_answer\"\n";
        assert_eq!(math_config(&RuleSet::parse(plain, "test").unwrap()), MathConfig::default());
    }
}
