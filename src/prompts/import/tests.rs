use super::*;
use crate::prompts::read::tests::write;
use crate::prompts::source::ColumnRef;
use crate::schema::Role;

fn import(config: &SourceConfig) -> (Vec<Prompt>, ImportReport) {
    let mut importer = Importer::open(config, Path::new(".")).unwrap();
    let prompts = importer.by_ref().map(|row| row.unwrap().prompt).collect();
    (prompts, importer.report().clone())
}

/// Imports one row and says under which layout.
fn one(json: &str) -> (Prompt, Layout) {
    let dir = tempfile::tempdir().unwrap();
    let (mut prompts, report) = import(&SourceConfig::new(write(&dir, "set.jsonl", json.as_bytes())));
    (prompts.remove(0), report.files[0].layout)
}

fn failure(name: &str, bytes: &[u8]) -> String {
    let dir = tempfile::tempdir().unwrap();
    let path = write(&dir, name, bytes);
    let importer = Importer::open(&SourceConfig::new(&path), Path::new("."));
    let error = importer.and_then(|rows| rows.collect::<Result<Vec<_>>>()).expect_err("the file is faulty");
    error.render(false).replace(&path.display().to_string(), name)
}

#[test]
fn gsm8k_has_its_gold_after_the_marker_and_its_solution_without_marks() {
    let (prompt, layout) = one(
        r#"{"question": "How many clips?", "answer": "48/2 = <<48/2=24>>24 in May.\n48+24 = <<48+24=72>>72\n#### 72"}"#,
    );
    assert_eq!(layout, Layout::Gsm8k);
    assert_eq!(prompt.question(), "How many clips?");
    assert_eq!(prompt.gold.as_deref(), Some("72"));
    assert_eq!(prompt.solution.as_deref(), Some("48/2 = 24 in May.\n48+24 = 72"));
    assert_eq!((prompt.domain.as_str(), prompt.language.as_str(), prompt.source.as_str()), ("math", "en", "set"));
    assert_eq!(prompt.extra, None);
}

#[test]
fn math_has_its_gold_in_the_last_box_and_its_level_as_difficulty() {
    let (prompt, layout) = one(
        r#"{"problem": "Find $x$.", "level": "Level 4", "type": "Algebra", "solution": "So $x=\\boxed{\\frac{1}{2}}$."}"#,
    );
    assert_eq!(layout, Layout::Math);
    assert_eq!(prompt.gold.as_deref(), Some(r"\frac{1}{2}"));
    assert_eq!(prompt.difficulty, Some(0.75));
    assert_eq!(prompt.extra.as_deref(), Some(r#"{"level":"Level 4","type":"Algebra"}"#));
    let (prompt, _) =
        one(r#"{"problem": "Find it.", "solution": "\\boxed{3}", "answer": "4", "subject": "Algebra", "level": 1}"#);
    assert_eq!(
        (prompt.gold.as_deref(), prompt.difficulty),
        (Some("4"), Some(0.0)),
        "an answer column wins over the box"
    );
}

#[test]
fn chat_takes_the_last_answer_as_solution_and_keeps_earlier_turns() {
    let (prompt, layout) = one(
        r#"{"id": "a", "system": "Be brief.", "conversations": [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Hello"}, {"from": "human", "value": "2+2?"}, {"from": "gpt", "value": "4"}]}"#,
    );
    assert_eq!(layout, Layout::Chat);
    let roles: Vec<Role> = prompt.messages.iter().map(|m| m.role).collect();
    assert_eq!(roles, [Role::System, Role::User, Role::Assistant, Role::User]);
    assert_eq!((prompt.question(), prompt.solution.as_deref(), prompt.gold.as_deref()), ("2+2?", Some("4"), None));
    assert_eq!(prompt.extra.as_deref(), Some(r#"{"id":"a"}"#));
    assert_eq!(prompt.domain, "general");
}

#[test]
fn openr1_math_keeps_generations_in_extra() {
    let (prompt, layout) = one(
        r#"{"problem": "P", "solution": "S", "answer": "proof", "source": "olympiads", "uuid": "u", "generations": ["g"], "messages": [{"role": "user", "content": "P"}]}"#,
    );
    assert_eq!(layout, Layout::OpenR1Math);
    assert_eq!((prompt.question(), prompt.solution.as_deref(), prompt.gold.as_deref()), ("P", Some("S"), None));
    assert!(prompt.extra.unwrap().contains(r#""generations":["g"]"#));
}

#[test]
fn verl_rows_read_their_reward_model() {
    let (prompt, layout) = one(
        r#"{"data_source": "openai/gsm8k", "prompt": [{"role": "user", "content": "Q"}], "ability": "math", "reward_model": {"style": "rule", "ground_truth": "7"}, "extra_info": {"split": "train", "index": 0}}"#,
    );
    assert_eq!(layout, Layout::Verl);
    assert_eq!(
        (prompt.gold.as_deref(), prompt.domain.as_str(), prompt.source.as_str()),
        (Some("7"), "math", "openai/gsm8k")
    );
    assert_eq!(prompt.extra.as_deref(), Some(r#"{"extra_info":{"split":"train","index":0}}"#));
    let (prompt, _) = one(
        r#"{"prompt": [{"role": "user", "content": "Q"}], "reward_model": {"ground_truth": {"target": 24, "numbers": [4, 6]}}}"#,
    );
    assert_eq!(prompt.gold.as_deref(), Some("24"), "`target` is a gold name");
    assert_eq!(prompt.verification.as_deref(), Some(r#"{"target":24,"numbers":[4,6]}"#));
}

#[test]
fn choices_join_the_question_and_the_gold_becomes_a_letter() {
    let (prompt, _) = one(r#"{"question": "Which is even?", "choices": ["one", "two", "three"], "answer": 1}"#);
    assert_eq!(prompt.question(), "Which is even?\nA. one\nB. two\nC. three");
    assert_eq!(prompt.gold.as_deref(), Some("B"));
    assert_eq!(prompt.verification.as_deref(), Some(r#"{"choices":["one","two","three"]}"#));
    let (prompt, _) = one(r#"{"question": "Which?", "options": {"A": "x", "B": "y"}, "answer": "B"}"#);
    assert_eq!(prompt.gold.as_deref(), Some("B"));
}

#[test]
fn a_body_or_an_input_joins_its_question() {
    let (prompt, _) = one(r#"{"Body": "Ann has 3 apples", "Question": "How many?", "Answer": 3.0}"#);
    assert_eq!((prompt.question(), prompt.gold.as_deref()), ("Ann has 3 apples. How many?", Some("3")));
    let (prompt, _) = one(r#"{"instruction": "Translate.", "input": "chat", "output": "cat"}"#);
    assert_eq!((prompt.question(), prompt.solution.as_deref()), ("Translate.\n\nchat", Some("cat")));
}

#[test]
fn a_mapping_reads_anything_else_and_constants_fill_in() {
    let dir = tempfile::tempdir().unwrap();
    let path = write(&dir, "odd.csv", b"text,meta,hard\n\"What, then?\",42,0.25\n");
    let mut config = SourceConfig::new(path);
    config.columns.prompt = Some(ColumnRef::parse("text"));
    config.columns.gold = Some(ColumnRef::parse("meta"));
    config.columns.difficulty = Some(ColumnRef::parse("hard"));
    config.columns.domain = Some(ColumnRef::parse("= \"logic\""));
    config.columns.verification = Some(ColumnRef::parse("= {\"n\": 1}"));
    config.license = Some("MIT".to_owned());
    config.system = Some("Think.".to_owned());
    let (prompts, _) = import(&config);
    let prompt = &prompts[0];
    assert_eq!((prompt.question(), prompt.gold.as_deref(), prompt.difficulty), ("What, then?", Some("42"), Some(0.25)));
    assert_eq!((prompt.domain.as_str(), prompt.license.as_deref()), ("logic", Some("MIT")));
    assert_eq!(prompt.verification.as_deref(), Some(r#"{"n":1}"#));
    assert_eq!(prompt.messages[0].role, Role::System);
    assert_eq!(prompt.extra, None);
}

#[test]
fn the_same_question_has_the_same_id_wherever_it_stands() {
    let (a, _) = one(r#"{"question": "1+1?", "answer": "2"}"#);
    let (b, _) = one(r#"{"n": 9, "problem": "1+1?", "answer": 2}"#);
    assert_eq!(a.prompt_id, b.prompt_id);
    assert_eq!(b.extra.as_deref(), Some(r#"{"n":9}"#));
}

#[test]
fn a_parquet_file_of_any_schema_imports() {
    use arrow::array::{ArrayRef, Float64Array, Int64Array, ListBuilder, StringArray, StringBuilder, StructArray};
    use arrow::datatypes::{DataType, Field};
    use parquet::arrow::ArrowWriter;
    let text = |items: &[&str]| Arc::new(StringArray::from(items.to_vec())) as ArrayRef;
    let model = StructArray::from(vec![
        (Arc::new(Field::new("style", DataType::Utf8, true)), text(&["rule", "rule"])),
        (Arc::new(Field::new("ground_truth", DataType::Utf8, true)), text(&["4", "9"])),
    ]);
    let mut tags = ListBuilder::new(StringBuilder::new());
    tags.append_value([Some("a"), None]);
    tags.append_null();
    let batch = arrow::array::RecordBatch::try_from_iter([
        ("prompt", text(&[r#"[{"role": "user", "content": "2+2?"}]"#, r#"[{"role": "user", "content": "3*3?"}]"#])),
        ("reward_model", Arc::new(model) as ArrayRef),
        ("score", Arc::new(Float64Array::from(vec![Some(0.5), None])) as ArrayRef),
        ("n", Arc::new(Int64Array::from(vec![1, 2])) as ArrayRef),
        ("tags", Arc::new(tags.finish()) as ArrayRef),
    ])
    .unwrap();
    let mut bytes = Vec::new();
    let mut writer = ArrowWriter::try_new(&mut bytes, batch.schema(), None).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
    let dir = tempfile::tempdir().unwrap();
    for (name, bytes) in [("a.parquet", bytes.clone()), ("b.parquet.zst", zstd::encode_all(&bytes[..], 1).unwrap())] {
        let (prompts, report) = import(&SourceConfig::new(write(&dir, name, &bytes)));
        assert_eq!((report.files[0].format, report.files[0].layout), (Format::Parquet, Layout::Verl));
        let read: Vec<_> = prompts.iter().map(|p| (p.question(), p.gold.as_deref().unwrap())).collect();
        assert_eq!(read, [("2+2?", "4"), ("3*3?", "9")]);
        assert_eq!(prompts[0].extra.as_deref(), Some(r#"{"score":0.5,"n":1,"tags":["a",null]}"#));
    }
    let cut = failure("cut.parquet", &bytes[..bytes.len() - 40]);
    assert!(cut.contains("not a readable Parquet file") && cut.contains("hint: the file may be cut off"), "{cut}");
}

#[test]
fn faults_stop_with_file_line_and_hint() {
    assert_eq!(
        failure("bad.jsonl", b"{\"question\": \"a\", \"answer\": \"1\"}\n{\"question\": \"b\", \"answer\": }\n"),
        "error: bad JSON: expected value\n |\n = at: bad.jsonl:2:29\n = hint: `on_error = \"skip\"` in the source leaves such rows out and counts them"
    );
    assert_eq!(
        failure("odd.jsonl", b"{\"foo\": 1, \"bar\": 2}\n"),
        "error: no prompt in this row; its columns are foo, bar\n |\n = at: odd.jsonl:1\n = hint: name the column in the source: `columns = { prompt = \"…\" }`\n = hint: `on_error = \"skip\"` in the source leaves such rows out and counts them"
    );
    for (name, bytes, told) in [
        ("utf8.jsonl", b"{\"question\": \"\xff\"}\n".as_slice(), "invalid UTF-8"),
        (
            "type.jsonl",
            b"{\"question\": 5, \"answer\": 1}",
            "the prompt must be text or a list of turns, it is a number",
        ),
        ("turns.jsonl", b"{\"messages\": [{\"role\": \"assistant\", \"content\": \"x\"}]}", "no user turn"),
        ("none.jsonl", b"\n\n", "the source has no rows"),
        ("empty.jsonl", b"", "the source has no rows"),
        ("ragged.csv", b"question,answer\na,b,c\n", "the row has 3 cells, the header 2"),
        ("twice.csv", b"q,q\n1,2\n", "two columns are named `q`"),
        ("open.json", b"[{\"question\": \"a\"}, {\"question\": ", "the file ends inside it"),
        ("nan.jsonl", b"{\"question\": \"a\", \"answer\": NaN}", "JSON has no NaN"),
        ("pretty.jsonl", b"{\n  \"question\": \"a\"\n}", "format = \"json\""),
    ] {
        let text = failure(name, bytes);
        assert!(text.contains(told) && text.contains(name), "{name}: {text}");
    }
}

#[test]
fn skipped_rows_are_counted_by_reason_with_their_places() {
    let dir = tempfile::tempdir().unwrap();
    let mut text = String::from(
        "{\"id\": 1, \"question\": \"a\", \"answer\": \"notfound\"}\n{bad\n{\"id\": 1, \"question\": \"b\", \"answer\": \"2\"}\n",
    );
    text += &"{\"question\": null, \"answer\": 3}\n".repeat(150);
    let mut config = SourceConfig::new(write(&dir, "a.jsonl", text.as_bytes()));
    config.on_error = OnError::Skip;
    let (prompts, report) = import(&config);
    assert_eq!((prompts.len(), report.rows, report.imported), (2, 153, 2));
    assert_eq!(report.skipped, [("bad_json".to_owned(), 1), ("missing_prompt".to_owned(), 150)].into());
    assert_eq!(report.places.len(), KEPT_PLACES);
    assert_eq!((report.places[0].line, report.places[0].reason.as_str()), (Some(2), "bad_json"));
    assert_eq!(report.gold_missing, [("notfound".to_owned(), 1)].into());
    assert_eq!(report.duplicate_ids, 1);
}

#[test]
fn folders_patterns_and_limits() {
    let dir = tempfile::tempdir().unwrap();
    for name in ["b.jsonl", "a.jsonl", "notes.txt", "_part.jsonl"] {
        write(&dir, name, format!("{{\"question\": \"{name}\"}}\n{{\"question\": \"{name} again\"}}\n").as_bytes());
    }
    let questions =
        |config: &SourceConfig| import(config).0.iter().map(|p| p.question().to_owned()).collect::<Vec<_>>();
    let folder = SourceConfig::new(dir.path());
    assert_eq!(questions(&folder), ["a.jsonl", "a.jsonl again", "b.jsonl", "b.jsonl again"]);
    assert_eq!(questions(&SourceConfig { limit: Some(3), ..folder }).len(), 3);
    assert_eq!(questions(&SourceConfig::new(dir.path().join("b*.jsonl"))), ["b.jsonl", "b.jsonl again"]);
    let error = Importer::open(&SourceConfig::new(dir.path().join("c*.jsonl")), Path::new(".")).err().unwrap();
    assert!(error.to_string().contains("no data file here"));
}

/// The field's own files, where they are at hand: rows as their list says, gold wherever there is one.
#[test]
fn the_shared_files_import_whole() {
    let root = std::env::var_os("GRISTMILL_SHARED_DATA")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/data"), PathBuf::from);
    if !root.join("gsm8k_test.jsonl").exists() {
        println!("skipped: no shared data at {}", root.display());
        return;
    }
    for (name, rows, layout, language) in [
        ("aime24", 30, Layout::Columns, "en"),
        ("amc23", 40, Layout::Columns, "en"),
        ("asdiv", 2215, Layout::Columns, "en"),
        ("cmath_zh", 600, Layout::Columns, "zh"),
        ("college_math", 2818, Layout::Columns, "en"),
        ("gaokao2023en", 385, Layout::Columns, "en"),
        ("gsm8k_example_model_solutions", 1319, Layout::Columns, "en"),
        ("gsm8k_test", 1319, Layout::Gsm8k, "en"),
        ("gsm8k_train", 7473, Layout::Gsm8k, "en"),
        ("math500", 500, Layout::Math, "en"),
        ("math_test_5000", 5000, Layout::Math, "en"),
        ("mathcoder_7b_gsm8k_correct", 849, Layout::Chat, "en"),
        ("mathcoder_7b_gsm8k_wrong", 470, Layout::Chat, "en"),
        ("mgsm_zh", 250, Layout::Chat, "zh"),
        ("minerva_math", 272, Layout::Math, "en"),
        ("mmlu_stem", 3018, Layout::Columns, "en"),
        ("nemo_aime25", 30, Layout::Columns, "en"),
        ("nemo_compmath2425", 256, Layout::Columns, "en"),
        ("olympiadbench", 675, Layout::Columns, "en"),
        ("qwen_math_cot_100x8", 100, Layout::Columns, "en"),
        ("svamp", 1000, Layout::Columns, "en"),
    ] {
        let (prompts, report) = import(&SourceConfig::new(root.join(format!("{name}.jsonl"))));
        assert_eq!(prompts.len(), rows, "{name}");
        assert_eq!(report.files[0].layout, layout, "{name}");
        let without_gold = prompts.iter().filter(|p| p.gold.is_none()).count();
        println!(
            "{name}: {rows} rows, {without_gold} without gold {:?}, e.g. {:?}",
            report.gold_missing, prompts[0].gold
        );
        // Two rows of this set have an empty answer.
        let empty = if name == "gaokao2023en" { 2 } else { 0 };
        assert_eq!(without_gold, empty, "{name}: {:?}", report.gold_missing);
        let tagged = prompts.iter().filter(|p| p.language == language).count();
        println!("    {tagged} tagged {language}");
        assert!(tagged * 100 >= rows * 90, "{name}: {tagged} of {rows} tagged {language}");
        let golds_are_short = prompts.iter().filter(|p| p.gold.as_ref().is_some_and(|g| g.len() < 300)).count();
        assert!(golds_are_short * 100 >= rows * 95, "{name}: {golds_are_short} short golds");
    }
}
