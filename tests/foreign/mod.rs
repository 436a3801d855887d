//! Files that another program wrote: rows in another order and over other files, ids twice, numbers that are none.

use std::collections::BTreeMap;
use std::path::Path;

use gristmill::schema::{Completion, DatasetKind, GroupRow, Row, VerdictRow};
use gristmill::store::{Dataset, ShardWriter, WriterOptions};

use crate::support::{Finished, files, gristmill, manifest, write_recordings};

fn read<R: Row + Send + 'static>(folder: &Path) -> Vec<R> {
    let dataset = Dataset::open(&folder.into()).unwrap();
    dataset.rows_of::<R>().collect::<gristmill::Result<_>>().unwrap()
}

/// Writes rows as Parquet files of a folder.
fn write<R: Row>(folder: &Path, kind: DatasetKind, shards: &[&[R]]) {
    for (index, rows) in shards.iter().enumerate() {
        let mut writer = ShardWriter::create(&folder.into(), index, kind, WriterOptions::default()).unwrap();
        writer.push_rows(rows).unwrap();
        writer.finish().unwrap();
    }
}

/// A finished run of 60 questions, four completions each.
fn run() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    write_recordings(folder.path(), 60);
    gristmill(folder.path(), ["run", "recipe.toml", "--out", "out"]).succeeded();
    folder
}

fn verify(folder: &Path, completions: &str, output: &str) -> Finished {
    let args =
        ["--prompts", "out/1_prompts", "--completions", completions, "--rules", "rules.toml", "--output", output];
    gristmill(folder, ["verify"].iter().chain(&args))
}

fn group(folder: &Path, completions: &str, verdicts: &str, output: &str) -> Finished {
    let inputs = ["--prompts", "out/1_prompts", "--completions", completions, "--verdicts", verdicts];
    gristmill(folder, ["group"].iter().chain(&inputs).chain(&["--output", output]))
}

/// What a group says of each of its completions.
fn told(rows: &[GroupRow]) -> BTreeMap<String, String> {
    let of = |row: &GroupRow| {
        let numbers = (row.group_size, row.advantage, row.reward_mean, row.reward_std, row.pass_rate);
        (row.completion_id.clone(), format!("{numbers:?} {} {:?}", row.domain, row.text))
    };
    rows.iter().map(of).collect()
}

#[track_caller]
fn lie_together(rows: &[GroupRow]) {
    let mut seen: Vec<&str> = Vec::new();
    for group in rows.chunk_by(|a, b| a.prompt_id == b.prompt_id) {
        assert!(!seen.contains(&group[0].prompt_id.as_str()), "a group lies in two places");
        assert!(group.iter().map(|row| row.sample_index).eq(0..4), "samples are out of order");
        seen.push(&group[0].prompt_id);
    }
}

#[test]
fn groups_whose_rows_lie_anywhere_are_the_same_groups() {
    let folder = run();
    let expected = told(&read::<GroupRow>(&folder.path().join("out/4_group")));
    assert_eq!(expected.len(), 240);
    let mut rows = read::<Completion>(&folder.path().join("out/2_generate"));
    // By sample first, as a sampler that goes over the prompts four times writes them.
    rows.sort_by_key(|row| row.sample_index);
    write(&folder.path().join("by_sample"), DatasetKind::Completions, &[&rows]);
    // As they were, but a file ends within a group.
    let rows = read::<Completion>(&folder.path().join("out/2_generate"));
    write(&folder.path().join("split"), DatasetKind::Completions, &[&rows[..6], &rows[6..]]);
    for name in ["by_sample", "split"] {
        let (verdicts, groups) = (format!("v_{name}"), format!("g_{name}"));
        verify(folder.path(), name, &verdicts).succeeded();
        let said = group(folder.path(), name, &format!("{verdicts}/1_verify"), &groups).succeeded();
        assert!(said.stderr.contains("brought together"), "{}", said.story());
        let made = read::<GroupRow>(&folder.path().join(&groups).join("1_group"));
        assert_eq!(told(&made), expected, "{name}");
        lie_together(&made);
    }
    // And so do stages that take groups.
    let mut groups = read::<GroupRow>(&folder.path().join("out/4_group"));
    groups.sort_by_key(|row| std::cmp::Reverse(row.sample_index));
    write(&folder.path().join("scattered"), DatasetKind::Groups, &[&groups[..100], &groups[100..]]);
    let select = ["select", "--groups", "scattered", "-s", "policy=shortest", "-s", "per_prompt=2", "--output", "s"];
    gristmill(folder.path(), select).succeeded();
    let ids = |rows: Vec<GroupRow>| rows.into_iter().map(|row| row.completion_id).collect::<Vec<_>>();
    let mut kept = ids(read(&folder.path().join("s/1_select")));
    let mut expected = ids(read(&folder.path().join("out/5_select")));
    kept.sort();
    expected.sort();
    assert_eq!(kept, expected);
    let export = |input: &str, output: &str| {
        let input = format!("input={input}");
        let args =
            ["export", "-s", &input, "-s", "format=preference", "-s", "prompts=out/1_prompts", "--output", output];
        gristmill(folder.path(), args).succeeded();
        let stage = folder.path().join(output).join("1_export");
        let shards = files(&stage).into_iter().filter(|file| file.ends_with(".jsonl")).enumerate();
        let texts: Vec<String> = shards
            .map(|(shard, file)| {
                assert!(file.starts_with(&format!("train-{shard:05}-of-")), "{file}");
                std::fs::read_to_string(stage.join(file)).unwrap()
            })
            .collect();
        let mut lines: Vec<String> = texts.iter().flat_map(|text| text.lines().map(str::to_owned)).collect();
        lines.sort();
        lines
    };
    assert_eq!(export("scattered", "e1"), export("out/4_group", "e2"));
}

#[test]
fn groups_of_our_own_are_streamed_and_not_brought_together() {
    let folder = run();
    let said = group(folder.path(), "out/2_generate", "out/3_verify", "g").succeeded();
    assert!(!said.stderr.contains("brought together"), "{}", said.story());
    let bytes = |path: &str| std::fs::read(folder.path().join(path)).unwrap();
    assert_eq!(bytes("g/1_group/part-00000.parquet"), bytes("out/4_group/part-00000.parquet"));
}

#[test]
fn ids_that_are_twice_are_told_with_file_and_row() {
    let folder = run();
    let mut rows = read::<Completion>(&folder.path().join("out/2_generate"));
    rows.push(rows[7].clone());
    write(&folder.path().join("twice"), DatasetKind::Completions, &[&rows[..200], &rows[200..]]);
    let said = verify(folder.path(), "twice", "v").refusal();
    for part in ["an id occurs twice: also in ./twice/part-00000.parquet, row 7", "twice/part-00001.parquet, row 40"] {
        assert!(said.contains(part), "`{part}` is not in\n{said}");
    }
    // Verdicts of another judge may be there for both.
    let mut verdicts = read::<VerdictRow>(&folder.path().join("out/3_verify"));
    verdicts.push(verdicts[7].clone());
    write(&folder.path().join("verdicts"), DatasetKind::Verdicts, &[&verdicts[..200], &verdicts[200..]]);
    let said = group(folder.path(), "twice", "verdicts", "g").refusal();
    assert!(said.contains(&format!("the completion {} is twice in its group", rows[7].completion_id)), "{said}");
    let mut groups = read::<GroupRow>(&folder.path().join("out/4_group"));
    groups.insert(8, groups[7].clone());
    write(&folder.path().join("groups"), DatasetKind::Groups, &[&groups]);
    let said = gristmill(folder.path(), ["select", "--groups", "groups", "--output", "s"]).refusal();
    assert!(said.contains("is twice in its group"), "{said}");

    let prompts = folder.path().join("out/1_prompts/part-00000.parquet");
    std::fs::create_dir(folder.path().join("prompts")).unwrap();
    for name in ["a", "b"] {
        std::fs::copy(&prompts, folder.path().join(format!("prompts/{name}.parquet"))).unwrap();
    }
    let engine = "engine={ kind = \"replay\", files = [\"completions.jsonl\"], completions = [\"completions\"] }";
    let said =
        gristmill(folder.path(), ["generate", "--prompts", "prompts", "-s", engine, "--output", "again"]).refusal();
    for part in
        ["an id occurs twice: also in ./prompts/a.parquet, row 0", "prompts/b.parquet, row 0, column `prompt_id`"]
    {
        assert!(said.contains(part), "`{part}` is not in\n{said}");
    }
    assert!(!files(&folder.path().join("again")).iter().any(|file| file.ends_with(".parquet")), "nothing was made");
}

#[test]
fn a_reward_that_is_no_number_is_not_known() {
    let folder = run();
    let mut groups = read::<GroupRow>(&folder.path().join("out/4_group"));
    groups.truncate(4);
    (groups[0].reward, groups[3].reward) = (Some(f64::NAN), Some(f64::INFINITY));
    write(&folder.path().join("groups"), DatasetKind::Groups, &[&groups]);
    let best = ["-s", "outcome=any", "-s", "policy=best", "-s", "per_prompt=1", "-s", "truncated=true"];
    gristmill(folder.path(), ["select", "--groups", "groups", "--output", "s"].iter().chain(&best)).succeeded();
    let kept = read::<GroupRow>(&folder.path().join("s/1_select"));
    assert_eq!(kept.iter().map(|row| (row.sample_index, row.reward)).collect::<Vec<_>>(), [(1, Some(1.0))]);
}

#[test]
fn a_selection_by_length_needs_lengths() {
    let folder = run();
    let args = ["group", "--prompts", "out/1_prompts", "--completions", "out/2_generate", "--verdicts", "out/3_verify"];
    gristmill(folder.path(), args.iter().chain(&["-s", "carry=false", "--output", "g"])).succeeded();
    let said = gristmill(folder.path(), ["select", "--groups", "g/1_group", "-s", "policy=shortest", "--output", "s"]);
    assert_eq!(said.code, Some(2), "{}", said.story());
    assert!(said.stderr.contains("`policy = \"shortest\"` compares lengths"), "{}", said.story());
    assert!(said.stderr.contains("carry = true"), "{}", said.story());
}

#[test]
fn a_fault_of_a_prompt_is_told_of_the_prompts_file_and_rows_are_the_files() {
    let folder = run();
    let mut rows = read::<Completion>(&folder.path().join("out/2_generate"));
    // Beyond the first batch, where a row of the batch is not the row of the file.
    let one = rows.pop().unwrap();
    let many = (0..9000).map(|i| Completion { completion_id: format!("c{i}"), sample_index: i, ..one.clone() });
    rows.extend(many);
    rows.push(Completion { prompt_id: "nobody".into(), completion_id: "last".into(), ..one });
    write(&folder.path().join("many"), DatasetKind::Completions, &[&rows]);
    let said = verify(folder.path(), "many", "v").refusal();
    assert!(said.contains("answers a prompt that is not there: nobody"), "{said}");
    assert!(said.contains(&format!("many/part-00000.parquet, row {}", rows.len() - 1)), "{said}");
}

#[test]
fn corpora_have_no_question_in_two_splits_or_two_tracks() {
    let folder = tempfile::tempdir().unwrap();
    let question = |i: usize| serde_json::json!({ "question": format!("What is {i} + {i}?"), "answer": (2 * i).to_string(), "solution": format!("It is {}.", 2 * i) });
    let lines: Vec<String> = (0..400).map(|i| question(i).to_string()).collect();
    std::fs::write(folder.path().join("q.jsonl"), lines.join("\n")).unwrap();
    let source = |domain: &str| {
        format!(
            "sources = [{{ path = \"q.jsonl\", domain = \"{domain}\", columns = {{ solution = \"solution\" }} }}]\ndedup = {{ near = false }}"
        )
    };
    let recipe = format!(
        "[stages.a]\nkind = \"prompts\"\n{}\n[stages.b]\nkind = \"prompts\"\n{}\n[stages.corpus]\nvalidation = 0.3\n\
         tracks = [{{ name = \"first\", prompts = \"a\", rows = 250 }}, {{ name = \"second\", prompts = \"b\" }}]\n",
        source("math"),
        source("arithmetic")
    );
    std::fs::write(folder.path().join("recipe.toml"), recipe).unwrap();
    gristmill(folder.path(), ["run", "recipe.toml", "--out", "out"]).succeeded();
    let corpus = folder.path().join("out/3_corpus");
    let dataset = Dataset::open(&corpus.as_path().into()).unwrap();
    let questions = |split: &str| -> Vec<String> {
        let rows =
            dataset.split(split).rows_of::<gristmill::schema::CorpusRow>().collect::<gristmill::Result<Vec<_>>>();
        rows.unwrap().into_iter().map(|row| row.messages[0].content.clone()).collect()
    };
    let (train, validation) = (questions("train"), questions("validation"));
    assert!(validation.len() > 80, "{} of 400 are for validation", validation.len());
    let mut all = [&train[..], &validation[..]].concat();
    all.sort();
    all.dedup();
    assert_eq!(all.len(), train.len() + validation.len(), "a question is there twice");
    assert_eq!(all.len(), 400, "what the first track left is the second's");
    let drops = &manifest(&corpus)["drops"];
    assert_eq!(drops, &serde_json::json!({ "over_quota": 150, "question_of_another_track": 250 }));
}

#[test]
fn a_card_with_odd_names_is_still_yaml_and_tables() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("q.jsonl"), r#"{"question": "What is 1 + 1?", "answer": "2", "solution": "2"}"#)
        .unwrap();
    let source = "{ path = \"q.jsonl\", name = \"mine | yours\", license = \"CC BY 4.0: attribution\", language = \"no\", domain = \"math\", columns = { solution = \"solution\" } }";
    let recipe = format!(
        "[stages.prompts]\nsources = [{source}]\n[stages.corpus]\ntracks = [{{ name = \"all\", prompts = \"prompts\" }}]\n"
    );
    std::fs::write(folder.path().join("recipe.toml"), recipe).unwrap();
    gristmill(folder.path(), ["run", "recipe.toml", "--out", "out"]).succeeded();
    let card = std::fs::read_to_string(folder.path().join("out/2_corpus/README.md")).unwrap();
    assert!(
        card.starts_with("---\nlicense: other\nlicense_name: \"cc by 4.0: attribution\"\nlanguage:\n- \"no\"\n"),
        "{card}"
    );
    assert!(card.contains("| mine \\| yours | CC BY 4.0: attribution | 1 |"), "{card}");
}

#[test]
fn rewards_that_differ_by_rounding_alone_make_a_group_without_variance() {
    let folder = run();
    let mut verdicts = read::<VerdictRow>(&folder.path().join("out/3_verify"));
    // The mean of these has a rounding error.
    for (verdict, reward) in verdicts.iter_mut().zip([Some(0.1), Some(0.1), Some(0.1), None]) {
        verdict.reward = reward;
    }
    write(&folder.path().join("verdicts"), DatasetKind::Verdicts, &[&verdicts]);
    let before = manifest(&folder.path().join("out/4_group"));
    group(folder.path(), "out/2_generate", "verdicts", "g").succeeded();
    let groups = read::<GroupRow>(&folder.path().join("g/1_group"));
    let of: Vec<_> = groups[..4].iter().map(|row| (row.advantage, row.reward_std)).collect();
    assert_eq!(of, [(Some(0.0), Some(0.0)), (Some(0.0), Some(0.0)), (Some(0.0), Some(0.0)), (None, Some(0.0))]);
    let flat = |manifest: &serde_json::Value| manifest["counts"]["groups_without_variance"].as_u64();
    assert_eq!((flat(&before), flat(&manifest(&folder.path().join("g/1_group")))), (None, Some(1)));
}
