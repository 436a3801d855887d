//! Generation against a real vLLM on the CPU, serving weights that our own trainer wrote.
//!
//! `GRISTMILL_VLLM=DIR` names a Python environment with vLLM; `tests/vllm/run` installs one and runs
//! this. Without it the tests say so and pass. A server takes a minute to start, more on a busy
//! machine, so one test starts two and tells all the stories in turn, each with its time.
//!
//! `GRISTMILL_VLLM_ADDRESS=http://…` takes a server that is up, in development mode and with the model
//! of `make_tiny_model.py`, and leaves out what starts or kills servers.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Instant;

use gristmill::engine::vllm::{Api, ServerConfig, Template, TokenIds, VllmConfig, VllmEngine};
use gristmill::engine::{Engine, Generated, Request, SampleSeed, Sampling};
use gristmill::model::{Batch, Dtype, Model, SharedModel, Tokenizer};
use gristmill::schema::{Message, Role};
use gristmill::train::{Schedule, Sequence, SftConfig, SftTrainer, Trainer};

use crate::support::repository;

mod another_make;
mod engine;
mod grpo;
mod kills;
mod policy;

/// The environment with vLLM, if one is named.
fn environment() -> Option<PathBuf> {
    let dir = std::env::var_os("GRISTMILL_VLLM").map(PathBuf::from);
    if dir.is_none() {
        eprintln!("skipped: no vLLM here (GRISTMILL_VLLM names its environment; tests/vllm/run installs one)");
    }
    dir
}

#[test]
fn a_real_vllm_generates_is_killed_and_follows_a_policy() {
    let Some(environment) = environment() else { return };
    let folder = tempfile::tempdir().unwrap();
    let models = Models::make(&environment, folder.path());
    let told = |story: &str, since: Instant| println!("{story}: {:.0} s", since.elapsed().as_secs_f64());

    let since = Instant::now();
    let (server, address) = match std::env::var("GRISTMILL_VLLM_ADDRESS") {
        Ok(address) => {
            connect(config(&[&address])).reload_weights(&models.trained).unwrap();
            (None, address)
        }
        Err(_) => {
            let server = launch(&environment, &models.trained, 0);
            let address = server.snapshot().endpoints[0].address.clone();
            (Some(server), address)
        }
    };
    told("a server is ready", since);
    type Story = (&'static str, fn(&str, &Models, &Path));
    let stories: [Story; 4] = [
        ("samples, seeds, streams, chats and continuations", engine::tokens_are_the_same_however_they_are_asked),
        ("logprobs beside our engine's", engine::logprobs_are_those_of_our_engine),
        ("a client killed", kills::a_killed_client_goes_on_where_it_was),
        ("three steps of GRPO", policy::servers_follow_a_policy_in_training),
    ];
    for (name, story) in stories {
        let since = Instant::now();
        story(&address, &models, folder.path());
        told(name, since);
    }
    let Some(server) = server else { return };
    let since = Instant::now();
    kills::a_killed_server_costs_no_row(&environment, &address, &models);
    told("a server killed and started again", since);
    drop(server);
    assert!(
        std::net::TcpStream::connect(address.trim_start_matches("http://")).is_err(),
        "the launched server is down"
    );
}

/// Two models of one shape: random weights, and what our trainer made of them.
struct Models {
    base: PathBuf,
    trained: PathBuf,
}

impl Models {
    fn make(environment: &Path, folder: &Path) -> Models {
        let (base, trained) = (folder.join("base"), folder.join("trained"));
        make_tiny_model(environment, &base, &["0"]);
        let tokenizer = Tokenizer::load(&base).unwrap();
        let model = SharedModel::new(Model::load(&base).unwrap());
        let row = |i: u32| {
            let [prompt, answer] =
                [question(i as usize), format!("{}", 2 * i)].map(|text| tokenizer.encode(&text).unwrap());
            Sequence::completion(&prompt, &answer)
        };
        let data: Vec<Sequence> = (0..64).map(row).collect();
        let config = SftConfig { steps: 8, batch_size: 16, schedule: Schedule::constant(1e-3), ..SftConfig::default() };
        let mut trainer = SftTrainer::new(model.clone(), data, config).unwrap();
        while trainer.step() < trainer.total_steps() {
            trainer.advance().unwrap();
        }
        model.read().save(&trained, Dtype::F32).unwrap();
        tokenizer.save(&trained).unwrap();
        Models { base, trained }
    }
}

/// A model with random weights.
fn make_tiny_model(environment: &Path, folder: &Path, how: &[&str]) {
    let script = repository("tests/vllm/make_tiny_model.py");
    let made = Command::new(environment.join("bin/python")).arg(script).arg(folder).args(how).status().unwrap();
    assert!(made.success(), "no tiny model");
}

/// `vllm serve` of a tiny model.
fn server_config(environment: &Path, model: &Path, port: u16) -> ServerConfig {
    let args = ["--served-model-name", "tiny", "--dtype", "float32", "--enforce-eager", "--max-model-len", "512"];
    // vLLM 0.32 on the CPU dies of a seeded request whose prompt is prefilled in pieces: take prompts whole.
    let args = args.into_iter().chain(["--max-num-batched-tokens", "16384"]);
    let variables = [
        ("VLLM_CPU_KVCACHE_SPACE", "1"),
        ("VLLM_SERVER_DEV_MODE", "1"),
        ("HF_HUB_OFFLINE", "1"),
        ("VLLM_NO_USAGE_STATS", "1"),
    ];
    ServerConfig {
        command: environment.join("bin/vllm").display().to_string(),
        model: model.display().to_string(),
        port,
        args: args.map(String::from).collect(),
        env: variables.map(|(k, v)| (k.to_string(), v.to_string())).into(),
        ..ServerConfig::default()
    }
}

/// Starts a server as users do, with `launch = true`; it ends with the engine.
fn launch(environment: &Path, model: &Path, port: u16) -> VllmEngine {
    let server = server_config(environment, model, port);
    VllmEngine::connect(VllmConfig { launch: true, server, ..VllmConfig::default() }, None).unwrap()
}

/// Plain prompts to `/v1/completions`, token ids and logprobs back.
fn config(endpoints: &[&str]) -> VllmConfig {
    VllmConfig {
        endpoints: endpoints.iter().map(|e| e.to_string()).collect(),
        api: Api::Completions,
        template: Template::Plain,
        token_ids: TokenIds::Require,
        logprobs: true,
        ..VllmConfig::default()
    }
}

fn connect(config: VllmConfig) -> VllmEngine {
    VllmEngine::connect(config, None).unwrap()
}

fn question(i: usize) -> String {
    format!("What is {i} + {i}?")
}

/// Four samples of each prompt.
fn requests(prompts: usize, temperature: f32, max_tokens: u32) -> impl Iterator<Item = Request> + Send {
    let sampling = Arc::new(Sampling { temperature, top_p: 1.0, max_tokens, ..Sampling::default() });
    (0..prompts).map(move |i| Request {
        prompt_id: format!("p{i}").into(),
        messages: [Message { role: Role::User, content: question(i) }].into(),
        samples: (0..4).map(|k| SampleSeed::new(1, &format!("p{i}"), k, 0)).collect(),
        sampling: sampling.clone(),
        policy_step: 0,
    })
}

type Rows = BTreeMap<(String, u32), Generated>;

/// Runs to the end; fails on a row that comes twice.
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

/// The largest difference of two lists of logprobs.
fn distance<'a>(a: impl IntoIterator<Item = &'a f32>, b: impl IntoIterator<Item = &'a f32>) -> f32 {
    a.into_iter().zip(b).map(|(x, y)| (x - y).abs()).fold(0.0, f32::max)
}

fn logprobs(rows: &Rows) -> Vec<f32> {
    rows.values().flat_map(|row| row.logprobs.clone().expect("logprobs were asked")).collect()
}

/// Logprobs of a completion by our own transformer.
fn our_logprobs(model: &Model, prompt: &[u32], completion: &[u32]) -> Vec<f32> {
    let mut batch = Batch::new();
    batch.push_completion(prompt, completion);
    model.forward(&mut model.workspace(), &batch).unwrap().logprobs
}
