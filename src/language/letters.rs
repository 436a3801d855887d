//! What letters, endings and parts say of a word that no list has.

use super::lexicon::{LATIN, Reader};

/// Languages by their place in [`LATIN`], and the weight for each.
type Says = &'static [(usize, f64)];

const EN: usize = 0;
const FR: usize = 1;
const DE: usize = 2;
const ES: usize = 3;
const IT: usize = 4;
const PT: usize = 5;
const NL: usize = 6;
const SV: usize = 7;
const DA: usize = 8;
const NB: usize = 9;
const FI: usize = 10;
const PL: usize = 11;
const CS: usize = 12;
const RO: usize = 13;
const HU: usize = 14;
const TR: usize = 15;
const VI: usize = 17;

/// What a letter beyond ASCII says.
fn of_letter(c: char) -> Says {
    match c {
        'ß' => &[(DE, 1.0)],
        'ü' => &[(DE, 0.6), (TR, 0.4), (HU, 0.2)],
        'ä' | 'ö' => &[(DE, 0.6), (SV, 0.4), (FI, 0.4)],
        'å' => &[(SV, 0.6), (DA, 0.5), (NB, 0.5)],
        'ø' | 'æ' => &[(DA, 0.6), (NB, 0.6)],
        'ñ' => &[(ES, 1.0)],
        'ã' | 'õ' => &[(PT, 1.0)],
        'ç' => &[(FR, 0.5), (PT, 0.4), (TR, 0.3)],
        'î' => &[(FR, 0.6), (RO, 0.5)],
        'œ' | 'û' | 'ë' | 'ï' => &[(FR, 0.6)],
        'è' => &[(FR, 0.5), (IT, 0.4)],
        'à' => &[(FR, 0.4), (IT, 0.4)],
        'â' => &[(FR, 0.5), (PT, 0.3), (VI, 0.1), (RO, 0.5)],
        'ê' | 'ô' => &[(FR, 0.5), (PT, 0.3), (VI, 0.1)],
        'é' => &[(FR, 0.5), (ES, 0.25), (PT, 0.2), (HU, 0.2), (CS, 0.2)],
        'á' | 'í' | 'ó' | 'ú' => &[(ES, 0.5), (PT, 0.3), (HU, 0.3), (CS, 0.3)],
        'ò' | 'ù' | 'ì' => &[(IT, 0.6)],
        'ą' | 'ę' | 'ł' | 'ś' | 'ź' | 'ż' | 'ć' | 'ń' => &[(PL, 0.8)],
        'ř' | 'ů' | 'ě' => &[(CS, 1.0)],
        'š' | 'č' | 'ž' => &[(CS, 0.5)],
        'ő' | 'ű' => &[(HU, 1.0)],
        'ș' | 'ț' | 'ă' => &[(RO, 0.5)],
        'ğ' | 'ı' | 'ş' | 'İ' => &[(TR, 0.9)],
        // Letters with two marks, as only Vietnamese has them, are the last ones.
        'ơ' | 'ư' | 'đ' | '\u{1ea0}'..='\u{1ef9}' => &[(VI, 1.0)],
        _ => &[],
    }
}

/// Endings of words.
const ENDINGS: &[(&str, Says)] = &[
    ("ing", &[(EN, 0.5)]),
    ("ings", &[(EN, 0.5)]),
    ("ied", &[(EN, 0.5)]),
    ("ed", &[(EN, 0.3)]),
    ("ly", &[(EN, 0.4)]),
    ("ness", &[(EN, 0.5)]),
    ("ity", &[(EN, 0.4)]),
    ("ight", &[(EN, 0.5)]),
    ("ough", &[(EN, 0.5)]),
    ("tion", &[(EN, 0.2), (FR, 0.2)]),
    ("tions", &[(EN, 0.2), (FR, 0.2)]),
    ("eux", &[(FR, 0.5)]),
    ("euse", &[(FR, 0.5)]),
    ("aux", &[(FR, 0.5)]),
    ("ment", &[(EN, 0.1), (FR, 0.3)]),
    ("ons", &[(FR, 0.3)]),
    ("ez", &[(FR, 0.3), (ES, 0.1)]),
    ("ción", &[(ES, 0.6)]),
    ("ciones", &[(ES, 0.8)]),
    ("mente", &[(ES, 0.3), (IT, 0.3), (PT, 0.3)]),
    ("amos", &[(ES, 0.4), (PT, 0.3)]),
    ("emos", &[(ES, 0.4), (PT, 0.3)]),
    ("idad", &[(ES, 0.5)]),
    ("os", &[(ES, 0.2), (PT, 0.2)]),
    ("as", &[(ES, 0.15), (PT, 0.15)]),
    ("ung", &[(DE, 0.6)]),
    ("ungen", &[(DE, 0.8)]),
    ("lich", &[(DE, 0.8)]),
    ("keit", &[(DE, 0.8)]),
    ("heit", &[(DE, 0.8)]),
    ("ieren", &[(DE, 0.8)]),
    ("iert", &[(DE, 0.6)]),
    ("en", &[(DE, 0.15), (NL, 0.1), (SV, 0.05), (DA, 0.05), (NB, 0.05)]),
    ("zione", &[(IT, 0.8)]),
    ("zioni", &[(IT, 0.8)]),
    ("iamo", &[(IT, 0.6)]),
    ("ção", &[(PT, 0.4)]),
    ("ções", &[(PT, 0.6)]),
    ("dade", &[(PT, 0.5)]),
    ("heid", &[(NL, 0.6)]),
];

/// Parts of words, and who reads them where not both do.
const PARTS: &[(&str, Option<Reader>, Says)] = &[
    ("sch", Some(Reader::Detect), &[(DE, 0.4), (NL, 0.3)]),
    ("sch", Some(Reader::Count), &[(DE, 0.4)]),
    ("th", None, &[(EN, 0.3)]),
    ("wh", None, &[(EN, 0.4)]),
    ("eau", None, &[(FR, 0.4)]),
    ("qu", Some(Reader::Count), &[(FR, 0.1)]),
    ("ij", None, &[(NL, 0.4)]),
    ("aa", Some(Reader::Detect), &[(NL, 0.3), (FI, 0.3)]),
    ("aa", Some(Reader::Count), &[(NL, 0.4)]),
    ("nh", None, &[(PT, 0.4)]),
    ("lh", None, &[(PT, 0.4)]),
    ("gli", None, &[(IT, 0.4)]),
    ("ll", Some(Reader::Count), &[(ES, 0.05)]),
    ("sh", None, &[(EN, 0.2)]),
    ("sz", None, &[(PL, 0.4), (HU, 0.3)]),
    ("cz", None, &[(PL, 0.5)]),
];

/// What letters, endings and parts say of a word in lower case for each of [`LATIN`].
pub(super) fn hints(word: &str, reader: Reader) -> [f64; LATIN.len()] {
    let mut scores = [0.0; LATIN.len()];
    for c in word.chars().filter(|c| !c.is_ascii()) {
        add(&mut scores, of_letter(c));
    }
    let last = word.as_bytes().last();
    for (ending, says) in ENDINGS {
        if ending.as_bytes().last() == last && word.len() > ending.len() + 1 && word.ends_with(ending) {
            add(&mut scores, says);
        }
    }
    for (&(_, only, says), found) in PARTS.iter().zip(parts_of(word)) {
        if found && only.is_none_or(|only| only == reader) {
            add(&mut scores, says);
        }
    }
    scores
}

/// Which of [`PARTS`] a word holds, in one pass.
fn parts_of(word: &str) -> [bool; PARTS.len()] {
    let mut found = [false; PARTS.len()];
    let bytes = word.as_bytes();
    for at in 0..bytes.len().saturating_sub(1) {
        // Every part begins with one of these.
        if matches!(bytes[at], b's' | b't' | b'w' | b'e' | b'q' | b'i' | b'a' | b'n' | b'l' | b'g' | b'c') {
            for (slot, (part, ..)) in found.iter_mut().zip(PARTS) {
                *slot |= part.as_bytes()[0] == bytes[at] && bytes[at..].starts_with(part.as_bytes());
            }
        }
    }
    found
}

/// What only Spanish begins its questions and exclamations with.
pub(super) fn opening_marks(prose: &str) -> [f64; LATIN.len()] {
    let mut scores = [0.0; LATIN.len()];
    if prose.contains(['¿', '¡']) {
        add(&mut scores, &[(ES, 1.5)]);
    }
    scores
}

fn add(scores: &mut [f64; LATIN.len()], says: &[(usize, f64)]) {
    for &(language, weight) in says {
        scores[language] += weight;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_found_as_contains_finds_them() {
        for word in ["schule", "eaux", "that", "which", "ijzer", "ll", "h", "", "tägliche", "aaqushnhlhgli", "szczy"] {
            let plain: Vec<bool> = PARTS.iter().map(|(part, ..)| word.contains(part)).collect();
            assert_eq!(parts_of(word).to_vec(), plain, "{word}");
        }
    }

    #[test]
    fn the_names_of_languages_are_their_places() {
        let named = [EN, FR, DE, ES, IT, PT, NL, SV, DA, NB, FI, PL, CS, RO, HU, TR, VI].map(|place| LATIN[place]);
        assert_eq!(
            named,
            ["en", "fr", "de", "es", "it", "pt", "nl", "sv", "da", "nb", "fi", "pl", "cs", "ro", "hu", "tr", "vi"]
        );
    }
}
