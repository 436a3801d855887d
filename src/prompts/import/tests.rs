use super::*;
use crate::prompts::column_ref::ColumnRef;
use crate::prompts::read::tests::write;
use crate::schema::Role;

mod ask;
mod published;

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
fn a_row_that_names_no_domain_is_of_the_one_that_its_check_tells() {
    let domain = |row: &str| one(row).0.domain;
    assert_eq!(domain(r#"{"question": "2+2?", "answer": "4"}"#), "math");
    assert_eq!(domain(r#"{"problem": "2+2?", "answer": 4}"#), "math");
    assert_eq!(domain(r#"{"prompt": "2+2?", "ground_truth": "4"}"#), "math");
    assert_eq!(domain(r#"{"prompt": [{"role": "user", "content": "2+2?"}], "answer": "4"}"#), "math");
    assert_eq!(domain(r#"{"question": "Prime?", "choices": ["4", "7"], "answer": "B"}"#), "stem");
    assert_eq!(
        domain(r#"{"question": "Double it.", "verification_info": {"inputs": ["1"], "outputs": ["2"]}}"#),
        "code"
    );
    assert_eq!(domain(r#"{"prompt": "Write a poem."}"#), "general");
    assert_eq!(domain(r#"{"question": "Capital?", "answer": "Paris", "domain": "geography"}"#), "geography");
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
fn options_have_the_names_that_their_source_gives_them() {
    for (labels, answer) in [(r#"["1","2","3"]"#, "3"), (r#"["A","B","C"]"#, "C"), (r#"["c","b","a"]"#, "A")] {
        let (prompt, _) = one(&format!(
            r#"{{"question": "Which?", "choices": {{"text": ["x","y","z"], "label": {labels}}}, "answerKey": "{answer}"}}"#
        ));
        assert_eq!((prompt.question(), prompt.gold.as_deref()), ("Which?\nA. x\nB. y\nC. z", Some("C")), "{labels}");
    }
}

#[test]
fn a_prompt_and_a_completion_of_turns_are_one_conversation() {
    let (prompt, _) = one(
        r#"{"prompt": [{"role": "user", "content": "What colour?"}], "completion": [{"role": "assistant", "content": "Blue."}]}"#,
    );
    assert_eq!((prompt.question(), prompt.solution.as_deref()), ("What colour?", Some("Blue.")));
    assert_eq!((prompt.messages.len(), prompt.gold, prompt.extra), (1, None, None));
    let (prompt, _) = one(
        r#"{"prompt": [{"role": "user", "content": "q"}], "completion": [{"role": "assistant", "content": "call"}, {"role": "tool", "content": "42"}, {"role": "assistant", "content": "It is 42."}]}"#,
    );
    assert_eq!((prompt.messages.len(), prompt.solution.as_deref()), (3, Some("It is 42.")));
    let (prompt, _) = one(r#"{"prompt": "The sky is", "completion": " blue."}"#);
    assert_eq!((prompt.question(), prompt.solution.as_deref()), ("The sky is", Some(" blue.")));
}

#[test]
fn a_label_of_true_or_false_judges_the_completion_and_is_no_gold() {
    let row = |label: bool| format!(r#"{{"prompt": "Why?", "completion": "Because.", "label": {label}}}"#);
    let (good, _) = one(&row(true));
    assert_eq!((good.gold.as_deref(), good.solution.as_deref()), (None, Some("Because.")));
    let (bad, _) = one(&row(false));
    assert_eq!((bad.gold.as_deref(), bad.solution.as_deref()), (None, None));
    assert_eq!(bad.extra.as_deref(), Some(r#"{"completion":"Because.","label":false}"#));
    assert_eq!(one(r#"{"question": "Is it so?", "answer": true}"#).0.gold.as_deref(), Some("True"));
}

#[test]
fn preferences_begin_with_their_prompt() {
    let (prompt, layout) = one(
        r#"{"chosen": [{"role": "user", "content": "Snow?"}, {"role": "assistant", "content": "white"}], "rejected": [{"role": "user", "content": "Snow?"}, {"role": "assistant", "content": "black"}]}"#,
    );
    assert_eq!((layout, prompt.question(), prompt.solution.as_deref()), (Layout::Chat, "Snow?", None));
    let extra = prompt.extra.unwrap();
    assert!(extra.contains("white") && extra.contains("black"), "both answers stay: {extra}");
    let told = failure("a.jsonl", br#"{"talk": [{"role": "user", "content": "Snow?"}], "n": 1}"#);
    assert!(told.contains("`columns = { messages = \"talk\" }`"), "{told}");
}

#[test]
fn a_verification_that_stands_as_text_has_its_gold_inside() {
    for info in [r#"{\"ground_truth\": \"3\"}"#, "{'ground_truth': '3'}"] {
        let row = format!(
            r#"{{"prompt": "Solve y+2=5.", "gold_standard_solution": "So $y = \\boxed{{3}}$.", "verification_info": "{info}", "source": "NuminaMath"}}"#
        );
        let (prompt, _) = one(&row);
        assert_eq!((prompt.gold.as_deref(), prompt.solution.as_deref()), (Some("3"), Some(r"So $y = \boxed{3}$.")));
        assert_eq!((prompt.source.as_str(), prompt.extra), ("NuminaMath", None));
        let dir = tempfile::tempdir().unwrap();
        let mut config = SourceConfig::new(write(&dir, "a.jsonl", row.as_bytes()));
        config.columns.gold = Some(ColumnRef::parse("verification_info.ground_truth"));
        let (prompts, _) = import(&config);
        assert_eq!(prompts[0].gold.as_deref(), Some("3"), "{info}");
        assert!(
            prompts[0].extra.as_ref().unwrap().contains("verification_info"),
            "what was read in part is kept whole"
        );
    }
    let (tests, _) = one(r#"{"prompt": "Write f.", "verification_info": "{\"test_cases\": [1]}"}"#);
    assert_eq!((tests.gold, tests.verification.as_deref()), (None, Some(r#"{"test_cases":[1]}"#)));
}

#[test]
fn columns_of_tests_become_the_verification() {
    for (row, expected, extra) in [
        (
            r#"{"prompt": "Double it.", "official_tests": [{"input": "1", "output": "2"}], "generated_tests": 0, "generated_checker": "print(1)", "time_limit": 2.0, "rating": 800, "language": "cpp"}"#,
            r#"{"official_tests":[{"input":"1","output":"2"}],"generated_tests":0,"generated_checker":"print(1)","time_limit":2.0,"language":"cpp"}"#,
            Some(r#"{"rating":800}"#),
        ),
        (
            r#"{"problem": "Double it.", "tests": "[{\"input\": \"1\", \"output\": \"2\", \"testtype\": \"functional\"}]", "metadata": {"func_name": "f"}}"#,
            r#"{"tests":"[{\"input\": \"1\", \"output\": \"2\", \"testtype\": \"functional\"}]","metadata":{"func_name":"f"}}"#,
            None,
        ),
        (
            r#"{"question": "Double it.", "test": "from solution import f\ndef test_f():\n    assert f(1) == 2\n", "metadata": {"n": 1}}"#,
            r#"{"test":"from solution import f\ndef test_f():\n    assert f(1) == 2\n"}"#,
            Some(r#"{"metadata":{"n":1}}"#),
        ),
        (
            r#"{"prompt": [{"role": "user", "content": "Double it."}], "reward_model": {"ground_truth": ["assert f(1) == 2", "assert f(2) == 4"]}}"#,
            r#"["assert f(1) == 2","assert f(2) == 4"]"#,
            None,
        ),
    ] {
        let (prompt, _) = one(row);
        assert_eq!(prompt.verification.as_deref(), Some(expected), "{row}");
        assert_eq!((prompt.domain.as_str(), prompt.gold.as_deref()), ("code", None), "{row}");
        assert_eq!(prompt.extra.as_deref(), extra, "{row}");
        assert_ne!(prompt.language, "cpp");
    }
    let (prompt, _) = one(r#"{"question": "2+2?", "answer": "4", "test": "yes", "tests": ["a"]}"#);
    assert_eq!((prompt.verification, prompt.domain.as_str()), (None, "math"));
    assert_eq!(prompt.extra.as_deref(), Some(r#"{"test":"yes","tests":["a"]}"#));
}

#[test]
fn a_reference_solution_may_box_its_gold_in_any_layout() {
    let (prompt, layout) = one(
        r#"{"problem": "4*4?", "deepseek_solution": "\\boxed{17}", "ground_truth_solution": "It is \\boxed{16}.", "domain": "math"}"#,
    );
    assert_eq!(layout, Layout::Columns);
    assert_eq!((prompt.gold.as_deref(), prompt.solution.as_deref()), (Some("16"), Some(r"It is \boxed{16}.")));
    let (chat, _) =
        one(r#"{"messages": [{"role": "user", "content": "4*4?"}, {"role": "assistant", "content": "\\boxed{17}"}]}"#);
    assert_eq!(chat.gold, None, "what a model said is no gold");
}

#[test]
fn a_row_says_where_it_is_from_and_what_it_is_about() {
    let (prompt, _) = one(
        r#"{"problem": "5*7?", "answer": "35", "source": "orca_math", "domain": ["Mathematics -> Arithmetic", "x"]}"#,
    );
    assert_eq!((prompt.source.as_str(), prompt.domain.as_str()), ("orca_math", "math"));
    assert_eq!(prompt.extra.as_deref(), Some(r#"{"domain":["Mathematics -> Arithmetic","x"]}"#));
    let (several, _) = one(r#"{"question": "q", "source": ["a", "b"]}"#);
    assert_eq!(several.source, "a,b");
    let long = "word ".repeat(60);
    let (text, _) = one(&format!(r#"{{"question": "q", "source": "{long}"}}"#));
    assert_eq!(text.source, "set", "a long text is no name");
}

#[test]
fn an_answer_without_its_marker_is_kept_as_the_solution() {
    let dir = tempfile::tempdir().unwrap();
    let text = "{\"question\": \"a?\", \"answer\": \"So 1.\\n#### 1\"}\n{\"question\": \"b?\", \"answer\": \"So <<2=2>>2.\"}\n";
    let (prompts, report) = import(&SourceConfig::new(write(&dir, "a.jsonl", text.as_bytes())));
    assert_eq!((prompts[1].gold.as_deref(), prompts[1].solution.as_deref()), (None, Some("So 2.")));
    assert_eq!(report.gold_missing, [("no_marker".to_owned(), 1)].into());
}

#[test]
fn a_slip_in_a_mapped_column_is_told_with_the_nearest_name() {
    let dir = tempfile::tempdir().unwrap();
    let rows =
        b"{\"q\": \"a?\", \"answer\": 1, \"meta\": {\"level\": 1}}\n{\"q\": \"b?\", \"answer\": 2, \"grade\": null}\n";
    let path = write(&dir, "a.jsonl", rows);
    let read = |key: &str, column: &str, limit| {
        let mut config = SourceConfig { limit, ..SourceConfig::new(&path) };
        config.columns = toml::from_str(&format!("prompt = 'q'\n{key} = '{column}'")).unwrap();
        let rows: Result<Vec<_>> = Importer::open(&config, Path::new(".")).and_then(Iterator::collect);
        rows.map(|rows| rows.len()).map_err(|error| error.render(false))
    };
    for (key, column, near) in [
        ("gold", "awnser", "did you mean `answer`?"),
        ("id", "meta.levl", "did you mean `meta.level`?"),
        ("domain", "subject", "known here: answer, grade, meta, meta.level, q"),
    ] {
        let told = read(key, column, None).unwrap_err();
        assert!(
            told.contains(&format!("`columns.{key}`")) && told.contains(near) && told.contains("a.jsonl"),
            "{told}"
        );
        assert!(read(key, column, Some(1)).is_err(), "also where reading stops early");
    }
    for (key, column) in [("gold", "grade"), ("difficulty", "= 0.5"), ("id", "meta.level")] {
        assert_eq!(
            read(key, column, None),
            Ok(2),
            "{key} = {column}: absent from some rows only, or null, or a constant"
        );
    }
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
    assert!(
        cut.contains("not a Parquet file, or it was cut short") && cut.contains("hint: write or download it again"),
        "{cut}"
    );
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
        ("semicolons.csv", b"question;answer\n1+1?;2\n", "delimited by another sign"),
        ("wide.csv", b"\xff\xfeq\0\n\0", "iconv -f UTF-16 -t UTF-8"),
        ("wide.jsonl", b"\xfe\xff\0{\0}", "iconv -f UTF-16 -t UTF-8"),
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
    assert!(error.to_string().contains("no file matches this pattern"));
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
