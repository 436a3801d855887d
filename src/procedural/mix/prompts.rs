//! Draws prompt rows from the cells of a mix, interleaved in proportion to their quotas.

use std::cmp::Ordering;
use std::collections::{BinaryHeap, HashSet};

use serde_json::json;

use super::{Cell, Exhausted, Part, ProceduralConfig, fingerprint, is_held_out, patience};
use crate::error::{Error, Result};
use crate::procedural::Problem;
use crate::prompts::ask::{Ask, Values};
use crate::schema::{Message, Prompt, Role};
use crate::seed::content_id;

/// An iterator over prompt rows. Bounded memory but for 16 bytes a question already drawn.
pub struct Prompts {
    seed: u64,
    source: String,
    part: Part,
    holdout: f64,
    when_exhausted: Exhausted,
    ask: Option<Ask>,
    left: u64,
    streams: Vec<Stream>,
    /// The stream whose next prompt is due first.
    due: BinaryHeap<Due>,
    seen: HashSet<u128>,
    failed: bool,
}

struct Stream {
    cell: Cell,
    weight: f64,
    next_draw: u64,
    emitted: u64,
}

/// Ordered by the time at which a stream's next prompt is due: (emitted + ½) / weight.
struct Due {
    time: f64,
    stream: usize,
}

impl Ord for Due {
    fn cmp(&self, other: &Due) -> Ordering {
        other.time.total_cmp(&self.time).then(other.stream.cmp(&self.stream))
    }
}
impl PartialOrd for Due {
    fn partial_cmp(&self, other: &Due) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}
impl PartialEq for Due {
    fn eq(&self, other: &Due) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}
impl Eq for Due {}

impl Prompts {
    pub(super) fn new(config: &ProceduralConfig, seed: u64) -> Result<Prompts> {
        let streams: Vec<_> = config
            .cells()?
            .into_iter()
            .map(|(cell, weight)| Stream { cell, weight, next_draw: 0, emitted: 0 })
            .collect();
        let due = streams.iter().enumerate().map(|(stream, s)| Due { time: 0.5 / s.weight, stream }).collect();
        Ok(Prompts {
            seed,
            source: config.source.clone(),
            part: config.part,
            holdout: config.holdout,
            when_exhausted: config.when_exhausted,
            ask: config.ask.clone(),
            left: config.count,
            streams,
            due,
            seen: HashSet::new(),
            failed: false,
        })
    }

    /// The next new problem of a stream on the wanted side of the split; `None` when used up.
    fn next_problem(&mut self, index: usize) -> Option<(u64, Problem)> {
        let mut misses = 0;
        loop {
            let stream = &mut self.streams[index];
            let k = stream.next_draw;
            let problem = stream.cell.draw(self.seed, k);
            stream.next_draw += 1;
            let wanted = match self.part {
                Part::All => true,
                Part::Train => !is_held_out(&problem.key, self.holdout),
                Part::Eval => is_held_out(&problem.key, self.holdout),
            };
            if wanted && self.seen.insert(fingerprint(&problem.question)) {
                self.streams[index].emitted += 1;
                return Some((k, problem));
            }
            misses += 1;
            // The wanted side may be a small part of what is drawn.
            let side = match self.part {
                Part::All => 1.0,
                Part::Train => 1.0 - self.holdout,
                Part::Eval => self.holdout,
            };
            if side == 0.0 || misses as f64 > patience(self.streams[index].emitted) as f64 / side {
                return None;
            }
        }
    }

    fn used_up(&self, index: usize) -> Error {
        let Stream { cell, emitted, next_draw, .. } = &self.streams[index];
        let side = match self.part {
            Part::All => "",
            Part::Train => " on the training side of the split",
            Part::Eval => " on the evaluation side of the split",
        };
        Error::new(format!(
            "generator `{}` (level {}, {}) has only about {emitted} distinct questions{side}; {next_draw} were drawn",
            cell.generator.name,
            cell.level,
            cell.language.code(),
        ))
        .hint("lower `count` or this generator's weight, add levels or languages, or set when_exhausted = \"redistribute\"")
    }
}

impl Iterator for Prompts {
    type Item = Result<Prompt>;

    fn next(&mut self) -> Option<Result<Prompt>> {
        if self.left == 0 || self.failed {
            return None;
        }
        loop {
            let Some(Due { stream, .. }) = self.due.pop() else {
                self.failed = true;
                let made: u64 = self.streams.iter().map(|s| s.emitted).sum();
                return Some(Err(Error::new(format!(
                    "the mix has only about {made} distinct questions; {} more were asked for",
                    self.left
                ))
                .hint("lower `count`, or add generators, levels or languages")));
            };
            if let Some((k, problem)) = self.next_problem(stream) {
                let Stream { cell, weight, emitted, .. } = self.streams[stream];
                self.due.push(Due { time: (emitted as f64 + 0.5) / weight, stream });
                self.left -= 1;
                let prompt = prompt_row(&cell, &self.source, k, problem);
                return Some(Ok(match &self.ask {
                    Some(ask) => ask.around(prompt, &Values::default()),
                    None => prompt,
                }));
            }
            if self.when_exhausted == Exhausted::Error {
                self.failed = true;
                return Some(Err(self.used_up(stream)));
            }
        }
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (0, Some(self.left as usize))
    }
}

/// The row of a problem.
pub fn prompt_row(cell: &Cell, source: &str, draw: u64, problem: Problem) -> Prompt {
    let domain = cell.generator.domain;
    let prompt_id = content_id([
        b"user".as_slice(),
        problem.question.as_bytes(),
        problem.gold.as_deref().unwrap_or_default().as_bytes(),
        problem.verification.as_deref().unwrap_or_default().as_bytes(),
        domain.as_bytes(),
    ]);
    let mut extra = json!({
        "generator": cell.generator.name,
        "level": cell.level,
        "draw": draw,
        "key": problem.key,
        "answer": problem.answer,
    });
    if let Some(pair) = crate::procedural::preference(&problem) {
        extra["rejected"] = pair.rejected.into();
        extra["preference"] = pair.kind.as_str().into();
    }
    Prompt {
        prompt_id,
        messages: vec![Message { role: Role::User, content: problem.question }],
        gold: problem.gold,
        // What has no method has its answer: a row of a corpus either way.
        solution: problem.chain.or(Some(problem.answer)),
        verification: problem.verification,
        domain: domain.to_owned(),
        language: cell.language.code().to_owned(),
        difficulty: Some(problem.difficulty),
        source: format!("{source}/{}", cell.generator.name),
        license: Some("CC0-1.0".to_owned()),
        extra: Some(extra.to_string()),
    }
}
