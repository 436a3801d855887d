//! A fresh model for a training stage: random weights of the sizes that its table says.

use std::path::Path;

use serde::Deserialize;

use crate::backend::{Backend, Heads};
use crate::error::{Error, Result};
use crate::model::{Config, Model, Tokenizer};
use crate::procedural::mini;
use crate::recipe::Base;
use crate::seed;
use crate::stage::StageContext;

/// A model with random weights, in the Llama layout with tied embeddings.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewModel {
    /// `mini` for the mini world's tokenizer, else a folder with `tokenizer.json`.
    pub tokenizer: String,
    pub hidden: usize,
    pub layers: usize,
    pub heads: usize,
    /// Key and value heads; as many as query heads if absent.
    pub kv_heads: Option<usize>,
    /// Width of the feed-forward layers; 8/3 of `hidden` if absent, as a multiple of 8.
    pub intermediate: Option<usize>,
    /// Width of a head; `hidden / heads` if absent.
    pub head_dim: Option<usize>,
    /// Most tokens of prompt and completion together.
    #[serde(default = "default_context")]
    pub context: usize,
}

fn default_context() -> usize {
    4096
}

/// What the mini world's tokenizer is called.
pub(super) const MINI: &str = "mini";
/// How the mini world's turns follow each other: a space between, the end of turn after a reply.
const MINI_TEMPLATE: &str = "{% for message in messages %}{% if not loop.first %} {% endif %}{{ message.content }}\
{% if message.role == 'assistant' %}{{ eos_token }}{% endif %}{% endfor %}";

impl NewModel {
    /// Checks the sizes that do not depend on the tokenizer.
    pub(super) fn validate(&self) -> Result<()> {
        let (heads, kv) = (self.heads, self.kv_heads.unwrap_or(self.heads));
        for (key, value) in [("hidden", self.hidden), ("layers", self.layers), ("heads", heads), ("kv_heads", kv)] {
            if value == 0 {
                return Err(Error::usage(format!("`init.{key}` is 0")).hint("it must be at least 1"));
            }
        }
        if !heads.is_multiple_of(kv) {
            return Err(Error::usage(format!("{heads} heads cannot share {kv} key and value heads"))
                .hint("`heads` must be a multiple of `kv_heads`"));
        }
        if self.head_dim.is_none() && !self.hidden.is_multiple_of(heads) {
            return Err(Error::usage(format!("`hidden` of {} cannot be divided among {heads} heads", self.hidden))
                .hint("give `head_dim`, or a multiple of `heads`"));
        }
        Ok(())
    }

    /// The model's shape and its tokenizer.
    pub(super) fn config(&self, base: &Base) -> Result<(Config, Tokenizer)> {
        let tokenizer = if self.tokenizer == MINI {
            mini_tokenizer()?
        } else {
            Tokenizer::load(Path::new(&base.resolve(&self.tokenizer)))?
        };
        let end = tokenizer.end_of_text().ok_or_else(|| {
            Error::usage("the tokenizer names no `eos_token`, which ends a turn")
                .hint("add `eos_token` to tokenizer_config.json")
        })?;
        let (heads, kv) = (self.heads, self.kv_heads.unwrap_or(self.heads));
        let heads = Heads { query: heads, kv, dim: self.head_dim.unwrap_or(self.hidden / heads) };
        let intermediate = self.intermediate.unwrap_or((self.hidden * 8 / 3).next_multiple_of(8));
        let config =
            Config::fresh(tokenizer.len(), self.hidden, intermediate, self.layers, heads, self.context, &[end])?;
        Ok((config, tokenizer))
    }

    /// The model with random weights, and its tokenizer.
    pub(super) fn make<B: Backend>(&self, cx: &StageContext<'_>, backend: B) -> Result<(Model<B>, Tokenizer)> {
        let (config, tokenizer) = self.config(cx.base)?;
        let mut rng = seed::stream(cx.seed, "initial weights", 0);
        Ok((Model::init_on(backend, config, rng.next_u64()), tokenizer))
    }
}

/// The mini world's tokenizer with its chat template.
fn mini_tokenizer() -> Result<Tokenizer> {
    let config = serde_json::json!({
        "tokenizer_class": "PreTrainedTokenizerFast", "bos_token": "<bos>", "eos_token": "<eos>",
        "pad_token": "<pad>", "unk_token": "<unk>", "clean_up_tokenization_spaces": false,
        "chat_template": MINI_TEMPLATE,
    });
    let serde_json::Value::Object(config) = config else { unreachable!("the literal is an object") };
    Tokenizer::from_json(&mini::tokenizer_json(), config)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schema::{Message, Role};

    #[test]
    fn the_mini_template_puts_turns_one_after_the_other() {
        let tokenizer = mini_tokenizer().unwrap();
        let turn = |role, content: &str| Message { role, content: content.to_owned() };
        let asked = [turn(Role::User, "what is 3 + 4 ?")];
        let prompt = tokenizer.encode_chat(&asked).unwrap();
        let both = [asked[0].clone(), turn(Role::Assistant, "<think> 3 + 4 = 7 </think> <answer> 7 </answer>")];
        let whole = tokenizer.encode(&tokenizer.render(&both, false).unwrap()).unwrap();
        assert!(whole.starts_with(&prompt), "the prompt's tokens begin the conversation's");
        assert_eq!(*whole.last().unwrap(), tokenizer.end_of_turn().unwrap());
        let reply = tokenizer.encode(&both[1].content).unwrap();
        assert_eq!(whole[prompt.len()..whole.len() - 1], reply, "a reply has the same tokens alone");
    }
}
