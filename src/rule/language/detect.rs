//! Which language each word of a text is in, also when the text is short and full of mathematics.
//!
//! Scripts decide where they can. Latin text is decided clause by clause: small
//! words that belong to one language, letters and endings typical of one, and for
//! long clauses without either the trigram profiles of `whatlang`. Within a clause
//! of one language, runs of words that are known to belong to another count as that.

use std::sync::LazyLock;

use whatlang::Lang;

use super::hints::hints;
use super::words::{LATIN, known};
use crate::language::prose;
use crate::language::script::{is_han, is_kana, is_latin};

/// Languages that can be told: the Latin ones first, `und` last.
pub const LANGUAGES: [&str; 18] =
    ["en", "fr", "de", "es", "it", "pt", "nl", "ru", "uk", "zh", "ja", "ko", "ar", "fa", "hi", "th", "el", "und"];
const UND: usize = LANGUAGES.len() - 1;
const RU: usize = 7;
const ZH: usize = 9;
const JA: usize = 10;

/// How many words of each language a text has; characters of scripts without spaces count half.
#[derive(Clone, Debug, PartialEq)]
pub struct Counts([f64; LANGUAGES.len()]);

impl Counts {
    /// Words counted.
    pub fn total(&self) -> f64 {
        self.0.iter().sum()
    }

    /// The share of `language` among the words counted; `None` if nothing was, or for a language
    /// that cannot be told.
    pub fn share(&self, language: &str) -> Option<f64> {
        let index = LANGUAGES.iter().position(|l| *l == language).filter(|&i| i != UND)?;
        let total = self.total();
        (total > 0.0).then(|| self.0[index] / total)
    }

    /// The language with the most words, if it has more than half of them.
    pub fn main(&self) -> Option<&'static str> {
        let (index, &most) = self.0.iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1))?;
        (index != UND && most > 0.5 * self.total()).then(|| LANGUAGES[index])
    }

    /// The other languages found, most words first.
    pub fn others(&self, language: &str) -> Vec<(&'static str, f64)> {
        let mut others: Vec<_> = LANGUAGES
            .iter()
            .zip(self.0)
            .filter(|(l, count)| **l != language && *count > 0.0)
            .map(|(l, c)| (*l, c))
            .collect();
        others.sort_by(|a, b| b.1.total_cmp(&a.1));
        others
    }
}

/// The language of a text, `None` if no language has most of its words.
pub fn detect(text: &str) -> Option<&'static str> {
    count(text).main()
}

/// The language that a script alone decides.
fn of_script(c: char) -> Option<usize> {
    Some(match c as u32 {
        0x0400..=0x052f => RU,
        0xac00..=0xd7a3 | 0x1100..=0x11ff | 0x3130..=0x318f => 11,
        0x0600..=0x06ff | 0x0750..=0x077f | 0xfb50..=0xfdff | 0xfe70..=0xfeff => 12,
        0x0900..=0x097f => 14,
        0x0e00..=0x0e7f => 15,
        0x0370..=0x03ff | 0x1f00..=0x1fff => 16,
        _ => return None,
    })
}

/// One Latin word of a clause.
struct Word {
    mask: u8,
    /// What letters and endings say, for words no list has.
    hints: [f64; LATIN.len()],
}

/// A sentence being read.
#[derive(Default)]
struct Sentence {
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

/// Counts the words of each language.
pub fn count(text: &str) -> Counts {
    let mut counts = Counts([0.0; LANGUAGES.len()]);
    let mut sentence = Sentence::default();
    let (mut open_han, mut last) = (0usize, 0);
    for range in prose::ranges(text) {
        if text[last..range.start].contains('\n') {
            open_han += sentence.close(&mut counts);
        }
        last = range.end;
        open_han += read(&text[range], &mut sentence, &mut counts);
    }
    open_han += sentence.close(&mut counts);
    // Han characters of sentences that neither kana nor Chinese words decided go with the rest.
    let target = if counts.0[JA] > counts.0[ZH] { JA } else { ZH };
    counts.0[target] += open_han as f64 / 2.0;
    // So do Latin sentences that nothing decided, where most others agree.
    let latin = (0..LATIN.len()).max_by(|&a, &b| counts.0[a].total_cmp(&counts.0[b]).then(b.cmp(&a))).unwrap_or(0);
    if counts.0[latin] >= counts.0[UND] {
        counts.0[latin] += std::mem::take(&mut counts.0[UND]);
    }
    counts
}

/// Reads one prose range; returns the Han characters left undecided.
fn read(text: &str, sentence: &mut Sentence, counts: &mut Counts) -> usize {
    let mut open_han = 0;
    let mut before = ' ';
    let mut at = 0;
    while let Some(c) = text[at..].chars().next() {
        let start = at;
        at += c.len_utf8();
        // ASCII first: most text is, and it has no script to look up.
        let ascii = c.is_ascii();
        if matches!(c, '\n' | '.' | '!' | '?' | '。' | '！' | '？' | '।' | '؟') {
            let decimal = c == '.' && before.is_ascii_digit();
            if !decimal {
                open_han += sentence.close(counts);
            }
        } else if matches!(c, ',' | ';' | ':' | '(' | ')' | '，' | '；' | '：' | '、' | '"' | '“' | '”' | '—' | '–')
        {
            sentence.clauses.push(sentence.words.len());
        } else if ascii && !c.is_ascii_alphabetic() {
            // A blank, a digit, a sign.
        } else if !ascii && is_han(c) {
            sentence.han += 1;
            sentence.chinese += usize::from(
                "的是了在我们这这个那你他她它们和与为吗呢吧么没还会到说过对着给让把被从而且但所以因为如果设则求"
                    .contains(c),
            );
        } else if !ascii && is_kana(c) {
            sentence.kana += 1;
        } else if is_latin(c) || of_script(c).is_some() {
            let (end, digit) = word_end(text, c, at);
            at = end;
            let digit = digit || before.is_ascii_digit() || before == '_';
            let after = text[end..].chars().next().unwrap_or(' ');
            let word = &text[start..end];
            let symbol = |c: char| matches!(c, '=' | '^' | '\\' | '<' | '>' | '{' | '}' | '|');
            let formula = digit || symbol(before) || symbol(after) || after == '(' && is_latin(c);
            if !formula {
                if is_latin(c) {
                    sentence.latin(word);
                } else {
                    other_script(word, c, counts);
                }
            }
            before = word.chars().next_back().unwrap_or(c);
            continue;
        }
        before = c;
    }
    open_han
}

/// The end of the word that begins with `first` and goes on at `end`, and whether digits are part of it.
fn word_end(text: &str, first: char, mut end: usize) -> (usize, bool) {
    let latin = is_latin(first);
    let same = |next: char| {
        if latin { is_latin(next) } else { of_script(next) == of_script(first) || crate::rule::text::is_mark(next) }
    };
    let mut digit = false;
    loop {
        if latin {
            end += text.as_bytes()[end..].iter().take_while(|b| b.is_ascii_alphabetic()).count();
        }
        let Some(next) = text[end..].chars().next() else { break };
        let after = end + next.len_utf8();
        let inner = matches!(next, '\'' | '’' | '-')
            && text[after..].chars().next().is_some_and(|after| same(after) && after.is_alphabetic());
        digit |= next.is_ascii_digit() || next == '_';
        if !(same(next) || inner || next.is_ascii_digit() || next == '_') {
            break;
        }
        end = after;
    }
    (end, digit)
}

fn other_script(word: &str, first: char, counts: &mut Counts) {
    let Some(mut language) = of_script(first) else { return };
    let letters = word.chars().filter(|c| c.is_alphabetic()).count();
    // Single Greek and Cyrillic letters are variables, Greek words rare; Thai has no spaces.
    if letters < 2 && !matches!(language, 11 | 12 | 14) && !"авикосуяАВИКОСУЯ".contains(first)
        || language == 16 && letters < 4
    {
        return;
    }
    if language == RU && word.contains(['і', 'ї', 'є', 'ґ', 'І', 'Ї', 'Є', 'Ґ']) {
        language += 1;
    }
    if language == 12 && word.contains(['پ', 'چ', 'ژ', 'گ', 'ک', 'ی']) {
        language += 1;
    }
    counts.0[language] += if language == 15 { letters as f64 / 4.0 } else { 1.0 };
}

impl Sentence {
    /// Takes a Latin word in, unless it is a variable, a name, an acronym or a unit.
    fn latin(&mut self, word: &str) {
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

    /// Decides the sentence and adds its words; returns the Han characters left undecided.
    fn close(&mut self, counts: &mut Counts) -> usize {
        let mut open_han = 0;
        match (self.han, self.kana, self.chinese) {
            (0, 0, _) => {}
            // A kana or two in Chinese is a quotation or the particle の on a sign.
            (han, kana, chinese) if kana > 0 && (chinese * 2 <= kana || kana * 4 >= han) => {
                counts.0[JA] += (han + kana) as f64 / 2.0;
            }
            (han, kana, chinese) if chinese > 0 || kana > 0 => {
                counts.0[ZH] += han as f64 / 2.0;
                counts.0[JA] += kana as f64 / 2.0;
            }
            (han, ..) => open_han = han,
        }
        self.count_latin(counts);
        self.words.clear();
        self.clauses.clear();
        self.letters.clear();
        (self.han, self.kana, self.chinese) = (0, 0, 0);
        open_han
    }

    fn count_latin(&self, counts: &mut Counts) {
        if self.words.is_empty() {
            return;
        }
        // Of the sentence, for clauses that do not say it themselves; trigrams cost the most by far.
        let mut whole: Option<Option<usize>> = None;
        let sentence = || decide(&evidence(&self.words), 0.75, 1.2).or_else(|| profile(&self.letters));
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
                Some(language) => count_clause(clause, language, counts),
                None if self.words.len() >= 4 => counts.0[UND] += clause.len() as f64,
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
    let entry = known(lower);
    // "é" and "è" are words and no variables; "AB" and "ABC" are points and triangles, whatever "ab" says.
    let label = ascii && letters <= 3 && word.bytes().all(|b| b.is_ascii_uppercase());
    if entry.neutral || label || letters < 2 && (ascii || entry.mask == 0) {
        return None;
    }
    let mask = if entry.mask != 0 {
        entry.mask
    } else {
        let elided = lower.split_once('\'').and_then(|(head, tail)| elision(head, tail));
        elided.or_else(|| lower.split_once('-').map(|(a, b)| known(a).mask & known(b).mask)).unwrap_or(0)
    };
    if mask != 0 {
        return Some(Word { mask, hints: [0.0; LATIN.len()] });
    }
    let capital = word.chars().next().is_some_and(char::is_uppercase);
    let umlaut = !ascii && lower.contains(['ä', 'ö', 'ü', 'ß']);
    (!capital || umlaut).then(|| Word { mask, hints: hints(lower) })
}

/// `l'aire`, `d'un`, `qu'elle`, `dell'area`: what the elided word says.
fn elision(head: &str, tail: &str) -> Option<u8> {
    let (fr, it, en) = (1 << 1, 1 << 4, 1);
    match head {
        "l" | "d" | "c" | "s" | "m" | "t" | "n" => {
            let own = known(tail).mask & (fr | it);
            Some(if own == 0 { fr | it } else { own })
        }
        "qu" | "j" | "lorsqu" | "puisqu" | "jusqu" => Some(fr),
        "dell" | "all" | "nell" | "sull" | "un" | "quell" => Some(it),
        _ => matches!(tail, "s" | "t" | "re" | "ve" | "ll" | "d" | "m").then_some(en),
    }
}

fn count_clause(clause: &[Word], language: usize, counts: &mut Counts) {
    let foreign = |word: &Word| word.mask != 0 && word.mask & (1 << language) == 0;
    for (i, word) in clause.iter().enumerate() {
        let neighbour = |j: Option<usize>| j.and_then(|j| clause.get(j)).is_some_and(foreign);
        if foreign(word) && (neighbour(i.checked_sub(1)) || neighbour(Some(i + 1))) {
            counts.0[word.mask.trailing_zeros() as usize] += 1.0;
        } else {
            counts.0[language] += 1.0;
        }
    }
}

/// What a word of these languages says for each of them.
static WEIGHTS: LazyLock<[[f64; LATIN.len()]; 128]> = LazyLock::new(|| {
    std::array::from_fn(|mask| {
        let mask = mask as u8;
        // The first four are the likelier by far: that a rarer language shares a word says little.
        let likely = (mask & 0b1111).count_ones();
        let all = mask.count_ones();
        std::array::from_fn(|bit| match if bit < 4 { likely + u32::from(all > likely && likely > 1) } else { all } {
            _ if mask & (1 << bit) == 0 => 0.0,
            1 if all > 1 => 0.7,
            1 => 1.0,
            2 => 0.35,
            3 => 0.15,
            _ => 0.05,
        })
    })
});

fn evidence(words: &[Word]) -> [f64; LATIN.len()] {
    let weights = &*WEIGHTS;
    let mut scores = [0.0; LATIN.len()];
    for word in words {
        // A word of a list has no hints, another no languages.
        let says = if word.mask == 0 { &word.hints } else { &weights[usize::from(word.mask)] };
        for (score, weight) in scores.iter_mut().zip(says) {
            *score += weight;
        }
    }
    scores
}

/// The best language, if it has enough and the next has clearly less.
fn decide(scores: &[f64; LATIN.len()], least: f64, margin: f64) -> Option<usize> {
    let best = (0..LATIN.len()).max_by(|&a, &b| scores[a].total_cmp(&scores[b]).then(b.cmp(&a)))?;
    let second = (0..LATIN.len()).filter(|&i| i != best).map(|i| scores[i]).fold(0.0, f64::max);
    (scores[best] >= least && scores[best] >= margin * second).then_some(best)
}

/// Trigram profiles, for at least 30 letters without small words.
fn profile(letters: &str) -> Option<usize> {
    if letters.len() < 30 {
        return None;
    }
    const LANGS: [Lang; LATIN.len()] = [Lang::Eng, Lang::Fra, Lang::Deu, Lang::Spa, Lang::Ita, Lang::Por, Lang::Nld];
    static DETECTOR: LazyLock<whatlang::Detector> =
        LazyLock::new(|| whatlang::Detector::with_allowlist(LANGS.to_vec()));
    let end = letters.char_indices().nth(400).map_or(letters.len(), |(at, _)| at);
    let found = DETECTOR.detect(&letters[..end])?;
    let sure = found.confidence() >= 0.3;
    LANGS.iter().position(|lang| *lang == found.lang()).filter(|_| sure)
}
