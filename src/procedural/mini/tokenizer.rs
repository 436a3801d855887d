//! The mini vocabulary as a Hugging Face `tokenizer.json`.

use serde_json::{Map, Value, json};

use super::words::{NAMES, SIGNS, SPECIAL, TAGS, of_language};
use crate::procedural::Language;

/// The mark of a space before a token, as SentencePiece writes it.
const SPACE: char = '\u{2581}';

/// Every token, in id order: special tokens, tags, signs, digits, English, French, names.
pub fn vocabulary() -> Vec<String> {
    let mut tokens: Vec<String> = SPECIAL.iter().map(|token| (*token).to_owned()).collect();
    let mut add = |word: &str| tokens.push(format!("{SPACE}{word}"));
    TAGS.iter().chain(&SIGNS).for_each(|word| add(word));
    (0..10).for_each(|digit| add(&digit.to_string()));
    of_language(Language::En).iter().chain(&of_language(Language::Fr)).chain(&NAMES).for_each(|word| add(word));
    let continuation = SPECIAL.len() + TAGS.len() + SIGNS.len() + 10;
    tokens.splice(continuation..continuation, (0..10).map(|digit| digit.to_string()));
    tokens
}

/// `tokenizer.json` of a word-level model over [`vocabulary`]: spaces are marked,
/// then each word, sign and digit is one token. Ids 0, 1, 2 and 3 are `<pad>`,
/// `<bos>`, `<eos>` and `<unk>`. Words that are not in the vocabulary become `<unk>`.
pub fn tokenizer_json() -> String {
    let vocab: Map<String, Value> =
        vocabulary().into_iter().enumerate().map(|(id, token)| (token, Value::from(id))).collect();
    let added: Vec<Value> = SPECIAL
        .iter()
        .enumerate()
        .map(|(id, token)| {
            json!({
                "id": id, "content": token, "single_word": false, "lstrip": false, "rstrip": false,
                "normalized": false, "special": true,
            })
        })
        .collect();
    let metaspace = json!({ "type": "Metaspace", "replacement": SPACE, "prepend_scheme": "always", "split": false });
    let split = json!({
        "type": "Split",
        "pattern": { "Regex": format!("{SPACE}?[0-9]|{SPACE}?[^{SPACE}0-9]+") },
        "behavior": "Isolated",
        "invert": false,
    });
    let tokenizer = json!({
        "version": "1.0",
        "truncation": null,
        "padding": null,
        "added_tokens": added,
        "normalizer": null,
        "pre_tokenizer": { "type": "Sequence", "pretokenizers": [metaspace, split] },
        "post_processor": null,
        "decoder": metaspace,
        "model": { "type": "WordLevel", "vocab": vocab, "unk_token": SPECIAL[3] },
    });
    serde_json::to_string_pretty(&tokenizer).expect("a JSON value always serialises")
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::str::FromStr;

    use super::*;
    use crate::procedural::mini::BaseText;
    use crate::procedural::{Generator, mini};
    use crate::seed::Rng;

    #[test]
    fn the_vocabulary_is_small_and_has_no_token_twice() {
        let tokens = vocabulary();
        assert_eq!(tokens.iter().collect::<HashSet<_>>().len(), tokens.len());
        assert!((110..=200).contains(&tokens.len()), "{}", tokens.len());
    }

    #[test]
    fn everything_the_mini_world_writes_is_in_the_vocabulary_and_decodes_to_itself() {
        let tokenizer = tokenizers::Tokenizer::from_str(&tokenizer_json()).unwrap();
        let mut rng = Rng::new(1);
        let check = |text: &str| {
            let encoding = tokenizer.encode(text, false).unwrap();
            assert!(!encoding.get_ids().contains(&3), "{text}: {:?}", encoding.get_tokens());
            assert_eq!(tokenizer.decode(encoding.get_ids(), true).unwrap(), text);
            encoding.len()
        };
        for name in ["mini_mix", "mini_linear", "mini_sum", "mini_total", "mini_general", "mini_language"] {
            let generator = Generator::named(name).unwrap();
            for round in 0..300 {
                let language = generator.languages[round % 2];
                let level = 1 + (round as u32) % generator.max_level;
                let problem = generator.generate(&mut rng, level, language);
                assert!(check(&problem.question) <= 27, "{}", problem.question);
                let chain = problem.chain.as_deref().unwrap_or("");
                check(&mini::tagged(if chain.is_empty() { "thus" } else { chain }, &problem.answer));
                problem.rejected.iter().for_each(|(_, text)| assert!(check(text) > 0));
            }
        }
        let base = BaseText::default();
        for _ in 0..500 {
            check(&base.document(&mut rng).text());
        }
    }
}
