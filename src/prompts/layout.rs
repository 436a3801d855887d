//! Rows to prompts: the layouts of the field, told apart by their columns.
//!
//! A layout only says where to look; every reading can be overridden by the
//! source's `columns`. Names are looked up without regard to case.

mod about;
mod answer;
mod cells;
mod programs;
mod published;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use self::about::{difficulty, domain, language, source};
pub use self::answer::{GOLD, RESPONSE, SOLUTION, VERIFICATION};
use self::answer::{add_choices, gold, response};
pub use self::cells::find;
use self::cells::{Cells, plain, text_list};
use super::gold::Gold;
use super::messages;
use super::read::{Fault, Row, kind};
use super::source::{Mapping, SourceConfig};
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
    /// The turns to answer, a system turn first if the row or the source has one.
    pub messages: Vec<Message>,
    /// The reference answer, or why there is none.
    pub gold: Gold,
    /// A reference chain of thought or worked solution; `None` if the row has none.
    pub solution: Option<String>,
    /// JSON text.
    pub verification: Option<String>,
    /// In lower case, of the row, the source or the layout; `None` if none of them says.
    pub domain: Option<String>,
    /// BCP 47 primary tag; `None` if the row names no language, and it is to be detected.
    pub language: Option<String>,
    /// 0 (easiest) to 1; `None` if the row does not say.
    pub difficulty: Option<f64>,
    /// Name of the data source; `None` if the row does not say, and the source's name stands.
    pub source: Option<String>,
    /// SPDX id; `None` if the row does not say, and the source's stands.
    pub license: Option<String>,
    /// The source's own id of the row; only counted where one comes twice.
    pub id: Option<String>,
    /// Top-level columns that were read and so do not go to `extra`.
    pub used: Vec<String>,
}

const PROMPT: &[&str] = &["problem", "question", "prompt", "query", "instruction", "input", "question_content"];
/// Text that a `question` column leans on (SVAMP, ASDiv, OlympiadBench).
const PREAMBLE: &[&str] = &["body", "context", "passage"];
const CHAT: &[&str] = &["messages", "conversations", "conversation"];
const ID: &[&str] = &["id", "uuid", "unique_id", "problem_id", "question_id"];

impl Layout {
    /// The layout these columns look like; [`Layout::Columns`] if no other.
    pub fn detect(row: &Map<String, Value>) -> Layout {
        let has = |name: &str| find(row, &[name]).is_some();
        let marked = |name: &str| find(row, &[name]).and_then(|(_, v)| v.as_str()).is_some_and(|t| t.contains("####"));
        if has("reward_model") && find(row, &["prompt"]).is_some_and(|(_, v)| v.is_array() || v.is_string()) {
            Layout::Verl
        } else if has("problem") && (has("generations") || has("correctness_math_verify")) {
            Layout::OpenR1Math
        } else if !has("problem") && !has("question") && (find(row, CHAT).is_some() || implicit_prompt(row).is_some()) {
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
///
/// # Errors
/// A row without a prompt, with turns that are no conversation, or with a difficulty that is not from 0 to 1.
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
    if verification.is_none() && map.verification.is_none() {
        verification = answer::verification(&mut cells)
            .or_else(|| published::instructions(&mut cells))
            .or_else(|| programs::tests(&mut cells));
    }
    if gold == Gold::Missing("absent") && solution.is_none() && map.solution.is_none() && layout == Layout::Columns {
        (messages, solution) = response(&mut cells, messages)?;
    }
    if map.prompt.is_none() && map.messages.is_none() {
        add_choices(&mut cells, &mut messages, &mut gold, &mut verification);
        if map.gold.is_none() {
            published::answers(&mut cells, &mut messages, &mut gold, &mut verification);
        }
        if verification.as_deref().is_some_and(programs::is_tests) {
            published::starter_code(&mut cells, &mut messages);
        }
    }
    Ok(Draft {
        gold,
        solution,
        verification,
        domain: domain(&mut cells, layout, &map.domain)
            .or_else(|| config.domain.clone())
            .or_else(|| layout.domain().map(str::to_owned)),
        language: language(&mut cells, &map.language),
        difficulty: difficulty(&mut cells, layout, config)?,
        source: source(&mut cells, &map.source),
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
    let (name, value) = prompt_column(cells, layout, map).ok_or_else(|| missing_prompt(row))?;
    let is_turns = value.is_array() || (chat && map.prompt.is_none()) || map.messages.is_some();
    let (mut messages, answered) = match value {
        Value::String(text) if !is_turns || !text.trim_start().starts_with('[') => {
            let text = text.trim();
            if text.is_empty() {
                return Err(Fault::new(row.place, "missing_prompt", "the prompt is empty").in_field(name));
            }
            let content = if map.prompt.is_none() { whole_question(cells, &name, text) } else { text.to_owned() };
            (vec![Message { role: Role::User, content }], None)
        }
        value if is_turns => {
            let split = messages::parse(value).and_then(messages::split);
            let (messages, answered) =
                split.map_err(|message| Fault::new(row.place, "bad_turns", message).in_field(&name))?;
            // The answer of a preference is one of two: both stay in `extra`.
            let preferred = map.messages.is_none() && name == CHOSEN;
            (messages, answered.filter(|_| !preferred))
        }
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

/// The column that holds the prompt, or the turns.
fn prompt_column<'c, 'a: 'c>(cells: &mut Cells<'a>, layout: Layout, map: &'c Mapping) -> Option<(String, &'c Value)> {
    if map.messages.is_some() {
        return cells.mapped_named(&map.messages);
    }
    if map.prompt.is_some() {
        return cells.mapped_named(&map.prompt);
    }
    match layout {
        Layout::Chat => cells.named(CHAT).or_else(|| implicit_prompt(&cells.row.columns)),
        Layout::Verl => cells.named(&["prompt"]),
        _ => cells.named(PROMPT),
    }
}

/// What is wrong with a row in which no column is known to hold a prompt, and which one may.
fn missing_prompt(row: &Row) -> Fault {
    let columns: Vec<&str> = row.columns.keys().map(String::as_str).take(12).collect();
    let message = format!("no prompt in this row; its columns are {}", columns.join(", "));
    let turns = row.columns.iter().find(|(_, value)| messages::parse(value).and_then(messages::split).is_ok());
    // A header that was cut at the wrong sign is one long name.
    let joined = |c: char| columns.len() == 1 && columns[0].contains(c);
    let hint = match turns {
        None if joined(';') || joined('\t') => "the file seems to be delimited by another sign than was taken for it: \
                                                write it with commas, or with tabs (`format = \"tsv\"`)"
            .to_owned(),
        Some((name, _)) => format!("`{name}` holds conversations: `columns = {{ messages = \"{name}\" }}`"),
        None => "name the column in the source: `columns = { prompt = \"…\" }`".to_owned(),
    };
    Fault::new(row.place, "missing_prompt", message).hint(hint)
}

/// A question with what other columns say before it, or an instruction with its input.
fn whole_question(cells: &mut Cells<'_>, column: &str, text: &str) -> String {
    let filled = |value: Option<&Value>| {
        value.and_then(Value::as_str).map(str::trim).filter(|text| !text.is_empty()).map(str::to_owned)
    };
    if column.eq_ignore_ascii_case("question") {
        if let Some(before) = filled(cells.find(PREAMBLE)) {
            // SVAMP leaves the full stop out.
            let stop = if before.ends_with(|c: char| c.is_alphanumeric()) { "." } else { "" };
            return format!("{before}{stop} {text}");
        }
    } else if column.eq_ignore_ascii_case("instruction")
        && let Some(input) = filled(cells.find(&["input"]))
    {
        return format!("{text}\n\n{input}");
    }
    text.to_owned()
}

const CHOSEN: &str = "chosen";

/// TRL's preferences with an implicit prompt: both conversations begin with it.
fn implicit_prompt(row: &Map<String, Value>) -> Option<(String, &Value)> {
    let (chosen, rejected) = (row.get(CHOSEN)?, row.get("rejected")?);
    let is_turns = |value: &Value| value.as_array().is_some_and(|turns| turns.iter().all(Value::is_object));
    (is_turns(chosen) && is_turns(rejected)).then(|| (CHOSEN.to_owned(), chosen))
}
