//! Benchmarks and exports in the columns they are published with.

use super::*;

#[test]
fn a_verification_column_is_what_it_says() {
    for (column, kept) in [
        (r#""verification": "{\"tests\": [\"assert f(1) == 2\"]}""#, r#"{"tests": ["assert f(1) == 2"]}"#),
        (r#""verification": {"tests": ["assert f(1) == 2"]}"#, r#"{"tests":["assert f(1) == 2"]}"#),
        (r#""verification": "{'tests': ['assert f(1) == 2']}""#, r#"{"tests":["assert f(1) == 2"]}"#),
        (r#""verification_info": {"tests": ["assert f(1) == 2"]}"#, r#"{"tests":["assert f(1) == 2"]}"#),
    ] {
        for gold in ["", r#", "answer": "2""#] {
            let (prompt, _) = one(&format!(r#"{{"prompt": "Write f.", {column}{gold}}}"#));
            assert_eq!(
                (prompt.verification.as_deref(), prompt.domain.as_str()),
                (Some(kept), "code"),
                "{column}{gold}"
            );
            assert_eq!((prompt.gold.is_some(), prompt.extra), (!gold.is_empty(), None), "{column}{gold}");
        }
    }
    let (words, _) = one(r#"{"prompt": "Write f.", "verification": "by hand"}"#);
    assert_eq!((words.verification, words.extra.as_deref()), (None, Some(r#"{"verification":"by hand"}"#)));
    let (none, _) = one(r#"{"prompt": "Make 24.", "verification": {"numbers": [4, 6], "target": 24}}"#);
    assert_eq!(none.gold, None, "ours holds no gold");
}

#[test]
fn ifeval_says_its_instructions_in_two_columns() {
    let (prompt, _) = one(
        r#"{"key": 1, "prompt": "Write.", "instruction_id_list": ["punctuation:no_comma", "length_constraints:number_words"], "kwargs": [{"num_words": null, "relation": null}, {"num_words": 3, "relation": "at least"}]}"#,
    );
    let said = r#"{"instruction_id_list":["punctuation:no_comma","length_constraints:number_words"],"kwargs":[{},{"num_words":3,"relation":"at least"}]}"#;
    assert_eq!(prompt.verification.as_deref(), Some(said));
    assert_eq!((prompt.domain.as_str(), prompt.extra.as_deref()), ("general", Some(r#"{"key":1}"#)));
    let rules = crate::rule::file::RuleSet::load("instruction_following").unwrap();
    let judged = |completion: &str| {
        let sample = crate::rule::Sample {
            prompt: prompt.question(),
            completion,
            gold: None,
            verification: prompt.verification.as_deref(),
            domain: &prompt.domain,
            language: "en",
            difficulty: None,
            finish_reason: crate::schema::FinishReason::Stop,
            tokens: None,
            origin: crate::rule::Origin::default(),
        };
        rules.judge_batch(&[sample])[0].outcome.as_str()
    };
    assert_eq!(
        [judged("<think>I do</think>One two three"), judged("<think>I do</think>One, two")],
        ["correct", "wrong"]
    );
}

#[test]
fn gpqa_has_its_options_in_an_order_that_tells_nothing() {
    let row = |question: &str| {
        let (prompt, _) = one(&format!(
            r#"{{"Question": "{question}", "Correct Answer": "right\n", "Incorrect Answer 1": "w1", "Incorrect Answer 2": "w2", "Incorrect Answer 3": "w3", "Explanation": "It is \\boxed{{right}}.", "High-level domain": "Physics"}}"#
        ));
        prompt
    };
    let prompt = row("What is it?");
    assert_eq!(prompt, row("What is it?"), "the same order in every run");
    assert_eq!(prompt.domain, "stem");
    let check: serde_json::Value = serde_json::from_str(prompt.verification.as_deref().unwrap()).unwrap();
    let options: Vec<&str> = check["choices"].as_array().unwrap().iter().map(|o| o.as_str().unwrap()).collect();
    let shown = ["A", "B", "C", "D"].iter().zip(&options).map(|(letter, option)| format!("\n{letter}. {option}"));
    assert_eq!(prompt.question(), format!("What is it?{}", shown.collect::<String>()));
    let right = options.iter().position(|option| *option == "right").unwrap();
    assert_eq!(prompt.gold.as_deref(), Some(["A", "B", "C", "D"][right]));
    let golds: HashSet<String> = (0..40).filter_map(|i| row(&format!("What is {i}?")).gold).collect();
    assert_eq!(golds.len(), 4, "any letter may be right");
}

#[test]
fn livecodebench_asks_with_its_starter_code() {
    let row = |code: &str| {
        let row = serde_json::json!({
            "question_title": "two-sum", "question_content": "Return a+b.", "question_id": "9", "starter_code": code,
            "difficulty": "easy", "metadata": "{\"func_name\": \"add\"}",
            "public_test_cases": "[{\"input\": \"1\\n2\", \"output\": \"3\", \"testtype\": \"functional\"}]",
        });
        one(&row.to_string()).0
    };
    let code = "class Solution:\n    def add(self, a: int, b: int) -> int:\n        ";
    assert_eq!(
        row(code).question(),
        format!("Return a+b.\n\nUse this starter code:\n```python\n{}\n```", code.trim_end())
    );
    assert_eq!((row("").question(), row("").domain.as_str()), ("Return a+b.", "code"));
}

#[test]
fn a_generation_is_an_answer() {
    let (prompt, _) = one(r#"{"instruction": "What colour?", "generation": "Blue."}"#);
    assert_eq!((prompt.question(), prompt.solution.as_deref()), ("What colour?", Some("Blue.")));
    let (graded, _) = one(r#"{"problem": "1 + 1?", "expected_answer": "2", "generation": "It is 3."}"#);
    assert_eq!((graded.gold.as_deref(), graded.solution), (Some("2"), None), "beside a gold it is an attempt");
}
