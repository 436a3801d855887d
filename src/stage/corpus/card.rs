//! The dataset card: what is in a corpus and how it was made, in the hub's README form.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

use arrow::array::{Array, AsArray, RecordBatch};

use super::CorpusConfig;
use super::choose::Choice;
use crate::error::Result;
use crate::schema::{BatchExt, ColumnType, DatasetKind};
use crate::stage::{StageContext, StageOutcome};

/// Sums over the rows of a corpus.
#[derive(Default)]
pub struct Statistics {
    rows: BTreeMap<(String, String, String), Sums>,
    sources: BTreeMap<(String, String), u64>,
    models: BTreeMap<(String, String), u64>,
    rules: BTreeSet<String>,
    sampling: BTreeSet<String>,
}

#[derive(Default)]
struct Sums {
    rows: u64,
    /// Rows whose engine told their tokens, and those tokens.
    counted: u64,
    tokens: u64,
    characters: u64,
}

impl Statistics {
    /// Counts the rows of a batch of the corpus's columns.
    ///
    /// # Errors
    /// A missing column.
    pub fn add(&mut self, batch: &RecordBatch) -> Result<()> {
        let text = |name: &str| batch.text(name);
        let (tracks, domains, languages) = (text("track")?, text("domain")?, text("language")?);
        let (sources, licenses) = (text("source")?, text("license")?);
        let (models, digests) = (text("model")?, text("model_digest")?);
        let (rules, sampling) = (text("rules_digest")?, text("sampling")?);
        let tokens = batch.u32("completion_tokens")?;
        let messages = batch.list("messages")?;
        let contents = messages.values().as_struct().column(1).as_string::<i32>();
        // Neighbours are alike: names are looked up once for a run of rows that share them all.
        let names = |row: usize| {
            let license = if licenses.is_valid(row) { licenses.value(row) } else { "not stated" };
            let of_row = [tracks, domains, languages, sources, models, digests, rules, sampling].map(|c| c.value(row));
            (of_row, license)
        };
        let mut start = 0;
        while start < batch.num_rows() {
            let same = names(start);
            let end = (start + 1..batch.num_rows()).find(|&row| names(row) != same).unwrap_or(batch.num_rows());
            let ([track, domain, language, source, model, digest, rules, sampling], license) = same;
            let n = (end - start) as u64;
            let sums = self.rows.entry((track.to_owned(), domain.to_owned(), language.to_owned())).or_default();
            sums.rows += n;
            for row in (start..end).filter(|&row| tokens.is_valid(row)) {
                sums.counted += 1;
                sums.tokens += u64::from(tokens.value(row));
            }
            // The last turn is the answer.
            let answers =
                messages.value_offsets()[start + 1..=end].iter().map(|&next| contents.value(next as usize - 1));
            sums.characters += answers.map(|answer| answer.chars().count() as u64).sum::<u64>();
            *self.sources.entry((source.to_owned(), license.to_owned())).or_default() += n;
            *self.models.entry((model.to_owned(), digest.to_owned())).or_default() += n;
            if !rules.is_empty() {
                self.rules.insert(rules.to_owned());
            }
            self.sampling.insert(sampling.to_owned());
            start = end;
        }
        Ok(())
    }

    pub fn completion_tokens(&self) -> u64 {
        self.rows.values().map(|s| s.tokens).sum()
    }
}

/// The card's file.
pub(super) const CARD: &str = "README.md";

/// Writes the card into the stage's folder.
pub fn write(
    cx: &StageContext<'_>,
    config: &CorpusConfig,
    choice: &Choice,
    statistics: &Statistics,
    outcome: &StageOutcome,
) -> Result<()> {
    let text = render(cx.name, cx.seed, config, choice, statistics, outcome);
    cx.folder.join(CARD).write(text.into_bytes())
}

fn render(
    name: &str,
    seed: u64,
    config: &CorpusConfig,
    choice: &Choice,
    statistics: &Statistics,
    outcome: &StageOutcome,
) -> String {
    let title = config.title.as_deref().unwrap_or(name);
    let mut out = front_matter(choice, statistics, outcome);
    // Writing into a String cannot fail.
    let _ = writeln!(out, "# {title}\n");
    if let Some(description) = &config.description {
        let _ = writeln!(out, "{description}\n");
    }
    let _ = writeln!(
        out,
        "Made by gristmill {} with seed {seed}. {} rows for training, {} for validation; no question is in both.\n",
        env!("CARGO_PKG_VERSION"),
        choice.train,
        choice.validation
    );
    out += "## Rows\n\n| track | domain | language | rows | mean tokens | mean characters |\n|---|---|---|---:|---:|---:|\n";
    for ((track, domain, language), sums) in &statistics.rows {
        let mean = |sum: u64, n: u64| if n == 0 { "".to_owned() } else { format!("{:.1}", sum as f64 / n as f64) };
        let (tokens, characters) = (mean(sums.tokens, sums.counted), mean(sums.characters, sums.rows));
        let [track, domain, language] = [track, domain, language].map(|text| cell(text));
        let _ = writeln!(out, "| {track} | {domain} | {language} | {} | {tokens} | {characters} |", sums.rows);
    }
    out += "\n## Quotas\n\n| track | domain | wanted | got | short |\n|---|---|---:|---:|---:|\n";
    for quota in &choice.quotas {
        let domain = quota.domain.as_deref().unwrap_or("all");
        let (wanted, short) = match quota.wanted {
            Some(wanted) => (wanted.to_string(), (wanted - quota.got).to_string()),
            None => ("all".to_owned(), "0".to_owned()),
        };
        let (track, domain) = (cell(&quota.track), cell(domain));
        let _ = writeln!(out, "| {track} | {domain} | {wanted} | {} | {short} |", quota.got);
    }
    out += "\n## Left out\n\n";
    if outcome.drops.is_empty() {
        out += "Nothing.\n";
    }
    for (reason, n) in &outcome.drops {
        let _ = writeln!(out, "- {reason}: {n}");
    }
    out += "\n## Sources\n\n| source | licence | rows |\n|---|---|---:|\n";
    for ((source, license), n) in &statistics.sources {
        let _ = writeln!(out, "| {} | {} | {n} |", cell(source), cell(license));
    }
    out += "\n## Models\n\n| model | digest | rows |\n|---|---|---:|\n";
    for ((model, digest), n) in &statistics.models {
        let _ = writeln!(out, "| {} | `{digest}` | {n} |", cell(model));
    }
    out += "\n## Rules and sampling\n\n";
    for digest in &statistics.rules {
        let _ = writeln!(out, "- rules `{digest}`");
    }
    for sampling in &statistics.sampling {
        let _ = match sampling.as_str() {
            "{}" => writeln!(out, "- sampling not recorded"),
            sampling => writeln!(out, "- sampling `{sampling}`"),
        };
    }
    out += "\n## Columns\n\n";
    for column in DatasetKind::Corpus.columns() {
        let _ = writeln!(out, "- `{}`: {}", column.name, column.doc());
    }
    out
}

/// A text within a table.
fn cell(text: &str) -> String {
    text.replace('\\', "\\\\").replace('|', "\\|").replace(['\n', '\r'], " ")
}

/// A text as a YAML scalar: what JSON quotes, YAML reads.
fn yaml(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

/// The YAML that the hub and `datasets` read: files of each split, and the features.
fn front_matter(choice: &Choice, statistics: &Statistics, outcome: &StageOutcome) -> String {
    let mut out = String::from("---\n");
    let licenses: BTreeSet<String> = statistics.sources.keys().map(|(_, license)| license.to_lowercase()).collect();
    let mut single = licenses.iter();
    if let (Some(license), None) = (single.next(), single.next())
        && license != "not stated"
    {
        // The hub knows a list of short names; whatever else a licence is called stands beside `other`.
        let is_short = license.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '+'));
        let _ = match is_short && license.contains(|c: char| c.is_ascii_alphabetic()) {
            true => writeln!(out, "license: {}", yaml(license)),
            false => writeln!(out, "license: other\nlicense_name: {}", yaml(license)),
        };
    }
    let languages: BTreeSet<&str> =
        statistics.rows.keys().map(|(_, _, l)| l.as_str()).filter(|l| *l != "und").collect();
    if !languages.is_empty() {
        out += "language:\n";
        for language in languages {
            let _ = writeln!(out, "- {}", yaml(language));
        }
    }
    out += "configs:\n- config_name: default\n  data_files:\n";
    for (split, rows) in [("train", choice.train), ("validation", choice.validation)] {
        if rows > 0 || split == "train" {
            let _ = writeln!(out, "  - split: {split}\n    path: data/{split}-*");
        }
    }
    out += "dataset_info:\n  features:\n";
    for column in DatasetKind::Corpus.columns() {
        let dtype = match column.column_type {
            ColumnType::U32 => "uint32",
            ColumnType::U64 => "uint64",
            ColumnType::F64 => "float64",
            ColumnType::Messages => {
                let _ = writeln!(
                    out,
                    "  - name: {}\n    list:\n    - name: role\n      dtype: string\n    - name: content\n      dtype: string",
                    column.name
                );
                continue;
            }
            _ => "string",
        };
        let _ = writeln!(out, "  - name: {}\n    dtype: {dtype}", column.name);
    }
    out += "  splits:\n";
    for (split, rows) in [("train", choice.train), ("validation", choice.validation)] {
        if rows > 0 || split == "train" {
            let prefix = format!("data/{split}-");
            let bytes: u64 = outcome.shards.iter().filter(|s| s.file.starts_with(&prefix)).map(|s| s.bytes).sum();
            let _ = writeln!(out, "  - name: {split}\n    num_examples: {rows}\n    num_bytes: {bytes}");
        }
    }
    out + "---\n\n"
}
