//! What to read and how: a table of a prompts stage's `sources`.

use std::fmt;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::ask::Ask;
use super::column_ref::ColumnRef;
use super::layout::Layout;
use crate::language::normalise_tag;
use crate::{Error, Result};

/// One source of prompts: files, their layout, and what to say of rows that do not.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SourceConfig {
    /// A file, a folder (its data files, in name order), or a pattern with `*`, `?` and `**`; or a list of these.
    /// Local, or in an object store.
    #[serde(alias = "paths")]
    pub path: Paths,
    /// Name of the source in every row; the first file's stem if absent.
    #[serde(default)]
    pub name: Option<String>,
    /// SPDX licence id of rows that name none.
    #[serde(default)]
    pub license: Option<String>,
    /// Domain of rows that name none; by default what the layout implies, else what they are checked by: `code` with tests,
    /// `stem` with options, `math` with a gold answer, `general` with none of these.
    #[serde(default)]
    pub domain: Option<String>,
    /// Language of rows that name none; by default it is detected.
    #[serde(default)]
    pub language: Option<String>,
    /// A system turn put before conversations that have none.
    #[serde(default)]
    pub system: Option<String>,
    /// The last user turn, with a place for the question; see [`Ask`].
    #[serde(default)]
    pub ask: Option<Ask>,
    /// By default told from the file's content, then its name.
    #[serde(default)]
    pub format: Format,
    /// The key of a JSON document under which the rows are; needed where several lists could be meant.
    #[serde(default)]
    pub field: Option<String>,
    /// By default told from the columns of each file's first good row.
    #[serde(default)]
    pub layout: Layout,
    /// Columns that the layout does not find by itself; each wins over the layout.
    #[serde(default)]
    pub columns: Mapping,
    /// What a faulty row does.
    #[serde(default)]
    pub on_error: OnError,
    /// Which of the remaining columns are kept in `extra`.
    #[serde(default)]
    pub extra: Extra,
    /// Stop after this many rows.
    #[serde(default)]
    pub limit: Option<u64>,
}

impl SourceConfig {
    /// A source with defaults for everything but its path.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        SourceConfig {
            path: Paths::One(path.into()),
            name: None,
            license: None,
            domain: None,
            language: None,
            system: None,
            ask: None,
            format: Format::Auto,
            field: None,
            layout: Layout::Auto,
            columns: Mapping::default(),
            on_error: OnError::Stop,
            extra: Extra::default(),
            limit: None,
        }
    }

    /// # Errors
    /// It names no file, or a language that is no tag.
    pub fn check(&self) -> Result<()> {
        if self.path.as_slice().iter().all(|path| path.as_os_str().is_empty()) {
            let error = Error::usage("the source names no file");
            return Err(error.hint("give it one: `path = \"prompts.jsonl\"`"));
        }
        match &self.language {
            Some(tag) if normalise_tag(tag).is_none() => {
                let error = Error::usage(format!("`{tag}` is no language tag"));
                Err(error.hint("write a BCP 47 tag such as `en`, `fr` or `zh`"))
            }
            _ => Ok(()),
        }
    }
}

/// One path or several.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Paths {
    /// Written as a text.
    One(PathBuf),
    /// Written as a list; read in its order.
    Many(Vec<PathBuf>),
}

impl Paths {
    pub(super) fn as_slice(&self) -> &[PathBuf] {
        match self {
            Paths::One(path) => std::slice::from_ref(path),
            Paths::Many(paths) => paths,
        }
    }
}

/// The encoding of a file, compression aside.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// Told from the content, then from the name.
    #[default]
    Auto,
    /// One JSON object a line.
    Jsonl,
    /// One array of objects, or an object that holds the rows.
    Json,
    /// Comma-separated, the first line naming the columns.
    Csv,
    /// As `csv`, with tabs.
    Tsv,
    /// A Parquet file of any columns; nested ones are read as JSON.
    Parquet,
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Format::Auto => "auto",
            Format::Jsonl => "jsonl",
            Format::Json => "json",
            Format::Csv => "csv",
            Format::Tsv => "tsv",
            Format::Parquet => "parquet",
        })
    }
}

/// What a row that cannot be read does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnError {
    /// Stops the stage, with file and line.
    #[default]
    #[serde(alias = "error")]
    Stop,
    /// Leaves the row out and counts it by reason; the first places are kept.
    Skip,
}

/// Which columns that nothing else reads go to a prompt's `extra`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Extra {
    /// All of them, or none.
    All(bool),
    /// These only.
    Only(Vec<String>),
}

impl Default for Extra {
    fn default() -> Self {
        Extra::All(true)
    }
}

/// Column names by meaning. Unset ones are found by the layout.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Mapping {
    /// The question, as text or as a list of turns.
    pub prompt: Option<ColumnRef>,
    /// The whole conversation; a trailing assistant turn becomes the solution.
    pub messages: Option<ColumnRef>,
    /// The system turn.
    pub system: Option<ColumnRef>,
    /// The reference answer; a text with `####` is cut there into solution and answer.
    pub gold: Option<ColumnRef>,
    /// A worked solution or chain of thought.
    pub solution: Option<ColumnRef>,
    /// Stored as JSON.
    pub verification: Option<ColumnRef>,
    /// In lower case; of a list or a path its first part.
    pub domain: Option<ColumnRef>,
    /// A BCP 47 tag; another word counts as absent.
    pub language: Option<ColumnRef>,
    /// A number from 0 to 1.
    pub difficulty: Option<ColumnRef>,
    /// Name of the data source, instead of the recipe's.
    pub source: Option<ColumnRef>,
    /// SPDX licence id, instead of the recipe's.
    pub license: Option<ColumnRef>,
    /// The source's own row id: duplicates are counted, the value is kept in `extra`.
    pub id: Option<ColumnRef>,
}

impl Mapping {
    /// These columns, and where they name none those of our own dataset of prompts.
    pub fn or_of_prompts(&self) -> Mapping {
        let or =
            |column: &Option<ColumnRef>, name: &str| column.clone().or_else(|| Some(ColumnRef::Path(name.to_owned())));
        Mapping {
            prompt: self.prompt.clone(),
            messages: if self.prompt.is_some() { self.messages.clone() } else { or(&self.messages, "messages") },
            system: self.system.clone(),
            gold: or(&self.gold, "gold"),
            solution: or(&self.solution, "solution"),
            verification: or(&self.verification, "verification"),
            domain: or(&self.domain, "domain"),
            language: or(&self.language, "language"),
            difficulty: or(&self.difficulty, "difficulty"),
            source: or(&self.source, "source"),
            license: or(&self.license, "license"),
            id: self.id.clone(),
        }
    }

    /// Each key and the column it names.
    pub fn entries(&self) -> impl Iterator<Item = (&'static str, &ColumnRef)> {
        let Mapping {
            prompt,
            messages,
            system,
            gold,
            solution,
            verification,
            domain,
            language,
            difficulty,
            source,
            license,
            id,
        } = self;
        let all = [
            ("prompt", prompt),
            ("messages", messages),
            ("system", system),
            ("gold", gold),
            ("solution", solution),
            ("verification", verification),
            ("domain", domain),
            ("language", language),
            ("difficulty", difficulty),
            ("source", source),
            ("license", license),
            ("id", id),
        ];
        all.into_iter().filter_map(|(key, column)| Some((key, column.as_ref()?)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mapping_reads_paths_constants_and_dotted_names() {
        let mapping: Mapping = toml::from_str(
            "prompt = 'turns.0.text'\ngold = 'reward_model.ground_truth'\ndomain = '= \"math\"'\nsource = 'meta.name'\nlicense = '= MIT'",
        )
        .unwrap();
        let row = serde_json::json!({
            "turns": [{"text": "1+1?"}], "reward_model": {"ground_truth": "2"}, "meta.name": "flat", "meta": {"name": "nested"},
        });
        let row = row.as_object().unwrap();
        let get = |column: &Option<ColumnRef>| column.as_ref().unwrap().get(row).unwrap().as_str().unwrap().to_owned();
        assert_eq!(get(&mapping.prompt), "1+1?");
        assert_eq!(get(&mapping.gold), "2");
        assert_eq!(get(&mapping.domain), "math");
        assert_eq!(get(&mapping.source), "flat");
        assert_eq!(get(&mapping.license), "MIT");
    }

    #[test]
    fn unknown_keys_and_empty_columns_are_refused() {
        assert!(toml::from_str::<Mapping>("question = 'q'").unwrap_err().to_string().contains("unknown field"));
        assert!(toml::from_str::<Mapping>("prompt = ''").unwrap_err().to_string().contains("must not be empty"));
        assert!(toml::from_str::<SourceConfig>("path = 'a'\nonerror = 'skip'").is_err());
    }

    #[test]
    fn a_source_has_defaults_for_all_but_its_path() {
        let source: SourceConfig = toml::from_str("path = ['a.jsonl', 'b.jsonl']\non_error = 'skip'").unwrap();
        assert_eq!(source.path.as_slice().len(), 2);
        assert_eq!(source.on_error, OnError::Skip);
        assert_eq!(toml::from_str::<SourceConfig>("path = 'a'").unwrap(), SourceConfig::new("a"));
    }
}
