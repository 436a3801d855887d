//! Tokenised conversations on disk, so that a corpus of any size trains in bounded memory.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::ops::Range;

use memmap2::Mmap;
use rayon::prelude::*;

use crate::error::{Context, Error, Result};
use crate::model::{Config, Tokenizer};
use crate::schema::{Message, Role};
use crate::train::{Sequence, Source};

/// Sequences in a temporary file: `[tokens … trained tokens …]` of each, back to back.
///
/// The file has no name: it goes when the process does, however that ends.
pub struct TokenStore {
    map: Mmap,
    /// Where each sequence lies, in tokens, and which of its tokens are trained on.
    rows: Vec<(Range<usize>, Range<usize>)>,
}

impl TokenStore {
    /// Stores sequences that each have one trained range.
    ///
    /// # Errors
    /// An iterator's error; a disk that has no room for 4 bytes a token.
    pub fn build(sequences: impl Iterator<Item = Result<Sequence>>) -> Result<Self> {
        let failed = || "the tokenised corpus cannot be kept on disk".to_owned();
        let file = tempfile::tempfile().or_fail(failed)?;
        let mut out = BufWriter::with_capacity(1 << 20, file);
        let mut rows = Vec::new();
        let mut end = 0;
        for sequence in sequences {
            let Sequence { tokens, trained } = sequence?;
            let trained = trained.into_iter().next().unwrap_or_default();
            out.write_all(bytemuck::cast_slice(&tokens)).or_fail(failed)?;
            rows.push((end..end + tokens.len(), trained));
            end += tokens.len();
        }
        if end == 0 {
            // An empty file cannot be mapped.
            out.write_all(&[0; 4]).or_fail(failed)?;
        }
        let file: File = out.into_inner().map_err(std::io::IntoInnerError::into_error).or_fail(failed)?;
        // SAFETY: the file has no name and this is its only handle: nobody changes it under the map.
        let map = unsafe { Mmap::map(&file) }.or_fail(failed)?;
        Ok(TokenStore { map, rows })
    }

    /// All tokens of all sequences.
    pub fn tokens(&self) -> u64 {
        self.rows.last().map_or(0, |(range, _)| range.end as u64)
    }
}

impl Source<Sequence> for TokenStore {
    fn len(&self) -> usize {
        self.rows.len()
    }

    fn get(&mut self, index: usize) -> Result<Sequence> {
        let (range, trained) = self.rows[index].clone();
        let tokens: &[u32] = bytemuck::cast_slice(&self.map[range.start * 4..range.end * 4]);
        Ok(Sequence { tokens: tokens.to_vec(), trained: std::iter::once(trained).collect() })
    }

    fn longest(&self, context: usize) -> usize {
        let rows = self.rows.iter().map(|(tokens, _)| tokens.len().saturating_sub(1));
        rows.filter(|&rows| rows <= context).max().unwrap_or(0)
    }
}

/// Rows mapped together: enough to keep every core busy, and little to hold.
const ROWS_AT_ONCE: usize = 4096;

/// Maps rows on all cores, in their order, holding [`ROWS_AT_ONCE`] of them.
pub fn in_order<T: Send, R: Send>(
    mut rows: impl Iterator<Item = T>,
    map: impl Fn(T) -> R + Sync,
) -> impl Iterator<Item = R> {
    let chunks = std::iter::from_fn(move || {
        let chunk: Vec<T> = rows.by_ref().take(ROWS_AT_ONCE).collect();
        (!chunk.is_empty()).then(|| chunk.into_par_iter().map(&map).collect::<Vec<R>>())
    });
    chunks.flatten()
}

/// Packed tokens of the longest row that a model of this shape can be trained on, where none has more than `most` tokens.
pub fn longest_row(config: &Config, most: Option<usize>) -> usize {
    // The last token is only a target.
    most.map_or(config.context, |most| config.context.min(most.saturating_sub(1)))
}

/// A reply as tokens.
#[derive(Debug, PartialEq)]
pub struct Reply {
    /// With the token that ends a turn, if the reply ends.
    pub tokens: Vec<u32>,
    /// Whether reasoning that the prompt opened was closed before it, since it has none.
    pub closes_reasoning: bool,
}

/// What to tell people of replies without reasoning, if there are any: `what` is trained on.
pub fn tell_closed(closed: u64, total: u64, what: &str) -> Option<String> {
    (closed > 0).then(|| {
        format!(
            "{closed} of {total} {what} have no reasoning, which the chat template opens: it is closed again before them"
        )
    })
}

/// Tokens of a conversation whose last turn is trained on: (prompt, completion).
///
/// The prompt is what the engine would show the model. The completion is the turn's text as it
/// is, and the token that ends a turn: a template that hides earlier reasoning must not hide the
/// reasoning that is to be learned.
///
/// # Errors
/// A conversation that does not end with the assistant, a template that refuses it.
pub fn completion_tokens(tokenizer: &Tokenizer, messages: &[Message]) -> Result<(Vec<u32>, Reply)> {
    let Some((last, before)) = messages.split_last().filter(|(last, _)| last.role == Role::Assistant) else {
        return Err(Error::new("the conversation does not end with the assistant's turn").in_field("messages"));
    };
    let shown = tokenizer.render(before, true)?;
    Ok((tokenizer.encode(&shown)?, reply_tokens(tokenizer, &shown, &last.content, true)?))
}

/// What closes reasoning that holds nothing, as Qwen3 writes it.
const NO_REASONING: &str = "\n</think>\n\n";

/// Tokens of the reply that follows a rendered prompt, and of the end of the turn if it `ends` there: what was cut at
/// its token limit does not.
///
/// # Errors
/// What the tokenizer reports.
pub fn reply_tokens(tokenizer: &Tokenizer, shown: &str, reply: &str, ends: bool) -> Result<Reply> {
    // Templates of reasoning models open the reasoning themselves: it must not be opened twice, nor take up an answer
    // that was given without any. What was cut may have been cut within its reasoning.
    let opened = shown.trim_end().ends_with("<think>");
    let closes_reasoning = opened && ends && !reply.contains("<think>") && !reply.contains("</think>");
    let mut tokens = match opened {
        false => tokenizer.encode(reply)?,
        true if closes_reasoning => tokenizer.encode(&format!("{NO_REASONING}{}", reply.trim_start_matches('\n')))?,
        true => {
            let reply = reply.trim_start().strip_prefix("<think>").unwrap_or(reply);
            tokenizer.encode(reply.trim_start_matches('\n'))?
        }
    };
    tokens.extend(tokenizer.end_of_turn().filter(|_| ends));
    Ok(Reply { tokens, closes_reasoning })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sequences_come_back_as_they_were_stored() {
        let rows = [(&[1][..], &[2, 3][..]), (&[], &[]), (&[], &[7])];
        let rows = rows.map(|(prompt, completion)| Sequence::completion(prompt, completion));
        let mut store = TokenStore::build(rows.iter().cloned().map(Ok)).unwrap();
        assert_eq!((store.len(), store.tokens()), (3, 4));
        assert_eq!((store.longest(8), store.longest(1)), (2, 0));
        for (index, row) in rows.into_iter().enumerate() {
            assert_eq!(store.get(index).unwrap(), row);
        }
        assert!(TokenStore::build(std::iter::empty()).unwrap().is_empty());
    }

    #[test]
    fn rows_are_mapped_in_their_order_and_errors_come_where_they_are() {
        let rows = 0..2 * ROWS_AT_ONCE + 7;
        let doubled: Vec<usize> = in_order(rows.clone(), |i| 2 * i).collect();
        assert!(doubled.into_iter().eq(rows.clone().map(|i| 2 * i)));
        let broken = |i| match i % 5000 {
            4999 => Err(Error::new(format!("row {i}"))),
            _ => Ok(Sequence::completion(&[], &[i as u32])),
        };
        let error = TokenStore::build(in_order(rows, broken)).err().unwrap().to_string();
        assert!(error.contains("row 4999"), "{error}");
    }

    #[test]
    fn reasoning_that_the_template_opens_is_not_opened_twice() {
        let words = ["<eos>", "<unk>", "<think>", "ask", "why", "</think>"].map(str::to_owned);
        let tokenizer = Tokenizer::words(&words, "<unk>", "<eos>", "").unwrap();
        let completion = |shown: &str, reply: &str| reply_tokens(&tokenizer, shown, reply, true).unwrap().tokens;
        assert_eq!(completion("ask <think>\n", "<think>\nwhy </think>"), vec![4, 5, 0]);
        assert_eq!(completion("ask", "<think> why </think>"), vec![2, 4, 5, 0]);
        let cut = reply_tokens(&tokenizer, "ask", "<think> why", false).unwrap();
        assert_eq!(cut, Reply { tokens: vec![2, 4], closes_reasoning: false }, "cut, so no end");
    }

    #[test]
    fn an_answer_without_reasoning_is_not_taken_up_by_reasoning_that_the_template_opens() {
        let words = ["<eos>", "<unk>", "<think>", "ask", "why", "</think>"].map(str::to_owned);
        let tokenizer = Tokenizer::words(&words, "<unk>", "<eos>", "{{ messages[0].content }} <think>\n").unwrap();
        let turn = |role, content: &str| Message { role, content: content.to_owned() };
        let trained = |reply: &str| {
            let turns = [turn(Role::User, "ask"), turn(Role::Assistant, reply)];
            completion_tokens(&tokenizer, &turns).unwrap()
        };
        let closed = Reply { tokens: vec![5, 4, 0], closes_reasoning: true };
        assert_eq!(trained("why"), (vec![3, 2], closed));
        for (reply, tokens) in [("<think>\nask </think> why", [3, 5, 4, 0]), ("ask </think> why", [3, 5, 4, 0])] {
            assert_eq!(trained(reply).1, Reply { tokens: tokens.to_vec(), closes_reasoning: false }, "{reply}");
        }
        let cut = reply_tokens(&tokenizer, "ask <think>", "why", false).unwrap();
        assert_eq!(
            cut,
            Reply { tokens: vec![4], closes_reasoning: false },
            "it may have been cut within its reasoning"
        );
        assert_eq!(tell_closed(0, 3, "rows"), None);
        assert!(tell_closed(1, 3, "rows").unwrap().starts_with("1 of 3 rows have no reasoning"));
    }
}
