//! Rows to prompts: the layouts of the field, told apart by their columns.
//!
//! A layout only says where to look; every reading can be overridden by the
//! source's `columns`. Names are looked up without regard to case.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::gold::{Gold, last_boxed, split_marked, strip_calculator};
use super::language::normalise_tag;
use super::messages;
use super::read::{Fault, Row, kind};
use super::source::{ColumnRef, SourceConfig};
use crate::schema::{Message, Role};

/// Where a row keeps its question and answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Layout {
    /// Told from the columns of each file's first good row.
    #[default]
    Auto,
    /// `question`, `answer` with `#### gold` (Cobbe et al. 2021).
    Gsm8k,
    /// `problem`, `solution` with `\boxed{gold}`, `level`, `type` or `subject` (Hendrycks et al. 2021).
    Math,
    /// `messages` (role, content) or `conversations` (from, value).
    Chat,
    /// `problem`, `solution`, `answer`, and generations that stay in `extra`.
    #[serde(rename = "openr1_math", alias = "open_r1_math")]
    OpenR1Math,
    /// verl's RL rows: `data_source`, `prompt` (turns), `ability`, `reward_model.ground_truth`, `extra_info`.
    Verl,
    /// A question column and an answer column under any of the field's names.
    Columns,
}

/// What a row says, before the source's defaults.
#[derive(Clone, Debug, PartialEq)]
pub struct Draft {
    pub messages: Vec<Message>,
    pub gold: Gold,
    pub solution: Option<String>,
    /// JSON text.
    pub verification: Option<String>,
    pub domain: Option<String>,
    pub language: Option<String>,
    pub difficulty: Option<f64>,
    pub source: Option<String>,
    pub license: Option<String>,
    pub id: Option<String>,
    /// Top-level columns that were read and so do not go to `extra`.
    pub used: Vec<String>,
}

const PROMPT: &[&str] = &["problem", "question", "prompt", "query", "instruction", "input"];
const GOLD: &[&str] = &[
    "answer",
    "final_answer",
    "expected_answer",
    "gold",
    "gold_answer",
    "ground_truth",
    "reference_answer",
    "target",
    "gt",
    "gold_standard_solution",
    "label",
];
const SOLUTION: &[&str] =
    &["solution", "reference_solution", "gold_solution", "worked_solution", "gt_cot", "rationale", "explanation"];
/// Read as the solution only where the row has no gold: elsewhere they hold a model's attempts.
const RESPONSE: &[&str] = &["output", "response", "completion"];
/// Text that a `question` column leans on (SVAMP, ASDiv, OlympiadBench).
const PREAMBLE: &[&str] = &["body", "context", "passage"];
const CHOICES: &[&str] = &["choices", "options"];
const CHAT: &[&str] = &["messages", "conversations", "conversation"];
const ID: &[&str] = &["id", "uuid", "unique_id", "problem_id", "question_id"];
const LANGUAGE: &[&str] = &["language", "lang", "locale"];

impl Layout {
    /// The layout these columns look like; [`Layout::Columns`] if no other.
    pub fn detect(row: &Map<String, Value>) -> Layout {
        let has = |name: &str| find(row, &[name]).is_some();
        let marked = |name: &str| find(row, &[name]).and_then(|(_, v)| v.as_str()).is_some_and(|t| t.contains("####"));
        if has("reward_model") && find(row, &["prompt"]).is_some_and(|(_, v)| v.is_array() || v.is_string()) {
            Layout::Verl
        } else if has("problem") && (has("generations") || has("correctness_math_verify")) {
            Layout::OpenR1Math
        } else if !has("problem") && !has("question") && find(row, CHAT).is_some() {
            Layout::Chat
        } else if has("question") && marked("answer") {
            Layout::Gsm8k
        } else if has("problem") && has("solution") && (has("level") || find(row, GOLD).is_none()) {
            Layout::Math
        } else {
            Layout::Columns
        }
    }

    fn domain(self) -> Option<&'static str> {
        matches!(self, Layout::Gsm8k | Layout::Math | Layout::OpenR1Math).then_some("math")
    }
}

/// Reads one row under a layout that is not [`Layout::Auto`].
pub fn draft(row: &Row, layout: Layout, config: &SourceConfig) -> Result<Draft, Fault> {
    let mut cells = Cells { row, used: Vec::new() };
    let map = &config.columns;
    let (mut messages, answered) = conversation(&mut cells, layout, config)?;
    let mut verification = cells.mapped(&map.verification).map(|value| match value {
        Value::String(text) if serde_json::from_str::<Value>(text).is_ok() => text.clone(),
        other => other.to_string(),
    });
    let mut solution = match cells.mapped(&map.solution) {
        Some(value) => text_list(value),
        None if map.solution.is_some() => None,
        None => answered.or_else(|| cells.find(SOLUTION).and_then(text_list)),
    };
    let mut gold = gold(&mut cells, layout, config, &mut solution, &mut verification);
    if gold == Gold::Missing("absent") && solution.is_none() && map.solution.is_none() && layout == Layout::Columns {
        solution = cells.find(RESPONSE).and_then(Value::as_str).map(str::to_owned);
    }
    if map.prompt.is_none() && map.messages.is_none() {
        add_choices(&mut cells, &mut messages, &mut gold, &mut verification);
    }
    let ability: &[&str] = if layout == Layout::Verl { &["domain", "ability"] } else { &["domain"] };
    let domain = cells.text(&map.domain, ability).map(|domain| domain.to_lowercase());
    let sources: &[&str] = if layout == Layout::Verl { &["data_source"] } else { &[] };
    Ok(Draft {
        gold,
        solution,
        verification,
        domain: domain.or_else(|| config.domain.clone()).or_else(|| layout.domain().map(str::to_owned)),
        language: language(&mut cells, &map.language),
        difficulty: difficulty(&mut cells, layout, config)?,
        source: cells.text(&map.source, sources),
        license: cells.text(&map.license, &["license", "licence"]),
        id: match &map.id {
            Some(column) => column.get(&row.columns).map(plain),
            None => find(&row.columns, ID).filter(|(_, value)| !value.is_null()).map(|(_, value)| plain(value)),
        },
        messages,
        used: cells.used,
    })
}

/// The turns to answer, and the assistant's turn that followed them.
fn conversation(
    cells: &mut Cells<'_>,
    layout: Layout,
    config: &SourceConfig,
) -> Result<(Vec<Message>, Option<String>), Fault> {
    let row = cells.row;
    let (map, chat) = (&config.columns, matches!(layout, Layout::Chat | Layout::Verl));
    let turns = if map.messages.is_some() {
        cells.mapped_named(&map.messages)
    } else if map.prompt.is_some() {
        cells.mapped_named(&map.prompt)
    } else if chat {
        cells.named(if layout == Layout::Verl { &["prompt"] } else { CHAT })
    } else {
        cells.named(PROMPT)
    };
    let Some((name, value)) = turns else {
        let columns: Vec<&str> = row.columns.keys().map(String::as_str).take(12).collect();
        let message = format!("no prompt in this row; its columns are {}", columns.join(", "));
        let hint = "name the column in the source: `columns = { prompt = \"…\" }`";
        return Err(Fault::new(row.place, "missing_prompt", message).hint(hint));
    };
    let is_turns = value.is_array() || (chat && map.prompt.is_none()) || map.messages.is_some();
    let (mut messages, answered) = match value {
        Value::String(text) if !is_turns || !text.trim_start().starts_with('[') => {
            let mut text = text.trim().to_owned();
            if text.is_empty() {
                return Err(Fault::new(row.place, "missing_prompt", "the prompt is empty").in_field(name));
            }
            if map.prompt.is_none() && name.eq_ignore_ascii_case("question") {
                if let Some(before) =
                    cells.find(PREAMBLE).and_then(Value::as_str).map(str::trim).filter(|t| !t.is_empty())
                {
                    // SVAMP leaves the full stop out.
                    let stop = if before.ends_with(|c: char| c.is_alphanumeric()) { "." } else { "" };
                    text = format!("{before}{stop} {text}");
                }
            } else if map.prompt.is_none()
                && name.eq_ignore_ascii_case("instruction")
                && let Some(input) = cells.find(&["input"]).and_then(Value::as_str).filter(|t| !t.trim().is_empty())
            {
                text = format!("{text}\n\n{}", input.trim());
            }
            (vec![Message { role: Role::User, content: text }], None)
        }
        value if is_turns => messages::parse(value)
            .and_then(messages::split)
            .map_err(|message| Fault::new(row.place, "bad_turns", message).in_field(&name))?,
        other => {
            let message = format!("the prompt must be text or a list of turns, it is {}", kind(other));
            return Err(Fault::new(row.place, "wrong_type", message).in_field(name));
        }
    };
    if !messages.iter().any(|m| m.role == Role::System) {
        let names: &[&str] = if chat { &["system"] } else { &[] };
        let system = cells.text(&map.system, names).or_else(|| config.system.clone());
        if let Some(content) = system.filter(|text| !text.trim().is_empty()) {
            messages.insert(0, Message { role: Role::System, content });
        }
    }
    Ok((messages, answered))
}

fn gold(
    cells: &mut Cells<'_>,
    layout: Layout,
    config: &SourceConfig,
    solution: &mut Option<String>,
    verification: &mut Option<String>,
) -> Gold {
    let value = if config.columns.gold.is_some() {
        cells.mapped(&config.columns.gold)
    } else if layout == Layout::Verl {
        cells.used.push("reward_model".to_owned());
        cells.row.columns.get("reward_model").and_then(|model| model.get("ground_truth"))
    } else {
        cells.find(GOLD)
    };
    let found = match value {
        None | Some(Value::Null) => Gold::Missing("absent"),
        Some(Value::String(text)) => match split_marked(text) {
            Some((worked, gold)) => {
                solution.get_or_insert_with(|| strip_calculator(worked));
                Gold::of_text(gold)
            }
            None if layout == Layout::Gsm8k => Gold::Missing("no_marker"),
            _ => Gold::of_text(text),
        },
        Some(Value::Object(object)) => match find(object, GOLD).and_then(|(_, value)| Gold::of_value(value)) {
            Some(gold) => {
                if object.keys().any(|key| !GOLD.iter().chain(SOLUTION).any(|name| key.eq_ignore_ascii_case(name))) {
                    verification.get_or_insert_with(|| Value::Object(object.clone()).to_string());
                }
                if solution.is_none() {
                    let worked = find(object, SOLUTION).and_then(|(_, value)| text_list(value));
                    *solution =
                        worked.map(|text| strip_calculator(split_marked(&text).map_or(&*text, |(worked, _)| worked)));
                }
                gold
            }
            // A countdown's numbers, a program's tests: nothing to compare with, something to check by.
            None => {
                verification.get_or_insert_with(|| Value::Object(object.clone()).to_string());
                Gold::Missing("absent")
            }
        },
        Some(value) => Gold::of_value(value).unwrap_or_else(|| {
            verification.get_or_insert_with(|| value.to_string());
            Gold::Missing("absent")
        }),
    };
    // An explicit `gold` that is absent stays absent; MATH keeps its gold in the solution's box.
    match (&found, solution) {
        (Gold::Missing("absent"), Some(worked)) if config.columns.gold.is_none() && layout == Layout::Math => {
            last_boxed(worked).map_or(Gold::Missing("no_box"), Gold::of_text)
        }
        _ => found,
    }
}

/// Multiple choice: the options join the question as `A. …` lines and the gold becomes a letter.
fn add_choices(cells: &mut Cells<'_>, messages: &mut [Message], gold: &mut Gold, verification: &mut Option<String>) {
    let Some((name, value)) = find(&cells.row.columns, CHOICES) else { return };
    let texts = value.get("text").unwrap_or(value);
    let options: Option<Vec<&str>> = match texts {
        Value::Array(list) => list.iter().map(Value::as_str).collect(),
        Value::Object(object) => object.values().map(Value::as_str).collect(),
        _ => None,
    };
    let Some(options) = options.filter(|options| (2..=26).contains(&options.len())) else { return };
    let Some(question) = messages.iter_mut().rev().find(|m| m.role == Role::User) else { return };
    cells.used.push(name.to_owned());
    let letter = |index: usize| char::from(b'A' + index as u8).to_string();
    for (index, option) in options.iter().enumerate() {
        question.content += &format!("\n{}. {}", letter(index), option.trim());
    }
    let numeric = find(&cells.row.columns, GOLD).is_some_and(|(_, value)| value.is_number());
    if let Gold::Answer(answer) = gold {
        let index = match answer.parse::<usize>() {
            Ok(index) if numeric && index < options.len() => Some(index),
            _ => options.iter().position(|option| option.trim() == answer),
        };
        if let Some(index) = index {
            *answer = letter(index);
        }
    }
    verification.get_or_insert_with(|| json!({ "choices": options }).to_string());
}

/// 0 to 1: the mapped column, else a `difficulty` column in range, else MATH's level 1–5 as (level − 1) / 4.
fn difficulty(cells: &mut Cells<'_>, layout: Layout, config: &SourceConfig) -> Result<Option<f64>, Fault> {
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

/// The tag of the question's language. A `language` column that names another kind (`python`) stays in `extra`.
fn language(cells: &mut Cells<'_>, column: &Option<ColumnRef>) -> Option<String> {
    let read = cells.used.len();
    let tag = cells.text(column, LANGUAGE).and_then(|text| normalise_tag(&text));
    if tag.is_none() {
        cells.used.truncate(read);
    }
    tag
}

/// A row's columns, and which of them were read.
struct Cells<'a> {
    row: &'a Row,
    used: Vec<String>,
}

impl<'a> Cells<'a> {
    /// The first of these columns that is there and not null.
    fn named(&mut self, names: &[&str]) -> Option<(String, &'a Value)> {
        let (name, value) = find(&self.row.columns, names)?;
        self.used.push(name.to_owned());
        Some((name.to_owned(), value))
    }

    fn find(&mut self, names: &[&str]) -> Option<&'a Value> {
        self.named(names).map(|(_, value)| value)
    }

    fn mapped_named<'c>(&mut self, column: &'c Option<ColumnRef>) -> Option<(String, &'c Value)>
    where
        'a: 'c,
    {
        let column = column.as_ref()?;
        let value = column.get(&self.row.columns)?;
        self.used.extend(column.column(&self.row.columns).map(str::to_owned));
        Some((column.to_string(), value))
    }

    fn mapped<'c>(&mut self, column: &'c Option<ColumnRef>) -> Option<&'c Value>
    where
        'a: 'c,
    {
        self.mapped_named(column).map(|(_, value)| value)
    }

    /// The mapped column's text, else that of the first named column with some.
    fn text(&mut self, column: &Option<ColumnRef>, names: &[&str]) -> Option<String> {
        let value = if column.is_some() { self.mapped(column).cloned() } else { self.find(names).cloned() };
        value.map(|value| plain(&value).trim().to_owned()).filter(|text| !text.is_empty())
    }
}

/// Looks names up in order of preference, case aside; null counts as absent.
fn find<'a>(row: &'a Map<String, Value>, names: &[&str]) -> Option<(&'a str, &'a Value)> {
    names.iter().find_map(|name| {
        let found = row.get_key_value(*name).or_else(|| row.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)));
        found.filter(|(_, value)| !value.is_null()).map(|(key, value)| (key.as_str(), value))
    })
}

fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// Text, or a list of texts as OlympiadBench has its solutions.
fn text_list(value: &Value) -> Option<String> {
    let text = match value {
        Value::String(text) => text.trim().to_owned(),
        Value::Array(list) => list.iter().map(Value::as_str).collect::<Option<Vec<_>>>()?.join("\n\n"),
        _ => return None,
    };
    (!text.is_empty()).then_some(text)
}
