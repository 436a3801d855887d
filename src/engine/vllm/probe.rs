//! Whether a server has the weights it was told to load: it must read a text as their owner does.
//!
//! A reload may be answered with 200 and leave something old behind: a packed copy of the head, a
//! base that an adapter was not trained from, another model altogether. Nothing would fail; rollouts
//! would be of a policy that nobody trains. So whoever sends weights also sends a short text with
//! the logprobs they give it, and the server's own must be the same within a tolerance.

use std::collections::HashMap;
use std::time::Duration;

use serde::Deserialize;
use serde_json::json;

use super::fault::{Fault, FaultKind};
use super::transport::Endpoint;

/// A text and how a policy reads it.
#[derive(Clone, Debug, PartialEq)]
pub struct Probe {
    /// Token ids, at least two.
    pub tokens: Vec<u32>,
    /// The policy's logprob of every token but the first.
    pub logprobs: Vec<f32>,
    /// Greatest mean difference to a server's logprobs, in nats a token.
    pub tolerance: f64,
}

#[derive(Deserialize)]
struct Reply {
    choices: Vec<Choice>,
}

#[derive(Deserialize)]
struct Choice {
    /// By position; the first token has none. By token id: vLLM gives the prompt's own token, and
    /// more if asked.
    prompt_logprobs: Option<Vec<Option<HashMap<String, Entry>>>>,
}

#[derive(Deserialize)]
struct Entry {
    logprob: f64,
}

const DEADLINE: Duration = Duration::from_secs(300);

/// Asks a server how it reads the text; answers with the mean difference in nats a token.
///
/// # Errors
/// The request fails, or the server reads the text differently ([`FaultKind::OtherPolicy`]).
pub(super) async fn verify(endpoint: &Endpoint, model: &str, probe: &Probe) -> Result<f64, Fault> {
    let body = json!({
        "model": model, "prompt": probe.tokens, "prompt_logprobs": 0,
        // vLLM makes a token at least. Nothing scales its logprobs at temperature 1.
        "max_tokens": 1, "temperature": 1.0, "top_p": 1.0,
    });
    let reply = endpoint.post("v1/completions", body.to_string().into_bytes(), DEADLINE).await?;
    let theirs = read(&reply, &probe.tokens)
        .map_err(|what| Fault::new(FaultKind::Malformed, format!("the answer to a probe of its weights {what}")))?;
    let sum: f64 = theirs.iter().zip(&probe.logprobs).map(|(t, o)| (t - f64::from(*o)).abs()).sum();
    let gap = sum / theirs.len() as f64;
    if gap <= probe.tolerance {
        return Ok(gap);
    }
    let (ours, theirs) = (mean(probe.logprobs.iter().map(|&l| f64::from(l))), mean(theirs.iter().copied()));
    Err(Fault::new(
        FaultKind::OtherPolicy,
        format!(
            "it was told to load the policy and answers as another: its logprobs of a text of {} tokens differ by {gap:.4} \
             nats a token ({theirs:.4} on average, where the policy has {ours:.4}); {} is tolerated",
            probe.tokens.len(),
            probe.tolerance
        ),
    ))
}

fn mean(values: impl ExactSizeIterator<Item = f64>) -> f64 {
    let n = values.len() as f64;
    values.sum::<f64>() / n
}

/// The logprob of every token but the first.
fn read(reply: &[u8], tokens: &[u32]) -> Result<Vec<f64>, String> {
    let reply: Reply = serde_json::from_slice(reply).map_err(|e| format!("is not that of a completion: {e}"))?;
    let listed = reply.choices.into_iter().next().and_then(|choice| choice.prompt_logprobs);
    let listed = listed.ok_or("holds no `prompt_logprobs`")?;
    if listed.len() != tokens.len() {
        return Err(format!("has logprobs of {} tokens, not of {}", listed.len(), tokens.len()));
    }
    let of = |(entries, id): (&Option<HashMap<String, Entry>>, &u32)| {
        let entry = entries.as_ref().and_then(|entries| entries.get(&id.to_string()));
        entry.map(|entry| entry.logprob).ok_or_else(|| format!("has no logprob of the token {id}"))
    };
    listed.iter().zip(tokens).skip(1).map(of).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn logprobs_are_found_by_token_id_and_what_is_missing_is_said() {
        let reply = br#"{"choices": [{"text": "x", "prompt_logprobs": [null,
            {"7": {"logprob": -0.5, "rank": 2}, "9": {"logprob": -0.1, "rank": 1}}, {"8": {"logprob": -2.0}}]}]}"#;
        assert_eq!(read(reply, &[5, 7, 8]).unwrap(), [-0.5, -2.0]);
        assert!(read(reply, &[5, 7]).unwrap_err().contains("of 3 tokens, not of 2"));
        assert!(read(reply, &[5, 7, 9]).unwrap_err().contains("no logprob of the token 9"));
        assert!(read(br#"{"choices": [{"text": "x"}]}"#, &[5, 7]).unwrap_err().contains("no `prompt_logprobs`"));
        assert!(read(b"<html>", &[5, 7]).unwrap_err().contains("not that of a completion"));
    }
}
