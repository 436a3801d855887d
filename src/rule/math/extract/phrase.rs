//! "The final answer is …" in the languages models write.

use super::super::denial::{begins, denied, doubted, negated, turned, turns, words};

/// Words that announce an answer; ASCII ones in lower case.
const KEYWORDS: [&str; 25] = [
    "answer",
    "antwort",
    "ergebnis",
    "respuesta",
    "risposta",
    "resposta",
    "réponse",
    "reponse",
    "odpowiedź",
    "cevap",
    "đáp án",
    "ответ",
    "答案",
    "答え",
    "答",
    "정답",
    "답",
    "الإجابة",
    "الجواب",
    "उत्तर",
    "solución",
    "jawaban",
    "故选",
    "应选",
    "ответом",
];

/// What announces an answer at the start of a line, and nowhere else.
const MARKS: [&str; 5] = ["A:", "A：", "Ans:", "Ans：", "ANS:"];

/// Ends of a text that some servers hand over with it.
const ENDS: [&str; 3] = ["</s>", "<eos>", "<｜end▁of▁sentence｜>"];

/// Words between the announcement and the answer.
const CONNECTORS: [&str; 26] = [
    " is",
    " would be",
    " should be",
    " are",
    " equals",
    " est",
    " ist",
    " lautet",
    " es",
    " è",
    " é",
    " هي",
    " هو",
    " —",
    " –",
    "是",
    "为",
    "為",
    "选",
    "は",
    "：",
    ":",
    "=",
    "은",
    "는",
    " है:",
];

/// Words between the connector and the answer: "la réponse est donc 42".
const FILLERS: [&str; 17] = [
    "therefore",
    "thus",
    "so",
    "simply",
    "approximately",
    "about",
    "exactly",
    "just",
    "option",
    "choice",
    "donc",
    "alors",
    "bien",
    "also",
    "somit",
    "entonces",
    "quindi",
];

/// How far back from the end to look, in bytes.
const TAIL: usize = 6000;

/// The text after the last announcement.
pub fn find(text: &str) -> Option<&str> {
    let tail = &text[text.ceil_char_boundary(text.len().saturating_sub(TAIL))..];
    let bytes = tail.as_bytes();
    let ascii = tail.is_ascii();
    let mut at = bytes.len();
    while at > 0 {
        at -= 1;
        let b = bytes[at];
        if b & 0xc0 == 0x80 || (at > 0 && bytes[at - 1].is_ascii_alphabetic()) {
            continue;
        }
        let candidate = match b | 0x20 {
            b'a' | b'e' | b'r' | b'o' | b'c' | b's' | b'j' => true,
            _ => b >= 0x80 && !ascii,
        };
        if !candidate {
            continue;
        }
        if let Some(answer) = announced(tail, at) {
            return Some(answer);
        }
    }
    None
}

/// The answer, if an announcement starts at `at`.
fn announced(tail: &str, at: usize) -> Option<&str> {
    let rest = &tail[at..];
    // "A: 18" at the start of a line.
    if let Some(answer) = MARKS.iter().find_map(|mark| rest.strip_prefix(mark))
        && (at == 0 || tail.as_bytes()[at - 1] == b'\n')
    {
        return nonempty(first_line(answer));
    }
    let len = KEYWORDS.iter().find_map(|k| starts_with_fold(rest, k))?;
    let word = tail[..at].trim_end().rsplit(char::is_whitespace).next().unwrap_or("");
    if doubted(&tail[..at]) || ["wrong", "incorrect", "false", "invalid"].iter().any(|w| word.eq_ignore_ascii_case(w)) {
        return None;
    }
    let after = &rest[len..];
    let line_end = after.find('\n').unwrap_or(after.len());
    let line = &after[..line_end];
    // A heading: "**Answer**" or "Answer:" with the value below it.
    let bare = line.trim_matches(|c: char| c.is_whitespace() || matches!(c, '*' | ':' | '：' | '#' | '_' | '】' | ']'));
    if bare.is_empty() {
        return if line.len() > line.trim().len() || line_end < after.len() || !line.is_empty() {
            nonempty(first_line(&after[line_end..]))
        } else {
            None
        };
    }
    let head_end = line.floor_char_boundary(80);
    let head = &line[..head_end];
    // 故选B, उत्तर 5 है: nothing stands between.
    let bare = after.trim_start_matches(' ');
    if !rest[..len].is_ascii()
        && bare.starts_with(|c: char| c.is_ascii_uppercase() || c.is_ascii_digit() || matches!(c, '$' | '\\'))
    {
        return nonempty(first_line(bare));
    }
    let (end, connector) = CONNECTORS
        .iter()
        .filter_map(|c| head.find(c).map(|i| (i + c.len(), *c)))
        .filter(|&(end, c)| {
            // A word connector ends where a word ends.
            !c.starts_with(' ') || !line[end..].starts_with(|c: char| c.is_alphabetic())
        })
        .min_by_key(|(end, _)| *end)?;
    // 答案至少是12
    let bounded = !line.is_ascii() && turns(&line[..end - connector.len()]);
    if negated(&line[..end]) || bounded {
        return None;
    }
    let answer = line[end..].trim_start_matches([' ', ':', '：', '*', '=']);
    if answer.trim().is_empty() {
        let below = first_line(&after[line_end..]);
        let display = [r"\[", "$$"].contains(&below.trim()) || below.starts_with(r"\begin{");
        return nonempty(if display { &after[line_end..] } else { below });
    }
    // "not 6 but 5"
    if begins(answer)
        && let Some((_, said)) = first_line(answer).split_once(" but ")
    {
        return nonempty(said);
    }
    // A display formula may go on below.
    if answer.trim_end().ends_with(r"\[") || answer.trim() == "$$" {
        return nonempty(&after[end..]);
    }
    nonempty(answer)
}

/// What a sentence says of its subject: "34" of "The largest $n$ is 34". Nothing where the sentence
/// begins with its answer.
pub fn predicate(sentence: &str) -> Option<&str> {
    if sentence.starts_with(|c: char| c.is_ascii_digit() || matches!(c, '$' | '\\' | '-' | '(' | '[' | '{')) {
        return None;
    }
    let copulas = [" is ", " are ", " equals ", " est ", " ist ", " es ", "是", "为"];
    let (end, _) = copulas.iter().filter_map(|c| sentence.rfind(c).map(|at| (at + c.len(), c))).max()?;
    if turned(&sentence[..end]) {
        return None;
    }
    let said = trim_prose(&sentence[end..]);
    said.contains(|c: char| c.is_ascii_digit() || c == '\\').then_some(said)
}

/// The number of a sentence that has one, and no word that would turn it round.
pub fn only_number(sentence: &str) -> Option<&str> {
    const TURNS: [&str; 54] = [
        "not",
        "no",
        "never",
        "neither",
        "nor",
        "without",
        "except",
        "but",
        "wrong",
        "less",
        "more",
        "fewer",
        "greater",
        "than",
        "least",
        "most",
        "under",
        "over",
        "between",
        "step",
        "part",
        "half",
        "third",
        "quarter",
        "fraction",
        "twice",
        "thrice",
        "double",
        "triple",
        "times",
        "square",
        "squared",
        "cube",
        "cubed",
        "root",
        "power",
        "logarithm",
        "factorial",
        "reciprocal",
        "inverse",
        "opposite",
        "negative",
        "minus",
        "plus",
        "sum",
        "product",
        "multiple",
        "percent",
        "unknown",
        "unclear",
        "perhaps",
        "maybe",
        "possibly",
        "probably",
    ];
    let number = super::span::last_number(sentence)?;
    let before = number.as_ptr() as usize - sentence.as_ptr() as usize;
    let alone = !sentence[..before].contains(|c: char| c.is_ascii_digit())
        && !turned(&sentence[..before])
        && !denied("", &words(&sentence[before + number.len()..]));
    let mut words = sentence.split(|c: char| !c.is_alphabetic()).filter(|w| !w.is_empty());
    (alone && !words.any(|w| TURNS.iter().any(|turn| w.eq_ignore_ascii_case(turn)))).then_some(number)
}

fn nonempty(text: &str) -> Option<&str> {
    let text = text.trim();
    (!text.is_empty()).then_some(text)
}

/// Length of the prefix equal to `keyword` but for ASCII and Cyrillic case.
fn starts_with_fold(text: &str, keyword: &str) -> Option<usize> {
    let end = keyword.len();
    if text.len() < end || !text.is_char_boundary(end) {
        return None;
    }
    let head = &text[..end];
    if head.eq_ignore_ascii_case(keyword) || (!head.is_ascii() && head.to_lowercase() == keyword) {
        return Some(end);
    }
    None
}

/// The first line that is not blank.
pub fn first_line(text: &str) -> &str {
    let text = text.trim_start();
    text.lines().next().unwrap_or("").trim_end()
}

/// "Rs. 500": this full stop ends a short form, and no sentence.
fn is_rupees(before: &str, after: &str) -> bool {
    let short = before.strip_suffix("Rs").is_some_and(|head| !head.ends_with(|c: char| c.is_alphanumeric()));
    short && after.trim_start_matches([' ', '$', '*']).starts_with(|c: char| c.is_ascii_digit())
}

/// Without the sentence's end and what follows it, Markdown, and words such as "about".
pub fn trim_prose(line: &str) -> &str {
    let line = line.trim();
    let line = ENDS.iter().find_map(|end| line.strip_suffix(end)).unwrap_or(line);
    let mut text = line.trim().trim_start_matches(['*', '_', ' ', ':', '：']);
    for word in FILLERS {
        if let Some(len) = starts_with_fold(text, word)
            && text[len..].starts_with([' ', ','])
        {
            text = text[len..].trim_start_matches([' ', ',']);
        }
    }
    // "$f(x) = x$, as required": the formula is the answer.
    if let Some(inside) = text.strip_prefix('$')
        && let Some(end) = inside.find('$')
        && let Some(more) = inside[end + 1..].strip_prefix(", ")
        && ["as ", "so ", "which ", "where ", "since ", "because ", "for ", "when "].iter().any(|w| more.starts_with(w))
    {
        text = &text[..end + 2];
    }
    // A full stop before a blank and a capital letter ends the answer.
    let bytes = text.as_bytes();
    let mut depth = 0i32;
    for i in 0..bytes.len() {
        match bytes[i] {
            b'{' | b'(' | b'[' => depth += 1,
            b'}' | b')' | b']' => depth -= 1,
            b'.' if depth <= 0
                && bytes.get(i + 1).is_some_and(|b| b.is_ascii_whitespace() || *b == b'*')
                && !(i > 0 && bytes[i - 1] == b'.')
                && !is_rupees(&text[..i], &text[i + 1..])
                && !(i > 1 && bytes[i - 1].is_ascii_alphabetic() && bytes[i - 2] == b'.') =>
            {
                text = &text[..i];
                break;
            }
            _ => {}
        }
    }
    text.trim().trim_end_matches(['*', '_', '。', ' '])
}
