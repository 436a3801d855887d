//! Samples that are there already, judged: the groups of a recording, of servers, of an earlier run. Nothing is sampled.
//!
//! The groups' own verdicts count. Where the table names other rules than judged them, the samples are judged again.

use std::collections::{BTreeSet, HashMap};

use arrow::array::Array;
use rayon::prelude::*;

use super::figures::{Brief, Judged};
use super::samples::Benchmark;
use crate::error::{Error, Result};
use crate::rule::file::RuleSet;
use crate::schema::{BatchExt, DatasetKind, FinishReason, Outcome, Prompt, Score};
use crate::stage::StageContext;
use crate::stage::judged::sample;
use crate::store::Dataset;

const KEYS: &[&str] = &["policy_step", "rules_digest"];
const SAMPLES: &[&str] = &["prompt_id", "sample_index", "group_size", "finish_reason", "completion_tokens"];
const VERDICTS: &[&str] = &["outcome", "scores"];
const TEXT: &[&str] = &["text"];

/// The samples of a groups dataset that answer the measured prompts.
pub(super) struct Recorded {
    pub judged: Judged,
    /// Names the rules whose verdicts they have.
    pub rules_digest: String,
    /// Rows that answer other prompts.
    pub others: u64,
}

/// Which samples of a groups dataset count, and by whose verdicts.
pub(super) struct Reading<'a> {
    pub benchmark: &'a Benchmark<'a>,
    /// Whether the table names the rules, and not the groups alone.
    pub by_these_rules: bool,
    /// Of each prompt the first so many; all if none.
    pub first: Option<u32>,
}

impl Reading<'_> {
    /// Reads the samples, and judges them where their verdicts are not those that are wanted.
    ///
    /// # Errors
    /// The groups are of several policies or rules, are not whole, have a sample twice, or answer none of the prompts; they
    /// are to be judged again and carry no text; [`Error::interrupted`] after Ctrl-C; they cannot be read.
    pub fn read(&self, cx: &StageContext<'_>, groups: &Dataset) -> Result<Recorded> {
        let at = |e: Error| e.in_file(groups.location());
        let (rules, prompts) = (self.benchmark.rules, self.benchmark.prompts);
        let made_by = self.one_policy(groups)?;
        let again = self.by_these_rules && made_by.iter().any(|digest| digest != rules.digest());
        let rules_digest = match made_by.into_iter().collect::<Vec<_>>().as_slice() {
            _ if again => rules.digest().to_owned(),
            [] => rules.digest().to_owned(),
            [one] => one.clone(),
            _ => {
                return Err(at(Error::new("these groups were judged by several rule files").in_field("rules_digest"))
                    .hint("name `rules`: all of them are then judged by these"));
            }
        };
        if again {
            rules.ensure_ready()?;
        }
        let place: HashMap<&str, usize> = prompts.iter().enumerate().map(|(i, p)| (p.prompt_id.as_str(), i)).collect();
        let mut found: Vec<Found> = prompts.iter().map(|_| Found::default()).collect();
        let (mut scored, mut others) = (Vec::<String>::new(), 0);
        let columns = [SAMPLES, if again { TEXT } else { VERDICTS }].concat();
        for batch in groups.batches(Some(DatasetKind::Groups), Some(&columns)) {
            cx.check_stop()?;
            let batch = batch?;
            let (ids, indexes, sizes) =
                (batch.text("prompt_id")?, batch.u32("sample_index")?, batch.u32("group_size")?);
            let finishes = batch.cells::<FinishReason>("finish_reason")?;
            let tokens = batch.cells::<Option<u32>>("completion_tokens")?;
            let mut counted = Vec::with_capacity(batch.num_rows());
            for row in 0..batch.num_rows() {
                let Some(&prompt) = place.get(ids.value(row)) else {
                    others += 1;
                    continue;
                };
                found[prompt].rows += 1;
                found[prompt].size = found[prompt].size.max(sizes.value(row));
                if self.first.is_none_or(|first| indexes.value(row) < first) {
                    counted.push((row, prompt));
                }
            }
            let verdicts: Vec<(Outcome, Vec<Score>)> = match again {
                true => {
                    let texts = batch.text("text")?;
                    let asked = counted.par_iter().map(|&(row, prompt)| {
                        let text = (!texts.is_null(row)).then(|| texts.value(row));
                        judge(rules, &prompts[prompt], text, finishes[row], tokens[row])
                    });
                    asked.collect::<Result<_>>().map_err(at)?
                }
                false => {
                    let own = batch.cells::<Outcome>("outcome")?.into_iter();
                    let mut own: Vec<Option<_>> = own.zip(batch.cells("scores")?).map(Some).collect();
                    counted.iter().map(|(row, _)| own[*row].take().expect("a row counts once")).collect()
                }
            };
            for ((row, prompt), (outcome, scores)) in counted.into_iter().zip(verdicts) {
                for score in scores.iter().filter(|score| !scored.contains(&score.rule)).collect::<Vec<_>>() {
                    scored.push(score.rule.clone());
                }
                let brief = Brief::of(outcome, &scores, finishes[row], tokens[row]);
                found[prompt].samples.push((indexes.value(row), brief));
            }
            cx.progress.advance(batch.num_rows() as u64);
        }
        let samples = prompts.iter().zip(found).map(|(prompt, found)| found.in_order(prompt));
        let samples = samples.collect::<Result<Vec<_>>>().map_err(at)?;
        let each = samples.iter().map(Vec::len).max().unwrap_or(0) as u64;
        if each == 0 {
            return Err(at(Error::new("none of these groups answers one of the prompts"))
                .hint("give the prompts that the completions were sampled for"));
        }
        if again {
            // As of samples: a rule that judged none of them has a column.
            scored = rules.rules().map(|(rule, _)| rule.to_owned()).collect();
        }
        Ok(Recorded { judged: Judged { samples, each, rules: scored }, rules_digest, others })
    }

    /// The digests of the rules that judged the groups, which are of one policy.
    fn one_policy(&self, groups: &Dataset) -> Result<BTreeSet<String>> {
        let (mut rules, mut step) = (BTreeSet::new(), None);
        for batch in groups.batches(Some(DatasetKind::Groups), Some(KEYS)) {
            let batch = batch?;
            let (steps, digests) = (batch.u64("policy_step")?, batch.text("rules_digest")?);
            for row in 0..batch.num_rows() {
                let is = steps.value(row);
                let was = *step.get_or_insert(is);
                if is != was {
                    return Err(Error::new(format!(
                        "these groups are of several policies (steps {was} and {is}), and an evaluation is of one model"
                    ))
                    .in_file(groups.location())
                    .in_field("policy_step")
                    .hint("give groups that one model sampled; a trained model can be measured itself"));
                }
                if !rules.contains(digests.value(row)) {
                    rules.insert(digests.value(row).to_owned());
                }
            }
        }
        Ok(rules)
    }
}

/// What was found of a prompt.
#[derive(Default)]
struct Found {
    /// All of its rows, those that do not count among them.
    rows: u32,
    /// Completions of the group, as its rows say.
    size: u32,
    samples: Vec<(u32, Brief)>,
}

impl Found {
    /// The samples, by index.
    fn in_order(mut self, prompt: &Prompt) -> Result<Vec<Brief>> {
        let id = &prompt.prompt_id;
        self.samples.sort_by_key(|(index, _)| *index);
        if let Some(twice) = self.samples.windows(2).find(|pair| pair[0].0 == pair[1].0) {
            return Err(Error::new(format!("sample {} of the prompt {id} is there twice", twice[0].0))
                .in_field("sample_index")
                .hint("remove rows that are there twice; number the samples of a prompt from 0"));
        }
        if self.rows < self.size {
            return Err(Error::new(format!(
                "the group of the prompt {id} is not whole: {} of its {} completions are there",
                self.rows, self.size
            ))
            .in_field("group_size")
            .hint("`select` keeps a part of a group, by how good it is: give the groups that it selects from"));
        }
        Ok(self.samples.into_iter().map(|(_, brief)| brief).collect())
    }
}

/// What the rules say of one completion; of a request that failed, nothing.
fn judge(
    rules: &RuleSet,
    prompt: &Prompt,
    text: Option<&str>,
    finish_reason: FinishReason,
    tokens: Option<u32>,
) -> Result<(Outcome, Vec<Score>)> {
    if finish_reason == FinishReason::Error {
        return Ok((Outcome::CannotTell, Vec::new()));
    }
    let text = text.ok_or_else(|| {
        Error::new(
            "these groups were judged by other rules than `rules` names, and do not carry the texts to judge again",
        )
        .in_field("text")
        .hint("leave `rules` out: the groups' own verdicts count; or make the groups with `carry = true`")
    })?;
    let judgement = rules.judge(&sample(prompt, text, finish_reason, tokens));
    Ok((judgement.outcome, judgement.scores))
}
