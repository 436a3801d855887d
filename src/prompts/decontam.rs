//! Decontamination: prompts that share an n-gram with a question of a named evaluation set.
//!
//! n is 8 words by default, as open-r1 and s1 have it (GPT-3 used 13, R1 10);
//! in scripts written without spaces it counts characters. Texts are compared
//! in normal form, operators aside. A hash hit is verified on the words
//! themselves, and an evaluation question shorter than n is matched whole.

use std::collections::HashMap;
use std::hash::BuildHasherDefault;

use serde::{Deserialize, Serialize};

use super::text::{Normal, Token, TokenKind, rolling};
use crate::{Error, Result};

/// How an overlap is judged.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DecontamConfig {
    /// Words that must agree in a row.
    pub ngram: usize,
    /// Characters that must agree in a row, in scripts written without spaces.
    pub ngram_chars: usize,
    /// Evaluation rows reported for one prompt at most; the rest is counted in the last report.
    pub max_hits: usize,
}

impl Default for DecontamConfig {
    fn default() -> Self {
        DecontamConfig { ngram: 8, ngram_chars: 13, max_hits: 16 }
    }
}

/// Evaluation questions under a name such as `math500`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct EvalSet {
    pub name: String,
    pub rows: Vec<EvalRow>,
}

/// One evaluation question.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct EvalRow {
    /// 0-based row in the set's file.
    pub row: u64,
    pub question: String,
}

/// One prompt found to overlap with one evaluation row.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Hit {
    pub prompt_id: String,
    pub eval_set: String,
    pub eval_row: u64,
    /// The first shared n-gram, or the whole question, in normal form.
    pub ngram: String,
    /// How many n-grams of the prompt are in the evaluation row; 0 for a whole match.
    pub overlap: u32,
    /// Rows beyond `max_hits` that this prompt also overlaps with; only in a prompt's last hit.
    pub more: u32,
}

/// The n-grams of the evaluation sets. Read-only once built: scan from many threads.
pub struct Decontaminator {
    config: DecontamConfig,
    names: Vec<String>,
    rows: Vec<Indexed>,
    words: Grams,
    characters: Grams,
    /// Key of the normal form to the first row with it.
    whole: HashMap<u128, u32>,
}

struct Indexed {
    set: u32,
    row: u64,
    /// What n-grams are cut from: the normal form's tokens, operators left out.
    normal: Normal,
}

/// n-gram hash to its places, behind a bit filter that turns most misses away inside the L2 cache.
struct Grams {
    n: usize,
    filter: Vec<u64>,
    mask: u64,
    heads: HashMap<u64, u32, BuildHasherDefault<Prehashed>>,
    places: Vec<Place>,
}

#[derive(Clone, Copy)]
struct Place {
    row: u32,
    at: u32,
    /// The next place of the same hash, in order of rows; `u32::MAX` ends.
    next: u32,
}

#[derive(Default)]
struct Prehashed(u64);

impl std::hash::Hasher for Prehashed {
    fn finish(&self) -> u64 {
        self.0
    }
    fn write(&mut self, bytes: &[u8]) {
        self.0 = super::text::hash_bytes(bytes, self.0);
    }
    fn write_u64(&mut self, key: u64) {
        self.0 = key;
    }
}

const END: u32 = u32::MAX;

impl Decontaminator {
    /// Indexes the evaluation sets.
    ///
    /// # Errors
    /// `ngram` or `ngram_chars` is 0, or a set is empty: a check that checks nothing.
    pub fn new(config: DecontamConfig, sets: &[EvalSet]) -> Result<Self> {
        if config.ngram == 0 || config.ngram_chars == 0 || config.max_hits == 0 {
            return Err(Error::usage("decontaminate: `ngram`, `ngram_chars` and `max_hits` must be at least 1"));
        }
        let mut rows = Vec::new();
        let mut whole = HashMap::new();
        for (set, eval) in sets.iter().enumerate() {
            if eval.rows.is_empty() {
                return Err(Error::new(format!("the evaluation set `{}` has no questions", eval.name))
                    .hint("decontamination against nothing would pass everything"));
            }
            for row in &eval.rows {
                let mut normal = Normal::of(&row.question);
                if !normal.text.is_empty() {
                    whole.entry(normal.key()).or_insert(rows.len() as u32);
                }
                normal.tokens.retain(|token| token.kind != TokenKind::Operator);
                rows.push(Indexed { set: set as u32, row: row.row, normal });
            }
        }
        let spaceless = |row: &Indexed| {
            2 * row.normal.tokens.iter().filter(|t| t.kind == TokenKind::Character).count() >= row.normal.tokens.len()
        };
        let words = Grams::new(config.ngram, &rows, |row| !spaceless(row));
        let characters = Grams::new(config.ngram_chars, &rows, spaceless);
        Ok(Decontaminator {
            config,
            names: sets.iter().map(|set| set.name.clone()).collect(),
            rows,
            words,
            characters,
            whole,
        })
    }

    /// All evaluation rows this prompt overlaps with, in the order they are met; empty for a clean one.
    pub fn scan(&self, prompt_id: &str, normal: &Normal) -> Vec<Hit> {
        let mut hits: Vec<(u32, Hit)> = Vec::new();
        let mut more = 0;
        if let Some(&row) = self.whole.get(&normal.key()) {
            hits.push((row, self.hit(prompt_id, row, normal.text.clone())));
        }
        let tokens: Vec<Token> = normal.tokens.iter().filter(|t| t.kind != TokenKind::Operator).copied().collect();
        let hashes: Vec<u64> = tokens.iter().map(|token| token.hash).collect();
        let mut visit = |grams: &Grams, at: usize, hash: u64| {
            grams.each(hash, |place| {
                let row = &self.rows[place.row as usize];
                let theirs = &row.normal.tokens[place.at as usize..][..grams.n];
                let ours = &tokens[at..at + grams.n];
                if !ours.iter().zip(theirs).all(|(a, b)| normal.slice(a, a) == row.normal.slice(b, b)) {
                    return;
                }
                if let Some((_, hit)) = hits.iter_mut().find(|(seen, _)| *seen == place.row) {
                    hit.overlap += 1;
                } else if hits.len() < self.config.max_hits {
                    let text = normal.slice(&ours[0], &ours[grams.n - 1]).to_owned();
                    let mut hit = self.hit(prompt_id, place.row, text);
                    hit.overlap = 1;
                    hits.push((place.row, hit));
                } else {
                    more += 1;
                }
            });
        };
        rolling(&hashes, self.words.n, |at, hash| visit(&self.words, at, hash));
        if tokens.iter().any(|token| token.kind == TokenKind::Character) {
            rolling(&hashes, self.characters.n, |at, hash| visit(&self.characters, at, hash));
        }
        let mut hits: Vec<Hit> = hits.into_iter().map(|(_, hit)| hit).collect();
        if let Some(last) = hits.last_mut() {
            last.more = more;
        }
        hits
    }

    fn hit(&self, prompt_id: &str, row: u32, ngram: String) -> Hit {
        let row = &self.rows[row as usize];
        Hit {
            prompt_id: prompt_id.to_owned(),
            eval_set: self.names[row.set as usize].clone(),
            eval_row: row.row,
            ngram,
            overlap: 0,
            more: 0,
        }
    }
}

impl Grams {
    fn new(n: usize, rows: &[Indexed], wanted: impl Fn(&Indexed) -> bool) -> Self {
        let mut found: Vec<(u64, Place)> = Vec::new();
        for (index, row) in rows.iter().enumerate().filter(|(_, row)| wanted(row)) {
            let hashes: Vec<u64> = row.normal.tokens.iter().map(|token| token.hash).collect();
            rolling(&hashes, n, |at, hash| found.push((hash, Place { row: index as u32, at: at as u32, next: END })));
        }
        // About 16 bits an n-gram: one miss in sixteen passes.
        let bits = (found.len() as u64 * 16).next_power_of_two().clamp(1 << 10, 1 << 32);
        let mut grams = Grams {
            n,
            filter: vec![0; (bits / 64) as usize],
            mask: bits - 1,
            heads: HashMap::default(),
            places: Vec::new(),
        };
        // Backwards, so that a chain runs from the first place to the last.
        for (hash, mut place) in found.into_iter().rev() {
            let index = grams.places.len() as u32;
            let head = grams.heads.insert(hash, index).unwrap_or(END);
            // An n-gram repeated inside one row is one place: its first.
            let twin = grams.places.get(head as usize).filter(|twin| twin.row == place.row).map(|twin| twin.next);
            place.next = twin.unwrap_or(head);
            grams.places.push(place);
            let bit = (hash >> 20) & grams.mask;
            grams.filter[(bit / 64) as usize] |= 1 << (bit % 64);
        }
        grams
    }

    #[inline]
    fn each(&self, hash: u64, mut visit: impl FnMut(Place)) {
        let bit = (hash >> 20) & self.mask;
        if self.filter[(bit / 64) as usize] & (1 << (bit % 64)) == 0 {
            return;
        }
        let mut at = self.heads.get(&hash).copied().unwrap_or(END);
        while at != END {
            let place = self.places[at as usize];
            visit(place);
            at = place.next;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn index(config: DecontamConfig, questions: &[&str]) -> Decontaminator {
        let rows = questions.iter().enumerate().map(|(row, q)| EvalRow { row: row as u64, question: (*q).to_owned() });
        Decontaminator::new(config, &[EvalSet { name: "math500".to_owned(), rows: rows.collect() }]).unwrap()
    }

    fn rows(index: &Decontaminator, prompt: &str) -> Vec<u64> {
        index.scan("p", &Normal::of(prompt)).iter().map(|hit| hit.eval_row).collect()
    }

    #[test]
    fn eight_words_in_a_row_are_a_hit_and_seven_are_not() {
        let index = index(DecontamConfig::default(), &["one two three four five six seven eight nine", "what is up"]);
        let hits = index.scan("p", &Normal::of("Zero, ONE two three; four five six -- seven eight! ten"));
        assert_eq!(hits.len(), 1);
        assert_eq!((hits[0].eval_set.as_str(), hits[0].eval_row, hits[0].overlap), ("math500", 0, 1));
        assert!(hits[0].ngram.starts_with("one two three") && hits[0].ngram.ends_with("eight"), "{}", hits[0].ngram);
        assert!(rows(&index, "one two three four five six seven ate nine").is_empty());
    }

    #[test]
    fn short_questions_are_matched_whole() {
        let index = index(DecontamConfig::default(), &["Compute 3+5.", ""]);
        assert_eq!(rows(&index, "compute  3+5"), [0]);
        assert!(rows(&index, "compute 3-5").is_empty());
        assert!(rows(&index, "then compute 3+5").is_empty());
        assert!(rows(&index, "").is_empty());
    }

    #[test]
    fn chinese_counts_characters() {
        let question = "小明有三个苹果和五个梨,一共有多少个水果?";
        let index = index(DecontamConfig::default(), &[question]);
        assert_eq!(rows(&index, "问题:小明有三个苹果和五个梨,一共有多少?"), [0]);
        assert!(rows(&index, "小红有三个苹果,一共有多少个?").is_empty());
    }

    #[test]
    fn every_row_with_the_text_is_reported_up_to_the_limit() {
        let same = "let a and b be the roots of the equation";
        let config = DecontamConfig { max_hits: 2, ..DecontamConfig::default() };
        let index = index(config, &[same, "nothing of the kind is asked in this row here", same, same]);
        let hits = index.scan("p", &Normal::of(&format!("{same} below")));
        assert_eq!(hits.iter().map(|hit| hit.eval_row).collect::<Vec<_>>(), [0, 2]);
        assert_eq!(hits[0].overlap, 3, "ten words have three 8-grams");
        assert!(hits[1].more > 0);
    }

    #[test]
    fn an_empty_set_is_refused() {
        let error = Decontaminator::new(DecontamConfig::default(), &[EvalSet { name: "e".into(), rows: vec![] }]).err();
        assert!(error.unwrap().to_string().contains("`e` has no questions"));
    }

    proptest! {
        /// The index finds exactly what a search of every window finds.
        #[test]
        fn hits_equal_those_of_a_plain_search(
            evals in prop::collection::vec(prop::collection::vec(0u8..6, 0..14), 1..6),
            prompt in prop::collection::vec(0u8..6, 0..20),
        ) {
            let text = |words: &[u8]| words.iter().map(|w| format!("word{w}")).collect::<Vec<_>>().join(" ");
            let evals_text: Vec<String> = evals.iter().map(|words| text(words)).collect();
            let config = DecontamConfig { ngram: 3, ..DecontamConfig::default() };
            let index = index(config, &evals_text.iter().map(String::as_str).collect::<Vec<_>>());
            let mut found = rows(&index, &text(&prompt));
            found.sort_unstable();
            let mut expected: Vec<u64> = Vec::new();
            for (row, eval) in evals.iter().enumerate() {
                let shared = eval.windows(3).any(|gram| prompt.windows(3).any(|window| window == gram));
                let first_twin = evals.iter().position(|other| other == eval) == Some(row);
                if shared || (!eval.is_empty() && *eval == prompt && first_twin) {
                    expected.push(row as u64);
                }
            }
            prop_assert_eq!(found, expected);
        }
    }
}
