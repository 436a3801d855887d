use serde_json::json;

use super::*;
use crate::rule::testing::sample;

fn follows(id: &str, arguments: Value, answer: &str) -> bool {
    kinds::follows(id, &arguments, answer, "Say hello.").unwrap()
}

/// Of every kind: arguments, an answer that follows and one that just fails to.
#[test]
fn every_kind_accepts_and_rejects() {
    let cases: Vec<(&str, Value, &str, &str)> = vec![
        ("keywords:existence", json!({"keywords": ["Cat", "dog"]}), "Categories and a Dog.", "A tom and a dog."),
        ("keywords:forbidden_words", json!({"forbidden_words": ["cat"]}), "A category.", "A Cat!"),
        (
            "keywords:frequency",
            json!({"keyword": "go", "frequency": 2, "relation": "at least"}),
            "Go, goes!",
            "Go, come!",
        ),
        (
            "keywords:letter_frequency",
            json!({"letter": "e", "let_frequency": 2, "let_relation": "less than"}),
            "one",
            "seen",
        ),
        (
            "language:response_language",
            json!({"language": "fr"}),
            "C'est la réponse que nous avons trouvée.",
            "This is the answer we found.",
        ),
        (
            "length_constraints:number_sentences",
            json!({"num_sentences": 3, "relation": "less than"}),
            "One. Two at 3.5 now!",
            "One. Two. Three.",
        ),
        (
            "length_constraints:number_words",
            json!({"num_words": 3, "relation": "at least"}),
            "one two three",
            "one two",
        ),
        ("length_constraints:number_paragraphs", json!({"num_paragraphs": 2}), "a\n***\nb", "a\n***\nb\n***\nc"),
        (
            "length_constraints:nth_paragraph_first_word",
            json!({"num_paragraphs": 2, "nth_paragraph": 2, "first_word": "then"}),
            "First.\n\nThen.",
            "Then.\n\nFirst.",
        ),
        (
            "detectable_content:number_placeholders",
            json!({"num_placeholders": 2}),
            "[name] at [address]",
            "[name] at [\n]",
        ),
        ("detectable_content:postscript", json!({"postscript_marker": "P.S."}), "Hi\nP.S. bye", "Hi PS bye"),
        ("detectable_format:number_bullet_lists", json!({"num_bullets": 2}), "* a\n* b", "* a\n* b\n- c"),
        ("detectable_format:constrained_response", json!({}), "My answer is yes.", "yes"),
        ("detectable_format:number_highlighted_sections", json!({"num_highlights": 2}), "*a* and **b**", "*a* and **"),
        (
            "detectable_format:multiple_sections",
            json!({"section_spliter": "Section", "num_sections": 2}),
            "Section 1\na\nSection 2\nb",
            "Section 1\na\nSection b",
        ),
        ("detectable_format:json_format", json!({}), "```json\n{\"a\": 1}\n```", "{a: 1}"),
        ("detectable_format:title", json!({}), "<<A title>>\ntext", "<< >>\ntext"),
        ("combination:two_responses", json!({}), "one\n******\ntwo", "one\n******\none"),
        ("combination:repeat_prompt", json!({"prompt_to_repeat": "Say hello."}), "Say hello.\nHello", "Hello"),
        ("startend:end_checker", json!({"end_phrase": "The end."}), "So it was. The end.", "The end. So it was."),
        ("startend:quotation", json!({}), "\"hi\"", "\"hi"),
        (
            "change_case:capital_word_frequency",
            json!({"capital_frequency": 2, "capital_relation": "at least"}),
            "VERY GOOD now",
            "VERY Good now",
        ),
        ("change_case:english_capital", json!({}), "ALL 3 LOUD", "ALL Loud"),
        ("change_case:english_lowercase", json!({}), "all 3 quiet", "all Quiet"),
        ("punctuation:no_comma", json!({}), "a and b", "a, b"),
    ];
    assert_eq!(cases.iter().map(|c| c.0).collect::<Vec<_>>(), kinds::IDS);
    for (id, arguments, good, bad) in cases {
        assert!(follows(id, arguments.clone(), good), "{id} accepts {good:?}");
        assert!(!follows(id, arguments, bad), "{id} rejects {bad:?}");
    }
}

/// Where the official checker and a plain reading part, the official one counts: scores are compared with others'.
#[test]
fn the_official_checker_decides_at_the_edges() {
    let words = |n: usize| json!({"num_words": n, "relation": "at least"});
    assert!(follows("length_constraints:number_words", words(6), "I don't like well-known"));
    assert!(!follows("length_constraints:number_words", words(7), "I don't like well-known"));
    let postscript = json!({"postscript_marker": "P.P.S"});
    assert!(follows("detectable_content:postscript", postscript.clone(), "Bye. **P.P.S.** Write soon."));
    assert!(!follows("detectable_content:postscript", postscript, "P.S. Write soon."));
    assert!(follows("keywords:forbidden_words", json!({"forbidden_words": ["cat"]}), "Categories"));
    // Each as the published checker has it; the second answer fails it.
    let n = |key: &str, n: usize| json!({ key: n });
    let at_least = |key: &str, n: usize| json!({ key: n, "relation": "at least", "capital_relation": "at least" });
    for (id, arguments, good, bad) in [
        ("length_constraints:number_words", at_least("num_words", 2), "snake_case two", "snake_case"),
        ("length_constraints:number_sentences", at_least("num_sentences", 3), "One. Two? Three", "A title\n\nOne! Two"),
        (
            "length_constraints:number_sentences",
            at_least("num_sentences", 2),
            "Hm... No.",
            "Dr. J. Smith went, e.g. by car",
        ),
        (
            "length_constraints:number_sentences",
            at_least("num_sentences", 2),
            "\"Why?\" he said.",
            "It is 3.5 or so... maybe",
        ),
        ("detectable_content:number_placeholders", n("num_placeholders", 2), "[] and [a [b]", "[a\n] [b]"),
        ("detectable_content:postscript", json!({"postscript_marker": "P.S."}), "Hi. p. s. bye", "Hi. P.P.S bye"),
        ("detectable_format:number_bullet_lists", n("num_bullets", 2), "- a\n---", "* a\n** b"),
        ("detectable_format:number_bullet_lists", n("num_bullets", 1), "text\n  * a", "text - a"),
        ("detectable_format:constrained_response", json!({}), "So: My answer is no. Bye", "my answer is no."),
        ("detectable_format:number_highlighted_sections", n("num_highlights", 2), "*a* **b**", "**b** ****"),
        (
            "detectable_format:multiple_sections",
            json!({"section_spliter": "SECTION", "num_sections": 2}),
            "a SECTION 1 b **SECTION 2**",
            "Section 1 Section 2",
        ),
        ("detectable_format:json_format", json!({}), "```JSON\n[1]\n```", "Here it is:\n```json\n[1]\n```"),
        ("detectable_format:title", json!({}), "<< >> <<x>>", "<<>>"),
        ("combination:two_responses", json!({}), "******a******b", "a************b"),
        ("combination:repeat_prompt", json!({"prompt_to_repeat": "Say it."}), " say it. ", "Now: say it."),
        ("startend:quotation", json!({}), " \"hi\"\n", "\""),
        ("change_case:capital_word_frequency", at_least("capital_frequency", 3), "DON'T GO", "WELL-KNOWN U.S. trip"),
        ("change_case:english_capital", json!({}), "HELLO", "你好"),
        ("change_case:english_lowercase", json!({}), "hello there", "nous avons trouvé la réponse à la question"),
        ("keywords:forbidden_words", json!({"forbidden_words": ["cat"]}), "a cat_food", "a cat, food"),
        (
            "length_constraints:nth_paragraph_first_word",
            json!({"num_paragraphs": 2, "nth_paragraph": 2, "first_word": "well-known"}),
            "a\n\n\"Well-known!\" b",
            "a\n\nWell known",
        ),
        (
            "length_constraints:nth_paragraph_first_word",
            json!({"num_paragraphs": 2, "nth_paragraph": 2, "first_word": "then"}),
            "a\n\nThen",
            "a\n\n \n\nThen",
        ),
    ] {
        assert!(follows(id, arguments.clone(), good), "{id} accepts {good:?}");
        assert!(!follows(id, arguments, bad), "{id} rejects {bad:?}");
    }
    for (language, text) in [
        ("bn", "এটি একটি সহজ প্রশ্নের উত্তর এবং আমি এটি বাংলায় লিখছি।"),
        ("kn", "ಇದು ಕನ್ನಡದಲ್ಲಿ ಬರೆದ ಉತ್ತರ."),
        ("te", "ఇది తెలుగులో రాసిన సమాధానం."),
        ("he", "זאת התשובה לשאלה, והיא כתובה בעברית."),
        ("vi", "Đây là câu trả lời được viết bằng tiếng Việt cho câu hỏi của bạn."),
        ("pl", "To jest odpowiedź napisana po polsku, żeby było łatwiej zrozumieć."),
    ] {
        assert!(follows("language:response_language", json!({"language": language}), text), "{language}");
        assert!(!follows("language:response_language", json!({"language": language}), "This is an English answer."));
    }
    // As in the public data set: every argument of every kind, most of them null.
    let nulls = json!({"num_highlights": null, "relation": null, "prompt_to_repeat": null});
    assert!(follows("combination:repeat_prompt", nulls, "Say hello. Hello."));
}

#[test]
fn the_score_is_the_share_followed_in_the_answer_alone() {
    let verification =
        r#"{"instruction_id_list": ["punctuation:no_comma", "change_case:english_lowercase"], "kwargs": [{}, {}]}"#;
    let mut s = sample("<think>A, B</think>all quiet");
    s.verification = Some(verification);
    let rule = ConstraintRule::new(ConstraintConfig::default()).unwrap();
    assert_eq!(rule.check(&s).score, Some(1.0));
    s.completion = "<think>x</think>Loud";
    assert_eq!(rule.check(&s).score, Some(0.5));
    s.completion = "<think>x</think>";
    assert_eq!(rule.check(&s).score, Some(0.0));
    let strict = ConstraintRule::new(ConstraintConfig { all_or_nothing: true }).unwrap();
    s.completion = "Loud";
    assert_eq!(strict.check(&s).score, Some(0.0));
}

#[test]
fn faults_of_the_data_are_not_the_completions() {
    let rule = ConstraintRule::new(ConstraintConfig::default()).unwrap();
    for (verification, reason) in [
        ("", "constraints_missing"),
        ("{\"constraints\": []}", "constraints_missing"),
        (r#"{"constraints": [{"id": "new:kind"}]}"#, "constraint_unknown"),
        (r#"{"constraints": [{"id": "keywords:existence"}]}"#, "constraint_unknown"),
        (r#"{"constraints": [{"id": "length_constraints:number_words", "num_words": -1}]}"#, "constraint_unknown"),
    ] {
        let mut s = sample("x");
        s.verification = Some(verification);
        assert_eq!(rule.check(&s).reason, reason, "{verification}");
    }
}
