//! Conversations in the two spellings of the field: `role`/`content` and `from`/`value`.

use serde_json::{Map, Value};

use super::read::kind;
use crate::schema::{Message, REASONING_FIELDS, Role};

/// Reads a list of turns, given as JSON or (CSV) as text that holds JSON.
///
/// # Errors
/// What is wrong, in words: no list, an unknown role, a turn without text, a part that is no text.
pub fn parse(value: &Value) -> Result<Vec<Message>, String> {
    match value {
        Value::Array(turns) => turns.iter().enumerate().map(|(i, turn)| message(turn, i)).collect(),
        Value::String(text) if text.trim_start().starts_with('[') => match serde_json::from_str::<Value>(text) {
            Ok(Value::Array(turns)) => turns.iter().enumerate().map(|(i, turn)| message(turn, i)).collect(),
            _ => Err("the text is no JSON list of turns".to_owned()),
        },
        other => Err(format!("a conversation must be a list of turns, this is {}", kind(other))),
    }
}

fn message(turn: &Value, index: usize) -> Result<Message, String> {
    let object = turn.as_object().ok_or_else(|| format!("turn {index} must be an object, it is {}", kind(turn)))?;
    let pick = |names: [&str; 2]| names.iter().find_map(|name| object.get(*name)).filter(|value| !value.is_null());
    let name = pick(["role", "from"]).and_then(Value::as_str).ok_or_else(|| format!("turn {index} has no role"))?;
    let role = role(name).ok_or_else(|| format!("turn {index} has the unknown role `{name}`"))?;
    let mut content = match pick(["content", "value"]) {
        None => String::new(),
        Some(value) => content(value).map_err(|what| format!("turn {index}: {what}"))?,
    };
    // A call has no column of its own in a turn: it is what the assistant said.
    if let Some(calls) = pick(["tool_calls", "function_call"]).filter(|calls| **calls != Value::Array(Vec::new())) {
        if !content.is_empty() {
            content.push('\n');
        }
        content += &calls.to_string();
    }
    // A chain that was cut before its answer is none to learn from, and leaves the turn empty.
    if role == Role::Assistant && !content.trim().is_empty() {
        content = with_reasoning(object, content).map_err(|what| format!("turn {index}: {what}"))?;
    }
    Ok(Message { role, content })
}

/// What an assistant's turn says: `content`, and in tags before it the chain of thought that APIs and servers put beside
/// it, if there is one and the content does not show it already. Without content the chain was cut, and stays open.
///
/// # Errors
/// The chain is no text, in words.
pub fn with_reasoning(turn: &Map<String, Value>, content: String) -> Result<String, String> {
    for name in REASONING_FIELDS {
        let reasoning = match turn.get(*name) {
            None | Some(Value::Null) => continue,
            Some(Value::String(text)) => text.trim(),
            Some(other) => return Err(format!("`{name}` beside the content must be text, it is {}", kind(other))),
        };
        if reasoning.is_empty() {
            continue;
        }
        return Ok(match content.trim_start() {
            shown if shown.starts_with("<think>") => content,
            "" => format!("<think>\n{reasoning}"),
            answer => format!("<think>\n{reasoning}\n</think>\n\n{answer}"),
        });
    }
    Ok(content)
}

fn role(name: &str) -> Option<Role> {
    Some(match name.to_ascii_lowercase().as_str() {
        "user" | "human" | "prompter" => Role::User,
        "assistant" | "gpt" | "chatgpt" | "bot" | "model" | "function_call" => Role::Assistant,
        "system" | "developer" => Role::System,
        "tool" | "function" | "observation" | "ipython" => Role::Tool,
        _ => return None,
    })
}

/// Plain text, or a list of text parts as multimodal schemas have it.
fn content(value: &Value) -> Result<String, String> {
    match value {
        Value::String(text) => Ok(text.clone()),
        Value::Array(parts) => {
            let mut text = String::new();
            for part in parts {
                let piece = part.as_str().or_else(|| {
                    let part = part.as_object()?;
                    let is_text = part.get("type").and_then(Value::as_str).is_none_or(|kind| kind == "text");
                    is_text.then(|| part.get("text").or_else(|| part.get("content"))?.as_str()).flatten()
                });
                text += piece.ok_or("a part of the content is no text; images and audio are not supported")?;
            }
            Ok(text)
        }
        other => Err(format!("the content must be text, it is {}", kind(other))),
    }
}

/// Cuts a conversation after its last user turn, or after the last answer of a tool behind that. What the
/// assistant says from there on is the solution.
///
/// # Errors
/// There is no user turn, or the last one is empty.
pub fn split(mut messages: Vec<Message>) -> Result<(Vec<Message>, Option<String>), String> {
    let last = messages.iter().rposition(|m| m.role == Role::User).ok_or("the conversation has no user turn")?;
    if messages[last].content.trim().is_empty() {
        return Err("the last user turn is empty".to_owned());
    }
    let asked = messages.iter().rposition(|m| m.role == Role::Tool).unwrap_or(0).max(last);
    let said = messages.split_off(asked + 1).into_iter().filter(|m| m.role == Role::Assistant).map(|m| m.content);
    let answer = said.filter(|text| !text.trim().is_empty()).collect::<Vec<_>>().join("\n\n");
    Ok((messages, (!answer.is_empty()).then_some(answer)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn both_spellings_and_text_parts_read_alike() {
        let openai = json!([{"role": "system", "content": "s"}, {"role": "user", "content": [{"type": "text", "text": "q"}]}, {"role": "assistant", "content": "a"}]);
        let sharegpt =
            json!([{"from": "system", "value": "s"}, {"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}]);
        let text = Value::String(openai.to_string());
        assert_eq!(parse(&openai).unwrap(), parse(&sharegpt).unwrap());
        assert_eq!(parse(&openai).unwrap(), parse(&text).unwrap());
        let (messages, solution) = split(parse(&openai).unwrap()).unwrap();
        assert_eq!((messages.len(), solution.as_deref()), (2, Some("a")));
    }

    #[test]
    fn earlier_turns_stay_and_an_empty_answer_is_none() {
        let turns = json!([{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}, {"role": "user", "content": "c"}, {"role": "assistant", "content": ""}]);
        let (messages, solution) = split(parse(&turns).unwrap()).unwrap();
        assert_eq!((messages.len(), solution), (3, None));
    }

    #[test]
    fn calls_of_tools_and_their_answers_are_turns_like_others() {
        let openai = json!([
            {"role": "user", "content": "q"},
            {"role": "assistant", "content": null, "tool_calls": [{"function": {"name": "f"}}]},
            {"role": "tool", "content": "42"},
            {"role": "assistant", "content": "It is 42."},
        ]);
        let sharegpt = json!([
            {"from": "human", "value": "q"},
            {"from": "function_call", "value": "[{\"function\":{\"name\":\"f\"}}]"},
            {"from": "observation", "value": "42"},
            {"from": "gpt", "value": "It is 42."},
        ]);
        assert_eq!(parse(&openai).unwrap(), parse(&sharegpt).unwrap());
        let (messages, solution) = split(parse(&openai).unwrap()).unwrap();
        let turns: Vec<_> = messages.iter().map(|m| (m.role, m.content.as_str())).collect();
        let call = r#"[{"function":{"name":"f"}}]"#;
        assert_eq!(turns, [(Role::User, "q"), (Role::Assistant, call), (Role::Tool, "42")]);
        assert_eq!(solution.as_deref(), Some("It is 42."));
        let unanswered = json!([{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}, {"role": "assistant", "content": "b"}]);
        assert_eq!(split(parse(&unanswered).unwrap()).unwrap().1.as_deref(), Some("a\n\nb"), "no turn is lost");
    }

    #[test]
    fn a_chain_of_thought_beside_the_content_comes_before_it_in_tags() {
        let said = |turn: Value| {
            let turns = json!([{"role": "user", "content": "1 + 3?", "reasoning": "not the assistant's"}, turn]);
            let (messages, solution) = split(parse(&turns).unwrap()).unwrap();
            assert_eq!(messages[0].content, "1 + 3?");
            solution
        };
        let whole = Some("<think>\n1+3=4\n</think>\n\n4".to_owned());
        for name in ["reasoning_content", "reasoning", "thinking"] {
            assert_eq!(said(json!({"role": "assistant", "content": "\n\n4", name: "\n1+3=4\n"})), whole, "{name}");
            assert_eq!(said(json!({"from": "gpt", "value": "4", name: "1+3=4"})), whole, "{name}");
            for nothing in [Value::Null, json!(""), json!(" \n")] {
                assert_eq!(said(json!({"role": "assistant", "content": "4", name: nothing})).as_deref(), Some("4"));
            }
            assert_eq!(said(json!({"role": "assistant", "content": null, name: "1+3"})), None, "it was cut");
        }
        let twice = json!({"role": "assistant", "content": "<think>\n1+3=4\n</think>\n\n4", "reasoning": "1+3=4"});
        assert_eq!(said(twice), whole);
        let both = json!({"role": "assistant", "content": "4", "reasoning_content": "", "reasoning": "1+3=4"});
        assert_eq!(said(both), whole);
        let fault = parse(&json!([{"role": "assistant", "content": "4", "reasoning": {"effort": "high"}}]));
        assert!(fault.unwrap_err().contains("turn 0: `reasoning` beside the content must be text"));
    }

    #[test]
    fn faults_are_told_in_words() {
        for (turns, told) in [
            (json!("hello"), "must be a list of turns"),
            (json!([1]), "turn 0 must be an object, it is a number"),
            (json!([{"content": "x"}]), "turn 0 has no role"),
            (json!([{"role": "wizard", "content": "x"}]), "unknown role `wizard`"),
            (json!([{"role": "user", "content": [{"type": "image_url"}]}]), "images and audio"),
            (json!([{"role": "user", "content": 3}]), "must be text, it is a number"),
        ] {
            assert!(parse(&turns).unwrap_err().contains(told), "{turns}");
        }
        assert!(split(vec![]).unwrap_err().contains("no user turn"));
    }
}
