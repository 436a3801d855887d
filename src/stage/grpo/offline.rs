//! Stored groups as training data.

use std::collections::{BTreeSet, HashMap, HashSet};

use serde_json::Value;

use crate::error::{Error, Result};
use crate::model::Tokenizer;
use crate::schema::{DatasetKind, FinishReason, GroupRow};
use crate::stage::messages_at;
use crate::stage::training::{Drops, reply_tokens};
use crate::store::{Dataset, Lookup, hash_id};
use crate::train::{OldLogprobs, ScoredCompletion, ScoredGroup};

/// Completions whose token ids are compared with their text.
const COMPARED: usize = 64;

/// Whether most of what the ids say is in the text. It need not be all: a text ends where a stop string cut it, and some
/// engines drop special tokens or put back the tags that a template wrote.
fn is_alike(decoded: &str, text: &str) -> bool {
    let [decoded, text] = [decoded, text].map(|text| text.chars().collect::<Vec<char>>());
    let known: HashSet<&[char]> = text.windows(3).collect();
    let said = decoded.windows(3).count();
    2 * decoded.windows(3).filter(|trigram| known.contains(trigram)).count() >= said
}

/// How stored groups were drawn: what their rows say, each thing once.
#[derive(Default)]
pub struct Drawn {
    /// Sampling settings as JSON.
    said: BTreeSet<String>,
    /// Where the rows are.
    place: String,
}

impl Drawn {
    fn numbers(&self, key: &str) -> Vec<f64> {
        let said = self.said.iter().filter_map(|said| serde_json::from_str::<Value>(said).ok()?.get(key)?.as_f64());
        let mut numbers: Vec<f64> = said.collect();
        numbers.sort_by(f64::total_cmp);
        numbers.dedup();
        numbers
    }

    /// The temperature of all of them; 1 where they do not say.
    ///
    /// # Errors
    /// Several, or one that is not above 0.
    pub fn temperature(&self) -> Result<f32> {
        match self.numbers("temperature")[..] {
            [] => Ok(1.0),
            [one] => super::check_temperature(one as f32).map(|()| one as f32).map_err(|e| e.in_file(&self.place)),
            [first, second, ..] => Err(Error::new(format!(
                "the groups were drawn at several temperatures, {first} and {second} among them; a policy has one"
            ))
            .in_file(&self.place)
            .hint("train on those of one temperature, or say `sampling = { temperature = … }` for all of them")),
        }
    }

    /// A warning where tokens were cut off that the policy has: the trainer scores the whole distribution.
    pub fn cut(&self) -> Option<String> {
        let cuts = |key: &str, value: f64| if key == "top_p" { value < 1.0 } else { value > 0.0 };
        let cutting = |key| Some((key, self.numbers(key).into_iter().find(|&value| cuts(key, value))?));
        let (key, value) = ["top_p", "top_k", "min_p"].into_iter().find_map(cutting)?;
        Some(format!(
            "the groups were drawn with `{key}` {value}, which cuts tokens off that the policy has; it is trained on the \
             whole distribution all the same: draw groups to train on without it"
        ))
    }
}

/// Groups to train on, and what is to be said of them.
pub struct Stored {
    /// In the order in which their first rows come.
    pub groups: Vec<ScoredGroup>,
    /// How they were drawn.
    pub drawn: Drawn,
    /// Whether rows of a group lie apart.
    pub scattered: bool,
    /// Completions that were tokenised here.
    pub tokenised: u64,
    /// Groups of which every request failed.
    pub drops: Drops,
}

/// How completions that come without their tokens are made tokens of.
pub struct Tokens<'a> {
    /// The policy's.
    pub tokenizer: &'a Tokenizer,
    /// The prompts that the groups answer, for groups that do not carry their tokens.
    pub prompts: Option<&'a Dataset>,
    /// Where log π_old comes from: the sampler's logprobs are of the sampler's tokens.
    pub old_logprobs: OldLogprobs,
}

/// A group as its rows come.
struct Gathered {
    prompt_id: String,
    policy_step: u64,
    /// As one of its rows says.
    prompt: Option<Vec<u32>>,
    rows: Vec<Completed>,
}

/// A row that is a completion.
struct Completed {
    sample_index: u32,
    /// Hash of the completion's id.
    id: (u64, u64),
    /// In the dataset.
    row: u64,
    /// What is to be made tokens of, if the row does not bring them.
    text: Option<String>,
    completion: ScoredCompletion,
}

/// Reads all groups into memory, about 12 bytes a token, wherever their rows lie. Requests that failed are left out, and
/// groups of nothing else.
///
/// What comes without token ids, as recorded completions and those of some engines do, is tokenised here; its logprobs,
/// which would belong to other tokens, are then not known.
///
/// # Errors
/// A row that cannot be read, or is there twice; a completion that carries neither token ids nor text, or no ids where the
/// sampler's logprobs are asked for; a prompt without token ids that is not among the prompts either; token ids that mean
/// other texts to this tokenizer; no completion at all.
pub fn read(groups: &Dataset, tokens: &Tokens<'_>) -> Result<Stored> {
    let place = || groups.location().to_string();
    let mut drawn = Drawn { place: place(), ..Drawn::default() };
    let mut gathered: Vec<Gathered> = Vec::new();
    let mut index: HashMap<(String, u64), usize> = HashMap::new();
    let mut scattered = false;
    let (mut compared, mut alike) = (0, 0);
    for (at, row) in groups.rows_of::<GroupRow>().enumerate() {
        let row = row?;
        let (last, next) = (gathered.len().checked_sub(1), gathered.len());
        let group = *index.entry((row.prompt_id.clone(), row.policy_step)).or_insert(next);
        if group == next {
            let (prompt_id, policy_step) = (row.prompt_id.clone(), row.policy_step);
            gathered.push(Gathered { prompt_id, policy_step, prompt: None, rows: Vec::new() });
        } else {
            scattered |= Some(group) != last;
        }
        let group = &mut gathered[group];
        group.prompt = group.prompt.take().or(row.prompt_token_ids);
        if row.finish_reason == FinishReason::Error {
            continue;
        }
        if let (Some(ids), Some(text)) = (&row.token_ids, &row.text)
            && compared < COMPARED
        {
            compared += 1;
            alike += usize::from(tokens.tokenizer.decode(ids).is_ok_and(|decoded| is_alike(&decoded, text)));
        }
        let text =
            tokens.wanted(row.token_ids.is_some(), row.text).map_err(|e| e.in_file(place()).at_row(at as u64))?;
        if !drawn.said.contains(&row.sampling) {
            drawn.said.insert(row.sampling);
        }
        group.rows.push(Completed {
            sample_index: row.sample_index,
            id: hash_id(&row.completion_id),
            row: at as u64,
            completion: ScoredCompletion {
                logprobs: row.logprobs.filter(|_| text.is_none()),
                tokens: row.token_ids.unwrap_or_default(),
                reward: row.reward,
                scores: row.scores.into_iter().map(|s| (s.rule, s.score)).collect(),
                truncated: row.finish_reason == FinishReason::Length,
            },
            text,
        });
    }
    if 2 * alike < compared {
        return Err(Error::new(format!(
            "the token ids of {} of the first {compared} completions are other texts to this model's tokenizer",
            compared - alike
        ))
        .in_file(groups.location())
        .hint("these groups are another model's: sample them again from one with this tokenizer"));
    }
    let all = gathered.len();
    let mut stored =
        Stored { groups: Vec::with_capacity(all), drawn, scattered, tokenised: 0, drops: Drops::default() };
    let renderer = Renderer::new(tokens)?;
    for group in gathered {
        if group.rows.is_empty() {
            let place = [("prompt_id", group.prompt_id.into()), ("policy_step", group.policy_step.into())];
            stored.drops.add(place, "request_failed", "every request of the group failed");
            continue;
        }
        stored.tokenised += group.rows.iter().filter(|row| row.text.is_some()).count() as u64;
        let first = group.rows[0].row;
        stored.groups.push(renderer.finish(group).map_err(|e| e.in_file(place()).at_row(first))?);
    }
    let left_out = stored.drops.total();
    if stored.groups.is_empty() && left_out > 0 {
        return Err(Error::new(format!("none of the {all} groups has a completion: every request failed"))
            .in_file(groups.location())
            .hint("look at the `error` of the completions; `gristmill run` asks failed requests again"));
    }
    stored.drops.say(format!("{left_out} of {all} groups have no completion and are left out"));
    Ok(stored)
}

impl Tokens<'_> {
    /// The text that is to be made tokens of; `None` where the row brings them.
    fn wanted(&self, has_ids: bool, text: Option<String>) -> Result<Option<String>> {
        if has_ids {
            return Ok(None);
        }
        let text = text.ok_or_else(|| {
            Error::new("the completion carries neither token ids nor text").hint("make the groups with `carry = true`")
        })?;
        match self.old_logprobs {
            OldLogprobs::Recompute => Ok(Some(text)),
            OldLogprobs::Rollout => Err(Error::usage(
                "the completion has no token ids, so the sampler's logprobs are of other tokens than it is trained on",
            )
            .hint("leave `old_logprobs = \"rollout\"` out: the policy's own are then computed")),
        }
    }
}

/// Shows the policy what rows do not bring as tokens.
struct Renderer<'a> {
    tokenizer: &'a Tokenizer,
    prompts: Option<Lookup>,
}

impl<'a> Renderer<'a> {
    fn new(tokens: &Tokens<'a>) -> Result<Self> {
        let columns: &[&str] = &["messages"];
        let lookup = |of| Lookup::build(of, Some(DatasetKind::Prompts), "prompt_id", Some(columns));
        Ok(Renderer { tokenizer: tokens.tokenizer, prompts: tokens.prompts.map(lookup).transpose()? })
    }

    /// The prompt of this id as the policy is shown it.
    fn show(&self, prompt_id: &str) -> Result<String> {
        let Some(prompts) = &self.prompts else {
            return Err(Error::new("the group does not carry its prompt's tokens").hint(
                "name the prompts that it answers beside `groups`, and they are tokenised: `prompts = \"…\"`; or make the \
                 groups with `carry = true`, from an engine that returns `prompt_token_ids`",
            ));
        };
        let (batch, row) = prompts.get(prompt_id)?.ok_or_else(|| {
            Error::new(format!("the group answers a prompt that is not there: {prompt_id}"))
                .hint("give the prompts that the completions were made from")
        })?;
        let shown = messages_at(&batch, "messages", row).and_then(|turns| self.tokenizer.render(&turns, true));
        shown.map_err(|e| prompts.locate(prompt_id, e))
    }

    /// The group with its completions in sample order.
    fn finish(&self, group: Gathered) -> Result<ScoredGroup> {
        let Gathered { prompt_id, policy_step, prompt, mut rows } = group;
        rows.sort_by_key(|row| (row.sample_index, row.id));
        if let Some(twice) = rows.windows(2).find(|pair| pair[0].id == pair[1].id) {
            return Err(Error::new("a completion is twice in its group")
                .in_field("completion_id")
                .at_row(twice[1].row)
                .hint("ids must be unique; remove the duplicate rows"));
        }
        let lacks_tokens = rows.iter().any(|row| row.text.is_some());
        let (prompt, shown) = match prompt {
            Some(prompt) if lacks_tokens => {
                let shown = self.tokenizer.decode(&prompt)?;
                (prompt, shown)
            }
            Some(prompt) => (prompt, String::new()),
            None => {
                let shown = self.show(&prompt_id)?;
                (self.tokenizer.encode(&shown)?, shown)
            }
        };
        let completion = |row: Completed| -> Result<ScoredCompletion> {
            let Some(text) = row.text else { return Ok(row.completion) };
            let tokens = reply_tokens(self.tokenizer, &shown, &text, !row.completion.truncated)?.tokens;
            Ok(ScoredCompletion { tokens, ..row.completion })
        };
        let completions = rows.into_iter().map(completion).collect::<Result<_>>()?;
        Ok(ScoredGroup { prompt_id, policy_step, prompt, completions })
    }
}

#[cfg(test)]
mod tests;
