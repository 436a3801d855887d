//! Evaluations that are stopped, killed, or asked for other figures: what was sampled is not sampled again.

use std::path::Path;
use std::process::{Child, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::time::Duration;

use gristmill::schema::{FinishReason, GroupRow, Outcome, Prompt, Row};
use gristmill::store::{Dataset, ShardWriter, WriterOptions};

use crate::support::openai_server::{Behaviour, Fault, OpenAiServer};
use crate::support::{
    RECIPE, column, command, digests, files, gristmill, leftovers, manifest, repository, write_recordings,
};

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

/// Recordings with two right samples of four for each of ten questions, grouped, and an evaluation of them.
fn write_recorded(folder: &Path, keys: &str) {
    write_recordings(folder, 10);
    let eval = format!("\n[stages.eval]\nmodels = [{{ name = \"recorded\", groups = \"group\" }}]\n{keys}\n");
    let claims = "[stages.claims]\nof = [\"eval\"]\nclaims = [{ text = \"two are better than one\", \
                  left = \"eval.recorded.pass_at_2\", right = \"eval.recorded.pass_at_1\", at_least = 0.3 }]\n";
    std::fs::write(folder.join("recipe.toml"), [RECIPE, &eval, claims].concat()).unwrap();
}

#[test]
fn recorded_completions_get_the_figures_of_sampled_ones() {
    let folder = tempfile::tempdir().unwrap();
    write_recorded(folder.path(), "ks = [2, 4]");
    let planned = gristmill(folder.path(), [&RUN[..], &["--dry-run"]].concat()).succeeded();
    assert!(planned.stderr.contains("no tokens: nothing is sampled"), "{}", planned.story());
    let run = gristmill(folder.path(), RUN).succeeded();
    let figures = |evals: &Path| {
        let of = |name: &str| column(evals, name)[0];
        ["pass_at_1", "pass_at_2", "pass_at_4", "cons_at_k", "truncated", "score/accuracy"].map(of)
    };
    let stage = folder.path().join("out/8_eval");
    let wanted = [0.5, 5.0 / 6.0, 1.0, 1.0, 0.25, 0.5];
    for (figure, wanted) in figures(&stage.join("evals.parquet")).into_iter().zip(wanted) {
        assert!((figure.unwrap() - wanted).abs() < 1e-12, "{figure:?} and not {wanted}\n{}", run.story());
    }
    assert!(run.stderr.contains("holds: two are better than one"), "{}", run.story());
    let told: Vec<&str> = run.stderr.lines().filter(|line| line.trim_start().starts_with("recorded  ")).collect();
    assert!(told.len() == 1 && told[0].contains("83.3%  100.0%  100.0%      25.0%"), "{}", run.story());
    let facts = manifest(&stage)["facts"].clone();
    assert!(facts["rules"].is_null() && facts["rules_digest/recorded"].is_string(), "they are the groups': {facts}");
    assert!(gristmill(folder.path(), RUN).succeeded().state_of("eval").starts_with("cached"));

    // Alone, and of fewer samples of each prompt: the two that are right.
    let alone = "models=[{ name = \"m\", groups = \"out/4_group\" }]";
    let args =
        ["eval", "--prompts", "out/1_prompts", "-s", alone, "-s", "samples=2", "-s", "ks=[2]", "--output", "alone"];
    gristmill(folder.path(), args).succeeded();
    let evals = folder.path().join("alone/1_eval/evals.parquet");
    assert_eq!([column(&evals, "pass_at_1")[0], column(&evals, "pass_at_2")[0]], [Some(1.0); 2]);
}

#[test]
fn rules_that_are_named_judge_recorded_completions_again() {
    let folder = tempfile::tempdir().unwrap();
    write_recorded(folder.path(), "rules = \"rules.toml\"\nks = [2]");
    // Takes every completion that was not cut.
    let other = "reward = \"ends\"\n[rules.ends]\nkind = \"regex\"\npattern = '####'\nregion = \"completion\"\n";
    std::fs::write(folder.path().join("other.toml"), other).unwrap();
    let evals = folder.path().join("out/8_eval/evals.parquet");
    let run = |more: &[&str]| {
        let run = gristmill(folder.path(), [&RUN[..], more].concat()).succeeded();
        let rules = manifest(evals.parent().unwrap())["facts"]["rules_digest"].as_str().unwrap().to_owned();
        (column(&evals, "pass_at_1")[0], rules, run)
    };
    let (pass, own, _) = run(&[]);
    assert_eq!(pass, Some(0.5));
    let groups = digests(&folder.path().join("out/4_group"));
    let (pass, other, again) = run(&["--set", "eval.rules=other.toml"]);
    assert!(pass == Some(0.75) && other != own, "{pass:?}\n{}", again.story());
    assert_eq!(column(&evals, "score/ends")[0], Some(0.75));
    assert_eq!(digests(&folder.path().join("out/4_group")), groups, "the groups stay as they are");

    let bare = ["group", "--prompts", "out/1_prompts", "--completions", "out/2_generate", "--verdicts", "out/3_verify"];
    gristmill(folder.path(), [&bare[..], &["-s", "carry=false", "--output", "bare"]].concat()).succeeded();
    let models = "models=[{ name = \"m\", groups = \"bare/1_group\" }]";
    let eval = ["eval", "--prompts", "out/1_prompts", "-s", models, "--output", "alone"];
    gristmill(folder.path(), eval).succeeded();
    let refused = gristmill(folder.path(), [&eval[..], &["--rules", "other.toml"]].concat());
    assert!(refused.code == Some(1), "{}", refused.story());
    assert!(refused.stderr.contains("do not carry the texts to judge again"), "{}", refused.story());
}

fn golden<R: Row + Send + 'static>(file: &str) -> R {
    let dataset = Dataset::open(&repository(file).into()).unwrap();
    dataset.rows_of::<R>().next().unwrap().unwrap()
}

fn write_rows<R: Row>(folder: &Path, rows: &[R]) {
    let _ = std::fs::remove_dir_all(folder);
    let mut writer = ShardWriter::create(&folder.into(), 0, R::KIND, WriterOptions::default()).unwrap();
    writer.push_rows(rows).unwrap();
    writer.finish().unwrap();
}

#[test]
fn groups_of_any_size_are_measured_and_what_is_no_evaluation_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let prompt = |id: &str, source: &str| Prompt {
        prompt_id: id.into(),
        source: source.into(),
        ..golden::<Prompt>("datasets/golden/v1/prompts.parquet")
    };
    write_rows(&folder.path().join("prompts"), &[prompt("a", "aime"), prompt("b", "math500"), prompt("c", "math500")]);
    let row = |id: &str, size: u32, sample: u32, outcome: Outcome, finish_reason: FinishReason| GroupRow {
        prompt_id: id.into(),
        policy_step: 0,
        sample_index: sample,
        completion_id: format!("{id}{sample}"),
        group_size: size,
        outcome,
        finish_reason,
        scores: Vec::new(),
        ..golden::<GroupRow>("datasets/golden/v1/groups.parquet")
    };
    let (right, wrong, open, stop) = (Outcome::Correct, Outcome::Wrong, Outcome::CannotTell, FinishReason::Stop);
    let rows = vec![
        row("b", 2, 1, wrong, stop),
        row("a", 4, 2, wrong, stop),
        row("a", 4, 0, right, stop),
        row("a", 4, 1, right, FinishReason::Length),
        row("elsewhere", 1, 0, right, stop),
        row("b", 2, 0, open, stop),
        row("a", 4, 3, open, FinishReason::Error),
    ];
    let groups = folder.path().join("groups");
    let eval = || {
        let models = "models=[{ name = \"m\", groups = \"groups\" }]";
        let args = ["eval", "--prompts", "prompts", "-s", models, "-s", "ks=[3]", "-s", "slices=[\"source\"]"];
        gristmill(folder.path(), [&args[..], &["--output", "out"]].concat())
    };
    write_rows(&groups, &rows);
    let run = eval().succeeded();
    let stage = folder.path().join("out/1_eval");
    let of = |name: &str| column(&stage.join("evals.parquet"), name);
    // The whole, then each source.
    assert_eq!(of("pass_at_1"), [Some(1.0 / 3.0), Some(2.0 / 3.0), Some(0.0)]);
    assert_eq!(of("pass_at_3"), [Some(1.0), Some(1.0), None]);
    assert_eq!(of("failed"), [Some(1.0 / 6.0), Some(0.25), Some(0.0)]);
    for told in [
        "m: pass@3: 1 of 2 prompts have fewer judged samples and are not in it",
        "m: the groups have no sample of 1 of 3 prompts",
        "m: 1 samples could not be had",
        "m, source=math500 ",
    ] {
        assert!(run.stderr.contains(told), "no `{told}` in\n{}", run.story());
    }
    let made = manifest(&stage);
    assert_eq!(made["drops"]["prompt_not_measured"], 1);
    assert!(made["counts"]["failed"].is_null(), "nobody can ask those again");
    assert!(eval().succeeded().state_of("eval").starts_with("cached"));

    let mut steps = rows.clone();
    steps[0].policy_step = 9;
    let mut twice = rows.clone();
    twice[1].sample_index = 0;
    let some = rows[..6].to_vec();
    let elsewhere = rows[4..5].to_vec();
    for (rows, told) in [
        (steps, "of several policies (steps 9 and 0)"),
        (twice, "sample 0 of the prompt a is there twice"),
        (some, "is not whole: 3 of its 4 completions"),
        (elsewhere, "none of these groups answers one of the prompts"),
    ] {
        write_rows(&groups, &rows);
        let refused = eval();
        assert!(refused.code == Some(1) && refused.stderr.contains(told), "no `{told}` in\n{}", refused.story());
    }
}
