//! Letters by script, and the languages that a script tells.

use super::tags;
use super::words::Word;

/// Letters of a text's prose.
#[derive(Default)]
pub(super) struct Scripts {
    han: u32,
    kana: u32,
    hangul: u32,
    /// Cyrillic, Arabic and every other script but Latin; words of Greek only, since its letters are variables.
    other: u32,
}

/// Characters of Chinese and Japanese.
pub(super) fn is_cjk(c: char) -> bool {
    is_han(c) || is_kana(c)
}

/// Chinese characters, also in Japanese.
pub(super) fn is_han(c: char) -> bool {
    matches!(c as u32, 0x3400..=0x4dbf | 0x4e00..=0x9fff | 0xf900..=0xfaff | 0x20000..=0x323af) || c == '々'
}

/// Japanese syllables.
pub(super) fn is_kana(c: char) -> bool {
    matches!(c as u32, 0x3041..=0x3096 | 0x309d..=0x309f | 0x30a1..=0x30fa | 0x30fc..=0x30ff | 0x31f0..=0x31ff | 0xff66..=0xff9d)
}

/// Latin letters, those with marks included.
pub(super) fn is_latin(c: char) -> bool {
    c.is_ascii_alphabetic() || matches!(c as u32, 0x00c0..=0x024f | 0x1e00..=0x1eff) && c.is_alphabetic()
}

/// Combining marks that belong to the letter before them.
pub(crate) fn is_mark(c: char) -> bool {
    unicode_normalization::char::is_combining_mark(c)
}

/// Letters of a script that is neither Latin, Chinese nor Japanese. Signs of mathematics, phonetics and the like are
/// none, nor are Latin letters in another dress: `ℝ`, `𝑥`, `Ａ`.
pub(super) fn is_of_another_script(c: char) -> bool {
    let sign = matches!(c as u32, ..0x0370 | 0x1d00..=0x1dbf | 0x2000..=0x2bff | 0x2c60..=0x2c7f | 0xa700..=0xa7ff
        | 0xab30..=0xab6f | 0xff21..=0xff5a | 0x1d000..=0x1d7ff | 0x1ee00..=0x1eeff | 0x1f000..=0x1faff);
    !sign && c.is_alphabetic() && !is_latin(c) && !is_cjk(c)
}

impl Scripts {
    pub(super) fn of(prose: &str) -> Scripts {
        let mut scripts = Scripts::default();
        for word in prose.split(|c: char| !c.is_alphabetic()).filter(|word| !word.is_ascii()) {
            let single = word.chars().nth(1).is_none();
            for c in word.chars() {
                match c as u32 {
                    _ if is_han(c) => scripts.han += 1,
                    _ if is_kana(c) => scripts.kana += 1,
                    0xac00..=0xd7a3 | 0x1100..=0x11ff | 0x3130..=0x318f => scripts.hangul += 1,
                    0x370..=0x52f if single => {}
                    code if code >= 0x370 && !is_latin(c) => scripts.other += 1,
                    _ => {}
                }
            }
        }
        scripts
    }

    /// The language, where another script than Latin has most of the words: two Chinese characters are about
    /// one word, as are two Korean syllables and four letters.
    pub(super) fn tag(&self, prose: &str, latin: &[Word]) -> Option<&'static str> {
        // What no list knows is as likely a name, which every language takes as it is.
        let latin: f64 = latin.iter().map(|word| if word.languages != 0 { 1.0 } else { 0.5 }).sum();
        let (han, kana, hangul) = (f64::from(self.han), f64::from(self.kana), f64::from(self.hangul));
        if (han + kana) / 1.7 > latin && han + kana >= hangul {
            // A kana or two in Chinese is a quotation, or の on a sign.
            return Some(if kana * 8.0 > han { "ja" } else { "zh" });
        }
        if hangul / 2.0 > latin {
            return Some("ko");
        }
        (f64::from(self.other) / 4.0 > latin).then(|| other(prose))
    }
}

/// The language of a text in one of the other scripts: letters that only one of its languages has, then trigrams.
fn other(prose: &str) -> &'static str {
    let has = |letters: &str| prose.contains(|c| letters.contains(c));
    let is = |range: std::ops::RangeInclusive<char>| prose.contains(|c| range.contains(&c));
    if is('\u{400}'..='\u{52f}') {
        return match () {
            () if has("ўЎ") => "be",
            () if has("іїєґІЇЄҐ") => "uk",
            () if has("ѓќѕЃЌЅ") => "mk",
            () if has("ђћџљњјЂЋЏЉЊЈ") => "sr",
            () if has("ыэёЫЭЁ") => "ru",
            () => trigrams(prose).unwrap_or("ru"),
        };
    }
    if is('\u{600}'..='\u{6ff}') {
        return match () {
            () if has("ٹڈڑےں") => "ur",
            () if has("پچژگکی") => "fa",
            () => "ar",
        };
    }
    if is('\u{370}'..='\u{3ff}') {
        return "el";
    }
    // A script of one language, or of a few that trigrams tell apart.
    whatlang::detect(prose).map_or("und", |info| tags::of_lang(info.lang()))
}

fn trigrams(prose: &str) -> Option<&'static str> {
    whatlang::detect(prose).filter(whatlang::Info::is_reliable).map(|info| tags::of_lang(info.lang()))
}
