//! Answers in words: one normal form for comparison.

/// Lower case, no LaTeX dressing, no articles, no punctuation at the ends.
pub fn normalise(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        if let Some(after) = rest.strip_prefix('\\') {
            let len = after.bytes().take_while(u8::is_ascii_alphabetic).count();
            let name = &after[..len];
            if len == 0 {
                let skip = after.chars().next().map_or(0, char::len_utf8);
                // Escaped signs stay, spacing commands become a blank.
                match &after[..skip] {
                    "%" | "$" | "{" | "}" | "&" => out.push_str(&after[..skip]),
                    _ => out.push(' '),
                }
                rest = &after[skip..];
                continue;
            }
            if !is_dressing(name) {
                out.push(' ');
                out.push_str(name);
                out.push(' ');
            }
            rest = &after[len..];
            continue;
        }
        match c {
            '$' | '{' | '}' | '*' | '"' | '`' | '~' => out.push(' '),
            c => out.extend(c.to_lowercase()),
        }
        rest = &rest[c.len_utf8()..];
    }
    // "A. 12" is the choice (A), not the word "a".
    let mut bytes = out.trim_start().bytes();
    if let (Some(b'a'..=b'j'), Some(b'.' | b':'), Some(b' ')) = (bytes.next(), bytes.next(), bytes.next()) {
        let rest = out.trim_start()[2..].split_whitespace().collect::<Vec<_>>().join(" ");
        if !rest.is_empty() {
            return format!("({}) {rest}", &out.trim_start()[..1]);
        }
    }
    let words: Vec<&str> = out
        .split_whitespace()
        .map(|w| w.trim_matches(|c: char| matches!(c, '.' | ',' | ';' | ':' | '!' | '?')))
        .filter(|w| !w.is_empty())
        .map(|w| match w.len().checked_sub(2).and_then(|at| w.split_at_checked(at)) {
            // "July 4th"
            Some((digits, "st" | "nd" | "rd" | "th")) if digits.bytes().all(|b| b.is_ascii_digit()) => digits,
            _ => w,
        })
        .collect();
    // An article needs a noun; a lone "a" is an answer.
    let article = matches!(words[..], ["the" | "a" | "an", noun, ..] if noun.chars().count() >= 3);
    words[usize::from(article)..].join(" ")
}

/// True if two formulas are written alike but for blanks, sizes of brackets and braces around one
/// character. Case, signs and all other braces count.
pub fn same_formula(a: &str, b: &str) -> bool {
    let (x, y) = (bare_formula(a), bare_formula(b));
    !x.is_empty() && x == y
}

/// A formula without blanks, sizes of brackets, dollar signs and braces around one character.
pub fn bare_formula(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        if let Some(after) = rest.strip_prefix('\\') {
            let len = after.bytes().take_while(u8::is_ascii_alphabetic).count();
            let name = &after[..len];
            rest = &after[len..];
            match name {
                "" => {
                    let sign = rest.chars().next().unwrap_or(' ');
                    rest = &rest[sign.len_utf8().min(rest.len())..];
                    if !matches!(sign, ' ' | ',' | ';' | ':' | '!' | '(' | ')' | '[' | ']') {
                        out.push('\\');
                        out.push(sign);
                    }
                }
                "dfrac" | "tfrac" => out.push_str("\\frac "),
                "leq" => out.push_str("\\le "),
                "geq" => out.push_str("\\ge "),
                "neq" => out.push_str("\\ne "),
                "rightarrow" => out.push_str("\\to "),
                "bigl" | "bigr" | "limits" | "displaystyle" | "quad" | "qquad" | "thinspace" => {}
                name if is_dressing(name) => {}
                name => {
                    out.push('\\');
                    out.push_str(name);
                    out.push(' ');
                }
            }
            continue;
        }
        rest = &rest[c.len_utf8()..];
        match c {
            '{' => {
                // `x^{2}` is `x^2`, `{\sin}` is `\sin`.
                let mut inside = rest.chars();
                if let Some(command) = rest.strip_prefix('\\') {
                    let len = command.bytes().take_while(u8::is_ascii_alphabetic).count();
                    if len > 0 && command[len..].starts_with('}') && !is_dressing(&command[..len]) {
                        out.push('\\');
                        out.push_str(&command[..len]);
                        out.push(' ');
                        rest = &command[len + 1..];
                        continue;
                    }
                }
                if let (Some(one), Some('}')) = (inside.next(), inside.next())
                    && one.is_alphanumeric()
                {
                    out.push(one);
                    rest = &rest[one.len_utf8() + 1..];
                } else {
                    out.push('{');
                }
            }
            '$' | '*' | '`' | '"' | '~' => {}
            c if c.is_whitespace() => {}
            c => out.push(c),
        }
    }
    out.trim_end_matches(['.', ',', ';']).to_string()
}

/// True for words: what is compared without regard to case and punctuation. Signs that mathematics
/// reads make a formula.
pub fn is_words(source: &str) -> bool {
    let mut rest = source;
    let mut run = 0;
    while let Some(c) = rest.chars().next() {
        rest = &rest[c.len_utf8()..];
        match c {
            '\\' => {
                let len = rest.bytes().take_while(u8::is_ascii_alphabetic).count();
                let sign = rest.chars().next().unwrap_or(' ');
                if len == 0 && !matches!(sign, ' ' | ',' | ';' | ':' | '!' | '%' | '$' | '&' | '(' | ')' | '[' | ']') {
                    return false;
                }
                if len > 0 && !is_dressing(&rest[..len]) {
                    return false;
                }
                rest = &rest[if len == 0 { sign.len_utf8().min(rest.len()) } else { len }..];
                run = 0;
            }
            '^' | '_' | '=' | '<' | '>' | '+' | '|' => return false,
            // "Monday!", but n! and ab! are factorials.
            '!' if run < 3 => return false,
            c if c.is_alphabetic() => run += 1,
            _ => run = 0,
        }
    }
    true
}

fn is_dressing(name: &str) -> bool {
    matches!(
        name,
        "text"
            | "mbox"
            | "textbf"
            | "textit"
            | "textrm"
            | "mathrm"
            | "mathbf"
            | "rm"
            | "bf"
            | "operatorname"
            | "left"
            | "right"
            | "quad"
            | "qquad"
            | "displaystyle"
            | "boxed"
            | "fbox"
            | "emph"
            | "big"
            | "Big"
    )
}

/// The letter of a multiple-choice answer: `B`, `(B)`, `B.`, `(B) 12`.
pub fn choice(normal: &str) -> Option<char> {
    let inner = normal.strip_prefix("option ").or_else(|| normal.strip_prefix("choice ")).unwrap_or(normal);
    let open = inner.strip_prefix('(').unwrap_or(inner);
    let letter = open.chars().next().filter(|c| ('a'..='j').contains(c))?;
    let rest = &open[1..];
    let closed = rest.strip_prefix(')').or_else(|| rest.strip_prefix(':')).or_else(|| rest.strip_prefix('.'));
    match closed {
        // "(A) + 1" reckons with A; what "(A) -3" says is -3.
        Some(text) if text.starts_with(['-', '!']) => None,
        Some(text) if text.trim_start().starts_with(['+', '*', '/', '^', '_', '=', '<', '>']) => None,
        Some(_) => Some(letter),
        None if rest.is_empty() && open.len() == inner.len() => Some(letter),
        None => None,
    }
}

/// The letters of several options, sorted, and whether they are written as one word: `ACD` and `A, C and D`.
/// `None` for alternatives, for one letter alone and for letters out of order in one word, which is a name.
pub fn options(source: &str) -> Option<(Vec<u8>, bool)> {
    if source.len() > 120 {
        return None;
    }
    let mut letters: Vec<u8> = Vec::new();
    let mut joined = true;
    let mut rest = source;
    while let Some(c) = rest.chars().next() {
        rest = &rest[c.len_utf8()..];
        match c {
            'A'..='H' => letters.push(c as u8),
            '\\' => {
                let len = rest.bytes().take_while(u8::is_ascii_alphabetic).count();
                if !is_dressing(&rest[..len]) && !matches!(rest.bytes().next(), Some(b' ' | b',' | b';')) {
                    return None;
                }
                rest = &rest[len..];
            }
            '{' | '}' | '$' => {}
            ' ' | ',' | ';' | '(' | ')' | '.' | '、' | '，' | '和' | '与' => {
                joined &= letters.is_empty() || rest.trim().is_empty()
            }
            'a' if rest.starts_with("nd ") => (rest, joined) = (&rest[3..], false),
            _ => return None,
        }
    }
    let in_order = letters.windows(2).all(|pair| pair[0] < pair[1]);
    letters.sort_unstable();
    let distinct = letters.windows(2).all(|pair| pair[0] < pair[1]);
    (letters.len() > 1 && distinct && (in_order || !joined)).then_some((letters, joined))
}

/// The first word takes back what follows: "not 5".
pub fn begins_with_denial(source: &str) -> bool {
    let mut rest = source.trim_start_matches(['$', '*', ' ', '(', '{']);
    for dressing in [r"\text", r"\textbf", r"\mathrm", r"\textit", r"\mbox"] {
        if let Some(inside) = rest.strip_prefix(dressing).and_then(|rest| rest.trim_start().strip_prefix('{')) {
            rest = inside.trim_start();
        }
    }
    let word = rest.split(|c: char| !c.is_alphabetic() && c != '\'').next().unwrap_or("");
    ["not", "never", "isn't", "nicht", "不是", "并非"].iter().any(|denial| word.eq_ignore_ascii_case(denial))
}

/// The letter of a lone small letter, which is a variable as soon as a letter of an option.
pub fn small_letter(source: &str) -> Option<char> {
    let mut chars = source.chars();
    chars.next().filter(|c| c.is_ascii_lowercase() && chars.next().is_none())
}

/// What follows the letter of a multiple-choice answer, as written: `12` in `\text{(B) }12`.
pub fn behind_choice(text: &str) -> Option<&str> {
    // "A. 12", "A) 12"
    let mut letters = text.trim_start_matches(['$', '*', ' ']).char_indices();
    if let (Some((_, 'A'..='E')), Some((at, '.' | ')'))) = (letters.next(), letters.next()) {
        let text = text.trim_start_matches(['$', '*', ' ']);
        let rest = text[at + 1..].trim_start_matches(['}', ' ', '~', '*', ':', '$']).trim();
        return (text[at + 1..].starts_with([' ', '~', '$', '\\']) && rest.contains(|c: char| c.is_ascii_digit()))
            .then_some(rest);
    }
    let at = text.find(')').filter(|&at| at <= 16)?;
    let letter = text[..at].chars().rfind(|c| !matches!(c, '(' | '{' | ' ' | '*'))?;
    let before = text[..at].trim_end_matches(letter);
    let rest = text[at + 1..].trim_start_matches(['}', ' ', '~', '*', ':', '$']).trim();
    // In "E(X) = 6" the X is no option.
    let dressing = before.trim_matches(['(', '{', '$', '*', ' ', '\\']);
    let bare = matches!(dressing, "" | "text" | "textbf" | "textrm" | "mathrm" | "mathbf" | "mbox");
    (letter.is_ascii_uppercase() && before.ends_with(['(', '{']) && bare && !rest.is_empty()).then_some(rest)
}

const MONTHS: [&str; 12] = [
    "january",
    "february",
    "march",
    "april",
    "may",
    "june",
    "july",
    "august",
    "september",
    "october",
    "november",
    "december",
];

/// Year (0 where it is left out), month and day of a date in normal form: "july 4 1776", "4th of july 1776",
/// "1776-07-04".
pub fn date(normal: &str) -> Option<(u32, u32, u32)> {
    if let [year, month, day] = normal.split('-').map(|part| part.parse().ok()).collect::<Vec<Option<u32>>>()[..] {
        let (year, month, day) = (year?, month?, day?);
        return (normal.len() == 10 && (1..=12).contains(&month) && (1..=31).contains(&day))
            .then_some((year, month, day));
    }
    let (mut year, mut month, mut day) = (None, None, None);
    for word in normal.split(|c: char| !c.is_alphanumeric()).filter(|w| !matches!(*w, "" | "of" | "the" | "on")) {
        let named = MONTHS.iter().position(|name| name == &word || (word.len() >= 3 && name[..3] == *word));
        let bare = word.trim_end_matches(|c: char| c.is_ascii_alphabetic());
        let number = bare.parse::<u32>().ok().filter(|_| matches!(&word[bare.len()..], "" | "st" | "nd" | "rd" | "th"));
        match (named, number) {
            (Some(at), _) if month.is_none() => month = Some(at as u32 + 1),
            (None, Some(n @ 1..=31)) if day.is_none() => day = Some(n),
            (None, Some(n @ 32..=9999)) if year.is_none() => year = Some(n),
            _ => return None,
        }
    }
    Some((year.unwrap_or(0), month?, day?))
}

/// `2023-01-05`: a date and no subtraction.
pub fn is_iso_date(source: &str) -> bool {
    let bytes = source.as_bytes();
    let shape = bytes.len() == 10
        && bytes.iter().enumerate().all(|(at, b)| if matches!(at, 4 | 7) { *b == b'-' } else { b.is_ascii_digit() });
    shape && date(source).is_some()
}

/// Words that mathematics uses for the same.
fn synonym(normal: &str) -> Option<u8> {
    Some(match normal {
        "dne" | "does not exist" | "doesn't exist" | "limit does not exist" | "不存在" => 0,
        "undefined" | "not defined" | "is undefined" => 1,
        "infinitely many" | "infinitely many solutions" | "infinite" | "infinite solutions" | "无数" | "无穷多" => {
            2
        }
        _ => return None,
    })
}

/// True if a choice names something else too: "(a) or (b)", "(a) or 17".
fn names_others(normal: &str, letter: char) -> bool {
    if matches!(normal.split(' ').nth(1), Some("or" | "and")) {
        return true;
    }
    normal.split([' ', ',', '/']).skip(1).any(|word| choice(word).is_some_and(|other| other != letter && word != "a"))
}

/// True if two normal forms say the same.
pub fn same(a: &str, b: &str) -> bool {
    if a == b {
        return !a.is_empty();
    }
    if let (Some(x), Some(y)) = (date(a), date(b)) {
        return x == y;
    }
    if let (Some(x), Some(y)) = (synonym(a), synonym(b)) {
        return x == y;
    }
    if let (Some(x), Some(y)) = (choice(a), choice(b)) {
        // A letter alone stands for the letter with its text.
        return x == y && (a.len() <= 3 || b.len() <= 3) && !names_others(a, x) && !names_others(b, x);
    }
    // Hyphens inside words; a sign before one stays.
    let squeeze = |s: &str| {
        let mut before = ' ';
        let mut keep = |c: char| {
            let hyphen = c == '-' && before.is_alphanumeric();
            before = c;
            !c.is_whitespace() && !hyphen && !matches!(c, '(' | ')')
        };
        s.chars().filter(|&c| keep(c)).collect::<String>()
    };
    let (x, y) = (squeeze(a), squeeze(b));
    !x.is_empty() && x == y
}
