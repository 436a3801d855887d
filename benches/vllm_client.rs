//! What the client costs: requests through [`VllmEngine`] against a server that answers at once.
//!
//!     cargo bench --bench vllm_client -- [--requests N] [--tokens T] [--faults] [--chat]
//!                                        [--latency MS] [--concurrency C] [--endpoint URL]
//!                                        [--resume] [--shard-rows R]
//!
//! The server is this same program as a child process, so that the client's CPU
//! time and memory are its own. Printed: wall time, CPU time of the client,
//! requests and tokens a second of each, and the client's peak memory. Every
//! row is checked to come exactly once. `--faults` breaks one request in twenty
//! (500, reset, cut body, half a JSON). `--latency` is the time the server takes for
//! an answer, `--concurrency` an upper bound of requests in flight: together they show
//! what faults cost where the client's CPU is not what limits.
//!
//! `--resume` times the whole command instead: a run of N requests that is killed when all but the
//! last are answered, and the same command again, which has to find that out. `--shard-rows R` keeps
//! R rows in one shard; with R = N everything is still in the journal when the kill comes.
//!
//! `--endpoint` asks a real server instead, with `ignore_eos`, for T tokens of each request: the
//! counterpart of `vllm bench serve`, which gets the same prompts from `--write-prompts FILE`.

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use gristmill::engine::vllm::{Api, Template, TokenIds, VllmConfig, VllmEngine};
use gristmill::engine::{Engine, Request, SampleSeed, Sampling};
use gristmill::schema::{Message, Role};
use serde_json::json;

#[allow(dead_code, reason = "the tests use all of the server, this bench a part")]
#[path = "../tests/support/openai_server.rs"]
mod openai_server;
use openai_server::{Behaviour, Fault, OpenAiServer};

const SAMPLES: usize = 4;

struct Options {
    requests: usize,
    tokens: usize,
    faults: bool,
    chat: bool,
    latency: usize,
    concurrency: usize,
    endpoint: Option<String>,
    shard_rows: usize,
}

fn question(prompt: usize) -> String {
    format!("How many grains of wheat are in {prompt} sacks?")
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let number = |name: &str, default: usize| {
        let value = arguments.iter().position(|a| a == name).and_then(|i| arguments.get(i + 1));
        value.map_or(default, |v| v.replace('_', "").parse().expect("a number follows"))
    };
    let text = |name: &str| {
        let value = arguments.iter().position(|a| a == name).and_then(|i| arguments.get(i + 1));
        value.cloned()
    };
    let has = |name: &str| arguments.iter().any(|a| a == name);
    let options = Options {
        requests: number("--requests", 100_000).div_ceil(SAMPLES) * SAMPLES,
        tokens: number("--tokens", 100),
        faults: has("--faults"),
        chat: has("--chat"),
        latency: number("--latency", 0),
        concurrency: number("--concurrency", 1024),
        endpoint: text("--endpoint"),
        shard_rows: number("--shard-rows", 16_384),
    };
    if let Some(file) = text("--write-prompts") {
        let line = |i: usize| json!({"prompt": question(i / SAMPLES), "output_tokens": options.tokens}).to_string();
        let lines: Vec<String> = (0..options.requests).map(line).collect();
        std::fs::write(&file, lines.join("\n")).expect("the file can be written");
    } else if has("--serve") {
        serve(&options)
    } else if has("--resume") {
        resume(&options)
    } else {
        measure(&options)
    }
}

/// What the server answers to everything.
fn canned(options: &Options) -> String {
    let ids: Vec<u32> = (0..options.tokens as u32).map(|i| 1000 + i * 7 % 50_000).collect();
    let mut choice = json!({
        "index": 0, "finish_reason": "stop", "stop_reason": null,
        "token_ids": ids, "logprobs": null,
    });
    let text = "word ".repeat(options.tokens);
    if options.chat {
        choice["message"] = json!({"role": "assistant", "content": text});
    } else {
        choice["text"] = json!(text);
    }
    let usage = json!({"prompt_tokens": 12, "completion_tokens": options.tokens});
    json!({"id": "cmpl-1", "object": "text_completion", "choices": [choice], "usage": usage}).to_string()
}

/// The child: serves until its standard input closes.
fn serve(options: &Options) {
    let script: fn(u64) -> Fault = |number| match number % 80 {
        7 => Fault::Status(500),
        27 => Fault::Reset,
        47 => Fault::CutBody,
        67 => Fault::TruncatedJson,
        _ => Fault::None,
    };
    let server = OpenAiServer::start(Behaviour {
        canned: Some(canned(options).into()),
        canned_script: if options.faults { script } else { |_| Fault::None },
        latency: Duration::from_millis(options.latency as u64),
        ..Behaviour::default()
    });
    println!("{}", server.url());
    let _ = std::io::stdin().read(&mut [0]);
}

/// The server as a child process, and its address.
fn start_server(options: &Options) -> (Child, String) {
    let mut child = Command::new(std::env::current_exe().expect("this program has a path"));
    child.arg("--serve").args(["--tokens", &options.tokens.to_string(), "--latency", &options.latency.to_string()]);
    child.args(options.faults.then_some("--faults")).args(options.chat.then_some("--chat"));
    let mut child = child.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("the server starts");
    let mut url = String::new();
    BufReader::new(child.stdout.take().expect("piped")).read_line(&mut url).expect("the server says its address");
    (child, url.trim().to_owned())
}

fn measure(options: &Options) {
    let (mut child, url) = match &options.endpoint {
        Some(url) => (None, url.clone()),
        None => {
            let (child, url) = start_server(options);
            (Some(child), url)
        }
    };
    let mut config = VllmConfig {
        endpoints: vec![url],
        api: if options.chat { Api::Chat } else { Api::Completions },
        template: if options.chat { Template::Server } else { Template::Plain },
        token_ids: TokenIds::Require,
        threads: 1,
        max_concurrency: options.concurrency as u32,
        ..VllmConfig::default()
    };
    if options.endpoint.is_some() {
        config.extra_body.insert("ignore_eos".into(), true.into());
        config.token_ids = TokenIds::Off;
    }
    let engine = VllmEngine::connect(config, None).expect("the server is up");
    let sampling =
        Arc::new(Sampling { max_tokens: options.tokens as u32, temperature: 1.0, top_p: 1.0, ..Sampling::default() });
    let mut seen = vec![0u8; options.requests];
    let mut requests = (0..options.requests / SAMPLES).map(|i| Request {
        prompt_id: format!("{i}").into(),
        messages: [Message { role: Role::User, content: question(i) }].into(),
        samples: (0..SAMPLES as u32).map(|k| SampleSeed { index: k, seed: i as u64 * 8 + u64::from(k) }).collect(),
        sampling: sampling.clone(),
        policy_step: 0,
    });
    let (cpu, wall) = (cpu_time(), Instant::now());
    engine
        .generate(&mut requests, &mut |row| {
            assert!(row.error.is_none(), "{:?}", row.error);
            let prompt: usize = row.prompt_id.parse().expect("ids are numbers");
            seen[prompt * SAMPLES + row.sample_index as usize] += 1;
            Ok(())
        })
        .expect("the run ends well");
    let (cpu, wall) = ((cpu_time() - cpu).as_secs_f64(), wall.elapsed().as_secs_f64());
    assert!(seen.iter().all(|&n| n == 1), "a row was lost or doubled");
    let (n, tokens) = (options.requests as f64, (options.requests * options.tokens) as f64);
    println!("requests        {n}, {} tokens each{}", options.tokens, if options.faults { ", 5% faults" } else { "" });
    println!("wall            {wall:.2} s: {:.0} requests/s, {:.2} M tokens/s", n / wall, tokens / wall / 1e6);
    println!("client CPU      {cpu:.2} s: {:.0} requests/s, {:.2} M tokens/s on one core", n / cpu, tokens / cpu / 1e6);
    println!("client memory   {} MiB at most", peak_memory(libc::RUSAGE_SELF) >> 20);
    let snapshot = engine.snapshot();
    println!("concurrency     {} at the end; retries {:?}", snapshot.endpoints[0].limit, snapshot.retries);
    if let Some(mut child) = child.take() {
        drop(child.stdin.take());
        let _ = child.wait();
    }
}

/// The request that is never answered in the run that is killed.
static LAST: AtomicU64 = AtomicU64::new(u64::MAX);

fn resume(options: &Options) {
    let command = env!("CARGO_BIN_EXE_gristmill");
    let folder = tempfile::tempdir().expect("a folder for the run");
    LAST.store(options.requests as u64 - 1, Relaxed);
    let server = OpenAiServer::start(Behaviour {
        canned: Some(canned(&Options { chat: true, endpoint: None, ..*options }).into()),
        canned_script: |number| if number == LAST.load(Relaxed) { Fault::Hang } else { Fault::None },
        ..Behaviour::default()
    });
    let lines = (0..options.requests / SAMPLES).map(|i| json!({"question": question(i), "answer": "7"}).to_string());
    std::fs::write(folder.path().join("questions.jsonl"), lines.collect::<Vec<_>>().join("\n")).expect("it is written");
    let recipe = format!(
        r#"name = "resume"
seed = 1
shard_rows = {}

[stages.prompts]
sources = [{{ path = "questions.jsonl", domain = "math", language = "en" }}]

[stages.generate]
samples = {SAMPLES}
sampling = {{ max_tokens = {} }}
engine = {{ kind = "vllm", endpoints = ["{}"], model = "tiny", request_timeout_s = 3600.0 }}
"#,
        options.shard_rows,
        options.tokens,
        server.url()
    );
    std::fs::write(folder.path().join("recipe.toml"), recipe).expect("it is written");
    let run = || {
        let mut child = Command::new(command);
        child.current_dir(folder.path()).args(["run", "recipe.toml", "--out", "out"]).stdout(Stdio::null());
        child.spawn().expect("the command starts")
    };
    let asked = || server.seen.completions.load(Relaxed);
    let (mut first, since) = (run(), Instant::now());
    while asked() < options.requests as u64 {
        assert!(first.try_wait().expect("a child can be asked").is_none(), "the run ended before it was killed");
        std::thread::sleep(Duration::from_millis(100));
    }
    println!("first run       {:.1} s for {} requests, prompts included", since.elapsed().as_secs_f64(), asked());
    // What was answered last goes to the disk.
    std::thread::sleep(Duration::from_secs(3));
    first.kill().expect("a child can be killed");
    first.wait().expect("a child can be waited for");
    println!("its memory      {} MiB at most", peak_memory(libc::RUSAGE_CHILDREN) >> 20);
    let journal = std::fs::metadata(folder.path().join("out/2_generate/_requests")).expect("a journal").len();
    let (before, since) = (asked(), Instant::now());
    assert!(run().wait().expect("a child can be waited for").success(), "the second run ends well");
    println!(
        "resume          {:.2} s for a journal of {:.2} GB; {} requests asked; memory of both {} MiB at most",
        since.elapsed().as_secs_f64(),
        journal as f64 / 1e9,
        asked() - before,
        peak_memory(libc::RUSAGE_CHILDREN) >> 20
    );
}

fn usage(whose: libc::c_int) -> libc::rusage {
    // SAFETY: rusage is plain numbers, for which zero is valid; getrusage writes to the one it is given.
    unsafe {
        let mut usage: libc::rusage = std::mem::zeroed();
        libc::getrusage(whose, &mut usage);
        usage
    }
}

/// CPU time of all threads of this process, user and system.
fn cpu_time() -> Duration {
    let usage = usage(libc::RUSAGE_SELF);
    let time = |t: libc::timeval| Duration::new(t.tv_sec as u64, t.tv_usec as u32 * 1000);
    time(usage.ru_utime) + time(usage.ru_stime)
}

/// Peak resident memory in bytes: of this process, or of the largest child that has ended.
fn peak_memory(whose: libc::c_int) -> u64 {
    usage(whose).ru_maxrss as u64 * 1024
}
