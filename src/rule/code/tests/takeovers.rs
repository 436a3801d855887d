//! Programs that speak the protocol themselves: what they say is an adversary's, and none gets a right answer's
//! reward without one.

use super::*;

/// Finds the connection from inside a call, to send what no honest program would.
const PYTHON: &str = r#"import sys, __main__
wire = sys._getframe(1).f_locals["wire"]
place = lambda r: ["y", object.__getattribute__(r, "_gristmill_place")]
def raw(what, *forms):
    wire.send(["?", what, list(forms), []])
    return wire.receive()"#;

/// Of each: what is tried, the program, and a test that it does not solve.
const PYTHON_TAKEOVERS: &[(&str, &str, &str)] = &[
    (
        "replace the judge's operators",
        "import operator\nclass L(list): pass\ndef f(*args):\n    wire.ask('set', operator, 'eq', lambda a, b: True)\n    return L()",
        "assert f(2) == 4",
    ),
    (
        "replace a function of a library",
        "import math\ndef f(x):\n    wire.ask('set', math, 'isclose', lambda *a, **k: True)\n    return 1.0",
        "import math\nassert math.isclose(f(2), 4.5)",
    ),
    (
        "claim to be a number once the answer was seen",
        "class Z: pass\nclass E:\n    def __sub__(self, o): return Z()\nold = __main__.bare\n__main__.bare = lambda v: 0.0 if type(v) is Z else old(v)\ndef f(x): return E()",
        "assert abs(f(1.33) - 0.33) < 1e-6",
    ),
    (
        "call what reads by name",
        r#"def f(g):
    a = raw("call", ["N","operator","attrgetter"], "__code__.co_consts")
    b = raw("call", ["y", a[1][1]], place(g))
    return [x for x in b[1][1] if type(x) is int and x > 80000][0]"#,
        "def g(x): return x == 86420
assert f(g) == 86420",
    ),
    (
        "be less, and then more",
        "class L(list): pass
n = 0
def claim(v):
    global n; n += 1
    return 1e9 if n % 2 else -1e9
__main__.bare = claim
def f(x): return L()",
        "assert 86000 < f(2) < 87000",
    ),
    (
        "be nothing when the answer is taken away",
        "class E:
    def __sub__(s, o): return s
    __rsub__ = __sub__
    def __bool__(s): return False
    def __len__(s): return 0
def f(x): return E()",
        "assert not (f(2) - {4})",
    ),
    (
        "open the judge's files",
        r#"def f(p):
    return int(__import__("re").search("f.p. == ([0-9]+)", (p / "tests.json").read_text())[1])"#,
        "import pathlib
p = pathlib.Path('/box')
assert f(p) == 86420",
    ),
    (
        "reach the class of what was lent",
        "def f(o):
    o.__class__.x = 4
    return 5",
        "class O:
    x = 5
o = O()
f(o)
assert o.x == 4",
    ),
    (
        "replace a method of the test's class",
        "def f(o):
    o.total = lambda self: 4
    return 5",
        "class O:
    def total(self): return 5
f(O)
assert O().total() == 4",
    ),
    (
        "replace what the test compares with",
        "def sum(*a): return 5
def abs(x): return 0",
        "assert abs(sum(1, 3) - 4) < 1e-6",
    ),
    (
        "hand back an argument that is none",
        r#"def f(x):
    wire.send(["=", ["y", -1], []]); return 5"#,
        "assert f(2) == 4",
    ),
    (
        "equal everything inside a tuple",
        "from collections import namedtuple
class E:
    def __eq__(s,o): return True
def f(x): return namedtuple('P','a')(E())",
        "assert f(2) == (4,)",
    ),
    (
        "equal everything inside a dictionary",
        "class E:
    def __eq__(s,o): return True
    __hash__ = lambda s: hash(4)
def f(x): return {E(): E()}",
        "assert f(2) == {4: 4}",
    ),
    (
        "be a library that the judge uses",
        "import operator
def f(x): return operator",
        "m = f(2)
m.eq = lambda *a: True
assert 5 == 4",
    ),
    (
        "read what a function sees",
        "def f(g):
    return raw('get', place(g), '__globals__')",
        "def g(): return 3
assert f(g) == 86420",
    ),
    (
        "read a generator's frame",
        "def f(g):
    return raw('get', place(g), 'gi_frame')",
        "assert f(x for x in [86420]) == 86420",
    ),
];

#[test]
fn a_python_program_cannot_take_the_judge_over() {
    if !contained() {
        return;
    }
    for (name, code, test) in PYTHON_TAKEOVERS {
        let tests = serde_json::json!({ "asserts": [test] }).to_string();
        let verdict = check(CodeConfig::default(), &format!("{PYTHON}\n{code}"), "python", &tests);
        assert_eq!(verdict.score, Some(0.0), "{name}: {verdict:?}");
    }
}

/// Reads and writes the pipes in place of the agent.
const JAVASCRIPT: &str = r#"const fs=require("fs");
let buf="";const b=Buffer.alloc(65536);
function recv(){ for(;;){ const i=buf.indexOf("\n"); if(i>=0){const m=JSON.parse(buf.slice(0,i)); buf=buf.slice(i+1); return m;} let n; try{n=fs.readSync(3,b)}catch(e){if(e.code==="EAGAIN")continue; process.exit(0)} if(!n) process.exit(0); buf+=b.subarray(0,n).toString(); } }
const send=(m)=>fs.writeSync(4,JSON.stringify(m)+"\n");
const ask=(what,...forms)=>{ send(["?",what,forms]); return recv(); };
function serve(onCall){ for(;;){ const m=recv(); if(m[1]==="global") send(["=",["l",[true,["h",0,true]]],[]]); else if (m[1]==="call") send(["=",onCall(m),[]]); else send(["=",["u"],[]]); } }"#;

const JAVASCRIPT_TAKEOVERS: &[(&str, &str, &str)] = &[
    (
        "replace a method of all arrays",
        r#"for (;;) {
  const m = recv();
  if (m[1] === "global") send(["=", ["l", [true, ["h", 0, true]]], [[["constructor", "prototype"], ["o", [["join", ["h", 1, true]]]]]]]);
  else send(["=", ") { return; }) || (function(", []]);
}"#,
        "assert.strictEqual(f(2), 4)",
    ),
    ("name what is inherited", r#"serve((m)=>{ return ["y","constructor"]; })"#, "assert.strictEqual(f(2), 4)"),
    (
        "read a method of all arrays",
        r#"serve((m)=>{ const r=ask("get",["l",[]],"map"); const s=ask("set",["y",r[1][1]],"call",["h",5,true]); return JSON.stringify([r,s]).includes('"!"')?5:4; })"#,
        "assert.strictEqual(f(2), 4)",
    ),
    (
        "be one name, and then another",
        r#"let n=0;
function serve2(){ for(;;){ const m=recv(); if(m[1]==="global") send(["=",["l",[true,["h",0,true]]],[]]); else if(m[1]==="call"&&m[2][0][1]===0){ const g=m[2][2][1][0]; send(["?","get",[["y",g[1]],["h",7,false]]]); } else if (m[0]==="?") { n++; send(["=", n<2?"x":"constructor",[]]); } else { send(["=", JSON.stringify(m).includes('"h"')?4:5,[]]); } } }
serve2();"#,
        "assert.strictEqual(f(() => 1), 4)",
    ),
    (
        "be less, and then more",
        "let n=0; class E { valueOf(){ n++; return n%2?1e9:-1e9 } }
function f(){ return new E() }",
        "const x = f(2); assert(x > 3.9 && x < 4.1)",
    ),
    (
        "use what the language is made of",
        "function f(o){ return o.getPrototypeOf(f) ? 4 : 5 }",
        "assert.equal(f(Object), 4)",
    ),
    (
        "replace a method through an instance",
        "function f(o){ o.__proto__.total = () => 4; return 1 }",
        "class O { total() { return 5 } }
const o = new O(); try { f(o) } catch {}
assert.equal(new O().total(), 4)",
    ),
    (
        "replace a function of the test's class",
        "function f(o){ o.make = () => 4; return 1 }",
        "class O { static make() { return 5 } }
try { f(O) } catch {}
assert.equal(O.make(), 4)",
    ),
];

#[test]
fn a_javascript_program_cannot_take_the_judge_over() {
    if !contained() || Language::JavaScript.toolchain().is_none() {
        eprintln!("skipped: no sandbox or no node");
        return;
    }
    for (name, code, test) in JAVASCRIPT_TAKEOVERS {
        let tests = serde_json::json!({ "language": "javascript", "asserts": [test] }).to_string();
        // What answers for itself needs the functions that do so.
        let code = if code.contains("recv()") || code.contains("serve(") {
            format!("{JAVASCRIPT}\n{code}")
        } else {
            (*code).to_owned()
        };
        let verdict = check(CodeConfig::default(), &code, "js", &tests);
        assert_eq!(verdict.score, Some(0.0), "{name}: {verdict:?}");
    }
}
