//! Who serves, and whether it may: keys, models, makes.

use std::sync::Mutex;
use std::time::{Duration, Instant};

use super::super::openai_server::{Behaviour, Fault, OpenAiServer};
use super::super::{TokenIds, VllmConfig, VllmEngine};
use super::{assert_right, collect, config, refusal, requests, run};
use crate::engine::Engine;

#[test]
fn a_wrong_key_is_said_once_and_never_shown() {
    let server = OpenAiServer::start(Behaviour { key: Some("right".into()), ..Behaviour::default() });
    let key = std::env::var("PATH").unwrap();
    let error = refusal(VllmConfig { api_key_env: Some("PATH".into()), ..config(&[&server]) });
    assert!(error.to_string().contains("refused the API key of $PATH"), "{error}");
    assert!(!error.render(false).contains(&key), "the key is shown");
    let error = refusal(config(&[&server]));
    assert!(error.to_string().contains("wants an API key"), "{error}");
    let error = refusal(VllmConfig { api_key_env: Some("GRISTMILL_NO_SUCH_KEY".into()), ..config(&[&server]) });
    assert!(error.to_string().contains("$GRISTMILL_NO_SUCH_KEY is not set"), "{error}");

    let server = OpenAiServer::start(Behaviour { key: Some(key.trim().into()), ..Behaviour::default() });
    let (rows, _engine) = run(VllmConfig { api_key_env: Some("PATH".into()), ..config(&[&server]) }, 2);
    assert_right(&rows, 8);
}

#[test]
fn endpoints_with_different_models_stop_the_run() {
    let one = OpenAiServer::start(Behaviour::default());
    let root = OpenAiServer::start(Behaviour { root: "/models/other".into(), ..Behaviour::default() });
    let tokenizer = OpenAiServer::start(Behaviour { tokenizer_shift: 1, ..Behaviour::default() });
    let name = OpenAiServer::start(Behaviour { model: "huge".into(), ..Behaviour::default() });
    for (other, what) in [(&root, "roots"), (&tokenizer, "tokenizers"), (&name, "models")] {
        let error = refusal(config(&[&one, other]));
        assert!(error.to_string().contains("serve different models") && error.to_string().contains(what), "{error}");
    }
    let error = refusal(VllmConfig { model: "huge".into(), ..config(&[&one]) });
    assert!(error.render(false).contains("it serves `tiny`"), "{error:?}");
    let (rows, _engine) = run(VllmConfig { allow_different_roots: true, ..config(&[&one, &root]) }, 5);
    assert_right(&rows, 8);
}

#[test]
fn a_server_of_another_make_is_asked_for_nothing_it_does_not_know() {
    let server = OpenAiServer::start(Behaviour { foreign: true, ..Behaviour::default() });
    let plain = || VllmConfig { token_ids: TokenIds::Auto, logprobs: false, ..config(&[&server]) };
    let error = refusal(plain());
    assert!(error.render(false).contains("model = "), "{error:?}");
    let (rows, _engine) = run(VllmConfig { model: "tiny".into(), ..plain() }, 3);
    assert!(rows.values().all(|row| row.text.is_some() && row.token_ids.is_none()), "{rows:?}");
    let engine = VllmEngine::connect(VllmConfig { model: "huge".into(), ..plain() }, None).unwrap();
    let (_, outcome) = collect(&engine, requests(3));
    assert!(outcome.unwrap_err().to_string().contains("does not exist"));
}

#[test]
fn a_model_that_is_named_needs_no_list_of_models() {
    let without = |no_list| OpenAiServer::start(Behaviour { no_list: Some(no_list), ..Behaviour::default() });
    let server = without((404, "{\"detail\": \"Not Found\"}"));
    assert!(refusal(config(&[&server])).to_string().contains("404"));
    let (rows, _engine) = run(VllmConfig { model: "tiny".into(), ..config(&[&server]) }, 3);
    assert_right(&rows, 8);
    // A page for people: nothing to wait for.
    let start = Instant::now();
    let error = refusal(VllmConfig { model: "tiny".into(), ..config(&[&without((200, "<html>hello</html>"))]) });
    assert!(error.render(false).contains("root of an OpenAI-compatible server"), "{error:?}");
    assert!(start.elapsed() < Duration::from_secs(30), "no waiting for a server that starts");
}

#[test]
fn a_server_that_comes_back_with_another_model_stops_the_run() {
    let mut server = OpenAiServer::start(Behaviour::default());
    let engine = VllmEngine::connect(config(&[&server]), None).unwrap();
    server.kill();
    let other = Behaviour { root: "/models/other".into(), ..Behaviour::default() };
    let killed = server.address;
    let restart = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(700));
        OpenAiServer::start_at(other, killed)
    });
    let (_, outcome) = collect(&engine, requests(50));
    let error = outcome.unwrap_err();
    assert!(error.to_string().contains("changed under the run"), "{error}");
    drop(restart.join().unwrap());
}

#[test]
fn a_server_that_is_swapped_between_two_requests_stops_the_run() {
    let slow = |root: &str| Behaviour { latency: Duration::from_millis(25), root: root.into(), ..Behaviour::default() };
    let first = Mutex::new(OpenAiServer::start(slow("/models/tiny")));
    let address = first.lock().unwrap().address;
    let config = VllmConfig { max_concurrency: 2, ..config(&[&first.lock().unwrap()]) };
    let engine = VllmEngine::connect(config, None).unwrap();
    let (mut rows, mut second) = (0, None);
    let outcome = engine.generate(&mut requests(1000), &mut |_| {
        rows += 1;
        if rows == 20 {
            first.lock().unwrap().kill();
            while std::net::TcpStream::connect(address).is_ok() {
                std::thread::sleep(Duration::from_millis(1));
            }
            // Back before the circuit opens: nothing but a broken connection tells.
            second = Some(OpenAiServer::start_at(slow("/models/other"), address));
        }
        Ok(())
    });
    let error = outcome.unwrap_err();
    assert!(error.to_string().contains("changed under the run: roots"), "{error}");
    assert!(rows < 1000, "{rows} rows passed for the first model's");
}

#[test]
fn a_secure_address_of_a_plain_server_is_explained() {
    let server = OpenAiServer::start(Behaviour::default());
    let secure = server.url().replace("http://", "https://");
    let error = refusal(VllmConfig { endpoints: vec![secure], ..config(&[&server]) });
    assert!(error.to_string().contains("no secure connection"), "{error}");
}

#[test]
fn settings_that_no_server_takes_stop_the_run() {
    let server = OpenAiServer::start(Behaviour { script: Box::new(|_| Fault::Status(400)), ..Behaviour::default() });
    let engine = VllmEngine::connect(config(&[&server]), None).unwrap();
    let (rows, outcome) = collect(&engine, requests(500));
    assert!(outcome.unwrap_err().to_string().contains("refused the first"), "{}", rows.len());
    let server = OpenAiServer::start(Behaviour { script: Box::new(|_| Fault::NoTokenIds), ..Behaviour::default() });
    let engine = VllmEngine::connect(VllmConfig { max_attempts: 2, ..config(&[&server]) }, None).unwrap();
    let (_, outcome) = collect(&engine, requests(5));
    assert!(outcome.unwrap_err().render(false).contains("token_ids = \"auto\""));
}
