//! An answer in the journal of requests: keys that tell whether it is wanted, then the completion.
//!
//! The prompt's key, the completion's key, the length of the JSON, the completion as JSON without its
//! tokens; then its token ids, logprobs and prompt token ids, each a count and so many numbers as they lie
//! in memory (little endian). Numbers keep every bit, and a million of them are not text.

use crate::engine::Generated;
use crate::error::{Error, Result};
use crate::schema::Completion;

/// Raised when the layout changes: journals of another one are not read.
pub const FORMAT: u32 = 3;
const KEY: usize = 16;
/// The count of a list that is null.
const NULL: u32 = u32::MAX;

/// What an id is found by.
pub fn key(id: &str) -> u128 {
    u128::from_le_bytes(blake3::hash(id.as_bytes()).as_bytes()[..KEY].try_into().expect("a digest has 32 bytes"))
}

/// An answer as a completion, where what it is kept in says who made it and how.
pub fn completion(generated: Generated, completion_id: String, policy_step: u64) -> Completion {
    Completion {
        completion_id,
        prompt_id: generated.prompt_id.to_string(),
        sample_index: generated.sample_index,
        text: generated.text,
        token_ids: generated.token_ids,
        logprobs: generated.logprobs,
        prompt_token_ids: generated.prompt_token_ids,
        finish_reason: generated.finish_reason,
        stop_reason: generated.stop_reason,
        prompt_tokens: generated.prompt_tokens,
        completion_tokens: generated.completion_tokens,
        engine: String::new(),
        model: String::new(),
        model_digest: String::new(),
        policy_step,
        seed: None,
        sampling: String::new(),
        label: None,
        error: generated.error,
    }
}

/// The answer that [`completion`] was made of.
pub fn generated(completion: Completion) -> Generated {
    Generated {
        prompt_id: completion.prompt_id.into(),
        sample_index: completion.sample_index,
        text: completion.text,
        token_ids: completion.token_ids,
        logprobs: completion.logprobs,
        prompt_token_ids: completion.prompt_token_ids,
        finish_reason: completion.finish_reason,
        stop_reason: completion.stop_reason,
        prompt_tokens: completion.prompt_tokens,
        completion_tokens: completion.completion_tokens,
        error: completion.error,
        label: None,
    }
}

/// The record of an answer.
pub fn write(mut completion: Completion) -> Vec<u8> {
    let (tokens, logprobs) = (completion.token_ids.take(), completion.logprobs.take());
    let prompt = completion.prompt_token_ids.take();
    let numbers: usize =
        [tokens.as_ref().map(Vec::len), logprobs.as_ref().map(Vec::len), prompt.as_ref().map(Vec::len)]
            .into_iter()
            .flatten()
            .sum();
    let text = completion.text.as_ref().map_or(0, String::len);
    let mut record = Vec::with_capacity(2 * KEY + 16 + 1024 + text + 4 * numbers);
    record.extend(key(&completion.prompt_id).to_le_bytes());
    record.extend(key(&completion.completion_id).to_le_bytes());
    record.extend([0; 4]);
    let start = record.len();
    serde_json::to_writer(&mut record, &completion).expect("a completion is plain data");
    let json = ((record.len() - start) as u32).to_le_bytes();
    record[start - 4..start].copy_from_slice(&json);
    put(&mut record, tokens.as_deref(), |token| token.to_le_bytes());
    put(&mut record, logprobs.as_deref(), |logprob| logprob.to_le_bytes());
    put(&mut record, prompt.as_deref(), |token| token.to_le_bytes());
    record
}

fn put<T: Copy>(record: &mut Vec<u8>, list: Option<&[T]>, bytes: impl Fn(T) -> [u8; 4]) {
    record.extend(list.map_or(NULL, |list| list.len() as u32).to_le_bytes());
    record.extend(list.unwrap_or_default().iter().flat_map(|&item| bytes(item)));
}

/// The keys of a record's prompt and completion; `None` if it is no record.
pub fn keys(record: &[u8]) -> Option<(u128, u128)> {
    let (prompt, rest) = record.split_first_chunk::<KEY>()?;
    let completion = rest.first_chunk::<KEY>()?;
    Some((u128::from_le_bytes(*prompt), u128::from_le_bytes(*completion)))
}

/// The completion of a record.
///
/// # Errors
/// It is no record: the journal's checksums hold, so something else wrote it.
pub fn read(record: &[u8]) -> Result<Completion> {
    parse(record).ok_or_else(|| Error::new("the journal of requests holds something else than answers"))
}

fn parse(record: &[u8]) -> Option<Completion> {
    let rest = record.get(2 * KEY..)?;
    let (json, rest) = rest.split_first_chunk::<4>()?;
    let (json, mut rest) = rest.split_at_checked(u32::from_le_bytes(*json) as usize)?;
    let mut completion: Completion = serde_json::from_slice(json).ok()?;
    completion.token_ids = take(&mut rest, u32::from_le_bytes)?;
    completion.logprobs = take(&mut rest, f32::from_le_bytes)?;
    completion.prompt_token_ids = take(&mut rest, u32::from_le_bytes)?;
    rest.is_empty().then_some(completion)
}

fn take<T>(rest: &mut &[u8], number: impl Fn([u8; 4]) -> T) -> Option<Option<Vec<T>>> {
    let (count, behind) = rest.split_first_chunk::<4>()?;
    *rest = behind;
    let count = u32::from_le_bytes(*count);
    if count == NULL {
        return Some(None);
    }
    let (numbers, behind) = rest.split_at_checked(count as usize * 4)?;
    *rest = behind;
    let (numbers, _) = numbers.as_chunks::<4>();
    Some(Some(numbers.iter().map(|bytes| number(*bytes)).collect()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schema::FinishReason;

    fn completion() -> Completion {
        Completion {
            prompt_id: "p".into(),
            sample_index: 3,
            completion_id: "c".into(),
            text: Some("é\n\u{0}\"".into()),
            token_ids: Some(vec![0, u32::MAX - 1, 7]),
            logprobs: Some(vec![-0.1, f32::MIN_POSITIVE, -1.0e-30, 0.123_456_79]),
            prompt_token_ids: None,
            finish_reason: FinishReason::Length,
            stop_reason: None,
            prompt_tokens: Some(1),
            completion_tokens: None,
            engine: "vllm".into(),
            model: "m".into(),
            model_digest: "d".into(),
            policy_step: 0,
            seed: Some(u64::MAX),
            sampling: "{}".into(),
            label: None,
            error: None,
        }
    }

    #[test]
    fn an_answer_reads_back_to_the_bit() {
        for lists in [true, false] {
            let mut answer = completion();
            if !lists {
                (answer.token_ids, answer.logprobs) = (None, Some(Vec::new()));
            }
            let record = write(answer.clone());
            assert_eq!(keys(&record), Some((key("p"), key("c"))));
            assert_eq!(read(&record).unwrap(), answer);
        }
        let mut odd = completion();
        odd.logprobs = Some(vec![f32::NAN, f32::NEG_INFINITY, -0.0]);
        let read = read(&write(odd.clone())).unwrap();
        let bits = |c: &Completion| c.logprobs.as_ref().unwrap().iter().map(|x| x.to_bits()).collect::<Vec<_>>();
        assert_eq!(bits(&read), bits(&odd));
    }

    #[test]
    fn what_is_cut_or_longer_is_no_answer() {
        let record = write(completion());
        assert!((0..record.len()).all(|end| read(&record[..end]).is_err()));
        assert!(read(&[record, vec![0]].concat()).is_err());
    }
}
