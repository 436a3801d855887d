//! What letters and endings say of a word that no list has.

use super::words::{LATIN, Word};

type Says = &'static [(&'static str, f64)];

/// Letters beyond ASCII.
const LETTERS: &[(&str, Says)] = &[
    ("ß", &[("de", 1.0)]),
    ("ü", &[("de", 0.6), ("tr", 0.4), ("hu", 0.2)]),
    ("äö", &[("de", 0.6), ("sv", 0.4), ("fi", 0.4)]),
    ("å", &[("sv", 0.6), ("da", 0.5), ("nb", 0.5)]),
    ("øæ", &[("da", 0.6), ("nb", 0.6)]),
    ("ñ", &[("es", 1.0)]),
    ("ãõ", &[("pt", 1.0)]),
    ("ç", &[("fr", 0.5), ("pt", 0.4), ("tr", 0.3)]),
    ("œûîëï", &[("fr", 0.6)]),
    ("è", &[("fr", 0.5), ("it", 0.4)]),
    ("à", &[("fr", 0.4), ("it", 0.4)]),
    ("êôâ", &[("fr", 0.5), ("pt", 0.3), ("vi", 0.1)]),
    ("é", &[("fr", 0.5), ("es", 0.25), ("pt", 0.2), ("hu", 0.2), ("cs", 0.2)]),
    ("áíóú", &[("es", 0.5), ("pt", 0.3), ("hu", 0.3), ("cs", 0.3)]),
    ("òùì", &[("it", 0.6)]),
    ("ąęłśźżćń", &[("pl", 0.8)]),
    ("řůě", &[("cs", 1.0)]),
    ("ščž", &[("cs", 0.5)]),
    ("őű", &[("hu", 1.0)]),
    ("șțăîâ", &[("ro", 0.5)]),
    ("ğışİ", &[("tr", 0.9)]),
    ("ơưđ", &[("vi", 1.0)]),
];

/// Endings of words.
const ENDINGS: &[(&str, Says)] = &[
    ("ing", &[("en", 0.5)]),
    ("ings", &[("en", 0.5)]),
    ("ied", &[("en", 0.5)]),
    ("ed", &[("en", 0.3)]),
    ("ly", &[("en", 0.4)]),
    ("ness", &[("en", 0.5)]),
    ("ity", &[("en", 0.4)]),
    ("ight", &[("en", 0.5)]),
    ("ough", &[("en", 0.5)]),
    ("tion", &[("en", 0.2), ("fr", 0.2)]),
    ("tions", &[("en", 0.2), ("fr", 0.2)]),
    ("eux", &[("fr", 0.5)]),
    ("euse", &[("fr", 0.5)]),
    ("aux", &[("fr", 0.5)]),
    ("ment", &[("en", 0.1), ("fr", 0.3)]),
    ("ons", &[("fr", 0.3)]),
    ("ez", &[("fr", 0.3), ("es", 0.1)]),
    ("ción", &[("es", 0.6)]),
    ("ciones", &[("es", 0.8)]),
    ("mente", &[("es", 0.3), ("it", 0.3), ("pt", 0.3)]),
    ("amos", &[("es", 0.4), ("pt", 0.3)]),
    ("emos", &[("es", 0.4), ("pt", 0.3)]),
    ("idad", &[("es", 0.5)]),
    ("os", &[("es", 0.2), ("pt", 0.2)]),
    ("as", &[("es", 0.15), ("pt", 0.15)]),
    ("ung", &[("de", 0.6)]),
    ("ungen", &[("de", 0.8)]),
    ("lich", &[("de", 0.8)]),
    ("keit", &[("de", 0.8)]),
    ("heit", &[("de", 0.8)]),
    ("ieren", &[("de", 0.8)]),
    ("iert", &[("de", 0.6)]),
    ("en", &[("de", 0.15), ("nl", 0.1), ("sv", 0.05), ("da", 0.05), ("nb", 0.05)]),
    ("zione", &[("it", 0.8)]),
    ("zioni", &[("it", 0.8)]),
    ("iamo", &[("it", 0.6)]),
    ("ção", &[("pt", 0.4)]),
    ("ções", &[("pt", 0.6)]),
    ("dade", &[("pt", 0.5)]),
    ("heid", &[("nl", 0.6)]),
];

/// Parts of words.
const PARTS: &[(&str, Says)] = &[
    ("sch", &[("de", 0.4), ("nl", 0.3)]),
    ("th", &[("en", 0.3)]),
    ("wh", &[("en", 0.4)]),
    ("eau", &[("fr", 0.4)]),
    ("ij", &[("nl", 0.4)]),
    ("aa", &[("nl", 0.3), ("fi", 0.3)]),
    ("nh", &[("pt", 0.4)]),
    ("lh", &[("pt", 0.4)]),
    ("gli", &[("it", 0.4)]),
    ("sh", &[("en", 0.2)]),
    ("sz", &[("pl", 0.4), ("hu", 0.3)]),
    ("cz", &[("pl", 0.5)]),
];

/// What letters, endings and parts say of a word in lower case for each of [`LATIN`]; nothing of a name.
pub(super) fn hints(word: &Word) -> [f64; LATIN.len()] {
    let mut scores = [0.0; LATIN.len()];
    if word.is_name() {
        return scores;
    }
    let text = &word.lower;
    for c in text.chars().filter(|c| !c.is_ascii()) {
        // Letters with two marks, as only Vietnamese has them.
        if matches!(c as u32, 0x1ea0..=0x1ef9) {
            add(&mut scores, &[("vi", 1.0)]);
        }
        LETTERS.iter().filter(|(letters, _)| letters.contains(c)).for_each(|(_, says)| add(&mut scores, says));
    }
    for (ending, says) in ENDINGS {
        if text.len() > ending.len() + 1 && text.ends_with(ending) {
            add(&mut scores, says);
        }
    }
    PARTS.iter().filter(|(part, _)| text.contains(part)).for_each(|(_, says)| add(&mut scores, says));
    scores
}

/// What only Spanish begins its questions and exclamations with.
pub(super) fn opening_marks(prose: &str) -> [f64; LATIN.len()] {
    let mut scores = [0.0; LATIN.len()];
    if prose.contains(['¿', '¡']) {
        add(&mut scores, &[("es", 1.5)]);
    }
    scores
}

fn add(scores: &mut [f64; LATIN.len()], says: &[(&str, f64)]) {
    for (language, weight) in says {
        if let Some(index) = LATIN.iter().position(|known| known == language) {
            scores[index] += weight;
        }
    }
}
