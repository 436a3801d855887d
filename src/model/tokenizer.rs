//! Text to tokens and back: `tokenizer.json`, special tokens and the chat template.

mod files;

use std::sync::OnceLock;

use serde_json::{Map, Value, json};

use super::chat_template::{CHAT_TEMPLATES, ChatTemplate};
use crate::error::{Error, Result};
use crate::schema::{Message, Role};
use files::template_of;

/// A model's tokenizer with its chat template.
#[derive(Debug)]
pub struct Tokenizer {
    inner: tokenizers::Tokenizer,
    /// `bos_token` and its like, by name.
    special: Vec<(String, String)>,
    template: Option<ChatTemplate>,
    config: Map<String, Value>,
    /// The template had a file of its own.
    template_file: bool,
    /// What [`Tokenizer::end_of_turn`] found out.
    end_of_turn: OnceLock<Option<u32>>,
}

impl Tokenizer {
    /// A tokenizer from the text of a `tokenizer.json` and the keys of a `tokenizer_config.json`.
    ///
    /// # Errors
    /// A text that is no tokenizer, a template that does not parse.
    pub fn from_json(tokenizer: &str, config: Map<String, Value>) -> Result<Self> {
        let inner = parse(tokenizer)?;
        let template = template_of(&config).map(|source| ChatTemplate::new(&source)).transpose()?;
        Ok(Tokenizer::of_parts(inner, template, config, false))
    }

    /// A tokenizer whose tokens are whole words, separated by spaces: for models
    /// made from scratch. `words` are the ids in order and hold `unknown` and `end`.
    ///
    /// # Errors
    /// A word that is there twice, holds a space, or a special one that is not there.
    pub fn words(words: &[String], unknown: &str, end: &str, chat_template: &str) -> Result<Self> {
        let mut vocab = Map::new();
        for (id, word) in words.iter().enumerate() {
            if word.is_empty() || word.contains(char::is_whitespace) {
                return Err(Error::new(format!("`{word}` is not a word")));
            }
            if vocab.insert(word.clone(), json!(id)).is_some() {
                return Err(Error::new(format!("word `{word}` is there twice")));
            }
        }
        let id = |word: &str| {
            vocab
                .get(word)
                .cloned()
                .ok_or_else(|| Error::new(format!("special word `{word}` is not in the vocabulary")))
        };
        let added = json!({
            "id": id(end)?, "content": end, "single_word": false, "lstrip": false, "rstrip": false,
            "normalized": false, "special": true,
        });
        id(unknown)?;
        let file = json!({
            "version": "1.0", "truncation": null, "padding": null, "added_tokens": [added], "normalizer": null,
            "pre_tokenizer": {"type": "WhitespaceSplit"}, "post_processor": null, "decoder": null,
            "model": {"type": "WordLevel", "vocab": vocab, "unk_token": unknown},
        });
        let inner = parse(file.to_string())?;
        let config = json!({
            "tokenizer_class": "PreTrainedTokenizerFast", "eos_token": end, "pad_token": end, "unk_token": unknown,
            "clean_up_tokenization_spaces": false, "chat_template": chat_template,
        });
        let Value::Object(config) = config else { unreachable!("the literal is an object") };
        let template = Some(ChatTemplate::new(chat_template)?);
        Ok(Tokenizer::of_parts(inner, template, config, false))
    }

    fn of_parts(
        inner: tokenizers::Tokenizer,
        template: Option<ChatTemplate>,
        config: Map<String, Value>,
        template_file: bool,
    ) -> Self {
        let special = special_tokens(&config);
        Tokenizer { inner, special, template, config, template_file, end_of_turn: OnceLock::new() }
    }

    /// # Errors
    /// Ids that the model has no embedding for. (A model may have more rows than
    /// the tokenizer has tokens: vocabularies are padded.)
    pub fn check(&self, vocab_size: usize) -> Result<()> {
        let largest = self.inner.get_vocab(true).into_iter().max_by_key(|(_, id)| *id);
        match largest {
            Some((token, id)) if id as usize >= vocab_size => Err(Error::new(format!(
                "the tokenizer has token `{token}` with id {id}; the model's vocabulary has {vocab_size}"
            ))
            .hint("tokenizer.json belongs to another model, or the model was saved without its added tokens")),
            Some(_) => Ok(()),
            None => Err(Error::new("the tokenizer has no tokens")),
        }
    }

    /// Tokens with ids, added ones included.
    pub fn len(&self) -> usize {
        self.inner.get_vocab_size(true)
    }

    /// Whether it has no tokens.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The id of a token's exact text.
    pub fn id(&self, token: &str) -> Option<u32> {
        self.inner.token_to_id(token)
    }

    /// The exact text of a token.
    pub fn token(&self, id: u32) -> Option<String> {
        self.inner.id_to_token(id)
    }

    /// The token that closes the assistant's turns: the special token that the chat template puts behind a reply
    /// (`<|im_end|>` of ChatML, whatever `eos_token` a base model has), or `eos_token` where it puts none.
    pub fn end_of_turn(&self) -> Option<u32> {
        *self.end_of_turn.get_or_init(|| self.closing_token().or_else(|| self.end_of_text()))
    }

    /// The special token that the chat template puts behind a reply.
    fn closing_token(&self) -> Option<u32> {
        const REPLY: &str = "reply";
        let turn = |role, content: &str| Message { role, content: content.to_owned() };
        let shown = self.render(&[turn(Role::User, "ask"), turn(Role::Assistant, REPLY)], false).ok()?;
        let (_, after) = shown.rsplit_once(REPLY)?;
        let token = *self.encode(after.trim_start()).ok()?.first()?;
        let special = self.inner.get_added_tokens_decoder().get(&token).is_some_and(|added| added.special);
        special.then_some(token)
    }

    /// `eos_token`, if there is one: what ends a document.
    pub fn end_of_text(&self) -> Option<u32> {
        let (_, token) = self.special.iter().find(|(name, _)| name == "eos_token")?;
        self.id(token)
    }

    /// The tokenizer, with the first of these ids (a model's `eos_token_id`) as `eos_token` where it names none itself.
    ///
    /// # Errors
    /// Neither names a token that ends a turn: what is trained without one never ends.
    pub fn ending_with(mut self, ids: &[u32]) -> Result<Self> {
        if self.end_of_text().is_some() {
            return Ok(self);
        }
        let token = ids.iter().find_map(|&id| self.token(id)).ok_or_else(|| {
            Error::new("neither the tokenizer nor the model names a token that ends a turn")
                .in_field("eos_token")
                .hint("add `eos_token` to tokenizer_config.json, or `eos_token_id` to config.json")
        })?;
        self.config.insert("eos_token".to_owned(), token.into());
        Ok(Tokenizer::of_parts(self.inner, self.template, self.config, self.template_file))
    }

    /// Tokens of a text that stands for itself, as base models read documents: with what the tokenizer puts around one,
    /// such as Llama's `bos_token`, unless the text begins with that already.
    ///
    /// # Errors
    /// What the library reports.
    pub fn encode_document(&self, text: &str) -> Result<Vec<u32>> {
        let (plain, framed) = (self.encode(text)?, self.encode_framed(text)?);
        Ok(if framed.first() == plain.first() { plain } else { framed })
    }

    /// Tokens of a text with what the tokenizer's post-processor puts around one.
    fn encode_framed(&self, text: &str) -> Result<Vec<u32>> {
        let encoding = self.inner.encode_fast(text, true).map_err(|e| Error::new(format!("cannot tokenize: {e}")))?;
        Ok(encoding.get_ids().to_vec())
    }

    /// Tokens of a text, special tokens in it recognised and none added.
    ///
    /// # Errors
    /// What the library reports.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>> {
        let encoding = self.inner.encode_fast(text, false).map_err(|e| Error::new(format!("cannot tokenize: {e}")))?;
        Ok(encoding.get_ids().to_vec())
    }

    /// Text of tokens, special ones included.
    ///
    /// # Errors
    /// What the library reports.
    pub fn decode(&self, ids: &[u32]) -> Result<String> {
        self.inner.decode(ids, false).map_err(|e| Error::new(format!("cannot turn tokens into text: {e}")))
    }

    /// Whether it has a chat template; base models often have none.
    pub fn has_chat_template(&self) -> bool {
        self.template.is_some()
    }

    /// Checks that conversations can be shown to the model at all.
    ///
    /// # Errors
    /// It has no chat template.
    pub fn check_chat_template(&self) -> Result<()> {
        self.chat_template().map(drop)
    }

    fn chat_template(&self) -> Result<&ChatTemplate> {
        self.template.as_ref().ok_or_else(Tokenizer::without_chat_template)
    }

    /// What is said where conversations are to be shown to a model that has no chat template.
    pub fn without_chat_template() -> Error {
        let names: Vec<String> = CHAT_TEMPLATES.iter().map(|(name, _)| format!("\"{name}\"")).collect();
        Error::new("the model has no chat template")
            .hint(format!(
                "name one in the recipe, beside the model: `chat_template = \"FILE\"` of Jinja, or one of {}",
                names.join(", ")
            ))
            .hint("or put a chat_template.jinja beside tokenizer.json, or `chat_template` into tokenizer_config.json")
    }

    /// The tokenizer with this chat template instead of its own.
    ///
    /// # Errors
    /// A template that does not parse, with its line.
    pub fn with_chat_template(self, source: &str) -> Result<Self> {
        Ok(Tokenizer::of_parts(self.inner, Some(ChatTemplate::new(source)?), self.config, true))
    }

    /// The tokenizer with one of [`CHAT_TEMPLATES`], which begins as the tokenizer begins documents: with Llama's
    /// `bos_token`, and with nothing where it adds nothing.
    ///
    /// # Errors
    /// What the library reports.
    pub fn with_built_in_template(self, source: &str) -> Result<Self> {
        let (plain, framed) = (self.encode("a")?, self.encode_framed("a")?);
        match framed.first().filter(|first| plain.first() != Some(*first)).and_then(|&first| self.token(first)) {
            // Part of the template, so that other programs that read it from the model's folder write it too.
            Some(begins) => self.with_chat_template(&format!("{{{{ {} }}}}{source}", json!(begins))),
            None => self.with_chat_template(source),
        }
    }

    /// The tokenizer with a chat template that knows what day it is: for conversations with people, since training and
    /// sampling are to come out the same on any day.
    pub fn with_clock(self) -> Self {
        Tokenizer { template: self.template.map(ChatTemplate::with_clock), ..self }
    }

    /// The prompt of a conversation, `generate` with what opens the assistant's turn.
    ///
    /// # Errors
    /// No template, or one that refuses the conversation.
    pub fn render(&self, messages: &[Message], generate: bool) -> Result<String> {
        self.chat_template()?.render(messages, &self.special, generate)
    }

    /// Tokens of [`Tokenizer::render`] with the assistant's turn opened.
    ///
    /// # Errors
    /// As [`Tokenizer::render`] and [`Tokenizer::encode`].
    pub fn encode_chat(&self, messages: &[Message]) -> Result<Vec<u32>> {
        self.encode(&self.render(messages, true)?)
    }
}

/// Reads a `tokenizer.json`. The truncation and padding that may be stored there are what a program last asked for, no
/// part of the tokenizer: `transformers` switches both off at every call, and a text has all its tokens and no others.
fn parse(json: impl AsRef<[u8]>) -> Result<tokenizers::Tokenizer> {
    let unread = |e| Error::new(format!("not a tokenizer the `tokenizers` library reads: {e}"));
    let mut tokenizer = tokenizers::Tokenizer::from_bytes(json).map_err(unread)?;
    tokenizer.with_padding(None).with_truncation(None).map_err(unread)?;
    Ok(tokenizer)
}

/// Keys such as `bos_token`, whose values are a text or an object with one.
fn special_tokens(config: &Map<String, Value>) -> Vec<(String, String)> {
    let text = |value: &Value| value.as_str().or_else(|| value.get("content")?.as_str()).map(str::to_owned);
    config
        .iter()
        .filter(|(name, _)| name.ends_with("_token"))
        .filter_map(|(name, value)| Some((name.clone(), text(value)?)))
        .collect()
}

#[cfg(test)]
mod tests;
