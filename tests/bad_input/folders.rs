//! Output folders that cannot take a run: another run's, somebody else's, no folder at all, a full disk.

use std::process::Command;

use super::{RUN, refused, with_recipe};
use crate::support::{digests, gristmill, write_recordings};

const RECIPE: &str =
    "name = \"mine\"\n\n[stages.prompts]\nprocedural = [{ count = 5, mix = [{ name = \"arithmetic\" }] }]\n";

#[test]
fn the_folder_of_another_run_is_left_alone() {
    let folder = with_recipe(RECIPE);
    gristmill(folder.path(), RUN).succeeded();
    let before = digests(&folder.path().join("out"));
    std::fs::write(folder.path().join("recipe.toml"), RECIPE.replace("mine", "yours")).unwrap();
    assert_told!(refused(folder.path(), &RUN));
    assert_eq!(digests(&folder.path().join("out")), before);
}

#[test]
fn a_folder_with_other_things_in_it_is_left_alone() {
    let folder = with_recipe(RECIPE);
    std::fs::create_dir(folder.path().join("out")).unwrap();
    std::fs::write(folder.path().join("out/thesis.tex"), "years of work").unwrap();
    assert_told!(refused(folder.path(), &RUN));
    assert_eq!(crate::support::files(&folder.path().join("out")), ["thesis.tex"]);
}

#[test]
fn a_file_where_the_folder_should_be_is_told() {
    let folder = with_recipe(RECIPE);
    std::fs::write(folder.path().join("out"), "a file").unwrap();
    let said = refused(folder.path(), &RUN);
    assert_told!(said);
    assert_eq!(std::fs::read_to_string(folder.path().join("out")).unwrap(), "a file");
}

#[cfg(unix)]
#[test]
fn a_limit_on_the_size_of_files_is_told() {
    let folder = tempfile::tempdir().unwrap();
    write_recordings(folder.path(), 1000);
    let limited = |blocks: &str| {
        let mut shell = Command::new("sh");
        shell.current_dir(folder.path()).args(["-c", &format!("ulimit -f {blocks}; exec \"$0\" \"$@\"")]);
        let ended = shell.arg(env!("CARGO_BIN_EXE_gristmill")).args(RUN).output().unwrap();
        crate::support::Finished::from(ended)
    };
    let refused = limited("8");
    assert_eq!(refused.code, Some(1), "{}", refused.story());
    assert!(refused.stderr.contains("larger than files may be here"), "{}", refused.story());
    assert!(refused.stderr.contains("ulimit -f unlimited"), "{}", refused.story());
    gristmill(folder.path(), RUN).succeeded();
}

#[test]
fn a_damaged_marker_is_told() {
    let folder = with_recipe(RECIPE);
    gristmill(folder.path(), RUN).succeeded();
    std::fs::write(folder.path().join("out/run.json"), "{\"name\": ").unwrap();
    assert_told!(refused(folder.path(), &RUN));
}

#[test]
fn a_damaged_manifest_is_told() {
    let folder = with_recipe(RECIPE);
    gristmill(folder.path(), RUN).succeeded();
    std::fs::write(folder.path().join("out/1_prompts/_manifest.json"), "{}").unwrap();
    assert_told!(refused(folder.path(), &RUN));
}

#[test]
fn a_shard_that_somebody_cut_is_told_where_it_is_read() {
    let folder = with_recipe(&format!("{RECIPE}\n[stages.export]\ninput = \"prompts\"\nformat = \"messages\"\n"));
    gristmill(folder.path(), RUN).succeeded();
    let shard = folder.path().join("out/1_prompts/part-00000.parquet");
    let bytes = std::fs::read(&shard).unwrap();
    std::fs::write(&shard, &bytes[..100]).unwrap();
    let only = [&RUN[..], &["--only", "export"]].concat();
    let said = refused(folder.path(), &only).replace(&bytes.len().to_string(), "SIZE");
    assert_told!(said);
}

#[test]
fn an_unknown_scheme_is_told() {
    let folder = with_recipe(RECIPE);
    assert_told!(refused(folder.path(), &["run", "recipe.toml", "--out", "ftp://host/path"]));
}

/// Runs a script where a small file system is mounted on `disk` below the folder; `None` where
/// this machine does not let a test mount one.
fn on_a_small_disk(folder: &std::path::Path, options: &str, script: &str) -> Option<String> {
    std::fs::create_dir(folder.join("disk")).unwrap();
    let unshare = |script: &str| {
        let mount = format!("mount -t tmpfs -o {options} none disk || exit 99; {script}");
        let mut command = Command::new("unshare");
        command.args(["--mount", "--map-root-user", "sh", "-c", &mount]).current_dir(folder);
        command.env("GRISTMILL", env!("CARGO_BIN_EXE_gristmill")).output().ok()
    };
    if !unshare("true").is_some_and(|output| output.status.success()) {
        eprintln!("skipped: this machine does not let a test mount a small disk");
        return None;
    }
    let output = unshare(script).expect("it just ran");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Some(text(&output.stdout) + &text(&output.stderr))
}

#[test]
fn a_full_disk_is_told_and_the_same_command_goes_on_when_there_is_room() {
    let folder = tempfile::tempdir().unwrap();
    write_recordings(folder.path(), 2000);
    gristmill(folder.path(), ["run", "recipe.toml", "--out", "whole"]).succeeded();
    let script = "\
        $GRISTMILL run recipe.toml --out disk/out 2>&1; echo \"first: exit $?\"; \
        ls disk/out/1_prompts; \
        mount -o remount,size=64m none disk; \
        $GRISTMILL run recipe.toml --out disk/out 2>&1; echo \"second: exit $?\"; \
        cp -r disk/out out";
    // Room for the prompts, not for all of their completions.
    let prompts = std::fs::metadata(folder.path().join("whole/1_prompts/part-00000.parquet")).unwrap().len();
    let size = format!("size={}k", prompts * 4 / 1024 + 120);
    let Some(said) = on_a_small_disk(folder.path(), &size, script) else { return };
    assert!(said.contains("first: exit 1") && said.contains("the disk is full"), "{said}");
    assert!(said.contains("hint: free some space, then run the same command"), "{said}");
    assert!(said.contains("_manifest.json"), "the prompts were committed and stay:\n{said}");
    assert!(said.contains("prompts: cached") && said.contains("second: exit 0"), "{said}");
    assert_eq!(digests(&folder.path().join("out")), digests(&folder.path().join("whole")));
}

#[test]
fn a_read_only_disk_is_told() {
    let folder = with_recipe(RECIPE);
    let script = "$GRISTMILL run recipe.toml --out disk/out 2>&1; echo \"exit $?\"";
    let Some(said) = on_a_small_disk(folder.path(), "size=1m,ro", script) else { return };
    assert_told!(said);
}

#[test]
fn a_finished_run_is_found_finished_on_a_read_only_disk() {
    let folder = with_recipe(RECIPE);
    let script = "$GRISTMILL run recipe.toml --out disk/out 2>&1; mount -o remount,ro none disk; \
        $GRISTMILL run recipe.toml --out disk/out 2>&1; echo \"exit $?\"";
    let Some(said) = on_a_small_disk(folder.path(), "size=8m", script) else { return };
    assert!(said.contains("prompts: cached") && said.ends_with("exit 0\n"), "{said}");
}
