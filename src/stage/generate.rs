//! `generate`: an engine answers every prompt so many times.
//!
//! Shards are fixed before the first request: shard `k` holds all samples of a run of
//! prompts. Finished requests go to a journal as they arrive, so a kill costs only what was
//! in flight, and wait there; a shard whose last sample has arrived is sorted and written.

mod adaptive;
mod answers;
mod engine;
mod failures;
mod feed;
mod open_shards;
mod replaced;
mod requests;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Mutex;

use serde::Deserialize;

use self::adaptive::{Adaptive, Until};
use self::answers::Answers;
use self::engine::EngineConfig;
use self::feed::{Feed, Order};
use self::open_shards::OpenShards;
use self::replaced::ASKED_AS;
use super::attend::attend;
use super::{
    CheckContext, FAILED, Fault, Input, InputRows, Materials, Models, Stage, StageContext, StageOutcome, chat_template,
    check_rules, rules_path,
};
use crate::engine::{Engine, Sampling};
use crate::error::{Error, Result};
use crate::model::Config;
use crate::model::memory::Load;
use crate::recipe::StageTable;
use crate::rule::file::RuleSet;
use crate::schema::{DatasetKind, FinishReason};
use crate::store::{Location, Manifest};

/// The stage's table in a recipe, its engine apart.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct GenerateConfig {
    #[serde(default = "default_prompts")]
    prompts: String,
    /// Completions wanted of each prompt.
    #[serde(default = "one")]
    samples: u32,
    /// How completions are drawn; of recorded ones, what is known of how they were.
    #[serde(default)]
    sampling: Sampling,
    /// A system turn put before conversations that have none.
    system: Option<String>,
    /// Sample more of each prompt, in rounds, until enough is known of it.
    until: Option<Until>,
    /// Default: longest first where servers answer, as given elsewhere.
    order: Option<Order>,
}

impl GenerateConfig {
    /// Most completions of a prompt.
    fn most_samples(&self) -> u32 {
        self.until.as_ref().map_or(self.samples, |until| until.samples)
    }
}

fn default_prompts() -> String {
    "prompts".to_owned()
}
fn one() -> u32 {
    1
}

/// The stage.
pub struct GenerateStage {
    config: GenerateConfig,
    engine: EngineConfig,
    /// What the table itself says of `sampling`.
    told: serde_json::Map<String, serde_json::Value>,
}

impl GenerateStage {
    /// Reads the stage's table.
    ///
    /// # Errors
    /// No engine, an unknown one, an unknown key, with its place.
    pub fn read(table: &StageTable) -> Result<Self> {
        let mut node = table.config.clone();
        let engine = EngineConfig::read(table, node.remove("engine"))?;
        let config: GenerateConfig = node.read()?;
        if config.samples == 0 {
            return Err(table.origin.locate(Error::usage("`samples` must be at least 1")));
        }
        if let Some(until) = &config.until {
            let origin = table.config.get("until").map_or(&table.origin, |node| &node.origin);
            until.validate(config.samples).map_err(|error| origin.locate(error))?;
        }
        let told = node.get("sampling").map(|node| node.to_json());
        let told = told.and_then(|told| told.as_object().cloned()).unwrap_or_default();
        Ok(GenerateStage { config, engine, told })
    }
}

impl GenerateStage {
    /// The settings that rows are said to be drawn by, in the order of the fields: of recordings only those that the
    /// table names, since defaults are nobody's word.
    fn drawn(&self, engine: &dyn Engine) -> String {
        let all = serde_json::to_string(&self.config.sampling).expect("settings are plain data");
        if engine.draws() {
            return all;
        }
        let mut told: serde_json::Map<String, serde_json::Value> = serde_json::from_str(&all).expect("just written");
        told.retain(|key, _| self.told.contains_key(key));
        serde_json::Value::from(told).to_string()
    }
}

impl Stage for GenerateStage {
    fn inputs(&self) -> Vec<Input> {
        let mut inputs = vec![Input::new("prompts", &self.config.prompts, DatasetKind::Prompts)];
        inputs.extend(self.engine.inputs());
        inputs
    }

    fn output(&self) -> Option<DatasetKind> {
        Some(DatasetKind::Completions)
    }

    /// 2 in this process: logprobs are those of the temperature, and no `tokenizer.json` cuts prompts. 2 of recordings:
    /// nothing is said of how they were drawn that is not known.
    fn version(&self) -> u32 {
        match self.engine {
            EngineConfig::Local(_) | EngineConfig::Replay(_) => 2,
            EngineConfig::Vllm { .. } => 1,
        }
    }

    fn check(&self, cx: &CheckContext<'_>) -> Result<(), Fault> {
        self.engine.check()?;
        self.config.until.as_ref().map_or(Ok(()), |until| check_rules("until.rules", &until.rules, cx))
    }

    fn check_process(&self) -> Result<(), Fault> {
        self.engine.check_process()
    }

    fn uses_device(&self) -> bool {
        true
    }

    fn begins_late(&self) -> bool {
        true
    }

    fn materials(&self, cx: &Materials<'_>) -> Result<Vec<(String, String)>> {
        let files = self.engine.files(cx.base)?.into_iter();
        let mut materials: Vec<(String, String)> = files
            // The file's name, not its folder: completions may be named after it.
            .map(|file| Ok((format!("engine/{}", super::file_name(&file)), (cx.digest_file)(&file)?)))
            .collect::<Result<_>>()?;
        if let Some(template) = self.engine.chat_template() {
            materials.push(chat_template::material(template, cx.base)?);
        }
        if let Some(until) = &self.config.until {
            let rules = RuleSet::load(&rules_path(&until.rules, cx.base)?)?;
            materials.push(("rules".to_owned(), rules.digest().to_owned()));
        }
        Ok(materials)
    }

    fn unfingerprinted_keys(&self) -> Vec<&'static str> {
        [&["order"], self.engine.unfingerprinted_keys().as_slice()].concat()
    }

    fn expected_rows(&self, inputs: &InputRows<'_>) -> Option<u64> {
        if self.config.until.is_some() {
            return None;
        }
        inputs.of("prompts")?.checked_mul(u64::from(self.config.samples))
    }

    fn expected_tokens(&self, inputs: &InputRows<'_>) -> Option<u64> {
        let of_each = u64::from(self.config.sampling.max_tokens);
        let of_each = match &self.engine {
            EngineConfig::Replay(_) => return None,
            EngineConfig::Local(_) => of_each,
            EngineConfig::Vllm { config, .. } => {
                of_each + u64::from(config.continue_rounds) * u64::from(config.continue_tokens)
            }
        };
        inputs.of("prompts")?.checked_mul(u64::from(self.config.most_samples()))?.checked_mul(of_each)
    }

    fn memory(&self, models: &Models<'_>) -> Result<Vec<(Config, Load)>> {
        self.engine.memory(models)
    }

    fn keeps(&self, made: &Manifest) -> Option<String> {
        let answers = made.rows - made.counts.get(FAILED).copied().unwrap_or(0);
        made.facts.contains_key(ASKED_AS).then(|| {
            format!("of its {answers} answers those are kept that are still asked for, of the same model with the same settings")
        })
    }

    fn accept(&self, made: &Manifest, folder: &Location) -> Result<()> {
        let failed = made.counts.get(FAILED).copied().unwrap_or(0);
        if failed == 0 || failed < made.rows { Ok(()) } else { Err(failures::every_row(folder)?) }
    }

    fn run(&self, cx: &StageContext<'_>) -> Result<StageOutcome> {
        let open = self.engine.open(cx, &self.config.sampling)?;
        let (engine, servers) = (open.engine(), open.servers());
        let info = engine.info();
        let order = self.config.order.unwrap_or(if servers.is_some() { Order::Longest } else { Order::Given });
        let prompts = cx.input("prompts")?;
        prompts.require_unique(DatasetKind::Prompts, "prompt_id")?;
        // A shard holds about `shard_rows` completions and never splits a prompt's samples.
        let per_shard = (cx.shard_rows / self.config.most_samples() as usize).max(1);
        let expected = if self.config.until.is_some() { 0 } else { prompts.rows()? * u64::from(self.config.samples) };
        cx.progress.start(expected, "completions");
        let until = self.config.until.as_ref();
        let rules = |until: &Until| rules_path(&until.rules, cx.base);
        let adaptive = until.map(|until| Adaptive::new(until, self.config.samples, &rules(until)?)).transpose()?;

        let settings =
            serde_json::json!([cx.seed, self.config.sampling, self.config.system, self.engine.asks_for(cx)?]);
        let served = self.engine.is_served();
        // Recordings are read again sooner than they are kept.
        let asked_as = (!matches!(self.engine, EngineConfig::Replay(_)))
            .then(|| blake3::hash(serde_json::json!([self.version(), settings]).to_string().as_bytes()).to_hex());
        let mut answers = Answers::open(cx, &settings, &info, per_shard, served, asked_as.as_deref())?;
        let kept = std::mem::take(&mut answers.kept);
        let state = Mutex::new(OpenShards {
            cx,
            info: &info,
            adaptive: adaptive.as_ref(),
            answers,
            sampling: self.drawn(engine),
            draws: engine.draws(),
            shards: BTreeMap::new(),
            more: VecDeque::new(),
        });
        let mut feed = Feed::new(cx, &self.config, engine, order, prompts, per_shard, &state, &kept)?;
        // Once more for rounds that were decided on after the engine had seen the last request.
        attend(servers, cx, || -> Result<()> {
            loop {
                let mut take = |generated| state.lock().expect("no holder panics").take(generated);
                engine.generate(&mut feed, &mut take)?;
                feed.check()?;
                cx.check_stop()?;
                if state.lock().expect("no holder panics").more.is_empty() {
                    return Ok(());
                }
            }
        })?;
        let total = feed.shards();
        drop(feed);
        let made = state.into_inner().expect("no holder panicked");
        let mut sum = all_shards(cx, made, &kept, total)?;
        if let Some(held) = engine.holds() {
            let served = sum.shards.iter().map(|shard| shard.rows).sum::<u64>();
            let failed = sum.counts.get(FAILED).copied().unwrap_or(0);
            let unused = held.saturating_sub(served - failed);
            sum.drops.extend((unused > 0).then(|| ("recording_unused".to_owned(), unused)));
        }
        sum.drops.extend(engine.left_out());
        sum.facts.insert("engine".to_owned(), info.engine.into());
        sum.facts.insert("model".to_owned(), info.model.clone().into());
        sum.facts.insert("model_digest".to_owned(), info.model_digest.clone().into());
        sum.facts.insert("deterministic".to_owned(), info.deterministic.into());
        sum.facts.extend(asked_as.map(|digest| (ASKED_AS.to_owned(), digest.as_str().into())));
        sum.facts.extend(self.config.system.clone().map(|system| ("system".to_owned(), system.into())));
        Ok(sum)
    }
}

/// What all shards came to: those that this run made, those that an earlier one did and those of other parts of the run.
/// The user is told of rows whose request failed.
fn all_shards(
    cx: &StageContext<'_>,
    made: OpenShards<'_>,
    kept: &BTreeMap<usize, StageOutcome>,
    total: usize,
) -> Result<StageOutcome> {
    if let Some((shard, _)) = made.shards.iter().find(|(_, s)| s.outcome.is_none()) {
        return Err(Error::new(format!("the engine ended before shard {shard} was complete")));
    }
    let mut fresh: BTreeMap<usize, StageOutcome> =
        made.shards.into_iter().filter_map(|(shard, state)| Some((shard, state.outcome?))).collect();
    let (mut sum, mut first_failure) = (StageOutcome::default(), None);
    for shard in 0..total {
        let done = fresh.remove(&shard).or_else(|| kept.get(&shard).or(cx.finished(shard)).cloned());
        let mut done = done.ok_or_else(|| cx.waits_for_others(total))?;
        first_failure = first_failure.or(done.facts.remove(failures::FIRST_FAILURE));
        sum.absorb(done);
    }
    failures::some_rows(&sum, first_failure.as_ref()).iter().for_each(|line| cx.progress.say(line));
    Ok(sum)
}

/// Counts one row.
fn tally(outcome: &mut StageOutcome, finish: FinishReason, prompt_tokens: Option<u32>, completion_tokens: Option<u32>) {
    outcome.count(finish.as_str(), 1);
    let failed = u64::from(finish == FinishReason::Error);
    let sums = [
        (FAILED, failed),
        ("prompt_tokens", prompt_tokens.unwrap_or(0).into()),
        ("completion_tokens", completion_tokens.unwrap_or(0).into()),
    ];
    for (what, n) in sums.into_iter().filter(|(_, n)| *n > 0) {
        outcome.count(what, n);
    }
}

/// Counts the prompts that the engine has nothing for.
fn not_asked(outcome: &mut StageOutcome, prompts: u64) {
    if prompts > 0 {
        outcome.drops.insert("prompt_without_recording".to_owned(), prompts);
    }
}
