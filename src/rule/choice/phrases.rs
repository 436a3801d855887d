//! How an answer says which option it picks, and how it says that it does not.

use std::borrow::Cow;
use std::sync::LazyLock;

use regex::Regex;

/// An announcement and the letter or letters announced.
pub(super) static COMMITMENT: LazyLock<Regex> = LazyLock::new(|| {
    // "answer" in the languages of the field, then up to a few filler words, then letters.
    Regex::new(concat!(
        r"(?i:\b(?:answer|option|choice|réponse|antwort|lösung|respuesta|opción|resposta|risposta|ответ|вариант)s?",
        r"|\b(?:it is|it's|choose|pick|select|go(?:ing)? (?:with|for))\b",
        r"|答案|选项|选择|应选|故选|选|正解|答え|정답|답|الإجابة|الجواب|उत्तर)",
        r"(?i:\s|\*|is|are|est|ist|es|la|the|correct[ae]?|bonne|richtige|правильный|final|only|for sure|definitely|clearly|certainly|surely|probably|most likely|would|be|therefore|thus|lautet|option|choice|letter|[:：=是为應应はです은는이तोहै]|\\text|\\mathbf|\\textbf|\\boxed|\\[(\[]|[({$（【\[]){0,16}?",
        r"(?-u:\b)([A-J](?:\s*(?:,|、|and|und|et|y|和|&)\s*[A-J](?-u:\b)|[A-J](?-u:\b))*)(?-u:\b)",
    ))
    .expect("a constant pattern")
});

pub(super) static WHOLE: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(r"^[\s*_#>(（\[【{$]*(?:\\(?:text|mathbf|textbf|mathrm|boxed)\s*\{+)*\s*[(（]?([A-J](?:\s*(?:,|、|and|&)\s*[A-J]|[A-J])*)\s*(?:[)）\]】}*_$\s.。．:：]+(.*))?$")
        .expect("a constant pattern")
});

/// "C is correct", "(C) is the right one".
pub(super) static JUDGED: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(r"(?-u:\b)([A-J])[)*}$]*\s+(?i:is|must be|would be)\s+(?i:the\s+)?(?i:only\s+|most\s+)?(?i:correct|right|answer|best|true)")
        .expect("a constant pattern")
});

/// Words that take back the letters behind them.
pub(super) static DENIAL: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(
        r"(?i:\bnot\b|n't\b|\bcannot\b|\brather than\b|\binstead of\b|\bnicht\b|\bno es\b|\bnon\b)|不是|不能|而非|не ",
    )
    .expect("a constant pattern")
});

/// What makes a letter part of something larger when it follows: another letter joined to it, or an operator.
pub(super) static GOES_ON: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(concat!(
        r"^[\s*_)\]}$.]*(?:(?:\\(?:text|mathrm|mbox)\s*)?\{?\s*(?:or|Or|OR|and|And|AND|ou|oder|und|o|y|e|или|и|或者|或|和|,|，|、|;|/|\||=|&|\\l?or|\\vee)\s*\}?\s*)+",
        r"(?i:(?:maybe|perhaps|possibly|even|probably|vielleicht|peut-être|quizás|可能)\s+)?",
        r"(?:\\boxed|\\text)?[({$*\s]*[A-J](?:$|[\s)}\]*$.,;，。/=|&])",
        r"|^[\s)}\]*$]*[?？]",
        r"|^[\s)}\]$]*(?:[=/+^<>≈±≠]|,\s*[\\\d]|\\(?:pm|cdot|times|neq?|approx|cup|cap|frac|div)|-\s*[\dA-J(])",
    ))
    .expect("a constant pattern")
});

/// "is wrong", "cannot be": said of the letter before it.
pub(super) static DENIED: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(concat!(
        r"^[)\]}*$]*\s+(?i:(?:is|was|are|would be|must be|seems|looks)\s+(?:not|n't|never|wrong|incorrect|false|out|too|impossible|eliminated|excluded|ruled)\b",
        r"|(?:isn't|isn’t|wasn't|can't|can’t|cannot|could not|couldn't|won't|doesn't|doesn’t|does not|fails|failed)\b",
        r"|(?:est fausse|n'est pas|ist falsch|ist nicht|es incorrect|no es|неверн|не )|错误|不对|不正确|不是)",
    ))
    .expect("a constant pattern")
});

/// A letter in lower case where only a letter can stand: alone on the rest of its line, or in brackets.
pub(super) static SMALL: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(concat!(
        r"(?m)(?i:\b(?:answer|option|choice|réponse|antwort|respuesta|resposta|risposta|ответ)|答案|选项|选择|应选|故选|选)",
        r"(?i:\s|\*|is|est|ist|es|the|correct|option|choice|letter|[:：=是为]){0,8}?",
        r"(?:\(([a-j])\)|(?-u:\b)([a-j])[)*.。]*\s*$)",
    ))
    .expect("a constant pattern")
});

/// The same as a whole answer: "c", "(c)", "c.".
pub(super) static SMALL_WHOLE: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(r"^[\s*_(（\[{$]*(?:\\(?:text|mathbf|textbf|mathrm)\s*\{)?\s*\(?([a-j])[\s)）\]}*_$.。:：]*$")
        .expect("a constant pattern")
});

/// A conclusion that names nothing but its letter, at the end of a line: "7 is prime, so C."
pub(super) static CONCLUDED: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(concat!(
        r"(?m)(?:(?i:\b(?:so|hence|thus|therefore|donc|daher|entonces)\b),?\s+(?i:(?:it is|it's|it must be)\s+)?|(?:所以|因此|故)[是为]?\s*)",
        r"\(?([A-J])\)?[.。]?\**\s*$",
    ))
    .expect("a constant pattern")
});

/// Nouns that announce no choice by themselves: "option B says …".
pub(super) static NOUN: LazyLock<Regex> =
    LazyLock::new(|| Regex::new(r"^(?i:options?|choices?|opción|вариант|选项|选择)").expect("a constant pattern"));

/// A verb or sign that makes a noun an announcement.
pub(super) static COPULA: LazyLock<Regex> =
    LazyLock::new(|| Regex::new(r"(?i:\b(?:is|are|est|ist|es|be|lautet)\b)|[:：=是为]").expect("a constant pattern"));

/// What may follow the answer "A": any other small word makes it an article.
const AFTER_A: &[&str] = &[
    "because",
    "as",
    "since",
    "and",
    "or",
    "but",
    "so",
    "for",
    "which",
    "with",
    "due",
    "by",
    "from",
    "in",
    "is",
    "here",
    "not",
    "rather",
    "given",
    "if",
    "when",
    "where",
    "then",
    "thus",
    "hence",
    "that",
    "instead",
    "only",
    "car",
    "parce",
    "puisque",
    "weil",
    "da",
    "denn",
    "porque",
    "ya",
    "pois",
    "perché",
    "after",
    "based",
    "according",
    "would",
    "must",
    "indeed",
    "too",
    "again",
    "on",
    "at",
    "to",
    "while",
    "although",
    "though",
];

/// "A dog", "I think": a word and no letter.
pub(super) fn is_word(letter: &str, rest: &str) -> bool {
    let Some(next) = rest.strip_prefix(' ').and_then(|rest| rest.split(|c: char| !c.is_alphabetic()).next()) else {
        return false;
    };
    matches!(letter, "A" | "I") && next.starts_with(char::is_lowercase) && !AFTER_A.contains(&next)
}

/// Full-width letters and brackets as the plain ones.
pub(super) fn folded(text: &str) -> Cow<'_, str> {
    let wide = |c: char| matches!(c, 'Ａ'..='Ｊ' | 'ａ'..='ｊ');
    if !text.contains(wide) {
        return Cow::Borrowed(text);
    }
    let plain = |c: char| char::from_u32(c as u32 - 0xfee0).unwrap_or(c);
    text.chars().map(|c| if wide(c) { plain(c) } else { c }).collect::<String>().into()
}

/// Whether letters stand alone, one after the other: "B. C. D."
pub(super) fn more_letters(tail: &str) -> bool {
    // "It cannot be A or B" takes letters back.
    let tail = &tail[..DENIAL.find(tail).map_or(tail.len(), |found| found.start())];
    let lone = |word: &str| matches!(word.trim_matches(|c: char| !c.is_alphanumeric()).as_bytes(), [b'B'..=b'J']);
    tail.split_whitespace().any(lone)
}
