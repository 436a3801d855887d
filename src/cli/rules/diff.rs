//! `rules diff`: which rows two rule files judge differently.

use std::collections::BTreeMap;

use rayon::prelude::*;
use serde_json::json;

use super::DiffArgs;
use crate::cli::rows::{self, Fields};
use crate::error::Result;
use crate::rule::{Judgement, RuleSet};

const CHUNK: usize = 1024;

pub(super) fn run(args: &DiffArgs) -> Result<()> {
    let (before, after) = (RuleSet::load(&args.before)?, RuleSet::load(&args.after)?);
    before.ensure_ready()?;
    after.ensure_ready()?;
    let (mut row, mut changed) = (0u64, 0u64);
    let mut kinds: BTreeMap<String, u64> = BTreeMap::new();
    let more = [before.columns(), after.columns()].concat();
    rows::read(&args.on, CHUNK, &more, |chunk| {
        let fields: Vec<Fields> = chunk
            .iter()
            .enumerate()
            .map(|(i, r)| match Fields::of(r) {
                Ok(fields) => Ok(fields.with(r, &more)),
                Err(unfit) => Err(unfit.error().in_file(&args.on).at_row(row + i as u64)),
            })
            .collect::<Result<_>>()?;
        let judged: Vec<(Judgement, Judgement)> =
            fields.par_iter().map(|f| (before.judge(&f.sample()), after.judge(&f.sample()))).collect();
        for (fields, (a, b)) in fields.iter().zip(judged) {
            if a.outcome != b.outcome || a.reward != b.reward {
                changed += 1;
                *kinds.entry(format!("{} -> {}", word(&a), word(&b))).or_default() += 1;
                if changed <= args.limit as u64 {
                    show(args.json, row, fields, &a, &b);
                }
            }
            row += 1;
        }
        Ok(())
    })?;
    errln!("{changed} of {row} rows change");
    for (kind, count) in kinds {
        errln!("{count:>8}  {kind}");
    }
    Ok(())
}

fn word(judgement: &Judgement) -> String {
    let reward = judgement.reward.map_or("none".to_owned(), |reward| format!("{reward:.3}"));
    format!("{:?} {} ({reward})", judgement.outcome, judgement.reason)
}

fn show(as_json: bool, row: u64, fields: &Fields, a: &Judgement, b: &Judgement) {
    if as_json {
        let side = |j: &Judgement| json!({"reward": j.reward, "outcome": j.outcome, "reason": j.reason});
        outln!("{}", json!({"row": row, "gold": fields.gold, "before": side(a), "after": side(b)}));
        return;
    }
    let tail: String = fields.completion.trim().chars().rev().take(80).collect::<Vec<_>>().into_iter().rev().collect();
    outln!("row {row}: {} -> {}", word(a), word(b));
    outln!("    gold {}  completion …{}", fields.gold.as_deref().unwrap_or("none"), tail.replace('\n', " "));
}
