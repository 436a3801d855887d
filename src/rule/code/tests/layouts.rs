//! Where data sets keep their tests.

use super::*;

const DOUBLES: &str = "print(2 * int(input()))";
const FUNCTION: &str = "class Solution:\n    def double(self, x): return 2 * x";

/// Of each: the data set, a solution, and a row's tests.
const LAYOUTS: &[(&str, &str, &str)] = &[
    (
        "CodeContests",
        DOUBLES,
        r#"{"public_tests": {"input": ["2\n"], "output": ["4\n"]}, "private_tests": {"input": [], "output": []}, "generated_tests": {"input": ["-3\n"], "output": ["-6\n"]}, "time_limit": {"seconds": 2, "nanos": 0}, "input_file": "", "output_file": ""}"#,
    ),
    (
        "open-r1/codeforces",
        DOUBLES,
        r#"{"official_tests": [{"input": "2\n", "output": "4\n"}], "generated_tests": [{"input": "-3\n", "output": "-6\n"}], "input_mode": "stdio", "generated_checker": ""}"#,
    ),
    (
        "LiveCodeBench's programs",
        DOUBLES,
        r#"{"public_test_cases": "[{\"input\": \"2\\n\", \"output\": \"4\\n\", \"testtype\": \"stdin\"}]", "private_test_cases": "eJxrYJlaxgABPUXR1UqZeQWlJUpWCkpGMXlKOgpK+aUlUAETiEBJanFJSWVBKkiouCQlM0+pVkcBSZ+uMbpGXTOcOmOn6AEAQ9AmGw==", "metadata": "{}"}"#,
    ),
    (
        "LiveCodeBench's functions",
        FUNCTION,
        r#"{"public_test_cases": "[{\"input\": \"2\", \"output\": \"4\", \"testtype\": \"functional\"}]", "private_test_cases": "[{\"input\": \"-3\", \"output\": \"-6\", \"testtype\": \"functional\"}]", "metadata": "{\"func_name\": \"double\"}"}"#,
    ),
    (
        "DeepCoder's programs",
        DOUBLES,
        r#"[{"input": "2\n", "output": "4\n", "testtype": "stdin_stdout"}, {"input": "-3\n", "output": "-6\n", "testtype": "stdin"}]"#,
    ),
    (
        "DeepCoder's functions",
        FUNCTION,
        r#"[{"input": "2", "output": "4", "testtype": "functional", "metadata": {"func_name": "double"}}]"#,
    ),
    (
        "DeepCoder's tests as text",
        FUNCTION,
        r#"{"tests": "{\"fn_name\": \"double\", \"inputs\": [[2], [-3]], \"outputs\": [4, -6]}", "metadata": {"difficulty": "easy"}}"#,
    ),
    (
        "SYNTHETIC-1",
        FUNCTION,
        r#"{"verification_info": "{\"language\": \"python\", \"test_cases\": [{\"fn_name\": \"double\", \"input\": [2], \"output\": 4, \"type\": \"function_call\"}]}"}"#,
    ),
    ("SYNTHETIC-2", DOUBLES, r#"{"ground_truth": "{\"inputs\": [\"2\\n\"], \"outputs\": [\"4\\n\"]}"}"#),
    (
        "rllm in verl",
        DOUBLES,
        r#"{"ground_truth": "[{\"input\": \"2\\n\", \"output\": \"4\\n\", \"testtype\": \"stdin\"}]"}"#,
    ),
    ("AceCode", "def f(x): return 2 * x", r#"{"test_cases": ["assert f(2) == 4", "assert f(-3) == -6"]}"#),
    ("AceCode's list alone", "def f(x): return 2 * x", r#"["assert f(2) == 4", "assert f(-3) == -6"]"#),
    (
        "KodCode",
        "def f(x):\n    if x is None: raise ValueError('no number')\n    return 2 * x",
        r#"{"test": "import pytest\nfrom solution import f\n\ndef test_two():\n    assert f(2) == 4\n\ndef test_half():\n    assert f(0.15) == pytest.approx(0.3)\n\ndef test_none():\n    with pytest.raises(ValueError, match='number'):\n        f(None)\n\n@pytest.mark.parametrize('x, wanted', [(1, 2), pytest.param(-3, -6, id='below')])\ndef test_many(x, wanted):\n    assert f(x) == wanted\n\nclass TestMore:\n    def setup_method(self):\n        self.x = 5\n    def test_five(self):\n        assert f(self.x) == 10\n"}"#,
    ),
    ("NeMo Gym", DOUBLES, r#"{"verifier_metadata": {"unit_tests": {"inputs": ["2\n"], "outputs": ["4\n"]}}}"#),
    (
        "other names",
        DOUBLES,
        r#"{"tests": [{"stdin": "2\n", "stdout": "4\n"}, {"input": "-3\n", "expected_output": "-6\n"}]}"#,
    ),
    (
        "MBPP+",
        "def f(x): return 2 * x",
        r#"{"test_imports": ["import math"], "test_list": ["assert math.isclose(f(2), 4)"]}"#,
    ),
];

#[test]
fn the_fields_layouts_are_read() {
    if !contained() {
        return;
    }
    for (name, code, tests) in LAYOUTS {
        let verdict = check(CodeConfig::default(), code, "python", tests);
        assert_eq!(verdict.reason, "tests_passed", "{name}: {verdict:?}");
        // Right on the first test alone.
        let wrong = code.replace("2 * int(input())", "max(2 * int(input()), 3)").replace("2 * x", "3");
        let verdict = check(CodeConfig::default(), &wrong, "python", tests);
        let one_test = ["SYNTHETIC-2", "rllm in verl", "NeMo Gym"].contains(name);
        assert_eq!(verdict.score, Some(if one_test { 1.0 } else { 0.0 }), "{name}: {verdict:?}");
        assert!(has_tests(None, Some(tests)), "{name}");
    }
}

#[test]
fn a_gold_answer_that_lists_tests_is_read_and_any_other_list_is_not() {
    let tests = r#"[{"input": "2\n", "output": "4\n", "testtype": "stdin"}]"#;
    assert!(has_tests(Some(tests), None));
    for gold in ["[1, 2]", r#"["a", "b"]"#, "[0, 1)", "{1, 2}", r#"{"a": 1}"#, "[]"] {
        assert!(!has_tests(Some(gold), None), "{gold}");
        assert!(!has_tests(None, Some(&format!(r#"{{"ground_truth": {gold}}}"#))), "{gold}");
    }
}

#[test]
fn what_is_packed_otherwise_is_not_guessed() {
    for packed in ["c3VyZQ==", "not base64!", "eJwDAAAAAAE="] {
        let tests = serde_json::json!({
            "public_test_cases": "[{\"input\": \"2\\n\", \"output\": \"4\\n\", \"testtype\": \"stdin\"}]",
            "private_test_cases": packed,
        });
        let verdict = check(CodeConfig::default(), DOUBLES, "python", &tests.to_string());
        assert_eq!((verdict.score, verdict.reason), (None, "tests_unparsed"), "{packed}: {verdict:?}");
    }
}
