use super::files::{SPECIAL_TOKENS, TOKENIZER, TOKENIZER_CONFIG};
use super::*;
use crate::store::Location;

fn words() -> Tokenizer {
    let words = ["<unk>", "<end>", "one", "two", "user:"].map(String::from);
    let template = "{% for m in messages %}user: {{ m.content }} {% endfor %}";
    Tokenizer::words(&words, "<unk>", "<end>", template).unwrap()
}

#[test]
fn words_come_back_after_saving() {
    let dir = tempfile::tempdir().unwrap();
    words().save(dir.path()).unwrap();
    assert!(Tokenizer::has_chat_template_in(&Location::from(dir.path())).unwrap());
    let tokenizer = Tokenizer::load(dir.path()).unwrap();
    assert_eq!(tokenizer.encode("two one three <end>").unwrap(), [3, 2, 0, 1]);
    assert_eq!(tokenizer.decode(&[3, 2, 1]).unwrap(), "two one <end>");
    assert_eq!(tokenizer.end_of_turn(), Some(1));
    let message = Message { role: Role::User, content: "one".into() };
    assert_eq!(tokenizer.encode_chat(&[message]).unwrap(), [4, 2]);
}

#[test]
fn stored_truncation_and_padding_are_no_part_of_a_tokenizer() {
    let mut file: Value = serde_json::from_str(&words().inner.to_string(false).unwrap()).unwrap();
    file["truncation"] = json!({"direction": "Right", "max_length": 2, "strategy": "LongestFirst", "stride": 0});
    file["padding"] = json!({"strategy": {"Fixed": 8}, "direction": "Right", "pad_to_multiple_of": null,
        "pad_id": 1, "pad_type_id": 0, "pad_token": "<end>"});
    let tokenizer = Tokenizer::from_json(&file.to_string(), Map::new()).unwrap();
    assert_eq!(tokenizer.encode("one two one two").unwrap(), [2, 3, 2, 3]);
    let dir = tempfile::tempdir().unwrap();
    words().save(dir.path()).unwrap();
    std::fs::write(dir.path().join(TOKENIZER), file.to_string()).unwrap();
    assert_eq!(Tokenizer::load(dir.path()).unwrap().encode("one two one").unwrap(), [2, 3, 2]);
}

#[test]
fn the_end_of_a_turn_is_found_wherever_a_model_names_it() {
    let dir = tempfile::tempdir().unwrap();
    words().save(dir.path()).unwrap();
    let load = |file: &str, text: &str| {
        std::fs::write(dir.path().join(file), text).unwrap();
        Tokenizer::load(dir.path()).unwrap()
    };
    let nameless = load(TOKENIZER_CONFIG, "{\"eos_token\": null}");
    assert_eq!(nameless.end_of_turn(), None);
    let error = nameless.ending_with(&[]).unwrap_err();
    assert!(error.render(false).contains("eos_token_id"), "{error}");
    let by_model = Tokenizer::load(dir.path()).unwrap().ending_with(&[77, 3]).unwrap();
    let by_map = load(SPECIAL_TOKENS, "{\"eos_token\": {\"content\": \"<end>\"}}").ending_with(&[3]).unwrap();
    for (tokenizer, end) in [(by_model, 3), (by_map, 1)] {
        let saved = tempfile::tempdir().unwrap();
        tokenizer.save(saved.path()).unwrap();
        let ends = [tokenizer.end_of_turn(), Tokenizer::load(saved.path()).unwrap().end_of_turn()];
        assert_eq!(ends, [Some(end); 2]);
    }
}

#[test]
fn a_turn_ends_with_the_special_token_that_the_template_closes_it_with() {
    let closing_with_two = |special: bool| {
        let mut file: Value = serde_json::from_str(&words().inner.to_string(false).unwrap()).unwrap();
        let two = json!({"id": 3, "content": "two", "single_word": false, "lstrip": false, "rstrip": false,
            "normalized": false, "special": special});
        file["added_tokens"].as_array_mut().unwrap().push(two);
        let config = json!({"eos_token": "<end>", "chat_template": "{{ messages[-1].content }} two\n"});
        let Value::Object(config) = config else { panic!("an object") };
        Tokenizer::from_json(&file.to_string(), config).unwrap()
    };
    let chat = closing_with_two(true);
    assert_eq!((chat.end_of_turn(), chat.end_of_text()), (Some(3), Some(1)));
    assert_eq!(closing_with_two(false).end_of_turn(), Some(1), "a word is no end");
    let plain = chat.with_chat_template(CHAT_TEMPLATES[0].1).unwrap();
    assert_eq!(plain.end_of_turn(), Some(1), "another template, another end");
    let refusing = plain.with_chat_template("{{ raise_exception('no') }}").unwrap();
    assert_eq!(refusing.end_of_turn(), Some(1));
}

#[test]
fn a_document_begins_as_the_tokenizer_begins_one_and_once() {
    let mut file: Value = serde_json::from_str(&words().inner.to_string(false).unwrap()).unwrap();
    file["post_processor"] = json!({"type": "TemplateProcessing",
        "single": [{"SpecialToken": {"id": "<end>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
        "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
        "special_tokens": {"<end>": {"id": "<end>", "ids": [1], "tokens": ["<end>"]}}});
    let begun = Tokenizer::from_json(&file.to_string(), Map::new()).unwrap();
    assert_eq!(begun.encode_document("one two").unwrap(), [1, 2, 3]);
    assert_eq!(begun.encode_document("<end> one two").unwrap(), [1, 2, 3], "it has its beginning");
    assert_eq!(begun.encode("one two").unwrap(), [2, 3], "a chat template writes its own");
    let asked = [Message { role: Role::User, content: "one".into() }];
    let chat = |tokenizer: Tokenizer, source| tokenizer.with_built_in_template(source).unwrap();
    for (name, source) in CHAT_TEMPLATES {
        let plain = chat(words(), source);
        let begun = chat(Tokenizer::from_json(&file.to_string(), Map::new()).unwrap(), source);
        let tokens = [&[1][..], &plain.encode_chat(&asked).unwrap()[..]].concat();
        assert_eq!(begun.encode_chat(&asked).unwrap(), tokens, "{name}");
        let saved = tempfile::tempdir().unwrap();
        begun.save(saved.path()).unwrap();
        assert_eq!(Tokenizer::load(saved.path()).unwrap().encode_chat(&asked).unwrap(), tokens, "{name}");
    }
    assert_eq!(words().encode_document("one two").unwrap(), [2, 3]);
}

#[test]
fn a_vocabulary_too_small_for_the_tokenizer_is_an_error() {
    assert!(words().check(5).is_ok() && words().check(64).is_ok());
    assert!(words().check(4).unwrap_err().to_string().contains("`user:` with id 4"));
}

#[test]
fn a_missing_template_and_a_broken_tokenizer_say_what_to_do() {
    let dir = tempfile::tempdir().unwrap();
    assert!(Tokenizer::load(dir.path()).unwrap_err().to_string().contains("tokenizer.json"));
    words().save(dir.path()).unwrap();
    std::fs::write(dir.path().join(TOKENIZER_CONFIG), "{}").unwrap();
    let folder = Location::from(dir.path());
    assert!(!Tokenizer::has_chat_template_in(&folder).unwrap());
    let error = Tokenizer::load(dir.path()).unwrap().render(&[], true).unwrap_err();
    assert!(error.render(false).contains("chat_template.jinja"));
    std::fs::write(dir.path().join(TOKENIZER), "{}").unwrap();
    assert!(Tokenizer::load(dir.path()).is_err());
}
