//! Reasoning and answer told apart while a completion is being written.

use super::Tags;

/// Which part of a completion a piece of text belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// Within the reasoning tags.
    Reasoning,
    /// All else: what follows the reasoning, or a completion without any.
    Answer,
}

/// Takes a completion in pieces and hands over its parts without tags.
///
/// Agrees with [`super::split_at`] on completions that keep to the template. It cannot take back
/// what it showed: reasoning whose opening tag neither the model nor the template wrote comes out
/// as an answer, and the *first* closing tag ends the reasoning. Space around tags is left out.
#[derive(Debug)]
pub struct Stream<'t> {
    tags: Tags<'t>,
    part: Part,
    /// Text of this part was handed over: space is no longer leading.
    begun: bool,
    /// Text not handed over yet: trailing space, and what may turn out to begin a tag.
    held: String,
}

impl<'t> Stream<'t> {
    /// Begins in the reasoning if the template opened it.
    pub fn new(tags: Tags<'t>) -> Self {
        let part = if tags.opened { Part::Reasoning } else { Part::Answer };
        Stream { tags, part, begun: false, held: String::new() }
    }

    /// Takes the next piece in and hands over what is certain.
    pub fn push(&mut self, piece: &str, show: &mut dyn FnMut(Part, &str)) {
        self.held.push_str(piece);
        let Tags { think_open, think_close, answer_open, answer_close, .. } = self.tags;
        let tags = [think_open, think_close, answer_open, answer_close];
        let first = |held: &str| tags.iter().filter_map(|tag| Some((held.find(tag)?, *tag))).min();
        while let Some((at, tag)) = first(&self.held) {
            let rest = self.held.split_off(at + tag.len());
            self.held.truncate(at);
            self.hand_over(at, show);
            self.held = rest;
            let part = match tag {
                _ if tag == think_open => Part::Reasoning,
                _ if tag == think_close || tag == answer_open => Part::Answer,
                _ => self.part,
            };
            self.begun &= part == self.part;
            self.part = part;
        }
        let may_begin = |tag: &str| {
            (1..tag.len()).rev().find(|&n| tag.is_char_boundary(n) && self.held.ends_with(&tag[..n])).unwrap_or(0)
        };
        let certain = self.held.len() - tags.into_iter().map(may_begin).max().unwrap_or(0);
        self.hand_over(certain, show);
    }

    /// Hands over what was held back in case it began a tag.
    pub fn finish(mut self, show: &mut dyn FnMut(Part, &str)) {
        self.hand_over(self.held.len(), show);
    }

    /// Hands over the first bytes of what is held, but not the space at their end.
    fn hand_over(&mut self, bytes: usize, show: &mut dyn FnMut(Part, &str)) {
        let text = self.held[..bytes].trim_end();
        let end = text.len();
        let text = if self.begun { text } else { text.trim_start() };
        if !text.is_empty() {
            show(self.part, text);
            self.begun = true;
            self.held.drain(..end);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Shape, split_at};
    use super::*;
    use proptest::prelude::*;

    /// (reasoning, answer) of a completion that came in pieces.
    fn streamed(pieces: &[&str], tags: Tags<'static>) -> (String, String) {
        let (mut reasoning, mut answer) = (String::new(), String::new());
        let mut show = |part: Part, text: &str| match part {
            Part::Reasoning => reasoning.push_str(text),
            Part::Answer => answer.push_str(text),
        };
        let mut stream = Stream::new(tags);
        pieces.iter().for_each(|piece| stream.push(piece, &mut show));
        stream.finish(&mut show);
        (reasoning, answer)
    }

    #[test]
    fn a_tag_cut_into_pieces_is_still_a_tag() {
        let pieces = ["<th", "ink>\n so 2", " + 2 <", " 5\n</thi", "nk>\n\nIt is <", "answer> 4 </answer", "> "];
        assert_eq!(streamed(&pieces, Tags::R1), ("so 2 + 2 < 5".into(), "It is 4".into()));
    }

    #[test]
    fn what_only_looked_like_a_tag_comes_at_the_end() {
        assert_eq!(streamed(&["a </thi"], Tags::R1), (String::new(), "a </thi".into()));
    }

    #[test]
    fn a_template_that_opened_the_reasoning_is_known() {
        let opened = Tags { opened: true, ..Tags::R1 };
        assert_eq!(streamed(&["so 4</think>", "4"], opened), ("so 4".into(), "4".into()));
        assert_eq!(streamed(&["never closed"], opened), ("never closed".into(), String::new()));
    }

    proptest! {
        #[test]
        fn pieces_do_not_matter_and_whole_completions_split_alike(
            reasoning in "[a-z<é ]{0,12}", answer in "[a-z</> ]{0,12}", cuts in prop::collection::vec(0usize..40, 0..6),
        ) {
            let text = format!("<think>{reasoning}</think>{answer}");
            let mut cuts: Vec<usize> = cuts.into_iter().filter(|&at| at < text.len() && text.is_char_boundary(at)).collect();
            cuts.extend([0, text.len()]);
            cuts.sort_unstable();
            let pieces: Vec<&str> = cuts.windows(2).map(|cut| &text[cut[0]..cut[1]]).collect();
            let parts = split_at(&text, &Tags::R1);
            prop_assert_eq!(parts.shape, Shape::Closed);
            let expected = (parts.reasoning.unwrap_or_default().to_owned(), parts.answer.to_owned());
            prop_assert_eq!(streamed(&pieces, Tags::R1), expected);
        }
    }
}
