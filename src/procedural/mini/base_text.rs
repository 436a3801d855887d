//! What the mini base model reads: facts, plain text, answers and imperfect chains.
//!
//! A base model has seen much text and little care: arithmetic facts, sentences,
//! direct answers, chains of thought with and without tags, with slips in the
//! steps and words of the wrong language. Reinforcement learning then has
//! something to sharpen, as it has in a real base model.

use super::tasks::{Chain, Family, Task, side};
use super::words::{ADJECTIVES, NOUNS, OPENERS, VERBS, noun_phrase};
use super::{general, tagged};
use crate::error::{Error, Result};
use crate::procedural::Language;
use crate::seed::Rng;

/// What to write, in which proportions, with how much care.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct BaseText {
    /// Families and levels with their weights.
    pub tasks: Vec<TaskWeight>,
    /// Weight of [`Kind::Facts`] among the kinds of document, at least 0; 0.30 by default.
    pub facts: f64,
    /// Weight of [`Kind::Plain`]; 0.10 by default.
    pub plain: f64,
    /// Weight of [`Kind::Direct`]; 0.10 by default.
    pub direct: f64,
    /// Weight of [`Kind::Tagged`]; 0.25 by default.
    pub tagged: f64,
    /// Weight of [`Kind::Untagged`]; 0.15 by default.
    pub untagged: f64,
    /// Weight of [`Kind::General`]; 0.10 by default.
    pub general: f64,
    /// Probability that a step's result is wrong; the chain goes on from it.
    pub slip_rate: f64,
    /// By how much a slip misses, drawn from these. Spread over many values, slips vanish when one
    /// samples at a low temperature; one value makes a habit that only training can break.
    pub slip_by: Vec<i64>,
    /// Probability that a chain's word is written in the other language.
    pub wrong_language_rate: f64,
    /// Probability that a general reply is the worse one of its pair.
    pub bad_reply_rate: f64,
    /// Tasks held out by this fraction never appear; in [0, 1).
    pub holdout: f64,
    /// Share of French; the rest is English.
    pub french: f64,
}

/// A family at a level, and how often to draw it.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TaskWeight {
    /// Its grammar is at the head of [`super`].
    pub family: Family,
    /// From 1; above the family's highest it counts as that.
    pub level: u32,
    /// Relative to the other tasks', at least 0; 1 if left out.
    #[serde(default = "one")]
    pub weight: f64,
}

fn one() -> f64 {
    1.0
}

impl Default for BaseText {
    fn default() -> Self {
        let task = |family, level| TaskWeight { family, level, weight: 1.0 };
        BaseText {
            tasks: vec![task(Family::Mix, 1), task(Family::Mix, 2), task(Family::Linear, 1), task(Family::Total, 1)],
            facts: 0.30,
            plain: 0.10,
            direct: 0.10,
            tagged: 0.25,
            untagged: 0.15,
            general: 0.10,
            slip_rate: 0.08,
            slip_by: vec![1, -1, 1, -1, 2, -2, 10, -10],
            wrong_language_rate: 0.3,
            bad_reply_rate: 0.4,
            holdout: 0.1,
            french: 0.5,
        }
    }
}

/// The kinds of document.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Two to four true equations, as they occur in the tasks.
    Facts,
    /// One to three sentences about everyday things.
    Plain,
    /// A question and its answer, nothing between.
    Direct,
    /// A question, then its chain and its answer within the tags.
    Tagged,
    /// A question, then its chain and its answer without tags.
    Untagged,
    /// A request (greet, copy, translate, refuse) and a reply; `bad_reply_rate` of the replies are bad.
    General,
}

/// One document of base text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Document {
    /// Its name in lower case is the row's domain.
    pub kind: Kind,
    /// Of the question, and of what is not written in the wrong one.
    pub language: Language,
    /// The question; empty for facts and plain text.
    pub prompt: String,
    /// What follows it.
    pub completion: String,
}

impl Document {
    /// Prompt and completion as one text.
    pub fn text(&self) -> String {
        if self.prompt.is_empty() { self.completion.clone() } else { format!("{} {}", self.prompt, self.completion) }
    }
}

impl BaseText {
    /// Checks rates and weights.
    ///
    /// # Errors
    /// A rate outside [0, 1], a negative weight, no task or no kind with a weight.
    pub fn validate(&self) -> Result<()> {
        let rates = [
            ("slip_rate", self.slip_rate),
            ("wrong_language_rate", self.wrong_language_rate),
            ("bad_reply_rate", self.bad_reply_rate),
            ("holdout", self.holdout),
            ("french", self.french),
        ];
        for (name, rate) in rates {
            if !(0.0..=1.0).contains(&rate) || (name == "holdout" && rate == 1.0) {
                return Err(Error::usage(format!("`{name}` is {rate}, out of range")).hint("rates are in [0, 1]"));
            }
        }
        if self.slip_by.is_empty() || self.slip_by.contains(&0) {
            return Err(Error::usage("`slip_by` must name at least one offset, and none of 0"));
        }
        let kinds = self.kinds().map(|(_, weight)| weight);
        let tasks: Vec<f64> = self.tasks.iter().map(|task| task.weight).collect();
        for weights in [&kinds[..], &tasks[..]] {
            if !weights.iter().all(|w| w.is_finite() && *w >= 0.0) || weights.iter().sum::<f64>() <= 0.0 {
                return Err(Error::usage("the weights of base text must not be negative, and not all zero"));
            }
        }
        Ok(())
    }

    fn kinds(&self) -> [(Kind, f64); 6] {
        [
            (Kind::Facts, self.facts),
            (Kind::Plain, self.plain),
            (Kind::Direct, self.direct),
            (Kind::Tagged, self.tagged),
            (Kind::Untagged, self.untagged),
            (Kind::General, self.general),
        ]
    }

    /// Draws one document. Call [`BaseText::validate`] once before.
    pub fn document(&self, rng: &mut Rng) -> Document {
        let kinds = self.kinds();
        let kind = kinds[weighted(rng, kinds.iter().map(|(_, weight)| *weight))].0;
        let language = if rng.uniform() < self.french { Language::Fr } else { Language::En };
        let (prompt, completion) = match kind {
            Kind::Facts => (String::new(), self.facts(rng)),
            Kind::Plain => (String::new(), plain(rng, language)),
            Kind::General => self.general(rng, language),
            Kind::Direct | Kind::Tagged | Kind::Untagged => {
                let task = self.task(rng);
                let chain = self.slipping(&task, rng);
                let text = self.chain_text(&chain, language, rng);
                let completion = match kind {
                    Kind::Tagged => tagged(&text, &chain.answer.to_string()),
                    Kind::Untagged => format!("{text} {}", chain.answer),
                    _ => task.gold().answer.to_string(),
                };
                (task.question(rng, language), completion)
            }
        };
        Document { kind, language, prompt, completion }
    }

    /// A task that is not held out.
    pub fn task(&self, rng: &mut Rng) -> Task {
        loop {
            let TaskWeight { family, level, .. } = self.tasks[weighted(rng, self.tasks.iter().map(|t| t.weight))];
            let task = Task::draw(family, rng, level);
            if !task.is_held_out(self.holdout) {
                return task;
            }
        }
    }

    /// A few true equations, as they occur inside the tasks.
    fn facts(&self, rng: &mut Rng) -> String {
        let mut text = String::new();
        for index in 0..rng.between(2, 4) {
            let mut equations = self.task(rng).gold().equations;
            let equation = equations.swap_remove(rng.below(equations.len() as u64) as usize);
            let gap = if index == 0 { "" } else { " " };
            text += &format!("{gap}{equation} .");
        }
        text
    }

    /// The task's chain with slips: near misses, as people make them.
    pub fn slipping(&self, task: &Task, rng: &mut Rng) -> Chain {
        task.work(|_, right| {
            if rng.uniform() >= self.slip_rate {
                return right;
            }
            let by = *rng.pick(&self.slip_by);
            // No value of the mini world is negative.
            if right + by < 0 { right - by } else { right + by }
        })
    }

    /// The chain in words, some of them of the other language.
    pub fn chain_text(&self, chain: &Chain, language: Language, rng: &mut Rng) -> String {
        chain.text(|opener| {
            let right = side(language);
            let side = if rng.uniform() < self.wrong_language_rate { 1 - right } else { right };
            OPENERS[opener][side].to_owned()
        })
    }

    fn general(&self, rng: &mut Rng, language: Language) -> (String, String) {
        loop {
            let problem = general::draw(rng, 1, language);
            if crate::procedural::mix::is_held_out(&problem.key, self.holdout) {
                continue;
            }
            let bad = rng.uniform() < self.bad_reply_rate;
            let reply = match problem.rejected {
                Some((_, rejected)) if bad => rejected,
                _ => problem.answer,
            };
            return (problem.question, reply);
        }
    }
}

/// One to three sentences about the same things.
fn plain(rng: &mut Rng, language: Language) -> String {
    let mut sentences = Vec::new();
    for _ in 0..rng.between(1, 3) {
        let mut phrase = || {
            let adjective = (rng.below(2) == 0).then(|| *rng.pick(&ADJECTIVES));
            noun_phrase(*rng.pick(&NOUNS), adjective, language)
        };
        let (subject, object) = (phrase(), phrase());
        sentences.push(format!("{subject} {} {object} .", rng.pick(&VERBS)[side(language)]));
    }
    sentences.join(" ")
}

/// The index of a weighted choice; weights are not negative and not all zero.
fn weighted(rng: &mut Rng, weights: impl Iterator<Item = f64> + Clone) -> usize {
    let total: f64 = weights.clone().sum();
    let mut left = rng.uniform() * total;
    let mut last = 0;
    for (index, weight) in weights.enumerate() {
        if weight > 0.0 {
            last = index;
            if left < weight {
                return index;
            }
            left -= weight;
        }
    }
    last
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::procedural::mini::language_consistency;

    #[test]
    fn slips_and_foreign_words_come_at_the_asked_rates() {
        let base = BaseText { slip_rate: 0.08, wrong_language_rate: 0.3, ..BaseText::default() };
        let mut rng = Rng::new(5);
        let (mut wrong, mut steps, mut right_words, mut chains) = (0, 0, 0.0, 0.0);
        for _ in 0..5_000 {
            let task = base.task(&mut rng);
            let chain = base.slipping(&task, &mut rng);
            let mut index = 0;
            task.work(|_, right| {
                let written: i64 = chain.equations[index].rsplit(' ').next().unwrap().parse().unwrap();
                index += 1;
                steps += 1;
                wrong += i32::from(written != right);
                written
            });
            let text = base.chain_text(&chain, Language::Fr, &mut rng);
            right_words += language_consistency(&text, Language::Fr).unwrap();
            chains += 1.0;
        }
        let slip_rate = f64::from(wrong) / f64::from(steps);
        assert!((slip_rate - 0.08).abs() < 0.01, "{slip_rate}");
        assert!((right_words / chains - 0.7_f64).abs() < 0.02);
    }

    #[test]
    fn the_language_rule_counts_a_chain_word_by_word() {
        let base = BaseText { wrong_language_rate: 0.4, ..BaseText::default() };
        let mut rng = Rng::new(3);
        for language in [Language::En, Language::Fr].into_iter().cycle().take(1_000) {
            let chain = base.task(&mut rng).gold();
            let text = base.chain_text(&chain, language, &mut rng);
            let counted = crate::language::count(&text).share(language.code());
            assert_eq!(counted, language_consistency(&text, language), "{text}");
        }
    }

    #[test]
    fn held_out_tasks_never_appear() {
        let base = BaseText { holdout: 0.5, ..BaseText::default() };
        let mut rng = Rng::new(9);
        assert!((0..500).all(|_| !base.task(&mut rng).is_held_out(0.5)));
    }

    #[test]
    fn rates_and_weights_out_of_range_are_refused() {
        assert!(BaseText::default().validate().is_ok());
        assert!(BaseText { slip_rate: 1.5, ..BaseText::default() }.validate().is_err());
        assert!(BaseText { holdout: 1.0, ..BaseText::default() }.validate().is_err());
        assert!(BaseText { tasks: vec![], ..BaseText::default() }.validate().is_err());
        assert!(BaseText { plain: f64::NAN, ..BaseText::default() }.validate().is_err());
    }
}
