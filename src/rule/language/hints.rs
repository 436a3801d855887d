//! Guesses at a word that no list has: letters, endings and letter pairs typical of a language.

use super::words::LATIN;

/// Endings and what they say: index of the language in [`LATIN`], weight.
const ENDINGS: &[(&str, &[(usize, f64)])] = &[
    ("ing", &[(0, 0.5)]),
    ("ings", &[(0, 0.5)]),
    ("ied", &[(0, 0.5)]),
    ("ed", &[(0, 0.3)]),
    ("ly", &[(0, 0.4)]),
    ("ness", &[(0, 0.5)]),
    ("ity", &[(0, 0.4)]),
    ("ight", &[(0, 0.5)]),
    ("ough", &[(0, 0.5)]),
    ("tion", &[(0, 0.2), (1, 0.2)]),
    ("tions", &[(0, 0.2), (1, 0.2)]),
    ("eux", &[(1, 0.5)]),
    ("euse", &[(1, 0.5)]),
    ("aux", &[(1, 0.5)]),
    ("ment", &[(0, 0.1), (1, 0.3)]),
    ("ons", &[(1, 0.3)]),
    ("ez", &[(1, 0.3), (3, 0.1)]),
    ("ción", &[(3, 0.6)]),
    ("ciones", &[(3, 0.8)]),
    ("mente", &[(3, 0.3), (4, 0.3), (5, 0.3)]),
    ("amos", &[(3, 0.4), (5, 0.3)]),
    ("emos", &[(3, 0.4), (5, 0.3)]),
    ("idad", &[(3, 0.5)]),
    ("os", &[(3, 0.2), (5, 0.2)]),
    ("as", &[(3, 0.15), (5, 0.15)]),
    ("ung", &[(2, 0.6)]),
    ("ungen", &[(2, 0.8)]),
    ("lich", &[(2, 0.8)]),
    ("keit", &[(2, 0.8)]),
    ("heit", &[(2, 0.8)]),
    ("ieren", &[(2, 0.8)]),
    ("iert", &[(2, 0.6)]),
    ("en", &[(2, 0.15), (6, 0.1)]),
    ("zione", &[(4, 0.8)]),
    ("zioni", &[(4, 0.8)]),
    ("iamo", &[(4, 0.6)]),
    ("ção", &[(5, 0.4)]),
    ("ções", &[(5, 0.6)]),
    ("dade", &[(5, 0.5)]),
    ("heid", &[(6, 0.6)]),
];

/// Letters inside a word.
const INNER: &[(&str, usize, f64)] = &[
    ("sch", 2, 0.4),
    ("th", 0, 0.3),
    ("wh", 0, 0.4),
    ("eau", 1, 0.4),
    ("qu", 1, 0.1),
    ("ij", 6, 0.4),
    ("aa", 6, 0.4),
    ("nh", 5, 0.4),
    ("lh", 5, 0.4),
    ("gli", 4, 0.4),
    ("ll", 3, 0.05),
    ("sh", 0, 0.2),
];

/// What letters and endings say of a word that no list has, in lower case.
pub(super) fn hints(word: &str) -> [f64; LATIN.len()] {
    let mut scores = [0.0; LATIN.len()];
    for c in word.chars().filter(|c| !c.is_ascii()) {
        let says: &[(usize, f64)] = match c {
            'ß' => &[(2, 1.0)],
            'ä' | 'ö' | 'ü' => &[(2, 0.6)],
            'ñ' => &[(3, 1.0)],
            'ã' | 'õ' => &[(5, 1.0)],
            'ç' => &[(1, 0.5), (5, 0.4)],
            'œ' | 'û' | 'î' | 'ë' | 'ï' => &[(1, 0.6)],
            'è' => &[(1, 0.5), (4, 0.4)],
            'à' => &[(1, 0.4), (4, 0.4)],
            'ê' | 'ô' | 'â' => &[(1, 0.5), (5, 0.3)],
            'é' => &[(1, 0.5), (3, 0.25), (5, 0.2)],
            'á' | 'í' | 'ó' | 'ú' => &[(3, 0.5), (5, 0.3)],
            'ò' | 'ù' | 'ì' => &[(4, 0.6)],
            _ => &[],
        };
        for &(language, weight) in says {
            scores[language] += weight;
        }
    }
    let last = word.as_bytes().last();
    for (ending, says) in ENDINGS {
        if ending.as_bytes().last() == last && word.len() > ending.len() + 1 && word.ends_with(ending) {
            for &(language, weight) in *says {
                scores[language] += weight;
            }
        }
    }
    for (&(_, language, weight), found) in INNER.iter().zip(inner_parts(word)) {
        if found {
            scores[language] += weight;
        }
    }
    scores
}

/// Which parts of [`INNER`] a word holds, in one pass.
fn inner_parts(word: &str) -> [bool; INNER.len()] {
    let mut found = [false; INNER.len()];
    let bytes = word.as_bytes();
    for at in 0..bytes.len().saturating_sub(1) {
        // Every part begins with one of these.
        if matches!(bytes[at], b's' | b't' | b'w' | b'e' | b'q' | b'i' | b'a' | b'n' | b'l' | b'g') {
            for (slot, (part, ..)) in found.iter_mut().zip(INNER) {
                *slot |= part.as_bytes()[0] == bytes[at] && bytes[at..].starts_with(part.as_bytes());
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_found_as_contains_finds_them() {
        for word in ["schule", "eaux", "that", "which", "ijzer", "ll", "h", "", "tägliche", "aaqushnhlhgli"] {
            let plain: Vec<bool> = INNER.iter().map(|(part, ..)| word.contains(part)).collect();
            assert_eq!(inner_parts(word).to_vec(), plain, "{word}");
        }
    }
}
