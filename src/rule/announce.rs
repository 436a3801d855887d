//! How an answer announces what it is, "the answer is …" or "答案：…", and how it takes that back.

use std::sync::LazyLock;

use regex::Regex;

/// What is said to be the answer, to the end of its line.
static SAID: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(concat!(
        r"(?m)(?i:\b(?:answer|réponse|antwort|lösung|respuesta|resposta|risposta|ответ)s?|答案|正解|答え|정답|답)",
        r"(?i:\s+(?:is|est|ist|lautet|es|é|è|would be|must be)|\s*\**[:：=]|是|为|は|은|는)\**\s*[:：]?\s*(\S.*)$",
    ))
    .expect("a constant pattern")
});

/// Words after which an announcement is none: it is denied, doubted or supposed.
const UNSAID: &[&str] = &[
    "not",
    "never",
    "cannot",
    "doubt",
    "unlikely",
    "if",
    "whether",
    "suppose",
    "supposing",
    "assume",
    "assuming",
    "unless",
    "nicht",
    "wenn",
    "si",
    "pas",
    "why",
    "neither",
    "nor",
];

/// Words that begin a clause of its own.
const CONNECTIVES: &[&str] = &[
    "so",
    "hence",
    "thus",
    "therefore",
    "and",
    "but",
    "because",
    "since",
    "then",
    "which",
    "also",
    "donc",
    "also",
    "daher",
    "entonces",
    "think",
    "means",
];

/// Whether what stands before an announcement denies, doubts or only supposes it.
pub(super) fn unsaid(before: &str) -> bool {
    for word in before.split_whitespace().rev().take(5) {
        let bare = word.trim_matches(|c: char| !c.is_alphanumeric() && c != '\'' && c != '’').to_lowercase();
        if UNSAID.contains(&bare.as_str()) || bare.ends_with("n't") || bare.ends_with("n’t") {
            return true;
        }
        // "I don't think the answer is B" is denied, "it can't be A, so I think it is B" is not.
        let ends = word.ends_with([',', '.', ';', ':', '!', '?', '，', '。', '；', '：']);
        let letter = word.chars().count() == 1 && word.starts_with(|c: char| c.is_ascii_uppercase() && c != 'I');
        if ends || letter || CONNECTIVES.contains(&bare.as_str()) && bare != "think" {
            return false;
        }
    }
    ["不是", "而非", "并非", "如果", "假设"].iter().any(|no| before.ends_with(no))
}

/// What is announced as the answer, to the end of its line, and where; what is denied, doubted or only supposed is left out.
pub(super) fn announced(answer: &str) -> impl Iterator<Item = (usize, &str)> {
    SAID.captures_iter(answer).filter_map(|found| {
        let (whole, text) = (found.get(0)?, found.get(1)?);
        (!unsaid(&answer[..whole.start()])).then(|| (text.start(), text.as_str()))
    })
}

/// A text out of its `\\text{…}` or the like.
pub(super) fn bare(text: &str) -> &str {
    let mut text = text.trim();
    while let Some(inside) = ["\\text{", "\\textbf{", "\\mathrm{", "\\mathbf{", "\\mbox{"]
        .iter()
        .find_map(|command| text.strip_prefix(command)?.strip_suffix('}'))
        .filter(|inside| is_balanced(inside))
    {
        text = inside.trim();
    }
    text
}

fn is_balanced(text: &str) -> bool {
    let mut depth = 0i32;
    let never_below = text.bytes().all(|byte| {
        depth += i32::from(byte == b'{') - i32::from(byte == b'}');
        depth >= 0
    });
    never_below && depth == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_announced_is_told_from_what_is_denied() {
        let all = |text: &str| announced(text).map(|(_, text)| text.to_owned()).collect::<Vec<_>>();
        assert_eq!(all("The answer is no."), ["no."]);
        assert_eq!(all("The final answer is: no"), ["no"]);
        assert_eq!(all("**Answer:** no\nThe answer is yes"), ["no", "yes"]);
        assert_eq!(all("答案：不是"), ["不是"]);
        assert!(all("I don't think the answer is no. Is it the answer?").is_empty());
    }

    #[test]
    fn texts_come_out_of_their_commands() {
        assert_eq!(bare(r" \text{No} "), "No");
        assert_eq!(bare(r"\text{\textbf{No}}"), "No");
        assert_eq!(bare(r"\text{a} or \text{b}"), r"\text{a} or \text{b}");
        assert_eq!(bare("no"), "no");
    }
}
