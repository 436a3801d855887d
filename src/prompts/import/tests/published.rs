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
fn a_generation_is_an_answer() {
    let (prompt, _) = one(r#"{"instruction": "What colour?", "generation": "Blue."}"#);
    assert_eq!((prompt.question(), prompt.solution.as_deref()), ("What colour?", Some("Blue.")));
    let (graded, _) = one(r#"{"problem": "1 + 1?", "expected_answer": "2", "generation": "It is 3."}"#);
    assert_eq!((graded.gold.as_deref(), graded.solution), (Some("2"), None), "beside a gold it is an attempt");
}
