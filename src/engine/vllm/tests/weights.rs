//! Servers that load weights while they run.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::super::openai_server::{Behaviour, OpenAiServer};
use super::super::{PolicyWeights, VllmEngine};
use super::config;

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
