//! A model to measure, as the table names it.

use std::path::Path;

use serde::Deserialize;

use crate::error::{Error, Result};

/// A model to measure, as the table has it.
#[derive(Clone, Debug, Deserialize)]
#[serde(
    untagged,
    expecting = "a stage or a folder, or a table `{ name = …, model = …, chat_template = …, served = …, groups = … }`"
)]
pub(super) enum Entry {
    Model(String),
    Told(Told),
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Told {
    /// What the tables call it.
    name: Option<String>,
    /// A stage that trains it, or a folder.
    model: Option<String>,
    /// A file of Jinja, or a built-in template's name, instead of the model's own chat template.
    chat_template: Option<String>,
    /// The model that the servers have already: nothing is loaded.
    served: bool,
    /// Its samples, judged already, as a groups dataset: nothing is sampled.
    groups: Option<String>,
}

impl Entry {
    pub(super) fn name(&self) -> String {
        match self {
            Entry::Told(Told { name: Some(name), .. }) => name.clone(),
            other => {
                let of = other.model().or(other.groups());
                of.map_or("served".to_owned(), |of| crate::stage::model_name(Path::new(of)))
            }
        }
    }

    /// The folder of its samples: the name, with what no one folder can be called written as its code, `%2F` for `/`.
    pub(super) fn folder(&self) -> String {
        let name = self.name();
        let mut folder = String::with_capacity(name.len());
        for (at, c) in name.char_indices() {
            if matches!(c, '/' | '\\' | '%' | ':') || c.is_control() || (at == 0 && c == '.') {
                folder += &format!("%{:02X}", u32::from(c));
            } else {
                folder.push(c);
            }
        }
        folder
    }

    pub(super) fn model(&self) -> Option<&str> {
        match self {
            Entry::Model(model) => Some(model),
            Entry::Told(told) => told.model.as_deref(),
        }
    }

    pub(super) fn chat_template(&self) -> Option<&str> {
        match self {
            Entry::Model(_) => None,
            Entry::Told(told) => told.chat_template.as_deref(),
        }
    }

    pub(super) fn groups(&self) -> Option<&str> {
        match self {
            Entry::Model(_) => None,
            Entry::Told(told) => told.groups.as_deref(),
        }
    }

    pub(super) fn is_served(&self) -> bool {
        matches!(self, Entry::Told(told) if told.served)
    }

    /// Whether its keys go together; `others` are the items that are sampled beside it.
    pub(super) fn check(&self, others: usize, servers: bool) -> Result<()> {
        if self.name().is_empty() {
            return Err(
                Error::usage("an item of `models` has an empty `name`").hint("leave it out, or call it something")
            );
        }
        let named = [self.model().is_some(), self.groups().is_some(), self.is_served()];
        if named.into_iter().filter(|&is_named| is_named).count() != 1 {
            return Err(Error::usage("an item of `models` names one of `model`, `groups` and `served = true`").hint(
                "`model` is a stage that trains or a folder; `groups`, samples that are judged already; `served = true` is \
                 the model that servers have already",
            ));
        }
        if self.groups().is_some() && self.chat_template().is_some() {
            return Err(Error::usage("`chat_template` beside `groups`, whose samples are there already")
                .hint("leave it out: nothing is sampled"));
        }
        if !self.is_served() {
            return Ok(());
        }
        if !servers {
            return Err(Error::usage("`served = true` without servers")
                .hint("say which: `engine = { kind = \"vllm\", endpoints = [\"http://localhost:8000\"] }`"));
        }
        if others > 0 {
            return Err(Error::usage("`served = true` beside other models, which would be loaded in its place")
                .hint("measure them in another stage of the kind `eval`"));
        }
        if self.chat_template().is_some() {
            return Err(Error::usage("`chat_template` of a model that is served")
                .hint("servers have a template of their own; `engine.template` says who uses which"));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_one_folder_whatever_is_in_it() {
        let folder = |name: &str| Entry::Told(Told { name: Some(name.to_owned()), ..Told::default() }).folder();
        assert_eq!(folder("r1_zero"), "r1_zero");
        assert_eq!(folder("Qwen/Qwen2.5"), "Qwen%2FQwen2.5");
        assert_eq!(folder("../../1_prompts"), "%2E.%2F..%2F1_prompts");
        assert_ne!(folder("a/b"), folder("a%2Fb"));
        let nameless = Entry::Told(Told { name: Some(String::new()), model: Some("m".into()), ..Told::default() });
        assert!(nameless.check(0, false).unwrap_err().to_string().contains("empty `name`"));
    }
}
