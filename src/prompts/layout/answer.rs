//! What a row says of its answer: gold, solution, options to choose from.

use serde_json::{Map, Value, json};

use super::Layout;
use super::cells::{Cells, find, plain, text_list};
use super::programs::is_tests;
use crate::prompts::column_ref::json_text;
use crate::prompts::gold::{Gold, last_boxed, split_marked, strip_calculator};
use crate::prompts::messages;
use crate::prompts::read::Fault;
use crate::prompts::source::SourceConfig;
use crate::schema::{Message, Role};

/// Columns of the gold answer, the likeliest first.
pub const GOLD: &[&str] = &[
    "answer",
    "final_answer",
    "expected_answer",
    "gold",
    "gold_answer",
    "ground_truth",
    "reference_answer",
    "target",
    "gt",
    "answerkey",
    "label",
];
/// Columns of a worked solution, the likeliest first.
pub const SOLUTION: &[&str] = &[
    "solution",
    "reference_solution",
    "gold_solution",
    "ground_truth_solution",
    "gold_standard_solution",
    "worked_solution",
    "gt_cot",
    "rationale",
    "explanation",
];
/// Columns of an answer, the likeliest first. Read as the solution only where the row has no gold: elsewhere they hold a
/// model's attempts.
pub const RESPONSE: &[&str] = &["completion", "response", "output", "generation"];
/// Columns of what a rule checks by, ours first.
pub const VERIFICATION: &[&str] = &["verification", INFO];
/// SYNTHETIC-1's, with the gold among it.
const INFO: &str = "verification_info";
const CHOICES: &[&str] = &["choices", "options"];

/// The answer beside a prompt: a text, or the turns that follow the prompt's (TRL's prompt–completion).
pub(super) fn response(cells: &mut Cells<'_>, messages: Vec<Message>) -> Result<(Vec<Message>, Option<String>), Fault> {
    // KTO's undesirable answers are nothing to learn from.
    let undesirable = find(&cells.row.columns, &["label"]).is_some_and(|(_, label)| *label == Value::Bool(false));
    let Some((name, value)) = find(&cells.row.columns, RESPONSE).filter(|_| !undesirable) else {
        return Ok((messages, None));
    };
    let name = name.to_owned();
    match value {
        Value::String(text) => {
            cells.used.push(name);
            Ok((messages, Some(text.clone())))
        }
        Value::Array(_) => {
            let whole = messages::parse(value).and_then(|turns| messages::split([messages, turns].concat()));
            let whole = whole.map_err(|message| Fault::new(cells.row.place, "bad_turns", message).in_field(&name))?;
            cells.used.push(name);
            Ok(whole)
        }
        _ => Ok((messages, None)),
    }
}

pub(super) fn gold(
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
    } else if find(&cells.row.columns, GOLD).is_some_and(|(name, value)| {
        // KTO's label says whether the answer beside it is any good.
        !(value.is_boolean() && name.eq_ignore_ascii_case("label"))
    }) {
        cells.find(GOLD)
    } else {
        None
    };
    let value = value.filter(|value| !value.is_null());
    let info = match value {
        None if config.columns.gold.is_none() => verification_info(cells),
        _ => None,
    };
    let found = match value.or(info.as_ref()) {
        None | Some(Value::Null) => Gold::Missing("absent"),
        Some(Value::String(text)) => match split_marked(text) {
            Some((worked, gold)) => {
                solution.get_or_insert_with(|| strip_calculator(worked));
                Gold::of_text(gold)
            }
            None if layout == Layout::Gsm8k => {
                solution.get_or_insert_with(|| strip_calculator(text.trim()));
                Gold::Missing("no_marker")
            }
            _ => Gold::of_text(text),
        },
        Some(Value::Object(object)) => match find(object, GOLD).and_then(|(_, value)| Gold::of_value(value)) {
            Some(gold) => {
                if !is_gold_alone(object) {
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
        // AceCode's assertions are no list of answers.
        Some(value @ Value::Array(_)) if is_tests(&value.to_string()) => {
            verification.get_or_insert_with(|| value.to_string());
            Gold::Missing("absent")
        }
        Some(value) => Gold::of_value(value).unwrap_or_else(|| {
            verification.get_or_insert_with(|| value.to_string());
            Gold::Missing("absent")
        }),
    };
    // An explicit `gold` that is absent stays absent; MATH keeps its gold in the solution's box, as others may.
    match (&found, solution) {
        (Gold::Missing("absent"), Some(worked)) if config.columns.gold.is_none() => match layout {
            Layout::Math => last_boxed(worked).map_or(Gold::Missing("no_box"), Gold::of_text),
            Layout::Columns => last_boxed(worked).map_or(found, Gold::of_text),
            _ => found,
        },
        _ => found,
    }
}

/// What the row is checked by, where it says so in one column that nothing has read yet: JSON, or a text that holds it.
pub(super) fn verification(cells: &mut Cells<'_>) -> Option<String> {
    let (name, value) = find(&cells.row.columns, VERIFICATION)?;
    if cells.used.iter().any(|used| used == name) {
        return None;
    }
    if name.eq_ignore_ascii_case(INFO) {
        let text = value.as_str().and_then(json_text);
        if text.as_ref().unwrap_or(value).as_object().is_some_and(is_gold_alone) {
            return None;
        }
    }
    let text = match value {
        Value::String(text)
            if serde_json::from_str::<Value>(text).is_ok_and(|value| value.is_object() || value.is_array()) =>
        {
            text.clone()
        }
        Value::String(text) => json_text(text)?.to_string(),
        Value::Object(_) | Value::Array(_) => value.to_string(),
        _ => return None,
    };
    cells.used.push(name.to_owned());
    Some(text)
}

/// Whether an object holds a gold answer and its solution, and nothing more to check by.
fn is_gold_alone(object: &Map<String, Value>) -> bool {
    object.keys().all(|key| GOLD.iter().chain(SOLUTION).any(|name| key.eq_ignore_ascii_case(name)))
}

/// What the row's verification says, if it holds an object.
pub(super) fn verification_info(cells: &mut Cells<'_>) -> Option<Value> {
    let (name, value) = find(&cells.row.columns, &[INFO])?;
    let info = match value {
        Value::String(text) => json_text(text)?,
        value => value.clone(),
    };
    if !info.is_object() {
        return None;
    }
    cells.used.push(name.to_owned());
    Some(info)
}

/// The name of an option: `A` is the first's.
pub(super) fn letter(index: usize) -> String {
    char::from(b'A' + index as u8).to_string()
}

/// Shows options behind a question, a line each.
pub(super) fn offer(question: &mut Message, options: &[&str]) {
    for (index, option) in options.iter().enumerate() {
        question.content += &format!("\n{}. {}", letter(index), option.trim());
    }
}

/// Multiple choice: the options join the question as `A. …` lines and the gold becomes a letter.
pub(super) fn add_choices(
    cells: &mut Cells<'_>,
    messages: &mut [Message],
    gold: &mut Gold,
    verification: &mut Option<String>,
) {
    let Some((name, value)) = find(&cells.row.columns, CHOICES) else { return };
    let texts = value.get("text").unwrap_or(value);
    let options: Option<Vec<&str>> = match texts {
        Value::Array(list) => list.iter().map(Value::as_str).collect(),
        Value::Object(object) => object.values().map(Value::as_str).collect(),
        _ => None,
    };
    let Some(options) = options.filter(|options| (2..=26).contains(&options.len())) else { return };
    // The source's own names of the options, which its gold may be one of.
    let labels: Vec<String> = match (value.get("label"), texts) {
        (Some(Value::Array(labels)), _) => labels.iter().map(plain).collect(),
        (_, Value::Object(object)) => object.keys().cloned().collect(),
        _ => Vec::new(),
    };
    let Some(question) = messages.iter_mut().rev().find(|m| m.role == Role::User) else { return };
    cells.used.push(name.to_owned());
    offer(question, &options);
    let numeric = find(&cells.row.columns, GOLD).is_some_and(|(_, value)| value.is_number());
    if let Gold::Answer(answer) = gold {
        let labelled = labels.iter().position(|label| label.trim().eq_ignore_ascii_case(answer));
        let index = labelled.or_else(|| match answer.parse::<usize>() {
            Ok(index) if numeric && index < options.len() => Some(index),
            _ => options.iter().position(|option| option.trim() == answer),
        });
        if let Some(index) = index.filter(|index| *index < options.len()) {
            *answer = letter(index);
        }
    }
    verification.get_or_insert_with(|| json!({ "choices": options }).to_string());
}
