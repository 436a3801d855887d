//! What a row says of itself beside question and answer: difficulty, domain, source, language.

use serde_json::Value;

use super::Layout;
use super::cells::{Cells, find, plain};
use crate::language::normalise_tag;
use crate::prompts::column_ref::ColumnRef;
use crate::prompts::read::Fault;
use crate::prompts::source::SourceConfig;
use crate::rule::code::is_language;

const LANGUAGE: &[&str] = &["language", "lang", "locale"];
const SOURCE: &[&str] = &["source", "data_source"];
/// A `source` column that holds longer texts holds something else.
const MAX_SOURCE_BYTES: usize = 200;

/// 0 to 1: the mapped column, else a `difficulty` column in range, else MATH's level 1–5 as (level − 1) / 4.
pub(super) fn difficulty(cells: &mut Cells<'_>, layout: Layout, config: &SourceConfig) -> Result<Option<f64>, Fault> {
    let number = |value: &Value| value.as_f64().or_else(|| value.as_str()?.trim().parse().ok());
    let level = |value: &Value| {
        let level = number(value).or_else(|| value.as_str()?.trim().strip_prefix("Level")?.trim().parse().ok())?;
        (1.0..=5.0).contains(&level).then_some((level - 1.0) / 4.0)
    };
    if config.columns.difficulty.is_some() {
        let Some((name, value)) = cells.mapped_named(&config.columns.difficulty) else { return Ok(None) };
        let leveled = value.as_str().is_some_and(|text| text.trim().starts_with("Level"));
        let found = if leveled { level(value) } else { number(value).filter(|x| (0.0..=1.0).contains(x)) };
        return found.map(Some).ok_or_else(|| {
            let message = format!("a difficulty must be a number from 0 to 1, this is {value}");
            Fault::new(cells.row.place, "bad_difficulty", message).in_field(name)
        });
    }
    if let Some((name, value)) = find(&cells.row.columns, &["difficulty"])
        && let Some(x) = number(value).filter(|x| (0.0..=1.0).contains(x))
    {
        cells.used.push(name.to_owned());
        return Ok(Some(x));
    }
    // The level stays in `extra` as well: it is the source's own word.
    Ok(if layout == Layout::Math {
        find(&cells.row.columns, &["level"]).and_then(|(_, value)| level(value))
    } else {
        None
    })
}

/// The domain in lower case. Of a list or a path (Big-Math's `["Mathematics -> Algebra"]`) its first part; the whole
/// then stays in `extra`.
pub(super) fn domain(cells: &mut Cells<'_>, layout: Layout, column: &Option<ColumnRef>) -> Option<String> {
    let names: &[&str] = if layout == Layout::Verl { &["domain", "ability"] } else { &["domain"] };
    let read = cells.used.len();
    let value = if column.is_some() { cells.mapped(column).cloned() } else { cells.find(names).cloned() };
    let (text, is_part) = match value? {
        Value::Array(list) => (plain(list.first()?), true),
        value => (plain(&value), false),
    };
    let first = text.split("->").next().unwrap_or("").trim().to_lowercase();
    if is_part || first.len() < text.trim().len() {
        cells.used.truncate(read);
    }
    let domain = if matches!(first.as_str(), "mathematics" | "maths") { "math".to_owned() } else { first };
    (!domain.is_empty()).then_some(domain)
}

/// The row's own word for where it comes from; several are joined with commas.
pub(super) fn source(cells: &mut Cells<'_>, column: &Option<ColumnRef>) -> Option<String> {
    if column.is_some() {
        return cells.text(column, &[]);
    }
    let (name, value) = find(&cells.row.columns, SOURCE)?;
    let text = match value {
        Value::String(text) => text.trim().to_owned(),
        Value::Array(list) => list.iter().map(Value::as_str).collect::<Option<Vec<_>>>()?.join(","),
        _ => return None,
    };
    if text.is_empty() || text.len() > MAX_SOURCE_BYTES || text.contains('\n') {
        return None;
    }
    cells.used.push(name.to_owned());
    Some(text)
}

/// The tag of the question's language. A `language` column that names another kind (`python`, `cpp`) stays in `extra`.
pub(super) fn language(cells: &mut Cells<'_>, column: &Option<ColumnRef>) -> Option<String> {
    let read = cells.used.len();
    let text = cells.text(column, LANGUAGE).filter(|text| column.is_some() || !is_language(text));
    let tag = text.and_then(|text| normalise_tag(&text));
    if tag.is_none() {
        cells.used.truncate(read);
    }
    tag
}
