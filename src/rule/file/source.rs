//! The texts of a rule file and of those it extends, in one span space.
//!
//! Every text is parsed behind as many spaces as the texts before it have bytes,
//! so a span alone says which file it is in, also after tables of several files
//! have been merged.

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use toml::de::{DeTable, DeValue};

use crate::error::{Error, Result, nearest};

/// Largest rule file in bytes.
const MAX_BYTES: usize = 1 << 20;
/// Longest chain of `extends`.
const MAX_CHAIN: usize = 8;

/// Rule files inside the binary: name and text.
pub const BUILTIN: &[(&str, &str)] = &[
    ("r1_zero", include_str!("../../../rules/r1_zero.toml")),
    ("r1", include_str!("../../../rules/r1.toml")),
    ("rejection", include_str!("../../../rules/rejection.toml")),
    ("rejection_zero", include_str!("../../../rules/rejection_zero.toml")),
    ("general", include_str!("../../../rules/general.toml")),
    ("code", include_str!("../../../rules/code.toml")),
    ("math", include_str!("../../../rules/math.toml")),
    ("strict_math", include_str!("../../../rules/strict_math.toml")),
    ("instruction_following", include_str!("../../../rules/instruction_following.toml")),
    ("r1_mini", include_str!("../../../rules/r1_mini.toml")),
    ("r1_mini_zero", include_str!("../../../rules/r1_mini_zero.toml")),
];

/// One file, behind its padding.
pub(super) struct Source {
    pub name: String,
    pub text: Arc<str>,
    pub padded: String,
}

/// The chain of files, the outermost base first.
pub(super) struct Sources(pub Vec<Source>);

impl Sources {
    /// Reads `text` and, behind it, everything it extends.
    pub fn collect(text: &str, name: &str, folder: Option<&Path>) -> Result<Self> {
        let mut chain: Vec<(String, Arc<str>)> = Vec::new();
        let mut folder = folder.map(Path::to_path_buf);
        let mut next = Some((name.to_owned(), Arc::<str>::from(text)));
        while let Some((name, text)) = next.take() {
            if text.len() > MAX_BYTES {
                let message = format!("a rule file may have {MAX_BYTES} bytes; this one has {}", text.len());
                return Err(Error::usage(message).in_file(name));
            }
            let table = parse(&text, &text, 0).map_err(|error| error.in_file(&name))?;
            let base = match table.get("extends").map(|value| (value.get_ref(), value.span())) {
                None => None,
                Some((DeValue::String(base), span)) => Some((base.to_string(), span)),
                Some((_, span)) => {
                    return Err(Error::usage("`extends` takes a rule file's path or a built-in name")
                        .in_file(&name)
                        .at_span(text.clone(), span));
                }
            };
            if let Some((base, span)) = base {
                let at = |error: Error| error.in_file(&name).at_span(text.clone(), span.clone());
                if chain.len() + 1 >= MAX_CHAIN {
                    return Err(at(Error::usage(format!("rule files extend each other more than {MAX_CHAIN} deep"))));
                }
                let (base_name, base_text, base_folder) = open(&base, folder.as_deref()).map_err(&at)?;
                if base_name == name || chain.iter().any(|(seen, _)| *seen == base_name) {
                    return Err(at(Error::usage(format!("`{base_name}` extends itself"))));
                }
                folder = base_folder;
                next = Some((base_name, base_text.into()));
            }
            chain.push((name, text));
        }
        chain.reverse();
        let mut offset = 0;
        let sources = chain
            .into_iter()
            .map(|(name, text)| {
                let padded = format!("{}{text}", " ".repeat(offset));
                offset = padded.len() + 1;
                Source { name, text, padded }
            })
            .collect();
        Ok(Sources(sources))
    }

    /// Puts an error where `span` of the common space is.
    pub fn place(&self, error: Error, span: Range<usize>) -> Error {
        match self.0.iter().find(|source| span.start <= source.padded.len()) {
            None => error,
            Some(source) => {
                let offset = source.padded.len() - source.text.len();
                let start = span.start.saturating_sub(offset);
                let end = span.end.saturating_sub(offset).max(start);
                error.in_file(&source.name).at_span(source.text.clone(), start..end)
            }
        }
    }

    /// The text at `span`, for finding places inside a string.
    pub fn text(&self, span: Range<usize>) -> &str {
        self.0.iter().find(|source| span.start <= source.padded.len()).and_then(|s| s.padded.get(span)).unwrap_or("")
    }
}

/// Parses one text; `plain` is the text to show, `offset` the padding before it in `padded`.
pub(super) fn parse<'a>(padded: &'a str, plain: &Arc<str>, offset: usize) -> Result<DeTable<'a>> {
    DeTable::parse(padded).map(serde_spanned::Spanned::into_inner).map_err(|error| {
        let span = error.span().unwrap_or(0..0);
        Error::usage(error.message().trim().to_owned())
            .at_span(plain.clone(), span.start.saturating_sub(offset)..span.end.saturating_sub(offset))
    })
}

/// A rule file by path or built-in name: its name, text and folder.
pub(super) fn open(name: &str, folder: Option<&Path>) -> Result<(String, String, Option<PathBuf>)> {
    if let Some((builtin, text)) = BUILTIN.iter().find(|(builtin, _)| *builtin == name) {
        return Ok(((*builtin).to_owned(), (*text).to_owned(), None));
    }
    let path = folder.map_or_else(|| PathBuf::from(name), |folder| folder.join(name));
    let looks_like_name = !name.contains(['/', '\\', '.']);
    if looks_like_name && !path.exists() {
        let names = || BUILTIN.iter().map(|(builtin, _)| *builtin);
        let hint = match nearest(name, names()) {
            Some(near) => format!("did you mean `{near}`?"),
            None => format!("built-in rule files: {}", names().collect::<Vec<_>>().join(", ")),
        };
        return Err(Error::usage(format!("there is no rule file `{name}`")).hint(hint));
    }
    let unread = |error: std::io::Error| {
        let names: Vec<&str> = BUILTIN.iter().map(|(builtin, _)| *builtin).collect();
        Error::usage(format!("cannot read the rule file {}", path.display()))
            .caused_by(error)
            .hint(format!("give the path of a rule file, or a built-in one's name: {}", names.join(", ")))
    };
    let bytes = std::fs::metadata(&path).map_err(unread)?.len();
    if bytes > MAX_BYTES as u64 {
        return Err(Error::usage(format!("a rule file may have {MAX_BYTES} bytes; this one has {bytes}"))
            .in_file(path.display()));
    }
    let text = std::fs::read_to_string(&path).map_err(unread)?;
    let folder = path.parent().map(Path::to_path_buf);
    Ok((path.display().to_string(), text, folder))
}
