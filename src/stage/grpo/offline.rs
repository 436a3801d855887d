//! Stored groups as training data.

use crate::error::{Error, Result};
use crate::model::Tokenizer;
use crate::schema::{FinishReason, GroupRow};
use crate::store::Dataset;
use crate::train::{ScoredCompletion, ScoredGroup};

/// Reads all groups into memory: about 12 bytes a token.
///
/// A completion without token ids (another engine's) is tokenised again; its logprobs, which
/// belong to other tokens, are then not known.
///
/// # Errors
/// A row that cannot be read; a group whose rows carry neither token ids nor text.
pub fn read(groups: &Dataset, tokenizer: &Tokenizer) -> Result<Vec<ScoredGroup>> {
    let mut all: Vec<ScoredGroup> = Vec::new();
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
    Ok(all)
}
