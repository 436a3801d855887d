//! The stage `grpo` with a vLLM that it starts itself: what it learns, what it leaves, what it survives.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use gristmill::engine::vllm::{PolicyServers, PolicyWeights, Probe, Template, VllmConfig};
use gristmill::model::{Batch, Dtype, Model, Tokenizer};
use gristmill::schema::GroupRow;
use gristmill::store::{Dataset, Location};
use serde_json::json;

use super::{environment, make_tiny_model, question, server_config};
use crate::support::{column, command, gristmill};

const RUN: [&str; 4] = ["run", "recipe.toml", "--out", "out"];

/// A completion of four tokens is worth 1 if it holds a lower-case letter: a random model's is in one of three.
const RULES: &str =
    "reward = \"letter\"\n[rules.letter]\nkind = \"regex\"\nregion = \"completion\"\npattern = '[a-z]'\n";

struct Story {
    folder: tempfile::TempDir,
    model: PathBuf,
}

impl Story {
    /// A recipe that starts a server of a tied model. `more` goes into the engine's table, `stage` into the stage's.
    fn new(environment: &Path, steps: u64, more: &str, stage: &str, training: &str) -> Story {
        let folder = tempfile::tempdir().unwrap();
        let model = folder.path().join("tied");
        make_tiny_model(environment, &model, &["0", "tied"]);
        let line = |i: usize| format!("{}\n", json!({"question": question(i), "answer": (2 * i).to_string()}));
        let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
        write("questions.jsonl", &(0..32).map(line).collect::<String>());
        write("rules.toml", RULES);
        let server = server_config(environment, &model, 0);
        let args = serde_json::to_string(&server.args[2..]).unwrap();
        // Neither of the two ways: the stage knows itself what its server needs.
        let env: Vec<String> = server
            .env
            .iter()
            .filter(|(k, _)| *k != "VLLM_SERVER_DEV_MODE")
            .map(|(k, v)| format!("{k} = {v:?}"))
            .collect();
        write(
            "recipe.toml",
            &format!(
                r#"name = "served"
seed = 2

[stages.prompts]
sources = [{{ path = "questions.jsonl", domain = "math", language = "en", license = "CC0-1.0" }}]

[stages.grpo]
model = "tied"
prompts = "prompts"
rules = "rules.toml"
group_size = 8
sampling = {{ temperature = 1.0, top_p = 1.0, max_tokens = 4 }}
training = {{ steps = {steps}, prompts_per_rollout = 8, minibatches = 1, objective = {{ kl_coefficient = 0.0, correction = {{}} }}, schedule = {{ learning_rate = 1e-2, decay = "constant" }}{training} }}
checkpoints = {{ every = 1, keep = 2 }}
{stage}
[stages.grpo.engine]
kind = "vllm"
launch = true
tolerance = 0.01
{more}
server = {{ command = {:?}, model = "tied", args = {args}, env = {{ {} }} }}
"#,
                server.command,
                env.join(", ")
            ),
        );
        Story { folder, model }
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }

    fn stage(&self) -> PathBuf {
        self.path().join("out/2_grpo")
    }

    fn rollouts(&self) -> Vec<GroupRow> {
        let folder = self.stage().join("rollouts");
        let dataset = Dataset::open(&Location::parse(folder.to_str().unwrap()).unwrap()).unwrap();
        dataset.rows_of::<GroupRow>().map(Result::unwrap).collect()
    }

    /// A column of one of the stage's tables; missing values are 0.
    fn column(&self, table: &str, name: &str) -> Vec<f64> {
        column(&self.stage().join(table), name).into_iter().map(Option::unwrap_or_default).collect()
    }

    /// Prints the table of the run; answers with the rewards.
    fn tell(&self, what: &str) -> Vec<f64> {
        let of = |name: &str| self.column("metrics.parquet", name);
        let (rewards, gaps, worst, age) =
            (of("reward_mean"), of("rollout_gap"), of("rollout_gap_max"), of("rollout_age"));
        let [reload, rollout, update] =
            ["reload_seconds", "rollout_seconds", "update_seconds"].map(|name| self.column("times.parquet", name));
        println!(
            "{what}\n| step | reward | mean gap | largest gap | largest ratio | age | reload, s | rollout, s | update, s |"
        );
        for i in 0..rewards.len() {
            println!(
                "| {i} | {:.3} | {:.1e} | {:.1e} | {:.6} | {} | {:.2} | {:.2} | {:.2} |",
                rewards[i],
                gaps[i],
                worst[i],
                worst[i].exp(),
                age[i],
                reload[i],
                rollout[i],
                update[i]
            );
        }
        rewards
    }

    fn spawn(&self) -> Child {
        command(self.path()).args(RUN).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
    }

    /// Waits until there is a checkpoint of at least this step.
    fn until_checkpoint(&self, child: &mut Child, step: u64) {
        let since = Instant::now();
        loop {
            let entries = std::fs::read_dir(self.stage().join("checkpoints")).into_iter().flatten().flatten();
            let steps = entries.filter_map(|e| e.file_name().to_str()?.rsplit('-').next()?.parse::<u64>().ok());
            if steps.max().is_some_and(|s| s >= step) {
                return;
            }
            assert!(
                child.try_wait().unwrap().is_none() && since.elapsed() < Duration::from_secs(400),
                "it ended too soon"
            );
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Processes that serve this story's model.
    fn servers(&self) -> Vec<String> {
        let model = self.model.parent().unwrap().to_str().unwrap();
        let processes = std::fs::read_dir("/proc").unwrap().flatten();
        let line = |entry: std::fs::DirEntry| {
            let text = std::fs::read(entry.path().join("cmdline")).ok()?;
            let text = String::from_utf8_lossy(&text).replace('\0', " ");
            let here = std::fs::read_link(entry.path().join("cwd")).is_ok_and(|cwd| cwd.starts_with(model));
            (here && !text.is_empty()).then_some(text)
        };
        processes.filter_map(line).collect()
    }

    fn until_no_server(&self) {
        let since = Instant::now();
        while !self.servers().is_empty() {
            assert!(since.elapsed() < Duration::from_secs(60), "still there: {:?}", self.servers());
            std::thread::sleep(Duration::from_millis(100));
        }
    }
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

/// Every rollout, by what names it.
fn by_sample(rows: Vec<GroupRow>) -> BTreeMap<(u64, String, u32), Vec<u32>> {
    let n = rows.len();
    let rows: BTreeMap<_, _> = rows
        .into_iter()
        .map(|row| ((row.policy_step, row.prompt_id, row.sample_index), row.token_ids.unwrap()))
        .collect();
    assert_eq!(rows.len(), n, "a rollout is there twice");
    rows
}

#[test]
fn at_a_temperature_a_server_reports_the_logprobs_of_the_policy_that_is_trained() {
    let Some(environment) = environment() else { return };
    let story = Story::new(&environment, 3, "", "", "");
    gristmill(story.path(), [&RUN[..], &["--set", "grpo.sampling.temperature=0.7"]].concat()).succeeded();
    story.tell("grpo at temperature 0.7, a server of its own");
    assert!(story.column("metrics.parquet", "rollout_gap_max").iter().all(|&gap| gap < 1e-3));
    assert!(story.rollouts().iter().all(|row| row.sampling.contains("\"temperature\":0.7")));
}

#[test]
fn grpo_over_a_server_of_its_own_learns_and_survives_kills() {
    let Some(environment) = environment() else { return };
    const STEPS: u64 = 8;
    let whole = Story::new(&environment, STEPS, "", "", "");
    let run = gristmill(whole.path(), RUN).succeeded();
    whole.until_no_server();
    let rewards = whole.tell("grpo, a server of its own, whole checkpoints of a tied model");
    assert!(mean(&rewards[5..]) > mean(&rewards[..2]) + 0.2, "{rewards:?}");
    assert!(whole.column("metrics.parquet", "rollout_gap_max").iter().all(|&gap| gap < 1e-3));
    let rows = whole.rollouts();
    assert_eq!(rows.len(), STEPS as usize * 64);
    let steps: Vec<u64> = rows.chunks(64).map(|batch| batch[0].policy_step).collect();
    assert_eq!(steps, (0..STEPS).collect::<Vec<_>>());
    assert!(rows.chunks(64).all(|batch| batch.iter().all(|row| row.policy_step == batch[0].policy_step)));
    assert!(rows.iter().all(|row| row.model == "grpo" && row.logprobs.is_some()));
    let log = whole.path().join("out/grpo.server.log");
    assert!(std::fs::read_to_string(&log).unwrap().contains("vLLM"), "{}", run.story());
    assert!(!whole.stage().join("policy").exists());
    let trained = Model::load(&whole.stage().join("model")).unwrap();
    assert!(trained.config().tied, "what is saved is the model as it was, tied");

    // Killed by the system, which the server must not survive; stopped by Ctrl-C; and to the end.
    let stopped = Story::new(&environment, STEPS, "", "", "");
    let mut child = stopped.spawn();
    stopped.until_checkpoint(&mut child, 3);
    assert!(!stopped.servers().is_empty(), "the story sees its server");
    child.kill().unwrap();
    child.wait().unwrap();
    stopped.until_no_server();
    println!("the client was killed: its server is gone");
    let mut child = stopped.spawn();
    stopped.until_checkpoint(&mut child, 5);
    assert!(std::process::Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap().success());
    assert_eq!(child.wait().unwrap().code(), Some(130));
    stopped.until_no_server();
    println!("the client was interrupted: its server is gone");
    gristmill(stopped.path(), RUN).succeeded();
    stopped.until_no_server();
    assert_eq!(by_sample(stopped.rollouts()), by_sample(rows), "no token changed, none lost, none doubled");
    // Logprobs of another server are the same to rounding only, and they weigh the loss.
    let resumed = Model::load(&stopped.stage().join("model")).unwrap();
    let far = trained.parameters().iter().flat_map(|info| {
        let (a, b) = (trained.get(info), resumed.get(info));
        a.into_iter().zip(b).map(|(a, b)| (a - b).abs()).collect::<Vec<_>>()
    });
    let far = far.fold(0f32, f32::max);
    println!("killed twice and resumed, every weight is within {far:e} of the run that was not");
    assert!(far < 1e-3);
}

#[test]
fn grpo_sends_adapters_in_place_of_checkpoints() {
    let Some(environment) = environment() else { return };
    let story = Story::new(&environment, 8, "send = \"lora\"", "lora = { rank = 8, alpha = 32.0 }\n", "");
    gristmill(story.path(), RUN).succeeded();
    story.until_no_server();
    let rewards = story.tell("grpo, a server of its own, LoRA adapters");
    assert!(mean(&rewards[5..]) > mean(&rewards[..2]) + 0.1, "{rewards:?}");
    assert!(story.column("metrics.parquet", "rollout_gap_max").iter().all(|&gap| gap < 1e-3));
}

#[test]
fn grpo_samples_ahead_while_it_updates() {
    let Some(environment) = environment() else { return };
    let story = Story::new(&environment, 8, "", "", ", rollouts_ahead = 1");
    gristmill(story.path(), RUN).succeeded();
    story.until_no_server();
    let rewards = story.tell("grpo, a server of its own, rollouts one batch ahead");
    let steps: Vec<u64> = story.rollouts().chunks(64).map(|batch| batch[0].policy_step).collect();
    assert_eq!(steps, [0, 0, 1, 2, 3, 4, 5, 6]);
    assert!(mean(&rewards[5..]) > mean(&rewards[..2]) + 0.2, "{rewards:?}");
}

/// What a policy says of a text, for a server that shall say the same.
fn probe(model: &Model, tokenizer: &Tokenizer) -> Probe {
    let tokens = tokenizer.encode("What is 3 + 3? It is 6, as everybody knows.").unwrap();
    let mut batch = Batch::new();
    batch.push(&tokens, |_| true);
    let logprobs = model.forward(&mut model.workspace(), &batch).unwrap().logprobs;
    Probe { tokens, logprobs, tolerance: 1e-3 }
}

#[test]
fn a_head_that_a_server_keeps_is_found_and_one_with_a_name_is_taken() {
    let Some(environment) = environment() else { return };
    let folder = tempfile::tempdir().unwrap();
    let [served, next, tied, named] = ["served", "next", "tied", "named"].map(|name| folder.path().join(name));
    make_tiny_model(&environment, &served, &["0", "tied"]);
    make_tiny_model(&environment, &next, &["1", "tied"]);
    let tokenizer = std::sync::Arc::new(Tokenizer::load(&served).unwrap());
    let server = server_config(&environment, &served, 0);
    let plain = VllmConfig { launch: true, server, template: Template::Plain, ..VllmConfig::default() };
    let mut servers = PolicyServers::connect(plain, tokenizer.clone()).unwrap();

    let model = Model::load(&next).unwrap();
    model.save(&tied, Dtype::F32).unwrap();
    model.save_untied(&named, Dtype::F32).unwrap();
    let probe = probe(&model, &tokenizer);
    match servers.load(1, &PolicyWeights::Checkpoint(tied), Some(probe.clone())) {
        Err(error) => {
            let text = error.render(false);
            println!("{text}");
            assert!(text.contains("answers as another") && text.contains("tied embeddings"), "{text}");
            assert_eq!(servers.policy_step(), None);
        }
        Ok(loaded) => println!("this vLLM takes a tied head: within {:e} nats a token", loaded.gap.unwrap()),
    }
    let loaded = servers.load(2, &PolicyWeights::Checkpoint(named), Some(probe)).unwrap();
    println!("a head by its name: within {:e} nats a token, loaded in {:.2} s", loaded.gap.unwrap(), loaded.seconds);
    assert!(loaded.gap.unwrap() < 1e-4);
}
