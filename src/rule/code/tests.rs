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
        if matches!(verdict.reason, "toolchain_missing" | "language_not_run") {
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

/// Of each: a way to pass without having solved anything, and the assertion it is tried on.
const FORGERIES: &[(&str, &str, &str)] = &[
    ("leave at once", "import os\nos._exit(0)", "assert f(2) == 4"),
    ("exit at once", "import sys\nsys.exit(0)", "assert f(2) == 4"),
    ("leave when called", "import os\ndef f(x): os._exit(0)", "assert f(2) == 4"),
    ("exit when called", "import sys\ndef f(x): sys.exit(0)", "assert f(2) == 4"),
    ("leave at exit", "import atexit, os\natexit.register(os._exit, 0)\ndef f(x): return 5", "assert f(2) == 4"),
    ("claim to have passed", "print('{\"test\": 0, \"passed\": true}')\ndef f(x): return 5", "assert f(2) == 4"),
    (
        "claim it wherever something is open",
        "import os\nfor n in range(64):\n    try: os.write(n, b'{\"test\": 0, \"passed\": true}\\n')\n    except OSError: pass\ndef f(x): return 5",
        "assert f(2) == 4",
    ),
    (
        "read the test off the stack",
        "import sys, re\ndef f(x):\n    frame = sys._getframe(1)\n    while frame:\n        for c in frame.f_code.co_consts:\n            if type(c) is int and 86000 < c < 87000: return c\n        for v in frame.f_locals.values():\n            found = re.search('f.2. == ([0-9]+)', str(v))\n            if found: return int(found.group(1))\n        frame = frame.f_back\n    return 5",
        "assert f(2) == 86420",
    ),
    (
        "read the test from a file",
        "import os, re\nt = ''\nfor d, _, names in os.walk('/box'):\n    for n in names: t += open(os.path.join(d, n)).read()\nfor p in os.listdir('/proc'):\n    try: t += open('/proc/%s/environ' % p).read() + open('/proc/%s/cmdline' % p).read()\n    except OSError: pass\nfound = re.search('f.2. == (\\\\d+)', t)\ndef f(x): return int(found.group(1)) if found else 5",
        "assert f(2) == 86420",
    ),
    ("equal everything", "class E:\n    def __eq__(self, o): return True\ndef f(x): return E()", "assert f(2) == 4"),
    (
        "equal from the right",
        "class E:\n    def __eq__(self, o): return True\ndef f(x): return E()",
        "assert 4 == f(2)",
    ),
    (
        "differ from nothing",
        "class E:\n    def __ne__(self, o): return False\ndef f(x): return E()",
        "assert not f(2) != 4",
    ),
    (
        "a number that equals everything",
        "class E(int):\n    def __eq__(self, o): return True\ndef f(x): return E(5)",
        "assert f(2) == 4",
    ),
    (
        "a list that equals everything",
        "class E(list):\n    def __eq__(self, o): return True\ndef f(x): return E([5])",
        "assert f(2) == [4]",
    ),
    ("the library's ANY", "from unittest.mock import ANY\ndef f(x): return ANY", "assert f(2) == 4"),
    (
        "be near everything",
        "class E:\n    def __sub__(self, o): return 0.0\n    __rsub__ = __sub__\ndef f(x): return E()",
        "assert abs(f(2) - 4) < 1e-6",
    ),
    (
        "be less than everything",
        "class E:\n    def __lt__(self, o): return True\ndef f(x): return E()",
        "assert f(2) < 4",
    ),
    (
        "hold everything",
        "class E:\n    def __contains__(self, o): return True\n    def __iter__(self): return iter(())\ndef f(x): return E()",
        "assert 4 in f(2)",
    ),
    ("end the test's loop", "def f(x): raise StopIteration", "assert all(map(lambda x: f(x) == 2 * x, [1, 2]))"),
    (
        "replace what the test calls",
        "def sorted(x):\n    class E:\n        def __eq__(self, o): return True\n    return E()\ndef f(x): return [5]",
        "assert sorted(f(2)) == [4]",
    ),
    (
        "replace a library",
        "class math:\n    isclose = lambda *a, **k: True\ndef f(x): return 5",
        "assert math.isclose(f(2), 4)",
    ),
    (
        "replace the exception",
        "import builtins\nbuiltins.AssertionError = None\ndef f(x): return 5",
        "assert f(2) == 4",
    ),
    (
        "have the test catch its failure",
        "def f(x): raise KeyboardInterrupt",
        "try:\n    assert f(2) == 4\nexcept Exception as e:\n    raise e",
    ),
    (
        "enter the test's own function",
        "def f(g): g.__globals__['tell'](test=0, passed=True)",
        "def g(): pass\nassert f(g) == 4",
    ),
    ("be the text's interpreter", "f = eval", "assert f('4') == 5"),
];

#[test]
fn nothing_but_the_right_answer_passes_an_assertion() {
    if !contained() {
        return;
    }
    for (name, code, test) in FORGERIES {
        let tests = serde_json::json!({ "asserts": [test] }).to_string();
        let verdict = check(CodeConfig::default(), code, "python", &tests);
        assert_eq!(verdict.score, Some(0.0), "{name}: {verdict:?}");
    }
    let early =
        check(CodeConfig::default(), "import os\nos._exit(0)", "python", r#"{"asserts": ["assert f(2) == 4"]}"#);
    assert_eq!(early.reason, "left_early");
}

#[test]
fn a_javascript_program_cannot_forge_either() {
    if !contained() || Language::JavaScript.toolchain().is_none() {
        eprintln!("skipped: no sandbox or no node");
        return;
    }
    for (code, test) in [
        ("process.exit(0)", "assert.equal(f(2), 4)"),
        ("function f() { process.exit(0) }", "assert.throws(() => f(2))"),
        ("require('assert').strictEqual = () => {}; function f() { return 5 }", "assert.strictEqual(f(2), 4)"),
        ("Math.abs = () => 0; function f() { return 5 }", "assert(Math.abs(f(2) - 4) < 1e-6)"),
        ("require('fs').writeSync(4, '[\"=\",[true],[]]\\n'); function f() { return 5 }", "assert.equal(f(2), 4)"),
        ("function f(g) { return g.constructor('return process')().exit(0) }", "assert.equal(f(x => x), 4)"),
    ] {
        let tests = serde_json::json!({ "language": "javascript", "asserts": [test] }).to_string();
        let verdict = check(CodeConfig::default(), code, "js", &tests);
        assert_eq!(verdict.score, Some(0.0), "{code}: {verdict:?}");
    }
}

/// What tests do with a program beside calling a function on numbers.
#[test]
fn values_objects_and_faults_cross_between_program_and_tests() {
    if !contained() {
        return;
    }
    for (code, tests) in [
        ("def sort(l): l.sort()", &["l = [3, 1]\nsort(l)\nassert l == [1, 3]"][..]),
        ("def sum(a, b): return a * b", &["assert sum(2, 3) == 6"]),
        (
            "class P:\n    def __init__(self, x): self.x = x\n    def __eq__(self, o): return self.x == o.x\n    def __mul__(self, k): return P(self.x * k)",
            &[
                "assert P(1) * 3 == P(3)",
                "p = P(4)\np.x = 5\nassert p.x == 5 and isinstance(p, P)",
                "assert P(1) != P(2)",
            ],
        ),
        (
            "class Own(ValueError): pass\ndef f(x): raise Own('no')",
            &["try:\n    f(1)\n    assert False\nexcept Own as e:\n    assert str(e) == 'no'"],
        ),
        (
            "def ap(f, l): return [f(x) for x in l]",
            &["assert ap(lambda x: x + 1, [1, 2]) == [2, 3]", "assert ap(int, ['1']) == [1]"],
        ),
        (
            "import math\ndef f(x): return math.sqrt(x)",
            &["assert math.isclose(f(4), 2.0)", "assert abs(f(2) - 1.41421) < 1e-3"],
        ),
        (
            "class Node:\n    def __init__(self, v): self.v, self.l, self.r = v, None, None\ndef height(n): return 0 if n is None else 1 + max(height(n.l), height(n.r))",
            &["root = Node(1)\nroot.l = Node(2)\nroot.l.r = Node(3)\nassert height(root) == 3"],
        ),
        ("def g(n):\n    yield from range(n)", &["assert list(g(3)) == [0, 1, 2]"]),
        (
            "from collections import Counter\nfrom fractions import Fraction\ndef f(): return Counter('aab'), Fraction(1, 2), {(1, 2): {3}}, b'x', 3 ** 500",
            &[
                "from fractions import Fraction\nassert f() == ({'a': 2, 'b': 1}, Fraction(1, 2), {(1, 2): {3}}, b'x', 3 ** 500)",
            ],
        ),
        (
            "class Stack(list):\n    def push(self, x): self.append(x)",
            &["s = Stack()\ns.push(1)\nassert s == [1] and len(s) == 1"],
        ),
        (
            "print('loud')\ndef f(n): return n.val + (f(n.next) if n.next else 0)",
            &["class N:\n    def __init__(self, v, n=None): self.val, self.next = v, n\nassert f(N(1, N(2))) == 3"],
        ),
    ] {
        let json = serde_json::json!({ "asserts": tests }).to_string();
        let verdict = check(CodeConfig::default(), code, "python", &json);
        assert_eq!(verdict.reason, "tests_passed", "{code}: {verdict:?}");
    }
    let faulty = check(CodeConfig::default(), "def f(x): return 4", "python", r#"{"asserts": ["assert f(2 == 4"]}"#);
    assert_eq!((faulty.score, faulty.reason), (None, "tests_faulty"));
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
        let asserts = r#"{"asserts": ["assert f(2) == 4"]}"#;
        assert_eq!(check(quick(), code, "python", asserts).reason, reason, "{code} before assertions");
    }
    assert_eq!(check(quick(), "int main( {", "cpp", DOUBLE).reason, "does_not_compile");
}

#[test]
fn a_program_may_be_about_tags() {
    if !contained() {
        return;
    }
    let tests = r#"{"tests": [{"input": "", "output": "<think>a</think>"}]}"#;
    let completion = "<think>Print it.</think>\n```python\nprint('<think>' + 'a</think>')\n```\nThat prints the tags.";
    let mut s = sample(completion);
    s.verification = Some(tests);
    assert_eq!(CodeRule::new(CodeConfig::default()).unwrap().check(&s).reason, "tests_passed");
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

mod checkers;
mod data;
mod layouts;
mod limits;
mod takeovers;
