//! Rows that do not fit a model's context: left out, counted, listed and told, and no batch is smaller for them.

use crate::support::{column, gristmill, manifest};

const RECIPE: &str = r#"name = "long"

[stages.chats]
kind = "prompts"
sources = [{ path = "chats.jsonl", layout = "chat" }]
dedup = { near = false }

[stages.corpus]
tracks = [{ name = "c", prompts = "chats" }]

[stages.base]
kind = "sft"
init = { tokenizer = "mini", hidden = 16, intermediate = 32, layers = 1, heads = 2, context = 24 }
corpus = "corpus"
training = { epochs = 2, batch_size = 4 }

[stages.answers]
kind = "prompts"
sources = [{ path = "pairs.jsonl" }]
dedup = { near = false }

[stages.pairs]
kind = "preferences"
prompts = "answers"

[stages.align]
model = "base"
preferences = "pairs"
held_out = "pairs"
training = { batch_size = 3 }
"#;

const RUN: [&str; 4] = ["run", "recipe.toml", "--out", "out"];

/// A reply of one word, or of more than the context holds.
fn reply(long: bool) -> String {
    "yes ".repeat(if long { 40 } else { 1 }).trim_end().to_owned()
}

fn folder(is_long: impl Fn(usize) -> bool) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let question = |i: usize| format!("what is {i} + {} ?", i + 1);
    let lines =
        |row: &dyn Fn(usize) -> serde_json::Value| -> String { (0..16).map(|i| format!("{}\n", row(i))).collect() };
    let chats = lines(&|i| {
        serde_json::json!({ "messages": [
            { "role": "user", "content": question(i) },
            { "role": "assistant", "content": reply(is_long(i)) },
        ] })
    });
    let pairs = lines(&|i| serde_json::json!({ "prompt": question(i), "chosen": reply(is_long(i)), "rejected": "no" }));
    for (file, text) in [("recipe.toml", RECIPE.to_owned()), ("chats.jsonl", chats), ("pairs.jsonl", pairs)] {
        std::fs::write(folder.path().join(file), text).unwrap();
    }
    folder
}

#[test]
fn rows_that_are_too_long_are_counted_listed_and_told_and_make_no_batch_smaller() {
    let folder = folder(|i| i % 4 == 1);
    let run = gristmill(folder.path(), RUN).succeeded();
    let stage = |name: &str| folder.path().join("out").join(name);
    let list = |name: &str| std::fs::read_to_string(stage(name).join("_drops.jsonl")).unwrap();

    let base = manifest(&stage("3_base"));
    assert_eq!(base["drops"], serde_json::json!({ "too_long": 4 }));
    assert_eq!((&base["counts"]["corpus_rows"], &base["counts"]["steps"]), (&16.into(), &6.into()), "{base:#}");
    let sequences = column(&stage("3_base").join("metrics.parquet"), "sequences");
    assert_eq!(sequences, [Some(4.0); 6], "two epochs of twelve rows");
    assert!(
        run.stderr.contains("4 of 16 rows of the corpus, ") && run.stderr.contains(" % of their tokens, are left out")
    );
    let rows: Vec<serde_json::Value> = list("3_base").lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(rows.len() == 4 && rows.is_sorted_by_key(|row| row["row"].as_u64().unwrap()), "{rows:?}");
    assert!(rows[0]["detail"].as_str().unwrap().ends_with("tokens do not fit the model's context of 24"), "{rows:?}");

    let align = manifest(&stage("6_align"));
    assert_eq!(align["drops"], serde_json::json!({ "held_out_too_long": 4, "too_long": 4 }));
    assert_eq!((&align["counts"]["pairs"], &align["counts"]["steps"]), (&12.into(), &4.into()), "{align:#}");
    assert!(run.stderr.contains("4 of 16 held-out pairs, "), "{}", run.story());
    assert_eq!(list("6_align").lines().filter(|line| line.contains("chosen: ")).count(), 8);
}

#[test]
fn a_recipe_may_allow_fewer_tokens_than_the_context_holds() {
    let folder = folder(|i| i % 4 == 1);
    let sets = ["base.init.context=96", "base.training.max_tokens=24", "align.training.max_tokens=24"];
    let sets = sets.into_iter().flat_map(|set| ["--set", set]);
    gristmill(folder.path(), RUN.into_iter().chain(sets)).succeeded();
    let stage = |name: &str| folder.path().join("out").join(name);
    assert_eq!(manifest(&stage("3_base"))["drops"], serde_json::json!({ "too_long": 4 }));
    let both = serde_json::json!({ "held_out_too_long": 4, "too_long": 4 });
    assert_eq!(manifest(&stage("6_align"))["drops"], both);
    for (name, rows) in [("3_base", 4), ("6_align", 8)] {
        let list = std::fs::read_to_string(stage(name).join("_drops.jsonl")).unwrap();
        let told = "tokens are more than `max_tokens` allows, which is 24";
        assert_eq!(list.lines().filter(|line| line.contains(told)).count(), rows, "{list}");
    }
}

#[test]
fn a_turn_of_nobody_is_told_with_file_and_row_and_a_developer_is_the_system() {
    use arrow::array::{ListBuilder, RecordBatch, StringBuilder, StructBuilder};
    use arrow::datatypes::{DataType, Field};
    let folder = folder(|_| false);
    let write = |name: &str, conversations: &[&[&str]]| {
        let fields = ["role", "content"].map(|name| Field::new(name, DataType::Utf8, true)).to_vec();
        let mut rows = ListBuilder::new(StructBuilder::from_fields(fields, 0));
        for roles in conversations {
            for role in *roles {
                let turn = rows.values();
                turn.field_builder::<StringBuilder>(0).unwrap().append_value(role);
                turn.field_builder::<StringBuilder>(1).unwrap().append_value("what is 1 + 1 ?");
                turn.append(true);
            }
            rows.append(true);
        }
        let rows: arrow::array::ArrayRef = std::sync::Arc::new(rows.finish());
        let batch = RecordBatch::try_from_iter([("messages", rows)]).unwrap();
        std::fs::create_dir_all(folder.path().join("chats")).unwrap();
        let file = std::fs::File::create(folder.path().join("chats").join(name)).unwrap();
        let mut writer = parquet::arrow::ArrowWriter::try_new(file, batch.schema(), None).unwrap();
        writer.write(&batch).unwrap();
        writer.close().unwrap();
    };
    let train = |output: &str| {
        let init = "init={ tokenizer = \"mini\", hidden = 16, layers = 1, heads = 2, context = 64 }";
        let args = ["sft", "--corpus", "chats", "--set", init, "--set", "training.steps=1", "--output", output];
        gristmill(folder.path(), args)
    };
    let chat = &["user", "assistant"][..];
    write("a.parquet", &[chat, &["developer", "user", "assistant"]]);
    train("first").succeeded();
    write("b.parquet", &[chat, chat, &["user", "critic"]]);
    let refused = train("second");
    assert_eq!(refused.code, Some(1), "{}", refused.story());
    for part in ["turn 1: `critic` is no role", "chats/b.parquet, row 2, column `messages`", "one of system, user"] {
        assert!(refused.stderr.contains(part), "`{part}` is not in\n{}", refused.story());
    }
}

#[test]
fn a_corpus_of_which_nothing_fits_is_refused_with_the_reason() {
    let folder = folder(|_| true);
    let run = gristmill(folder.path(), RUN);
    assert_eq!(run.code, Some(1), "{}", run.story());
    let said = "none of the 16 rows of the corpus can be trained on (16 too_long); the first: ";
    assert!(run.stderr.contains(said), "{}", run.story());
    assert!(!folder.path().join("out/3_base/model").exists());
}
