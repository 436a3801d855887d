//! `generate` with servers: interrupted, moved, swapped, in any order.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Stdio;
use std::sync::atomic::Ordering::SeqCst;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::support::openai_server::{Ask, Behaviour, OpenAiServer};
use crate::support::{command, digests, files, gristmill, leftovers, manifest, write_recordings};

const RUN: [&str; 4] = ["run", "recipe.toml", "--out", "out"];
const PROMPTS: usize = 200;
const ROWS: u64 = 2 * PROMPTS as u64;

/// 200 questions, two samples each, in seven shards. `more` goes into the engine's table.
fn prepare(folder: &Path, server: &OpenAiServer, more: &str) {
    write_recordings(folder, PROMPTS);
    let recipe = format!(
        r#"name = "servers"
seed = 3
shard_rows = 64

[stages.prompts]
sources = [{{ path = "questions.jsonl", domain = "math", language = "en", license = "CC0-1.0" }}]

[stages.generate]
samples = 2
sampling = {{ max_tokens = 16 }}
engine = {{ kind = "vllm", endpoints = ["{}"], max_concurrency = 8, threads = 1{more} }}
"#,
        server.url()
    );
    std::fs::write(folder.join("recipe.toml"), recipe).unwrap();
}

fn slow() -> Behaviour {
    Behaviour { latency: Duration::from_millis(10), ..Behaviour::default() }
}

fn asked(server: &OpenAiServer) -> u64 {
    server.seen.completions.load(SeqCst)
}

fn wait_until(what: &str, happened: impl Fn() -> bool) {
    let since = Instant::now();
    while !happened() {
        assert!(since.elapsed() < Duration::from_secs(60), "{what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[cfg(unix)]
#[test]
fn ctrl_c_answers_what_is_in_flight_and_nothing_is_asked_twice() {
    let server = OpenAiServer::start(slow());
    let whole = tempfile::tempdir().unwrap();
    prepare(whole.path(), &server, "");
    let run = gristmill(whole.path(), RUN).succeeded();
    assert!(run.stderr.contains("requests  completions  tokens in  tokens out"), "{}", run.story());
    assert!(run.stderr.contains(&server.url()) && run.stderr.contains("3,200 tokens in"), "{}", run.story());

    let folder = tempfile::tempdir().unwrap();
    prepare(folder.path(), &server, "");
    let before = asked(&server);
    let child = command(folder.path()).args(RUN).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    wait_until("half of it is asked", || asked(&server) - before > ROWS / 2);
    // SAFETY: the child has not been waited for, so the id is still its own.
    assert_eq!(unsafe { libc::kill(libc::pid_t::try_from(child.id()).unwrap(), libc::SIGINT) }, 0);
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(130), "{said}");
    assert!(said.contains("requests in flight are answered"), "{said}");
    assert!(asked(&server) - before < ROWS, "it was interrupted");
    gristmill(folder.path(), RUN).succeeded();
    assert_eq!(asked(&server) - before, ROWS, "all that was in flight was kept");
    assert_eq!(leftovers(&folder.path().join("out")), [""; 0]);
    assert_eq!(digests(&folder.path().join("out")), digests(&whole.path().join("out")));
}

/// Starts a run and kills it once half is asked.
fn kill_halfway(folder: &Path, server: &OpenAiServer) {
    let before = asked(server);
    let mut child = command(folder).args(RUN).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    wait_until("half of it is asked", || asked(server) - before > ROWS / 2);
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn another_model_than_the_one_that_began_stops_the_run() {
    let server = OpenAiServer::start(slow());
    let folder = tempfile::tempdir().unwrap();
    prepare(folder.path(), &server, ", model = \"tiny\"");
    kill_halfway(folder.path(), &server);
    let other = OpenAiServer::start(Behaviour { root: "/models/other".into(), ..slow() });
    prepare(folder.path(), &other, ", model = \"tiny\"");
    let refusal = gristmill(folder.path(), RUN).refusal();
    assert!(refusal.starts_with("exit 1") && refusal.contains("was begun with another model"), "{refusal}");
    assert!(refusal.contains("--from generate"), "{refusal}");
    assert_eq!(asked(&other), 0);
    // Where the recipe says where, another server is another configuration; what there is stays all the same.
    let before = files(&folder.path().join("out/2_generate"));
    prepare(folder.path(), &other, ", model = \"tiny\", n_per_request = 2");
    let refusal = gristmill(folder.path(), RUN).refusal();
    assert!(refusal.contains("was begun with another model"), "{refusal}");
    assert_eq!(files(&folder.path().join("out/2_generate")), before);
    // The first one can still go on, and the second one begin anew.
    prepare(folder.path(), &server, ", model = \"tiny\"");
    gristmill(folder.path(), RUN).succeeded();
    assert!(asked(&server) <= ROWS + 32, "{} asked", asked(&server));
    prepare(folder.path(), &other, ", model = \"tiny\"");
    gristmill(folder.path(), RUN.iter().chain(&["--from", "generate"])).succeeded();
    assert_eq!(asked(&other), ROWS);
}

#[test]
fn from_generate_begins_anew_after_a_kill_too() {
    let server = OpenAiServer::start(slow());
    let folder = tempfile::tempdir().unwrap();
    prepare(folder.path(), &server, ", model = \"tiny\"");
    kill_halfway(folder.path(), &server);
    let other = OpenAiServer::start(Behaviour { root: "/models/other".into(), ..slow() });
    prepare(folder.path(), &other, ", model = \"tiny\"");
    let anew = gristmill(folder.path(), RUN.iter().chain(&["--from", "generate"])).succeeded();
    assert_eq!(anew.state_of("generate"), "will run: `--from` asks for it");
    assert_eq!(asked(&other), ROWS);
}

#[test]
fn a_named_model_may_move_to_another_server_in_the_middle() {
    let (here, there) = (OpenAiServer::start(slow()), OpenAiServer::start(slow()));
    let folder = tempfile::tempdir().unwrap();
    prepare(folder.path(), &here, ", model = \"tiny\"");
    kill_halfway(folder.path(), &here);
    prepare(
        folder.path(),
        &there,
        ", model = \"tiny\", token_timeout_s = 2.0, prices = { prompt = 1.0, completion = 2.0 }",
    );
    let run = gristmill(folder.path(), RUN).succeeded();
    let both = asked(&here) + asked(&there);
    // What was in flight at the kill is asked again, and nothing else.
    assert!((ROWS..=ROWS + 32).contains(&both) && asked(&there) < ROWS, "{both} asked\n{}", run.story());
    assert!(run.stderr.contains("cost 0.00 USD"), "{}", run.story());
    // Finished, it is finished wherever the servers are.
    prepare(folder.path(), &here, ", model = \"tiny\", max_attempts = 3");
    assert!(gristmill(folder.path(), RUN).succeeded().state_of("generate").starts_with("cached"));
    // Without a name the address is what names the model.
    prepare(folder.path(), &here, "");
    assert!(!gristmill(folder.path(), RUN).succeeded().state_of("generate").starts_with("cached"));
}

#[test]
fn a_finished_stage_that_is_made_anew_keeps_the_answers_that_are_still_asked_for() {
    let (server, other) = (OpenAiServer::start(Behaviour::default()), OpenAiServer::start(Behaviour::default()));
    let edit = |folder: &Path, from: &str, to: &str| {
        let path = folder.join("recipe.toml");
        let recipe = std::fs::read_to_string(&path).unwrap();
        assert!(recipe.contains(from), "{recipe}");
        std::fs::write(&path, recipe.replace(from, to)).unwrap();
    };
    let folder = tempfile::tempdir().unwrap();
    prepare(folder.path(), &server, "");
    gristmill(folder.path(), RUN).succeeded();
    // Another address, with the same model behind it.
    edit(folder.path(), &server.url(), &other.url());
    let plan = gristmill(folder.path(), RUN.iter().chain(&["--dry-run"])).succeeded();
    assert!(plan.stderr.contains(&format!("of its {ROWS} answers those are kept")), "{}", plan.story());
    let moved = gristmill(folder.path(), RUN).succeeded();
    assert!(moved.stderr.contains(&format!("{ROWS} answers of the finished stage are kept")), "{}", moved.story());
    assert_eq!(asked(&other), 0, "{}", moved.story());
    // One sample more of each, then one prompt more.
    edit(folder.path(), "samples = 2", "samples = 3");
    gristmill(folder.path(), RUN).succeeded();
    assert_eq!(asked(&other), PROMPTS as u64);
    let questions = folder.path().join("questions.jsonl");
    let text = std::fs::read_to_string(&questions).unwrap();
    std::fs::write(&questions, format!("{{\"question\": \"What is 1 + 1?\", \"answer\": \"2\"}}\n{text}")).unwrap();
    gristmill(folder.path(), RUN).succeeded();
    assert_eq!(asked(&other), PROMPTS as u64 + 3);
    assert_eq!(leftovers(&folder.path().join("out")), [""; 0]);
    let fresh = gristmill(folder.path(), ["run", "recipe.toml", "--out", "fresh"]).succeeded();
    assert!(!fresh.stderr.contains("are kept"), "{}", fresh.story());
    let generated = |out: &str| digests(&folder.path().join(out).join("2_generate"));
    assert_eq!(generated("out"), generated("fresh"));
    // Asked in another way, none of them is an answer.
    let before = asked(&other);
    edit(folder.path(), "max_tokens = 16", "max_tokens = 17");
    gristmill(folder.path(), RUN).succeeded();
    assert_eq!(asked(&other) - before, 3 * (PROMPTS as u64 + 1));
}

#[test]
fn the_order_of_asking_is_chosen_and_changes_no_byte() {
    let mut made = Vec::new();
    for order in ["", "order = \"given\"", "order = \"longest\"", "order = \"prefix\""] {
        let seen = Arc::new(Mutex::new(Vec::<String>::new()));
        let log = Arc::clone(&seen);
        let script = move |ask: &Ask<'_>| {
            log.lock().unwrap().push(ask.body["messages"][0]["content"].as_str().unwrap().to_owned());
            crate::support::openai_server::Fault::None
        };
        let server = OpenAiServer::start(Behaviour { script: Box::new(script), ..Behaviour::default() });
        let folder = tempfile::tempdir().unwrap();
        prepare(folder.path(), &server, ", model = \"tiny\"");
        // As written the questions begin with rising numbers, which is nearly the order of their text.
        let questions = std::fs::read_to_string(folder.path().join("questions.jsonl")).unwrap();
        let reversed: String = questions.lines().rev().map(|line| format!("{line}\n")).collect();
        std::fs::write(folder.path().join("questions.jsonl"), reversed).unwrap();
        let path = folder.path().join("recipe.toml");
        let recipe = std::fs::read_to_string(&path).unwrap().replace("max_concurrency = 8", "max_concurrency = 1");
        std::fs::write(&path, recipe.replace("samples = 2", &format!("samples = 2\n{order}"))).unwrap();
        gristmill(folder.path(), RUN).succeeded();
        made.push(digests(&folder.path().join("out/2_generate")));
        assert_eq!(manifest(&folder.path().join("out/2_generate"))["rows"], ROWS);
        let mut asked = seen.lock().unwrap().clone();
        asked.dedup();
        // Tasks may swap neighbours on their way out; an order is seen all the same.
        assert!(asked.len() <= PROMPTS * 5 / 4, "the samples of a prompt are asked together: {}", asked.len());
        let in_order = |ordered: fn(&str, &str) -> bool| {
            asked.windows(2).filter(|pair| ordered(&pair[0], &pair[1])).count() > PROMPTS * 9 / 10
        };
        let (longest, prefix) = (in_order(|a, b| a.len() >= b.len()), in_order(|a, b| a <= b));
        let expected = match order {
            "" | "order = \"longest\"" => (true, false),
            "order = \"prefix\"" => (false, true),
            _ => (false, false),
        };
        assert_eq!((longest, prefix), expected, "{order}");
    }
    assert_eq!(BTreeSet::from_iter(&made).len(), 1, "the same bytes in any order");
}

#[test]
fn changed_settings_do_not_mix_with_answers_of_before_and_that_is_told() {
    let server = OpenAiServer::start(slow());
    for (sampling, more) in [("max_tokens = 16, temperature = 0.1", ""), ("max_tokens = 16", ", logprobs = true")] {
        let folder = tempfile::tempdir().unwrap();
        prepare(folder.path(), &server, ", model = \"tiny\"");
        kill_halfway(folder.path(), &server);
        prepare(folder.path(), &server, &format!(", model = \"tiny\"{more}"));
        let path = folder.path().join("recipe.toml");
        let recipe = std::fs::read_to_string(&path).unwrap();
        std::fs::write(
            &path,
            recipe.replace("sampling = { max_tokens = 16 }", &format!("sampling = {{ {sampling} }}")),
        )
        .unwrap();
        let before = asked(&server);
        let run = gristmill(folder.path(), RUN).succeeded();
        assert_eq!(asked(&server) - before, ROWS, "everything is asked anew\n{}", run.story());
        assert!(run.stderr.contains("answers of an unfinished run are forgotten"), "{}", run.story());
    }
}

#[test]
fn a_journal_with_a_damaged_answer_loses_that_one_and_tells() {
    let server = OpenAiServer::start(slow());
    let folder = tempfile::tempdir().unwrap();
    prepare(folder.path(), &server, ", model = \"tiny\"");
    // All in one shard, so that every answer is still needed.
    let path = folder.path().join("recipe.toml");
    let recipe = std::fs::read_to_string(&path).unwrap().replace("shard_rows = 64", "shard_rows = 4096");
    std::fs::write(&path, recipe).unwrap();
    let before = asked(&server);
    kill_halfway(folder.path(), &server);
    let journal = folder.path().join("out/2_generate/_requests");
    let mut bytes = std::fs::read(&journal).unwrap();
    let middle = bytes.len() / 2;
    // A byte of a text: the record's own length stays what it was.
    let at = middle + bytes[middle..].windows(7).position(|w| w == b"\"text\":").unwrap() + 9;
    bytes[at] ^= 1;
    std::fs::write(&journal, &bytes).unwrap();
    let run = gristmill(folder.path(), RUN).succeeded();
    assert!(run.stderr.contains("1 damaged records"), "{}", run.story());
    assert!(asked(&server) - before <= ROWS + 32, "the others were kept: {}", asked(&server) - before);
    assert_eq!(manifest(&folder.path().join("out/2_generate"))["rows"], ROWS);
}

#[test]
fn a_stage_of_which_every_request_failed_is_an_error_with_its_cause() {
    use crate::support::openai_server::Fault;
    use std::sync::atomic::AtomicBool;
    let bad = Arc::new(AtomicBool::new(true));
    let mood = Arc::clone(&bad);
    let script = move |_: &Ask<'_>| if mood.load(SeqCst) { Fault::ContextOverflow } else { Fault::None };
    let server = OpenAiServer::start(Behaviour { script: Box::new(script), ..Behaviour::default() });
    let folder = tempfile::tempdir().unwrap();
    prepare(folder.path(), &server, ", model = \"tiny\"");
    let refusal = gristmill(folder.path(), RUN).refusal();
    assert!(
        refusal.starts_with("exit 1") && refusal.contains("all 400 requests failed: context_overflow"),
        "{refusal}"
    );
    assert!(refusal.contains("max_tokens") && refusal.contains("maximum context length is 512"), "{refusal}");
    let generate = folder.path().join("out/2_generate");
    assert_eq!(manifest(&generate)["counts"]["failed"], ROWS, "the rows keep their errors");
    // Again: the same, and no row is taken for finished.
    let before = asked(&server);
    assert!(gristmill(folder.path(), RUN).refusal().contains("all 400 requests failed"));
    assert_eq!(asked(&server) - before, ROWS);
    bad.store(false, SeqCst);
    gristmill(folder.path(), RUN).succeeded();
    assert!(manifest(&generate)["counts"].get("failed").is_none());
}

#[test]
fn a_finished_stage_needs_its_servers_only_to_ask_failed_rows_again() {
    use crate::support::openai_server::Fault;
    let script = |ask: &Ask<'_>| match ask.body["messages"].to_string().contains("On day 7 ") {
        true => Fault::ContextOverflow,
        false => Fault::None,
    };
    let mut server = OpenAiServer::start(Behaviour { script: Box::new(script), ..Behaviour::default() });
    let folder = tempfile::tempdir().unwrap();
    prepare(folder.path(), &server, ", model = \"tiny\", startup_timeout_s = 0.5");
    gristmill(folder.path(), RUN).succeeded();
    let made = digests(&folder.path().join("out"));
    server.kill();
    let run = gristmill(folder.path(), RUN).succeeded();
    assert!(run.stderr.contains("the 2 rows that failed are not asked again this time"), "{}", run.story());
    assert_eq!(digests(&folder.path().join("out")), made);
    // What is not finished does need them.
    prepare(folder.path(), &server, ", model = \"tiny\", startup_timeout_s = 0.5, n_per_request = 2");
    assert!(gristmill(folder.path(), RUN).refusal().starts_with("exit 1"));
}

#[cfg(unix)]
#[test]
fn a_disk_that_is_full_is_told_and_costs_no_answer_that_was_kept() {
    let server = OpenAiServer::start(slow());
    let whole = tempfile::tempdir().unwrap();
    prepare(whole.path(), &server, ", model = \"tiny\"");
    gristmill(whole.path(), RUN).succeeded();
    let folder = tempfile::tempdir().unwrap();
    prepare(folder.path(), &server, ", model = \"tiny\"");
    let before = asked(&server);
    // No file may be longer than 128 KiB; the journal would be.
    let limited = std::process::Command::new("sh")
        .args(["-c", "trap '' XFSZ; ulimit -f 256; exec \"$0\" \"$@\"", env!("CARGO_BIN_EXE_gristmill")])
        .args(RUN)
        .current_dir(folder.path())
        .output()
        .unwrap();
    let run = crate::support::Finished::from(limited);
    assert_eq!(run.code, Some(1), "{}", run.story());
    assert!(run.stderr.contains("cannot write the journal"), "{}", run.story());
    let first = asked(&server) - before;
    assert!(first < ROWS, "it was stopped");
    let run = gristmill(folder.path(), RUN).succeeded();
    assert!(!run.stderr.contains("passed over") && !run.stderr.contains("damaged"), "{}", run.story());
    assert!(asked(&server) - before <= ROWS + 32, "{first} and {} asked", asked(&server) - before - first);
    assert_eq!(digests(&folder.path().join("out")), digests(&whole.path().join("out")));
}

#[test]
fn a_key_in_the_recipe_is_not_shown_by_what_is_wrong_with_it() {
    let server = OpenAiServer::start(Behaviour::default());
    let folder = tempfile::tempdir().unwrap();
    prepare(folder.path(), &server, ", api_key = \"hunter2\"");
    let refusal = gristmill(folder.path(), RUN).refusal();
    assert!(refusal.starts_with("exit 2") && refusal.contains("api_key") && !refusal.contains("hunter"), "{refusal}");
    prepare(folder.path(), &server, "");
    let path = folder.path().join("recipe.toml");
    for address in ["http://me:hunter2@localhost:1", "http://localhost:1/v1?key=hunter2"] {
        let recipe = std::fs::read_to_string(&path).unwrap().replace(&server.url(), address);
        std::fs::write(&path, recipe).unwrap();
        let run = gristmill(folder.path(), RUN);
        assert!(run.code == Some(2) && !run.story().contains("hunter"), "{}", run.story());
        // What is found wrong before anything runs leaves no log.
        let log = std::fs::read_to_string(folder.path().join("out/run.jsonl")).unwrap_or_default();
        assert!(!log.contains("hunter"), "{log}");
        prepare(folder.path(), &server, "");
    }
}
