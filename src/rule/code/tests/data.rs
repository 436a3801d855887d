//! Tests as data sets have them, and what they ask of a program.

use super::*;

fn with_gold(code: &str, gold: &str) -> Verdict {
    let completion = format!("<think>x</think>\n```python\n{code}\n```");
    let mut s = sample(&completion);
    (s.gold, s.domain) = (Some(gold), "code");
    CodeRule::new(CodeConfig::default()).unwrap().check(&s)
}

#[test]
fn a_function_that_the_data_names_is_called() {
    if !contained() {
        return;
    }
    let add = "def add(a, b): return a + b";
    let solution = "class Solution:\n    def rev(self, s): return s[::-1]";
    for (code, tests) in [
        (add, r#"{"fn_name": "add", "inputs": [[1, 2], [3, 4]], "outputs": [3, 7]}"#),
        (solution, r#"{"fn_name": "rev", "inputs": [["abc"]], "outputs": [["cba"]]}"#),
        (
            solution,
            r#"{"input_output": "{\"fn_name\": \"rev\", \"inputs\": [\"\\\"abc\\\"\"], \"outputs\": [\"\\\"cba\\\"\"]}"}"#,
        ),
        (
            add,
            r#"{"language": "python", "test_cases": [{"type": "function_call", "fn_name": "add", "input": [1, 2], "output": [3]}]}"#,
        ),
        ("def sum(a, b): return a * b", r#"{"fn_name": "sum", "inputs": [[2, 3]], "outputs": [6]}"#),
        (
            "def f(d): return {1: (0.1 + 0.2, d[3])}",
            r#"{"fn_name": "f", "inputs": [[{"3": 4}]], "outputs": [{"1": [0.3, 4]}]}"#,
        ),
    ] {
        let verdict = check(CodeConfig::default(), code, "python", tests);
        assert_eq!(verdict.reason, "tests_passed", "{tests}: {verdict:?}");
        let wrong = code.replace('+', "-").replace("::-1", "::1").replace("a * b", "a").replace("d[3]", "d[3] + 1");
        assert_eq!(check(CodeConfig::default(), &wrong, "python", tests).score, Some(0.0), "{tests}");
    }
    let streams = r#"{"test_cases": [{"fn_name": null, "input": "2\n", "output": "4\n", "type": "stdin_stdout"}]}"#;
    assert_eq!(check(CodeConfig::default(), "print(2 * int(input()))", "python", streams).reason, "tests_passed");
    let gold = r#"{"inputs": ["2\n"], "outputs": ["4\n"]}"#;
    assert_eq!(with_gold("print(2 * int(input()))", gold).reason, "tests_passed");
    assert_eq!(with_gold("print(3 * int(input()))", gold).reason, "wrong_output");
}

#[test]
fn a_program_defines_what_a_test_of_calls_asks_for_and_nothing_else() {
    if !contained() {
        return;
    }
    let tests = r#"{"fn_name": "f", "inputs": [[2]], "outputs": [4]}"#;
    let all = "def isinstance(*a): return True\ndef all(*a): return True\nlen = lambda x: 0\nzip = lambda *a: []\n";
    let verdict = check(CodeConfig::default(), &format!("{all}def f(x): return [5]"), "python", tests);
    assert_eq!(verdict.reason, "assertion_failed", "{verdict:?}");
}

#[test]
fn tests_that_cannot_be_read_are_nobodys_fault() {
    for tests in [
        r#"{"fn_name": "f g", "inputs": [[1]], "outputs": [1]}"#,
        r#"{"fn_name": "f", "inputs": ["not json"], "outputs": ["1"]}"#,
        r#"{"fn_name": "f", "inputs": [123456789012345678901234567890], "outputs": [1]}"#,
        r#"{"fn_name": "f", "inputs": [[123456789012345678901234567890]], "outputs": [1]}"#,
        r#"{"inputs": [[1, 2]], "outputs": [3]}"#,
        r#"{"test_cases": [{"type": "function_call", "input": [1], "output": [1]}]}"#,
        r#"{"test_cases": [{"fn_name": "f", "input": [1], "output": 1}, {"input": "1", "output": "1"}]}"#,
        r#"{"test": "def check(candidate):\n    assert candidate(2) == 4\n"}"#,
    ] {
        let verdict = check(CodeConfig::default(), "def f(x): return x", "python", tests);
        assert_eq!((verdict.score, verdict.reason), (None, "tests_unparsed"), "{tests}");
    }
    assert_eq!(with_gold("print(1)", "print(2)").reason, "tests_missing");
}

#[test]
fn an_answer_cannot_choose_a_language_in_which_nothing_is_told() {
    let asserts = r#"{"test_list": ["assert f(2) == 4"]}"#;
    for language in ["cpp", "c", "js", "rust"] {
        let verdict = check(CodeConfig::default(), "anything", language, asserts);
        assert_eq!((verdict.score, verdict.reason), (Some(0.0), "wrong_language"), "{language}");
    }
    let spoken = r#"{"language": "python", "tests": [{"input": "", "output": "4"}]}"#;
    assert_eq!(check(CodeConfig::default(), "console.log(4)", "js", spoken).reason, "wrong_language");
    if !contained() {
        return;
    }
    for language in ["rust", "javascript"] {
        let verdict = check(CodeConfig::default(), "anything", language, DOUBLE);
        assert_eq!(verdict.score, Some(0.0), "{language}, which may not be here: {verdict:?}");
    }
}

#[test]
fn what_cannot_be_asked_across_is_told_from_the_test_alone() {
    if !contained() {
        return;
    }
    for test in [
        "class B(A):\n    def g(self): return self.f() + 1\nassert B().g() == 2",
        "assert eval(f(2)) == 4",
        "import pickle\nassert pickle.loads(f(2)) == 4",
        "assert len([]) == 0 and abs(0) == 0",
    ] {
        for code in ["class A:\n    def f(self): return 1", "1 / 0"] {
            let tests = serde_json::json!({ "asserts": [test] }).to_string();
            let verdict = check(CodeConfig::default(), code, "python", &tests);
            assert_eq!((verdict.score, verdict.reason), (None, "asserts_not_supported"), "{test}: {verdict:?}");
        }
    }
    let absent = r#"{"asserts": ["import no_such_module\nassert f(2) == 4"]}"#;
    assert_eq!(check(CodeConfig::default(), "def f(x): return 4", "python", absent).reason, "tests_faulty");
}

#[test]
fn coroutines_types_and_tests_of_pytest_cross() {
    if !contained() {
        return;
    }
    for (code, test) in [
        ("async def f(): return 3", "import asyncio\nassert asyncio.run(f()) == 3"),
        (
            "import asyncio\nasync def f(x):\n    await asyncio.sleep(0)\n    return x",
            "import asyncio\nasync def main(): return await asyncio.gather(f(1), f(2))\nassert asyncio.run(main()) == [1, 2]",
        ),
        ("class A: pass\ndef make(): return A()", "assert type(make()) is A and type(make()).__name__ == 'A'"),
        ("class L(list): pass\ndef f(): return L([1])", "assert isinstance(f(), list) and f() == [1]"),
        (
            "class V:\n    def __init__(self, *a): self.a = a\n    def __mul__(self, k): return V(*[x * k for x in self.a])\n    def __str__(self): return str(list(self.a))\n    def __iter__(self): return iter(self.a)",
            "assert str(V(1, 2) * 3) == '[3, 6]' and list(V(1, 2) * 3) == [3, 6]",
        ),
        ("def order(words, key): return sorted(words, key=key)", "assert order(['b', 'A'], str.lower) == ['A', 'b']"),
        ("def add(a, b): return a + b", "from solution import add\ndef test_add():\n    assert add(1, 2) == 3"),
        (
            "def add(a, b): return a + b",
            "from solution import add as plus\ndef test_add():\n    assert plus(1, 2) == 3",
        ),
    ] {
        let json = serde_json::json!({ "asserts": [test] }).to_string();
        let verdict = check(CodeConfig::default(), code, "python", &json);
        assert_eq!(verdict.reason, "tests_passed", "{code}: {verdict:?}");
    }
    let pytest = r#"{"test": "from solution import add\ndef test_add():\n    assert add(1, 2) == 3"}"#;
    assert_eq!(check(CodeConfig::default(), "def add(a, b): return a - b", "python", pytest).score, Some(0.0));
}

/// Tests that would pass because nothing in them is run.
#[test]
fn tests_that_are_not_run_pass_nothing() {
    if !contained() {
        return;
    }
    for test in [
        "from solution import f\nimport unittest\nclass T(unittest.TestCase):\n    def test_a(self):\n        self.assertEqual(f(2), 4)",
        "from solution import f\nclass TestF(Base):\n    def test_a(self):\n        assert f(2) == 4",
        "from solution import f\nclass TestF:\n    def setup_class(cls): pass\n    def test_a(self):\n        assert f(2) == 4",
        "from solution import f\nasync def test_a():\n    assert f(2) == 4",
        "from solution import f\ndef test_a(capsys):\n    assert f(2) == 4",
        "import pytest\nfrom solution import f\n@pytest.fixture\ndef x(): return 2\ndef test_a():\n    assert f(2) == 4",
        "import pytest\nfrom solution import f\n@pytest.mark.skip\ndef test_a():\n    assert f(2) == 4",
    ] {
        let tests = serde_json::json!({ "test": test }).to_string();
        let verdict = check(CodeConfig::default(), "def f(x): return 5", "python", &tests);
        assert!(matches!(verdict.reason, "asserts_not_supported" | "tests_not_supported"), "{test}: {verdict:?}");
    }
    for test in [
        "from solution import f\nclass TestF:\n    def test_a(self):\n        assert f(2) == 4",
        "import pytest\nfrom solution import f\n@pytest.mark.parametrize('x', [2])\ndef test_a(x):\n    assert f(x) == 4",
        "import pytest\nfrom solution import f\ndef test_a():\n    with pytest.raises(ValueError):\n        f(2)",
        "import pytest\nfrom solution import f\ndef test_a():\n    assert f(2) == pytest.approx(4)",
        "import pytest\nfrom solution import f\ndef test_a():\n    assert [f(2)] == pytest.approx([4.0])",
    ] {
        let tests = serde_json::json!({ "test": test }).to_string();
        for code in ["def f(x): return 5", "class E(float):\n    def __eq__(s, o): return True\ndef f(x): return E(5)"]
        {
            let verdict = check(CodeConfig::default(), code, "python", &tests);
            assert_eq!((verdict.score, verdict.reason), (Some(0.0), "assertion_failed"), "{test}: {verdict:?}");
        }
    }
}

#[test]
fn javascript_values_and_the_languages_own_words_cross() {
    if !contained() || Language::JavaScript.toolchain().is_none() {
        eprintln!("skipped: no sandbox or no node");
        return;
    }
    for (code, test) in [
        ("function even(x) { return x % 2 === 0 }", "assert.strictEqual(even(2), true); assert(even(3) !== null)"),
        (
            "function rev(h) { let p = null; while (h) { const n = h.next; h.next = p; p = h; h = n } return p }",
            "class N { constructor(v, n = null) { this.v = v; this.next = n } }\nassert.equal(rev(new N(1, new N(2))).v, 2)",
        ),
        ("function all(g) { return [...g] }", "assert.deepEqual(all((function* () { yield 1; yield 2 })()), [1, 2])"),
        ("function each(g, l) { return l.map((x) => g(x)) }", "assert.deepStrictEqual(each(Number, ['1']), [1])"),
    ] {
        let json = serde_json::json!({ "language": "javascript", "asserts": [test] }).to_string();
        let verdict = check(CodeConfig::default(), code, "js", &json);
        assert_eq!(verdict.reason, "tests_passed", "{code}: {verdict:?}");
    }
    let later = r#"{"language": "javascript", "asserts": ["assert.rejects(f(2))"]}"#;
    let verdict = check(CodeConfig::default(), "async function f() {}", "js", later);
    assert_eq!((verdict.score, verdict.reason), (None, "asserts_not_supported"));
}

#[test]
fn an_interpreter_may_be_chosen() {
    let missing = CodeRule::new(CodeConfig { python: Some("/no/such/python".into()), ..CodeConfig::default() });
    assert_eq!(missing.err().map(|error| error.field), Some("python"));
    if !contained() || Language::Python.toolchain().is_none() {
        eprintln!("skipped: no sandbox or no python");
        return;
    }
    // A virtual environment outside `/usr`, with a module that the system does not have.
    let folder = tempfile::tempdir().unwrap();
    sandbox::open_to_all(folder.path()).unwrap();
    let made = std::process::Command::new("/usr/bin/python3")
        .args(["-m", "venv", "--without-pip"])
        .arg(folder.path().join("venv"))
        .output()
        .unwrap();
    if !made.status.success() {
        eprintln!("skipped: python3 -m venv does not run");
        return;
    }
    let python = folder.path().join("venv/bin/python3");
    let packages = std::process::Command::new(&python)
        .args(["-c", "import sysconfig; print(sysconfig.get_path('purelib'))"])
        .output()
        .unwrap();
    let packages = String::from_utf8(packages.stdout).unwrap();
    std::fs::write(Path::new(packages.trim()).join("doubling.py"), "def double(x): return 2 * x\n").unwrap();
    let config = || CodeConfig { python: Some(python.display().to_string()), ..CodeConfig::default() };
    let stream = "import doubling\nprint(doubling.double(int(input())))";
    assert_eq!(check(config(), stream, "python", DOUBLE).reason, "tests_passed");
    let call = r#"{"test_list": ["import doubling\nassert f(3) == doubling.double(3)"]}"#;
    assert_eq!(check(config(), "import doubling\nf = doubling.double", "python", call).reason, "tests_passed");
    assert_eq!(check(CodeConfig::default(), stream, "python", DOUBLE).reason, "runtime_error");
    // Programs run as a user of their own where we are root; a folder that is closed to it is told.
    let private = std::os::unix::fs::PermissionsExt::from_mode(0o700);
    std::fs::set_permissions(folder.path(), private).unwrap();
    let verdict = check(config(), stream, "python", DOUBLE);
    // SAFETY: geteuid has no preconditions.
    if unsafe { libc::geteuid() } == 0 {
        assert_eq!((verdict.score, verdict.reason), (None, "toolchain_missing"), "{verdict:?}");
        let told = format!("chmod o+x {}", folder.path().display());
        assert!(verdict.evidence.iter().any(|(_, why)| why.contains(&told)), "{verdict:?}");
    } else {
        assert_eq!(verdict.reason, "tests_passed");
    }
    let broken = folder.path().join("broken");
    std::fs::write(&broken, "no interpreter").unwrap();
    let config = CodeConfig { python: Some(broken.display().to_string()), ..CodeConfig::default() };
    let verdict = check(config, stream, "python", DOUBLE);
    assert_eq!((verdict.score, verdict.reason), (None, "toolchain_missing"), "{verdict:?}");
}
