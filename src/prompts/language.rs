//! The language of a question where no column tells: script first, then function words, then trigrams.
//!
//! Formulas and code say nothing of the language, so TeX commands and digits
//! are passed over. Unsure is `und`: a wrong tag would drop or misroute the prompt.

/// The BCP 47 primary tag of a text: `en`, `fr`, `zh`, …, or `und`.
pub fn detect(text: &str) -> &'static str {
    let counts = Scripts::of(text);
    if let Some(tag) = counts.tag() {
        return tag;
    }
    if counts.latin == 0 {
        return counts.other_tag(text);
    }
    let words = words(text);
    function_words(&words).unwrap_or_else(|| trigrams(&words))
}

/// The primary tag that a `language` column means: `en-US`, `EN`, `English` are `en`; `None` for what is no tag.
pub fn normalise_tag(text: &str) -> Option<String> {
    let text = text.trim().to_lowercase();
    let named = NAMES.iter().find(|(name, _)| *name == text).map(|(_, tag)| (*tag).to_owned());
    named.or_else(|| {
        let primary = text.split(['-', '_']).next().unwrap_or("");
        let is_tag = (2..=3).contains(&primary.len()) && primary.bytes().all(|b| b.is_ascii_lowercase());
        is_tag.then(|| primary.to_owned())
    })
}

const NAMES: [(&str, &str); 16] = [
    ("english", "en"),
    ("chinese", "zh"),
    ("french", "fr"),
    ("german", "de"),
    ("spanish", "es"),
    ("italian", "it"),
    ("portuguese", "pt"),
    ("russian", "ru"),
    ("japanese", "ja"),
    ("korean", "ko"),
    ("arabic", "ar"),
    ("hindi", "hi"),
    ("dutch", "nl"),
    ("turkish", "tr"),
    ("polish", "pl"),
    ("vietnamese", "vi"),
];

#[derive(Default)]
struct Scripts {
    latin: u32,
    han: u32,
    kana: u32,
    hangul: u32,
    cyrillic: u32,
    other: u32,
}

impl Scripts {
    fn of(text: &str) -> Self {
        let mut counts = Scripts::default();
        for c in text.chars() {
            match c {
                'a'..='z' | 'A'..='Z' | '\u{c0}'..='\u{24f}' | '\u{1e00}'..='\u{1eff}' => counts.latin += 1,
                '\u{3041}'..='\u{30ff}' | '\u{ff66}'..='\u{ff9f}' => counts.kana += 1,
                '\u{3400}'..='\u{4dbf}' | '\u{4e00}'..='\u{9fff}' | '\u{20000}'..='\u{323af}' => counts.han += 1,
                '\u{ac00}'..='\u{d7af}' | '\u{1100}'..='\u{11ff}' => counts.hangul += 1,
                '\u{400}'..='\u{52f}' => counts.cyrillic += 1,
                c if c.is_alphabetic() && c as u32 >= 0x370 => counts.other += 1,
                _ => {}
            }
        }
        counts
    }

    /// One ideograph says what three Latin letters say, and TeX is all Latin: non-Latin scripts win early.
    fn tag(&self) -> Option<&'static str> {
        let most = self.latin / 6;
        if self.kana > 0 && self.kana + self.han > most && self.kana * 8 > self.han {
            return Some("ja");
        }
        if self.han > most && self.han > self.hangul {
            return Some("zh");
        }
        (self.hangul > most).then_some("ko")
    }

    /// Scripts of several languages or of one: left to whatlang, which knows them.
    fn other_tag(&self, text: &str) -> &'static str {
        if self.other + self.cyrillic == 0 {
            return "und";
        }
        whatlang::detect(text)
            .filter(|info| info.is_reliable() || info.script() != whatlang::Script::Cyrillic)
            .map_or(if self.cyrillic > self.other { "ru" } else { "und" }, |info| tag(info.lang()))
    }
}

/// Lower-case letters only, TeX commands left out.
fn words(text: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word = String::new();
    let mut command = false;
    for c in text.chars().take(4_000).chain(std::iter::once(' ')) {
        if c.is_alphabetic() {
            if !command {
                word.extend(c.to_lowercase());
            }
            continue;
        }
        if !word.is_empty() {
            words.push(std::mem::take(&mut word));
        }
        command = c == '\\';
    }
    words
}

const FUNCTION_WORDS: [(&str, &[&str]); 7] = [
    (
        "en",
        &[
            "the",
            "is",
            "of",
            "and",
            "to",
            "what",
            "how",
            "if",
            "find",
            "that",
            "are",
            "for",
            "with",
            "many",
            "does",
            "have",
            "each",
            "write",
            "your",
            "you",
            "at",
            "has",
            "was",
            "by",
            "which",
            "following",
        ],
    ),
    (
        "fr",
        &[
            "le", "la", "les", "des", "est", "et", "une", "un", "du", "que", "combien", "pour", "dans", "il", "quel",
            "quelle", "avec", "sont", "trouver", "calculer", "au", "vous",
        ],
    ),
    (
        "de",
        &[
            "der", "die", "das", "und", "ist", "ein", "eine", "wie", "viele", "von", "mit", "den", "zu", "auf",
            "nicht", "für", "wenn", "sie", "dem", "sind", "hat",
        ],
    ),
    (
        "es",
        &[
            "el", "los", "las", "es", "una", "y", "cuántos", "cuál", "qué", "para", "con", "por", "del", "que", "se",
            "tiene", "cada", "si", "un", "la", "de",
        ],
    ),
    (
        "it",
        &[
            "il", "di", "che", "è", "gli", "una", "per", "quanti", "con", "della", "del", "sono", "ha", "qual", "ogni",
            "si", "un", "la", "e", "i",
        ],
    ),
    (
        "pt",
        &[
            "o", "os", "as", "uma", "um", "é", "e", "que", "quantos", "qual", "para", "com", "do", "da", "em", "não",
            "cada", "se", "dos", "de",
        ],
    ),
    (
        "nl",
        &[
            "de", "het", "een", "van", "en", "is", "hoeveel", "wat", "voor", "met", "op", "dat", "zijn", "als", "niet",
            "te",
        ],
    ),
];

const COMMANDS: [&str; 16] = [
    "simplify",
    "solve",
    "evaluate",
    "factor",
    "determine",
    "compute",
    "graph",
    "express",
    "round",
    "write",
    "calculate",
    "convert",
    "expand",
    "multiply",
    "divide",
    "differentiate",
];

/// The language whose commonest words fill the text, if one clearly leads.
fn function_words(words: &[String]) -> Option<&'static str> {
    let mut scores =
        FUNCTION_WORDS.map(|(tag, list)| (words.iter().filter(|w| list.contains(&w.as_str())).count(), tag));
    // One of the commands that exercises begin with says as much as two small words.
    for (score, tag) in &mut scores {
        if *tag == "en" {
            *score += 2 * words.iter().filter(|w| COMMANDS.contains(&w.as_str())).count();
        }
    }
    // Stable: ties keep the table's order, so the result never depends on the sort.
    scores.sort_by_key(|(score, _)| std::cmp::Reverse(*score));
    // Single letters are variables.
    let names = words.iter().filter(|w| w.chars().nth(1).is_some()).count();
    let ((best, tag), (second, _)) = (scores[0], scores[1]);
    (best >= 2 && 2 * best >= 3 * second && 12 * best >= names).then_some(tag)
}

fn trigrams(words: &[String]) -> &'static str {
    // Single letters are variables.
    let text = words.iter().filter(|w| w.chars().nth(1).is_some()).map(String::as_str).collect::<Vec<_>>().join(" ");
    whatlang::detect(&text).filter(|info| info.is_reliable()).map_or("und", |info| tag(info.lang()))
}

/// ISO 639-3 to BCP 47's shorter tags, for the languages whatlang knows.
fn tag(lang: whatlang::Lang) -> &'static str {
    match lang.code() {
        "eng" => "en",
        "rus" => "ru",
        "cmn" => "zh",
        "spa" => "es",
        "por" => "pt",
        "ita" => "it",
        "ben" => "bn",
        "fra" => "fr",
        "deu" => "de",
        "ukr" => "uk",
        "kat" => "ka",
        "ara" => "ar",
        "hin" => "hi",
        "jpn" => "ja",
        "heb" => "he",
        "yid" => "yi",
        "pol" => "pl",
        "amh" => "am",
        "jav" => "jv",
        "kor" => "ko",
        "nob" => "nb",
        "dan" => "da",
        "swe" => "sv",
        "fin" => "fi",
        "tur" => "tr",
        "nld" => "nl",
        "hun" => "hu",
        "ces" => "cs",
        "ell" => "el",
        "bul" => "bg",
        "bel" => "be",
        "mar" => "mr",
        "kan" => "kn",
        "ron" => "ro",
        "slv" => "sl",
        "hrv" => "hr",
        "srp" => "sr",
        "mkd" => "mk",
        "lit" => "lt",
        "lav" => "lv",
        "est" => "et",
        "tam" => "ta",
        "vie" => "vi",
        "urd" => "ur",
        "tha" => "th",
        "guj" => "gu",
        "uzb" => "uz",
        "pan" => "pa",
        "aze" => "az",
        "ind" => "id",
        "tel" => "te",
        "pes" => "fa",
        "mal" => "ml",
        "ori" => "or",
        "mya" => "my",
        "nep" => "ne",
        "sin" => "si",
        "khm" => "km",
        "tuk" => "tk",
        "aka" => "ak",
        "zul" => "zu",
        "sna" => "sn",
        "afr" => "af",
        "lat" => "la",
        "slk" => "sk",
        "cat" => "ca",
        "tgl" => "tl",
        "hye" => "hy",
        "epo" => "eo",
        "cym" => "cy",
        _ => "und",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn questions_of_many_languages_get_their_tags() {
        for (text, tag) in [
            ("What is the sum of all integers $x$ such that $\\frac{x}{2} \\le 5$?", "en"),
            ("Combien de pommes reste-t-il dans le panier si Marie en mange trois ?", "fr"),
            ("Wie viele Äpfel sind in dem Korb, wenn Anna drei davon isst?", "de"),
            ("小明有3个苹果,又买了5个,一共有多少个?", "zh"),
            ("已知函数 $f(x)=\\sin x+\\cos x$,求其最大值。", "zh"),
            ("りんごが3個あります。全部で何個ですか?", "ja"),
            ("사과가 세 개 있습니다. 모두 몇 개입니까?", "ko"),
            ("Сколько яблок осталось в корзине, если Маша съела три?", "ru"),
            ("كم عدد التفاحات المتبقية في السلة؟", "ar"),
            ("टोकरी में कितने सेब बचे हैं?", "hi"),
        ] {
            assert_eq!(detect(text), tag, "{text}");
        }
    }

    #[test]
    fn formulas_alone_have_no_language() {
        for text in ["", "3 + 5 = ?", "$x^2 + 2x + 1 = 0$", "\\int_0^1 \\frac{dx}{x}"] {
            assert_eq!(detect(text), "und", "{text}");
        }
    }

    #[test]
    fn columns_say_it_in_many_ways() {
        assert_eq!(normalise_tag("en-US").as_deref(), Some("en"));
        assert_eq!(normalise_tag("Chinese").as_deref(), Some("zh"));
        assert_eq!(normalise_tag("zh_CN").as_deref(), Some("zh"));
        assert_eq!(normalise_tag("mixed languages"), None);
    }
}
