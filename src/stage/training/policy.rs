//! The model a training stage starts from: another stage's, the user's, or a fresh one.

use std::path::PathBuf;
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
    /// The token that it is trained to end with, where the model that it starts from does not stop at it.
    pub new_end: Option<u32>,
}

const MODEL: &str = "model";

impl PolicyConfig {
    /// Checks that there is exactly one of the two.
    ///
    /// # Errors
    /// Neither or both.
    pub fn validate(&self, stage: &str) -> Result<()> {
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
        let (model, tokenizer) = (SharedModel::new(model), Arc::new(tokenizer));
        let engine = LocalEngine::new(model.clone(), Arc::clone(&tokenizer), cx.name, self.limits)?;
        Ok(Policy { model, tokenizer, engine: Arc::new(engine), dtype: self.dtype, new_end })
    }

    /// Another copy of the model as it was at the start: the reference of a KL penalty.
    pub fn reference<B: Backend>(&self, cx: &StageContext<'_>, backend: B) -> Result<Model<B>> {
        match &self.init {
            Some(new) => Ok(new.make(cx, backend)?.0),
            None => Model::load_on(backend, cx.input_folder(MODEL)?),
        }
    }
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
}
