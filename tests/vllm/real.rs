//! The engine against a real vLLM. `tests/vllm/run` installs one for the CPU, makes two tiny models and
//! runs this; without it the test is ignored.
//!
//! One test, because a server takes a minute to start: it starts two of them with `launch = true`, which
//! is itself under test, and tells a story with steps.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use gristmill::engine::vllm::{Api, ServerConfig, Template, TokenIds, VllmConfig, VllmEngine};
use gristmill::engine::{Engine, Generated, Request, Sampling};
use gristmill::schema::{FinishReason, Message, Role};
use gristmill::seed::sample_seed;

type Rows = BTreeMap<(String, u32), Generated>;

fn variable(name: &str) -> PathBuf {
    std::env::var_os(name).unwrap_or_else(|| panic!("{name} is not set: run tests/vllm/run")).into()
}

fn launch(model: &str) -> VllmEngine {
    let models = variable("GRISTMILL_TEST_MODELS");
    let args = ["--served-model-name", "tiny", "--dtype", "float32", "--enforce-eager", "--max-model-len", "512"];
    let environment = [
        ("VLLM_CPU_KVCACHE_SPACE", "1"),
        ("VLLM_SERVER_DEV_MODE", "1"),
        ("HF_HUB_OFFLINE", "1"),
        ("VLLM_NO_USAGE_STATS", "1"),
    ];
    let config = VllmConfig {
        launch: true,
        server: ServerConfig {
            command: variable("GRISTMILL_TEST_VLLM").display().to_string(),
            model: models.join(model).display().to_string(),
            args: args.map(String::from).to_vec(),
            env: environment.map(|(k, v)| (k.to_string(), v.to_string())).into(),
            ..ServerConfig::default()
        },
        ..VllmConfig::default()
    };
    VllmEngine::connect(config, None).unwrap()
}

fn config(engines: &[&VllmEngine]) -> VllmConfig {
    VllmConfig {
        endpoints: engines.iter().map(|e| e.snapshot().endpoints[0].address.clone()).collect(),
        api: Api::Completions,
        template: Template::Plain,
        token_ids: TokenIds::Require,
        logprobs: true,
        ..VllmConfig::default()
    }
}

fn requests(prompts: usize, temperature: f32, max_tokens: u32) -> impl Iterator<Item = Request> + Send {
    let sampling = Arc::new(Sampling { temperature, top_p: 1.0, max_tokens, ..Sampling::default() });
    (0..prompts).map(move |i| Request {
        prompt_id: format!("p{i}").into(),
        messages: [Message { role: Role::User, content: format!("What is {i} + {i}?") }].into(),
        samples: (0..4).map(|k| (k, sample_seed(1, &format!("p{i}"), k, 0))).collect(),
        sampling: sampling.clone(),
        policy_step: 0,
    })
}

fn collect(engine: &VllmEngine, requests: impl Iterator<Item = Request> + Send) -> Rows {
    let mut requests = requests;
    let mut rows = Rows::new();
    engine
        .generate(&mut requests, &mut |row| {
            assert!(rows.insert((row.prompt_id.to_string(), row.sample_index), row).is_none(), "a row came twice");
            Ok(())
        })
        .unwrap();
    rows
}

fn ids(rows: &Rows) -> Vec<Vec<u32>> {
    rows.values().map(|row| row.token_ids.clone().unwrap_or_else(|| panic!("{:?}", row.error))).collect()
}

/// The largest difference of any logprob.
fn distance(a: &Rows, b: &Rows) -> f32 {
    let logprobs = |rows: &Rows| -> Vec<f32> { rows.values().flat_map(|r| r.logprobs.clone().unwrap()).collect() };
    logprobs(a).iter().zip(logprobs(b)).map(|(x, y)| (x - y).abs()).fold(0.0, f32::max)
}

#[test]
#[ignore = "needs a vLLM: run tests/vllm/run"]
fn a_real_vllm_generates_reloads_and_is_survived() {
    let since = Instant::now();
    let one = launch("a");
    println!("a server was launched and ready in {:.0} s", since.elapsed().as_secs_f64());

    let engine = VllmEngine::connect(config(&[&one]), None).unwrap();
    let since = Instant::now();
    let rows = collect(&engine, requests(16, 1.0, 32));
    let snapshot = engine.snapshot();
    println!("{} tokens at {:.0}/s", snapshot.completion_tokens, snapshot.completion_tokens as f64 / since.elapsed().as_secs_f64());
    assert_eq!(rows.len(), 64);
    for row in rows.values() {
        let tokens = row.token_ids.as_ref().unwrap();
        assert_eq!(row.logprobs.as_ref().unwrap().len(), tokens.len());
        assert!(row.logprobs.as_ref().unwrap().iter().all(|p| *p <= 0.0));
        assert_eq!(row.completion_tokens, Some(tokens.len() as u32));
        assert_eq!(row.prompt_token_ids.as_ref().unwrap().len() as u32, row.prompt_tokens.unwrap());
        assert_eq!(row.finish_reason == FinishReason::Length, tokens.len() == 32);
    }
    let samples: std::collections::BTreeSet<_> = ids(&rows).into_iter().collect();
    assert!(samples.len() > 60, "samples of one prompt differ");

    let serial = VllmEngine::connect(VllmConfig { max_concurrency: 1, ..config(&[&one]) }, None).unwrap();
    let again = collect(&serial, requests(16, 1.0, 32));
    assert_eq!(ids(&again), ids(&rows), "seeds reproduce, one at a time or all at once");
    println!("logprobs one at a time and all at once differ by {:e} at most", distance(&again, &rows));
    assert!(distance(&again, &rows) < 1e-3);

    let stream = VllmEngine::connect(VllmConfig { stream: true, ..config(&[&one]) }, None).unwrap();
    let streamed = collect(&stream, requests(16, 1.0, 32));
    assert_eq!(ids(&streamed), ids(&rows), "a stream brings the same tokens");
    let text = |rows: &Rows| rows.values().map(|r| (r.text.clone(), r.prompt_tokens)).collect::<Vec<_>>();
    assert_eq!(text(&streamed), text(&rows));

    let chat = VllmConfig { api: Api::Chat, template: Template::Server, ..config(&[&one]) };
    let chat_rows = collect(&VllmEngine::connect(chat.clone(), None).unwrap(), requests(4, 1.0, 16));
    let streamed = VllmEngine::connect(VllmConfig { stream: true, ..chat.clone() }, None).unwrap();
    assert_eq!(ids(&collect(&streamed, requests(4, 1.0, 16))), ids(&chat_rows));
    assert!(chat_rows.values().all(|row| row.logprobs.is_some() && row.prompt_token_ids.is_some() && row.text.is_some()));
    let batched = VllmEngine::connect(VllmConfig { n_per_request: 4, ..chat }, None).unwrap();
    let batched = collect(&batched, requests(4, 1.0, 16));
    assert_eq!(ids(&batched).len(), 16);

    let continued = VllmConfig { continue_rounds: 1, continue_tokens: 24, ..config(&[&one]) };
    let continued = collect(&VllmEngine::connect(continued, None).unwrap(), requests(4, 0.0, 8));
    let whole = collect(&engine, requests(4, 0.0, 32));
    assert_eq!(ids(&continued), ids(&whole), "cut at 8 and continued by 24 is the same as 32 at once");

    let overflow = collect(&engine, requests(2, 1.0, 4096));
    for row in overflow.values() {
        assert!(row.error.as_ref().unwrap().starts_with("context_overflow"), "{:?}", row.error);
    }
    assert_eq!(engine.snapshot().failed_rows, [("context_overflow", 8)]);

    let models = variable("GRISTMILL_TEST_MODELS");
    let before = collect(&engine, requests(4, 0.0, 16));
    let since = Instant::now();
    engine.reload_weights(&models.join("b")).unwrap();
    println!("new weights were loaded in {:.0} ms", since.elapsed().as_secs_f64() * 1e3);
    let other = collect(&engine, requests(4, 0.0, 16));
    assert_ne!(ids(&other), ids(&before), "another model answers");
    engine.reload_weights(&models.join("a")).unwrap();
    let after = collect(&engine, requests(4, 0.0, 16));
    assert_eq!(ids(&after), ids(&before), "the first model answers again");
    println!("its logprobs differ by {:e} at most", distance(&after, &before));
    assert!(distance(&after, &before) < 1e-4);

    let two = Mutex::new(Some(launch("a")));
    let both = {
        let two = two.lock().unwrap();
        VllmEngine::connect(config(&[&one, two.as_ref().unwrap()]), None).unwrap()
    };
    let mut rows = Rows::new();
    let mut killer = None;
    let mut source = requests(200, 1.0, 32);
    both.generate(&mut source, &mut |row| {
        assert!(rows.insert((row.prompt_id.to_string(), row.sample_index), row).is_none(), "a row came twice");
        if rows.len() == 200 {
            let doomed = two.lock().unwrap().take();
            killer = Some(std::thread::spawn(move || drop(doomed)));
        }
        Ok(())
    })
    .unwrap();
    killer.unwrap().join().unwrap();
    assert_eq!(rows.len(), 800);
    assert!(rows.values().all(|row| row.error.is_none()));
    let alone = collect(&engine, requests(200, 1.0, 32));
    assert_eq!(ids(&rows), ids(&alone), "a server lost on the way changes no token");
    println!("one of two servers was killed: {:?}", both.snapshot().retries);
    for line in both.snapshot().endpoints {
        println!("  {} {} {} completions, faults {:?}", line.address, line.state, line.completions, line.faults);
    }
}

/// A server of another make (`transformers serve`): no token ids, no list of models, unknown keys refused.
#[test]
#[ignore = "needs a server: run tests/vllm/run"]
fn a_real_server_of_another_make_answers() {
    let model = variable("GRISTMILL_TEST_OTHER_MODEL").display().to_string();
    let config = VllmConfig {
        endpoints: vec![variable("GRISTMILL_TEST_OTHER").display().to_string()],
        model,
        startup_timeout_s: 300.0,
        // It seeds torch as a whole for each request, so its seeds hold for one at a time only.
        max_concurrency: 1,
        ..VllmConfig::default()
    };
    let completions = VllmConfig { api: Api::Completions, template: Template::Plain, ..config.clone() };
    let streamed = VllmConfig { stream: true, ..config.clone() };
    for config in [config, completions, streamed] {
        let engine = VllmEngine::connect(config, None).unwrap();
        let rows = collect(&engine, requests(3, 1.0, 8));
        assert_eq!(rows.len(), 12);
        for row in rows.values() {
            assert!(row.text.is_some() && row.completion_tokens.is_some(), "{:?}", row.error);
        }
        let texts = |rows: &Rows| rows.values().map(|r| r.text.clone()).collect::<Vec<_>>();
        assert_eq!(texts(&collect(&engine, requests(3, 1.0, 8))), texts(&rows), "seeds reproduce");
    }
}
