//! Reasoning and answer of a completion, told apart once for every rule and for the corpus.
//!
//! Models close a chain of thought with `</think>`; the opening tag may be
//! missing because the chat template already wrote it, the closing one because
//! the completion was cut. R1-Zero also wraps the answer in `<answer>`.

mod stream;

pub use stream::{Part, Stream};

/// The tags of a reasoning format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tags<'t> {
    /// Before the reasoning, `<think>`; the template may have written it.
    pub think_open: &'t str,
    /// After the reasoning, `</think>`.
    pub think_close: &'t str,
    /// Before the answer, `<answer>`; may be left out.
    pub answer_open: &'t str,
    /// After the answer, `</answer>`; without it the answer ends with the completion.
    pub answer_close: &'t str,
    /// The template wrote the opening tag, so a completion without tags is reasoning that was cut.
    pub opened: bool,
}

impl Tags<'static> {
    /// `<think>`, `</think>`, `<answer>`, `</answer>`, written by the model.
    pub const R1: Tags<'static> = Tags {
        think_open: "<think>",
        think_close: "</think>",
        answer_open: "<answer>",
        answer_close: "</answer>",
        opened: false,
    };
}

/// How the reasoning of a completion is delimited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// No reasoning tags at all.
    Plain,
    /// Opened and closed.
    Closed,
    /// Closed only: the template opened it.
    ImplicitOpen,
    /// Opened (or reopened) and never closed: the completion was cut in its reasoning.
    Unclosed,
}

/// The parts of a completion; every slice borrows from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Parts<'a> {
    /// Which reasoning tags there were.
    pub shape: Shape,
    /// The chain of thought, tags taken off, trimmed; `None` without reasoning tags.
    pub reasoning: Option<&'a str>,
    /// What follows the last closing tag (all of a plain completion), or the inside of its last
    /// `<answer>`; trimmed. Empty when the reasoning was never closed.
    pub answer: &'a str,
    /// Whether `answer` came out of a closed answer tag.
    pub answer_tagged: bool,
    /// Text before the first opening tag, trimmed; empty for most.
    pub before: &'a str,
}

impl<'a> Parts<'a> {
    /// The chain of thought where there is one, else the whole completion: what rules on
    /// reasoning read.
    pub fn thought(&self) -> &'a str {
        self.reasoning.unwrap_or(self.answer)
    }
}

/// Splits a completion at R1's tags.
///
/// The *last* closing tag ends the reasoning, so an answer that stands between
/// two of them is not one; an opening tag after it reopens the reasoning.
pub fn split(completion: &str) -> Parts<'_> {
    split_at(completion, &Tags::R1)
}

/// Splits a completion at the given tags. One pass of substring search for each tag.
pub fn split_at<'a>(completion: &'a str, tags: &Tags<'_>) -> Parts<'a> {
    let first_open = completion.find(tags.think_open);
    let last_close = completion.rfind(tags.think_close);
    let (shape, before, reasoning, rest) = match (first_open, last_close) {
        (None, None) if tags.opened => (Shape::Unclosed, "", Some(completion), ""),
        (None, None) => (Shape::Plain, "", None, completion),
        (Some(open), None) => {
            (Shape::Unclosed, &completion[..open], Some(&completion[open + tags.think_open.len()..]), "")
        }
        (open, Some(close)) => {
            let rest = &completion[close + tags.think_close.len()..];
            let open = open.filter(|&open| open < close);
            let start = open.map_or(0, |open| open + tags.think_open.len());
            let before = &completion[..open.unwrap_or(0)];
            if rest.contains(tags.think_open) {
                (Shape::Unclosed, before, Some(&completion[start..]), "")
            } else {
                let shape = if open.is_some() { Shape::Closed } else { Shape::ImplicitOpen };
                (shape, before, Some(&completion[start..close]), rest)
            }
        }
    };
    let (answer, answer_tagged) = match rest.rfind(tags.answer_open) {
        None => (rest, false),
        Some(open) => {
            let inside = &rest[open + tags.answer_open.len()..];
            match inside.find(tags.answer_close) {
                Some(close) => (&inside[..close], true),
                None => (inside, false),
            }
        }
    };
    Parts { shape, reasoning: reasoning.map(str::trim), answer: answer.trim(), answer_tagged, before: before.trim() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn reasoning_and_answer_come_apart() {
        let parts = split("<think>\n2+2=4\n</think>\n\nIt is 4.");
        assert_eq!((parts.shape, parts.reasoning, parts.answer), (Shape::Closed, Some("2+2=4"), "It is 4."));
    }

    #[test]
    fn answer_tags_are_taken_off() {
        let parts = split("<think>x</think><answer> 4 </answer>");
        assert_eq!((parts.answer, parts.answer_tagged), ("4", true));
    }

    #[test]
    fn a_template_that_opened_the_tag_is_understood() {
        let parts = split("so 4\n</think>4");
        assert_eq!((parts.shape, parts.reasoning, parts.answer), (Shape::ImplicitOpen, Some("so 4"), "4"));
    }

    #[test]
    fn a_cut_chain_of_thought_has_no_answer() {
        for text in ["<think>the answer is 4", "<think>a</think>b<think>4"] {
            let parts = split(text);
            assert_eq!((parts.shape, parts.answer), (Shape::Unclosed, ""), "{text}");
        }
        let opened = Tags { opened: true, ..Tags::R1 };
        assert_eq!(split_at("the answer is 4", &opened).answer, "");
    }

    #[test]
    fn the_last_closing_tag_ends_the_reasoning() {
        let parts = split("<think>a</think> 5 </think> 6");
        assert_eq!((parts.reasoning, parts.answer), (Some("a</think> 5"), "6"));
    }

    #[test]
    fn no_tags_is_all_answer() {
        let parts = split(" just 4 ");
        assert_eq!((parts.shape, parts.reasoning, parts.answer), (Shape::Plain, None, "just 4"));
    }

    proptest! {
        #[test]
        fn never_panics_and_never_leaks_reasoning_into_the_answer(
            pieces in prop::collection::vec(prop_oneof![
                Just("<think>"), Just("</think>"), Just("<answer>"), Just("</answer>"), Just("é "), Just("4")], 0..12)
        ) {
            let text = pieces.concat();
            let parts = split(&text);
            prop_assert!(!parts.answer.contains("</think>"));
            prop_assert!(text.contains(parts.answer));
        }
    }
}
