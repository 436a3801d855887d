//! One whole group side by side: what the policy wrote to one prompt, and what each completion earned.

use std::ops::Range;

use polars::prelude::{DataFrame, DataType, ExplodeOptions, Expr, LazyFrame, SortMultipleOptions, col, cols, len, lit};
use serde::Serialize;

use super::catalog::{Catalog, Class, FrameExt, Table};
use super::verdicts::exploded;
use crate::error::Result;
use crate::rule::think;
use crate::schema::Outcome;

/// A group with its prompt.
#[derive(Debug, Serialize)]
pub struct Group {
    stage: String,
    prompt_id: String,
    policy_step: u64,
    prompt: Prompt,
    completions: Vec<Member>,
}

/// What was asked; empty if the run holds no such prompt.
#[derive(Debug, Default, Serialize)]
struct Prompt {
    /// (role, content).
    turns: Vec<(String, String)>,
    gold: Option<String>,
}

/// One completion of the group.
#[derive(Debug, Serialize)]
struct Member {
    sample_index: u64,
    reward: Option<f64>,
    advantage: Option<f64>,
    outcome: Option<String>,
    reason: Option<String>,
    finish_reason: Option<String>,
    tokens: Option<u64>,
    scores: Vec<Verdict>,
    reasoning: Option<String>,
    answer: Option<String>,
}

#[derive(Debug, Serialize)]
struct Verdict {
    rule: String,
    score: Option<f64>,
    outcome: Option<String>,
    reason: Option<String>,
    evidence: Option<String>,
}

/// Characters shown of one text; of longer ones the middle is left out.
const SHOWN: usize = 12_000;

/// One group of the `group` stage and one of each training stage's rollouts.
pub fn collect(catalog: &Catalog, notes: &mut Vec<String>) -> Vec<Group> {
    let mut groups = Vec::new();
    let grouped = catalog.of_class(Class::Groups).filter(|table| table.kind == "group");
    for table in grouped.chain(catalog.rollouts()).filter(|table| table.has("text") && table.has("sample_index")) {
        if let Some(Some(group)) = super::noted(read(table, catalog), notes) {
            groups.push(group);
        }
    }
    groups
}

/// The group that tells most: of the latest policy, with rewards that differ, as many right as
/// wrong; among equals the one whose prompt has the smallest id.
fn read(table: &Table, catalog: &Catalog) -> Result<Option<Group>> {
    // Groups of a fixed policy that another program wrote may not say so.
    let step = match table.has("policy_step") {
        true => col("policy_step").cast(DataType::UInt64),
        false => lit(0u64),
    };
    let step = step.alias("step");
    let right = match table.has("outcome") {
        true => col("outcome").eq(lit(Outcome::Correct.as_str())),
        false => col("reward").gt(lit(0.0)),
    };
    // Chosen without the texts, which may be long: of those the chosen group's alone are read.
    let mut known = vec!["prompt_id", "reward"];
    known.extend(["policy_step", "outcome"].into_iter().filter(|name| table.has(name)));
    let parts = table.query_by_parts(&known, |frame, first| {
        frame
            .with_row_index("row", Some(first))
            .with_columns([step.clone(), right.clone().cast(DataType::UInt64).alias("right")])
            .group_by([col("prompt_id"), col("step")])
            .agg([
                len().cast(DataType::UInt64).alias("rows"),
                col("right").sum(),
                col("reward").cast(DataType::Float64).min().alias("least"),
                col("reward").cast(DataType::Float64).max().alias("most"),
                col("row").min().alias("first"),
                col("row").max().alias("last"),
            ])
    })?;
    let best = table.of_rows(&parts, |parts| {
        let from_half = col("right").cast(DataType::Float64) / col("rows").cast(DataType::Float64) - lit(0.5);
        parts
            .group_by([col("prompt_id"), col("step")])
            .agg([
                col("rows").sum(),
                col("right").sum(),
                col("least").min(),
                col("most").max(),
                col("first").min(),
                col("last").max(),
            ])
            .filter((col("most") - col("least")).gt(lit(1e-9)))
            .with_column((from_half.clone() * from_half).alias("distance"))
            .sort(
                ["step", "distance", "prompt_id"],
                SortMultipleOptions::default().with_order_descending_multi([true, false, false]),
            )
            .limit(1)
    })?;
    let (Some(Some(prompt_id)), Some(Some(policy_step))) = (best.texts("prompt_id").pop(), best.counts("step").pop())
    else {
        return Ok(None);
    };
    let row = |column: &str| best.counts(column).pop().flatten().and_then(|row| u32::try_from(row).ok());
    let (Some(first), Some(last)) = (row("first"), row("last")) else { return Ok(None) };
    let is_member = col("prompt_id").eq(lit(prompt_id.as_str())).and(col("step").eq(lit(policy_step)));
    let completions =
        members(table, first..last + 1, |frame| frame.with_column(step.clone()).filter(is_member.clone()))?;
    // Groups may have been made without their texts.
    if completions.iter().all(|member| member.answer.is_none()) {
        return Ok(None);
    }
    let prompt = prompt(catalog, &prompt_id)?;
    Ok(Some(Group { stage: table.stage.clone(), prompt_id, policy_step, prompt, completions }))
}

/// The group's rows: of these `rows` of the table those that `only` leaves.
fn members(table: &Table, rows: Range<u32>, only: impl Fn(LazyFrame) -> LazyFrame) -> Result<Vec<Member>> {
    let in_order = || SortMultipleOptions::default().with_maintain_order(true);
    let known =
        ["sample_index", "reward", "advantage", "outcome", "reason", "finish_reason", "completion_tokens", "text"];
    let wanted: Vec<Expr> = known.into_iter().filter(|name| table.has(name)).map(col).collect();
    let query = |query: &dyn Fn(LazyFrame) -> LazyFrame| table.query_rows(rows.clone(), query);
    let rows = query(&|frame| only(frame).select(wanted.clone()).sort(["sample_index"], in_order()))?;
    let scores = match table.has("scores") {
        true => {
            // Without the row's own outcome and reason, whose names are those of the struct's fields.
            query(&|frame| exploded(only(frame), &["sample_index"]).sort(["sample_index"], in_order()))?
        }
        false => DataFrame::empty(),
    };
    let of_sample = scores.counts("sample_index");
    let (rules, points) = (scores.texts("rule"), scores.floats("score"));
    let [outcomes, reasons, evidence] = ["outcome", "reason", "evidence"].map(|name| scores.texts(name));
    let verdicts = |sample: Option<u64>| {
        let of_it = of_sample.iter().enumerate().filter(move |(_, of)| **of == sample);
        of_it.map(|(i, _)| Verdict {
            rule: rules[i].clone().unwrap_or_default(),
            score: points[i],
            outcome: outcomes[i].clone(),
            reason: reasons[i].clone(),
            evidence: evidence[i].as_deref().map(shown),
        })
    };
    let samples = rows.counts("sample_index");
    let [reward, advantage] = ["reward", "advantage"].map(|name| rows.floats(name));
    let tokens = rows.counts("completion_tokens");
    let [outcome, reason, finish_reason, text] =
        ["outcome", "reason", "finish_reason", "text"].map(|name| rows.texts(name));
    let member = |i: usize| {
        let parts = text[i].as_deref().map(think::split);
        Member {
            sample_index: samples[i].unwrap_or(0),
            reward: reward[i],
            advantage: advantage[i],
            outcome: outcome[i].clone(),
            reason: reason[i].clone(),
            finish_reason: finish_reason[i].clone(),
            tokens: tokens[i],
            scores: verdicts(samples[i]).collect(),
            reasoning: parts.and_then(|parts| parts.reasoning).map(shown),
            answer: parts.map(|parts| shown(parts.answer)),
        }
    };
    Ok((0..rows.height()).map(member).collect())
}

/// Turns and gold answer of a prompt of the run.
fn prompt(catalog: &Catalog, id: &str) -> Result<Prompt> {
    for table in catalog.of_class(Class::Prompts) {
        let is_it = || col("prompt_id").eq(lit(id));
        let gold = table.query(|frame| frame.filter(is_it()).select([col("gold")]).limit(1))?;
        if gold.height() == 0 {
            continue;
        }
        let messages = || cols(["messages"]);
        let options = ExplodeOptions { empty_as_null: true, keep_nulls: true };
        let turns = table.query(|frame| {
            let one = frame.filter(is_it()).select([col("messages")]).limit(1);
            one.explode(messages(), options).unnest(messages(), None)
        })?;
        let turns = turns.texts("role").into_iter().zip(turns.texts("content"));
        let turns = turns.filter_map(|(role, content)| Some((role?, shown(&content?)))).collect();
        return Ok(Prompt { turns, gold: gold.texts("gold").pop().flatten().as_deref().map(shown) });
    }
    Ok(Prompt::default())
}

/// A model's text for people: its middle left out if it is very long, and what would not be seen
/// (control characters, marks that turn the direction of the text) made visible.
fn shown(text: &str) -> String {
    let visible = |c: char| match c {
        '\n' | '\t' => c,
        '\u{0}'..='\u{1f}' => char::from_u32(0x2400 + u32::from(c)).unwrap_or('\u{fffd}'),
        '\u{7f}' => '\u{2421}',
        '\u{80}'..='\u{9f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => '\u{fffd}',
        c => c,
    };
    let length = text.chars().count();
    if length <= SHOWN {
        return text.chars().map(visible).collect();
    }
    let half = SHOWN / 2;
    let head: String = text.chars().take(half).map(visible).collect();
    let tail: String = text.chars().skip(length - half).map(visible).collect();
    format!("{head}\n\n[… {} characters left out …]\n\n{tail}", length - 2 * half)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_seen_is_made_visible_and_long_texts_lose_their_middle() {
        assert_eq!(shown("a\u{1b}[1mb\u{0}\nc\u{202e}d"), "a\u{241b}[1mb\u{2400}\nc\u{fffd}d");
        let long = format!("start{}end", "é".repeat(SHOWN));
        let cut = shown(&long);
        assert!(cut.starts_with("start") && cut.ends_with("end"), "{cut}");
        assert!(cut.contains("[… 8 characters left out …]"));
    }
}
