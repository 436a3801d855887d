//! Where in a completion the answer is: an ordered list of places to look, searched from the end.

mod boxed;
mod closing;
mod derivation;
mod phrase;
mod span;

use super::{MathConfig, denial};
use crate::rule::params::choices;

choices! {
    /// A place an answer can stand, in the names that rule files use.
    pub enum Place {
        /// The last balanced `\boxed` or `\fbox`, joined with its neighbours.
        Boxed = "boxed",
        /// After the last `####`.
        Hash = "hash",
        /// After "the final answer is", "答案是", "Antwort:" and the like.
        FinalAnswer = "final_answer",
        /// The last `$…$`, `\(…\)`, `\[…\]` or display environment.
        LastMath = "last_math",
        /// The last line, when it is an expression or an equation.
        LastLine = "last_line",
        /// The last number anywhere. A reward hack unless the prompt asks for a bare number: opt in.
        LastNumber = "last_number",
    }
}

/// An answer found in a completion.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Extracted {
    /// The answer, as written.
    pub text: String,
    /// Where it stood.
    pub place: Place,
    /// Narrower readings of the same place, for answers that stand inside a sentence.
    pub narrower: Vec<String>,
    /// What the answer ends on, where it is a derivation.
    pub end: Option<String>,
    /// How many boxes the text has, and all of them: for a gold answer of that many parts.
    pub boxes: Option<(usize, String)>,
}

impl Extracted {
    fn new(text: String, place: Place) -> Self {
        Extracted { text, place, narrower: Vec::new(), end: None, boxes: None }
    }

    /// An answer that is this text and nothing else.
    pub(super) fn at(text: &str, place: Place) -> Self {
        Extracted::new(text.to_string(), place)
    }

    fn with_end(self) -> Self {
        Extracted { end: derivation::end(&self.text), ..self }
    }
}

/// What of a completion may hold the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Region<'a> {
    Text(&'a str),
    /// Between tags that say that this is the answer.
    Tagged(&'a str),
    /// The reasoning never ended.
    Unfinished,
}

/// The part after the reasoning, when there is reasoning.
pub fn region<'a>(completion: &'a str, config: &MathConfig) -> Region<'a> {
    if !config.think.look() {
        return Region::Text(completion);
    }
    for tags in &config.think_tags {
        if let Some(at) = completion.rfind(tags.close.as_str()) {
            let answer = &completion[at + tags.close.len()..];
            // Reasoning that starts again takes back what stands before it.
            return match answer.contains(tags.open.as_str()) {
                true => Region::Unfinished,
                false => answer_tagged(answer),
            };
        }
        if config.think == super::Think::Required || completion.trim_start().starts_with(tags.open.as_str()) {
            return Region::Unfinished;
        }
    }
    answer_tagged(completion)
}

/// The inside of R1-Zero's last closed `<answer>`, or all of a text that has none.
fn answer_tagged(text: &str) -> Region<'_> {
    let tagged = text.rfind("</answer>").and_then(|end| {
        let start = text[..end].rfind("<answer>")?;
        Some(&text[start + "<answer>".len()..end])
    });
    tagged.map_or(Region::Text(text), Region::Tagged)
}

/// The same between answer tags, where the last sentence is the answer if it has no formula.
pub fn extract_tagged(text: &str, places: &[Place]) -> Option<Extracted> {
    let found = extract(text, places);
    let line = found.as_ref().is_none_or(|found| found.place == Place::LastLine);
    if !line || !places.contains(&Place::FinalAnswer) || boxed::marked(text) {
        return found;
    }
    in_sentence(closing::sentence(text), Place::FinalAnswer)
}

/// Looks in each place in order; the first that holds something is the answer. None where the last box
/// never closes: the text was cut in the middle of its answer.
pub fn extract(text: &str, places: &[Place]) -> Option<Extracted> {
    if boxed::unclosed(text) {
        return None;
    }
    places.iter().find_map(|&place| match place {
        Place::Boxed => boxed::find(text).map(|(found, more)| {
            let boxes = more.then(|| boxed::all(text)).flatten();
            Extracted { boxes, ..Extracted::new(found, place).with_end() }
        }),
        Place::Hash => text.rfind("####").and_then(|at| {
            let line = phrase::first_line(&text[at + 4..]);
            in_sentence(line, place)
        }),
        Place::FinalAnswer => phrase::find(text).and_then(|answer| in_sentence(answer, place)),
        // A box that is empty or never closes was meant to hold the answer.
        Place::LastMath => closing::stated(text).and_then(|said| in_sentence(said, place)).or_else(|| {
            let found = span::last(text).filter(|t| !boxed::marked(t) && !span::last_is_unmeant(text));
            found.map(|text| Extracted::new(text, place).with_end())
        }),
        Place::LastLine => span::last_line(text)
            .filter(|t| !boxed::marked(t) && !is_question(t))
            .and_then(span::formula)
            .and_then(|line| in_sentence(line, place)),
        Place::LastNumber => span::last_number(text).map(|number| Extracted::new(number.to_string(), place)),
    })
}

/// A line that asks states nothing.
fn is_question(line: &str) -> bool {
    line.trim_end_matches(['*', '_', '$', ' ']).ends_with(['?', '？'])
}

/// An answer in running text: as it stands, its formulas, the number it starts with.
fn in_sentence(line: &str, place: Place) -> Option<Extracted> {
    let text = phrase::trim_prose(line);
    if text.is_empty()
        || is_question(text)
        || denial::denies_itself(text)
        || denial::doubted(text.trim_end_matches(['.', '!', ' ']))
    {
        return None;
    }
    let mut narrower = Vec::new();
    if super::reading::plain_integer(text).is_none() && !denial::begins(text) {
        let announced = place != Place::LastLine;
        if announced && let Some(said) = phrase::predicate(text) {
            narrower.push(said.to_string());
        }
        if let Some(formulas) = span::last(text) {
            narrower.push(formulas);
        }
        if let Some(at) = text.rfind('=').filter(|_| place != Place::LastMath) {
            let side = text[at + 1..].trim();
            // A sentence put equal to a word does not say it.
            let value = side.contains(|c: char| c.is_ascii_digit() || c == '\\');
            // "7 when x = 72" says 7.
            let condition = text[..at].split_whitespace().any(|w| matches!(w, "if" | "when" | "unless" | "because"));
            if !condition
                && !denial::turned(&text[..at])
                && !side.is_empty()
                && (value || text[..at].split_whitespace().count() <= 3)
            {
                narrower.push(side.to_string());
            }
        }
        if announced && let Some(number) = span::leading_number(text).or_else(|| phrase::only_number(text)) {
            narrower.push(number.to_string());
        }
    }
    Some(Extracted { narrower, ..Extracted::new(text.to_string(), place) })
}
