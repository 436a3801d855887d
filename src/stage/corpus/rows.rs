//! Corpus rows out of groups and prompts, column by column: what a row shares with its source is
//! the source's column, and only the conversation and its parts are written anew.

use std::borrow::Cow;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, ListArray, RecordBatch, StringArray, StringBuilder, StructArray};
use arrow::buffer::OffsetBuffer;
use arrow::datatypes::DataType;

use super::{Template, TrackConfig};
use crate::error::{Error, Result};
use crate::rule::think;
use crate::schema::{BatchExt, ColumnType, DatasetKind, Role};

/// What a corpus row takes from its group row.
pub const OF_GROUP: &[&str] = &[
    "prompt_id",
    "sample_index",
    "completion_id",
    "domain",
    "language",
    "difficulty",
    "reward",
    "completion_tokens",
    "text",
    "model",
    "model_digest",
    "rules_digest",
    "sampling",
];
/// What it takes from the prompt that the group answers.
pub const OF_ITS_PROMPT: &[&str] = &["messages", "source", "license"];
/// What an imported row takes from its prompt; the solution is the answer.
pub const OF_PROMPT: &[&str] =
    &["prompt_id", "messages", "solution", "gold", "domain", "language", "difficulty", "source", "license"];

type Named = (&'static str, ArrayRef);

/// Rows of completions: `groups` holds [`OF_GROUP`] and `prompts`, row by row beside it, [`OF_ITS_PROMPT`].
///
/// # Errors
/// A completion without text, or a turn with an unknown role.
pub fn from_groups(track: &TrackConfig, groups: &RecordBatch, prompts: &RecordBatch) -> Result<RecordBatch> {
    let texts = groups.text("text")?;
    if let Some(row) = (0..texts.len()).find(|&row| texts.is_null(row)) {
        let id = groups.text("completion_id")?.value(row);
        return Err(Error::new(format!("the completion {id} has no text")).hint("make the groups with `carry = true`"));
    }
    let replies = match track.template {
        Some(_) => StringArray::from_iter_values(texts.iter().flatten().map(|text| reply(track.template, text))),
        None => texts.clone(),
    };
    let mut made = conversation(track.system.as_deref(), prompts.list("messages")?, &replies)?;
    made.push(("track", constant(&track.name, replies.len())));
    assemble(made, &[groups, prompts])
}

/// Imported rows: no model and no rule had a part in them. `prompts` holds [`OF_PROMPT`], every one with a solution.
///
/// # Errors
/// A turn with an unknown role.
pub fn from_prompts(track: &TrackConfig, prompts: &RecordBatch) -> Result<RecordBatch> {
    let rows = prompts.num_rows();
    let replies = match track.template {
        Some(template) => wrapped(template, prompts.text("solution")?, prompts.text("gold")?),
        None => prompts.text("solution")?.clone(),
    };
    let mut made = conversation(track.system.as_deref(), prompts.list("messages")?, &replies)?;
    made.push(("track", constant(&track.name, rows)));
    made.push(("completion_id", Arc::new(prompts.text("prompt_id")?.clone())));
    made.push(("sample_index", Arc::new(arrow::array::UInt32Array::from(vec![0; rows]))));
    for (name, text) in [("model", "source"), ("model_digest", ""), ("rules_digest", ""), ("sampling", "{}")] {
        made.push((name, constant(text, rows)));
    }
    assemble(made, &[prompts])
}

/// A completion as it stands in the corpus: in the template's form, whatever form it has. One without reasoning stays
/// as it is.
pub fn reply(template: Option<Template>, text: &str) -> Cow<'_, str> {
    let parts = template.map(|template| (template, think::split(text)));
    match parts.and_then(|(template, parts)| Some((template, parts.reasoning?, parts.answer))) {
        Some((template, reasoning, answer)) => template.render(reasoning, answer).into(),
        None => text.into(),
    }
}

/// Each solution in the template's form. One whose reasoning stands in tags is taken apart as a completion is; any
/// other is the reasoning, with the gold answer behind it, unless it is that answer and nothing else.
fn wrapped(template: Template, solutions: &StringArray, golds: &StringArray) -> StringArray {
    let pairs = solutions.iter().zip(golds);
    let in_form = |(solution, gold): (Option<&str>, Option<&str>)| match (solution, gold) {
        (Some(solution), _) if think::split(solution).reasoning.is_some() => {
            Some(reply(Some(template), solution).into_owned())
        }
        (Some(solution), Some(gold)) if solution != gold => Some(template.render(solution, gold)),
        (solution, _) => solution.map(str::to_owned),
    };
    pairs.map(in_form).collect()
}

fn constant(text: &str, rows: usize) -> ArrayRef {
    Arc::new(StringArray::from_iter_values(std::iter::repeat_n(text, rows)))
}

/// The whole conversation, with a system turn before it where it has none, and its last turn's reasoning
/// and answer.
fn conversation(system: Option<&str>, asked: &ListArray, texts: &StringArray) -> Result<Vec<Named>> {
    let turns = asked.values().as_struct();
    let field = |name: &str| {
        let column = turns.column_by_name(name).and_then(|column| column.as_string_opt::<i32>());
        column.ok_or_else(|| Error::new(format!("a turn has no `{name}`")).in_field("messages"))
    };
    let (asked_roles, asked_contents) = (field("role")?, field("content")?);
    let (mut roles, mut contents) = (StringBuilder::new(), StringBuilder::new());
    let (mut reasonings, mut answers) = (StringBuilder::new(), StringBuilder::new());
    let mut lengths = Vec::with_capacity(texts.len());
    for row in 0..texts.len() {
        let (start, end) = (asked.value_offsets()[row] as usize, asked.value_offsets()[row + 1] as usize);
        let begins_with_system = start < end && Role::parse(asked_roles.value(start)) == Some(Role::System);
        let system = system.filter(|_| !begins_with_system);
        if let Some(system) = system {
            roles.append_value(Role::System.as_str());
            contents.append_value(system);
        }
        for turn in start..end {
            let role = asked_roles.value(turn);
            let known =
                Role::parse(role).ok_or_else(|| Error::new(format!("`{role}` is no role")).in_field("messages"))?;
            roles.append_value(known.as_str());
            contents.append_value(asked_contents.value(turn));
        }
        let text = if texts.is_valid(row) { texts.value(row) } else { "" };
        roles.append_value(Role::Assistant.as_str());
        contents.append_value(text);
        lengths.push(usize::from(system.is_some()) + end - start + 1);
        let parts = think::split(text);
        reasonings.append_option(parts.reasoning);
        answers.append_value(parts.answer);
    }
    let DataType::List(item) = ColumnType::Messages.arrow() else { unreachable!("messages are a list") };
    let DataType::Struct(fields) = item.data_type() else { unreachable!("a turn is a struct") };
    let turns = StructArray::new(fields.clone(), vec![Arc::new(roles.finish()), Arc::new(contents.finish())], None);
    let messages = ListArray::new(item, OffsetBuffer::from_lengths(lengths), Arc::new(turns), None);
    Ok(vec![
        ("messages", Arc::new(messages)),
        ("reasoning", Arc::new(reasonings.finish())),
        ("answer", Arc::new(answers.finish())),
    ])
}

/// The contract's columns: those made, else the sources', else null.
fn assemble(made: Vec<Named>, sources: &[&RecordBatch]) -> Result<RecordBatch> {
    let schema = DatasetKind::Corpus.arrow();
    let rows = sources[0].num_rows();
    let column = |name: &str| {
        let made = made.iter().find(|(made, _)| *made == name).map(|(_, column)| Arc::clone(column));
        made.or_else(|| sources.iter().find_map(|source| source.column_by_name(name).cloned()))
    };
    let columns = schema
        .fields()
        .iter()
        .map(|field| column(field.name()).unwrap_or_else(|| arrow::array::new_null_array(field.data_type(), rows)));
    RecordBatch::try_new(schema.clone(), columns.collect())
        .map_err(|e| Error::new("the corpus's columns do not fit the schema").caused_by(e))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schema::{CorpusRow, Message, Prompt, Row};

    fn prompt(solution: &str) -> Prompt {
        Prompt {
            prompt_id: "p".into(),
            messages: vec![Message { role: Role::User, content: "1 + 1?".into() }],
            gold: Some("2".into()),
            solution: Some(solution.into()),
            verification: None,
            domain: "math".into(),
            language: "en".into(),
            difficulty: None,
            source: "tests".into(),
            license: Some("MIT".into()),
            extra: None,
        }
    }

    fn track(template: Option<Template>) -> TrackConfig {
        TrackConfig {
            name: "other".into(),
            groups: None,
            prompts: "prompts".into(),
            template,
            system: None,
            rows: None,
            domains: Default::default(),
        }
    }

    #[test]
    fn a_system_turn_is_put_before_conversations_that_have_none() {
        let mut with = prompt("2");
        with.messages.insert(0, Message { role: Role::System, content: "Its own.".into() });
        let prompts = Prompt::to_batch(&[prompt("2"), with]);
        let track = TrackConfig { system: Some("Think first.".into()), ..track(None) };
        let rows = CorpusRow::from_batch(&from_prompts(&track, &prompts).unwrap()).unwrap();
        let turns = |row: &CorpusRow| row.messages.iter().map(|m| m.content.clone()).collect::<Vec<_>>();
        assert_eq!(turns(&rows[0]), ["Think first.", "1 + 1?", "2"]);
        assert_eq!(turns(&rows[1]), ["Its own.", "1 + 1?", "2"]);
    }

    #[test]
    fn an_imported_solution_becomes_the_last_turn_with_its_parts() {
        let prompts = Prompt::to_batch(&[prompt("<think>One and one.</think> 2"), prompt("2")]);
        let rows = CorpusRow::from_batch(&from_prompts(&track(None), &prompts).unwrap()).unwrap();
        assert_eq!(rows[0].messages.len(), 2);
        assert_eq!(rows[0].messages[1].content, "<think>One and one.</think> 2");
        assert_eq!((rows[0].reasoning.as_deref(), rows[0].answer.as_str()), (Some("One and one."), "2"));
        assert_eq!((rows[1].reasoning.as_deref(), rows[1].model.as_str()), (None, "source"));
        assert_eq!((rows[1].completion_id.as_str(), rows[1].completion_tokens), ("p", None));
    }

    #[test]
    fn a_template_wraps_a_solution_that_is_more_than_the_answer() {
        let prompts = Prompt::to_batch(&[prompt("One and one."), prompt("2")]);
        let made = from_prompts(&track(Some(Template::ThinkAnswer)), &prompts).unwrap();
        let rows = CorpusRow::from_batch(&made).unwrap();
        assert_eq!(rows[0].messages[1].content, "<think> One and one. </think> <answer> 2 </answer>");
        assert_eq!((rows[0].reasoning.as_deref(), rows[0].answer.as_str()), (Some("One and one."), "2"));
        assert_eq!((rows[1].messages[1].content.as_str(), rows[1].reasoning.as_deref()), ("2", None));
    }

    #[test]
    fn a_template_does_not_wrap_what_has_tags_already() {
        let tagged = ["<think>\nOne and one.\n</think>\n\nIt is 2.", "One and one.</think> <answer>It is 2.</answer>"];
        let prompts = Prompt::to_batch(&tagged.map(prompt));
        for (template, form) in [
            (Template::ThinkAnswer, "<think> One and one. </think> <answer> It is 2. </answer>"),
            (Template::Think, "<think>\nOne and one.\n</think>\n\nIt is 2."),
        ] {
            let made = from_prompts(&track(Some(template)), &prompts).unwrap();
            for row in CorpusRow::from_batch(&made).unwrap() {
                assert_eq!(row.messages[1].content, form);
                assert_eq!((row.reasoning.as_deref(), row.answer.as_str()), (Some("One and one."), "It is 2."));
            }
        }
    }

    #[test]
    fn a_template_gives_completions_another_form() {
        let form = |text| reply(Some(Template::Think), text).into_owned();
        let said = form("<think> One and one. </think> <answer> 2 </answer>");
        assert_eq!(said, "<think>\nOne and one.\n</think>\n\n2");
        assert_eq!(form("2"), "2");
        assert_eq!(reply(None, "<think> x </think> 2"), "<think> x </think> 2");
    }

    #[test]
    fn a_slice_of_a_batch_keeps_its_own_turns() {
        let prompts = Prompt::to_batch(&[prompt("a"), prompt("b"), prompt("c")]);
        let rows = CorpusRow::from_batch(&from_prompts(&track(None), &prompts.slice(1, 2)).unwrap()).unwrap();
        assert_eq!(rows.iter().map(|row| row.messages[1].content.as_str()).collect::<Vec<_>>(), ["b", "c"]);
    }
}
