//! `chat_template = "…"` beside a model: how it is shown conversations, where it does not say so itself.

use std::path::Path;

use crate::error::{Context, Error, Result};
use crate::model::{CHAT_TEMPLATES, Tokenizer};
use crate::recipe::Base;
use crate::store::local_file;

/// The Jinja of a template.
enum Found {
    File(String),
    BuiltIn(&'static str),
}

/// The template of a name: a file of that path, or a built-in one if there is no such file.
fn find(template: &str, base: &Base) -> Result<Found> {
    let path = local_file(&base.resolve(template))?;
    if Path::new(&path).exists() {
        let read = std::fs::read_to_string(&path).or_fail(|| "the chat template cannot be read".into());
        return read.map(Found::File).map_err(|e| e.in_file(&path));
    }
    let named = CHAT_TEMPLATES.iter().find(|(name, _)| *name == template);
    named.map(|(_, source)| Found::BuiltIn(source)).ok_or_else(|| {
        let names: Vec<&str> = CHAT_TEMPLATES.iter().map(|(name, _)| *name).collect();
        Error::usage(format!("there is no chat template `{path}`"))
            .hint(format!("give a file of Jinja, or a built-in template's name: {}", names.join(", ")))
    })
}

/// The Jinja of a template: a file of that path, or a built-in one of that name if there is no such file.
///
/// # Errors
/// Neither is there, or the file cannot be read.
pub fn source(template: &str, base: &Base) -> Result<String> {
    Ok(match find(template, base)? {
        Found::File(source) => source,
        Found::BuiltIn(source) => source.to_owned(),
    })
}

/// What the output depends on, as [`super::Stage::materials`] has it.
///
/// # Errors
/// As [`source`].
pub fn material(template: &str, base: &Base) -> Result<(String, String)> {
    let source = source(template, base)?;
    Ok(("chat template".to_owned(), blake3::hash(source.as_bytes()).to_hex().to_string()))
}

/// The tokenizer of the model in a folder, with this chat template if one is given.
///
/// # Errors
/// No tokenizer, or a template that cannot be read or does not parse.
pub fn tokenizer(folder: &Path, template: Option<&str>, base: &Base) -> Result<Tokenizer> {
    with_template(Tokenizer::load(folder)?, template, base)
}

/// The tokenizer with this chat template if one is given.
///
/// # Errors
/// A template that cannot be read or does not parse.
pub fn with_template(tokenizer: Tokenizer, template: Option<&str>, base: &Base) -> Result<Tokenizer> {
    let Some(template) = template else { return Ok(tokenizer) };
    let context = |e: Error| e.context(format!("the chat template `{template}`"));
    match find(template, base)? {
        Found::File(source) => tokenizer.with_chat_template(&source).map_err(context),
        Found::BuiltIn(source) => tokenizer.with_built_in_template(source).map_err(context),
    }
}
