//! `gristmill score`: rows with completions in, the same rows with rewards out.

mod output;
mod parquet;

use std::io::Write;

use rayon::prelude::*;
use serde_json::{Value, json};

use self::output::Output;
use super::rows::{self, Fields, Line, Row, raw};
use super::told::Told;
use crate::error::{Error, Result};
use crate::rule::{Judgement, RuleSet};
use crate::schema::Outcome;

/// Rows judged together: enough to share out, little enough to hold.
const CHUNK: usize = 2048;
/// Rows a thread takes at once.
const PIECE: usize = 64;

/// Score completions that anything wrote.
#[derive(clap::Args, Debug)]
pub struct ScoreArgs {
    /// Rule file, or the name of a built-in one
    #[arg(long, value_name = "RULES")]
    pub rules: String,
    /// JSONL rows, a .parquet file or a folder of such files, with `completion` and `gold` (optional: `prompt`, `verification`, `language`, `domain`, `tokens`, `finish_reason`); `-` is standard input
    #[arg(value_name = "FILE", default_value = "-")]
    pub input: String,
    /// Where the rows go, with `reward` and `verdicts` added; `-` is standard output
    #[arg(long, short, value_name = "FILE", default_value = "-")]
    pub output: String,
    /// What to do with a row that is no JSON object, has no completion, or ends for a reason nobody knows
    #[arg(long, value_name = "WHAT", value_enum, default_value_t)]
    pub bad_rows: BadRows,
}

/// What to do with a row that cannot be judged.
#[derive(clap::ValueEnum, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum BadRows {
    /// Stop, with its line
    #[default]
    Fail,
    /// Leave it out; the first few are told
    Skip,
    /// Write it where it stands, with a null reward and a verdict `row` that says what is wrong
    Mark,
}

/// Runs the command.
///
/// # Errors
/// Faulty rule files and rows, unreadable input, unwritable output.
pub fn run(args: ScoreArgs) -> Result<()> {
    let rules = RuleSet::load(&args.rules)?;
    rules.ensure_ready()?;
    if let Some(files) = rows::parquet::files(&args.input)? {
        if args.output == "-" {
            return Err(Error::usage("Parquet does not go to standard output").hint("--output scored.parquet"));
        }
        if [".jsonl", ".json"].iter().any(|end| args.output.ends_with(end)) {
            return Err(Error::usage(format!("{} is to be JSON lines, but the rows come as Parquet", args.output))
                .hint("write to a file that ends in .parquet, or give the rows as JSON lines"));
        }
        parquet::score(&rules, &files, &args.output, args.bad_rows)?.tell();
        return Ok(());
    }
    if args.output.ends_with(".parquet") {
        return Err(Error::usage(format!("{} is to be Parquet, but the rows come as JSON lines", args.output))
            .hint("give Parquet rows in a file that ends in .parquet, or write to a .jsonl file"));
    }
    let source = rows::open(&args.input)?;
    let mut target = Output::open(&args.output)?;
    let tally = score(&rules, source, &args.input, &mut target, args.bad_rows)?;
    target.finish()?;
    tally.tell();
    Ok(())
}

/// What a run of `score` counted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    pub rows: u64,
    pub correct: u64,
    pub wrong: u64,
    /// Rows without a reward.
    pub untold: u64,
    /// Rows that could not be judged at all; they are in no other count but, where they are marked, `rows`.
    pub bad: u64,
    /// Rows without a reward that have no gold answer either.
    pub without_gold: u64,
    /// The columns of the first row.
    pub columns: Vec<String>,
    /// Which rules could tell.
    pub told: Told,
}

impl Tally {
    /// Says what came, and which rules decided nothing.
    fn tell(mut self) {
        errln!("{self}");
        for warning in self.told.warnings(1) {
            errln!("warning: {warning}");
        }
    }

    fn count(&mut self, fields: &Fields, judgement: &Judgement) {
        self.told.count(judgement);
        self.rows += 1;
        self.without_gold += u64::from(fields.gold.is_none() && judgement.reward.is_none());
        self.untold += u64::from(judgement.reward.is_none());
        self.correct += u64::from(judgement.outcome == Outcome::Correct);
        self.wrong += u64::from(judgement.outcome == Outcome::Wrong);
    }
}

impl std::fmt::Display for Tally {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{} rows: {} correct, {} wrong, {} without a reward",
            self.rows, self.correct, self.wrong, self.untold
        )?;
        if self.bad > 0 {
            write!(f, "; {} bad rows", self.bad)?;
        }
        if self.rows > 0 && self.without_gold == self.rows {
            let (found, read) = (self.columns.join(", "), rows::gold_columns().collect::<Vec<_>>().join(", "));
            write!(f, "\nno row has a gold answer: the columns are {found}; gold is read from one of {read}")?;
        }
        Ok(())
    }
}

/// A row that cannot be judged: a reason code, and the error that names its place.
struct Bad {
    reason: &'static str,
    error: Error,
}

/// Most bad rows that are told one by one.
const MAX_TOLD: u64 = 10;

impl Tally {
    /// Counts a bad row; the verdict that stands in its place, if it keeps one.
    ///
    /// # Errors
    /// The row's own, where it stops the run.
    fn bad(&mut self, bad: Bad, handling: BadRows) -> Result<Option<Value>> {
        if handling == BadRows::Fail {
            return Err(bad.error.hint("--bad-rows skip leaves such rows out, --bad-rows mark keeps them unjudged"));
        }
        self.bad += 1;
        match self.bad {
            ..=MAX_TOLD => errln!("{}", bad.error),
            n if n == MAX_TOLD + 1 => errln!("… and more; they are counted at the end"),
            _ => {}
        }
        if handling == BadRows::Skip {
            return Ok(None);
        }
        self.rows += 1;
        Ok(Some(bad_verdicts(bad.reason, &bad.error.to_string())))
    }
}

/// What stands in the place of the verdicts of a row that cannot be judged.
pub(super) fn bad_verdicts(reason: &str, error: &str) -> Value {
    json!({"row": {"score": null, "outcome": Outcome::CannotTell, "reason": reason,
        "extracted": null, "evidence": {"error": error}}})
}

/// Scores JSONL rows; order and all other columns are kept, numbers as they are written.
///
/// # Errors
/// Rows that are not JSON objects or have no completion, unless they are skipped or marked; read and write errors.
pub fn score(
    rules: &RuleSet,
    source: impl std::io::Read,
    name: &str,
    mut target: impl Write,
    handling: BadRows,
) -> Result<Tally> {
    let mut tally = Tally::default();
    let more = rules.columns();
    rows::read_lines(source, name, CHUNK, |lines| {
        if tally.columns.is_empty() {
            let first = lines.first().and_then(|line| line.row().ok());
            tally.columns = first.into_iter().flatten().map(|(name, _)| name).collect();
        }
        let read: Vec<std::result::Result<Fields, Bad>> =
            lines.par_iter().map(|line| fields(line, name, &more)).collect();
        let (mut good, mut verdicts) = (Vec::new(), Vec::with_capacity(lines.len()));
        for read in read {
            match read {
                Ok(fields) => {
                    good.push(fields);
                    verdicts.push(None);
                }
                Err(bad) => verdicts.push(Some(tally.bad(bad, handling)?)),
            }
        }
        let mut judged = good.iter().zip(judge(rules, &good));
        for (line, bad) in lines.iter().zip(verdicts) {
            let (reward, verdicts) = match bad {
                Some(None) => continue,
                Some(Some(verdict)) => (Value::Null, verdict),
                None => {
                    let Some((fields, judgement)) = judged.next() else { break };
                    tally.count(fields, &judgement);
                    parts(judgement)
                }
            };
            write_row(&mut target, line, &reward, &verdicts).or_else(output::failed)?;
        }
        Ok(())
    })?;
    target.flush().or_else(output::failed)?;
    Ok(tally)
}

fn fields(line: &Line, name: &str, more: &[String]) -> std::result::Result<Fields, Bad> {
    let row = line.row().map_err(|fault| Bad { reason: "not_json", error: line.fault(name, fault) })?;
    Fields::of(&row)
        .map(|fields| fields.with(&row, more))
        .map_err(|unfit| Bad { reason: unfit.reason, error: unfit.error().in_file(name).at_line(line.number, None) })
}

/// Writes a row as it was read, with its own `reward` and `verdicts` replaced.
fn write_row(target: &mut impl Write, line: &Line, reward: &Value, verdicts: &Value) -> std::io::Result<()> {
    let text = std::str::from_utf8(&line.text).unwrap_or_default();
    target.write_all(b"{")?;
    for (key, value) in raw::members(text).unwrap_or_default() {
        if !matches!(raw::name(key).as_ref(), "reward" | "verdicts") {
            write!(target, "{key}:{value},")?;
        }
    }
    writeln!(target, "\"reward\":{reward},\"verdicts\":{verdicts}}}")
}

/// Judges rows on every core, in order. A few rows are judged by who asks: rules that wait would otherwise keep those
/// threads from others.
pub(super) fn judge(rules: &RuleSet, fields: &[Fields]) -> Vec<Judgement> {
    if fields.len() <= PIECE {
        return rules.judge_batch(&fields.iter().map(Fields::sample).collect::<Vec<_>>());
    }
    fields
        .par_chunks(PIECE)
        .flat_map_iter(|piece| {
            let samples: Vec<_> = piece.iter().map(Fields::sample).collect();
            rules.judge_batch(&samples)
        })
        .collect()
}

/// Adds `reward` and `verdicts` to a row.
pub(super) fn add(row: &mut Row, judgement: Judgement) {
    let (reward, verdicts) = parts(judgement);
    row.insert("reward".into(), reward);
    row.insert("verdicts".into(), verdicts);
}

/// `reward` and `verdicts`.
fn parts(judgement: Judgement) -> (Value, Value) {
    let mut verdicts = serde_json::Map::new();
    for score in judgement.scores {
        let evidence = score.evidence.and_then(|text| serde_json::from_str::<Value>(&text).ok()).unwrap_or(Value::Null);
        let extracted = evidence.get("extracted").or_else(|| evidence.get("picked")).cloned().unwrap_or(Value::Null);
        let verdict = json!({"score": score.score, "outcome": score.outcome, "reason": score.reason,
            "extracted": extracted, "evidence": evidence});
        verdicts.insert(score.rule, verdict);
    }
    (judgement.reward.map_or(Value::Null, Value::from), verdicts.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    const RULES: &str = "reward = \"a * f\"\n[rules.a]\nkind = \"exact\"\n[rules.f]\nkind = \"format\"\n";

    #[test]
    fn rows_come_out_in_order_with_rewards_and_their_own_columns() {
        let rules = RuleSet::parse(RULES, "r").unwrap();
        let input: String = (0..5000)
            .map(|i| format!("{{\"id\":{i},\"gold\":\"{}\",\"completion\":\"<think>x</think>{}\"}}\n", i % 3, i % 2))
            .collect();
        let mut out = Vec::new();
        let tally = score(&rules, input.as_bytes(), "in", &mut out, BadRows::Fail).unwrap();
        assert_eq!(tally.rows, 5000);
        for (i, line) in std::str::from_utf8(&out).unwrap().lines().enumerate() {
            let row: Value = serde_json::from_str(line).unwrap();
            assert_eq!(row["id"], i);
            assert_eq!(row["reward"], if i % 3 == i % 2 { 1.0 } else { 0.0 });
            assert_eq!(row["verdicts"]["a"]["outcome"], if i % 3 == i % 2 { "correct" } else { "wrong" });
        }
    }

    #[test]
    fn rows_without_gold_are_null_and_rows_without_completion_are_errors() {
        let rules = RuleSet::parse(RULES, "r").unwrap();
        let mut out = Vec::new();
        let tally = score(&rules, "{\"completion\":\"<think>x</think>1\"}\n".as_bytes(), "in", &mut out, BadRows::Fail)
            .unwrap();
        assert_eq!((tally.untold, std::str::from_utf8(&out).unwrap().contains("\"reward\":null")), (1, true));
        let input = "\n\n{\"gold\":\"1\"}\n";
        let error = score(&rules, input.as_bytes(), "in", &mut out, BadRows::Fail).unwrap_err();
        assert!(error.to_string().contains("in:3"), "{error}");
    }

    #[test]
    fn where_no_row_has_gold_the_columns_are_told() {
        let rules = RuleSet::parse(RULES, "r").unwrap();
        let told = |input: &str| score(&rules, input.as_bytes(), "in", Vec::new(), BadRows::Fail).unwrap().to_string();
        let story = told("{\"completion\":\"<think>x</think>1\",\"solution_number\":\"1\"}\n");
        assert!(
            story.contains("the columns are completion, solution_number; gold is read from one of gold, "),
            "{story}"
        );
        assert!(!told("{\"completion\":\"<think>x</think>1\",\"expected_answer\":\"1\"}\n").contains("columns"));
    }

    #[test]
    fn what_is_carried_over_is_as_it_was_written() {
        let rules = RuleSet::parse(RULES, "r").unwrap();
        let input = concat!(
            "\u{feff}{\"reward\":7, \"a\": 1.10, \"b\": 1e2, \"c\": 123456789012345678901234567890, ",
            "\"d\": [1.0, -0.0], \"e\": NaN, \"f\": \"\\u00e9\", \"gold\": 1.10, ",
            "\"completion\": \"<think>x</think>1.10\"}\n\n",
        );
        let mut out = Vec::new();
        assert_eq!(score(&rules, input.as_bytes(), "in", &mut out, BadRows::Fail).unwrap().correct, 1);
        let text = String::from_utf8(out).unwrap();
        let kept = "{\"a\":1.10,\"b\":1e2,\"c\":123456789012345678901234567890,\"d\":[1.0, -0.0],\"e\":NaN,\"f\":\"\\u00e9\",\"gold\":1.10,";
        assert!(text.starts_with(kept), "{text}");
        assert_eq!((text.matches("\"reward\"").count(), text.contains("\"reward\":1.0")), (1, true), "{text}");
    }

    #[test]
    fn bad_rows_are_left_out_or_marked_where_they_stand() {
        let rules = RuleSet::parse(RULES, "r").unwrap();
        let row = "{\"completion\":\"<think>x</think>1\",\"gold\":\"1\"}";
        let input = format!("{row}\nnot json\n{{\"id\":3}}\n{row}\n");
        let scored = |handling| {
            let mut out = Vec::new();
            let tally = score(&rules, input.as_bytes(), "in", &mut out, handling).unwrap();
            let rows: Vec<Value> =
                std::str::from_utf8(&out).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
            (tally, rows)
        };
        let (tally, rows) = scored(BadRows::Skip);
        assert_eq!((tally.rows, tally.bad, tally.correct, rows.len()), (2, 2, 2, 2));
        let (tally, rows) = scored(BadRows::Mark);
        assert_eq!((tally.rows, tally.bad, tally.correct, rows.len()), (4, 2, 2, 4));
        assert_eq!(rows[1]["verdicts"]["row"]["reason"], "not_json");
        assert!(rows[1]["verdicts"]["row"]["evidence"]["error"].as_str().unwrap().contains("in:2"));
        assert_eq!((&rows[2]["id"], &rows[2]["reward"]), (&json!(3), &Value::Null));
        assert_eq!(rows[2]["verdicts"]["row"]["reason"], "no_completion");
        assert_eq!(rows[3]["reward"], 1.0);
        let error = score(&rules, input.as_bytes(), "in", Vec::new(), BadRows::Fail).unwrap_err();
        assert!(error.to_string().contains("in:2"), "{error}");
    }
}
