//! The model a training stage starts from: another stage's, the user's, or a fresh one.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::new_model::{MINI, NewModel};
use crate::backend::Backend;
use crate::engine::local::LocalEngine;
use crate::error::{Error, Result};
use crate::model::memory::{Limits, Load};
use crate::model::{Config, Dtype, LoraConfig, Model, SharedModel, Tokenizer};
use crate::recipe::Base;
use crate::seed;
use crate::stage::{Input, Models, StageContext, chat_template};
use crate::store::Location;
use crate::train::{OptimizerConfig, OptimizerKind};

/// `model = "…"` or `init = { … }`: one of the two.
#[derive(Clone, Debug, Default)]
pub struct PolicyConfig {
    /// A stage that trains a model, or a model's folder.
    pub model: Option<String>,
    /// A model made from scratch.
    pub init: Option<NewModel>,
    /// Adapters of low rank, trained in place of its weights.
    pub lora: Option<LoraConfig>,
    /// Whether these are left beside the model they are folded into; by default where they are of a `model`.
    pub save_adapter: Option<bool>,
    /// What the trained model is written as.
    pub dtype: Dtype,
    /// How it is shown conversations, instead of its own way: a file of Jinja, or a built-in template's name. The model
    /// that training leaves has it.
    pub chat_template: Option<String>,
    /// How much its engine takes on at once.
    pub limits: Limits,
}

/// A model under training with its tokenizer.
pub struct Policy<B: Backend> {
    pub model: SharedModel<B>,
    pub tokenizer: Arc<Tokenizer>,
    /// Asks it as it is at the time: one engine with one cache, for rollouts and for evaluations.
    pub engine: Arc<LocalEngine<B>>,
    /// What the trained model is written as.
    pub dtype: Dtype,
    /// What the adapter that it leaves beside the trained model says that it belongs to; `None` if it leaves none.
    pub adapter_of: Option<String>,
    /// The token that it is trained to end with, where the model that it starts from does not stop at it.
    pub new_end: Option<u32>,
}

const MODEL: &str = "model";

impl PolicyConfig {
    /// Checks that there is exactly one of the two, and an adapter where one is to be left.
    ///
    /// # Errors
    /// Neither or both; no adapter, or one of weights that no folder holds.
    pub fn validate(&self, stage: &str) -> Result<()> {
        if self.save_adapter == Some(true) && self.lora.is_none() {
            return Err(Error::usage(format!("the stage `{stage}` has no adapter to save: it trains all weights"))
                .hint("add `lora = { rank = 16, alpha = 32 }`, or leave `save_adapter` out"));
        }
        if self.save_adapter == Some(true) && self.init.is_some() {
            return Err(Error::usage(format!(
                "an adapter of the stage `{stage}` would belong to the random weights of `init`, which no folder holds"
            ))
            .hint("leave `save_adapter` out: `model/` has the adapter folded in"));
        }
        match (&self.model, &self.init) {
            (Some(_), None) => Ok(()),
            (None, Some(new)) => new.validate(),
            (None, None) => Err(Error::usage(format!("the stage `{stage}` has no model to train"))
                .hint("add `model = \"…\"` (a stage or a folder), or `init = { tokenizer = …, hidden = … }`")),
            (Some(_), Some(_)) => {
                Err(Error::usage(format!("the stage `{stage}` has both `model` and `init`")).hint("keep one"))
            }
        }
    }

    pub fn inputs(&self) -> impl Iterator<Item = Input> + '_ {
        self.model.iter().map(|of| Input::model(MODEL, of))
    }

    /// The files beside the inputs that decide the start: of a tokenizer that is not the mini world's, with its chat
    /// template.
    pub fn tokenizer_files(&self, base: &Base) -> Vec<PathBuf> {
        let Some(new) = self.init.as_ref().filter(|new| new.tokenizer != MINI) else { return Vec::new() };
        let folder = PathBuf::from(base.resolve(&new.tokenizer));
        Tokenizer::FILES.map(|name| folder.join(name)).into_iter().filter(|file| file.exists()).collect()
    }

    /// The shape of the model, which need not be there yet.
    ///
    /// # Errors
    /// A tokenizer or a config that cannot be read, sizes that do not fit together.
    pub fn config(&self, models: &Models<'_>) -> Result<Config> {
        match (&self.init, &self.model) {
            (Some(new), _) => Ok(new.config(models.base)?.0),
            (None, Some(of)) => (models.config)(of),
            (None, None) => Err(Error::usage("there is no model to train")),
        }
    }

    /// Whether the model that is left can be shown conversations.
    ///
    /// # Errors
    /// The model it starts from cannot be read.
    pub fn has_chat_template(&self, models: &Models<'_>) -> Result<bool> {
        match (&self.chat_template, &self.init, &self.model) {
            (None, Some(new), _) if new.tokenizer != MINI => {
                Tokenizer::has_chat_template_in(&Location::parse(&models.base.resolve(&new.tokenizer))?)
            }
            (None, None, Some(of)) => (models.has_chat_template)(of),
            _ => Ok(true),
        }
    }

    /// Checks, before anything has run, that conversations can be shown to the model.
    ///
    /// # Errors
    /// It has no chat template and is given none; the model it starts from cannot be read.
    pub fn check_chat_template(&self, models: &Models<'_>) -> Result<()> {
        let of = self.model.as_deref().or(self.init.as_ref().map(|new| new.tokenizer.as_str()));
        match self.has_chat_template(models)? {
            true => Ok(()),
            false => Err(Tokenizer::without_chat_template().context(format!("the model `{}`", of.unwrap_or_default()))),
        }
    }

    /// Checks, before anything has run, that a reference of the user's own is of the policy's shape.
    ///
    /// # Errors
    /// It is not, or one of the two cannot be read.
    pub fn check_reference(&self, reference: Option<&str>, models: &Models<'_>) -> Result<()> {
        let Some(reference) = reference else { return Ok(()) };
        let policy = self.model.as_deref().unwrap_or("a fresh model");
        let within = |e: Error| e.context(format!("the reference `{reference}` beside the policy, `{policy}`"));
        self.config(models)?.check_twin(&(models.config)(reference)?).map_err(within)
    }

    /// What training it holds, beside what the stage adds: micro-batches, a reference, engines.
    pub fn load(&self, optimizer: &OptimizerConfig) -> Load {
        let muon = optimizer.kind == OptimizerKind::Muon;
        let offload = optimizer.offload;
        Load { trains: true, muon, offload, lora: self.lora.map(|lora| lora.rank), ..Load::default() }
    }

    /// Loads or makes the model, which is to be trained to end with the token that `end` tells: what it leaves stops there.
    ///
    /// # Errors
    /// A folder that holds no model, sizes that do not fit together.
    pub fn open<B: Backend>(
        &self,
        cx: &StageContext<'_>,
        backend: B,
        end: impl Fn(&Tokenizer) -> Option<u32>,
    ) -> Result<Policy<B>> {
        let (mut model, tokenizer) = match &self.init {
            Some(new) => new.make(cx, backend)?,
            None => {
                let folder = cx.input_folder(MODEL)?;
                (Model::load_on(backend, folder)?, Tokenizer::load(folder)?)
            }
        };
        tokenizer.check(model.config().vocab_size)?;
        let tokenizer = tokenizer.ending_with(&model.config().eos_token_ids)?;
        let tokenizer = chat_template::with_template(tokenizer, self.chat_template.as_deref(), cx.base)?;
        let end = end(&tokenizer);
        let new_end = end.filter(|end| !model.config().eos_token_ids.contains(end));
        new_end.iter().for_each(|&end| tell_new_end(cx, &tokenizer, end));
        end.iter().for_each(|&end| model.end_with(end));
        let model = match self.lora {
            Some(lora) => model.with_lora(lora, seed::stream(cx.seed, "initial adapters", 0).next_u64())?,
            None => model,
        };
        let adapter_of = match (&self.model, self.lora) {
            (Some(of), Some(_)) if self.save_adapter != Some(false) => Some(name_of_base(cx, of)?),
            _ => None,
        };
        let (model, tokenizer) = (SharedModel::new(model), Arc::new(tokenizer));
        let engine = LocalEngine::new(model.clone(), Arc::clone(&tokenizer), cx.name, self.limits)?;
        Ok(Policy { model, tokenizer, engine: Arc::new(engine), dtype: self.dtype, adapter_of, new_end })
    }

    /// Another copy of the model as it was at the start: the reference of a KL penalty.
    pub fn reference<B: Backend>(&self, cx: &StageContext<'_>, backend: B) -> Result<Model<B>> {
        match &self.init {
            Some(new) => Ok(new.make(cx, backend)?.0),
            None => Model::load_on(backend, cx.input_folder(MODEL)?),
        }
    }
}

/// What an adapter calls the model that training began with, `of` in the recipe. Where the run lies is no part of it, or
/// equal runs would differ: a stage's model is named by the way to it from the adapter's folder, any other as the recipe names it.
fn name_of_base(cx: &StageContext<'_>, of: &str) -> Result<String> {
    let folder = cx.input_folder(MODEL)?;
    let name = match cx.run_folder.as_local().and_then(|run| folder.strip_prefix(run).ok()) {
        Some(within) => Path::new("../..").join(within),
        // Of another run's stage it is a part.
        None => match folder.strip_prefix(cx.resolve(of)) {
            Ok(part) if part != Path::new("") => Path::new(of).join(part),
            _ => PathBuf::from(of),
        },
    };
    Ok(name.display().to_string())
}

/// Says that the model will stop elsewhere than the one that it starts from.
fn tell_new_end(cx: &StageContext<'_>, tokenizer: &Tokenizer, end: u32) {
    let name = |token: Option<u32>| token.and_then(|token| tokenizer.token(token)).unwrap_or_default();
    let whose = match tokenizer.end_of_text() {
        Some(text) if text != end => {
            format!("with which the chat template closes a turn; `eos_token` is `{}`", name(Some(text)))
        }
        _ => "the tokenizer's `eos_token`".to_owned(),
    };
    cx.progress.say(&format!(
        "the model does not stop at `{}` ({whose}) yet: it is trained to, and its `eos_token_id` will begin with {end}",
        name(Some(end))
    ));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stage_without_or_with_two_models_is_refused() {
        assert!(PolicyConfig::default().validate("s").is_err());
        let model = Some("base".to_owned());
        assert!(PolicyConfig { model: model.clone(), ..PolicyConfig::default() }.validate("s").is_ok());
        let init: NewModel = toml::from_str("tokenizer = 'mini'\nhidden = 8\nlayers = 1\nheads = 1").unwrap();
        assert!(PolicyConfig { model, init: Some(init), ..PolicyConfig::default() }.validate("s").is_err());
    }

    #[test]
    fn an_adapter_is_saved_only_where_there_is_one_and_a_folder_that_it_belongs_to() {
        let init: NewModel = toml::from_str("tokenizer = 'mini'\nhidden = 8\nlayers = 1\nheads = 1").unwrap();
        let (save_adapter, lora) = (Some(true), Some(LoraConfig::default()));
        let full = PolicyConfig { model: Some("base".to_owned()), save_adapter, ..PolicyConfig::default() };
        let fresh = PolicyConfig { init: Some(init), lora, save_adapter, ..PolicyConfig::default() };
        for (wrong, told) in [(&full, "trains all weights"), (&fresh, "which no folder holds")] {
            let error = wrong.validate("s").unwrap_err().render(false);
            assert!(error.contains(told) && error.contains("leave `save_adapter` out"), "{error}");
        }
        assert!(PolicyConfig { save_adapter: None, ..fresh }.validate("s").is_ok());
        assert!(PolicyConfig { lora, ..full }.validate("s").is_ok());
    }
}
