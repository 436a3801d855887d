//! A policy in training at servers: they load its weights, sample for it, fail, come back, are found out.
//!
//! The servers are the tests' own, with a model behind them that loads what the trainer writes and
//! samples from it: what vLLM does, without its minutes. `tests/vllm` tells the same with the real one.

#[cfg(unix)]
mod stop;

use std::path::Path;
use std::process::Stdio;
use std::sync::atomic::Ordering::SeqCst;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use gristmill::model::{Batch, Model, Tokenizer};
use gristmill::schema::GroupRow;
use gristmill::seed::Rng;
use gristmill::store::{Dataset, Location};
use serde_json::Value;

use crate::support::kills::Killer;
use crate::support::openai_server::{Behaviour, OpenAiServer, Weights};
use crate::support::{column, command, digests, gristmill, leftovers, manifest};

const RUN: [&str; 4] = ["run", "recipe.toml", "--out", "out"];
const STEPS: u64 = 8;
/// Completions of a rollout batch.
const BATCH: usize = 8 * 8;

/// A word that has a digit is worth 1. The embedding is the head, as in every fresh model.
const RECIPE: &str = r#"name = "served"
seed = 4
shard_rows = 64

[stages.prompts]
procedural = [{ count = 48, mix = [{ name = "mini_mix" }], levels = [1], part = "train" }]

[stages.rl]
kind = "grpo"
init = { tokenizer = "mini", hidden = 16, intermediate = 32, layers = 1, heads = 2, kv_heads = 1, context = 96 }
prompts = "prompts"
rules = "rules.toml"
group_size = 8
sampling = { temperature = 1.0, top_p = 1.0, max_tokens = 3 }
engine = { kind = "vllm", endpoints = [ENDPOINTS] }
training = { steps = 8, prompts_per_rollout = 8, minibatches = 1, rollouts_ahead = AHEAD, objective = { kl_coefficient = 0.0, correction = {} }, schedule = { learning_rate = 5e-2, decay = "constant" } }
checkpoints = { every = 2, keep = 1 }
"#;

const RULES: &str = "reward = \"digit\"\n[rules.digit]\nkind = \"regex\"\nregion = \"completion\"\npattern = '\\d'\n";

/// The model behind a server.
struct Served {
    model: Mutex<Option<(Model, Tokenizer)>>,
    /// Goes on with the head it had, whatever it loads.
    keeps_head: bool,
}

impl Weights for Served {
    fn load(&self, folder: &str) -> Result<(), String> {
        let mut new = Model::load(Path::new(folder)).map_err(|e| e.to_string())?;
        let mut model = self.model.lock().unwrap();
        if let (true, Some((old, _))) = (self.keeps_head, &*model) {
            let head = new.parameters().iter().find(|info| info.name == "lm_head.weight").unwrap().clone();
            new.set(&head, &old.get(&head));
            new.publish();
        }
        let tokenizer = gristmill::procedural::mini::tokenizer_json();
        *model = Some((new, Tokenizer::from_json(&tokenizer, serde_json::Map::new()).unwrap()));
        Ok(())
    }

    fn complete(&self, body: &Value, seed: u64) -> (String, Vec<u32>, Vec<f32>, &'static str) {
        let model = self.model.lock().unwrap();
        let (model, tokenizer) = model.as_ref().expect("nobody asks before there are weights");
        let mut tokens: Vec<u32> =
            body["prompt"].as_array().unwrap().iter().map(|id| id.as_u64().unwrap() as u32).collect();
        let prompt = tokens.len();
        let (mut rng, mut logprobs) = (Rng::new(seed), Vec::new());
        let mut reason = "length";
        for _ in 0..body["max_tokens"].as_u64().unwrap() {
            let mut batch = Batch::new();
            batch.push(&[&tokens[..], &[0]].concat(), |i| i == tokens.len());
            let logits = model.logits(&mut model.workspace(), &batch).unwrap();
            let most = logits.iter().copied().fold(f32::MIN, f32::max);
            let sum: f64 = logits.iter().map(|l| f64::from(l - most).exp()).sum();
            let logprob = |l: f32| f64::from(l - most) - sum.ln();
            let mut left = rng.uniform();
            let drawn = logits.iter().position(|&l| {
                left -= logprob(l).exp();
                left < 0.0
            });
            let token = drawn.unwrap_or(logits.len() - 1);
            tokens.push(token as u32);
            logprobs.push(logprob(logits[token]) as f32);
            if model.config().eos_token_ids.contains(&(token as u32)) {
                reason = "stop";
                break;
            }
        }
        let ids = tokens.split_off(prompt);
        (tokenizer.decode(&ids).unwrap(), ids, logprobs, reason)
    }

    fn score(&self, tokens: &[u32]) -> Vec<f32> {
        let model = self.model.lock().unwrap();
        let (model, _) = model.as_ref().expect("nobody asks before there are weights");
        let mut batch = Batch::new();
        batch.push(tokens, |_| true);
        model.forward(&mut model.workspace(), &batch).unwrap().logprobs
    }
}

fn behaviour(keeps_head: bool) -> Behaviour {
    let weights: Arc<dyn Weights> = Arc::new(Served { model: Mutex::new(None), keeps_head });
    // What is asked takes a while, so that kills fall into it.
    let latency = Duration::from_millis(5);
    Behaviour { dev_mode: true, weights: Some(weights), latency, ..Behaviour::default() }
}

fn folder_for(servers: &[&OpenAiServer], ahead: u64) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let endpoints: Vec<String> = servers.iter().map(|server| format!("{:?}", server.url())).collect();
    let recipe = RECIPE.replace("ENDPOINTS", &endpoints.join(", ")).replace("AHEAD", &ahead.to_string());
    std::fs::write(folder.path().join("recipe.toml"), recipe).unwrap();
    std::fs::write(folder.path().join("rules.toml"), RULES).unwrap();
    folder
}

fn rollouts(folder: &Path) -> Vec<GroupRow> {
    let folder = folder.join("out/2_rl/rollouts");
    let dataset = Dataset::open(&Location::parse(folder.to_str().unwrap()).unwrap()).unwrap();
    dataset.rows_of::<GroupRow>().map(Result::unwrap).collect()
}

/// Mean reward of the completions of each rollout batch.
fn rewards(rows: &[GroupRow]) -> Vec<f64> {
    let mean = |batch: &[GroupRow]| batch.iter().map(|r| r.reward.unwrap()).sum::<f64>() / batch.len() as f64;
    rows.chunks(BATCH).map(mean).collect()
}

#[test]
fn rollouts_are_of_the_policy_they_name_and_the_reward_rises() {
    for (ahead, policy_of) in
        [(0, [0, 1, 2, 3, 4, 5, 6, 7]), (1, [0, 0, 1, 2, 3, 4, 5, 6]), (2, [0, 0, 0, 1, 2, 3, 4, 5])]
    {
        let servers = [OpenAiServer::start(behaviour(false)), OpenAiServer::start(behaviour(false))];
        let folder = folder_for(&[&servers[0], &servers[1]], ahead);
        let run = gristmill(folder.path(), RUN).succeeded();
        let rows = rollouts(folder.path());
        assert_eq!(rows.len(), 8 * BATCH, "{}", run.story());
        let steps: Vec<u64> = rows.chunks(BATCH).map(|batch| batch[0].policy_step).collect();
        assert_eq!(steps, policy_of, "{ahead} ahead");
        assert!(rows.chunks(BATCH).all(|batch| batch.iter().all(|row| row.policy_step == batch[0].policy_step)));
        let distinct: std::collections::BTreeSet<_> = rows.iter().map(|row| &row.completion_id).collect();
        assert_eq!(distinct.len(), rows.len(), "no completion is there twice");
        let rewards = rewards(&rows);
        let (first, last) = (rewards[0], (rewards[6] + rewards[7]) / 2.0);
        assert!(last > first + 0.15, "{ahead} ahead: {rewards:?}");
        for server in &servers {
            let loads =
                server.seen.control.lock().unwrap().iter().filter(|(path, _)| path == "/collective_rpc").count();
            assert_eq!(loads as u64, STEPS - ahead, "each policy is loaded once");
        }
        assert!(!folder.path().join("out/2_rl/policy").exists(), "the weights for the servers are gone");
        let metrics = folder.path().join("out/2_rl/metrics.parquet");
        let gap = column(&metrics, "rollout_gap_max").into_iter().flatten().fold(0.0, f64::max);
        match ahead {
            0 => assert!(gap < 1e-4, "the servers have the policy: {gap}"),
            _ => assert!(gap > 1e-2, "the policy has moved on: {gap}"),
        }
        let ages: Vec<Option<f64>> = column(&metrics, "rollout_age");
        assert_eq!(ages[7], (ahead > 0).then_some(ahead as f64));
    }
}

#[test]
fn servers_are_told_the_end_of_turn_that_the_model_they_began_with_does_not_stop_at() {
    let asked = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&asked);
    let script = move |ask: &crate::support::openai_server::Ask<'_>| {
        seen.lock().unwrap().push((ask.body["max_tokens"].clone(), ask.body["stop_token_ids"].clone()));
        crate::support::openai_server::Fault::None
    };
    let server = OpenAiServer::start(Behaviour { script: Box::new(script), ..behaviour(false) });
    let folder = folder_for(&[&server], 0);
    let template = "{% for m in messages %}{{ m.content }}{% if m.role == 'assistant' %} <pad>{% endif %}{% endfor %}";
    std::fs::write(folder.path().join("closed.jinja"), template).unwrap();
    for set in [
        &["--set", "rl.training.steps=1"][..],
        &["--set", "rl.training.steps=1", "--set", "rl.chat_template=closed.jinja"],
    ] {
        asked.lock().unwrap().clear();
        gristmill(folder.path(), [&RUN[..], set, &["--from", "rl"]].concat()).succeeded();
        // `<pad>` is 0; the model and its tokenizer know `<eos>` as the end. Probes of the weights ask for one token.
        let told = if set.len() > 2 { serde_json::json!([0]) } else { Value::Null };
        let asked = asked.lock().unwrap();
        let rollouts: Vec<_> = asked.iter().filter(|(tokens, _)| *tokens == 3).collect();
        assert!(!rollouts.is_empty() && rollouts.iter().all(|(_, stop)| *stop == told), "{asked:?}");
    }
}

#[test]
fn a_run_killed_at_random_points_ends_with_the_same_bytes() {
    for ahead in [0, 1, 2] {
        let server = OpenAiServer::start(behaviour(false));
        let whole = folder_for(&[&server], ahead);
        let since = Instant::now();
        gristmill(whole.path(), RUN).succeeded();
        let mut killer = Killer::new(&RUN, since.elapsed(), 7 + ahead);
        let reference = digests(&whole.path().join("out"));
        let folder = killer.begin(|| folder_for(&[&server], ahead));
        for _ in 0..2 {
            killer.again(folder.path());
        }
        let run = gristmill(folder.path(), RUN).succeeded();
        let out = folder.path().join("out");
        assert_eq!(leftovers(&out), [""; 0], "{}", run.story());
        let made = digests(&out);
        let differing: Vec<_> = reference.iter().filter(|(file, digest)| made.get(*file) != Some(digest)).collect();
        assert!(
            differing.is_empty() && made.len() == reference.len(),
            "{ahead} ahead: {differing:#?}\n{}",
            run.story()
        );
    }
}

#[test]
fn a_server_that_dies_and_comes_back_without_the_weights_changes_no_byte() {
    let (one, mut two) = (OpenAiServer::start(behaviour(false)), OpenAiServer::start(behaviour(false)));
    let whole = folder_for(&[&one, &two], 0);
    gristmill(whole.path(), RUN).succeeded();

    let folder = folder_for(&[&one, &two], 0);
    let before = two.seen.completions.load(SeqCst);
    let child = command(folder.path()).args(RUN).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let since = Instant::now();
    while two.seen.completions.load(SeqCst) < before + 20 {
        assert!(since.elapsed() < Duration::from_secs(60), "the second server is not used");
        std::thread::sleep(Duration::from_millis(1));
    }
    let address = two.address;
    two.kill();
    let since = Instant::now();
    while std::net::TcpListener::bind(address).is_err() {
        assert!(since.elapsed() < Duration::from_secs(20), "the port stays taken");
        std::thread::sleep(Duration::from_millis(5));
    }
    let back = OpenAiServer::start_at(behaviour(false), address);
    let run: crate::support::Finished = child.wait_with_output().unwrap().into();
    let run = run.succeeded();
    assert_eq!(digests(&whole.path().join("out")), digests(&folder.path().join("out")), "{}", run.story());
    let calls = back.seen.control.lock().unwrap().clone();
    if back.seen.completions.load(SeqCst) > 0 {
        assert!(calls.iter().any(|(path, _)| path == "/collective_rpc"), "it was asked before it had the weights");
    }
}

#[test]
fn a_server_that_keeps_an_old_head_is_found_out() {
    let server = OpenAiServer::start(behaviour(true));
    let folder = folder_for(&[&server], 0);
    let run = gristmill(folder.path(), RUN);
    assert_eq!(run.code, Some(1), "{}", run.story());
    for said in ["answers as another", "keeps some old weights", "engine.tolerance"] {
        assert!(run.stderr.contains(said), "{}", run.story());
    }
    // Whoever says so may go on.
    let recipe = std::fs::read_to_string(folder.path().join("recipe.toml")).unwrap();
    let recipe = recipe.replace("kind = \"vllm\",", "kind = \"vllm\", tolerance = inf,");
    std::fs::write(folder.path().join("recipe.toml"), recipe).unwrap();
    gristmill(folder.path(), RUN).succeeded();
    assert_eq!(manifest(&folder.path().join("out/2_rl/rollouts"))["rows"], 8 * BATCH);
}

#[test]
fn settings_and_servers_that_cannot_follow_a_policy_are_told() {
    let server = OpenAiServer::start(Behaviour::default());
    let told = |from: &str, to: &str| {
        let folder = folder_for(&[&server], 0);
        let recipe = std::fs::read_to_string(folder.path().join("recipe.toml")).unwrap();
        assert!(recipe.contains(from), "{from}");
        std::fs::write(folder.path().join("recipe.toml"), recipe.replace(from, to)).unwrap();
        gristmill(folder.path(), RUN).refusal().replace(&server.url(), "SERVER")
    };
    let engine = format!("engine = {{ kind = \"vllm\", endpoints = [{:?}] }}", server.url());
    let stories = [
        // Neither of the two ways.
        told("seed = 4", "seed = 5"),
        told("kind = \"vllm\",", "kind = \"vllm\", send = \"lora\","),
        told("kind = \"vllm\",", "kind = \"vllm\", send = \"adapter\","),
        told("kind = \"vllm\",", "kind = \"vllm\", tolerance = 0.0,"),
        told(
            &format!("{engine}\ntraining = {{ steps = 8, prompts_per_rollout = 8, minibatches = 1, rollouts_ahead = 0"),
            "training = { steps = 8, prompts_per_rollout = 8, minibatches = 1, rollouts_ahead = 1",
        ),
        told(
            "rollouts_ahead = 0, objective = { kl_coefficient = 0.0, correction = {} }",
            "rollouts_ahead = 1, objective = { kl_coefficient = 0.0 }",
        ),
        told("rollouts_ahead = 0", "rollouts_ahead = 9"),
    ];
    assert_told!(stories.join("\n"));
}
