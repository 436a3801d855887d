//! Servers that refuse, break, storm, are paused or dislike one prompt: who is left out, what fails, what is told.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};

use serde_json::json;

use super::super::openai_server::{Ask, Behaviour, Fault, OpenAiServer, expected};
use super::super::{ServerConfig, VllmConfig, VllmEngine};
use super::{Rows, assert_right, collect, config, question, refusal, requests, run};
use crate::engine::Engine;
use crate::schema::FinishReason;

fn scripted(script: impl Fn(&Ask<'_>) -> Fault + Send + Sync + 'static) -> Behaviour {
    Behaviour { script: Box::new(script), ..Behaviour::default() }
}

fn asked(server: &OpenAiServer) -> u64 {
    server.seen.completions.load(SeqCst)
}

/// Whether a request is of one of these prompts.
fn is_of(ask: &Ask<'_>, prompts: &[usize]) -> bool {
    prompts.iter().any(|&i| ask.body["prompt"] == question(i).as_str())
}

#[test]
fn a_server_that_refuses_us_is_left_out_and_the_others_go_on() {
    for status in [401, 403, 404] {
        // It refuses from its fifth answer on.
        let turns =
            OpenAiServer::start(scripted(move |ask| if ask.number < 5 { Fault::None } else { Fault::Status(status) }));
        let stays = OpenAiServer::start(Behaviour { latency: Duration::from_millis(2), ..Behaviour::default() });
        let (rows, engine) = run(VllmConfig { max_concurrency: 8, ..config(&[&turns, &stays]) }, 200);
        assert_right(&rows, 8);
        let snapshot = engine.snapshot();
        assert_eq!((snapshot.endpoints[0].state, snapshot.endpoints[1].state), ("left out", "up"));
        // Until it refuses, what is in flight then, and what goes there before the first refusal has come.
        assert!(asked(&turns) <= 5 + 2 * 8, "{status}: {} requests went to it", asked(&turns));
        let news = engine.take_news();
        assert!(news.len() == 1 && news[0].contains(&turns.url()) && news[0].contains("1 of 2"), "{news:?}");
        assert!(news[0].contains(if status == 404 { "HTTP 404" } else { "API key" }), "{news:?}");
    }
}

#[test]
fn only_when_every_server_refuses_the_run_fails_and_each_is_named() {
    let refusing = |status| OpenAiServer::start(scripted(move |_| Fault::Status(status)));
    let (one, two) = (refusing(403), refusing(404));
    let engine = VllmEngine::connect(config(&[&one, &two]), None).unwrap();
    let (rows, outcome) = collect(&engine, requests(20));
    let error = outcome.unwrap_err().to_string();
    assert!(rows.is_empty() && error.contains("every server refuses"), "{error}");
    assert!(error.contains(&one.url()) && error.contains(&two.url()), "{error}");
    assert!(error.contains("HTTP 403") && error.contains("HTTP 404"), "{error}");
}

#[test]
fn a_server_that_wants_another_key_is_left_out_from_the_start() {
    let locked = OpenAiServer::start(Behaviour { key: Some("right".into()), ..Behaviour::default() });
    let open = OpenAiServer::start(Behaviour::default());
    let (rows, engine) = run(config(&[&locked, &open]), 10);
    assert_right(&rows, 8);
    assert!(engine.take_news()[0].contains("wants an API key"));
    assert_eq!(asked(&locked), 0);
}

/// A prompt that two servers always answer with this status, among others that they answer.
fn poisoned(status: u16, prompts: usize) {
    let poisoned = prompts / 2;
    let server = || {
        let script = move |ask: &Ask<'_>| if is_of(ask, &[poisoned]) { Fault::Status(status) } else { Fault::None };
        OpenAiServer::start(Behaviour { latency: Duration::from_millis(2), ..scripted(script) })
    };
    let (one, two) = (server(), server());
    let (rows, engine) = run(VllmConfig { max_attempts: 2, ..config(&[&one, &two]) }, prompts);
    let poison = format!("p{poisoned}");
    let (bad, good): (Rows, Rows) = rows.into_iter().partition(|((id, _), _)| *id == poison);
    assert_right(&good, 8);
    assert_eq!(bad.len(), 4);
    for row in bad.values() {
        let error = row.error.as_deref().unwrap();
        assert!(error.contains(&format!("HTTP {status}")), "{error}");
    }
    let snapshot = engine.snapshot();
    assert!(snapshot.endpoints.iter().all(|e| e.state != "down"), "{status}: {:?}", snapshot.endpoints);
}

#[test]
fn a_prompt_that_every_server_turns_away_fails_and_blames_no_server() {
    std::thread::scope(|scope| {
        for status in [429, 503, 500] {
            // Beside others, and alone: then a trifle shows that the servers are well.
            for prompts in [40, 1] {
                scope.spawn(move || poisoned(status, prompts));
            }
        }
    });
}

#[test]
fn a_storm_that_passes_fails_no_row_and_is_soon_forgotten() {
    // Counted from the first request: connecting takes its time on a busy machine.
    let began = OnceLock::new();
    let storm = Duration::from_millis(1500);
    let script = move |_: &Ask<'_>| {
        if (Duration::from_millis(300)..storm).contains(&began.get_or_init(Instant::now).elapsed()) {
            Fault::Status(429)
        } else {
            Fault::None
        }
    };
    let server = OpenAiServer::start(Behaviour { latency: Duration::from_millis(5), ..scripted(script) });
    let engine = VllmEngine::connect(VllmConfig { max_attempts: 2, ..config(&[&server]) }, None).unwrap();
    let lowest = AtomicUsize::new(usize::MAX);
    let mut rows = Rows::new();
    engine
        .generate(&mut requests(4000), &mut |row| {
            lowest.fetch_min(engine.snapshot().endpoints[0].limit, SeqCst);
            rows.insert((row.prompt_id.to_string(), row.sample_index), row);
            Ok(())
        })
        .unwrap();
    assert_eq!(rows.len(), 16_000);
    assert_right(&rows, 8);
    let limit = engine.snapshot().endpoints[0].limit;
    assert!(lowest.load(SeqCst) <= 2 && limit >= 12, "from {lowest:?} to {limit}");
}

#[test]
fn a_429_now_and_then_costs_its_own_request_alone() {
    let script = |ask: &Ask<'_>| if ask.number % 100 == 50 { Fault::RetryAfter(1) } else { Fault::None };
    let server = OpenAiServer::start(Behaviour { latency: Duration::from_millis(10), ..scripted(script) });
    let began = Instant::now();
    let (rows, engine) = run(config(&[&server]), 300);
    assert_right(&rows, 8);
    // Each of twelve would halve the limit and hold all others for a second.
    assert!(began.elapsed() < Duration::from_secs(6), "{:?}", began.elapsed());
    assert!(engine.snapshot().endpoints[0].limit >= 16, "{}", engine.snapshot().endpoints[0].limit);
}

#[test]
fn a_server_that_turns_most_away_is_left_alone_as_long_as_it_says() {
    let began = OnceLock::new();
    let script = move |ask: &Ask<'_>| {
        let is_over = began.get_or_init(Instant::now).elapsed() > Duration::from_millis(1200);
        if is_over || ask.number % 10 == 9 { Fault::None } else { Fault::RetryAfter(1) }
    };
    let server = OpenAiServer::start(Behaviour { latency: Duration::from_millis(5), ..scripted(script) });
    // What is in flight when the first refusals come cannot be called back.
    let (rows, engine) = run(VllmConfig { max_concurrency: 16, ..config(&[&server]) }, 50);
    assert_right(&rows, 8);
    let thrown_away: u64 = engine.snapshot().retries.iter().map(|(_, n)| *n).sum();
    assert!((10..60).contains(&thrown_away), "{thrown_away} tries were thrown away");
}

#[test]
fn a_server_that_only_seems_well_gets_one_request_at_a_time() {
    // Its probes are answered, its completions never are.
    let broken = OpenAiServer::start(scripted(|_| Fault::Status(500)));
    let works = OpenAiServer::start(Behaviour { latency: Duration::from_millis(4), ..Behaviour::default() });
    let (rows, engine) = run(VllmConfig { max_concurrency: 8, ..config(&[&broken, &works]) }, 2000);
    assert_right(&rows, 8);
    let (trials, requests) = (asked(&broken), asked(&works));
    // Twelve prompts of four samples and what was in flight until it is given up; then one for each of a few probes.
    assert!(trials <= 12 * 4 + 8 + 12, "{trials} requests were thrown at it");
    assert!(requests == 8000 && engine.snapshot().failed_rows.is_empty());
}

#[test]
fn a_continuation_is_retried_and_keeps_within_the_models_context() {
    let budgets = Arc::new(Mutex::new(Vec::new()));
    let (seen, tries) = (budgets.clone(), Mutex::new(HashMap::<u64, u32>::new()));
    let script = move |ask: &Ask<'_>| {
        let Some(prompt) = ask.body["prompt"].as_array() else { return Fault::None };
        seen.lock().unwrap().push((prompt.len() as u64, ask.body["max_tokens"].as_u64().unwrap()));
        // The first two tries of each are met by a fault.
        let mut tries = tries.lock().unwrap();
        let tried = tries.entry(ask.body["seed"].as_u64().unwrap()).or_default();
        *tried += 1;
        if *tried <= 2 { Fault::Status(500) } else { Fault::None }
    };
    let server = OpenAiServer::start(Behaviour { tokens: 1000, ..scripted(script) });
    let config = VllmConfig { continue_rounds: 3, continue_tokens: 300, ..config(&[&server]) };
    let (rows, engine) = run(config, 3);
    for row in rows.values() {
        // 64, then 300, then what is left of 512 behind a prompt of four tokens.
        assert_eq!((row.finish_reason, row.error.as_deref()), (FinishReason::Length, None));
        assert_eq!(row.token_ids.as_ref().unwrap().len(), 508);
        assert_eq!(row.logprobs.as_ref().unwrap().len(), 508);
        assert_eq!(row.prompt_tokens, Some(4));
    }
    assert!(budgets.lock().unwrap().iter().all(|(prompt, budget)| prompt + budget <= 512), "{budgets:?}");
    assert_eq!(engine.snapshot().continuations, 24);
}

#[test]
fn a_completion_that_cannot_be_continued_stays_as_it_was_cut() {
    for status in [404, 400] {
        let script =
            move |ask: &Ask<'_>| if ask.body["prompt"].is_array() { Fault::Status(status) } else { Fault::None };
        let server = OpenAiServer::start(Behaviour { tokens: 100, ..scripted(script) });
        let (rows, engine) = run(VllmConfig { continue_rounds: 1, ..config(&[&server]) }, 3);
        for ((id, sample), row) in &rows {
            let i: usize = id[1..].parse().unwrap();
            let seed = crate::seed::sample_seed(1, id, *sample, 0);
            assert_eq!(row.text, Some(expected(&json!(question(i)), seed, 64).0));
            assert_eq!(row.finish_reason, FinishReason::Length);
        }
        assert_eq!(engine.snapshot().truncated, 12);
    }
}

#[test]
fn a_server_that_was_left_paused_is_set_going_and_that_is_told() {
    let server = OpenAiServer::start(Behaviour { dev_mode: true, ..Behaviour::default() });
    server.seen.paused.store(true, SeqCst);
    let (rows, engine) = run(config(&[&server]), 5);
    assert_right(&rows, 8);
    let news = engine.take_news();
    assert!(news.len() == 1 && news[0].contains(&server.url()) && news[0].contains("paused"), "{news:?}");
}

#[cfg(unix)]
#[test]
fn a_stranger_at_the_port_of_a_server_that_ended_is_not_taken_for_it() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    let program = dir.path().join("fake-vllm");
    std::fs::write(&program, "#!/bin/sh\nsleep 1\necho address already in use\nexit 7\n").unwrap();
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let server = ServerConfig {
        command: program.display().to_string(),
        model: "tiny".into(),
        port,
        log: dir.path().join("log"),
        ..ServerConfig::default()
    };
    // It takes the port once it was found free, and before our server has ended.
    let stranger = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(200));
        let latency = Duration::from_millis(50);
        OpenAiServer::start_at(Behaviour { latency, ..Behaviour::default() }, ([127, 0, 0, 1], port).into())
    });
    let launch = VllmConfig { endpoints: Vec::new(), launch: true, server, max_concurrency: 1, ..config(&[]) };
    let outcome = VllmEngine::connect(launch, None).and_then(|engine| collect(&engine, requests(1000)).1);
    let error = outcome.unwrap_err().to_string();
    assert!(error.contains("has ended (exit status: 7)") && error.contains("address already in use"), "{error}");
    drop(stranger.join().unwrap());
}

#[test]
fn probes_that_fail_once_do_not_make_it_another_model() {
    let (steady, flaky) = (Behaviour::default(), Behaviour { flaky_probes: 1, ..Behaviour::default() });
    let digest = |behaviour| {
        let server = OpenAiServer::start(behaviour);
        VllmEngine::connect(config(&[&server]), None).unwrap().info().model_digest
    };
    assert_eq!(digest(steady), digest(flaky));
}

#[test]
fn a_key_that_a_server_repeats_is_in_no_row_and_no_error() {
    let key = std::env::var("PATH").unwrap();
    let script = |ask: &Ask<'_>| if is_of(ask, &[1]) { Fault::Echo } else { Fault::None };
    let server = OpenAiServer::start(Behaviour { key: Some(key.trim().into()), ..scripted(script) });
    let config = VllmConfig { api_key_env: Some("PATH".into()), max_attempts: 1, ..config(&[&server]) };
    let shown = format!("{config:?}");
    let (rows, engine) = run(config, 3);
    let failed: Vec<&str> = rows.values().filter_map(|row| row.error.as_deref()).collect();
    assert!(failed.len() == 4 && failed.iter().all(|error| error.contains("Bearer ***")), "{failed:?}");
    let last = engine.snapshot().endpoints[0].last_fault.clone().unwrap();
    for text in failed.iter().copied().chain([&*last, &*shown, &*engine.metrics_text()]) {
        assert!(!text.contains(&key[..8.min(key.len())]), "{text}");
    }
    let open = OpenAiServer::start(Behaviour::default());
    let address = format!("{}/v1?key=hunter2", open.url());
    let refused = refusal(VllmConfig { endpoints: vec![address], ..VllmConfig::default() });
    assert!(!refused.render(false).contains("hunter2") && !format!("{refused:?}").contains("hunter2"), "{refused}");
}
