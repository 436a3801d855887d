//! A run that is killed at any moment, by the system and not by a flag, ends as if it had not been.

use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use gristmill::seed::Rng;

use crate::support::{command, digests, gristmill, leftovers, slow_tests, write_recordings};

const RUN: [&str; 6] = ["run", "recipe.toml", "--out", "out", "--threads", "2"];

/// Starts the run and kills it after `delay`. True if it was still running then.
fn kill_after(folder: &Path, delay: Duration) -> bool {
    let mut child =
        command(folder).args(RUN).stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("the command starts");
    std::thread::sleep(delay);
    let running = child.try_wait().expect("a child can be asked").is_none();
    // `Child::kill` sends SIGKILL.
    child.kill().expect("a child can be killed");
    child.wait().expect("a child can be waited for");
    running
}

#[test]
fn killed_at_random_points_a_run_ends_with_the_same_bytes() {
    let (questions, points) = if slow_tests() { (4000, 50) } else { (1000, 10) };
    if points < 50 {
        eprintln!("{points} kill points; GRISTMILL_SLOW_TESTS=1 takes 50");
    }
    let source = tempfile::tempdir().unwrap();
    write_recordings(source.path(), questions);
    let start = Instant::now();
    gristmill(source.path(), RUN).succeeded();
    let typical = start.elapsed();
    let reference = digests(&source.path().join("out"));
    assert!(reference.len() > 20, "{reference:#?}");

    let mut rng = Rng::new(2);
    let mut within = |span: Duration| span.mul_f64((rng.next_u64() >> 11) as f64 / (1u64 << 53) as f64);
    let mut killed = 0;
    for point in 0..points {
        let folder = tempfile::tempdir().unwrap();
        write_recordings(folder.path(), questions);
        // Of three points one is killed once, one twice, one three times on its way.
        let mut delays = Vec::new();
        for _ in 0..point % 3 + 1 {
            let delay = within(typical);
            delays.push(delay);
            killed += usize::from(kill_after(folder.path(), delay));
        }
        let run = gristmill(folder.path(), RUN);
        let story = || format!("point {point}, killed after {delays:?}\n{}", run.story());
        assert_eq!(run.code, Some(0), "{}", story());
        let out = folder.path().join("out");
        assert_eq!(leftovers(&out), [""; 0], "{}", story());
        let made = digests(&out);
        let differing: Vec<_> = reference.iter().filter(|(file, digest)| made.get(*file) != Some(digest)).collect();
        assert!(differing.is_empty() && made.len() == reference.len(), "{differing:#?}\n{}", story());
    }
    eprintln!("{points} points, {killed} kills, a run takes {:.2} s", typical.as_secs_f64());
    // Were the command always quicker than the kill, this would test nothing.
    assert!(killed >= points / 2, "only {killed} of {points} runs were still running when killed");
}

#[cfg(unix)]
#[test]
fn ctrl_c_ends_with_130_and_the_same_command_goes_on() {
    let source = tempfile::tempdir().unwrap();
    write_recordings(source.path(), 3000);
    let start = Instant::now();
    gristmill(source.path(), RUN).succeeded();
    let typical = start.elapsed();
    let reference = digests(&source.path().join("out"));
    // Where exactly it lands is the machine's business: tried until one lands inside the run.
    for tenths in [5, 3, 2, 7, 4, 6, 1] {
        let folder = tempfile::tempdir().unwrap();
        write_recordings(folder.path(), 3000);
        let child = command(folder.path()).args(RUN).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        std::thread::sleep(typical.mul_f64(f64::from(tenths) / 10.0));
        let id = libc::pid_t::try_from(child.id()).unwrap();
        // SAFETY: the child has not been waited for, so the id is still its own.
        assert_eq!(unsafe { libc::kill(id, libc::SIGINT) }, 0);
        let output = child.wait_with_output().unwrap();
        if output.status.code() != Some(130) {
            continue;
        }
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(said.contains("interrupted: what was finished is committed"), "{said}");
        gristmill(folder.path(), RUN).succeeded();
        assert_eq!(digests(&folder.path().join("out")), reference);
        assert_eq!(leftovers(&folder.path().join("out")), [""; 0]);
        return;
    }
    panic!("no Ctrl-C was answered with exit code 130 in a run of {typical:?}");
}

#[test]
fn two_runs_do_not_share_a_folder() {
    let folder = tempfile::tempdir().unwrap();
    write_recordings(folder.path(), 50);
    gristmill(folder.path(), RUN).succeeded();
    let lock = std::fs::File::create(folder.path().join("out/_lock")).unwrap();
    lock.lock().unwrap();
    let second = gristmill(folder.path(), RUN);
    assert_told!(second.refusal());
}
