//! Names of languages: BCP 47 primary tags, and what else stands for them.

/// The primary tag that a `language` column means: `en-US`, `EN`, `eng`, `English` are `en`; `None` for what is no tag.
pub fn normalise_tag(text: &str) -> Option<String> {
    let text = text.trim().to_lowercase();
    if let Some((_, tag)) = NAMES.iter().find(|(name, _)| *name == text) {
        return Some((*tag).to_owned());
    }
    let primary = text.split(['-', '_']).next().unwrap_or("");
    let is_tag = (2..=3).contains(&primary.len()) && primary.bytes().all(|b| b.is_ascii_lowercase());
    is_tag.then(|| shortest(primary).unwrap_or(primary).to_owned())
}

/// The tag of a language that whatlang knows.
pub(super) fn of_lang(lang: whatlang::Lang) -> &'static str {
    shortest(lang.code()).unwrap_or("und")
}

/// ISO 639-2 and 639-3 to BCP 47's shorter tags, where there is one.
fn shortest(code: &str) -> Option<&'static str> {
    CODES.iter().find(|(long, _)| *long == code).map(|(_, tag)| *tag)
}

const NAMES: [(&str, &str); 44] = [
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
    ("swedish", "sv"),
    ("danish", "da"),
    ("norwegian", "nb"),
    ("finnish", "fi"),
    ("greek", "el"),
    ("hebrew", "he"),
    ("thai", "th"),
    ("indonesian", "id"),
    ("ukrainian", "uk"),
    ("czech", "cs"),
    ("romanian", "ro"),
    ("hungarian", "hu"),
    ("persian", "fa"),
    ("farsi", "fa"),
    ("bengali", "bn"),
    ("urdu", "ur"),
    ("tamil", "ta"),
    ("mandarin", "zh"),
    ("castilian", "es"),
    ("français", "fr"),
    ("deutsch", "de"),
    ("español", "es"),
    ("italiano", "it"),
    ("português", "pt"),
    ("中文", "zh"),
    ("日本語", "ja"),
    ("한국어", "ko"),
    ("русский", "ru"),
];

/// The languages of whatlang first, in its order.
#[rustfmt::skip]
const CODES: [(&str, &str); 86] = [
    ("eng", "en"), ("rus", "ru"), ("cmn", "zh"), ("spa", "es"), ("por", "pt"), ("ita", "it"), ("ben", "bn"),
    ("fra", "fr"), ("deu", "de"), ("ukr", "uk"), ("kat", "ka"), ("ara", "ar"), ("hin", "hi"), ("jpn", "ja"),
    ("heb", "he"), ("yid", "yi"), ("pol", "pl"), ("amh", "am"), ("jav", "jv"), ("kor", "ko"), ("nob", "nb"),
    ("dan", "da"), ("swe", "sv"), ("fin", "fi"), ("tur", "tr"), ("nld", "nl"), ("hun", "hu"), ("ces", "cs"),
    ("ell", "el"), ("bul", "bg"), ("bel", "be"), ("mar", "mr"), ("kan", "kn"), ("ron", "ro"), ("slv", "sl"),
    ("hrv", "hr"), ("srp", "sr"), ("mkd", "mk"), ("lit", "lt"), ("lav", "lv"), ("est", "et"), ("tam", "ta"),
    ("vie", "vi"), ("urd", "ur"), ("tha", "th"), ("guj", "gu"), ("uzb", "uz"), ("pan", "pa"), ("aze", "az"),
    ("ind", "id"), ("tel", "te"), ("pes", "fa"), ("mal", "ml"), ("ori", "or"), ("mya", "my"), ("nep", "ne"),
    ("sin", "si"), ("khm", "km"), ("tuk", "tk"), ("aka", "ak"), ("zul", "zu"), ("sna", "sn"), ("afr", "af"),
    ("lat", "la"), ("slk", "sk"), ("cat", "ca"), ("tgl", "tl"), ("hye", "hy"), ("epo", "eo"), ("cym", "cy"),
    ("zho", "zh"), ("chi", "zh"), ("fre", "fr"), ("ger", "de"), ("dut", "nl"), ("gre", "el"), ("cze", "cs"),
    ("rum", "ro"), ("per", "fa"), ("fas", "fa"), ("nor", "nb"), ("msa", "ms"), ("swa", "sw"), ("isl", "is"),
    ("eus", "eu"), ("glg", "gl"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_say_it_in_many_ways() {
        for (text, tag) in [
            ("en-US", Some("en")),
            ("Chinese", Some("zh")),
            ("zh_CN", Some("zh")),
            ("eng", Some("en")),
            ("Français", Some("fr")),
            ("yue", Some("yue")),
            ("mixed languages", None),
            ("python", None),
        ] {
            assert_eq!(normalise_tag(text).as_deref(), tag, "{text}");
        }
    }

    #[test]
    fn every_language_of_the_trigrams_has_a_tag() {
        for lang in whatlang::Lang::all() {
            assert_ne!(of_lang(*lang), "und", "{lang}");
        }
    }
}
