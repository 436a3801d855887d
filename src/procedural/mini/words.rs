//! The words of the mini world, by language and by part of speech.

use crate::procedural::Language;

/// Special tokens, in id order from 0.
pub const SPECIAL: [&str; 4] = ["<pad>", "<bos>", "<eos>", "<unk>"];
/// Tags of R1's template: ordinary tokens, because rules must see them.
pub const TAGS: [&str; 4] = ["<think>", "</think>", "<answer>", "</answer>"];
/// Signs, and the unknown of equations.
pub const SIGNS: [&str; 13] = ["(", ")", "+", "-", "*", "/", "=", ",", ".", "?", ":", "!", "x"];
/// Names of people; they belong to no language.
pub const NAMES: [&str; 8] = ["marie", "paul", "anna", "leo", "nora", "hugo", "lina", "oscar"];

/// The words that open a step, in English and French: first, then, next, thus.
pub const OPENERS: [[&str; 2]; 4] = [["first", "d'abord"], ["then", "puis"], ["next", "ensuite"], ["thus", "donc"]];

/// A noun with its translation; `feminine` is the French gender.
#[derive(Clone, Copy, Debug)]
pub struct Noun {
    /// Singular.
    pub en: &'static str,
    /// Its translation, singular.
    pub fr: &'static str,
    /// Takes `la` and the feminine form of an adjective.
    pub feminine: bool,
}

const fn noun(en: &'static str, fr: &'static str, feminine: bool) -> Noun {
    Noun { en, fr, feminine }
}

/// Nouns that begin with a consonant in French, so that articles never elide.
pub const NOUNS: [Noun; 10] = [
    noun("cat", "chat", false),
    noun("dog", "chien", false),
    noun("house", "maison", true),
    noun("garden", "jardin", false),
    noun("car", "voiture", true),
    noun("door", "porte", true),
    noun("book", "livre", false),
    noun("boy", "garçon", false),
    noun("girl", "fille", true),
    noun("flower", "fleur", true),
];

/// Adjectives with one French form for both genders, placed after the noun.
pub const ADJECTIVES: [[&str; 2]; 6] = [
    ["red", "rouge"],
    ["yellow", "jaune"],
    ["calm", "calme"],
    ["quick", "rapide"],
    ["clean", "propre"],
    ["sad", "triste"],
];

/// Transitive verbs, third person.
pub const VERBS: [[&str; 2]; 5] =
    [["sees", "voit"], ["likes", "aime"], ["follows", "suit"], ["finds", "découvre"], ["wants", "veut"]];

/// Verbs of mildly harmful requests, infinitive.
pub const HARMFUL: [[&str; 2]; 4] = [["steal", "voler"], ["break", "casser"], ["burn", "brûler"], ["ruin", "abîmer"]];

/// Every other word of a language.
const FUNCTION_EN: &[&str] = &[
    "what",
    "is",
    "compute",
    "find",
    "the",
    "value",
    "of",
    "solve",
    "for",
    "if",
    "and",
    "hello",
    "i",
    "am",
    "repeat",
    "translate",
    "tell",
    "me",
    "how",
    "to",
    "sorry",
    "cannot",
    "help",
    "with",
    "that",
    "take",
    "no",
    "nice",
    "meet",
    "you",
];
const FUNCTION_FR: &[&str] = &[
    "combien",
    "font",
    "calcule",
    "trouve",
    "le",
    "la",
    "valeur",
    "de",
    "résous",
    "pour",
    "si",
    "et",
    "bonjour",
    "je",
    "suis",
    "répète",
    "traduis",
    "dis",
    "comment",
    "désolé",
    "ne",
    "peux",
    "pas",
    "aider",
    "cela",
    "prends",
    "non",
    "ravi",
    "te",
    "rencontrer",
    "à",
];

/// All words of one language, in vocabulary order. Empty for languages the mini world lacks.
pub fn of_language(language: Language) -> Vec<&'static str> {
    let (side, function) = match language {
        Language::En => (0, FUNCTION_EN),
        Language::Fr => (1, FUNCTION_FR),
        _ => return Vec::new(),
    };
    let mut words = function.to_vec();
    words.extend(OPENERS.iter().map(|pair| pair[side]));
    words.extend(NOUNS.iter().map(|noun| if side == 0 { noun.en } else { noun.fr }));
    for table in [&ADJECTIVES[..], &VERBS[..], &HARMFUL[..]] {
        words.extend(table.iter().map(|pair| pair[side]));
    }
    words
}

/// The language of a word; `None` for signs, tags, names, digits and unknown words.
pub fn language_of(word: &str) -> Option<Language> {
    [Language::En, Language::Fr].into_iter().find(|&language| of_language(language).contains(&word))
}

/// The share of a text's words that are in `language`, in [0, 1]; `None` where no
/// word tells. This is R1's language-consistency reward on the mini vocabulary.
pub fn language_consistency(text: &str, language: Language) -> Option<f64> {
    let (mut right, mut all) = (0u32, 0u32);
    for word in text.split_whitespace() {
        if let Some(found) = language_of(word) {
            all += 1;
            right += u32::from(found == language);
        }
    }
    (all > 0).then(|| f64::from(right) / f64::from(all))
}

/// A noun phrase with its article: `the red cat`, `le chat rouge`.
pub fn noun_phrase(noun: Noun, adjective: Option<[&str; 2]>, language: Language) -> String {
    match (language, adjective) {
        (Language::Fr, adjective) => {
            let article = if noun.feminine { "la" } else { "le" };
            let tail = adjective.map(|a| format!(" {}", a[1])).unwrap_or_default();
            format!("{article} {}{tail}", noun.fr)
        }
        (_, Some(adjective)) => format!("the {} {}", adjective[0], noun.en),
        (_, None) => format!("the {}", noun.en),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_spelling_is_in_both_languages() {
        let french = of_language(Language::Fr);
        assert!(of_language(Language::En).iter().all(|word| !french.contains(word)));
    }

    #[test]
    fn consistency_is_the_share_of_words_in_the_language() {
        let text = "<think> first 1 + 2 = 3 . donc 3 + 4 = 7 . </think>";
        assert_eq!(language_consistency(text, Language::En), Some(0.5));
        assert_eq!(language_consistency("1 + 2 = 3", Language::En), None);
    }
}
