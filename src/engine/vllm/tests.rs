//! The engine against a server with scripted faults.

mod endpoints;

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::sync::atomic::Ordering::SeqCst;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::openai_server::{Behaviour, Fault, OpenAiServer, expected, special};
use super::{
    Api, CancelToken, EncodedPrompt, PolicyWeights, PromptEncoder, Template, TokenIds, VllmConfig, VllmEngine,
};
use crate::engine::{Engine, Generated, Request, Sampling};
use crate::error::{Error, ErrorKind, Result};
use crate::schema::{FinishReason, Message, Role};
use crate::seed::sample_seed;

const SAMPLES: u32 = 4;

fn config(servers: &[&OpenAiServer]) -> VllmConfig {
    VllmConfig {
        endpoints: servers.iter().map(|s| s.url()).collect(),
        api: Api::Completions,
        template: Template::Plain,
        token_ids: TokenIds::Require,
        logprobs: true,
        request_timeout_s: 20.0,
        startup_timeout_s: 5.0,
        threads: 1,
        ..VllmConfig::default()
    }
}

fn question(i: usize) -> String {
    format!("What is {i} + {i}?")
}

fn requests(prompts: usize) -> impl Iterator<Item = Request> + Send {
    let sampling = Arc::new(Sampling { max_tokens: 64, ..Sampling::default() });
    (0..prompts).map(move |i| Request {
        prompt_id: format!("p{i}").into(),
        messages: [Message { role: Role::User, content: question(i) }].into(),
        samples: (0..SAMPLES).map(|k| (k, sample_seed(1, &format!("p{i}"), k, 0))).collect(),
        sampling: sampling.clone(),
        policy_step: 0,
    })
}

type Rows = BTreeMap<(String, u32), Generated>;

/// Runs to the end; panics on a row that comes twice.
fn collect(engine: &VllmEngine, requests: impl Iterator<Item = Request> + Send) -> (Rows, Result<()>) {
    let mut requests = requests;
    let mut rows = Rows::new();
    let outcome = engine.generate(&mut requests, &mut |row| {
        let key = (row.prompt_id.to_string(), row.sample_index);
        assert!(rows.insert(key, row).is_none(), "a row came twice");
        Ok(())
    });
    (rows, outcome)
}

fn run(config: VllmConfig, prompts: usize) -> (Rows, VllmEngine) {
    let engine = VllmEngine::connect(config, None).unwrap();
    let (rows, outcome) = collect(&engine, requests(prompts));
    outcome.unwrap();
    assert_eq!(rows.len(), prompts * SAMPLES as usize, "every sample has its row");
    (rows, engine)
}

/// The row is the completion of this very prompt and seed.
fn assert_right(rows: &Rows, tokens: usize) {
    for ((id, sample), row) in rows {
        let i: usize = id[1..].parse().unwrap();
        let (text, ids, logprobs) = expected(&json!(question(i)), sample_seed(1, id, *sample, 0), tokens);
        assert_eq!(row.text.as_ref(), Some(&text), "{id} {sample}: {:?}", row.error);
        assert_eq!(row.token_ids.as_ref(), Some(&ids));
        assert_eq!(row.logprobs.as_ref(), Some(&logprobs));
        assert_eq!((row.finish_reason, &row.error), (FinishReason::Stop, &None));
        assert_eq!((row.prompt_tokens, row.completion_tokens), (Some(4), Some(tokens as u32)));
    }
}

fn refusal(config: VllmConfig) -> Error {
    match VllmEngine::connect(config, None) {
        Ok(_) => panic!("connected"),
        Err(error) => error,
    }
}

#[test]
fn every_sample_is_answered_with_its_own_seed() {
    for stream in [false, true] {
        let server = OpenAiServer::start(Behaviour::default());
        let (rows, engine) = run(VllmConfig { stream, ..config(&[&server]) }, 100);
        assert_right(&rows, 8);
        assert!(server.seen.by_seed.lock().unwrap().values().all(|&n| n == 1), "nothing was asked twice");
        let snapshot = engine.snapshot();
        assert_eq!((snapshot.completions, snapshot.completion_tokens), (400, 3200));
        assert_eq!((snapshot.in_flight, snapshot.queued, snapshot.retries.len()), (0, 0, 0));
        assert_eq!((engine.info().model.as_str(), engine.info().deterministic), ("tiny", true));
    }
}

#[test]
fn chat_answers_come_whole_with_reasoning_and_ids() {
    for stream in [false, true] {
        let server = OpenAiServer::start(Behaviour { reasoning_key: Some("reasoning"), ..Behaviour::default() });
        let config = VllmConfig { api: Api::Chat, template: Template::Server, stream, ..config(&[&server]) };
        let (rows, _engine) = run(config, 3);
        for ((id, sample), row) in &rows {
            let i: usize = id[1..].parse().unwrap();
            let messages = json!([{"role": "user", "content": question(i)}]);
            let (text, ids, logprobs) = expected(&messages, sample_seed(1, id, *sample, 0), 8);
            assert_eq!(row.text, Some(format!("<think>hm</think>{text}")));
            assert_eq!((row.token_ids.as_ref(), row.logprobs.as_ref()), (Some(&ids), Some(&logprobs)));
        }
    }
}

#[test]
fn five_percent_of_every_fault_lose_and_double_nothing() {
    let faults = [
        Fault::Status(500),
        Fault::Status(503),
        Fault::RetryAfter(0),
        Fault::Reset,
        Fault::CutBody,
        Fault::TruncatedJson,
        Fault::NotJson,
        Fault::TooFew,
        Fault::TooMany,
        Fault::NoTokenIds,
        Fault::NanLogprobs,
        Fault::Abort,
        Fault::Hang,
    ];
    let script = move |ask: &super::openai_server::Ask<'_>| {
        if ask.number % 20 == 7 { faults[(ask.number / 20) as usize % faults.len()] } else { Fault::None }
    };
    let servers: Vec<_> =
        (0..2).map(|_| OpenAiServer::start(Behaviour { script: Box::new(script), ..Behaviour::default() })).collect();
    let config =
        VllmConfig { request_timeout_s: 1.0, token_timeout_s: 1e-6, ..config(&servers.iter().collect::<Vec<_>>()) };
    let (rows, engine) = run(config, 500);
    assert_right(&rows, 8);
    let snapshot = engine.snapshot();
    let retries: BTreeMap<_, _> = snapshot.retries.iter().copied().collect();
    for cause in ["server_error", "overloaded", "throttled", "reset", "malformed", "wrong_count", "timeout"] {
        assert!(retries.contains_key(cause), "no {cause} in {retries:?}");
    }
    assert!(snapshot.failed_rows.is_empty(), "{:?}", snapshot.failed_rows);
    assert!(engine.metrics_text().contains("gristmill_retries_total{cause=\"timeout\"}"));
}

#[test]
fn one_of_two_endpoints_is_killed_and_comes_back() {
    let slow = || Behaviour { latency: Duration::from_millis(5), ..Behaviour::default() };
    let stays = OpenAiServer::start(slow());
    let dies = Mutex::new(OpenAiServer::start(slow()));
    let address = dies.lock().unwrap().address;
    let config = config(&[&stays, &dies.lock().unwrap()]);
    let engine = VllmEngine::connect(config, None).unwrap();
    let mut rows = Rows::new();
    let mut source = requests(2000).take_while(|_| true);
    let mut back = None;
    engine
        .generate(&mut source, &mut |row| {
            assert!(rows.insert((row.prompt_id.to_string(), row.sample_index), row).is_none(), "a row came twice");
            if rows.len() == 1000 {
                dies.lock().unwrap().kill();
            }
            if rows.len() == 3000 {
                assert_eq!(engine.snapshot().endpoints[1].state, "down");
                back = Some(OpenAiServer::start_at(slow(), address));
                let since = Instant::now();
                while engine.snapshot().endpoints[1].state == "down" && since.elapsed() < Duration::from_secs(20) {
                    std::thread::sleep(Duration::from_millis(20));
                }
            }
            Ok(())
        })
        .unwrap();
    assert_eq!(rows.len(), 8000);
    assert_right(&rows, 8);
    assert!(back.unwrap().seen.completions.load(SeqCst) > 100, "the server that came back got work");
}

#[test]
fn a_storm_of_429_lowers_the_concurrency_and_fails_no_row() {
    let server =
        OpenAiServer::start(Behaviour { capacity: 6, latency: Duration::from_millis(10), ..Behaviour::default() });
    let (rows, engine) = run(config(&[&server]), 150);
    assert_right(&rows, 8);
    let snapshot = engine.snapshot();
    assert!(snapshot.endpoints[0].limit <= 16, "the limit is {}", snapshot.endpoints[0].limit);
    let throttled = snapshot.retries.iter().find(|(cause, _)| *cause == "throttled").map_or(0, |(_, n)| *n);
    assert!((1..400).contains(&throttled), "{throttled} tries were thrown away");
}

#[test]
fn retry_after_is_waited_out() {
    let script = |ask: &super::openai_server::Ask<'_>| {
        if ask.number == 0 { Fault::RetryAfter(2) } else { Fault::None }
    };
    let server = OpenAiServer::start(Behaviour { script: Box::new(script), ..Behaviour::default() });
    let engine = VllmEngine::connect(config(&[&server]), None).unwrap();
    let one = || requests(1).map(|r| Request { samples: vec![r.samples[0]], ..r });
    let since = Instant::now();
    let (rows, outcome) = collect(&engine, one());
    outcome.unwrap();
    assert_eq!(rows.len(), 1);
    assert!(since.elapsed() >= Duration::from_secs(2), "{:?}", since.elapsed());
}

#[test]
fn a_server_that_hangs_is_left_for_another() {
    let hangs = OpenAiServer::start(Behaviour { script: Box::new(|_| Fault::Hang), ..Behaviour::default() });
    let works = OpenAiServer::start(Behaviour::default());
    for stream in [false, true] {
        let config = VllmConfig { request_timeout_s: 0.5, token_timeout_s: 1e-6, stream, ..config(&[&hangs, &works]) };
        let (rows, _engine) = run(config, 50);
        assert_right(&rows, 8);
    }
}

#[test]
fn rows_that_cannot_be_answered_keep_their_error_and_are_counted() {
    let script = |ask: &super::openai_server::Ask<'_>| match ask.body["prompt"].as_str() {
        Some(prompt) if prompt.contains(" 3 ") => Fault::ContextOverflow,
        Some(prompt) if prompt.contains(" 4 ") => Fault::NanLogprobs,
        Some(prompt) if prompt.contains(" 5 ") => Fault::Status(422),
        _ => Fault::None,
    };
    let server = OpenAiServer::start(Behaviour { script: Box::new(script), ..Behaviour::default() });
    let (rows, engine) = run(VllmConfig { max_attempts: 2, ..config(&[&server]) }, 20);
    let (bad, good): (Rows, Rows) =
        rows.into_iter().partition(|((id, _), _)| ["p3", "p4", "p5"].contains(&id.as_str()));
    assert_right(&good, 8);
    for ((id, _), row) in &bad {
        let code = match id.as_str() {
            "p3" => "context_overflow: HTTP 400: This model's maximum context length",
            "p4" => "bad_logprobs: ",
            _ => "bad_request: HTTP 422",
        };
        assert!(row.error.as_ref().unwrap().starts_with(code), "{:?}", row.error);
        assert_eq!((row.finish_reason, &row.text), (FinishReason::Error, &None));
    }
    let failed = engine.snapshot().failed_rows;
    assert_eq!(failed, [("bad_logprobs", 4), ("context_overflow", 4), ("bad_request", 4)]);
}

#[test]
fn a_cut_completion_is_an_answer_and_not_asked_again() {
    let server = OpenAiServer::start(Behaviour { tokens: 100, ..Behaviour::default() });
    let (rows, engine) = run(config(&[&server]), 5);
    assert!(rows.values().all(|row| row.finish_reason == FinishReason::Length && row.error.is_none()));
    assert_eq!(server.seen.completions.load(SeqCst), 20);
    assert_eq!(engine.snapshot().truncated, 20);
}

#[test]
fn a_cut_completion_is_continued_when_asked() {
    // The first answer is as long as its budget; the continuation's budget is longer than the answer.
    let server = OpenAiServer::start(Behaviour { tokens: 100, ..Behaviour::default() });
    let config = VllmConfig { continue_rounds: 2, continue_tokens: 200, ..config(&[&server]) };
    let (rows, engine) = run(config, 3);
    for row in rows.values() {
        assert_eq!(row.finish_reason, FinishReason::Stop);
        assert_eq!(row.token_ids.as_ref().unwrap().len(), 164);
        assert_eq!((row.logprobs.as_ref().unwrap().len(), row.completion_tokens), (164, Some(164)));
    }
    let snapshot = engine.snapshot();
    assert_eq!((snapshot.continuations, snapshot.truncated), (12, 0));
}

#[test]
fn samples_asked_together_are_all_there_even_if_some_did_not_come() {
    let script =
        |ask: &super::openai_server::Ask<'_>| if ask.number.is_multiple_of(3) { Fault::TooFew } else { Fault::None };
    let server = OpenAiServer::start(Behaviour { script: Box::new(script), ..Behaviour::default() });
    let (rows, engine) = run(VllmConfig { n_per_request: 4, ..config(&[&server]) }, 30);
    assert!(rows.values().all(|row| row.error.is_none() && row.token_ids.as_ref().unwrap().len() == 8));
    assert!(!engine.info().deterministic);
}

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
fn a_special_closing_tag_is_put_back_where_its_token_stands() {
    let server = OpenAiServer::start(Behaviour { close_token: Some(77_777), ..Behaviour::default() });
    for stream in [false, true] {
        let (rows, _engine) = run(VllmConfig { stream, ..config(&[&server]) }, 5);
        for ((id, sample), row) in &rows {
            let i: usize = id[1..].parse().unwrap();
            let (_, ids, _) = expected(&json!(question(i)), sample_seed(1, id, *sample, 0), 8);
            let (ids, text) = special(&ids, 77_777, "</think>");
            assert_eq!((row.text.as_ref(), row.token_ids.as_ref()), (Some(&text), Some(&ids)));
        }
    }
}

#[test]
fn a_monitor_reads_the_numbers_while_the_engine_lives() {
    let server = OpenAiServer::start(Behaviour::default());
    let config = VllmConfig { metrics: Some(([127, 0, 0, 1], 0).into()), ..config(&[&server]) };
    let (rows, engine) = run(config.clone(), 3);
    let address = engine.metrics_address().unwrap();
    let mut stream = std::net::TcpStream::connect(address).unwrap();
    write!(stream, "GET /metrics HTTP/1.0\r\n\r\n").unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    let line = format!("gristmill_completions_total{{endpoint=\"{}\"}} {}", server.url(), rows.len());
    assert!(text.starts_with("HTTP/1.0 200") && text.contains(&line), "{text}");
    let taken = refusal(VllmConfig { metrics: Some(address), ..config });
    assert!(taken.to_string().contains("engine.metrics"), "{taken}");
}

#[test]
fn no_server_is_an_error_in_bounded_time() {
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let mut dead = VllmConfig { endpoints: vec![format!("http://{nobody}")], ..VllmConfig::default() };
    dead.startup_timeout_s = 0.5;
    let error = refusal(dead);
    assert!(error.to_string().contains("unreachable"), "{error}");

    let mut server = OpenAiServer::start(Behaviour::default());
    let engine = VllmEngine::connect(VllmConfig { give_up_after_s: 1.0, ..config(&[&server]) }, None).unwrap();
    server.kill();
    let since = Instant::now();
    let (rows, outcome) = collect(&engine, requests(500));
    let error = outcome.unwrap_err();
    assert!(error.to_string().contains("no server has answered"), "{error}");
    assert!(error.render(false).contains("unreachable"), "{error:?}");
    assert!(since.elapsed() < Duration::from_secs(15) && rows.is_empty());
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

#[test]
fn cancel_delivers_what_is_in_flight_and_sends_nothing_more() {
    let server = OpenAiServer::start(Behaviour { latency: Duration::from_millis(200), ..Behaviour::default() });
    let engine = VllmEngine::connect(config(&[&server]), None).unwrap();
    let cancel: CancelToken = engine.cancel_token();
    let mut rows = Rows::new();
    let mut source = requests(100_000);
    let outcome = engine.generate(&mut source, &mut |row| {
        rows.insert((row.prompt_id.to_string(), row.sample_index), row);
        cancel.cancel();
        Ok(())
    });
    assert_eq!(outcome.unwrap_err().kind(), ErrorKind::Interrupted);
    assert_right(&rows, 8);
    assert_eq!(rows.len() as u64, server.seen.completions.load(SeqCst), "all that was sent was delivered");
}

#[test]
fn a_sink_that_fails_ends_the_run() {
    let server = OpenAiServer::start(Behaviour::default());
    let engine = VllmEngine::connect(config(&[&server]), None).unwrap();
    let outcome = engine.generate(&mut requests(1000), &mut |_| Err(Error::new("disk full")));
    assert_eq!(outcome.unwrap_err().message(), "disk full");
    // The engine is as good as before.
    let (rows, outcome) = collect(&engine, requests(20));
    outcome.unwrap();
    assert_right(&rows, 8);
}

#[test]
fn requests_are_pulled_only_as_there_is_room() {
    let server = OpenAiServer::start(Behaviour { latency: Duration::from_millis(2), ..Behaviour::default() });
    let engine = VllmEngine::connect(VllmConfig { max_concurrency: 32, ..config(&[&server]) }, None).unwrap();
    let pulled = Mutex::new(0usize);
    let (mut delivered, mut widest) = (0, 0);
    let mut source = requests(1000).inspect(|_| *pulled.lock().unwrap() += SAMPLES as usize);
    engine
        .generate(&mut source, &mut |_| {
            delivered += 1;
            widest = widest.max(*pulled.lock().unwrap() - delivered);
            Ok(())
        })
        .unwrap();
    assert_eq!(delivered, 4000);
    assert!(widest <= 2 * 32 + 64 + SAMPLES as usize, "{widest} requests were held at once");
}

#[test]
fn our_tokens_go_in_and_come_back() {
    let server = OpenAiServer::start(Behaviour::default());
    let encoder: PromptEncoder = Arc::new(|messages: &[Message]| {
        Ok(EncodedPrompt::TokenIds(messages[0].content.bytes().map(u32::from).collect()))
    });
    let config = VllmConfig { template: Template::Ours, ..config(&[&server]) };
    assert!(refusal(config.clone()).to_string().contains("tokenizer"));
    let engine = VllmEngine::connect(config, Some(encoder)).unwrap();
    let (rows, outcome) = collect(&engine, requests(3));
    outcome.unwrap();
    for ((id, sample), row) in &rows {
        let ids: Vec<u32> = question(id[1..].parse().unwrap()).bytes().map(u32::from).collect();
        assert_eq!(row.text, Some(expected(&json!(ids), sample_seed(1, id, *sample, 0), 8).0));
        assert_eq!(row.prompt_token_ids.as_ref(), Some(&ids));
    }
}

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

#[test]
fn a_slow_source_and_a_slow_sink_are_no_silence_of_the_server() {
    let server = OpenAiServer::start(Behaviour::default());
    let engine = VllmEngine::connect(VllmConfig { give_up_after_s: 0.3, ..config(&[&server]) }, None).unwrap();
    let mut source = requests(4).inspect(|_| std::thread::sleep(Duration::from_millis(500)));
    let mut rows = 0;
    engine
        .generate(&mut source, &mut |_| {
            rows += 1;
            std::thread::sleep(Duration::from_millis(if rows % 4 == 0 { 500 } else { 0 }));
            Ok(())
        })
        .unwrap();
    assert_eq!(rows, 16);
}
