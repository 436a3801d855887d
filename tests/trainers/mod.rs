//! The reward functions that the rule guide gives to other trainers, run as they stand there.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, Stdio};

use crate::support::{command, guide_blocks};

/// What stands in for the packages that a trainer's environment has; the server is real.
const PACKAGES: &str = r#"
import json as _json, sys, types, urllib.request

class Session:
    def mount(self, *_):
        pass
    def post(self, url, json, timeout):
        body = _json.dumps(json).encode()
        request = urllib.request.Request(url, body, {"content-type": "application/json"})
        text = urllib.request.urlopen(request, timeout=timeout).read()
        return types.SimpleNamespace(raise_for_status=lambda: None, json=lambda: _json.loads(text))

def module(name, **members):
    made = types.ModuleType(name)
    made.__dict__.update(members)
    sys.modules[name] = made

module("requests", Session=Session, adapters=types.SimpleNamespace(HTTPAdapter=lambda **_: None))
module("urllib3")
module("urllib3.util", Retry=lambda *_, **__: None)
words = lambda text: types.SimpleNamespace(input_ids=text.split())
module("transformers", AutoTokenizer=types.SimpleNamespace(from_pretrained=lambda _: words))
"#;

/// A trainer's calls: a short right answer, and a right one that is far too long.
const CALLS: &str = r#"
short, long = ("<think>" + "16 - 7 = 9 " * n + "</think>\\boxed{9}" for n in (1, 20000))
turns = [[{"role": "user", "content": "How many eggs?"}]] * 2
answers = [[{"role": "assistant", "content": text}] for text in (short, long)]
trl = gristmill(turns, answers, [[0] * len(text.split()) for text in (short, long)], gold=["9", "9"], trainer_state=None)
logic = gristmill(["Is it?"], ["<think>It is.</think>Yes."], completion_ids=[[0]], gold=["yes"], domain=["logic"])
verl = [compute_score("eggs", text, "9", {"index": 0, "language": "en"}) for text in (short, long)]
logic.append(compute_score("puzzles", "<think>It is.</think>Yes.", "yes", {"domain": "logic"}))
print(trl, verl, logic)
"#;

/// Ends with the test, whatever it comes to.
struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn the_functions_of_the_guide_punish_what_its_rules_punish() {
    if Command::new("python3").arg("--version").output().is_err() {
        eprintln!("skipped: no python3");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("my_rules.toml"), &guide_blocks("toml")[0]).unwrap();
    let arguments = ["serve-rewards", "--rules", "my_rules.toml", "--listen", "127.0.0.1:0"];
    let server = command(folder.path()).args(arguments).stderr(Stdio::piped()).spawn().unwrap();
    let mut server = Server(server);
    let mut told = BufReader::new(server.0.stderr.take().unwrap());
    let mut line = String::new();
    told.read_line(&mut line).unwrap();
    let address = line.split("http://").nth(1).and_then(|rest| rest.split('/').next()).expect(&line).to_owned();

    let clients: Vec<String> = guide_blocks("python").into_iter().filter(|b| b.contains("session")).collect();
    let functions = format!("{}{CALLS}", clients.concat()).replace("127.0.0.1:8090", &address);
    let mut python = Command::new("python3").arg("-").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    python.stdin.take().unwrap().write_all(format!("{PACKAGES}{functions}").as_bytes()).unwrap();
    let output = python.wait_with_output().unwrap();
    let rewards = String::from_utf8(output.stdout).unwrap();
    assert_eq!(rewards.trim(), "[1.0, 0.0] [1.0, 0.0] [1.0, 1.0]");
}

#[test]
fn a_rule_that_can_tell_on_no_row_is_told_of() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("my_rules.toml"), &guide_blocks("toml")[0]).unwrap();
    std::fs::write(
        folder.path().join("rows.jsonl"),
        "{\"completion\": \"<think>x</think>9\", \"gold\": \"9\"}\n".repeat(3),
    )
    .unwrap();
    let scored =
        crate::support::gristmill(folder.path(), ["score", "--rules", "my_rules.toml", "rows.jsonl"]).succeeded();
    let warning = "warning: rule `overlong` could tell on none of 3 rows: tokens_unknown; rows have no `tokens`";
    assert!(scored.stderr.contains(warning), "{}", scored.story());
}
