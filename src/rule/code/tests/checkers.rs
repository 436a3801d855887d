//! Problems with more than one right output, and programs that would rather persuade the checker than solve them.

use super::*;

/// Two numbers that add up to the input.
const SUMS: &str = r#"import sys
read = lambda path: open(path).read().split()
[n], given = read(sys.argv[1]), read(sys.argv[3])
read(sys.argv[2])
print(1 if len(given) == 2 and int(given[0]) + int(given[1]) == int(n) else 0)"#;
const ANY_SUM: &str = "n = int(input())\nprint(1, n - 1)";

fn verification(checker: &str) -> serde_json::Value {
    serde_json::json!({
        "checker": checker,
        "tests": [{ "input": "7\n", "output": "3 4\n" }, { "input": "20\n", "output": "8 12\n" }],
    })
}

fn judged(checker: &str, code: &str) -> Verdict {
    check(CodeConfig::default(), code, "python", &verification(checker).to_string())
}

#[test]
fn another_right_output_passes_and_a_wrong_one_does_not() {
    if !contained() {
        return;
    }
    assert_eq!(judged(SUMS, ANY_SUM).reason, "tests_passed");
    let wrong = judged(SUMS, "n = int(input())\nprint(1, n)");
    assert_eq!((wrong.score, wrong.reason), (Some(0.0), "wrong_output"), "{wrong:?}");
    // open-r1's names; what it has generated lies in files, and here stands how many of them there are.
    let theirs = serde_json::json!({
        "generated_checker": SUMS, "official_tests": [{ "input": "7\n", "output": "3 4\n" }], "generated_tests": 12,
        "input_mode": "stdio", "time_limit": 2.0, "memory_limit": 256.0, "interaction_format": null,
    });
    assert_eq!(check(CodeConfig::default(), ANY_SUM, "python", &theirs.to_string()).reason, "tests_passed");
    let none =
        serde_json::json!({ "generated_checker": null, "official_tests": [{ "input": "7\n", "output": "3 4\n" }] });
    assert_eq!(check(CodeConfig::default(), ANY_SUM, "python", &none.to_string()).reason, "wrong_output");
}

#[test]
fn what_equals_the_reference_needs_no_checker() {
    if !contained() {
        return;
    }
    let reference = "print({7: '3 4', 20: '8 12'}[int(input())])";
    assert_eq!(judged("1 / 0", reference).reason, "tests_passed");
    // An empty reference says nothing, so that an empty output is not equal to it.
    let no_reference = serde_json::json!({
        "checker": SUMS, "tests": [{ "input": "7\n", "output": "" }, { "input": "20\n", "output": null }],
    });
    assert_eq!(check(CodeConfig::default(), "pass", "python", &no_reference.to_string()).reason, "wrong_output");
    assert_eq!(check(CodeConfig::default(), ANY_SUM, "python", &no_reference.to_string()).reason, "tests_passed");
}

#[test]
fn a_checker_may_say_it_by_its_exit_code() {
    if !contained() {
        return;
    }
    let testlib = SUMS.replace("print(1 if", "sys.exit(0 if").replace("else 0)", "else 1)");
    assert_eq!(judged(&testlib, ANY_SUM).reason, "tests_passed");
    assert_eq!(judged(&testlib, "print(1, 1)").reason, "wrong_output");
    // One that prints, and says nothing of what it cannot read.
    let quiet = SUMS.replace("print(1", "if len(given) != 2: sys.exit()\nprint(1");
    assert_eq!(judged(&quiet, ANY_SUM).reason, "tests_passed");
    assert_eq!(judged(&quiet, "pass").reason, "wrong_output");
    let no_reference = serde_json::json!({ "checker": quiet, "tests": [{ "input": "7\n", "output": "" }] }).to_string();
    assert_eq!(check(CodeConfig::default(), "pass", "python", &no_reference).reason, "wrong_output");
    let silent = "def check(): print(1)\n";
    assert_eq!(judged(silent, ANY_SUM).reason, "checker_failed", "one that says nothing accepts nothing");
}

#[test]
fn scores_between_are_a_share_of_the_test() {
    if !contained() {
        return;
    }
    let half = "import sys\nprint(0.5 if open(sys.argv[3]).read().split()[0] == '1' else 1.0)";
    let partial = || CodeConfig { partial: true, ..CodeConfig::default() };
    let code = "n = int(input())\nprint(1 if n == 7 else 2, n)";
    let verdict = check(partial(), code, "python", &verification(half).to_string());
    assert_eq!((verdict.score, verdict.reason), (Some(0.75), "wrong_output"), "{verdict:?}");
    assert!(verdict.evidence.contains(&("passed", "1 of 2".to_owned())), "{verdict:?}");
    assert_eq!(judged(half, code).score, Some(0.0));
}

#[test]
fn a_broken_checker_is_nobodys_fault() {
    if !contained() {
        return;
    }
    for (checker, told) in [
        ("import sys\nraise ValueError('no such ' + sys.argv[2])", "no such /box/correct_output.txt"),
        ("print('yes')", "yes"),
        ("print(2)", "2"),
        ("print('nan')", "nan"),
        ("print(1, 1)", "1 1"),
        ("print(1", "SyntaxError"),
        ("import os\nprint(1, flush=True)\nos._exit(3)", "Exit(3)"),
        ("import time\ntime.sleep(60)", "WallLimit"),
        ("while True: print(1)", "OutputLimit"),
        // It rejects what is correct, and cannot read anything else.
        ("import sys\nassert open(sys.argv[3]).read().split()[0] != '1'\nprint(0)", "rejects the correct output"),
    ] {
        let config = CodeConfig { checker_seconds: 2.0, ..CodeConfig::default() };
        let verdict = check(config, ANY_SUM, "python", &verification(checker).to_string());
        assert_eq!((verdict.score, verdict.reason), (None, "checker_failed"), "{checker}: {verdict:?}");
        let evidence = verdict.evidence.iter().find(|(key, _)| *key == "checker").map(|(_, why)| why.as_str());
        assert!(evidence.is_some_and(|why| why.contains(told)), "{checker}: {verdict:?}");
    }
    // A program that fails on its own is wrong, whatever the checker is.
    assert_eq!(judged("1 / 0", "1 / 0").reason, "runtime_error");
}

/// Of each: what is tried instead of a solution.
const TAKEOVERS: &[(&str, &str)] = &[
    ("print what a checker prints", "print(1)"),
    ("print nothing", "pass"),
    ("exit early", "import sys\nsys.exit(0)"),
    ("leave early", "import os\nos._exit(0)"),
    ("print what is no number", "print('one', 'two')"),
    ("print NULs", "print('\\0' * 1000)"),
    ("print what is no text", "import os\nos.write(1, b'\\xff\\xfe 1')"),
    ("print numbers that are too long", "print('9' * 5000, 1)"),
    ("print as much as is allowed", "print('1 ' * 400000)"),
    (
        "write where the checker reads",
        "import os\nfor d in ('/box', '/tmp', '/dev/shm', '.'):\n    for n in ('main.py', 'checker.py', 'input.txt', 'correct_output.txt', 'solution_output.txt', 'sitecustomize.py'):\n        try: open(os.path.join(d, n), 'w').write('print(1)')\n        except OSError: pass\nprint(0, 0)",
    ),
    (
        "read the correct output",
        "import os\nt = ''\nfor d in ('/box', '/tmp', '/dev/shm', '/proc/1/cwd'):\n    for r, _, names in os.walk(d):\n        for n in names:\n            if 'output' in n or 'check' in n: t += open(os.path.join(r, n), errors='replace').read()\nprint(t or '0 0')",
    ),
    (
        "outlive the program",
        "import os, time\nif os.fork() == 0:\n    os.setsid()\n    time.sleep(0.2)\n    for p in os.listdir('/proc'):\n        try:\n            if p.isdigit() and p not in ('1', str(os.getpid())): os.kill(int(p), 9)\n        except OSError: pass\n    os._exit(0)\nprint(0, 0)",
    ),
];

#[test]
fn no_output_persuades_a_checker_but_a_right_one() {
    if !contained() {
        return;
    }
    for (name, code) in TAKEOVERS {
        let verdict = judged(SUMS, code);
        assert_eq!((verdict.score, verdict.reason), (Some(0.0), "wrong_output"), "{name}: {verdict:?}");
    }
    // An output that is made to break a checker, or to keep it busy, is wrong where the correct one is neither.
    let slow = "import sys\nn = int(open(sys.argv[3]).read().split()[0])\nwhile n > 100: pass\nprint(1)";
    for (checker, code) in [(slow, "print(101)"), (slow, "print('x')")] {
        let config = CodeConfig { checker_seconds: 2.0, ..CodeConfig::default() };
        let verdict = check(config, code, "python", &verification(checker).to_string());
        assert_eq!((verdict.score, verdict.reason), (Some(0.0), "wrong_output"), "{code}: {verdict:?}");
    }
}

#[test]
fn the_checker_of_a_compiled_program_is_still_python() {
    if !contained() || Language::Cpp.toolchain().is_none() {
        eprintln!("skipped: no sandbox or no g++");
        return;
    }
    let code = "#include <iostream>\nint main(){int n;std::cin>>n;std::cout<<1<<' '<<n-1<<'\\n';}";
    let verdict = check(CodeConfig::default(), code, "cpp", &verification(SUMS).to_string());
    assert_eq!(verdict.reason, "tests_passed", "{verdict:?}");
}

#[test]
fn checkers_that_cannot_be_used_are_told() {
    for (verification, reason) in [
        (verification("#include \"testlib.h\"\nint main() {}"), "tests_not_supported"),
        (serde_json::json!({ "checker": SUMS, "asserts": ["assert f(1) == 1"] }), "tests_not_supported"),
        (
            serde_json::json!({ "checker": { "name": "sums" }, "tests": [{ "input": "", "output": "" }] }),
            "tests_unparsed",
        ),
        (
            serde_json::json!({ "interaction_format": "Print a query.", "tests": [{ "input": "", "output": "" }] }),
            "tests_not_supported",
        ),
    ] {
        let verdict = check(CodeConfig::default(), "print(1)", "python", &verification.to_string());
        assert_eq!((verdict.score, verdict.reason), (None, reason), "{verification}");
        assert_eq!(verdict.evidence.first().map(|(key, _)| *key), Some("error"), "{verdict:?}");
    }
}
