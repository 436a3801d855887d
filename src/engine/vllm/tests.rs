//! The engine against a server with scripted faults.

mod endpoints;
mod faults;
mod identity;
mod weights;

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::sync::atomic::Ordering::SeqCst;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::json;

use super::openai_server::{Behaviour, OpenAiServer, expected, special};
use super::{Api, CancelToken, EncodedPrompt, PromptEncoder, Template, TokenIds, VllmConfig, VllmEngine};
use crate::engine::{Engine, Generated, Request, SampleSeed, Sampling};
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
        samples: (0..SAMPLES).map(|k| SampleSeed::new(1, &format!("p{i}"), k, 0)).collect(),
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
