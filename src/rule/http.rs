//! The http rule: a server of the user's scores completions, in the protocol that `gristmill serve-rewards` answers.
//!
//! What is sent and read is in `row` and `reply`, how rows of many threads come into one request in `requests`.

mod reply;
mod requests;
mod row;

use std::collections::HashMap;
use std::sync::Arc;

use futures::future::join_all;

use self::reply::Said;
use self::requests::{Answer, Requests};
use super::params::{ParamError, params};
use super::remote::{Cache, Client, Settings, runtime, unanswered};
use super::{Rule, Sample, Verdict};
use crate::schema::Outcome;

/// The reference shown by `rules list`.
pub const DOC: &str = r#"What a server of yours says: reward functions in Python, reward models
# What
Posts `{"rows": [{"prompt": …, "completion": …, "gold": …}]}` to `endpoint` and
takes `{"rewards": [1.0]}`, as `gristmill serve-rewards` answers it: for each row, in
order, a number from `min` to `max`, true, false, or null where the server cannot
tell. The number is the score as it is; from `pass` upwards the row is correct, unless
the reply has `"correct": [true]`, or a gristmill's `results` say. Rows from all
threads that wait when one of `parallel` requests is free go together, at most
`batch`. Answers are kept (on disk with `cache`), failures tried again. A server that
is down, or answers what is no score for each row, gives no verdict: cannot tell,
never 0.
A row has `prompt` (the question), `prompt_id`, `messages`, `completion`, its
`completion_reasoning` and `completion_answer`, `gold`, `verification`, `domain`,
`language`, `difficulty`, `finish_reason`, `tokens` and the prompt's `columns`; what is
not known is null.
# Why
Reward functions of TRL, verl and open-r1 are Python. A reward may depend on its row
alone: which rows come together is not fixed, and what was answered once is not asked
again. What the server computes is no part of a rule file's digest: change `version`
with it.
# Example
    [rules.mine]
    kind = "http"
    endpoint = "http://127.0.0.1:9000/score""#;

params! {
    /// Parameters of the http rule.
    pub struct HttpConfig {
        /// Address that rows are posted to, with its path.
        endpoint: String = "http://127.0.0.1:9000/score".into(),
        /// Name of what the server computes; another one, and nothing that was answered or judged before counts.
        version: String = String::new(),
        /// Further columns of the prompts that rows bring along, out of `extra`.
        columns: Vec<String> = Vec::new(),
        /// The least number that is a score; below it the rule cannot tell.
        min: f64 = 0.0,
        /// The greatest number that is a score; above it the rule cannot tell.
        max: f64 = 1.0,
        /// Scores from here upwards are correct, where the server does not say; left out, it is `max`.
        pass: Option<f64> = None,
        /// Most rows of a request.
        batch: usize = 64,
        /// Requests of this rule in flight at once, whoever asks.
        parallel: usize = 4,
        /// Seconds until a request is given up.
        timeout_seconds: f64 = 60.0,
        /// Requests after the first, for answers that do not come.
        retries: usize = 4,
        /// Name of the environment variable that holds the key; none is sent without it.
        api_key_env: Option<String> = None,
        /// Folder of the cache; without it, answers are kept in memory only.
        cache: Option<String> = None,
    }
}

/// Longest reply that is read, in bytes a row: `serve-rewards` sends evidence along.
const MAX_REPLY: usize = 64 << 10;

/// See [`DOC`].
pub struct HttpRule {
    config: HttpConfig,
    pass: f64,
    cache: Cache,
    requests: Arc<Requests>,
}

impl HttpRule {
    /// # Errors
    /// An endpoint that is no URL, a column that every row has, a range without numbers, limits out of range.
    pub fn new(config: HttpConfig) -> Result<Self, ParamError> {
        if !(config.min.is_finite() && config.max.is_finite() && config.min < config.max) {
            return Err(ParamError::new("min", "`min` must be below `max`, and both be finite"));
        }
        let pass = config.pass.unwrap_or(config.max);
        if !(config.min..=config.max).contains(&pass) {
            return Err(ParamError::new("pass", "`pass` must be between `min` and `max`"));
        }
        if !(1..=4096).contains(&config.batch) {
            return Err(ParamError::new("batch", "`batch` must be between 1 and 4096"));
        }
        if let Some(own) = config.columns.iter().find(|name| row::COLUMNS.contains(&name.as_str())) {
            return Err(ParamError::new("columns", format!("every row has `{own}`: leave it out")));
        }
        let client = Client::new(&Settings {
            url: &config.endpoint,
            example: "http://127.0.0.1:9000/score",
            api_key_env: config.api_key_env.as_deref(),
            timeout_seconds: config.timeout_seconds,
            retries: config.retries,
            parallel: config.parallel,
            most_bytes: (1 << 20) + config.batch * MAX_REPLY,
        })?;
        let requests = Arc::new(Requests::new(client, config.batch, config.parallel));
        let cache = Cache::new(config.cache.as_deref());
        Ok(HttpRule { config, pass, cache, requests })
    }

    fn key(&self, row: &str) -> String {
        self.cache.key(&["http", &self.config.endpoint, &self.config.version, row])
    }

    /// What was said of rows, each of which is there once.
    fn answers(&self, rows: Vec<String>) -> Vec<Answer> {
        let keys: Vec<String> = rows.iter().map(|row| self.key(row)).collect();
        let kept = keys.iter().map(|key| self.cache.get(key).and_then(|text| serde_json::from_str(&text).ok()));
        let mut answers: Vec<Option<Answer>> = kept.map(|said| said.map(Ok)).collect();
        let open: Vec<usize> = (0..rows.len()).filter(|&i| answers[i].is_none()).collect();
        let asked = rows.into_iter().enumerate().filter(|(i, _)| answers[*i].is_none()).map(|(_, row)| row).collect();
        let came = match runtime() {
            Ok(runtime) => runtime.block_on(join_all(self.requests.ask(runtime, asked))),
            Err(error) => vec![Err(reply::Fault::new("server_unavailable", error)); open.len()],
        };
        for (i, answer) in open.into_iter().zip(came) {
            // Only what decides is worth remembering: a server that cannot tell now may be able to next time.
            if let Ok(said @ Said { score: Some(_), .. }) = &answer {
                self.cache.put(&keys[i], &serde_json::to_string(said).unwrap_or_default());
            }
            answers[i] = Some(answer);
        }
        answers.into_iter().flatten().collect()
    }

    fn verdict(&self, answer: &Answer) -> Verdict {
        let said = match answer {
            Ok(said) => said,
            Err(fault) => return unanswered(fault.reason, &fault.error),
        };
        let verdict = match said.score {
            None => Verdict::cannot_tell("server_cannot_tell"),
            Some(score) if !(self.config.min..=self.config.max).contains(&score) => {
                let (min, max) = (self.config.min, self.config.max);
                let error =
                    format!("{score} is not between {min} and {max}: set `min` and `max` to the server's range");
                unanswered("server_out_of_range", &error)
            }
            Some(score) => {
                let correct = said.correct.unwrap_or(score >= self.pass);
                let (outcome, reason) = match correct {
                    true => (Outcome::Correct, "server_correct"),
                    false => (Outcome::Wrong, "server_wrong"),
                };
                // `+ 0.0` so that a score of -0 is stored as 0.
                Verdict { outcome, score: Some(score + 0.0), reason, evidence: Vec::new() }
            }
        };
        match &said.reason {
            Some(reason) => verdict.with("said", reason),
            None => verdict,
        }
    }
}

impl Rule for HttpRule {
    fn check(&self, sample: &Sample<'_>) -> Verdict {
        let mut verdicts = self.check_batch(std::slice::from_ref(sample));
        verdicts.pop().unwrap_or_else(|| Verdict::cannot_tell("server_unavailable"))
    }

    fn check_batch(&self, samples: &[Sample<'_>]) -> Vec<Verdict> {
        // The same row is asked once a batch.
        let (mut place, mut distinct) = (HashMap::new(), Vec::new());
        let places: Vec<usize> = samples
            .iter()
            .map(|sample| {
                let row = row::text(sample, &self.config.columns);
                *place.entry(row).or_insert_with_key(|row| {
                    distinct.push(row.clone());
                    distinct.len() - 1
                })
            })
            .collect();
        drop(place);
        let verdicts: Vec<Verdict> = self.answers(distinct).iter().map(|answer| self.verdict(answer)).collect();
        places.into_iter().map(|i| verdicts[i].clone()).collect()
    }

    fn columns(&self) -> &[String] {
        &self.config.columns
    }
}

#[cfg(test)]
mod tests;
