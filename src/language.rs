//! The language of a text, also when it is one short question full of mathematics: [`detect`]. And the language of each
//! word of a text that may mix several: [`count`].
//!
//! Of a question, scripts decide where they can, then letters and small words, then trigrams. Formulas, code, links
//! and quotations say nothing of the language that a question is asked in, and neither do single letters: they
//! are variables. Evidence is required; without it the answer is `und`, for a wrong tag would drop or misroute
//! the text.
//!
//! One idea a file: [`prose`] takes out what is no language, [`script`] counts letters by script, [`lexicon`]
//! knows the words of the languages that share the Latin script, [`letters`] what single letters and endings tell,
//! [`words`] takes the words out of a question, [`tags`] has the names of languages.

mod count;
mod letters;
mod lexicon;
mod prose;
mod script;
mod tags;
mod words;

pub use count::{Counts, LANGUAGES, count};
pub(crate) use script::is_mark;
pub use tags::normalise_tag;

use lexicon::{LATIN, Reader};
use script::Scripts;
use words::Word;

/// What is read of a text, in bytes: enough to tell, and bounded for what has no end.
const READ_BYTES: usize = 8_000;

/// The BCP 47 primary tag of a text: `en`, `fr`, `zh`, …, or `und`.
pub fn detect(text: &str) -> &'static str {
    let prose = prose::of(&text[..text.floor_char_boundary(READ_BYTES)]);
    let asked = prose::without_quotations(&prose);
    // "What does « bonjour » mean?" is asked in English; a text that is one quotation is not asked at all.
    match tag_of(&asked) {
        "und" if asked != prose => tag_of(&prose),
        tag => tag,
    }
}

fn tag_of(prose: &str) -> &'static str {
    let words: Vec<Word> = words::of(prose).collect();
    let scripts = Scripts::of(prose);
    if let Some(tag) = scripts.tag(prose, &words) {
        return tag;
    }
    let evidence = Evidence::of(prose, &words);
    evidence.decide(&words).unwrap_or_else(|| evidence.trigrams(&words))
}

/// What words, letters and endings say.
struct Evidence {
    /// For each of [`LATIN`].
    scores: [f64; LATIN.len()],
    /// What each word says, for those that say something.
    words: Vec<[f64; LATIN.len()]>,
}

impl Evidence {
    fn of(prose: &str, words: &[Word]) -> Evidence {
        let says = |word: &Word| match word.languages {
            0 if word.is_name() => [0.0; LATIN.len()],
            0 => letters::hints(&word.lower, Reader::Detect),
            languages => lexicon::weights(languages),
        };
        let words: Vec<_> = std::iter::once(letters::opening_marks(prose)).chain(words.iter().map(says)).collect();
        let scores = std::array::from_fn(|language| words.iter().map(|says| says[language]).sum());
        Evidence { scores, words }
    }

    /// The language with enough evidence for the words there are, if no other is near.
    fn decide(&self, words: &[Word]) -> Option<&'static str> {
        let (best, second) = two_best(&self.scores);
        let counted = words.iter().filter(|word| !word.is_name()).count() as f64;
        let enough = self.scores[best] >= 0.8 && self.scores[best] >= 0.15 * counted;
        let ahead = self.own(best, second) >= 0.5 && self.scores[best] >= 1.4 * self.scores[second];
        (enough && ahead).then_some(LATIN[best])
    }

    /// What tells one language from another: what both share tells neither, however much there is of it.
    fn own(&self, best: usize, second: usize) -> f64 {
        self.words.iter().map(|says| (says[best] - 2.0 * says[second]).max(0.0)).sum()
    }

    /// Trigrams, of texts long enough to have some, where they are sure or agree with the little that words say.
    fn trigrams(&self, words: &[Word]) -> &'static str {
        let text = words.iter().map(|word| word.lower.as_str()).collect::<Vec<_>>().join(" ");
        let Some(info) = whatlang::detect(&text).filter(|_| text.chars().count() >= 20) else { return "und" };
        let tag = tags::of_lang(info.lang());
        let (best, second) = two_best(&self.scores);
        let agrees = LATIN[best] == tag && self.scores[best] >= 0.4 && self.own(best, second) >= 0.3;
        if info.is_reliable() || agrees { tag } else { "und" }
    }
}

/// Indices of the highest score and the next; the earlier language of equals.
fn two_best(scores: &[f64; LATIN.len()]) -> (usize, usize) {
    let mut order: Vec<usize> = (0..LATIN.len()).collect();
    order.sort_by(|&a, &b| scores[b].total_cmp(&scores[a]).then(a.cmp(&b)));
    (order[0], order[1])
}

#[cfg(test)]
mod tests;
