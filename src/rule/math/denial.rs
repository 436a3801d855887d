//! Words around an answer that take it back: "not 5", "`\boxed{5}` is wrong".

/// How far from an answer to look for such words, in bytes.
const NEAR: usize = 48;

/// Words that deny what follows them.
const BEFORE: [&str; 22] = [
    "not",
    "isn't",
    "isnt",
    "wasn't",
    "never",
    "cannot",
    "can't",
    "nor",
    "neither",
    "doesn't",
    "don't",
    "pas",
    "nicht",
    "non",
    "não",
    "不是",
    "不为",
    "不等于",
    "并非",
    "не",
    "नहीं",
    "ليست",
];

/// Words that deny what stands before them.
const AFTER: [&str; 22] = [
    "wrong",
    "incorrect",
    "false",
    "not",
    "isn't",
    "wasn't",
    "cannot",
    "can't",
    "invalid",
    "impossible",
    "rejected",
    "pas",
    "nicht",
    "falsch",
    "faux",
    "incorrecto",
    "不对",
    "不正确",
    "错误",
    "неверно",
    "ではない",
    "아니다",
];

/// Words that may stand between an answer and its denial.
const BETWEEN: [&str; 16] = [
    "is",
    "was",
    "would",
    "be",
    "are",
    "seems",
    "looks",
    "must",
    "it",
    "that",
    "which",
    "can",
    "clearly",
    "therefore",
    "also",
    "the",
];

/// Words that take back a value put equal to them.
const TURNS: [&str; 24] = [
    "not", "never", "no", "none", "nothing", "neither", "nor", "cannot", "without", "except", "unless", "unlikely",
    "doubtful", "mistake", "nicht", "nie", "kein", "keine", "falsch", "pas", "jamais", "faux", "não", "nunca",
];

/// Words that do so at the end, or where they speak of the answer itself: "Wrong answers = 5" counts them.
const FAULTS: [&str; 6] = ["wrong", "incorrect", "false", "impossible", "invalid", "untrue"];

/// Ends of words that give a value only a bound, or name what it is not.
const BOUNDS: [&str; 10] =
    ["than", "at least", "at most", "up to", "anything but", "all but", "except for", "exceeds", "exceed", "rather"];

/// The same in Chinese, without blanks between words.
const CHINESE_TURNS: [&str; 8] = ["不是", "不为", "不等于", "不可能", "并非", "错误", "不对", "不正确"];
const CHINESE_BOUNDS: [&str; 9] = ["小于", "大于", "至少", "至多", "不超过", "不少于", "多于", "少于", "不到"];

/// Words on the left of an equals sign that take its right side back: "It is not", "less than", "anything but".
/// What is counted may be told by what it is not: "the number of students who are not in a band".
pub fn turns(words: &str) -> bool {
    let words = words.to_lowercase();
    let words = words.trim();
    if CHINESE_TURNS.iter().any(|turn| words.contains(turn)) || CHINESE_BOUNDS.iter().any(|end| words.ends_with(end)) {
        return true;
    }
    let bare = |word: &str| word.trim_matches(|c: char| !c.is_alphanumeric()).to_string();
    let words: Vec<String> = words.split_whitespace().map(bare).filter(|word| !word.is_empty()).collect();
    let ends = |end: &str| {
        let end: Vec<&str> = end.split(' ').collect();
        words.len() >= end.len() && words[words.len() - end.len()..].iter().eq(end.iter())
    };
    if BOUNDS.iter().any(|end| ends(end)) {
        return true;
    }
    words.iter().enumerate().any(|(at, word)| {
        let next = words.get(at + 1).map_or("", String::as_str);
        if FAULTS.contains(&word.as_str()) {
            return matches!(next, "" | "that" | "answer" | "value" | "result" | "to" | "is");
        }
        let counted =
            words[..at].iter().any(|w| matches!(w.as_str(), "of" | "who" | "which" | "that" | "with" | "for"))
                && !matches!(next, "" | "be" | "equal" | "equals" | "the" | "a" | "an" | "to" | "that" | "is" | "been");
        // "No. of ways"
        let short = word == "no" && next == "of";
        (TURNS.contains(&word.as_str()) || word.ends_with("n't")) && !counted && !short
    })
}

/// The way to a number bounds it, or takes it back: "it cannot be 5", "≥ 5". Of a sentence only its last clause counts.
pub fn turned(before: &str) -> bool {
    const MARKS: [&str; 18] = [
        "<", ">", "≠", "≤", "≥", "!=", r"\ne", r"\le", r"\ge", r"\lt", r"\gt", r"\not", r"\nless", r"\ngtr", r"\sim",
        r"\neg", r"\lnot", r"\propto",
    ];
    let clause = before.rsplit([',', ';', ':', '，', '；', '：']).next().unwrap_or("");
    let marked = |mark: &str| {
        clause.match_indices(mark).any(|(at, _)| {
            let name = clause[at + mark.len()..].trim_start_matches(['q', 's', 'l', 'a', 'n', 't']);
            // `\left` is no `\le`.
            !mark.starts_with('\\') || !name.starts_with(|c: char| c.is_ascii_alphabetic())
        })
    };
    let words = words(&without_brackets(clause));
    let bound = |word: &str| {
        ["below", "above", "under", "over", "beyond", "between"].iter().any(|b| word.eq_ignore_ascii_case(b))
    };
    MARKS.iter().any(|mark| marked(mark)) || words.split_whitespace().next_back().is_some_and(bound) || turns(&words)
}

/// The text without what stands in brackets: `P(not A) = 0.5` denies nothing.
pub fn without_brackets(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut open = Vec::new();
    for c in text.chars() {
        match (c, open.last()) {
            ('(', _) => open.push(out.len()),
            (')', Some(&from)) => {
                out.truncate(from);
                open.pop();
                continue;
            }
            _ => {}
        }
        out.push(c);
    }
    out
}

/// The words of a text with formulas, and where its clauses end: commands and signs are blanks.
pub fn words(text: &str) -> String {
    let mut command = false;
    let plain = |c: char| {
        let word = c.is_alphanumeric() || matches!(c, '\'' | '-' | '.' | ',' | ';' | '\n');
        command = c == '\\' || (command && c.is_ascii_alphabetic());
        if word && !command { c } else { ' ' }
    };
    text.chars().map(plain).collect()
}

/// True if the words right before or behind an answer say that it is not one.
pub fn denied(before: &str, after: &str) -> bool {
    denies_next(before) || denied_behind(after)
}

/// The text ends with a word that denies what comes next.
fn denies_next(text: &str) -> bool {
    let near = &text[text.ceil_char_boundary(text.len().saturating_sub(NEAR))..];
    let near = near.trim_end_matches(|c: char| c.is_whitespace() || matches!(c, '$' | '(' | '[' | '\\' | '*' | ':'));
    let mut words = near.rsplit(char::is_whitespace).filter(|word| !word.is_empty());
    const LINKS: [&str; 14] =
        ["be", "is", "it", "equal", "equals", "to", "the", "=", "es", "est", "ist", "è", "é", "a"];
    let links = |word: &&str| LINKS.contains(word);
    let Some(last) = words.by_ref().find(|word| !links(word)).map(str::to_lowercase) else { return false };
    match last.as_str() {
        // "rather than 5", "instead of 5"; "the sum of 5".
        "than" | "of" => words.next().is_some_and(|word| matches!(word.to_lowercase().as_str(), "rather" | "instead")),
        last if last.is_ascii() => BEFORE.contains(&last),
        last => BEFORE.iter().any(|word| !word.is_ascii() && last.ends_with(word)),
    }
}

/// The words that an answer begins with: "not 5".
pub fn begins(text: &str) -> bool {
    let first = text.trim_start_matches(['*', '"', ' ']);
    let word = first.split([' ', '*', '$']).next().unwrap_or("").to_lowercase();
    BEFORE.contains(&word.as_str())
        || BEFORE.iter().any(|denial| !denial.is_ascii() && word.starts_with(denial) && denial.chars().count() > 1)
}

/// The way from an announcement to its answer has a "no": "la respuesta no es", 答案不是.
pub fn negated(between: &str) -> bool {
    const WORDS: [&str; 11] = ["no", "non", "não", "nao", "not", "never", "nicht", "pas", "ne", "не", "n't"];
    let apart = |c: char| c.is_whitespace() || matches!(c, ':' | '*' | '：');
    between.split(apart).any(|word| WORDS.contains(&word.to_lowercase().as_str()) || word.ends_with("n't"))
        || ["不是", "不为", "不選", "不选", "并非", "不可能是"].iter().any(|no| between.contains(no))
}

/// Words of languages written without blanks, or with the verb at the end, that take back what an answer says.
pub fn denies_itself(text: &str) -> bool {
    const DENIALS: [&str; 13] = [
        "ではない",
        "ではありません",
        "じゃない",
        "아니",
        "नहीं",
        "不对",
        "不正确",
        "是错",
        "错误",
        "ليس",
        "неверно",
        "неправильно",
        "不成立",
    ];
    !text.is_ascii() && DENIALS.iter().any(|denial| text.contains(denial))
}

/// Words behind which a clause of its own begins, so that what stands before them doubts nothing in it.
const CONNECTIVES: [&str; 9] = ["so", "but", "hence", "thus", "therefore", "and", "because", "then", "whereas"];

/// What nobody says who goes on to state an answer.
const ASSERTIONS: [&str; 9] = ["think", "believe", "say", "claim", "conclude", "mean", "sure", "certain", "convinced"];

/// A clause that goes on to name an answer and does not mean it: "I don't think that …", "I doubt that …".
pub fn doubted(before: &str) -> bool {
    let near = &before[before.ceil_char_boundary(before.len().saturating_sub(3 * NEAR))..];
    // A number alone doubts nothing.
    if !near.bytes().any(|b| b.is_ascii_alphabetic()) {
        return false;
    }
    // A full stop inside "0.25" ends no sentence, a comma inside "(-2, 4)" no clause.
    let ends = |at: usize, c: char| match c {
        '.' => near[at + 1..].chars().next().is_none_or(char::is_whitespace),
        ',' => {
            let next = near[at + 1..].trim_start_matches([' ', '$', '*']);
            let word = next.starts_with("I ") || next.chars().take(2).filter(|c| c.is_alphabetic()).count() == 2;
            next.is_empty() || (word && next.len() < near.len() - at - 1)
        }
        _ => matches!(c, '!' | '?' | '\n' | ';' | '。' | '，'),
    };
    let start = near.char_indices().rev().find(|&(at, c)| ends(at, c)).map_or(0, |(at, c)| at + c.len_utf8());
    let clause = near[start..].to_lowercase().replace('’', "'");
    let bare = |word: &str| word.trim_matches(|c: char| !c.is_alphanumeric() && c != '\'').to_string();
    let words: Vec<String> = clause.split_whitespace().map(bare).filter(|word| !word.is_empty()).collect();
    let from = words.iter().rposition(|word| CONNECTIVES.contains(&word.as_str())).map_or(0, |at| at + 1);
    let words: Vec<&str> = words[from..].iter().map(String::as_str).collect();
    let negative = |word: &str| matches!(word, "not" | "cannot" | "never") || word.ends_with("n't");
    words.iter().enumerate().any(|(at, word)| {
        let behind = &words[at + 1..];
        let skipped = behind.iter().take_while(|word| matches!(**word, "be" | "really" | "actually" | "quite" | "yet"));
        let behind = &behind[skipped.count()..];
        match (*word, behind.first()) {
            ("doubt" | "doubtful" | "wrongly" | "falsely", _) => {
                !words[..at].iter().any(|word| negative(word) || matches!(*word, "no" | "without" | "beyond"))
            }
            (word, _) if !negative(word) => false,
            // "I don't think so: …"
            (_, Some(said)) if ASSERTIONS.contains(said) => behind.get(1) != Some(&"so"),
            (_, Some(&("true" | "correct"))) => behind.contains(&"that"),
            // "It is not the case that …", "This is not the final …"
            (_, Some(&"the")) => behind.get(1) == Some(&"case") || behind.len() < 3,
            _ => false,
        }
    })
}

/// The sentence goes on to a question mark, and the next one does not say yes: "Is it 9?"
pub fn asked(after: &str) -> bool {
    let near = &after[..after.floor_char_boundary(3 * NEAR)];
    // An aside asks for itself: "(Why does this make sense?)"
    if near.trim_start().starts_with('(') {
        return false;
    }
    let ends = |&(at, c): &(usize, char)| match c {
        '.' | '!' => near[at + 1..].chars().next().is_none_or(|c| !c.is_alphanumeric()),
        _ => matches!(c, '?' | '？' | '\n' | ';' | '。'),
    };
    let Some((at, '?' | '？')) = near.char_indices().find(ends) else { return false };
    let next = near[at..].trim_start_matches(|c: char| !c.is_alphabetic());
    !["yes", "indeed", "correct", "是", "对"]
        .iter()
        .any(|yes| next.get(..yes.len()).is_some_and(|start| start.eq_ignore_ascii_case(yes)))
}

/// The text begins with words that deny what came before, in the same sentence.
fn denied_behind(text: &str) -> bool {
    let near = &text[..text.floor_char_boundary(NEAR)];
    let near = near.trim_start_matches([' ', '$', ')', ']', '\\', '*', '}', '~']);
    let near = &near[..near.find(['.', ',', ';', '\n', '。', '，']).unwrap_or(near.len())];
    // "5 (not 6)" denies the 6.
    let other = near.trim_start_matches('(').strip_prefix("not ");
    if other.is_some_and(|other| other.starts_with(|c: char| c.is_ascii_digit() || matches!(c, '$' | '\\' | '-'))) {
        return false;
    }
    for word in near.split_whitespace() {
        let word = word.trim_matches(|c: char| matches!(c, '(' | ')' | '!' | '$' | '\\' | '}')).to_lowercase();
        if AFTER.contains(&word.as_str()) {
            return true;
        }
        if !word.is_ascii() {
            // 是错误的, 不对: words without blanks between them.
            return AFTER.iter().any(|denial| !denial.is_ascii() && word.chars().count() <= 8 && word.contains(denial));
        }
        if !BETWEEN.contains(&word.as_str()) {
            return false;
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::{asked, denied, doubted, turns};

    #[test]
    fn words_that_take_an_answer_back() {
        for (before, after) in [
            ("So it is not $", "$."),
            ("The answer isn't ", ""),
            ("We choose 6 rather than ", ""),
            ("", "$ is wrong."),
            ("", " would be incorrect"),
            ("", " (wrong)"),
            ("", "$ is not the answer"),
            ("答案不是 $", "$。"),
            ("", "是错误的"),
        ] {
            assert!(denied(before, after), "{before:?} … {after:?}");
        }
    }

    #[test]
    fn other_words_leave_it() {
        for (before, after) in [
            ("So the sum of ", " is even."),
            ("The answer is ", ", not 6."),
            ("This is greater than ", ""),
            ("It is ", ". That is not wrong."),
            ("It is not odd, so it is ", ""),
            ("", " is the answer"),
            ("", " and nothing is wrong"),
            ("", "$ (not 6)"),
            ("", " not $6$"),
            ("答案是", "。"),
        ] {
            assert!(!denied(before, after), "{before:?} … {after:?}");
        }
    }

    #[test]
    fn words_that_take_back_what_is_put_equal_to_them() {
        for words in ["It is not", "It can't be", "Not", "less than", "It is at most", "the wrong answer", "答案不是"]
        {
            assert!(turns(words), "{words}");
        }
        for words in
            ["Number of students not in a band", "Wrong answers", "No. of ways", "Least value", "Primes less than ten"]
        {
            assert!(!turns(words), "{words}");
        }
    }

    #[test]
    fn clauses_that_do_not_mean_what_they_name() {
        for before in [
            "I don't think the answer is ",
            "I do not believe that the answer is $",
            "I don’t really think it is ",
            "I doubt that the answer is ",
            "We cannot say that the answer is $",
            "We can't be sure that x = 0.25 or ",
            "It is not the case that the answer is ",
            "It is not true that it is ",
            "Yes. But this is not the final ",
            "I don't think the answer is (-2, 4)",
            "I don't think that it is 2, 3",
            "I doubt that it is x = 2, y = 1,000",
        ] {
            assert!(doubted(before), "{before:?}");
        }
        for before in [
            "I don't think it's 8; the answer is ",
            "I don't think it is 8, so the answer is ",
            "I don't think it is 8 so it must be ",
            "I do not think so. It is ",
            "I don't think so: it is ",
            "Without doubt the answer is ",
            "There is no doubt that it is ",
            "Since 6 is not the largest of them, the answer is ",
            "The product is not the sum of the two numbers here and it is ",
            "That is not true. It is ",
            "Since 6 is not the largest, $",
            "I don't think it is 8, I would say it is ",
            "I'm not sure, but it is ",
        ] {
            assert!(!doubted(before), "{before:?}");
        }
    }

    #[test]
    fn questions_state_nothing_unless_they_are_answered() {
        for after in ["?", "$?", " the answer?", "$? No.", "，对吗？", "**?"] {
            assert!(asked(after), "{after:?}");
        }
        for after in [
            "",
            ".",
            "$. Is it right?",
            "\nWhat else?",
            "? Yes.",
            "$? Indeed so.",
            "**. What next?",
            r".\](Why is that?)",
            " (Why is that?)",
        ] {
            assert!(!asked(after), "{after:?}");
        }
    }
}
