//! Finished runs that lost files: what is lost is made again, and nothing else.

use std::path::Path;
use std::sync::atomic::Ordering::SeqCst;

use crate::support::openai_server::{Behaviour, OpenAiServer};
use crate::support::{Finished, digests, gristmill, leftovers, manifest, write_recordings};

fn run(folder: &Path, more: &[&str]) -> Finished {
    gristmill(folder, ["run", "recipe.toml", "--out", "out"].iter().chain(more))
}

fn cut(file: &Path) {
    let bytes = std::fs::read(file).unwrap();
    std::fs::write(file, &bytes[..bytes.len() / 2]).unwrap();
}

#[test]
fn shards_that_are_gone_or_were_cut_are_made_again_and_no_others() {
    let folder = tempfile::tempdir().unwrap();
    write_recordings(folder.path(), 1000);
    run(folder.path(), &[]).succeeded();
    let out = folder.path().join("out");
    let whole = digests(&out);
    assert_eq!(manifest(&out.join("3_verify"))["shards"].as_array().unwrap().len(), 8);
    let modified = |file: &str| std::fs::metadata(out.join(file)).unwrap().modified().unwrap();
    let before = modified("3_verify/part-00003.parquet");
    // One is gone and one was cut; both had disagreements, or drops, that the manifest counts.
    std::fs::remove_file(out.join("3_verify/part-00001.parquet")).unwrap();
    cut(&out.join("3_verify/part-00005.parquet"));
    cut(&out.join("5_select/part-00000.parquet"));
    // What is made of one thing is made again from it.
    std::fs::remove_file(out.join("6_corpus/data/train-00001-of-00004.parquet")).unwrap();

    // A stage that reads what is damaged says how it is mended, and not by deleting anything.
    let early = run(folder.path(), &["--only", "group"]);
    assert_eq!(early.code, Some(1), "{}", early.story());
    assert!(early.stderr.contains("run the recipe that made it again"), "{}", early.story());
    assert!(!early.stderr.contains("remove"), "{}", early.story());

    let planned = run(folder.path(), &["--dry-run"]).succeeded();
    assert_eq!(planned.state_of("verify"), "will make 2 shards again that are gone or were cut");
    let again = run(folder.path(), &[]).succeeded();
    assert_eq!(again.state_of("verify"), "will make 2 shards again that are gone or were cut");
    assert_eq!(again.state_of("select"), "will make a shard again that is gone or was cut");
    assert!(again.state_of("group").starts_with("cached"), "{}", again.story());
    assert_eq!(leftovers(&out), [""; 0]);
    assert_eq!(digests(&out), whole, "counts and drops included");
    assert_eq!(modified("3_verify/part-00003.parquet"), before);
}

#[test]
fn lists_for_people_and_the_card_are_made_again_too() {
    let folder = tempfile::tempdir().unwrap();
    write_recordings(folder.path(), 50);
    let questions = folder.path().join("questions.jsonl");
    let text = std::fs::read_to_string(&questions).unwrap();
    std::fs::write(&questions, format!("{text}{}\n", text.lines().next().unwrap())).unwrap();
    run(folder.path(), &[]).succeeded();
    let out = folder.path().join("out");
    let whole = digests(&out);
    for (stage, list) in [("prompts", "1_prompts/_drops.jsonl"), ("corpus", "6_corpus/README.md")] {
        std::fs::remove_file(out.join(list)).unwrap();
        let again = run(folder.path(), &[]).succeeded();
        assert!(!again.state_of(stage).starts_with("cached"), "{}", again.story());
        assert!(again.state_of("verify").starts_with("cached"), "{}", again.story());
        assert_eq!(digests(&out), whole, "{stage}");
    }
}

#[test]
fn of_answers_that_are_lost_only_those_are_asked_again() {
    let server = OpenAiServer::start(Behaviour::default());
    let folder = tempfile::tempdir().unwrap();
    write_recordings(folder.path(), 200);
    let recipe = format!(
        "name = \"lost\"\nseed = 3\nshard_rows = 64\n\n[stages.prompts]\nsources = [{{ path = \"questions.jsonl\", domain = \"math\" }}]\n\n\
         [stages.generate]\nsamples = 2\nsampling = {{ max_tokens = 16 }}\nengine = {{ kind = \"vllm\", endpoints = [\"{}\"] }}\n",
        server.url()
    );
    std::fs::write(folder.path().join("recipe.toml"), recipe).unwrap();
    run(folder.path(), &[]).succeeded();
    let out = folder.path().join("out");
    let (whole, asked) = (digests(&out), server.seen.completions.load(SeqCst));
    assert_eq!(asked, 400);
    cut(&out.join("2_generate/part-00002.parquet"));
    let again = run(folder.path(), &[]).succeeded();
    assert_eq!(again.state_of("generate"), "will make a shard again that is gone or was cut");
    assert_eq!(server.seen.completions.load(SeqCst) - asked, 64, "a shard of 32 prompts");
    assert_eq!(digests(&out), whole);
}

#[test]
fn a_damaged_manifest_is_mended_by_making_the_stage_again() {
    let folder = tempfile::tempdir().unwrap();
    write_recordings(folder.path(), 20);
    run(folder.path(), &[]).succeeded();
    let whole = digests(&folder.path().join("out"));
    std::fs::write(folder.path().join("out/4_group/_manifest.json"), "{}").unwrap();
    let said = run(folder.path(), &[]);
    assert!(said.stderr.contains("have the stage made again with `--from STAGE`"), "{}", said.story());
    run(folder.path(), &["--from", "group"]).succeeded();
    assert_eq!(digests(&folder.path().join("out")), whole);
}

#[test]
fn a_shard_with_a_flipped_bit_is_not_read_into_the_next_stage() {
    let folder = tempfile::tempdir().unwrap();
    write_recordings(folder.path(), 300);
    run(folder.path(), &[]).succeeded();
    let out = folder.path().join("out");
    let whole = digests(&out);
    let shard = out.join("3_verify/part-00001.parquet");
    let mut bytes = std::fs::read(&shard).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&shard, bytes).unwrap();
    let refused = run(folder.path(), &["--from", "group"]);
    assert_eq!(refused.code, Some(1), "{}", refused.story());
    assert!(refused.stderr.contains("the shard has other bytes than were written"), "{}", refused.story());
    assert!(refused.stderr.contains("3_verify/part-00001.parquet"), "{}", refused.story());
    std::fs::remove_file(&shard).unwrap();
    let again = run(folder.path(), &[]).succeeded();
    assert_eq!(again.state_of("verify"), "will make a shard again that is gone or was cut");
    assert_eq!(digests(&out), whole);
}
