//! The limits and files of a problem.

use super::*;

fn doubling(beside: &str) -> String {
    format!(r#"{{"tests": [{{"input": "2\n", "output": "4"}}], {beside}}}"#)
}

const DOUBLES: &str = "print(2 * int(input()))";

#[test]
fn a_problems_limits_go_before_the_rules() {
    if !contained() {
        return;
    }
    let short = || CodeConfig { seconds: 0.5, memory_mib: 64, ..CodeConfig::default() };
    let slow = format!("import time\ntime.sleep(0.8)\n{DOUBLES}");
    let large = format!("x = b'1' * (90 << 20)\n{DOUBLES}");
    for (code, beside, reason) in [
        (&slow, r#""time_limit": null"#, "timeout"),
        (&slow, r#""time_limit": 5.0"#, "tests_passed"),
        (&slow, r#""time_limit": 0.3"#, "timeout"),
        (&large, r#""time_limit": 9, "memory_limit": 0"#, "runtime_error"),
        (&large, r#""time_limit": 9, "memory_limit": 256"#, "tests_passed"),
        (&large, r#""time_limit": 9, "memory_limit_bytes": 268435456"#, "tests_passed"),
        (&large, r#""time_limit": 9, "memory_limit": 16.0"#, "runtime_error"),
    ] {
        let verdict = check(short(), code, "python", &doubling(beside));
        assert_eq!(verdict.reason, reason, "{beside}: {verdict:?}");
    }
    let patient = CodeConfig { time_factor: 10.0, ..short() };
    assert_eq!(check(patient, &slow, "python", &doubling(r#""time_limit": 0.3"#)).reason, "tests_passed");
    for factor in [0.0, f64::NAN, 1e9] {
        let refused = CodeRule::new(CodeConfig { time_factor: factor, ..CodeConfig::default() });
        assert_eq!(refused.err().map(|error| error.field), Some("time_factor"));
    }
}

#[test]
fn a_small_limit_leaves_room_for_the_language() {
    if !contained() {
        return;
    }
    for (language, code) in [("python", DOUBLES), ("js", "console.log(2 * Number(require('fs').readFileSync(0)))")] {
        let verdict = check(CodeConfig::default(), code, language, &doubling(r#""memory_limit": 16"#));
        assert!(matches!(verdict.reason, "tests_passed" | "language_not_run"), "{verdict:?}");
    }
}

#[test]
fn a_compiled_program_may_recurse_deeply() {
    if !contained() || Language::Cpp.toolchain().is_none() {
        eprintln!("skipped: no sandbox or no g++");
        return;
    }
    let depth = |n: u32| {
        format!(
            "#include <cstdio>\nint f(int n) {{ volatile int x[8]; x[n & 7] = n; return n ? f(n - 1) + (x[n & 7] == n) : 0; }}\nint main() {{ printf(\"%d\", f({n}) == {n} ? 4 : 5); }}"
        )
    };
    assert_eq!(
        check(CodeConfig::default(), &depth(700_000), "cpp", &doubling(r#""time_limit": 9"#)).reason,
        "tests_passed"
    );
    assert_eq!(
        check(CodeConfig::default(), &depth(90_000_000), "cpp", &doubling(r#""time_limit": 9"#)).reason,
        "crashed"
    );
}

#[test]
fn a_right_output_may_be_longer_than_others_may_be() {
    if !contained() {
        return;
    }
    let tests = serde_json::json!({ "tests": [{ "input": "", "output": "4\n".repeat(5000) }] }).to_string();
    let config = || CodeConfig { output_kib: 1, ..CodeConfig::default() };
    assert_eq!(check(config(), "print('4\\n' * 5000)", "python", &tests).reason, "tests_passed");
    assert_eq!(check(config(), "print('4\\n' * 50000)", "python", &tests).reason, "output_limit");
}

#[test]
fn a_program_may_read_and_write_files() {
    if !contained() {
        return;
    }
    let files = "with open('input.txt') as i, open('output.txt', 'w') as o: o.write(str(2 * int(i.read())))";
    let mode = doubling(r#""input_mode": "file""#);
    for (code, reason) in [
        (files, "tests_passed"),
        (DOUBLES, "runtime_error"),
        ("print(4)", "wrong_output"),
        ("open('output.txt', 'w').write('5')", "wrong_output"),
        ("import os\nos.symlink('/box/main.py', 'output.txt')", "wrong_output"),
        ("import os\nos.mkfifo('output.txt')", "wrong_output"),
        ("open('output.txt', 'w').write('4')\n1 / 0", "runtime_error"),
        ("open('output.txt', 'w').write('4')\nimport os\nos.abort()", "crashed"),
        ("open('output.txt', 'w').write('4' * 2000000)", "output_limit"),
    ] {
        let verdict = check(CodeConfig::default(), code, "python", &mode);
        assert_eq!(verdict.reason, reason, "{code}: {verdict:?}");
    }
    for (code, beside) in [
        ("print(2 * int(open('sum.in').read()))", r#""input_file": "sum.in", "output_file": """#),
        ("open('sum.out', 'w').write(str(2 * int(input())))", r#""input_file": "stdin", "output_file": "sum.out""#),
        (DOUBLES, r#""input_file": "", "output_file": null, "input_mode": "stdio""#),
    ] {
        assert_eq!(check(CodeConfig::default(), code, "python", &doubling(beside)).reason, "tests_passed", "{beside}");
    }
    let outside = doubling(r#""input_file": "../a b""#);
    assert_eq!(check(CodeConfig::default(), DOUBLES, "python", &outside).reason, "tests_not_supported");
}
