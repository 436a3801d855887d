//! Stored groups as training data.

use std::collections::{BTreeSet, HashSet};

use serde_json::Value;

use crate::error::{Error, Result};
use crate::model::Tokenizer;
use crate::schema::{FinishReason, GroupRow};
use crate::store::Dataset;
use crate::train::{ScoredCompletion, ScoredGroup};

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

/// Reads all groups into memory, about 12 bytes a token, and how they were drawn.
///
/// A completion without token ids (another engine's) is tokenised again; its logprobs, which
/// belong to other tokens, are then not known.
///
/// # Errors
/// A row that cannot be read; a group whose rows carry neither token ids nor text; token ids that mean other texts to
/// this tokenizer.
pub fn read(groups: &Dataset, tokenizer: &Tokenizer) -> Result<(Vec<ScoredGroup>, Drawn)> {
    let mut all: Vec<ScoredGroup> = Vec::new();
    let mut drawn = Drawn { place: groups.location().to_string(), ..Drawn::default() };
    let (mut compared, mut alike) = (0, 0);
    for (index, row) in groups.rows_of::<GroupRow>().enumerate() {
        let row = row?;
        let same = |group: &ScoredGroup| (&group.prompt_id, group.policy_step) == (&row.prompt_id, row.policy_step);
        if !all.last().is_some_and(same) {
            let prompt = row.prompt_token_ids.clone().ok_or_else(|| {
                Error::new("the group does not carry its prompt's tokens")
                    .in_file(groups.location())
                    .at_row(index as u64)
                    .hint("make the groups with `carry = true`, from an engine that returns `prompt_token_ids`")
            })?;
            all.push(ScoredGroup {
                prompt_id: row.prompt_id.clone(),
                policy_step: row.policy_step,
                prompt,
                completions: Vec::new(),
            });
        }
        if let (Some(ids), Some(text)) = (&row.token_ids, &row.text)
            && compared < COMPARED
        {
            compared += 1;
            alike += usize::from(tokenizer.decode(ids).is_ok_and(|decoded| is_alike(&decoded, text)));
        }
        let (tokens, logprobs) = match (&row.token_ids, &row.text) {
            (Some(tokens), _) => (tokens.clone(), row.logprobs.clone()),
            (None, Some(text)) => {
                let mut tokens = tokenizer.encode(text)?;
                tokens.extend(tokenizer.end_of_turn().filter(|_| row.finish_reason == FinishReason::Stop));
                (tokens, None)
            }
            (None, None) if row.finish_reason == FinishReason::Error => continue,
            (None, None) => {
                return Err(Error::new("the completion carries neither token ids nor text")
                    .in_file(groups.location())
                    .at_row(index as u64)
                    .hint("make the groups with `carry = true`"));
            }
        };
        if !drawn.said.contains(&row.sampling) {
            drawn.said.insert(row.sampling);
        }
        let group = all.last_mut().expect("pushed above");
        group.completions.push(ScoredCompletion {
            tokens,
            logprobs,
            reward: row.reward,
            scores: row.scores.into_iter().map(|s| (s.rule, s.score)).collect(),
            truncated: row.finish_reason == FinishReason::Length,
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
    Ok((all, drawn))
}

#[cfg(test)]
mod tests {
    use super::{Drawn, is_alike};

    #[test]
    fn groups_have_the_temperature_that_their_rows_say_and_one_alone() {
        let drawn = |said: &[&str]| Drawn { said: said.iter().map(|&s| s.to_owned()).collect(), place: "g".to_owned() };
        let temperature = |said: &[&str]| drawn(said).temperature().map_err(|e| e.render(false));
        assert_eq!(temperature(&[r#"{"temperature":0.7}"#, r#"{"temperature":0.7,"max_tokens":9}"#]), Ok(0.7));
        assert_eq!(temperature(&["{}", "", r#"{"temperature":0.7}"#]), Ok(0.7), "what says nothing says nothing else");
        assert_eq!(temperature(&["greedy?"]), Ok(1.0));
        let mixed = temperature(&[r#"{"temperature":0.7}"#, r#"{"temperature":1.0}"#]).unwrap_err();
        assert!(mixed.contains("0.7 and 1 among them") && mixed.contains("sampling = {"), "{mixed}");
        assert!(temperature(&[r#"{"temperature":0.0}"#]).unwrap_err().contains("above 0"));
        assert_eq!(drawn(&[r#"{"temperature":0.7,"top_p":1.0,"top_k":0,"min_p":0.0}"#]).cut(), None);
        let cut = drawn(&[r#"{"top_p":1.0}"#, r#"{"top_p":0.8}"#]).cut().unwrap();
        assert!(cut.contains("`top_p` 0.8"), "{cut}");
    }

    #[test]
    fn texts_are_alike_where_engines_write_tags_and_ends_differently_and_not_where_ids_are_others() {
        let text = "<think>\nsix times seven\n</think>\nforty-two";
        assert!(is_alike("six times seven\n</think>\nforty-two<|im_end|>", text));
        assert!(is_alike("<think>\nsix times seven\n</think>\nforty-two STOP and more", text));
        assert!(!is_alike("Ġqueue ramp$$ the oh oh, 3;; belo", text));
        assert!(is_alike("", "") && is_alike("4", "4"));
    }
}
