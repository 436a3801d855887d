use super::*;
use crate::rule::testing::sample;

/// Skips, with a line, where nothing can be contained.
fn contained() -> bool {
    match sandbox::ready() {
        Ok(()) => true,
        Err(error) => {
            eprintln!("skipped: {error}");
            false
        }
    }
}

fn check(config: CodeConfig, code: &str, language: &str, verification: &str) -> Verdict {
    let completion = format!("<think>x</think>Here:\n```{language}\n{code}\n```\n");
    let mut s = sample(&completion);
    s.verification = Some(verification);
    CodeRule::new(config).unwrap().check(&s)
}

const DOUBLE: &str = r#"{"tests": [{"input": "2\n", "output": "4"}, {"input": "-3\n", "output": "-6\n"}]}"#;

#[test]
fn programs_of_every_language_are_tested_on_their_streams() {
    if !contained() {
        return;
    }
    for (language, good, bad) in [
        ("python", "print(2 * int(input()))", "print(2 + int(input()))"),
        (
            "cpp",
            "#include <iostream>\nint main(){int n;std::cin>>n;std::cout<<2*n<<std::endl;}",
            "int main(){return 0;}",
        ),
        (
            "rust",
            "fn main(){let mut s=String::new();std::io::stdin().read_line(&mut s).unwrap();println!(\"{}\",2*s.trim().parse::<i64>().unwrap());}",
            "fn main(){println!(\"4\")}",
        ),
        ("javascript", "console.log(2 * Number(require('fs').readFileSync(0)))", "console.log(4)"),
    ] {
        let verdict = check(CodeConfig::default(), good, language, DOUBLE);
        if verdict.reason == "toolchain_missing" {
            eprintln!("skipped: no toolchain for {language}");
            continue;
        }
        assert_eq!(verdict.reason, "tests_passed", "{language}: {verdict:?}");
        assert_eq!(check(CodeConfig::default(), bad, language, DOUBLE).reason, "wrong_output", "{language}");
    }
}

#[test]
fn functions_are_tested_by_assertions() {
    if !contained() {
        return;
    }
    let mbpp = r#"{"test_list": ["assert f(2) == 4", "assert f(3) == 6"]}"#;
    assert_eq!(check(CodeConfig::default(), "def f(x): return 2 * x", "python", mbpp).reason, "tests_passed");
    let half = check(CodeConfig { partial: true, ..CodeConfig::default() }, "def f(x): return 4", "python", mbpp);
    assert_eq!((half.score, half.reason), (Some(0.5), "assertion_failed"));
    let humaneval = r#"{"test": "def check(c):\n    assert c(2) == 4\n", "entry_point": "f"}"#;
    assert_eq!(check(CodeConfig::default(), "def f(x): return 2 * x", "python", humaneval).reason, "tests_passed");
    assert_eq!(check(CodeConfig::default(), "def f(x): return x", "python", humaneval).reason, "assertion_failed");
    let node = r#"{"language": "javascript", "asserts": ["assert.strictEqual(f(2), 4)"]}"#;
    let verdict = check(CodeConfig::default(), "function f(x) { return 2 * x }", "js", node);
    assert!(matches!(verdict.reason, "tests_passed" | "toolchain_missing"), "{verdict:?}");
}

#[test]
fn leaving_early_or_claiming_success_does_not_pass() {
    if !contained() {
        return;
    }
    let tests = r#"{"asserts": ["assert f(2) == 4"]}"#;
    for code in [
        "import os\nos._exit(0)",
        "import sys\nsys.exit(0)",
        "print('0' * 64, 0)",
        "import os\nos.read(0, 1 << 20)\ndef f(x): return 5",
        "class E:\n    def __eq__(self, o): return 1/0\ndef f(x): return E()",
    ] {
        assert_ne!(check(CodeConfig::default(), code, "python", tests).reason, "tests_passed", "{code}");
    }
}

#[test]
fn faults_are_told_apart() {
    if !contained() {
        return;
    }
    let quick = || CodeConfig { seconds: 2.0, memory_mib: 128, output_kib: 64, ..CodeConfig::default() };
    for (code, reason) in [
        ("while True: pass", "timeout"),
        ("import time\ntime.sleep(60)", "timeout"),
        ("while True: print('x' * 1000)", "output_limit"),
        ("x = [0] * 10**9", "runtime_error"),
        ("1 / 0", "runtime_error"),
        ("import os\nos.abort()", "crashed"),
    ] {
        assert_eq!(check(quick(), code, "python", DOUBLE).reason, reason, "{code}");
    }
    assert_eq!(check(quick(), "int main( {", "cpp", DOUBLE).reason, "does_not_compile");
}

#[test]
fn faults_of_the_data_and_missing_code() {
    let rule = CodeRule::new(CodeConfig::default()).unwrap();
    assert_eq!(rule.check(&sample("```py\nprint(1)\n```")).reason, "tests_missing");
    let mut s = sample("no code here");
    s.verification = Some(DOUBLE);
    assert_eq!(rule.check(&s).reason, "no_code");
    s.verification = Some("{\"inputs\": [\"1\"], \"outputs\": []}");
    assert_eq!(rule.check(&s).reason, "tests_unparsed");
}
