//! Sentences: which language their words are in.
//!
//! Latin text is decided clause by clause: small words that belong to one language, letters and endings typical
//! of one, and for long clauses without either the trigram profiles of `whatlang`. Within a clause of one language,
//! runs of words that are known to belong to another count as that.

use std::sync::LazyLock;

use whatlang::Lang;

use super::{Counts, JA, LATIN, UND, ZH};
use crate::language::letters;
use crate::language::lexicon::{self, Reader};

/// What was counted, and what waits for the rest of the text.
#[derive(Default)]
pub(super) struct Found {
    pub counts: Counts,
    /// Han characters of sentences that neither kana nor Chinese words decided.
    han: usize,
    /// Words of Latin sentences that nothing decided.
    latin: f64,
}

impl Found {
    /// The counts, with what waits given to the languages of the rest.
    pub fn counted(mut self) -> Counts {
        let counts = &mut self.counts.0;
        let asian = if counts[JA] > counts[ZH] { JA } else { ZH };
        counts[asian] += self.han as f64 / 2.0;
        // Where most others of the script agree.
        let latin = (0..LATIN).max_by(|&a, &b| counts[a].total_cmp(&counts[b]).then(b.cmp(&a))).unwrap_or(0);
        let latin = if counts[latin] >= self.latin { latin } else { UND };
        counts[latin] += self.latin;
        self.counts
    }
}

/// One Latin word of a clause.
struct Word {
    /// Bit `i` is language `i` of [`LANGUAGES`](super::LANGUAGES); 0 for a word that no list has.
    languages: u32,
    /// What letters and endings say, for words no list has.
    hints: [f64; LATIN],
}

/// A sentence being read.
#[derive(Default)]
pub(super) struct Sentence {
    /// Decide by words alone, and leave out what they do not decide.
    words_only: bool,
    words: Vec<Word>,
    /// Indices of `words` where a clause begins.
    clauses: Vec<usize>,
    /// Letters of the sentence, for the trigram profiles.
    letters: String,
    han: usize,
    kana: usize,
    /// Characters that only Chinese prose uses.
    chinese: usize,
}

impl Sentence {
    /// One of code and formulas, whose names are no language as good as any.
    pub fn of_code() -> Self {
        Sentence { words_only: true, ..Sentence::default() }
    }

    /// Takes a Han character in.
    pub fn han(&mut self, c: char) {
        self.han += 1;
        self.chinese += usize::from(
            "的是了在我们这这个那你他她它们和与为吗呢吧么没还会到说过对着给让把被从而且但所以因为如果设则求"
                .contains(c),
        );
    }

    /// Takes a kana in.
    pub fn kana(&mut self) {
        self.kana += 1;
    }

    /// A clause begins with the next word.
    pub fn clause(&mut self) {
        self.clauses.push(self.words.len());
    }

    /// Takes a Latin word in, unless it is a variable, a name, an acronym or a unit.
    pub fn latin(&mut self, word: &str) {
        let start = self.letters.len();
        let ascii = word.is_ascii();
        // In lower case behind the letters of the sentence, where the trigram profiles want it.
        if ascii {
            self.letters.push_str(word);
            self.letters[start..].make_ascii_lowercase();
        } else {
            self.letters.push_str(&word.to_lowercase().replace('’', "'"));
        }
        match meaning(word, &self.letters[start..], ascii) {
            Some(word) => {
                self.words.push(word);
                self.letters.push(' ');
            }
            None => self.letters.truncate(start),
        }
    }

    /// Decides the sentence, adds its words, and begins the next.
    pub fn close(&mut self, found: &mut Found) {
        let counts = &mut found.counts.0;
        match (self.han, self.kana, self.chinese) {
            (0, 0, _) => {}
            // A kana or two in Chinese is a quotation or the particle の on a sign.
            (han, kana, chinese) if kana > 0 && (chinese * 2 <= kana || kana * 4 >= han) => {
                counts[JA] += (han + kana) as f64 / 2.0;
            }
            (han, kana, chinese) if chinese > 0 || kana > 0 => {
                counts[ZH] += han as f64 / 2.0;
                counts[JA] += kana as f64 / 2.0;
            }
            (han, ..) => found.han += han,
        }
        self.count_latin(found);
        self.words.clear();
        self.clauses.clear();
        self.letters.clear();
        (self.han, self.kana, self.chinese) = (0, 0, 0);
    }

    fn count_latin(&self, found: &mut Found) {
        if self.words.is_empty() {
            return;
        }
        // Of the sentence, for clauses that do not say it themselves; trigrams cost the most by far.
        let mut whole: Option<Option<usize>> = None;
        let sentence = || {
            decide(&evidence(&self.words), 0.75, 1.2)
                .or_else(|| (!self.words_only).then(|| profile(&self.letters)).flatten())
        };
        let mut start = 0;
        let ends = self.clauses.iter().copied().chain([self.words.len()]);
        for end in ends {
            // Short clauses are read with what follows them.
            if end < start + 4 && end != self.words.len() || end == start {
                continue;
            }
            let clause = &self.words[start..end];
            start = end;
            let own = decide(&evidence(clause), 1.8, 1.5);
            match own.or_else(|| *whole.get_or_insert_with(sentence)) {
                Some(language) => count_clause(clause, language, &mut found.counts),
                None if self.words.len() >= 4 && !self.words_only => found.latin += clause.len() as f64,
                None => {}
            }
        }
    }
}

/// What a word adds to the evidence; nothing if it is as likely a variable, a name or a unit.
fn meaning(word: &str, lower: &str, ascii: bool) -> Option<Word> {
    // A single letter is as likely a variable as a word.
    let letters = if ascii {
        word.bytes().filter(u8::is_ascii_alphabetic).count()
    } else {
        word.chars().filter(|c| c.is_alphabetic()).count()
    };
    let entry = lexicon::known(lower, Reader::Count);
    // "é" and "è" are words and no variables; "AB" and "ABC" are points and triangles, whatever "ab" says.
    let label = ascii && letters <= 3 && word.bytes().all(|b| b.is_ascii_uppercase());
    if entry.neutral || label || letters < 2 && (ascii || entry.languages == 0) {
        return None;
    }
    let languages = match entry.languages {
        0 => composed(lower),
        languages => languages,
    };
    if languages != 0 {
        return Some(Word { languages, hints: [0.0; LATIN] });
    }
    let capital = word.chars().next().is_some_and(char::is_uppercase);
    let umlaut = !ascii && lower.contains(['ä', 'ö', 'ü', 'ß']);
    (!capital || umlaut).then(|| {
        let says = letters::hints(lower, Reader::Count);
        Word { languages, hints: std::array::from_fn(|language| says[language]) }
    })
}

/// What the parts of a word say: of `l'aire` the elided one, of `peut-être` both.
fn composed(lower: &str) -> u32 {
    let elided = lower.split_once('\'').map_or(0, |(head, tail)| lexicon::elided(head, tail, Reader::Count));
    let known = |part: &str| lexicon::known(part, Reader::Count).languages;
    match elided {
        0 => lower.split_once('-').map_or(0, |(a, b)| known(a) & known(b)),
        languages => languages,
    }
}

fn count_clause(clause: &[Word], language: usize, counts: &mut Counts) {
    let foreign = |word: &Word| word.languages != 0 && word.languages & (1 << language) == 0;
    for (i, word) in clause.iter().enumerate() {
        let neighbour = |j: Option<usize>| j.and_then(|j| clause.get(j)).is_some_and(foreign);
        if foreign(word) && (neighbour(i.checked_sub(1)) || neighbour(Some(i + 1))) {
            counts.0[word.languages.trailing_zeros() as usize] += 1.0;
        } else {
            counts.0[language] += 1.0;
        }
    }
}

/// What a word of these languages says for each of them.
static WEIGHTS: LazyLock<[[f64; LATIN]; 1 << LATIN]> = LazyLock::new(|| {
    std::array::from_fn(|languages| {
        let says = lexicon::weights(languages as u32);
        std::array::from_fn(|language| says[language])
    })
});

fn evidence(words: &[Word]) -> [f64; LATIN] {
    let weights = &*WEIGHTS;
    let mut scores = [0.0; LATIN];
    for word in words {
        // A word of a list has no hints, another no languages.
        let says = if word.languages == 0 { &word.hints } else { &weights[word.languages as usize] };
        for (score, weight) in scores.iter_mut().zip(says) {
            *score += weight;
        }
    }
    scores
}

/// The best language, if it has enough and the next has clearly less.
fn decide(scores: &[f64; LATIN], least: f64, margin: f64) -> Option<usize> {
    let best = (0..LATIN).max_by(|&a, &b| scores[a].total_cmp(&scores[b]).then(b.cmp(&a)))?;
    let second = (0..LATIN).filter(|&i| i != best).map(|i| scores[i]).fold(0.0, f64::max);
    (scores[best] >= least && scores[best] >= margin * second).then_some(best)
}

/// Trigram profiles, for at least 30 letters without small words.
fn profile(letters: &str) -> Option<usize> {
    if letters.len() < 30 {
        return None;
    }
    const LANGS: [Lang; LATIN] = [Lang::Eng, Lang::Fra, Lang::Deu, Lang::Spa, Lang::Ita, Lang::Por, Lang::Nld];
    static DETECTOR: LazyLock<whatlang::Detector> =
        LazyLock::new(|| whatlang::Detector::with_allowlist(LANGS.to_vec()));
    let end = letters.char_indices().nth(400).map_or(letters.len(), |(at, _)| at);
    let found = DETECTOR.detect(&letters[..end])?;
    let sure = found.confidence() >= 0.3;
    LANGS.iter().position(|lang| *lang == found.lang()).filter(|_| sure)
}
