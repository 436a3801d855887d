//! `gristmill score`: rows with completions in, the same rows with rewards out.

mod output;
mod parquet;

use std::io::Write;

use rayon::prelude::*;
use serde_json::{Value, json};

use self::output::Output;
use super::rows::{self, Fields, Row};
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
    /// JSONL (or a .parquet file of) rows with `completion` and `gold` (optional: `prompt`, `verification`, `language`, `domain`, `tokens`, `finish_reason`); `-` is standard input
    #[arg(value_name = "FILE", default_value = "-")]
    pub input: String,
    /// Where the rows go, with `reward` and `verdicts` added; `-` is standard output
    #[arg(long, short, value_name = "FILE", default_value = "-")]
    pub output: String,
}

/// Runs the command.
///
/// # Errors
/// Faulty rule files and rows, unreadable input, unwritable output.
pub fn run(args: ScoreArgs) -> Result<()> {
    let rules = RuleSet::load(&args.rules)?;
    rules.ensure_ready()?;
    if args.input.ends_with(".parquet") {
        if args.output == "-" {
            return Err(Error::usage("Parquet does not go to standard output").hint("--output scored.parquet"));
        }
        errln!("{}", parquet::score(&rules, &args.input, &args.output)?);
        return Ok(());
    }
    let source = rows::open(&args.input)?;
    let mut target = Output::open(&args.output)?;
    let tally = score(&rules, source, &args.input, &mut target)?;
    target.finish()?;
    errln!("{tally}");
    Ok(())
}

/// What a run of `score` counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    pub rows: u64,
    pub correct: u64,
    pub wrong: u64,
    /// Rows without a reward.
    pub untold: u64,
}

impl Tally {
    fn count(&mut self, judgement: &Judgement) {
        self.rows += 1;
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
        )
    }
}

/// Scores JSONL rows; order and all other columns are kept.
///
/// # Errors
/// Rows that are not JSON objects or have no completion; read and write errors.
pub fn score(rules: &RuleSet, source: impl std::io::Read, name: &str, mut target: impl Write) -> Result<Tally> {
    let mut tally = Tally::default();
    rows::read_jsonl(source, name, CHUNK, |chunk| {
        let fields = chunk
            .iter()
            .enumerate()
            .map(|(i, row)| {
                Fields::of(row).ok_or_else(|| {
                    Error::new("a row has no completion")
                        .in_file(name)
                        .at_row(tally.rows + i as u64)
                        .in_field("completion")
                })
            })
            .collect::<Result<Vec<_>>>()?;
        let judged = judge(rules, &fields);
        for (mut row, judgement) in chunk.into_iter().zip(judged) {
            tally.count(&judgement);
            add(&mut row, judgement);
            let write = serde_json::to_writer(&mut target, &row).map_err(std::io::Error::from);
            write.and_then(|()| target.write_all(b"\n")).or_else(output::failed)?;
        }
        Ok(())
    })?;
    target.flush().or_else(output::failed)?;
    Ok(tally)
}

/// Judges rows on every core, in order.
fn judge(rules: &RuleSet, fields: &[Fields]) -> Vec<Judgement> {
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
    row.insert("reward".into(), judgement.reward.map_or(Value::Null, Value::from));
    let mut verdicts = serde_json::Map::new();
    for score in judgement.scores {
        let evidence = score.evidence.and_then(|text| serde_json::from_str::<Value>(&text).ok()).unwrap_or(Value::Null);
        let extracted = evidence.get("extracted").or_else(|| evidence.get("picked")).cloned().unwrap_or(Value::Null);
        let verdict = json!({"score": score.score, "outcome": score.outcome, "reason": score.reason,
            "extracted": extracted, "evidence": evidence});
        verdicts.insert(score.rule, verdict);
    }
    row.insert("verdicts".into(), verdicts.into());
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
        let tally = score(&rules, input.as_bytes(), "in", &mut out).unwrap();
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
        let tally = score(&rules, "{\"completion\":\"<think>x</think>1\"}\n".as_bytes(), "in", &mut out).unwrap();
        assert_eq!((tally.untold, std::str::from_utf8(&out).unwrap().contains("\"reward\":null")), (1, true));
        let error = score(&rules, "{\"gold\":\"1\"}\n".as_bytes(), "in", &mut out).unwrap_err();
        assert!(error.to_string().contains("row 0"), "{error}");
    }
}
