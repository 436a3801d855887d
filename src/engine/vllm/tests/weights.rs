//! Servers that load weights while they run.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::super::openai_server::{Ask, Behaviour, Fault, OpenAiServer, Weights};
use super::super::{PolicyWeights, Probe, VllmEngine};
use super::{SAMPLES, collect, config, requests};

/// A folder that passes for a checkpoint: the scripted server reads no weights.
fn checkpoint() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("model.safetensors"), "").unwrap();
    dir
}

#[test]
fn new_weights_go_to_every_server_and_to_one_that_comes_back() {
    let dev = || Behaviour { dev_mode: true, ..Behaviour::default() };
    let (one, mut two) = (OpenAiServer::start(dev()), OpenAiServer::start(dev()));
    let engine = VllmEngine::connect(config(&[&one, &two]), None).unwrap();
    let dir = checkpoint();
    engine.reload_weights(dir.path()).unwrap();
    let calls = |server: &OpenAiServer| -> Vec<String> {
        server.seen.control.lock().unwrap().iter().map(|(path, _)| path.clone()).collect()
    };
    let order = ["/pause?mode=wait", "/collective_rpc", "/reset_prefix_cache", "/resume"];
    assert_eq!((calls(&one), calls(&two)), (order.map(String::from).to_vec(), order.map(String::from).to_vec()));
    let body: Value = serde_json::from_str(&one.seen.control.lock().unwrap()[1].1).unwrap();
    assert_eq!(body, json!({"method": "reload_weights", "kwargs": {"weights_path": dir.path()}}));

    two.kill();
    engine.reload_weights(dir.path()).unwrap();
    assert_eq!(engine.snapshot().endpoints[1].state, "down");
    let back = OpenAiServer::start_at(dev(), two.address);
    let since = Instant::now();
    while engine.snapshot().endpoints[1].state == "down" {
        assert!(since.elapsed() < Duration::from_secs(20), "it was not taken back");
        std::thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(calls(&back), order, "a server that comes back loads the weights before it is used");

    let adapter = PolicyWeights::Lora { name: "policy".to_owned(), path: dir.path().to_owned() };
    engine.load_policy(&adapter, None).unwrap();
    let (path, body) = one.seen.control.lock().unwrap().last().unwrap().clone();
    assert_eq!(path, "/v1/load_lora_adapter");
    assert_eq!(serde_json::from_str::<Value>(&body).unwrap()["load_inplace"], true);
}

/// A model that is its reading of every token: `BASE` when the server starts, `POLICY` once weights were loaded.
struct Reading {
    of_token: Mutex<f32>,
    /// The server is about to have its first weights again: what would ask it which it has waits for that.
    restarts: AtomicBool,
}

const BASE: f32 = -1.0;
/// So near that the tolerance of a load lets either pass.
const POLICY: f32 = -1.05;

impl Reading {
    fn settle(&self) {
        while self.restarts.load(SeqCst) {
            std::thread::yield_now();
        }
    }
}

impl Weights for Reading {
    fn load(&self, _folder: &str) -> Result<(), String> {
        self.settle();
        *self.of_token.lock().unwrap() = POLICY;
        Ok(())
    }

    fn complete(&self, _body: &Value, _seed: u64) -> (String, Vec<u32>, Vec<f32>, &'static str) {
        let reading = *self.of_token.lock().unwrap();
        (reading.to_string(), vec![1], vec![reading], "stop")
    }

    fn score(&self, tokens: &[u32]) -> Vec<f32> {
        self.settle();
        vec![*self.of_token.lock().unwrap(); tokens.len() - 1]
    }
}

/// Requests of which the fifth meets a connection that breaks, while others are under way; `restarts` says whether the server
/// has its first weights again from then on. What was answered, and how often the server loaded weights.
fn broken_once(restarts: bool, probed: bool) -> (Vec<String>, usize) {
    let reading = Arc::new(Reading { of_token: Mutex::new(BASE), restarts: AtomicBool::new(false) });
    let (asked, behind) = (AtomicU32::new(0), Arc::clone(&reading));
    let script = move |ask: &Ask<'_>| match ask.body["prompt_logprobs"].is_null() && asked.fetch_add(1, SeqCst) == 4 {
        true => {
            behind.restarts.store(restarts, SeqCst);
            Fault::Reset
        }
        false => Fault::None,
    };
    let server = OpenAiServer::start(Behaviour {
        dev_mode: true,
        weights: Some(Arc::clone(&reading) as Arc<dyn Weights>),
        script: Box::new(script),
        latency: Duration::from_millis(20),
        ..Behaviour::default()
    });
    let engine = VllmEngine::connect(config(&[&server]), None).unwrap();
    let probe = Probe { tokens: vec![1, 2, 3], logprobs: vec![POLICY; 2], tolerance: 0.1 };
    let dir = checkpoint();
    let policy = PolicyWeights::Checkpoint(dir.path().to_owned());
    engine.load_policy(&policy, probed.then_some(probe)).unwrap();
    let (rows, outcome) = std::thread::scope(|scope| {
        scope.spawn(|| {
            // The client learns of it before anything of the new weights can reach it, as where a server dies.
            let since = Instant::now();
            while engine.snapshot().endpoints[0].last_fault.is_none() {
                assert!(since.elapsed() < Duration::from_secs(60), "no connection broke");
                std::thread::yield_now();
            }
            if restarts {
                *reading.of_token.lock().unwrap() = BASE;
                reading.restarts.store(false, SeqCst);
            }
        });
        collect(&engine, requests(40))
    });
    outcome.unwrap();
    assert_eq!(rows.len(), 40 * SAMPLES as usize);
    let loads = server.seen.control.lock().unwrap().iter().filter(|(path, _)| path == "/collective_rpc").count();
    (rows.into_values().map(|row| row.text.expect("it was answered")).collect(), loads)
}

#[test]
fn a_server_that_restarts_between_two_requests_is_asked_for_nothing_before_it_has_the_policy_again() {
    for (restarts, probed, loads) in [(true, true, 2), (true, false, 2), (false, true, 1)] {
        let (answers, loaded) = broken_once(restarts, probed);
        let others = answers.iter().filter(|answer| **answer != POLICY.to_string()).count();
        assert_eq!((others, loaded), (0, loads), "restarts: {restarts}, probed: {probed}");
    }
}

#[test]
fn a_server_outside_development_mode_names_the_two_ways() {
    let server = OpenAiServer::start(Behaviour::default());
    let engine = VllmEngine::connect(config(&[&server]), None).unwrap();
    let dir = checkpoint();
    let text = engine.reload_weights(dir.path()).unwrap_err().render(false);
    assert!(text.contains("VLLM_SERVER_DEV_MODE=1") && text.contains("VLLM_ALLOW_RUNTIME_LORA_UPDATING"), "{text}");
    assert!(engine.reload_weights(&dir.path().join("none")).unwrap_err().to_string().contains("no such folder"));
    std::fs::remove_file(dir.path().join("model.safetensors")).unwrap();
    assert!(engine.reload_weights(dir.path()).unwrap_err().to_string().contains("no safetensors"));
}
