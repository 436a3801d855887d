//! Accuracy on held-out prompts while a policy trains.

use std::sync::Arc;

use serde::Deserialize;

use super::Policy;
use crate::backend::Backend;
use crate::engine::Sampling;
use crate::engine::local::LocalEngine;
use crate::error::Result;
use crate::eval::{SampleResult, counts, pass_rate};
use crate::model::memory::Limits;
use crate::rule::file::RuleSet;
use crate::schema::Prompt;
use crate::stage::StageContext;
use crate::stage::judged::{Judged, sample_and_judge};
use crate::stage::local_engine::{Count, Gib, LocalTable};
use crate::stage::unruled::Unruled;

/// `evaluate = { every = …, … }`: how the prompts of `held_out` are asked.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct HeldOutConfig {
    /// Optimizer steps between evaluations; the end of the run always has one.
    pub every: u64,
    /// Whether the model is evaluated before the first step too: what later figures are compared with.
    pub before: bool,
    /// The first so many prompts.
    pub prompts: usize,
    pub samples: u32,
    pub sampling: Sampling,
    /// A rule file, or the name of a built-in one; those the stage trains by if absent, else `r1`.
    pub rules: Option<String>,
    /// How much the engine in this process takes on at once; see [`LocalTable`].
    batch: Option<Count>,
    cache_gib: Option<Gib>,
    prefill_tokens: Option<Count>,
}

impl Default for HeldOutConfig {
    fn default() -> Self {
        HeldOutConfig {
            every: 50,
            before: true,
            prompts: 200,
            samples: 1,
            sampling: Sampling::default(),
            rules: None,
            batch: None,
            cache_gib: None,
            prefill_tokens: None,
        }
    }
}

impl HeldOutConfig {
    /// How much the engine takes on at once, as far as the table says.
    pub(in crate::stage) fn limits(&self) -> Limits {
        let &HeldOutConfig { batch, cache_gib, prefill_tokens, .. } = self;
        LocalTable { batch, cache_gib, prefill_tokens }.limits()
    }

    /// What judges, where a stage trains by these rules or by none.
    pub fn rules<'a>(&'a self, trained_by: Option<&'a str>) -> &'a str {
        self.rules.as_deref().or(trained_by).unwrap_or("r1")
    }
}

/// The prompts, ready to be asked.
pub struct HeldOut<B: Backend> {
    engine: Arc<LocalEngine<B>>,
    prompts: Vec<Prompt>,
    rules: RuleSet,
    config: HeldOutConfig,
}

impl<B: Backend> HeldOut<B> {
    /// Opens the input `held_out`; `trained_by` are the rules that the stage trains by, if any.
    ///
    /// # Errors
    /// Prompts that cannot be read, a rule file that does not load, a model without a chat template.
    pub fn open(
        cx: &StageContext<'_>,
        policy: &Policy<B>,
        config: &HeldOutConfig,
        trained_by: Option<&str>,
    ) -> Result<Self> {
        let rules = RuleSet::load(&crate::stage::rules_path(config.rules(trained_by), cx.base)?)?;
        rules.ensure_ready()?;
        policy.tokenizer.check_chat_template()?;
        let prompts: Vec<Prompt> =
            cx.input("held_out")?.rows_of::<Prompt>().take(config.prompts).collect::<Result<_>>()?;
        Unruled::of(&rules, &prompts).warning("held-out prompts").iter().for_each(|line| cx.progress.say(line));
        Ok(HeldOut { engine: Arc::clone(&policy.engine), prompts, rules, config: config.clone() })
    }

    pub fn config(&self) -> &HeldOutConfig {
        &self.config
    }

    /// Share of correct samples among the decided ones, as `eval` counts: requests that failed do not count. `None` if none is decided.
    ///
    /// # Errors
    /// The engine fails.
    pub fn accuracy(&self, cx: &StageContext<'_>, step: u64) -> Result<Option<f64>> {
        let prompts: Vec<&Prompt> = self.prompts.iter().collect();
        let sampling = Arc::new(self.config.sampling.clone());
        let judged =
            sample_and_judge(&*self.engine, &self.rules, &prompts, self.config.samples, &sampling, cx.seed, step)?;
        let samples: Vec<SampleResult> = judged.iter().flatten().filter_map(Judged::result).collect();
        let (decided, correct) = counts(&samples);
        Ok(pass_rate(decided, correct))
    }
}
