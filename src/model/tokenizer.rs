//! Text to tokens and back: `tokenizer.json`, special tokens and the chat template.

use std::path::Path;
use std::sync::OnceLock;

use serde_json::{Map, Value, json};

use super::chat_template::{CHAT_TEMPLATES, ChatTemplate};
use super::config::read_object;
use crate::error::{Context, Error, Result};
use crate::schema::{Message, Role};
use crate::store::Location;

const TOKENIZER: &str = "tokenizer.json";
const TOKENIZER_CONFIG: &str = "tokenizer_config.json";
/// Where special tokens were before `tokenizer_config.json` had them too.
const SPECIAL_TOKENS: &str = "special_tokens_map.json";
const TEMPLATE: &str = "chat_template.jinja";

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
    /// Files of a model's folder that decide what the tokenizer does; all but the first need not be there.
    pub const FILES: [&str; 4] = [TOKENIZER, TOKENIZER_CONFIG, SPECIAL_TOKENS, TEMPLATE];

    /// Reads `tokenizer.json`, and `tokenizer_config.json`, `special_tokens_map.json` and
    /// `chat_template.jinja` where there are any.
    ///
    /// # Errors
    /// A file that cannot be read or parsed.
    pub fn load(dir: &Path) -> Result<Self> {
        let path = dir.join(TOKENIZER);
        let bytes = std::fs::read(&path)
            .or_fail(|| "the model has no readable tokenizer.json".into())
            .map_err(|e| e.in_file(path.display()))?;
        let inner = parse(&bytes).map_err(|e| e.in_file(path.display()))?;
        let path = dir.join(TOKENIZER_CONFIG);
        let mut config = if path.exists() { read_object(&path)? } else { Map::new() };
        let path = dir.join(SPECIAL_TOKENS);
        let elsewhere = if path.exists() { read_object(&path)? } else { Map::new() };
        for (name, token) in elsewhere {
            let own = config.entry(name).or_insert(Value::Null);
            if own.is_null() {
                *own = token;
            }
        }
        let path = dir.join(TEMPLATE);
        let file = match path.exists() {
            true => Some(std::fs::read_to_string(&path).or_fail(|| format!("cannot read {}", path.display()))?),
            false => None,
        };
        let template_file = file.is_some();
        let source = file.or_else(|| template_of(&config));
        let template = source.map(|source| ChatTemplate::new(&source)).transpose();
        let template = template.map_err(|e| e.context(dir.display().to_string()))?;
        Ok(Tokenizer::of_parts(inner, template, config, template_file))
    }

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

    /// Writes the files [`Tokenizer::load`] reads.
    ///
    /// # Errors
    /// Where the folder cannot be written.
    pub fn save(&self, dir: &Path) -> Result<()> {
        std::fs::create_dir_all(dir).or_fail(|| format!("cannot make {}", dir.display()))?;
        let text = self.inner.to_string(true).map_err(|e| Error::new(format!("cannot write the tokenizer: {e}")))?;
        let mut files =
            vec![(TOKENIZER, text), (TOKENIZER_CONFIG, format!("{:#}\n", Value::Object(self.config.clone())))];
        if let (true, Some(template)) = (self.template_file, &self.template) {
            files.push((TEMPLATE, template.source().to_owned()));
        }
        for (name, text) in files {
            let path = dir.join(name);
            std::fs::write(&path, text).or_fail(|| format!("cannot write {}", path.display()))?;
        }
        Ok(())
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

    /// Whether the tokenizer in a model's folder, which may lie in an object store, has a chat template: without reading
    /// the tokenizer itself.
    ///
    /// # Errors
    /// The folder cannot be read; a `tokenizer_config.json` that is no JSON object.
    pub fn has_chat_template_in(folder: &Location) -> Result<bool> {
        if folder.join(TEMPLATE).exists()? {
            return Ok(true);
        }
        let file = folder.join(TOKENIZER_CONFIG);
        let Some(bytes) = file.read_if_exists()? else { return Ok(false) };
        let config = serde_json::from_slice::<Map<String, Value>>(&bytes).or_fail(|| "not a JSON object".into());
        Ok(template_of(&config.map_err(|e| e.in_file(&file))?).is_some())
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

/// The template in `tokenizer_config.json`: a string, or the one named `default` of a list.
fn template_of(config: &Map<String, Value>) -> Option<String> {
    match config.get("chat_template")? {
        Value::String(source) => Some(source.clone()),
        Value::Array(templates) => {
            let default = templates.iter().find(|t| t.get("name").and_then(Value::as_str) == Some("default"));
            Some(default.or(templates.first())?.get("template")?.as_str()?.to_owned())
        }
        _ => None,
    }
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
mod tests {
    use super::*;

    fn words() -> Tokenizer {
        let words = ["<unk>", "<end>", "one", "two", "user:"].map(String::from);
        let template = "{% for m in messages %}user: {{ m.content }} {% endfor %}";
        Tokenizer::words(&words, "<unk>", "<end>", template).unwrap()
    }

    #[test]
    fn words_come_back_after_saving() {
        let dir = tempfile::tempdir().unwrap();
        words().save(dir.path()).unwrap();
        assert!(Tokenizer::has_chat_template_in(&Location::from(dir.path())).unwrap());
        let tokenizer = Tokenizer::load(dir.path()).unwrap();
        assert_eq!(tokenizer.encode("two one three <end>").unwrap(), [3, 2, 0, 1]);
        assert_eq!(tokenizer.decode(&[3, 2, 1]).unwrap(), "two one <end>");
        assert_eq!(tokenizer.end_of_turn(), Some(1));
        let message = Message { role: Role::User, content: "one".into() };
        assert_eq!(tokenizer.encode_chat(&[message]).unwrap(), [4, 2]);
    }

    #[test]
    fn stored_truncation_and_padding_are_no_part_of_a_tokenizer() {
        let mut file: Value = serde_json::from_str(&words().inner.to_string(false).unwrap()).unwrap();
        file["truncation"] = json!({"direction": "Right", "max_length": 2, "strategy": "LongestFirst", "stride": 0});
        file["padding"] = json!({"strategy": {"Fixed": 8}, "direction": "Right", "pad_to_multiple_of": null,
            "pad_id": 1, "pad_type_id": 0, "pad_token": "<end>"});
        let tokenizer = Tokenizer::from_json(&file.to_string(), Map::new()).unwrap();
        assert_eq!(tokenizer.encode("one two one two").unwrap(), [2, 3, 2, 3]);
        let dir = tempfile::tempdir().unwrap();
        words().save(dir.path()).unwrap();
        std::fs::write(dir.path().join(TOKENIZER), file.to_string()).unwrap();
        assert_eq!(Tokenizer::load(dir.path()).unwrap().encode("one two one").unwrap(), [2, 3, 2]);
    }

    #[test]
    fn the_end_of_a_turn_is_found_wherever_a_model_names_it() {
        let dir = tempfile::tempdir().unwrap();
        words().save(dir.path()).unwrap();
        let load = |file: &str, text: &str| {
            std::fs::write(dir.path().join(file), text).unwrap();
            Tokenizer::load(dir.path()).unwrap()
        };
        let nameless = load(TOKENIZER_CONFIG, "{\"eos_token\": null}");
        assert_eq!(nameless.end_of_turn(), None);
        let error = nameless.ending_with(&[]).unwrap_err();
        assert!(error.render(false).contains("eos_token_id"), "{error}");
        let by_model = Tokenizer::load(dir.path()).unwrap().ending_with(&[77, 3]).unwrap();
        let by_map = load(SPECIAL_TOKENS, "{\"eos_token\": {\"content\": \"<end>\"}}").ending_with(&[3]).unwrap();
        for (tokenizer, end) in [(by_model, 3), (by_map, 1)] {
            let saved = tempfile::tempdir().unwrap();
            tokenizer.save(saved.path()).unwrap();
            let ends = [tokenizer.end_of_turn(), Tokenizer::load(saved.path()).unwrap().end_of_turn()];
            assert_eq!(ends, [Some(end); 2]);
        }
    }

    #[test]
    fn a_turn_ends_with_the_special_token_that_the_template_closes_it_with() {
        let closing_with_two = |special: bool| {
            let mut file: Value = serde_json::from_str(&words().inner.to_string(false).unwrap()).unwrap();
            let two = json!({"id": 3, "content": "two", "single_word": false, "lstrip": false, "rstrip": false,
                "normalized": false, "special": special});
            file["added_tokens"].as_array_mut().unwrap().push(two);
            let config = json!({"eos_token": "<end>", "chat_template": "{{ messages[-1].content }} two\n"});
            let Value::Object(config) = config else { panic!("an object") };
            Tokenizer::from_json(&file.to_string(), config).unwrap()
        };
        let chat = closing_with_two(true);
        assert_eq!((chat.end_of_turn(), chat.end_of_text()), (Some(3), Some(1)));
        assert_eq!(closing_with_two(false).end_of_turn(), Some(1), "a word is no end");
        let plain = chat.with_chat_template(CHAT_TEMPLATES[0].1).unwrap();
        assert_eq!(plain.end_of_turn(), Some(1), "another template, another end");
        let refusing = plain.with_chat_template("{{ raise_exception('no') }}").unwrap();
        assert_eq!(refusing.end_of_turn(), Some(1));
    }

    #[test]
    fn a_document_begins_as_the_tokenizer_begins_one_and_once() {
        let mut file: Value = serde_json::from_str(&words().inner.to_string(false).unwrap()).unwrap();
        file["post_processor"] = json!({"type": "TemplateProcessing",
            "single": [{"SpecialToken": {"id": "<end>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
            "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
            "special_tokens": {"<end>": {"id": "<end>", "ids": [1], "tokens": ["<end>"]}}});
        let begun = Tokenizer::from_json(&file.to_string(), Map::new()).unwrap();
        assert_eq!(begun.encode_document("one two").unwrap(), [1, 2, 3]);
        assert_eq!(begun.encode_document("<end> one two").unwrap(), [1, 2, 3], "it has its beginning");
        assert_eq!(begun.encode("one two").unwrap(), [2, 3], "a chat template writes its own");
        let asked = [Message { role: Role::User, content: "one".into() }];
        let chat = |tokenizer: Tokenizer, source| tokenizer.with_built_in_template(source).unwrap();
        for (name, source) in CHAT_TEMPLATES {
            let plain = chat(words(), source);
            let begun = chat(Tokenizer::from_json(&file.to_string(), Map::new()).unwrap(), source);
            let tokens = [&[1][..], &plain.encode_chat(&asked).unwrap()[..]].concat();
            assert_eq!(begun.encode_chat(&asked).unwrap(), tokens, "{name}");
            let saved = tempfile::tempdir().unwrap();
            begun.save(saved.path()).unwrap();
            assert_eq!(Tokenizer::load(saved.path()).unwrap().encode_chat(&asked).unwrap(), tokens, "{name}");
        }
        assert_eq!(words().encode_document("one two").unwrap(), [2, 3]);
    }

    #[test]
    fn a_vocabulary_too_small_for_the_tokenizer_is_an_error() {
        assert!(words().check(5).is_ok() && words().check(64).is_ok());
        assert!(words().check(4).unwrap_err().to_string().contains("`user:` with id 4"));
    }

    #[test]
    fn a_missing_template_and_a_broken_tokenizer_say_what_to_do() {
        let dir = tempfile::tempdir().unwrap();
        assert!(Tokenizer::load(dir.path()).unwrap_err().to_string().contains("tokenizer.json"));
        words().save(dir.path()).unwrap();
        std::fs::write(dir.path().join(TOKENIZER_CONFIG), "{}").unwrap();
        let folder = Location::from(dir.path());
        assert!(!Tokenizer::has_chat_template_in(&folder).unwrap());
        let error = Tokenizer::load(dir.path()).unwrap().render(&[], true).unwrap_err();
        assert!(error.render(false).contains("chat_template.jinja"));
        std::fs::write(dir.path().join(TOKENIZER), "{}").unwrap();
        assert!(Tokenizer::load(dir.path()).is_err());
    }
}
