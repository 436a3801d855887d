//! Ctrl-C while servers sample for the policy.

use std::path::Path;
use std::process::{Child, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::time::{Duration, Instant};

use super::{BATCH, RUN, behaviour, folder_for};
use crate::support::openai_server::{Ask, Behaviour, Fault, OpenAiServer};
use crate::support::{command, digests, gristmill, leftovers, slow_tests};

/// Changes the recipe in a folder.
fn edit(folder: &Path, from: &str, to: &str) {
    let path = folder.join("recipe.toml");
    let recipe = std::fs::read_to_string(&path).unwrap();
    assert!(recipe.contains(from), "{from}");
    std::fs::write(&path, recipe.replace(from, to)).unwrap();
}

/// A run that goes on until the server was asked so often altogether.
fn run_until(folder: &Path, server: &OpenAiServer, asked: u64) -> Child {
    let child = command(folder).args(RUN).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let since = Instant::now();
    while server.seen.completions.load(SeqCst) < asked {
        assert!(since.elapsed() < Duration::from_secs(60), "the server is not asked so often");
        std::thread::sleep(Duration::from_millis(1));
    }
    child
}

/// Ctrl-C, once: the run stops with what it had.
fn stop(child: Child) {
    // SAFETY: the child has not been waited for, so the id is still its own.
    assert_eq!(unsafe { libc::kill(libc::pid_t::try_from(child.id()).unwrap(), libc::SIGINT) }, 0);
    let since = Instant::now();
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(130), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(since.elapsed() < Duration::from_secs(20), "it took {:?}", since.elapsed());
}

#[test]
fn one_ctrl_c_waits_for_what_is_in_flight_alone_and_no_answer_is_asked_for_again() {
    // A whole batch takes a third of a second.
    let server = OpenAiServer::start(Behaviour { latency: Duration::from_millis(40), ..behaviour(false) });
    let asked = || server.seen.completions.load(SeqCst);
    // Batches ahead, rounds in place of groups without variance, and requests until Ctrl-C.
    let all: [(u64, u64, &[usize]); 3] = [(2, 0, &[160]), (0, 0, &[30, 160]), (1, 1, &[100, 170])];
    let stories = if slow_tests() { &all[..] } else { &all[..1] };
    eprintln!("{} of {} stories; GRISTMILL_SLOW_TESTS=1 tells all", stories.len(), all.len());
    for &(ahead, refills, stops) in stories {
        let folder_for = || {
            let folder = folder_for(&[&server], ahead);
            edit(folder.path(), "kind = \"vllm\",", "kind = \"vllm\", max_concurrency = 8,");
            edit(folder.path(), "steps = 8,", &format!("steps = 5, refill_rounds = {refills},"));
            folder
        };
        let whole = folder_for();
        let before = asked();
        gristmill(whole.path(), RUN).succeeded();
        let requests = asked() - before;
        for &at in stops {
            let folder = folder_for();
            let before = asked();
            let child = run_until(folder.path(), &server, before + at as u64);
            let at_stop = asked();
            stop(child);
            let after = asked() - at_stop;
            assert!(after < BATCH as u64, "{ahead} ahead: {after} requests were sent after Ctrl-C");
            gristmill(folder.path(), RUN).succeeded();
            let again = (asked() - before).saturating_sub(requests);
            // A load asks the probe, and weights are loaded again into servers by whoever goes on.
            assert!(again <= 3, "{ahead} ahead, stopped at {at}: {again} requests more than without");
            let out = folder.path().join("out");
            assert_eq!(leftovers(&out), [""; 0]);
            assert_eq!(digests(&out), digests(&whole.path().join("out")), "{ahead} ahead, stopped at {at}");
        }
    }
}

#[test]
fn ctrl_c_commits_the_steps_that_were_made_though_a_server_hangs() {
    // The number of the first request that hangs.
    let hangs = Arc::new(AtomicU64::new(u64::MAX));
    let from = Arc::clone(&hangs);
    let script = move |ask: &Ask<'_>| match ask.number >= from.load(SeqCst) {
        true => Fault::Hang,
        false => Fault::None,
    };
    let server = OpenAiServer::start(Behaviour { script: Box::new(script), ..behaviour(false) });
    let folder_for = || {
        let folder = folder_for(&[&server], 0);
        edit(folder.path(), "kind = \"vllm\",", "kind = \"vllm\", drain_timeout_s = 0.5,");
        folder
    };
    let whole = folder_for();
    gristmill(whole.path(), RUN).succeeded();
    // Three of the eight batches are answered, each with its probe.
    let first = server.seen.completions.load(SeqCst) + 3 * BATCH as u64 + 8;
    hangs.store(first, SeqCst);
    let folder = folder_for();
    stop(run_until(folder.path(), &server, first + 4));
    let checkpoints = std::fs::read_dir(folder.path().join("out/2_rl/checkpoints")).unwrap().count();
    assert!(checkpoints > 0, "the steps that were made are committed");
    hangs.store(u64::MAX, SeqCst);
    gristmill(folder.path(), RUN).succeeded();
    assert_eq!(digests(&folder.path().join("out")), digests(&whole.path().join("out")));
}
