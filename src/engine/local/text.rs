//! Text while it grows: pieces for a reader, and stop strings across tokens.

use crate::error::Result;
use crate::model::Tokenizer;

/// What byte-level tokenizers give for bytes that are no whole character yet.
const PARTIAL: char = '\u{fffd}';

/// Decodes tokens one after the other; a character split over tokens appears when
/// it is whole. Decoding a window of the last tokens twice, with and without the
/// newest, keeps the spaces that tokenizers put between words.
#[derive(Debug, Default)]
pub struct Text {
    text: String,
    /// Tokens before `window` are done; those before `read` are in `text`.
    window: usize,
    read: usize,
}

impl Text {
    /// Takes in the newest of `ids`; returns what became readable.
    pub fn push(&mut self, tokenizer: &Tokenizer, ids: &[u32]) -> Result<&str> {
        let start = self.text.len();
        let before = tokenizer.decode(&ids[self.window..self.read])?;
        let after = tokenizer.decode(&ids[self.window..])?;
        if after.len() > before.len() && !after.ends_with(PARTIAL) && after.is_char_boundary(before.len()) {
            self.text.push_str(&after[before.len()..]);
            self.window = self.read;
            self.read = ids.len();
        }
        Ok(&self.text[start..])
    }

    /// The first stop string in the text that ends after byte `from`, and where it starts.
    pub fn stop<'a>(&self, stops: &'a [String], from: usize) -> Option<(usize, &'a str)> {
        let found = stops.iter().filter(|stop| !stop.is_empty()).filter_map(|stop| {
            let start = self.text.floor_char_boundary(from.saturating_sub(stop.len() - 1));
            self.text[start..].find(stop.as_str()).map(|at| (start + at, stop.as_str()))
        });
        found.min_by_key(|(at, _)| *at)
    }

    /// All that is readable so far.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Bytes at the end of the text that may turn out to begin a stop string.
    pub fn held_back(&self, stops: &[String]) -> usize {
        let longest = |stop: &String| {
            (1..stop.len()).rev().filter(|&n| stop.is_char_boundary(n)).find(|&n| self.text.ends_with(&stop[..n]))
        };
        stops.iter().filter_map(longest).max().unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(text: &str) -> Text {
        Text { text: text.into(), ..Text::default() }
    }

    #[test]
    fn a_stop_string_is_found_across_pieces_and_the_first_wins() {
        let stops = ["</answer>".to_owned(), "wer".to_owned()];
        let seen = text("é <answer>4</answer> more");
        assert_eq!(seen.stop(&stops, 12), Some((12, "</answer>")).filter(|_| true));
        assert_eq!(text("nothing").stop(&stops, 0), None);
    }

    #[test]
    fn what_may_begin_a_stop_string_is_held_back() {
        let stops = ["</answer>".to_owned()];
        assert_eq!(text("4 </ans").held_back(&stops), 5);
        assert_eq!(text("4 </ans ").held_back(&stops), 0);
    }
}
