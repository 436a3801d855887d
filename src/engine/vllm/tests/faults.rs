//! What servers do wrong: nothing is lost or doubled, and a run ends only without any.

use std::collections::BTreeMap;
use std::net::TcpListener;
use std::sync::Mutex;
use std::sync::atomic::Ordering::SeqCst;
use std::time::{Duration, Instant};

use super::super::openai_server::{Ask, Behaviour, Fault, OpenAiServer};
use super::super::{VllmConfig, VllmEngine};
use super::{Rows, assert_right, collect, config, refusal, requests, run};
use crate::engine::{Engine, Request};
use crate::schema::FinishReason;

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
    let script = move |ask: &Ask<'_>| {
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
    let script = |ask: &Ask<'_>| {
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
    let script = |ask: &Ask<'_>| match ask.body["prompt"].as_str() {
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
fn samples_asked_together_are_all_there_even_if_some_did_not_come() {
    let script = |ask: &Ask<'_>| if ask.number.is_multiple_of(3) { Fault::TooFew } else { Fault::None };
    let server = OpenAiServer::start(Behaviour { script: Box::new(script), ..Behaviour::default() });
    let (rows, engine) = run(VllmConfig { n_per_request: 4, ..config(&[&server]) }, 30);
    assert!(rows.values().all(|row| row.error.is_none() && row.token_ids.as_ref().unwrap().len() == 8));
    assert!(!engine.info().deterministic);
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

#[test]
fn a_server_that_never_answers_is_given_up_once_what_is_in_flight_is_past_its_deadline() {
    // It is healthy as far as probes can tell.
    let server = OpenAiServer::start(Behaviour { script: Box::new(|_| Fault::Hang), ..Behaviour::default() });
    let deadline = VllmConfig { request_timeout_s: 2.0, token_timeout_s: 1e-6, ..config(&[&server]) };
    let engine = VllmEngine::connect(VllmConfig { give_up_after_s: 0.5, ..deadline }, None).unwrap();
    let since = Instant::now();
    let (rows, outcome) = collect(&engine, requests(50));
    let error = outcome.unwrap_err();
    assert!(error.to_string().contains("no server has answered"), "{error}");
    assert!(error.render(false).contains("timeout"), "{error:?}");
    assert!(rows.is_empty() && since.elapsed() > Duration::from_secs(2), "{:?}", since.elapsed());
    assert!(since.elapsed() < Duration::from_secs(15), "{:?}", since.elapsed());
}
