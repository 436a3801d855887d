//! Evaluations that are stopped, killed, or asked for other figures: what was sampled is not sampled again.

use std::path::Path;
use std::process::{Child, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::time::Duration;

use crate::support::openai_server::{Behaviour, Fault, OpenAiServer};
use crate::support::{column, command, digests, files, gristmill, leftovers, manifest};

const RUN: [&str; 4] = ["run", "recipe.toml", "--out", "out"];
const PROMPTS: u64 = 12;
const SAMPLES: u64 = 4;
const ALL: u64 = PROMPTS * SAMPLES;
/// Requests that servers are sent at once.
const AT_ONCE: u64 = 2;

/// A model that is served, measured in shards of three prompts.
fn write_recipe(folder: &Path, server: &OpenAiServer, name: &str) {
    let recipe = format!(
        r#"name = "measured"
seed = 2
shard_rows = 12

[stages.prompts]
procedural = [{{ count = {PROMPTS}, mix = [{{ name = "mini_mix" }}], levels = [1] }}]

[stages.eval]
models = [{{ name = "{name}", served = true }}]
rules = "r1_mini"
samples = {SAMPLES}
sampling = {{ max_tokens = 16 }}
engine = {{ kind = "vllm", endpoints = ["{}"], max_concurrency = {AT_ONCE} }}
"#,
        server.url()
    );
    std::fs::write(folder.join("recipe.toml"), recipe).unwrap();
}

fn folder_for(server: &OpenAiServer) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    write_recipe(folder.path(), server, "theirs");
    folder
}

fn slow() -> OpenAiServer {
    OpenAiServer::start(Behaviour { latency: Duration::from_millis(30), ..Behaviour::default() })
}

/// Answers that went out, by seed.
fn answered(server: &OpenAiServer) -> Vec<u32> {
    server.seen.by_seed.lock().unwrap().values().copied().collect()
}

/// Starts a run and waits until so many of its samples are answered.
fn run_until(folder: &Path, server: &OpenAiServer, samples: usize) -> Child {
    let child = command(folder).args(RUN).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    while answered(server).len() < samples {
        std::thread::sleep(Duration::from_millis(2));
    }
    child
}

#[test]
fn a_kill_costs_what_was_under_way_and_the_bytes_are_the_same() {
    let server = OpenAiServer::start(Behaviour::default());
    let unstopped = folder_for(&server);
    gristmill(unstopped.path(), RUN).succeeded();
    let reference = digests(&unstopped.path().join("out"));
    let shards = files(&unstopped.path().join("out/2_eval/samples/theirs"));
    assert_eq!(shards.iter().filter(|file| file.ends_with(".parquet")).count(), 4, "{shards:?}");

    let server = slow();
    let folder = folder_for(&server);
    for samples in [5, 20, 33] {
        let mut child = run_until(folder.path(), &server, samples);
        child.kill().unwrap();
        child.wait().unwrap();
    }
    let run = gristmill(folder.path(), RUN).succeeded();
    // The server's address is no part of what was measured.
    assert_eq!(digests(&folder.path().join("out")), reference, "{}", run.story());
    assert_eq!(leftovers(&folder.path().join("out")), [""; 0]);
    let times = answered(&server);
    assert_eq!(times.len() as u64, ALL);
    let twice: u64 = times.iter().map(|&times| u64::from(times - 1)).sum();
    assert!(twice <= 3 * AT_ONCE, "{twice} samples were asked for again after three kills");
}

/// As if killed between the samples' manifest and the end of the journal that it takes the place of.
#[test]
fn a_journal_that_a_kill_left_beside_finished_samples_goes() {
    let server = OpenAiServer::start(Behaviour::default());
    let folder = folder_for(&server);
    gristmill(folder.path(), RUN).succeeded();
    let reference = digests(&folder.path().join("out"));
    let stage = folder.path().join("out/2_eval");
    std::fs::write(stage.join("samples/theirs/_journal"), "what was there").unwrap();
    std::fs::remove_file(stage.join("_manifest.json")).unwrap();
    gristmill(folder.path(), RUN).succeeded();
    assert_eq!(leftovers(&folder.path().join("out")), [""; 0]);
    assert_eq!(digests(&folder.path().join("out")), reference);
    assert_eq!(server.seen.completions.load(SeqCst), ALL, "nothing is asked again");
}

#[cfg(unix)]
#[test]
fn ctrl_c_waits_for_servers_and_nothing_is_asked_twice() {
    let server = slow();
    let folder = folder_for(&server);
    let child = run_until(folder.path(), &server, 10);
    let id = libc::pid_t::try_from(child.id()).unwrap();
    // SAFETY: the child has not been waited for, so the id is still its own.
    assert_eq!(unsafe { libc::kill(id, libc::SIGINT) }, 0);
    let ended = child.wait_with_output().unwrap();
    let said = String::from_utf8(ended.stderr).unwrap();
    assert_eq!(ended.status.code(), Some(130), "{said}");
    assert!((answered(&server).len() as u64) < ALL, "it was stopped on its way");
    gristmill(folder.path(), RUN).succeeded();
    let times = answered(&server);
    assert!(times.len() as u64 == ALL && times.iter().all(|&times| times == 1), "{times:?}");
}

#[test]
fn other_figures_are_computed_from_what_was_sampled() {
    let server = OpenAiServer::start(Behaviour::default());
    let folder = folder_for(&server);
    let run = |more: &[&str]| {
        gristmill(folder.path(), [&RUN[..], more].concat()).succeeded();
        server.seen.completions.load(SeqCst)
    };
    let evals = folder.path().join("out/2_eval/evals.parquet");
    assert_eq!(run(&[]), ALL);
    assert_eq!(column(&evals, "pass_at_2")[0], None);
    assert_eq!(run(&["--set", "eval.ks=[2]"]), ALL);
    assert!(column(&evals, "pass_at_2")[0].is_some());
    assert_eq!(run(&["--set", "eval.slices=[]"]), ALL);
    assert_eq!(column(&evals, "pass_at_1").len(), 1);
    // Other rules judge the same answers.
    assert_eq!(run(&["--set", "eval.rules=r1"]), ALL);
    let rules = manifest(&folder.path().join("out/2_eval"))["facts"]["rules"].clone();
    assert_eq!(rules, "r1");
    // Of more samples only the new ones are asked for.
    let more = format!("eval.samples={}", SAMPLES + 1);
    assert_eq!(run(&["--set", &more]), ALL + PROMPTS);
    // Another temperature is another distribution.
    assert_eq!(run(&["--set", "eval.sampling.temperature=0.7"]), 2 * ALL + PROMPTS);
    assert_eq!(run(&["--set", "eval.sampling.temperature=0.7", "--from", "eval"]), 3 * ALL + PROMPTS);
    // Rows that are to hold more are other rows.
    let last = ["--set", "eval.sampling.temperature=0.7", "--set", "eval.engine.logprobs=true"];
    assert_eq!(run(&last), 4 * ALL + PROMPTS);
    let kept = folder.path().join("out/2_eval/samples");
    assert!(kept.join("theirs").is_dir());
    assert_eq!(run(&[&last[..], &["--set", "eval.keep_samples=false"]].concat()), 4 * ALL + PROMPTS);
    assert!(!kept.exists(), "they are measured, and not kept where nobody wants them");
}

#[test]
fn only_samples_that_failed_are_asked_for_again() {
    static BROKEN: AtomicBool = AtomicBool::new(true);
    static REFUSED: AtomicU64 = AtomicU64::new(0);
    let server = OpenAiServer::start(Behaviour {
        script: Box::new(|ask| {
            let refuses = BROKEN.load(SeqCst) && ask.number % 8 == 3;
            REFUSED.fetch_add(u64::from(refuses), SeqCst);
            if refuses { Fault::ContextOverflow } else { Fault::None }
        }),
        ..Behaviour::default()
    });
    let folder = folder_for(&server);
    let first = gristmill(folder.path(), RUN).succeeded();
    let failed = manifest(&folder.path().join("out/2_eval"))["counts"]["failed"].as_u64().unwrap();
    assert!(failed > 0 && failed < ALL, "{}", first.story());
    BROKEN.store(false, SeqCst);
    let before = server.seen.completions.load(SeqCst);
    let again = gristmill(folder.path(), RUN).succeeded();
    assert_eq!(again.state_of("eval"), format!("will retry {failed} rows that failed"));
    assert_eq!(server.seen.completions.load(SeqCst) - before, failed);
    assert!(gristmill(folder.path(), RUN).succeeded().state_of("eval").starts_with("cached"));
}

#[test]
fn a_models_name_is_no_path() {
    let server = OpenAiServer::start(Behaviour::default());
    let folder = folder_for(&server);
    gristmill(folder.path(), [&RUN[..], &["--only", "prompts"]].concat()).succeeded();
    let prompts = digests(&folder.path().join("out/1_prompts"));
    for (name, sampled) in [("../../1_prompts", "%2E.%2F..%2F1_prompts"), ("Qwen/Qwen2.5", "Qwen%2FQwen2.5")] {
        write_recipe(folder.path(), &server, name);
        gristmill(folder.path(), RUN).succeeded();
        assert_eq!(digests(&folder.path().join("out/1_prompts")), prompts);
        let eval = folder.path().join("out/2_eval");
        assert!(eval.join("samples").join(sampled).join("part-00000.parquet").is_file(), "{:?}", files(&eval));
        let figures = manifest(&eval)["facts"]["figures"].to_string();
        assert!(figures.contains(&format!("{name}.pass_at_1")), "{figures}");
    }
}
