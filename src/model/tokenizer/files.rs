//! The files of a model's folder that a tokenizer is read from and written to.

use std::path::Path;

use serde_json::{Map, Value};

use super::{Tokenizer, parse};
use crate::error::{Context, Error, Result};
use crate::model::chat_template::ChatTemplate;
use crate::model::json_object::read_object;
use crate::store::Location;

pub(super) const TOKENIZER: &str = "tokenizer.json";
pub(super) const TOKENIZER_CONFIG: &str = "tokenizer_config.json";
/// Where special tokens were before `tokenizer_config.json` had them too.
pub(super) const SPECIAL_TOKENS: &str = "special_tokens_map.json";
const TEMPLATE: &str = "chat_template.jinja";

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
}

/// The template in `tokenizer_config.json`: a string, or the one named `default` of a list.
pub(super) fn template_of(config: &Map<String, Value>) -> Option<String> {
    match config.get("chat_template")? {
        Value::String(source) => Some(source.clone()),
        Value::Array(templates) => {
            let default = templates.iter().find(|t| t.get("name").and_then(Value::as_str) == Some("default"));
            Some(default.or(templates.first())?.get("template")?.as_str()?.to_owned())
        }
        _ => None,
    }
}
