//! A run that is killed at any moment, by the system and not by a flag, ends as if it had not been.

use std::process::Stdio;
use std::time::Instant;

use crate::support::kills::Killer;
use crate::support::{command, digests, files, gristmill, leftovers, slow_tests, write_recordings};

const RUN: [&str; 6] = ["run", "recipe.toml", "--out", "out", "--threads", "2"];

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

    let mut killer = Killer::new(&RUN, typical, 2);
    for point in 0..points {
        let folder = killer.begin(|| {
            let folder = tempfile::tempdir().unwrap();
            write_recordings(folder.path(), questions);
            folder
        });
        // Of three points one is killed once, one twice, one three times on its way.
        for _ in 0..point % 3 {
            killer.again(folder.path());
        }
        let run = gristmill(folder.path(), RUN);
        let story = || format!("point {point}\n{}", run.story());
        assert_eq!(run.code, Some(0), "{}", story());
        let out = folder.path().join("out");
        assert_eq!(leftovers(&out), [""; 0], "{}", story());
        let made = digests(&out);
        let differing: Vec<_> = reference.iter().filter(|(file, digest)| made.get(*file) != Some(digest)).collect();
        assert!(differing.is_empty() && made.len() == reference.len(), "{differing:#?}\n{}", story());
    }
    eprintln!("{points} points, {} kills, a run takes {:.2} s", killer.kills, typical.as_secs_f64());
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

#[test]
fn parts_share_a_folder_with_parts_and_a_whole_run_with_nobody() {
    let folder = tempfile::tempdir().unwrap();
    write_recordings(folder.path(), 50);
    gristmill(folder.path(), RUN).succeeded();
    let part = || gristmill(folder.path(), RUN.iter().chain(&["--shard", "0/2"]));
    let lock = std::fs::File::create(folder.path().join("out/_lock")).unwrap();
    lock.lock_shared().unwrap();
    part().succeeded();
    let whole = gristmill(folder.path(), RUN);
    assert!(whole.code == Some(1) && whole.stderr.contains("another process is running"), "{}", whole.story());
    lock.unlock().unwrap();
    lock.lock().unwrap();
    assert!(part().stderr.contains("another process is running"));
}

#[test]
fn a_shard_that_is_gone_when_a_killed_stage_goes_on_is_made_again() {
    let folder = tempfile::tempdir().unwrap();
    write_recordings(folder.path(), 1000);
    gristmill(folder.path(), RUN.iter().chain(&["--only", "prompts"])).succeeded();
    // One of two parts leaves a journal and half of the shards: what a kill leaves.
    gristmill(folder.path(), RUN.iter().chain(&["--shard", "0/2"])).succeeded();
    let generate = folder.path().join("out/2_generate");
    let shards: Vec<_> = files(&generate).into_iter().filter(|file| file.ends_with(".parquet")).collect();
    assert!(shards.len() > 1, "{shards:?}");
    std::fs::remove_file(generate.join(&shards[0])).unwrap();
    std::fs::write(generate.join(&shards[1]), "cut").unwrap();
    gristmill(folder.path(), RUN).succeeded();
    gristmill(folder.path(), ["run", "recipe.toml", "--out", "fresh"]).succeeded();
    assert_eq!(digests(&folder.path().join("out")), digests(&folder.path().join("fresh")));
}
