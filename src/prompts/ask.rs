//! Words around a question: the `ask` of a source or a mix, such as `"{prompt}\n\nPlease reason step by step, …"`.

use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::column_ref::ColumnRef;
use super::identity::mint;
use crate::schema::{BARE_QUESTION, Prompt, set_question};
use crate::{Error, Result};

/// A user's turn with a place for the question and places for other columns of its row.
///
/// `{prompt}` is the question; `{name}` a column, by its path. `{{` and `}}` are braces. The groups of a LaTeX command
/// (`\boxed{}`, `\frac{a}{b}`) are text.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Ask {
    text: String,
    parts: Vec<Part>,
}

#[derive(Clone, Debug, PartialEq)]
enum Part {
    Text(String),
    /// Of the question.
    Prompt,
    Column(ColumnRef),
}

impl Ask {
    /// Reads the notation.
    ///
    /// # Errors
    /// A brace that is not closed, one around nothing, or no place for the question.
    pub fn parse(text: &str) -> Result<Ask> {
        let mut parts = Vec::new();
        let mut plain = String::new();
        let mut rest = text;
        while let Some(at) = rest.find(['{', '}', '\\']) {
            plain += &rest[..at];
            rest = &rest[at..];
            let literal = latex(rest);
            if literal > 0 {
                plain += &rest[..literal];
                rest = &rest[literal..];
            } else if rest.starts_with("{{") || rest.starts_with("}}") {
                plain += &rest[..1];
                rest = &rest[2..];
            } else if rest.starts_with('{') {
                let end = rest.find('}').ok_or_else(|| told("a `{` in it is not closed".to_owned()))?;
                let name = rest[1..end].trim();
                if name.is_empty() || name.contains(['{', '\n']) {
                    return Err(told(format!("`{}` in it names no column", &rest[..=end])));
                }
                parts.extend((!plain.is_empty()).then(|| Part::Text(std::mem::take(&mut plain))));
                parts.push(if name == "prompt" {
                    Part::Prompt
                } else {
                    Part::Column(ColumnRef::Path(name.to_owned()))
                });
                rest = &rest[end + 1..];
            } else {
                plain += &rest[..1];
                rest = &rest[1..];
            }
        }
        plain += rest;
        parts.extend((!plain.is_empty()).then_some(Part::Text(plain)));
        if !parts.contains(&Part::Prompt) {
            return Err(told("it has no place for the question".to_owned()));
        }
        Ok(Ask { text: text.to_owned(), parts })
    }

    /// The columns that it names, the question aside.
    pub fn columns(&self) -> impl Iterator<Item = &ColumnRef> {
        self.parts.iter().filter_map(|part| match part {
            Part::Column(column) => Some(column),
            _ => None,
        })
    }

    /// What a row says in its columns, for [`Ask::around`]: a column that is absent or null says nothing.
    pub fn values(&self, row: &Map<String, Value>) -> Values {
        Values(self.columns().map(|column| column.get(row).map_or_else(String::new, plain)).collect())
    }

    /// The prompt with these words around its question, which stays as [`Prompt::bare_question`]. Its id is of the turn as
    /// it is written: another instruction is another prompt.
    pub fn around(&self, mut prompt: Prompt, values: &Values) -> Prompt {
        let question = prompt.question().to_owned();
        let turn = self.turn(&question, values);
        if turn == question {
            return prompt;
        }
        set_question(&mut prompt.messages, turn);
        let kept = prompt
            .extra
            .as_deref()
            .and_then(|extra| extra.strip_prefix('{'))
            .map_or("}".to_owned(), |rest| format!(",{rest}"));
        prompt.extra = Some(format!("{{\"{BARE_QUESTION}\":{}{kept}", Value::String(question)));
        mint(prompt)
    }

    /// The turn for a question; white space at its ends goes.
    fn turn(&self, question: &str, Values(values): &Values) -> String {
        let mut values = values.iter();
        let mut turn = String::with_capacity(self.text.len() + question.len());
        for part in &self.parts {
            turn += match part {
                Part::Text(text) => text,
                Part::Prompt => question,
                Part::Column(_) => values.next().map_or("", String::as_str),
            };
        }
        turn.trim().to_owned()
    }
}

/// What stands in the places of an [`Ask`]'s columns, in their order; by default nothing.
#[derive(Clone, Debug, Default)]
pub struct Values(Vec<String>);

fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// The length of the LaTeX command that the text begins with, its groups included; a backslash alone is one too.
fn latex(text: &str) -> usize {
    if !text.starts_with('\\') {
        return 0;
    }
    let mut end = 1 + text[1..].find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(text.len() - 1);
    if end == 1 {
        return 1;
    }
    while text[end..].starts_with('{') {
        let mut depth = 0;
        let group = text[end..].find(|c| {
            depth += i32::from(c == '{') - i32::from(c == '}');
            depth == 0
        });
        let Some(close) = group else { break };
        end += close + 1;
    }
    end
}

fn told(what: String) -> Error {
    Error::usage(format!(
        "`ask` cannot be used: {what}; write it as in \"{{prompt}}\\n\\nPlease reason step by step.\", with `{{name}}` for \
         a column and `{{{{` for a brace"
    ))
}

impl TryFrom<String> for Ask {
    type Error = Error;

    fn try_from(text: String) -> Result<Ask> {
        Ask::parse(&text)
    }
}

impl From<Ask> for String {
    fn from(ask: Ask) -> String {
        ask.text
    }
}

impl fmt::Display for Ask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn turn(ask: &str, row: Value) -> String {
        let ask = Ask::parse(ask).unwrap();
        ask.turn("1 + 1?", &ask.values(row.as_object().unwrap()))
    }

    #[test]
    fn words_stand_around_the_question_and_latex_is_text() {
        for (ask, shown) in [
            ("{prompt}", "1 + 1?"),
            ("Solve:\n{ prompt }\n", "Solve:\n1 + 1?"),
            (r"{prompt} Put it in \boxed{}.", r"1 + 1? Put it in \boxed{}."),
            (r"{prompt} Put it in \boxed{answer}.", r"1 + 1? Put it in \boxed{answer}."),
            (r"{prompt} \frac{a}{b_{1}} \ {n}", r"1 + 1? \frac{a}{b_{1}} \ 2"),
            (r#"{prompt} {{"answer": 1}}"#, r#"1 + 1? {"answer": 1}"#),
            ("{prompt}: {hint}{gone}{none}|{n}|{info.unit}", "1 + 1?: add|2|cm"),
        ] {
            let row = json!({"hint": "add", "none": null, "n": 2, "info": {"unit": "cm"}, "answer": "2"});
            assert_eq!(turn(ask, row), shown, "{ask}");
        }
    }

    #[test]
    fn what_cannot_be_meant_is_told() {
        for (ask, what) in [
            ("Please think.", "no place for the question"),
            ("{question}", "no place for the question"),
            ("{prompt} in {}", "`{}` in it names no column"),
            ("{prompt} {starter_code", "not closed"),
        ] {
            let error = Ask::parse(ask).unwrap_err().to_string();
            assert!(error.contains(what), "{ask}: {error}");
        }
    }
}
