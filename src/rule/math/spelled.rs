//! Numbers in words: `forty-two`, `three hundred and five`, `two and a half`, `minus 5`, `五十二`.
//!
//! Only an answer that is such a number from its first word on is rewritten, to digits; what it counts
//! may follow ("twelve apples"). Anything else stays as it is: "one or two", "one-to-one", 三角形.

use std::borrow::Cow;

/// Words of the longest answer looked at.
const MAX_WORDS: usize = 24;

const SMALL: [&str; 20] = [
    "zero",
    "one",
    "two",
    "three",
    "four",
    "five",
    "six",
    "seven",
    "eight",
    "nine",
    "ten",
    "eleven",
    "twelve",
    "thirteen",
    "fourteen",
    "fifteen",
    "sixteen",
    "seventeen",
    "eighteen",
    "nineteen",
];
const TENS: [&str; 8] = ["twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"];

/// Denominators by name, singular and plural.
const PARTS: [(&str, &str, u64); 9] = [
    ("half", "halves", 2),
    ("third", "thirds", 3),
    ("quarter", "quarters", 4),
    ("fourth", "fourths", 4),
    ("fifth", "fifths", 5),
    ("sixth", "sixths", 6),
    ("eighth", "eighths", 8),
    ("ninth", "ninths", 9),
    ("tenth", "tenths", 10),
];

/// Words that may not follow: the number would not be the answer.
const JOINS: [&str; 16] = [
    "or", "and", "to", "by", "of", "out", "past", "over", "plus", "minus", "times", "more", "less", "than", "not", "is",
];

/// The answer with the number it begins with in digits.
pub fn digits(text: &str) -> Cow<'_, str> {
    if text.len() > 200 {
        return Cow::Borrowed(text);
    }
    english(text).or_else(|| chinese(text)).map_or(Cow::Borrowed(text), Cow::Owned)
}

/// The words of a text that is nothing but words: `\text{…}` taken off, hyphens as blanks.
fn plain_words(text: &str) -> Option<Vec<String>> {
    let mut words = Vec::new();
    let mut rest = text;
    let mut word = String::new();
    while let Some(c) = rest.chars().next() {
        rest = &rest[c.len_utf8()..];
        match c {
            '\\' => {
                let len = rest.bytes().take_while(u8::is_ascii_alphabetic).count();
                if !matches!(&rest[..len], "text" | "textbf" | "textit" | "mathrm" | "mbox" | "textrm" | "") {
                    return None;
                }
                rest = &rest[len..];
            }
            'a'..='z' | 'A'..='Z' | '0'..='9' | '.' | '/' | '\'' => word.push(c.to_ascii_lowercase()),
            ' ' | '-' | '{' | '}' | '~' if word.is_empty() => {}
            ' ' | '-' | '{' | '}' | '~' => words.push(std::mem::take(&mut word)),
            _ => return None,
        }
        if words.len() > MAX_WORDS {
            return None;
        }
    }
    if !word.is_empty() {
        words.push(word.trim_end_matches('.').to_string());
    }
    Some(words)
}

fn english(text: &str) -> Option<String> {
    let first = text.trim_start_matches(['\\', '{', ' ']).bytes().next()?;
    if !first.is_ascii_alphanumeric() {
        return None;
    }
    let words = plain_words(text)?;
    let mut words: Vec<&str> = words.iter().map(String::as_str).collect();
    let negative = matches!(words.first(), Some(&("negative" | "minus")));
    if negative {
        words.remove(0);
    }
    let numeral = |word: &str| !word.is_empty() && word.bytes().all(|b| b.is_ascii_digit() || b == b'.' || b == b'/');
    let (value, used) = match words.first() {
        // Digits need a reason to be looked at: a sign in words, "and a half".
        Some(first) if numeral(first) => (first.to_string(), 1),
        Some(&("a" | "an" | "half" | "one")) if matches!(words[..], ["half"] | ["a" | "one", "half"]) => {
            return Some(format!(r"{}\frac{{1}}{{2}}", if negative { "-" } else { "" }));
        }
        Some(_) => whole(&words)?,
        None => return None,
    };
    let mut out = if negative { format!("-{value}") } else { value };
    let mut rest = &words[used..];
    let mut changed = negative || !words.first().is_some_and(|w| numeral(w));
    if let [top @ ("a" | "one" | "two" | "three"), part, ..] = *rest.strip_prefix(&["and"]).unwrap_or(&[])
        && let Some(size) = part_of(part)
        && !out.contains(['.', '/'])
    {
        let top = if top == "two" { 2 } else { 1 + 2 * u64::from(top == "three") };
        if top < size {
            out.push_str(&format!(r" \frac{{{top}}}{{{size}}}"));
            rest = &rest[3..];
            changed = true;
        }
    } else if let ["and", fraction, ..] = *rest
        && fraction.split_once('/').is_some_and(|(a, b)| small(a) && small(b))
        && !out.contains(['.', '/'])
    {
        out.push_str(&format!(" {fraction}"));
        rest = &rest[2..];
        changed = true;
    } else if let [part] = *rest
        && let Some(size) = part_of(part)
        && !numeral(words[0])
        // "two fifths", but "twenty-fifth" is the 25th.
        && (part.ends_with('s') == (out.trim_start_matches('-') != "1"))
    {
        return Some(format!(r"{}\frac{{{}}}{{{size}}}", if negative { "-" } else { "" }, out.trim_start_matches('-')));
    }
    let joined = rest.iter().any(|w| JOINS.contains(w) || part_of(w).is_some() || whole(&[w]).is_some());
    if !changed || joined {
        return None;
    }
    if !rest.is_empty() {
        out.push_str(&format!(r" \text{{ {}}}", rest.join(" ")));
    }
    Some(out)
}

fn small(text: &str) -> bool {
    (1..=3).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit())
}

fn part_of(word: &str) -> Option<u64> {
    PARTS.iter().find(|(one, many, _)| *one == word || *many == word).map(|p| p.2)
}

/// A whole number in words: its digits and how many words it takes.
fn whole(words: &[&str]) -> Option<(String, usize)> {
    let (mut total, mut group) = (0u64, 0u64);
    // What the group's last word was: units may follow tens, tens may follow hundreds.
    let mut room = 1000;
    let mut used = 0;
    let mut largest = u64::MAX;
    while let Some(&word) = words.get(used) {
        if let Some(n) = SMALL.iter().position(|s| *s == word).map(|n| n as u64) {
            if room <= 1 || (n > 9 && room < 100) || (n == 0 && used > 0) {
                return None;
            }
            group += n;
            room = 1;
        } else if let Some(n) = TENS.iter().position(|s| *s == word) {
            if room < 100 {
                return None;
            }
            group += (n as u64 + 2) * 10;
            room = 10;
        } else if word == "hundred" && (1..100).contains(&group) {
            group *= 100;
            room = 100;
        } else if let Some(scale) = scale(word)
            && group > 0
            && scale < largest
        {
            total = total.checked_add(group.checked_mul(scale)?)?;
            (group, room, largest) = (0, 1000, scale);
        } else if word == "a" && used == 0 && matches!(words.get(1), Some(&("hundred" | "thousand" | "million"))) {
            (group, room) = (1, 1);
        } else if word == "and" && used > 0 && room >= 100 && number_word(words.get(used + 1)) {
            // "three hundred and five"
        } else {
            break;
        }
        used += 1;
    }
    (used > 0).then(|| ((total + group).to_string(), used))
}

fn number_word(word: Option<&&str>) -> bool {
    word.is_some_and(|w| SMALL[1..].contains(w) || TENS.contains(w))
}

fn scale(word: &str) -> Option<u64> {
    Some(match word {
        "thousand" => 1000,
        "million" => 1_000_000,
        "billion" => 1_000_000_000,
        _ => return None,
    })
}

/// `五十二`, `两百个`: a number in Chinese characters, and at most a counter behind it.
fn chinese(text: &str) -> Option<String> {
    const COUNTERS: [&str; 20] = [
        "", "个", "人", "只", "本", "条", "元", "天", "岁", "小时", "分钟", "秒", "米", "千米", "厘米", "千克", "克",
        "棵", "名", "辆",
    ];
    let value_of = |c: char| "零一二三四五六七八九".chars().position(|d| d == c).map(|n| n as u64);
    let (mut total, mut section, mut digit, mut end) = (0u64, 0u64, None::<u64>, 0);
    for (at, c) in text.char_indices() {
        let two = (c == '两').then_some(2);
        if let Some(n) = value_of(c).or(two) {
            if digit.is_some_and(|d| d != 0) {
                return None;
            }
            digit = Some(n);
        } else if let Some(scale) = match c {
            '十' => Some(10),
            '百' => Some(100),
            '千' => Some(1000),
            _ => None,
        } {
            section += digit.take().unwrap_or(1).checked_mul(scale)?;
        } else if let Some(scale) = match c {
            '万' => Some(10_000),
            '亿' => Some(100_000_000),
            _ => None,
        } {
            total += (section + digit.take().unwrap_or(0)).checked_mul(scale)?;
            section = 0;
        } else {
            break;
        }
        end = at + c.len_utf8();
    }
    // 千米 and 千克 are units: the numeral before them ends one character earlier, which no answer needs.
    if end == 0 || end > 30 || !COUNTERS.contains(&text[end..].trim()) {
        return None;
    }
    Some(format!("{}{}", total + section + digit.unwrap_or(0), &text[end..]))
}

#[cfg(test)]
mod tests {
    use super::digits;

    #[test]
    fn numbers_in_words_become_digits() {
        for (words, want) in [
            ("twelve", "12"),
            ("Forty-Two", "42"),
            (r"\text{three hundred and five}", "305"),
            ("two thousand eighteen", "2018"),
            ("one million two hundred thousand three", "1200003"),
            ("minus 5", "-5"),
            ("negative two thirds", r"-\frac{2}{3}"),
            ("two and a half", r"2 \frac{1}{2}"),
            ("2 and 1/2", "2 1/2"),
            ("twelve apples", r"12 \text{ apples}"),
            ("五十二", "52"),
            ("一百二十三", "123"),
            ("三万", "30000"),
            ("十五个", "15个"),
        ] {
            assert_eq!(digits(words), want, "{words}");
        }
    }

    #[test]
    fn other_words_stay() {
        for text in [
            "one or two",
            "one-to-one",
            "twenty-fifth",
            "four two",
            "half past one",
            "hundred one",
            "second",
            "no one",
            "2 and 2",
            "42",
            "42 apples",
            "三角形",
            "一次函数",
            "x and a half",
            "",
            "-",
            r"\frac{1}{2}",
        ] {
            assert_eq!(digits(text), text);
        }
    }
}
