//! Benchmarks whose columns are their own: IFEval's instructions, GPQA's answers, LiveCodeBench's starter code.

use serde_json::{Map, Value, json};

use super::answer::{letter, offer};
use super::cells::{Cells, find};
use crate::prompts::column_ref::json_text;
use crate::prompts::gold::Gold;
use crate::schema::{Message, Role};
use crate::seed::content_id;

/// IFEval's two columns as one verification, which the constraint rule reads. Arguments that are null are those of other
/// instructions: Parquet has all of them in every row.
pub(super) fn instructions(cells: &mut Cells<'_>) -> Option<String> {
    let row = &cells.row.columns;
    let list = |name: &str| {
        let (column, value) = find(row, &[name])?;
        let list = match value {
            Value::String(text) => json_text(text)?,
            value => value.clone(),
        };
        list.is_array().then_some((column, list))
    };
    let (ids, instructions) = list("instruction_id_list")?;
    let mut used = vec![ids.to_owned()];
    let mut verification = Map::from_iter([("instruction_id_list".to_owned(), instructions)]);
    if let Some((column, Value::Array(all))) = list("kwargs") {
        used.push(column.to_owned());
        let said = |arguments: Value| match arguments {
            Value::String(text) => json_text(&text).unwrap_or(Value::String(text)),
            arguments => arguments,
        };
        let given = |arguments: Value| match said(arguments) {
            Value::Object(mut object) => {
                object.retain(|_, value| !value.is_null());
                Value::Object(object)
            }
            other => other,
        };
        verification.insert("kwargs".to_owned(), all.into_iter().map(given).collect());
    }
    cells.used.append(&mut used);
    Some(Value::Object(verification).to_string())
}

const RIGHT: &[&str] = &["correct answer"];
const WRONG: [&[&str]; 3] = [&["incorrect answer 1"], &["incorrect answer 2"], &["incorrect answer 3"]];

/// GPQA: the right answer and the wrong ones become options, in an order by a hash of the question and the option: it says
/// nothing of which is right, and is the same in every run.
pub(super) fn answers(
    cells: &mut Cells<'_>,
    messages: &mut [Message],
    gold: &mut Gold,
    verification: &mut Option<String>,
) {
    let row = &cells.row.columns;
    let text = |names: &[&str]| {
        let (column, value) = find(row, names)?;
        let text = value.as_str().map_or_else(|| value.to_string(), |text| text.trim().to_owned());
        (!text.is_empty()).then_some((column, text))
    };
    let Some((right_column, right)) = text(RIGHT) else { return };
    let wrong: Vec<(&str, String)> = WRONG.iter().filter_map(|names| text(names)).collect();
    let Some(question) = messages.iter_mut().rev().find(|m| m.role == Role::User) else { return };
    if wrong.is_empty() {
        return;
    }
    let mut used: Vec<String> =
        [right_column].into_iter().chain(wrong.iter().map(|(name, _)| *name)).map(str::to_owned).collect();
    let mut options: Vec<&str> =
        [right.as_str()].into_iter().chain(wrong.iter().map(|(_, text)| text.as_str())).collect();
    options.sort_by_cached_key(|option| content_id([question.content.as_bytes(), option.as_bytes()]));
    let place = options.iter().position(|option| *option == right).expect("it is one of them");
    offer(question, &options);
    *gold = Gold::Answer(letter(place));
    *verification = Some(json!({ "choices": options }).to_string());
    cells.used.append(&mut used);
}

/// LiveCodeBench's and TACO's: the head of the program that tests call is part of what is asked, unless the question shows it.
pub(super) fn starter_code(cells: &mut Cells<'_>, messages: &mut [Message]) {
    let Some((name, code)) = find(&cells.row.columns, &["starter_code"]) else { return };
    let Some(code) = code.as_str().filter(|code| !code.trim().is_empty()) else { return };
    let Some(question) = messages.iter_mut().rev().find(|m| m.role == Role::User) else { return };
    if !question.content.contains(code.trim()) {
        question.content += &format!("\n\nUse this starter code:\n```python\n{}\n```", code.trim_end());
    }
    cells.used.push(name.to_owned());
}
