//! Rows that others wrote, as samples for the rules: JSONL with the field's usual column names.

use std::io::{BufRead, BufReader, Read};

use serde_json::{Map, Value};

pub mod parquet;
pub mod raw;

use crate::error::{Context, Error, Result};
use crate::prompts::column_ref::json_text;
use crate::prompts::gold::last_boxed;
use crate::prompts::layout::{self, RESPONSE, VERIFICATION, find};
use crate::prompts::messages;
use crate::rule::{Origin, Sample, domain_of};
use crate::schema::{FinishReason, Message};

/// One row as it was read: columns in their order.
pub type Row = Map<String, Value>;

/// Longest line in bytes.
const MAX_LINE: usize = 64 << 20;

/// Columns of completions beside those that prompts are imported with.
const COMPLETION: &[&str] = &["solution_str", "text"];
const PROMPT: &[&str] = &["prompt", "question", "problem", "instruction", "messages", "query"];
const REWARD_MODEL: &str = "reward_model";
const DOMAIN: &[&str] = &["domain", "ability"];
const LANGUAGE: &[&str] = &["language", "lang"];
const TOKENS: &[&str] = &["tokens", "completion_tokens"];
const PROMPT_ID: &str = "prompt_id";
/// Where prompts keep their further columns.
const EXTRA: &str = "extra";

/// Columns of the gold answer: ours, and those that imported prompts have it in. A `label` beside a completion says how
/// good that is.
pub fn gold_columns() -> impl Iterator<Item = &'static str> {
    let imported = layout::GOLD.iter().copied().filter(|name| !matches!(*name, "gold" | "label"));
    ["gold"].into_iter().chain(imported).chain(["reference"])
}

/// Whether rules may read a column of this name, however it is written, or read it as one of `more`.
pub fn is_read(name: &str, more: &[String]) -> bool {
    if !more.is_empty() && (name == EXTRA || more.iter().any(|other| other == name)) {
        return true;
    }
    let columns = [
        RESPONSE,
        COMPLETION,
        PROMPT,
        VERIFICATION,
        &[REWARD_MODEL],
        DOMAIN,
        LANGUAGE,
        TOKENS,
        &["difficulty", "finish_reason", PROMPT_ID],
    ];
    let columns = columns.into_iter().chain([layout::SOLUTION]).flatten().copied();
    columns.chain(gold_columns()).any(|column| column.eq_ignore_ascii_case(name))
}

/// What the rules read of a row, owned.
#[derive(Clone, Debug)]
pub struct Fields {
    pub prompt: String,
    pub completion: String,
    pub gold: Option<String>,
    pub verification: Option<String>,
    pub domain: String,
    pub language: String,
    pub difficulty: Option<f64>,
    pub finish_reason: FinishReason,
    pub tokens: Option<u32>,
    pub prompt_id: Option<String>,
    /// Empty where the prompt is a text.
    pub messages: Vec<Message>,
    /// See [`Fields::with`].
    pub extra: Option<String>,
}

/// Why a row cannot be judged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unfit {
    /// A snake_case code.
    pub reason: &'static str,
    pub column: &'static str,
    pub message: String,
}

impl Unfit {
    /// As an error, without its place.
    pub fn error(self) -> Error {
        Error::new(self.message).in_field(self.column)
    }
}

impl Fields {
    /// Reads a row. Without a domain it is of the one that what it is checked by tells ([`domain_of`]), without a
    /// language `und`.
    ///
    /// # Errors
    /// A row without a completion, or with a finish reason that nobody is known to use: it may be one more word for a
    /// completion that was cut.
    pub fn of(row: &Row) -> std::result::Result<Self, Unfit> {
        let find = |names: &[&str]| find(row, names).map(|(_, value)| value);
        let completion = find(RESPONSE)
            .or_else(|| find(COMPLETION))
            .and_then(|value| last_text(value, "assistant"))
            .ok_or_else(|| Unfit {
                reason: "no_completion",
                column: "completion",
                message: "a row has no completion".to_owned(),
            })?;
        let gold = gold_columns().find_map(|name| find(&[name])).and_then(plain);
        let truth = find(&[REWARD_MODEL]).and_then(ground_truth);
        let gold = gold.or_else(|| truth.as_ref().and_then(plain));
        let solution = || find(layout::SOLUTION).and_then(Value::as_str).and_then(answer_of);
        let gold = gold.or_else(solution);
        let word = |names: &[&str]| find(names).and_then(Value::as_str).map(str::to_owned);
        let said = find(&["finish_reason"]).map(|value| plain(value).unwrap_or_else(|| value.to_string()));
        let finish_reason = match said {
            None => FinishReason::Unknown,
            Some(word) => FinishReason::from_server(&word).ok_or_else(|| Unfit {
                reason: "unknown_finish_reason",
                column: "finish_reason",
                message: format!("`{word}` is no finish reason; one is `stop`, `length`, `error`, `unknown` or null"),
            })?,
        };
        let verification = find(VERIFICATION).map(|value| match value {
            Value::String(text) => text.clone(),
            other => other.to_string(),
        });
        // Tests that are no text are nothing to compare with, but something to check by.
        let verification = verification.or_else(|| truth.filter(Value::is_object).map(|truth| truth.to_string()));
        let turns = find(&["messages"]).or_else(|| find(PROMPT)).filter(|value| value.is_array());
        let domain = word(DOMAIN).unwrap_or_else(|| domain_of(gold.as_deref(), verification.as_deref()).to_owned());
        Ok(Fields {
            prompt: find(PROMPT).and_then(|value| last_text(value, "user")).unwrap_or_default(),
            completion,
            gold,
            verification,
            domain,
            language: word(LANGUAGE).unwrap_or_else(|| "und".into()),
            difficulty: find(&["difficulty"]).and_then(number).filter(|value| value.is_finite()),
            finish_reason,
            tokens: find(TOKENS).and_then(Value::as_u64).and_then(|n| u32::try_from(n).ok()),
            prompt_id: find(&[PROMPT_ID]).and_then(plain),
            messages: turns.and_then(|turns| messages::parse(turns).ok()).unwrap_or_default(),
            extra: None,
        })
    }

    /// Adds the row's columns of these names, its own or those in `extra`, as prompts have them: see [`RuleSet::columns`].
    ///
    /// [`RuleSet::columns`]: crate::rule::RuleSet::columns
    pub fn with(mut self, row: &Row, columns: &[String]) -> Self {
        if !columns.is_empty() {
            let extra = match row.get(EXTRA) {
                Some(Value::String(text)) => json_text(text),
                other => other.cloned(),
            };
            let inner = |name: &String| extra.as_ref().and_then(|extra| extra.get(name));
            let found =
                |name: &String| row.get(name).or_else(|| inner(name)).map(|value| (name.clone(), value.clone()));
            self.extra = Some(Value::Object(columns.iter().filter_map(found).collect()).to_string());
        }
        self
    }

    /// The sample the rules see.
    pub fn sample(&self) -> Sample<'_> {
        Sample {
            prompt: &self.prompt,
            completion: &self.completion,
            gold: self.gold.as_deref(),
            verification: self.verification.as_deref(),
            domain: &self.domain,
            language: &self.language,
            difficulty: self.difficulty,
            finish_reason: self.finish_reason,
            tokens: self.tokens,
            origin: Origin {
                prompt_id: self.prompt_id.as_deref(),
                messages: &self.messages,
                extra: self.extra.as_deref(),
            },
        }
    }
}

/// The answer of a worked solution: in its last box, as imported prompts have it, or all of it where it is one formula
/// (TRL's and open-r1's `accuracy_reward` take both).
fn answer_of(solution: &str) -> Option<String> {
    let formula = || solution.trim().strip_prefix('$')?.strip_suffix('$').filter(|inner| !inner.contains('$'));
    last_boxed(solution).or_else(formula).map(str::to_owned)
}

fn plain(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        Value::Bool(value) => Some(value.to_string()),
        // Several answers are one that names them all, as imported prompts have it.
        Value::Array(items) if !items.is_empty() => {
            items.iter().map(plain).collect::<Option<Vec<_>>>().map(|items| items.join(", "))
        }
        _ => None,
    }
}

/// A number, also where it stands as text: Parquet's decimals do.
fn number(value: &Value) -> Option<f64> {
    value.as_f64().or_else(|| value.as_str()?.trim().parse().ok())
}

/// The ground truth of verl's `reward_model`: an object, also where it stands as text.
fn ground_truth(model: &Value) -> Option<Value> {
    match model {
        Value::String(text) => json_text(text)?.get("ground_truth").cloned(),
        model => model.get("ground_truth").cloned(),
    }
}

/// A text, or the last turn of that role in a conversation.
fn last_text(value: &Value, role: &str) -> Option<String> {
    match value {
        Value::Array(turns) => {
            let last = turns.iter().rev().find(|turn| turn.get("role").and_then(Value::as_str) == Some(role));
            let turn = last.or(turns.last())?.as_object()?;
            let content = turn.get("content")?.as_str()?.to_owned();
            if role == "assistant" { messages::with_reasoning(turn, content).ok() } else { Some(content) }
        }
        other => plain(other),
    }
}

/// Opens a file, or standard input for `-`.
pub fn open(path: &str) -> Result<Box<dyn Read + Send>> {
    if path == "-" {
        return Ok(Box::new(std::io::stdin()));
    }
    Ok(Box::new(std::fs::File::open(path).or_fail(|| format!("cannot read {path}"))?))
}

/// Hands rows on in chunks of at most `size`, in order: of JSONL (`-` is standard input), of a Parquet file, or of the
/// shards of a folder. Of Parquet only what rules read, and columns of the names in `more`.
///
/// # Errors
/// Input that cannot be read, or what `each` fails with.
pub fn read(path: &str, size: usize, more: &[String], each: impl FnMut(Vec<Row>) -> Result<()>) -> Result<()> {
    match parquet::files(path)? {
        Some(files) => parquet::read(&files, size, more, each),
        None => read_jsonl(open(path)?, path, size, each).map(drop),
    }
}

/// One line of a JSONL file that is not blank.
#[derive(Clone, Debug)]
pub struct Line {
    /// From one.
    pub number: usize,
    pub text: Vec<u8>,
}

/// The row of a JSON text, with what the rules read as text (a gold that is a number, a verification that is an object)
/// as it is written. Numbers that JSON does not have (`NaN`) are null.
///
/// # Errors
/// What is no JSON object.
pub fn row(text: &[u8]) -> serde_json::Result<Row> {
    let mut row: Row = serde_json::from_slice(text).or_else(|error| {
        let text = std::str::from_utf8(text).ok();
        text.and_then(|text| serde_json::from_str(&raw::without_oddities(text)).ok()).ok_or(error)
    })?;
    let members = std::str::from_utf8(text).ok().and_then(raw::members).unwrap_or_default();
    for (key, written) in members {
        let name = raw::name(key);
        let is = |other: &str| name.eq_ignore_ascii_case(other);
        match row.get_mut(name.as_ref()) {
            Some(value @ Value::Number(_)) if gold_columns().any(is) => *value = written.into(),
            Some(value @ Value::Object(_)) if VERIFICATION.iter().any(|other| is(other)) => *value = written.into(),
            Some(Value::Object(model)) if is(REWARD_MODEL) => {
                let inner = raw::members(written).unwrap_or_default();
                let truth = inner.iter().find(|(key, _)| raw::name(key) == "ground_truth");
                if let (Some((_, written)), Some(value @ Value::Number(_))) = (truth, model.get_mut("ground_truth")) {
                    *value = (*written).into();
                }
            }
            _ => {}
        }
    }
    Ok(row)
}

impl Line {
    /// The row; see [`row`].
    ///
    /// # Errors
    /// What is no JSON object, and the column.
    pub fn row(&self) -> std::result::Result<Row, (String, usize)> {
        row(&self.text).map_err(|error| (format!("this line is not a JSON object: {error}"), error.column()))
    }

    /// An error at this line.
    pub fn fault(&self, name: &str, (message, column): (String, usize)) -> Error {
        Error::new(message).in_file(name).at_line(self.number, Some(column))
    }
}

/// Most bytes of the lines handed on together.
const MAX_CHUNK: usize = 64 << 20;

/// Hands lines on in chunks of at most `size` and some 64 MiB, in order; a byte order mark and blank lines
/// are left out.
///
/// # Errors
/// A line that is too long, a read error, or what `each` fails with.
pub fn read_lines(
    source: impl Read,
    name: &str,
    size: usize,
    mut each: impl FnMut(Vec<Line>) -> Result<()>,
) -> Result<u64> {
    let mut reader = BufReader::with_capacity(1 << 20, source);
    let (mut chunk, mut bytes, mut number, mut rows) = (Vec::with_capacity(size), 0, 0usize, 0u64);
    loop {
        let mut text = Vec::new();
        let read = (&mut reader).take(MAX_LINE as u64 + 1).read_until(b'\n', &mut text);
        number += 1;
        if read.or_fail(|| format!("cannot read {name}"))? == 0 {
            break;
        }
        if text.len() > MAX_LINE {
            return Err(Error::new(format!("a line is longer than {MAX_LINE} bytes"))
                .in_file(name)
                .at_line(number, None));
        }
        if number == 1 && text.starts_with(b"\xef\xbb\xbf") {
            text.drain(..3);
        }
        if text.iter().all(u8::is_ascii_whitespace) {
            continue;
        }
        bytes += text.len();
        chunk.push(Line { number, text });
        rows += 1;
        if chunk.len() == size || bytes >= MAX_CHUNK {
            bytes = 0;
            each(std::mem::replace(&mut chunk, Vec::with_capacity(size)))?;
        }
    }
    if !chunk.is_empty() {
        each(chunk)?;
    }
    Ok(rows)
}

/// Hands JSONL rows on in chunks of at most `size`, in order.
///
/// # Errors
/// A line that is no JSON object (with its number), a read error, or what `each` fails with.
pub fn read_jsonl(
    source: impl Read,
    name: &str,
    size: usize,
    mut each: impl FnMut(Vec<Row>) -> Result<()>,
) -> Result<u64> {
    read_lines(source, name, size, |lines| {
        each(lines.iter().map(|line| line.row().map_err(|e| line.fault(name, e))).collect::<Result<_>>()?)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn fields(value: Value) -> Fields {
        Fields::of(value.as_object().unwrap()).unwrap()
    }

    #[test]
    fn usual_layouts_are_understood() {
        let plain = fields(json!({"question": "2+2?", "answer": 4, "response": "4", "lang": "fr"}));
        assert_eq!((plain.prompt.as_str(), plain.gold.as_deref(), plain.completion.as_str()), ("2+2?", Some("4"), "4"));
        let verl = fields(
            json!({"prompt": [{"role": "user", "content": "q"}], "ability": "code", "reward_model": {"ground_truth": "g"},
            "completion": [{"role": "assistant", "content": "a"}]}),
        );
        assert_eq!(
            (verl.prompt.as_str(), verl.gold.as_deref(), verl.completion.as_str(), verl.domain.as_str()),
            ("q", Some("g"), "a", "code")
        );
        let parted = json!([{"role": "assistant", "content": "4", "reasoning_content": "2+2=4"}]);
        assert_eq!(fields(json!({"completion": parted})).completion, "<think>\n2+2=4\n</think>\n\n4");
        let unfit = |value: Value| Fields::of(value.as_object().unwrap()).unwrap_err().reason;
        assert_eq!(unfit(json!({"gold": "1"})), "no_completion");
        assert_eq!(unfit(json!({"completion": "1", "finish_reason": "because"})), "unknown_finish_reason");
    }

    #[test]
    fn columns_that_a_rule_names_are_the_rows_own_or_in_its_extra() {
        let row = json!({"prompt": [{"role": "user", "content": "q"}], "completion": "a", "prompt_id": "p", "level": 3,
            "extra": "{\"level\": 4, \"topic\": \"sums\"}"});
        let row = row.as_object().unwrap();
        let fields = fields(json!(row));
        assert_eq!((fields.prompt_id.as_deref(), fields.messages.len(), &fields.extra), (Some("p"), 1, &None));
        let named = ["level", "topic", "missing"].map(str::to_owned);
        assert_eq!(fields.with(row, &named).extra.as_deref(), Some(r#"{"level":3,"topic":"sums"}"#));
        assert!(is_read("extra", &named) && is_read("topic", &named) && !is_read("topic", &[]));
    }

    #[test]
    fn gold_is_found_wherever_prompts_are_imported_from() {
        for name in layout::GOLD.iter().filter(|name| **name != "label") {
            assert_eq!(fields(json!({"completion": "x", *name: "7"})).gold.as_deref(), Some("7"), "{name}");
        }
        assert_eq!(fields(json!({"completion": "x", "answerKey": "B", "label": true})).gold.as_deref(), Some("B"));
        assert_eq!(fields(json!({"completion": "x", "gold": ["3", 4]})).gold.as_deref(), Some("3, 4"));
        for (solution, gold) in [
            ("So it is $\\boxed{3}$.", Some("3")),
            ("$\\frac{1}{2}$", Some("\\frac{1}{2}")),
            ("$2$ and $3$", None),
            ("It cannot be.", None),
        ] {
            let row = fields(json!({"problem": "q", "completion": "x", "solution": solution}));
            assert_eq!(row.gold.as_deref(), gold, "{solution}");
        }
        assert_eq!(fields(json!({"completion": "x", "answer": "work #### 7", "gold": "7"})).gold.as_deref(), Some("7"));
        assert_eq!(fields(json!({"completion": "x", "label": 1})).gold, None);
        let text = json!({"completion": "x", "reward_model": "{\"style\": \"rule\", \"ground_truth\": \"7\"}"});
        assert_eq!(fields(text).gold.as_deref(), Some("7"));
    }

    #[test]
    fn ends_are_told_in_the_words_of_servers() {
        let end = |word: Value| fields(json!({"completion": "x", "finish_reason": word})).finish_reason;
        assert_eq!(end(json!("max_tokens")), FinishReason::Length);
        assert_eq!(end(json!("MAX_TOKENS")), FinishReason::Length);
        assert_eq!(end(json!("end_turn")), FinishReason::Stop);
        assert_eq!(end(Value::Null), FinishReason::Unknown);
    }

    #[test]
    fn chunks_keep_order_and_faults_name_their_line() {
        let mut sizes = Vec::new();
        let rows = read_jsonl("{\"a\":1}\n\n{\"a\":2}\n{\"a\":3}".as_bytes(), "x", 2, |chunk| {
            sizes.push(chunk.len());
            Ok(())
        });
        assert_eq!((rows.unwrap(), sizes), (3, vec![2, 1]));
        let marked = read_jsonl("\u{feff}{\"a\":1}\n".as_bytes(), "x", 2, |_| Ok(()));
        assert_eq!(marked.unwrap(), 1);
        let error = read_jsonl("{}\n[1]\n".as_bytes(), "x.jsonl", 2, |_| Ok(())).unwrap_err();
        assert!(error.to_string().contains("x.jsonl:2"), "{error}");
    }

    #[test]
    fn numbers_that_rules_read_are_those_that_were_written() {
        let of = |text: &str| Fields::of(&Line { number: 1, text: text.into() }.row().unwrap()).unwrap();
        let big = "123456789012345678901234567890";
        let plain = of(&format!("{{\"completion\":\"x\",\"gold\":{big},\"difficulty\":1e-1,\"loss\":NaN}}"));
        assert_eq!((plain.gold.as_deref(), plain.difficulty), (Some(big), Some(0.1)));
        let verl = of("{\"completion\":\"x\",\"reward_model\":{\"ground_truth\":1.10}}");
        assert_eq!(verl.gold.as_deref(), Some("1.10"));
        let tests = of(&format!("{{\"completion\":\"x\",\"verification\":{{\"n\":{big}}}}}"));
        assert_eq!(tests.verification, Some(format!("{{\"n\":{big}}}")));
        assert!(Line { number: 1, text: b"{\"a\":Nan}".into() }.row().is_err());
    }
}
