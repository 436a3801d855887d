//! Words of the languages that share the Latin script, and what tells the languages from each other.
//!
//! The lists hold function words and the vocabulary of questions and of reasoning, written for this purpose. A word that
//! several languages have stands in each list: it then says little for any of them. A line that begins with `#` says
//! who reads the words below it. What is counted decides rewards: its words change only with the version of the rules.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::LazyLock;

/// Languages of the Latin script that words tell, by bit. The first four are the likelier by far.
pub(super) const LATIN: [&str; 18] =
    ["en", "fr", "de", "es", "it", "pt", "nl", "sv", "da", "nb", "fi", "pl", "cs", "ro", "hu", "tr", "id", "vi"];
const LIKELY: u32 = 4;

const LISTS: [&str; LATIN.len()] = [
    include_str!("words/en.txt"),
    include_str!("words/fr.txt"),
    include_str!("words/de.txt"),
    include_str!("words/es.txt"),
    include_str!("words/it.txt"),
    include_str!("words/pt.txt"),
    include_str!("words/nl.txt"),
    include_str!("words/sv.txt"),
    include_str!("words/da.txt"),
    include_str!("words/nb.txt"),
    include_str!("words/fi.txt"),
    include_str!("words/pl.txt"),
    include_str!("words/cs.txt"),
    include_str!("words/ro.txt"),
    include_str!("words/hu.txt"),
    include_str!("words/tr.txt"),
    include_str!("words/id.txt"),
    include_str!("words/vi.txt"),
];

/// Units, functions and keywords that every language writes alike.
const NEUTRAL: &str = include_str!("words/neutral.txt");
const NEUTRAL_BIT: u32 = 1 << 31;

/// Who asks the lexicon: [`detect`](super::detect), which tells all of [`LATIN`] in short questions, or
/// [`count`](super::count), which tells fewer, word by word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reader {
    Detect,
    Count,
}

/// Their names in the lists, in the order of [`Reader`].
const READERS: [&str; 2] = ["detect", "count"];

/// What the lists say of a word.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Entry {
    /// Bit `i` is language `i` of [`LATIN`]; 0 for a word that no list has.
    pub languages: u32,
    /// No language's own.
    pub neutral: bool,
}

/// What the lists of this reader say of a word in lower case.
pub(super) fn known(word: &str, reader: Reader) -> Entry {
    type Bits = HashMap<&'static str, [u32; READERS.len()], BuildHasherDefault<WordHasher>>;
    static KNOWN: LazyLock<Bits> = LazyLock::new(|| {
        let mut known = Bits::default();
        let languages = LISTS.iter().enumerate().map(|(language, list)| (1 << language, *list));
        for (bit, list) in languages.chain([(NEUTRAL_BIT, NEUTRAL)]) {
            for (word, reads) in words(list) {
                for (bits, reads) in known.entry(word).or_default().iter_mut().zip(reads) {
                    *bits |= if reads { bit } else { 0 };
                }
            }
        }
        known
    });
    let bits = KNOWN.get(word).map_or(0, |bits| bits[reader as usize]);
    Entry { languages: bits & !NEUTRAL_BIT, neutral: bits & NEUTRAL_BIT != 0 }
}

/// The words of a list, and which of [`READERS`] read each.
fn words(list: &'static str) -> impl Iterator<Item = (&'static str, [bool; READERS.len()])> {
    let mut reads = [false; READERS.len()];
    list.lines().flat_map(move |line| {
        let words = match line.strip_prefix('#') {
            Some(readers) => {
                reads = READERS.map(|reader| readers.split_whitespace().any(|word| word == reader));
                ""
            }
            None => line,
        };
        words.split_whitespace().map(move |word| (word, reads))
    })
}

/// Multiply and rotate, eight bytes at a time: the keys are ours, so nobody can choose them to collide.
#[derive(Default)]
struct WordHasher(u64);

impl Hasher for WordHasher {
    fn write(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.0 = (self.0.rotate_left(5) ^ u64::from_le_bytes(word)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        }
    }

    fn finish(&self) -> u64 {
        self.0 ^ (self.0 >> 29)
    }
}

/// `l'aire`, `d'un`, `qu'elle`, `dell'area`, `teacher's`: what the elided word says, and the whole one where both
/// French and Italian elide; 0 where nothing is elided.
pub(super) fn elided(head: &str, tail: &str, reader: Reader) -> u32 {
    let (en, fr, it) = (1, 1 << 1, 1 << 4);
    match head {
        "l" | "d" | "c" | "m" | "t" | "s" | "n" => match known(tail, reader).languages & (fr | it) {
            0 => fr | it,
            told => told,
        },
        "qu" | "j" | "lorsqu" | "puisqu" | "jusqu" => fr,
        "dell" | "all" | "nell" | "sull" | "un" | "quell" => it,
        "dov" | "com" if reader == Reader::Detect => it,
        _ if matches!(tail, "s" | "t" | "re" | "ve" | "ll" | "d" | "m") => en,
        _ => 0,
    }
}

/// What a word that these languages have says for each of them.
pub(super) fn weights(languages: u32) -> [f64; LATIN.len()] {
    let all = languages.count_ones();
    let likely = (languages & ((1 << LIKELY) - 1)).count_ones();
    std::array::from_fn(|bit| {
        // That a rarer language shares a word takes little from a likely one.
        let sharing = if (bit as u32) < LIKELY { likely + u32::from(all > likely && likely > 1) } else { all };
        match sharing {
            _ if languages & (1 << bit) == 0 => 0.0,
            1 if all > 1 => 0.7,
            1 => 1.0,
            2 => 0.35,
            3 => 0.15,
            _ => 0.05,
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_word_stands_below_a_line_that_says_who_reads_it() {
        for list in LISTS.iter().chain([&NEUTRAL]) {
            for (word, reads) in words(list) {
                assert_ne!(reads, [false, false], "{word}");
            }
            for line in list.lines().filter_map(|line| line.strip_prefix('#')) {
                let unknown = line.split_whitespace().find(|word| *word != "and" && !READERS.contains(word));
                assert_eq!(unknown, None, "a line of readers: {line}");
            }
        }
    }

    #[test]
    fn the_two_readers_share_words_and_have_some_of_their_own() {
        let of = |word| [Reader::Detect, Reader::Count].map(|reader| known(word, reader).languages);
        assert_eq!(of("about"), [1, 1]);
        assert_eq!(of("april"), [of("april")[0], 0], "questions name months");
        assert_eq!(of("sustituyendo"), [0, 1 << 3], "chains of thought substitute");
        assert_eq!(of("nowhere"), [0, 0]);
        assert_eq!([Reader::Detect, Reader::Count].map(|reader| known("text", reader).neutral), [false, true]);
    }

    /// Only the languages that are counted have words for it: a rarer one would take weight from theirs.
    #[test]
    fn what_is_counted_is_of_the_languages_that_are_counted() {
        for (language, list) in LISTS.iter().enumerate() {
            let counted = words(list).any(|(_, [_, count])| count);
            assert_eq!(counted, language < super::super::count::LATIN, "{}", LATIN[language]);
        }
    }
}
