//! Rewards that a server of the user's gives: a rule of kind `http`, wherever rules judge.

mod server;

use std::io::{BufRead, BufReader, Lines};
use std::path::Path;
use std::process::{Child, ChildStderr, Command, Stdio};
use std::sync::atomic::Ordering::SeqCst;
use std::time::{Duration, Instant};

use gristmill::schema::{Outcome, VerdictRow};
use gristmill::store::{Dataset, Location};
use serde_json::{Value, json};

use crate::support::kills::Killer;
use crate::support::{
    RECIPE, TINY_MODEL, command, digests, files, gristmill, guide_blocks, leftovers, manifest, write_recordings,
};
use server::{RewardServer, ends_with_gold};

const RUN: [&str; 6] = ["run", "recipe.toml", "--out", "out", "--threads", "4"];

/// Recordings of 60 questions, four completions each, in shards of 48, judged by these rules.
fn recordings(folder: &Path, rules: &str) {
    write_recordings(folder, 60);
    let recipe = RECIPE.split("[stages.group]").next().unwrap().replace("shard_rows = 512", "shard_rows = 48");
    std::fs::write(folder.join("recipe.toml"), recipe).unwrap();
    std::fs::write(folder.join("rules.toml"), rules).unwrap();
}

fn verdicts(folder: &Path) -> Vec<VerdictRow> {
    let dataset = Dataset::open(&Location::from(folder.join("out/3_verify").as_path())).unwrap();
    dataset.rows_of::<VerdictRow>().collect::<Result<_, _>>().unwrap()
}

/// How many verdicts are correct, wrong and neither.
fn outcomes(folder: &Path) -> [u64; 3] {
    let counts = manifest(&folder.join("out/3_verify"))["counts"].clone();
    ["correct", "wrong", "cannot_tell"].map(|word| counts[word].as_u64().unwrap_or(0))
}

#[test]
fn a_run_asks_for_many_rows_at_once_and_each_gets_its_own_reward() {
    let folder = tempfile::tempdir().unwrap();
    let server = RewardServer::start(Duration::from_millis(5), ends_with_gold);
    recordings(folder.path(), &server.rules("batch = 32"));
    gristmill(folder.path(), RUN).succeeded();
    let rows = verdicts(folder.path());
    assert_eq!(rows.len(), 240);
    for row in &rows {
        // As they are recorded: two right answers, a wrong one, and one that was cut.
        let right = row.sample_index < 2;
        assert_eq!(row.outcome, if right { Outcome::Correct } else { Outcome::Wrong }, "{row:?}");
        assert!(right == (row.reward == Some(1.0)) && row.reward.is_some_and(|reward| reward < 1.0 || right));
    }
    let seen = &server.seen;
    assert_eq!((seen.rows.load(SeqCst), seen.most.load(SeqCst)), (240, 32));
    let last = seen.last.lock().unwrap()["rows"][0].clone();
    assert_eq!((&last["domain"], &last["messages"][0]["role"]), (&json!("math"), &json!("user")), "{last}");
    assert_eq!(last["prompt_id"].as_str().map(str::len), Some(32));
    let again = gristmill(folder.path(), RUN).succeeded();
    assert!(again.state_of("verify").starts_with("cached"), "{}", again.story());
    assert_eq!(seen.rows.load(SeqCst), 240);
}

#[test]
fn killed_while_it_asks_a_run_ends_with_the_same_bytes_and_asks_little_twice() {
    let server = RewardServer::start(Duration::from_millis(40), ends_with_gold);
    let rules = server.rules("batch = 8\nparallel = 2\ncache = \"kept\"");
    let fresh = || {
        let folder = tempfile::tempdir().unwrap();
        recordings(folder.path(), &rules);
        folder
    };
    let whole = fresh();
    let start = Instant::now();
    gristmill(whole.path(), RUN).succeeded();
    let reference = digests(&whole.path().join("out"));
    let mut killer = Killer::new(&RUN, start.elapsed(), 5);
    for _ in 0..4 {
        let folder = killer.begin(fresh);
        let kept = folder.path().join("kept");
        let kept = if kept.exists() { files(&kept).len() as u64 } else { 0 };
        let before = server.seen.rows.load(SeqCst);
        gristmill(folder.path(), RUN).succeeded();
        let out = folder.path().join("out");
        assert_eq!((digests(&out), leftovers(&out)), (reference.clone(), vec![]));
        // What was in flight when it was killed may have been counted late.
        let asked = server.seen.rows.load(SeqCst) - before;
        assert!(asked <= 240 - kept + 16, "{asked} rows asked, {kept} were there");
    }
}

#[test]
fn a_server_that_is_not_there_stops_the_run_and_one_that_comes_lets_it_go_on() {
    let folder = tempfile::tempdir().unwrap();
    let server = RewardServer::start(Duration::ZERO, ends_with_gold);
    let (address, rules) = (server.address, server.rules("retries = 1"));
    drop(server);
    recordings(folder.path(), &rules);
    let stopped = gristmill(folder.path(), RUN);
    assert_eq!(stopped.code, Some(1), "{}", stopped.story());
    for said in ["rule `mine` could judge none of", "refused", "is the server of `endpoint` running?", "run again"] {
        assert!(stopped.stderr.contains(said), "{said}: {}", stopped.story());
    }
    assert!(!folder.path().join("out/3_verify/_manifest.json").exists());
    let _server = RewardServer::start_at(address, Duration::ZERO, ends_with_gold);
    gristmill(folder.path(), RUN).succeeded();
    assert_eq!(outcomes(folder.path()), [120, 120, 0]);
}

#[test]
fn null_is_no_reward_and_the_other_rows_have_theirs() {
    let folder = tempfile::tempdir().unwrap();
    let server = RewardServer::start(Duration::ZERO, |row| match row["finish_reason"].as_str() {
        Some("length") => Value::Null,
        _ => ends_with_gold(row),
    });
    recordings(folder.path(), &server.rules(""));
    gristmill(folder.path(), RUN).succeeded();
    assert_eq!(outcomes(folder.path()), [120, 60, 60]);
    let untold = verdicts(folder.path()).into_iter().filter(|row| row.sample_index == 3);
    assert!(untold.into_iter().all(|row| row.reward.is_none() && row.reason == "server_cannot_tell"));
}

#[test]
fn sampling_training_and_evaluation_are_judged_by_a_server() {
    let folder = tempfile::tempdir().unwrap();
    let server = RewardServer::start(Duration::ZERO, |row| json!(row["tokens"].as_f64().unwrap() % 2.0));
    std::fs::write(folder.path().join("rules.toml"), server.rules("batch = 16\ncolumns = [\"level\"]")).unwrap();
    let sampled = r#"
[stages.prompts]
procedural = [{ count = 16, mix = [{ name = "mini_mix" }], levels = [1], part = "train" }]

[stages.generate]
samples = 2
sampling = { max_tokens = 8 }
engine = { kind = "local", model = "base" }
until = { rules = "rules.toml", samples = 6, correct = 1 }
"#;
    let trained = r#"
[stages.rl]
kind = "grpo"
model = "base"
prompts = "prompts"
rules = "rules.toml"
group_size = 4
sampling = { max_tokens = 8 }
training = { steps = 2, prompts_per_rollout = 4, schedule = { learning_rate = 1e-4 } }

[stages.eval]
models = ["base", "rl"]
rules = "rules.toml"
samples = 2
sampling = { max_tokens = 8 }
"#;
    let rows = || server.seen.rows.load(SeqCst);
    let recipe = |more: &str| std::fs::write(folder.path().join("recipe.toml"), format!("{TINY_MODEL}{more}")).unwrap();
    recipe(sampled);
    gristmill(folder.path(), ["run", "recipe.toml", "--out", "out"]).succeeded();
    let asked = rows();
    assert!(asked >= 32, "`until` asks for rewards: {asked}");
    recipe(&[sampled, trained].concat());
    gristmill(folder.path(), ["run", "recipe.toml", "--out", "out"]).succeeded();
    assert!(rows() > asked + 32, "grpo and eval do: {}", rows());
    let last = server.seen.last.lock().unwrap()["rows"][0].clone();
    assert!(last.as_object().unwrap().contains_key("level"), "{last}");
    let figures = manifest(&folder.path().join("out/6_eval"))["facts"]["figures"].to_string();
    assert!(figures.contains("rl.pass_at_1"), "{figures}");
}

/// A started program and the first line that it says with some word in it; it ends with the test. What it says later
/// has somewhere to go.
struct Started(Child, String, #[expect(dead_code, reason = "held")] Lines<BufReader<ChildStderr>>);

impl Started {
    fn start(mut command: Command, says: &str) -> Self {
        let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let line = lines.by_ref().map_while(Result::ok).find(|line| line.contains(says));
        Started(child, line.unwrap_or_else(|| panic!("it never says {says}")), lines)
    }
}

impl Drop for Started {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

const ROWS: &str = r#"{"prompt": "2 + 2?", "completion": "<think>so</think>\\boxed{4}", "gold": "4"}
{"prompt": "2 + 2?", "completion": "<think>so</think>\\boxed{5}", "gold": "4"}
{"prompt": "2 + 2?", "completion": "<think>so</think>\\boxed{4}"}
"#;

/// The rewards that `score` gives [`ROWS`] by `rules.toml`.
fn scored(folder: &Path) -> Vec<Value> {
    std::fs::write(folder.join("rows.jsonl"), ROWS).unwrap();
    let scored = gristmill(folder, ["score", "--rules", "rules.toml", "rows.jsonl"]).succeeded();
    let reward = |line: &str| serde_json::from_str::<Value>(line).unwrap()["reward"].clone();
    scored.stdout.lines().map(reward).collect()
}

#[test]
fn one_gristmill_asks_another() {
    let folder = tempfile::tempdir().unwrap();
    let mut served = command(folder.path());
    served.args(["serve-rewards", "--rules", "r1", "--listen", "127.0.0.1:0"]);
    let served = Started::start(served, "http://");
    let endpoint = served.1.split(" at ").nth(1).unwrap();
    let examples = r#"
[[examples]]
completion = "<think>so</think>\\boxed{4}"
gold = "4"
expect = "accept"

[[examples]]
completion = "<think>so</think>\\boxed{5}"
gold = "4"
reason = "server_wrong"
"#;
    let rules = format!("[rules.mine]\nkind = \"http\"\nendpoint = \"{endpoint}\"\nretries = 0\n{examples}");
    std::fs::write(folder.path().join("rules.toml"), rules).unwrap();
    let rewards = scored(folder.path());
    assert!(rewards[0].as_f64().is_some_and(|reward| reward >= 0.9), "{rewards:?}");
    assert_eq!(rewards[1..], [json!(0.0), Value::Null]);
    gristmill(folder.path(), ["rules", "test", "rules.toml"]).succeeded();
    drop(served);
    let failed = gristmill(folder.path(), ["rules", "test", "rules.toml"]);
    assert!(failed.code == Some(1) && failed.stdout.contains("server_unavailable"), "{}", failed.story());
    let warned = gristmill(folder.path(), ["score", "--rules", "rules.toml", "rows.jsonl"]).succeeded();
    let warning = "rule `mine` could tell on none of 3 rows: server_unavailable; no server answers at its `endpoint`";
    assert!(warned.stderr.contains(warning), "{}", warned.story());
}

#[test]
fn the_readmes_python_server_serves_a_reward_function() {
    if Command::new("python3").arg("--version").output().is_err() {
        eprintln!("skipped: no python3");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let mine = "def reward(";
    let server = guide_blocks("python").into_iter().find(|block| block.contains(mine)).expect("the server");
    let toml = guide_blocks("toml").into_iter().find(|block| block.contains("kind = \"http\"")).expect("its rule");
    // Any free port, and a line that says which.
    let any = server.replace("9000)", "0)").replace(
        ", Score).serve_forever()",
        ", Score) as server:\n    import sys\n    print(server.server_port, 'is the port', file=sys.stderr, flush=True)\n    server.serve_forever()",
    );
    let any = any.replace("\nThreadingHTTPServer", "\nwith ThreadingHTTPServer");
    std::fs::write(folder.path().join("server.py"), any).unwrap();
    let mut python = Command::new("python3");
    python.arg(folder.path().join("server.py"));
    let started = Started::start(python, "is the port");
    let port = started.1.split(' ').next().unwrap();
    std::fs::write(folder.path().join("rules.toml"), toml.replace("9000", port)).unwrap();
    assert_eq!(scored(folder.path()), [json!(1.0), json!(0.0), Value::Null]);
}
