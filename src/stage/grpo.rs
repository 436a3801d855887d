//! `grpo`: reinforcement learning on rule rewards, on policy or on stored groups.
//!
//! On policy, each step asks the policy for the groups of some prompts, judges them by the rule
//! file, and keeps every rollout as a groups dataset in `rollouts/`. With `groups = "…"` the
//! same trainer takes groups that were sampled and scored before.

mod ask;
mod offline;
mod on_policy;
mod rollouts;
mod sampler;
mod servers;

use std::sync::{Arc, Mutex};

use serde::Deserialize;
use serde::de::IgnoredAny;

use super::layout::ROLLOUTS;
use super::servers::{HOW_SERVED, WHERE_SERVED, check as check_servers, check_process as check_key};
use super::training::{CheckpointConfig, HeldOut, HeldOutConfig, Policy, PolicyConfig, Session, Trained};
use super::{CheckContext, Fault, Input, Materials, Models, Stage, StageContext, StageOutcome};
use crate::backend::{Backend, Opened};
use crate::engine::Sampling;
use crate::error::{Error, Result};
use crate::model::memory::{Limits, Load};
use crate::model::{Config, Model, Tokenizer};
use crate::recipe::{Node, StageTable};
use crate::rule::file::RuleSet;
use crate::schema::DatasetKind;
use crate::store::{FileInfo, Manifest, ShardInfo, sweep_unfinished};
use crate::train::objective::{Grpo, Objective, Surrogate};
use crate::train::{GrpoTrainer, GrpoTrainerConfig, Offline};
use offline::Stored;
use on_policy::OnPolicy;
use rollouts::Rollouts;
use sampler::{SamplerConfig, Sent};

/// The stage's table in a recipe.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct GrpoTable {
    /// A stage that trains a model, or a model's folder.
    model: Option<String>,
    /// A model from scratch instead.
    init: Option<super::training::NewModel>,
    lora: Option<crate::model::LoraConfig>,
    /// Whether `adapter/` is left beside `model/`; by default where `lora` trains one for a `model`.
    save_adapter: Option<bool>,
    /// What `model/` is written as; training and its checkpoints are in float32 whatever it is.
    #[serde(default)]
    dtype: crate::model::Dtype,
    /// A file of Jinja, or a built-in template's name, instead of the model's own chat template.
    chat_template: Option<String>,
    /// What the KL penalty is measured against; the model as it was at the start if absent.
    reference: Option<String>,
    /// Prompts to ask the policy; beside `groups`, what groups without token ids answer.
    prompts: Option<String>,
    /// Groups that were sampled and scored before, instead of asking.
    groups: Option<String>,
    /// A rule file, or the name of a built-in one. Stored groups have their rewards already.
    #[serde(default = "default_rules")]
    rules: String,
    /// G: completions of each prompt.
    #[serde(default = "default_group_size")]
    group_size: u32,
    /// How rollouts are drawn, and by what: read apart.
    #[serde(default, rename = "sampling")]
    _sampling: IgnoredAny,
    #[serde(default, rename = "engine")]
    _engine: IgnoredAny,
    /// Prompts to measure accuracy on while training.
    held_out: Option<String>,
    #[serde(default)]
    evaluate: HeldOutConfig,
    #[serde(default)]
    training: GrpoTrainerConfig,
    #[serde(default)]
    checkpoints: CheckpointConfig,
}

fn default_rules() -> String {
    "r1".to_owned()
}
fn default_group_size() -> u32 {
    16
}

/// `sampling` over the paper's: temperature 1, nothing cut off, so that the sampler's distribution is the policy's.
///
/// # Errors
/// An unknown key; settings under which the sampler draws from another distribution than the trainer scores, with
/// their place.
fn rollout_sampling(table: &StageTable, own: Option<Node>) -> Result<Sampling> {
    let mut sampling = Node::parse("sampling", "temperature = 1.0\ntop_p = 1.0")?;
    let origin = own.as_ref().map_or(&table.origin, |own| &own.origin).clone();
    own.into_iter().for_each(|own| sampling.merge(own));
    let read: Sampling = sampling.read()?;
    let cut = [("top_p", read.top_p < 1.0), ("top_k", read.top_k > 0), ("min_p", read.min_p > 0.0)];
    if let Some((key, _)) = cut.into_iter().find(|(_, cut)| *cut) {
        let error = Error::usage(format!("rollouts are drawn with `{key}`, which cuts tokens off that the policy has"));
        return Err(origin
            .locate(error)
            .hint("the trainer scores the whole distribution: leave it out; `temperature` it follows"));
    }
    check_temperature(read.temperature).map_err(|e| origin.locate(e))?;
    Ok(read)
}

/// Refuses a temperature that no group can be drawn at.
fn check_temperature(temperature: f32) -> Result<()> {
    match temperature.is_finite() && temperature > 0.0 {
        true => Ok(()),
        false => Err(Error::usage(format!("rollouts at temperature {temperature}"))
            .hint("greedy completions are all the same: it must be above 0")),
    }
}

/// Refuses a lower clip that CISPO has no place for: it bounds the weight of a token from above alone.
fn check_cispo(table: &StageTable, surrogate: Surrogate) -> Result<()> {
    let written = || table.config.get("training")?.get("objective")?.get("clip_low");
    match written().filter(|_| surrogate == Surrogate::Cispo) {
        Some(node) => Err(node
            .origin
            .locate(Error::usage("CISPO has no lower clip: its weight is bounded by `clip_high` alone"))
            .hint("leave `clip_low` out, or `surrogate = \"cispo\"`")),
        None => Ok(()),
    }
}

/// `sampling` beside `groups`: the temperature they were drawn at, if the recipe says it.
///
/// # Errors
/// Keys that would decide nothing, since the groups are sampled and judged already; with their place.
fn stored_temperature(table: &StageTable, own: Option<Node>) -> Result<Option<f32>> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Stored {
        temperature: f32,
    }
    if let Some((key, node)) =
        ["rules", "group_size", "engine"].iter().find_map(|&key| Some((key, table.config.get(key)?)))
    {
        let error = Error::usage(format!("`{key}` decides nothing beside `groups`"));
        return Err(node.origin.locate(error).hint("stored groups are sampled and judged already: leave it out"));
    }
    let Some(own) = own else { return Ok(None) };
    let Stored { temperature } =
        own.read().map_err(|e| e.hint("beside `groups`, `sampling` is their temperature alone"))?;
    check_temperature(temperature).map_err(|e| own.origin.locate(e))?;
    Ok(Some(temperature))
}

/// How much the engine in this process takes on at once. The one that samples is evaluated too, and its own table says it;
/// where servers sample, or nobody does, `evaluate` does.
///
/// # Errors
/// Both do, with the place of the second.
fn limits(table: &StageTable, sampler: &SamplerConfig, read: &GrpoTable) -> Result<Limits> {
    let evaluated = read.evaluate.limits();
    match sampler {
        SamplerConfig::Local(sampling) if read.groups.is_none() => match table.config.get("evaluate") {
            Some(node) if evaluated != Limits::default() => {
                let error =
                    Error::usage("the engine that samples is evaluated too, and says itself how much it takes on");
                Err(node.origin.locate(error).hint("move these keys: `engine = { kind = \"local\", batch = … }`"))
            }
            _ => Ok(*sampling),
        },
        _ => Ok(evaluated),
    }
}

const REFERENCE: &str = "reference";

/// The stage.
pub struct GrpoStage {
    table: GrpoTable,
    /// How rollouts are drawn.
    sampling: Sampling,
    /// What the recipe says of how stored groups were drawn.
    stored_at: Option<f32>,
    policy: PolicyConfig,
    sampler: SamplerConfig,
}

impl GrpoStage {
    /// Reads the stage's table.
    ///
    /// # Errors
    /// No model or two, neither prompts nor groups or both, an unknown key, a setting out of range, with its place.
    pub fn read(table: &StageTable) -> Result<Self> {
        let sampler = SamplerConfig::read(table, table.config.get("engine").cloned())?;
        let own_sampling = table.config.get("sampling").cloned();
        let read: GrpoTable = table.config.read()?;
        let policy = PolicyConfig {
            model: read.model.clone(),
            init: read.init.clone(),
            lora: read.lora,
            save_adapter: read.save_adapter,
            dtype: read.dtype,
            chat_template: read.chat_template.clone(),
            limits: limits(table, &sampler, &read)?,
        };
        let at = |e: Error| table.origin.locate(e);
        policy.validate(&table.name).map_err(at)?;
        if read.prompts.is_none() && read.groups.is_none() {
            let error = Error::usage(format!("the stage `{}` needs either `prompts` or `groups`", table.name));
            return Err(at(error.hint("`prompts` trains on policy, `groups` on what was sampled and scored before")));
        }
        let (sampling, stored_at) = match read.groups {
            None => (rollout_sampling(table, own_sampling)?, None),
            Some(_) => (rollout_sampling(table, None)?, stored_temperature(table, own_sampling)?),
        };
        if read.group_size < 2 {
            return Err(at(Error::usage("`group_size` must be at least 2: an advantage compares completions")));
        }
        super::in_training(table, read.training.validate())?;
        check_cispo(table, read.training.objective.surrogate)?;
        if read.training.rollouts_ahead > 0 && (sampler.is_local() || read.groups.is_some()) {
            let error = Error::usage(
                "rollouts are made ahead by servers only: the policy's own engine samples from the \
                                      weights that the trainer changes",
            );
            return Err(
                at(error.hint("add `engine = { kind = \"vllm\", … }`, or leave `training.rollouts_ahead` out")),
            );
        }
        if sampling.temperature != 1.0 && sampler.sends(Sent::Lora) {
            let error = Error::usage("rollouts at another temperature than 1 from servers that get adapters alone");
            return Err(at(error.hint(
                "the temperature goes out in the last norm's weights: use `send = \"checkpoint\"`, or temperature 1",
            )));
        }
        Ok(GrpoStage { table: read, sampling, stored_at, policy, sampler })
    }

    fn reference<B: Backend>(&self, cx: &StageContext<'_>, backend: B) -> Result<Option<Model<B>>> {
        if !Grpo::new(self.table.training.objective.clone())?.needs_reference() {
            return Ok(None);
        }
        Ok(Some(match &self.table.reference {
            Some(_) => Model::load_on(backend, cx.input_folder(REFERENCE)?)?,
            None => self.policy.reference(cx, backend)?,
        }))
    }

    fn train<B: Backend>(&self, cx: &StageContext<'_>, backend: B) -> Result<StageOutcome> {
        let policy: Policy<B> = self.policy.open(cx, backend.clone(), Tokenizer::end_of_turn)?;
        let held_out = match &self.table.held_out {
            Some(_) => Some(HeldOut::open(cx, &policy, &self.table.evaluate, Some(&self.table.rules))?),
            None => None,
        };
        let mut config = self.table.training.clone();
        config.seed = super::training_seed(config.seed, cx);
        let mut reference = self.reference(cx, backend)?;
        // Trainer and sampler are of one distribution, whatever its temperature.
        let mut at_temperature = |temperature: f32| {
            policy.model.write().set_temperature(temperature)?;
            reference.iter_mut().try_for_each(|reference| reference.set_temperature(temperature))
        };
        if self.on_policy() {
            at_temperature(self.sampling.temperature)?;
            return self.train_on_policy(cx, &policy, reference, config, held_out);
        }
        let tokens = offline::Tokens {
            tokenizer: &policy.tokenizer,
            prompts: self.table.prompts.as_ref().map(|_| cx.input("prompts")).transpose()?,
            old_logprobs: config.old_logprobs,
        };
        let input = cx.input("groups")?;
        let Stored { groups, drawn, scattered, tokenised, drops } = offline::read(input, &tokens)?;
        if groups.len() < config.prompts_per_rollout {
            let others = if drops.counts.is_empty() { String::new() } else { format!(" (others: {drops})") };
            return Err(Error::new(format!(
                "a batch wants {} groups, and there are {} to train on{others}",
                config.prompts_per_rollout,
                groups.len()
            ))
            .in_file(input.location())
            .hint("lower `training.prompts_per_rollout`, with `training.minibatches`, or make more groups"));
        }
        if scattered {
            cx.progress.say(&format!("groups of {} lie scattered; they are brought together", input.location()));
        }
        if tokenised > 0 {
            cx.progress.say(&format!(
                "{tokenised} completions have no token ids and are tokenised by the policy's chat template and tokenizer"
            ));
        }
        let temperature = self.stored_at.map_or_else(|| drawn.temperature(), Ok)?;
        at_temperature(temperature)?;
        if temperature != 1.0 {
            cx.progress.say(&format!("the groups were drawn at temperature {temperature}: so is the policy trained"));
        }
        drawn.cut().into_iter().for_each(|warning| cx.progress.say(&warning));
        let mut trainer = GrpoTrainer::new(policy.model.clone(), reference, Offline(groups), config)?;
        cx.begin()?;
        drops.tell(cx)?;
        let mut outcome = Session::new(cx, &policy, self.table.checkpoints, held_out).train(&mut trainer)?.outcome;
        outcome.drops = drops.counts;
        Ok(outcome)
    }

    /// Whether the policy is asked itself.
    fn on_policy(&self) -> bool {
        self.table.groups.is_none()
    }

    fn train_on_policy<B: Backend>(
        &self,
        cx: &StageContext<'_>,
        policy: &Policy<B>,
        reference: Option<Model<B>>,
        config: GrpoTrainerConfig,
        held_out: Option<HeldOut<B>>,
    ) -> Result<StageOutcome> {
        let rules = RuleSet::load(&super::rules_path(&self.table.rules, cx.base)?)?;
        rules.ensure_ready()?;
        let (rules_name, rules_digest) = (rules.name().to_owned(), rules.digest().to_owned());
        let folder = cx.folder.join(ROLLOUTS);
        // What a killed run left; the pipeline sweeps the stage's own folder only.
        sweep_unfinished(&folder)?;
        let rollouts = Arc::new(Mutex::new(Rollouts::new(folder, cx.shard_rows)));
        let (source, dropped) = OnPolicy::new(cx, policy, rules, self, Arc::clone(&rollouts))?;
        let mut trainer = GrpoTrainer::new(policy.model.clone(), reference, source, config)?;
        cx.begin()?;
        dropped.tell(cx)?;
        let session = Session::new(cx, policy, self.table.checkpoints, held_out).with_rollouts(rollouts);
        let Trained { mut outcome, rollouts } = session.train(&mut trainer)?;
        outcome.drops = dropped.counts;
        outcome.count("rollouts", rollouts.iter().map(|shard| shard.rows).sum());
        outcome.facts.insert("rules".to_owned(), rules_name.into());
        outcome.facts.insert("rules_digest".to_owned(), rules_digest.into());
        let fingerprint = outcome.facts.get("model_digest").and_then(|d| d.as_str()).unwrap_or_default().to_owned();
        let listed = |shard: &ShardInfo| FileInfo {
            file: format!("{ROLLOUTS}/{}", shard.file),
            bytes: shard.bytes,
            blake3: shard.blake3.clone(),
        };
        outcome.files.extend(rollouts.iter().map(listed));
        let folder = cx.folder.join(ROLLOUTS);
        Manifest::new(cx.name, "rollouts", Some(DatasetKind::Groups), fingerprint, rollouts).commit(&folder)?;
        Ok(outcome)
    }
}

impl Stage for GrpoStage {
    fn inputs(&self) -> Vec<Input> {
        let table = &self.table;
        let mut inputs: Vec<Input> = self.policy.inputs().collect();
        inputs.extend(table.prompts.iter().map(|of| Input::new("prompts", of, DatasetKind::Prompts)));
        inputs.extend(table.groups.iter().map(|of| Input::new("groups", of, DatasetKind::Groups)));
        inputs.extend(table.reference.iter().map(|of| Input::model(REFERENCE, of)));
        inputs.extend(table.held_out.iter().map(|of| Input::new("held_out", of, DatasetKind::Prompts)));
        inputs
    }

    fn check(&self, _cx: &CheckContext<'_>) -> Result<(), Fault> {
        self.sampler.servers().map_or(Ok(()), |servers| check_servers(servers, true))
    }

    fn check_process(&self) -> Result<(), Fault> {
        self.sampler.servers().map_or(Ok(()), check_key)
    }

    fn output(&self) -> Option<DatasetKind> {
        None
    }

    fn beside(&self) -> Option<(DatasetKind, &'static str)> {
        self.on_policy().then_some((DatasetKind::Groups, ROLLOUTS))
    }

    fn writes_model(&self) -> bool {
        true
    }

    /// 2: stored groups are trained on at the temperature they were drawn at; one key of `schedule` leaves the others.
    /// 3: groups are refilled and dropped by their rewards as judged, and the model stops where its turns end.
    /// 4: a penalty makes a step of its own; rows of stored groups are brought together.
    fn version(&self) -> u32 {
        4
    }

    fn goes_on_after(&self, steps: u64) -> bool {
        self.table.training.goes_on_after(steps)
    }

    /// A finished model is not given up for one that cannot begin.
    fn begins_late(&self) -> bool {
        true
    }

    fn materials(&self, cx: &Materials<'_>) -> Result<Vec<(String, String)>> {
        let table = &self.table;
        let evaluation = table.held_out.as_ref().map(|_| table.evaluate.rules(Some(&table.rules)));
        let mut materials = super::training_materials(cx, &self.policy, evaluation)?;
        if self.on_policy() {
            let rules = RuleSet::load(&super::rules_path(&table.rules, cx.base)?)?;
            materials.push(("rules".to_owned(), rules.digest().to_owned()));
        }
        Ok(materials)
    }

    fn unfingerprinted_keys(&self) -> Vec<&'static str> {
        // Servers are sent the policy, so it does not matter which ones they are; the policy's own engine is the default.
        let engine: &[_] = match self.sampler {
            SamplerConfig::Local(_) => &["engine"],
            SamplerConfig::Vllm(_) => &["engine.tolerance", WHERE_SERVED],
        };
        [&["rules"], engine, HOW_SERVED, super::TRAINING_KEYS].concat()
    }

    fn model_config(&self, models: &Models<'_>) -> Result<Option<Config>> {
        self.policy.config(models).map(Some)
    }

    fn has_chat_template(&self, models: &Models<'_>) -> Result<bool> {
        self.policy.has_chat_template(models)
    }

    fn memory(&self, models: &Models<'_>) -> Result<Vec<(Config, Load)>> {
        let (config, table) = (self.policy.config(models)?, &self.table);
        self.policy.check_reference(table.reference.as_deref(), models)?;
        // The engine that samples is the one that is evaluated.
        if table.prompts.is_some() || table.held_out.is_some() {
            self.policy.check_chat_template(models)?;
        }
        let decodes = self.on_policy() && self.sampler.is_local() || table.held_out.is_some();
        let load = Load {
            rows: table.training.tokens_per_microbatch,
            // What is sampled may be as long; how long stored groups are is known when they are read.
            longest: if self.on_policy() { config.context.min(self.sampling.max_tokens as usize) } else { 0 },
            longest_possible: config.context,
            recompute: table.training.recompute,
            reference: Grpo::new(table.training.objective.clone())?.needs_reference(),
            decoding: decodes.then_some(self.policy.limits),
            ..self.policy.load(&table.training.optimizer)
        };
        Ok(vec![(config, load)])
    }

    fn run(&self, cx: &StageContext<'_>) -> Result<StageOutcome> {
        match cx.device.open()? {
            Opened::Cpu(backend) => self.train(cx, backend),
            Opened::Cuda(backend) => self.train(cx, backend),
        }
    }
}
