//! Stored groups as training data.

use std::collections::HashSet;

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

/// Reads all groups into memory: about 12 bytes a token.
///
/// A completion without token ids (another engine's) is tokenised again; its logprobs, which
/// belong to other tokens, are then not known.
///
/// # Errors
/// A row that cannot be read; a group whose rows carry neither token ids nor text; token ids that mean other texts to
/// this tokenizer.
pub fn read(groups: &Dataset, tokenizer: &Tokenizer) -> Result<Vec<ScoredGroup>> {
    let mut all: Vec<ScoredGroup> = Vec::new();
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
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::is_alike;

    #[test]
    fn texts_are_alike_where_engines_write_tags_and_ends_differently_and_not_where_ids_are_others() {
        let text = "<think>\nsix times seven\n</think>\nforty-two";
        assert!(is_alike("six times seven\n</think>\nforty-two<|im_end|>", text));
        assert!(is_alike("<think>\nsix times seven\n</think>\nforty-two STOP and more", text));
        assert!(!is_alike("Ġqueue ramp$$ the oh oh, 3;; belo", text));
        assert!(is_alike("", "") && is_alike("4", "4"));
    }
}
