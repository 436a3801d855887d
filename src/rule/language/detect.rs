//! Which language each word of a text is in, also when the text is short and full of mathematics.
//!
//! Scripts decide where they can. Latin text is decided clause by clause: small
//! words that belong to one language, letters and endings typical of one, and for
//! long clauses without either the trigram profiles of `whatlang`. Within a clause
//! of one language, runs of words that are known to belong to another count as that.

use std::collections::HashMap;
use std::sync::LazyLock;

use whatlang::Lang;

use super::clean::prose;
use super::words::{LATIN, WORDS};

/// Languages that can be told: the Latin ones first, `und` last.
pub const LANGUAGES: [&str; 18] =
    ["en", "fr", "de", "es", "it", "pt", "nl", "ru", "uk", "zh", "ja", "ko", "ar", "fa", "hi", "th", "el", "und"];
const UND: usize = LANGUAGES.len() - 1;
const RU: usize = 7;
const ZH: usize = 9;
const JA: usize = 10;

/// Bit `i` is language `i` of [`LATIN`].
static KNOWN: LazyLock<HashMap<&'static str, u8>> = LazyLock::new(|| {
    let mut known = HashMap::new();
    for (bit, words) in WORDS.iter().enumerate() {
        for word in words.split_whitespace() {
            *known.entry(word).or_default() |= 1 << bit;
        }
    }
    known
});

/// Units and function names that every language writes alike.
const NEUTRAL: &[&str] = &[
    "sin", "cos", "tan", "cot", "sec", "csc", "log", "ln", "lim", "max", "min", "mod", "gcd", "lcm", "det", "dim",
    "exp", "cm", "mm", "km", "kg", "mg", "ml", "kw", "mph", "ft", "lb", "lbs", "oz", "hz", "pi", "phi", "theta",
    "alpha", "beta", "gamma", "delta", "lambda", "sqrt", "frac", "boxed", "qed", "ok", "vs", "etc", "usd", "eur",
    "text",
];

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

/// Characters of Chinese and Japanese.
pub(super) fn is_cjk(c: char) -> bool {
    is_han(c) || is_kana(c)
}

fn is_han(c: char) -> bool {
    matches!(c as u32, 0x3400..=0x4dbf | 0x4e00..=0x9fff | 0xf900..=0xfaff | 0x20000..=0x3134f) || c == '々'
}

fn is_kana(c: char) -> bool {
    matches!(c as u32, 0x3041..=0x3096 | 0x309d..=0x309f | 0x30a1..=0x30fa | 0x30fc..=0x30ff | 0x31f0..=0x31ff | 0xff66..=0xff9d)
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

fn is_latin(c: char) -> bool {
    c.is_ascii_alphabetic() || matches!(c as u32, 0x00c0..=0x024f | 0x1e00..=0x1eff) && c.is_alphabetic()
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
    for range in prose(text) {
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
    let mut chars = text.char_indices().peekable();
    let mut before = ' ';
    while let Some((start, c)) = chars.next() {
        if matches!(c, '\n' | '.' | '!' | '?' | '。' | '！' | '？' | '।' | '؟') {
            let decimal = c == '.' && before.is_ascii_digit();
            if !decimal {
                open_han += sentence.close(counts);
            }
        } else if matches!(c, ',' | ';' | ':' | '(' | ')' | '，' | '；' | '：' | '、' | '"' | '“' | '”' | '—' | '–')
        {
            sentence.clauses.push(sentence.words.len());
        } else if is_han(c) {
            sentence.han += 1;
            sentence.chinese += usize::from(
                "的是了在我们这这个那你他她它们和与为吗呢吧么没还会到说过对着给让把被从而且但所以因为如果设则求"
                    .contains(c),
            );
        } else if is_kana(c) {
            sentence.kana += 1;
        } else if is_latin(c) || of_script(c).is_some() {
            let mut end = start + c.len_utf8();
            let same = |next: char| {
                if is_latin(c) {
                    is_latin(next)
                } else {
                    of_script(next) == of_script(c) || crate::rule::text::is_mark(next)
                }
            };
            let mut digit = before.is_ascii_digit() || before == '_';
            while let Some(&(at, next)) = chars.peek() {
                let inner = matches!(next, '\'' | '’' | '-')
                    && text[at + next.len_utf8()..]
                        .chars()
                        .next()
                        .is_some_and(|after| same(after) && after.is_alphabetic());
                digit |= next.is_ascii_digit() || next == '_';
                if !(same(next) || inner || next.is_ascii_digit() || next == '_') {
                    break;
                }
                end = at + next.len_utf8();
                chars.next();
            }
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
        let letters = word.chars().filter(|c| c.is_alphabetic()).count();
        let lower = word.to_lowercase().replace('’', "'");
        let known = |word: &str| KNOWN.get(word).copied();
        let elided = || lower.split_once('\'').and_then(|(head, tail)| elision(head, tail));
        let mask = known(&lower).or_else(elided).or_else(|| {
            let (head, tail) = lower.split_once('-')?;
            Some(known(head)? & known(tail)?).filter(|mask| *mask != 0)
        });
        // A single letter is as likely a variable as a word.
        if letters < 2 || NEUTRAL.contains(&lower.as_str()) {
            return;
        }
        let capital = word.chars().next().is_some_and(char::is_uppercase);
        let umlaut = lower.contains(['ä', 'ö', 'ü', 'ß']);
        if mask.is_none() && capital && !umlaut {
            return;
        }
        let hints = if mask.is_none() { hints(&lower) } else { [0.0; LATIN.len()] };
        self.letters += &lower;
        self.letters.push(' ');
        self.words.push(Word { mask: mask.unwrap_or(0), hints });
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
        let all = evidence(&self.words);
        let whole = decide(&all, 0.75, 1.2).or_else(|| profile(&self.letters));
        let mut start = 0;
        let ends = self.clauses.iter().copied().chain([self.words.len()]);
        for end in ends {
            // Short clauses are read with what follows them.
            if end < start + 4 && end != self.words.len() || end == start {
                continue;
            }
            let clause = &self.words[start..end];
            start = end;
            match decide(&evidence(clause), 1.8, 1.5).or(whole) {
                Some(language) => count_clause(clause, language, counts),
                None if self.words.len() >= 4 => counts.0[UND] += clause.len() as f64,
                None => {}
            }
        }
    }
}

/// `l'aire`, `d'un`, `qu'elle`, `dell'area`: what the elided word says.
fn elision(head: &str, tail: &str) -> Option<u8> {
    let (fr, it, en) = (1 << 1, 1 << 4, 1);
    match head {
        "l" | "d" | "qu" | "j" | "n" | "s" | "c" | "m" | "t" | "lorsqu" | "puisqu" | "jusqu" => Some(fr),
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

fn evidence(words: &[Word]) -> [f64; LATIN.len()] {
    let mut scores = [0.0; LATIN.len()];
    for word in words {
        // The first four are the likelier by far: that a rarer language shares a word says little.
        let likely = (word.mask & 0b1111).count_ones();
        let all = word.mask.count_ones();
        for (bit, score) in scores.iter_mut().enumerate() {
            *score += word.hints[bit];
            if word.mask & (1 << bit) != 0 {
                *score += match if bit < 4 { likely + u32::from(all > likely && likely > 1) } else { all } {
                    1 if all > 1 => 0.7,
                    1 => 1.0,
                    2 => 0.35,
                    3 => 0.15,
                    _ => 0.05,
                };
            }
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

/// What letters and endings say of a word that no list has.
fn hints(word: &str) -> [f64; LATIN.len()] {
    let mut scores = [0.0; LATIN.len()];
    for c in word.chars() {
        let says: &[(usize, f64)] = match c {
            'ß' => &[(2, 1.0)],
            'ä' | 'ö' | 'ü' => &[(2, 0.6)],
            'ñ' => &[(3, 1.0)],
            'ã' | 'õ' => &[(5, 1.0)],
            'ç' => &[(1, 0.5), (5, 0.4)],
            'œ' | 'û' | 'î' | 'ë' | 'ï' => &[(1, 0.6)],
            'è' => &[(1, 0.5), (4, 0.4)],
            'à' => &[(1, 0.4), (4, 0.4)],
            'ê' | 'ô' | 'â' => &[(1, 0.5), (5, 0.3)],
            'é' => &[(1, 0.5), (3, 0.25), (5, 0.2)],
            'á' | 'í' | 'ó' | 'ú' => &[(3, 0.5), (5, 0.3)],
            'ò' | 'ù' | 'ì' => &[(4, 0.6)],
            _ => &[],
        };
        for &(language, weight) in says {
            scores[language] += weight;
        }
    }
    const ENDINGS: &[(&str, &[(usize, f64)])] = &[
        ("ing", &[(0, 0.5)]),
        ("ings", &[(0, 0.5)]),
        ("ied", &[(0, 0.5)]),
        ("ed", &[(0, 0.3)]),
        ("ly", &[(0, 0.4)]),
        ("ness", &[(0, 0.5)]),
        ("ity", &[(0, 0.4)]),
        ("ight", &[(0, 0.5)]),
        ("ough", &[(0, 0.5)]),
        ("tion", &[(0, 0.2), (1, 0.2)]),
        ("tions", &[(0, 0.2), (1, 0.2)]),
        ("eux", &[(1, 0.5)]),
        ("euse", &[(1, 0.5)]),
        ("aux", &[(1, 0.5)]),
        ("ment", &[(0, 0.1), (1, 0.3)]),
        ("ons", &[(1, 0.3)]),
        ("ez", &[(1, 0.3), (3, 0.1)]),
        ("ción", &[(3, 0.6)]),
        ("ciones", &[(3, 0.8)]),
        ("mente", &[(3, 0.3), (4, 0.3), (5, 0.3)]),
        ("amos", &[(3, 0.4), (5, 0.3)]),
        ("emos", &[(3, 0.4), (5, 0.3)]),
        ("idad", &[(3, 0.5)]),
        ("os", &[(3, 0.2), (5, 0.2)]),
        ("as", &[(3, 0.15), (5, 0.15)]),
        ("ung", &[(2, 0.6)]),
        ("ungen", &[(2, 0.8)]),
        ("lich", &[(2, 0.8)]),
        ("keit", &[(2, 0.8)]),
        ("heit", &[(2, 0.8)]),
        ("ieren", &[(2, 0.8)]),
        ("iert", &[(2, 0.6)]),
        ("en", &[(2, 0.15), (6, 0.1)]),
        ("zione", &[(4, 0.8)]),
        ("zioni", &[(4, 0.8)]),
        ("iamo", &[(4, 0.6)]),
        ("ção", &[(5, 0.4)]),
        ("ções", &[(5, 0.6)]),
        ("dade", &[(5, 0.5)]),
        ("heid", &[(6, 0.6)]),
    ];
    for (ending, says) in ENDINGS {
        if word.len() > ending.len() + 1 && word.ends_with(ending) {
            for &(language, weight) in *says {
                scores[language] += weight;
            }
        }
    }
    const INNER: &[(&str, usize, f64)] = &[
        ("sch", 2, 0.4),
        ("th", 0, 0.3),
        ("wh", 0, 0.4),
        ("eau", 1, 0.4),
        ("qu", 1, 0.1),
        ("ij", 6, 0.4),
        ("aa", 6, 0.4),
        ("nh", 5, 0.4),
        ("lh", 5, 0.4),
        ("gli", 4, 0.4),
        ("ll", 3, 0.05),
        ("sh", 0, 0.2),
    ];
    for &(part, language, weight) in INNER {
        if word.contains(part) {
            scores[language] += weight;
        }
    }
    scores
}
