//! What a training stage leaves out from the start: counted by reason, and listed for people.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::error::{Error, Result};
use crate::stage::StageContext;

/// Prompts, rows or pairs that are not trained on.
#[derive(Default)]
pub struct Drops {
    /// How many, by reason.
    pub counts: BTreeMap<String, u64>,
    /// Each of them: one JSON object a line.
    list: String,
    /// What is wrong with the first.
    first: String,
    /// What they come to, a line each for people.
    said: Vec<String>,
}

/// Everything that is left out, and why: one JSON object a line.
const DROPS: &str = "_drops.jsonl";

impl Drops {
    /// Adds one; `place` are the keys that find it, such as `row`.
    pub fn add<const N: usize>(&mut self, place: [(&str, Value); N], reason: &str, detail: &str) {
        if self.list.is_empty() {
            detail.clone_into(&mut self.first);
        }
        *self.counts.entry(reason.to_owned()).or_default() += 1;
        let mut line: serde_json::Map<String, Value> =
            place.into_iter().map(|(key, value)| (key.to_owned(), value)).collect();
        line.insert("reason".to_owned(), json!(reason));
        line.insert("detail".to_owned(), json!(detail));
        self.list += &format!("{}\n", Value::Object(line));
    }

    /// How many there are.
    pub fn total(&self) -> u64 {
        self.counts.values().sum()
    }

    /// Has [`Drops::tell`] say this.
    pub fn say(&mut self, line: String) {
        self.said.push(line);
    }

    /// Has [`Drops::tell`] say how much of `total` rows with so many `tokens` these are, which have `left_out` of the
    /// tokens: the longest rows go first, so the share of the rows alone would say too little.
    ///
    /// # Errors
    /// Nothing is left, with what is wrong with the first.
    pub fn sum_up(&mut self, what: &str, total: usize, left_out: u64, tokens: u64) -> Result<()> {
        let dropped = self.total();
        if dropped > 0 && dropped == total as u64 {
            let message = format!("none of the {total} {what} can be trained on ({self}); the first: {}", self.first);
            return Err(Error::new(message).hint(
                "take a model with a longer context, raise `training.max_tokens` if it is set, or keep shorter ones",
            ));
        }
        if dropped > 0 {
            let share = 100.0 * left_out as f64 / tokens.max(1) as f64;
            self.say(format!("{dropped} of {total} {what}, {share:.1} % of their tokens, are left out ({self})"));
        }
        Ok(())
    }

    /// Adds those of another input.
    pub fn absorb(&mut self, other: Drops) {
        for (reason, count) in other.counts {
            *self.counts.entry(reason).or_default() += count;
        }
        self.list += &other.list;
        self.said.extend(other.said);
    }

    /// Says what is left out, and lists it in the stage's folder, which has begun.
    ///
    /// # Errors
    /// The disk refuses.
    pub fn tell(&self, cx: &StageContext<'_>) -> Result<()> {
        if self.list.is_empty() {
            return Ok(());
        }
        let file = cx.folder.join(DROPS);
        self.said.iter().for_each(|line| cx.progress.say(&format!("{line}; they are in {file}")));
        file.write(self.list.clone().into_bytes())
    }
}

impl std::fmt::Display for Drops {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let counts: Vec<String> = self.counts.iter().map(|(reason, n)| format!("{n} {reason}")).collect();
        f.write_str(&counts.join(", "))
    }
}
