//! A finished run with rows that failed, run again: those rows are asked again and nothing else, and
//! whatever moment that is killed at, it ends as a run in which nothing ever failed.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Child, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering::SeqCst};
use std::time::{Duration, Instant};

use crate::support::kills::Killer;
use crate::support::openai_server::{Ask, Behaviour, Fault, OpenAiServer};
use crate::support::{command, digests, files, gristmill, leftovers, manifest, slow_tests, write_recordings};

const RUN: [&str; 4] = ["run", "recipe.toml", "--out", "out"];
/// Shards of 32 prompts. Rows of four prompts fail, in the shards 0, 1, 3 and 4.
const RECIPE: &str = r#"name = "retry"
seed = 3
shard_rows = 64

[stages.prompts]
sources = [{ path = "questions.jsonl", domain = "math", language = "en" }]

[stages.generate]
samples = 2
sampling = { max_tokens = 16 }
engine = { kind = "vllm", endpoints = ["URL"], max_concurrency = 8 }

[stages.verify]
rules = "rules.toml"
"#;
const FAILED: u64 = 8;

/// A server that answers; or refuses four prompts; or leaves the last of these without an answer.
struct Server {
    server: OpenAiServer,
    mood: Arc<AtomicU8>,
}

const ANSWERS: u8 = 0;
const REFUSES: u8 = 1;
const HANGS: u8 = 2;

impl Server {
    fn start() -> Self {
        let mood = Arc::new(AtomicU8::new(ANSWERS));
        let asked = Arc::clone(&mood);
        let script = move |ask: &Ask<'_>| {
            let prompt = ask.body["messages"].to_string();
            let is_about = |days: &[u32]| days.iter().any(|day| prompt.contains(&format!("On day {day} ")));
            match asked.load(SeqCst) {
                REFUSES if is_about(&[7, 57, 107, 157]) => Fault::Status(400),
                HANGS if is_about(&[157]) => Fault::Hang,
                _ => Fault::None,
            }
        };
        let latency = Duration::from_millis(4);
        let server = OpenAiServer::start(Behaviour { script: Box::new(script), latency, ..Behaviour::default() });
        Server { server, mood }
    }

    fn is(&self, mood: u8) {
        self.mood.store(mood, SeqCst);
    }

    fn asked(&self) -> u64 {
        self.server.seen.completions.load(SeqCst)
    }
}

fn prepare(folder: &Path, server: &Server) {
    write_recordings(folder, 200);
    std::fs::write(folder.join("recipe.toml"), RECIPE.replace("URL", &server.server.url())).unwrap();
}

/// What a run in which nothing fails leaves.
fn reference(server: &Server) -> BTreeMap<String, String> {
    let folder = tempfile::tempdir().unwrap();
    prepare(folder.path(), server);
    server.is(ANSWERS);
    gristmill(folder.path(), RUN).succeeded();
    digests(&folder.path().join("out"))
}

/// A finished run with failed rows.
fn with_failures(server: &Server) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    prepare(folder.path(), server);
    server.is(REFUSES);
    let run = gristmill(folder.path(), RUN).succeeded();
    let said = format!("{FAILED} of 400 requests failed; first: ");
    assert!(run.stderr.contains(&said), "{}", run.story());
    assert_eq!(manifest(&folder.path().join("out/2_generate"))["counts"]["failed"], FAILED);
    folder
}

fn start(folder: &Path) -> Child {
    command(folder).args(RUN).stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("the command starts")
}

fn kill(mut child: Child) {
    child.kill().expect("a child can be killed");
    child.wait().expect("a child can be waited for");
}

#[track_caller]
fn ends_as(reference: &BTreeMap<String, String>, folder: &Path) {
    gristmill(folder, RUN).succeeded();
    let out = folder.join("out");
    assert_eq!(leftovers(&out), [""; 0]);
    let made = digests(&out);
    let differing: Vec<_> = reference.iter().filter(|(file, digest)| made.get(*file) != Some(digest)).collect();
    assert!(differing.is_empty() && made.len() == reference.len(), "{differing:#?}");
}

#[test]
fn failed_rows_are_asked_again_and_no_others() {
    let server = Server::start();
    let reference = reference(&server);
    let folder = with_failures(&server);
    let before = server.asked();
    let again = gristmill(folder.path(), RUN).succeeded();
    assert_eq!(again.state_of("generate"), format!("will retry {FAILED} rows that failed"));
    assert_eq!(server.asked() - before, FAILED);
    assert_eq!(manifest(&folder.path().join("out/2_generate"))["counts"]["failed"], FAILED, "they failed again");
    server.is(ANSWERS);
    ends_as(&reference, folder.path());
    assert_eq!(server.asked() - before, 2 * FAILED);
}

#[test]
fn a_retry_killed_between_its_shards_goes_on_with_what_is_missing() {
    let server = Server::start();
    let reference = reference(&server);
    let folder = with_failures(&server);
    let generate = folder.path().join("out/2_generate");
    let before = server.asked();
    let shard = |index: usize| std::fs::read(generate.join(format!("part-0000{index}.parquet"))).ok();
    let old = [0, 1, 3].map(shard);
    server.is(HANGS);
    let child = start(folder.path());
    // Three of the four shards are replaced, and the fourth never will be.
    let replaced = || [0, 1, 3].map(shard).iter().zip(&old).all(|(now, old)| now.is_some() && now != old);
    let began = Instant::now();
    while !replaced() {
        assert!(began.elapsed() < Duration::from_secs(60), "no shard is replaced: {:#?}", files(&generate));
        std::thread::sleep(Duration::from_millis(20));
    }
    kill(child);
    assert!(!generate.join("_manifest.json").exists(), "a manifest of shards that are gone");
    // What is not finished is not read as if it were.
    let early = gristmill(folder.path(), RUN.iter().chain(&["--only", "verify"]));
    assert!(early.stderr.contains("the stage `generate` is not finished"), "{}", early.story());
    server.is(ANSWERS);
    ends_as(&reference, folder.path());
    // The two samples that hung are asked once more; all else was kept.
    assert!(server.asked() - before <= FAILED + 2, "{} requests", server.asked() - before);
}

#[test]
fn a_retry_killed_at_random_points_ends_with_the_same_bytes() {
    let points = if slow_tests() { 50 } else { 8 };
    let server = Server::start();
    let reference = reference(&server);
    let began = Instant::now();
    let whole = with_failures(&server);
    server.is(ANSWERS);
    ends_as(&reference, whole.path());
    let mut killer = Killer::new(&RUN, began.elapsed() / 2, 5);
    for point in 0..points {
        let folder = killer.begin(|| {
            let folder = with_failures(&server);
            server.is(ANSWERS);
            folder
        });
        if point % 2 == 1 {
            killer.again(folder.path());
        }
        ends_as(&reference, folder.path());
    }
}
