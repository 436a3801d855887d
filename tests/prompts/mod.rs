//! Prompt sets: what is wrong with a stage's table is told when the recipe is read, and nothing of a file is lost silently.

use std::path::Path;

use gristmill::schema::Prompt;
use gristmill::store::{Dataset, Location};

use crate::support::{gristmill, manifest};

mod ask;

const RUN: [&str; 4] = ["run", "recipe.toml", "--out", "out"];

/// A folder with a recipe of this text and a small prompt file.
fn folder(recipe: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let put = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
    put("recipe.toml", recipe);
    put(
        "q.jsonl",
        "{\"question\": \"What is 1+1?\", \"answer\": \"2\"}\n{\"question\": \"What is 2+2?\", \"answer\": \"4\"}\n",
    );
    folder
}

#[test]
fn a_faulty_table_is_told_with_its_place_before_anything_runs() {
    let source = "sources = [{ path = \"q.jsonl\" }]\n";
    for (text, place, hint) in [
        ("sources = \"q.jsonl\"\n", "2:11", "write `sources = [{ path = \"q.jsonl\" }]`"),
        ("sources = [\"q.jsonl\"]\n", "2:12", "write `sources = [{ path = \"q.jsonl\" }]`"),
        ("sources = { path = \"q.jsonl\" }\n", "2:11", "write `sources = [{"),
        ("sources = [{ path = \"q.jsonl\", language = \"no tag\" }]\n", "2:12", "BCP 47"),
        ("procedural = [{ count = 3, mix = [{ name = \"arithmetics\" }] }]\n", "2:44", "did you mean `arithmetic`?"),
        ("procedural = [{ count = 3, mix = [{ name = \"linear\", levels = [9] }] }]\n", "2:35", "levels: 1 to 4"),
        ("procedural = [{ count = 3, mix = [{ name = \"linear\" }], holdout = 2 }]\n", "2:67", "not a fraction"),
        ("procedural = [{ count = 3, mix = [] }]\n", "2:34", "for example mix"),
        (&format!("{source}sample = {{ by = [\"domain\"] }}\n"), "3:10", "set `total`"),
        (
            &format!("{source}sample = {{ by = [\"domain\"], total = 1, targets = {{ math = 2 }} }}\n"),
            "3:10",
            "raise `total`",
        ),
        (&format!("{source}filter = {{ languages = [\"English\"] }}\n"), "3:10", "write `en`"),
        (&format!("{source}filter = {{ min_chars = 9, max_chars = 3 }}\n"), "3:10", "as long and as short"),
        (&format!("{source}dedup = {{ near = {{ threshold = 2.0 }} }}\n"), "3:9", "`threshold` must be"),
        (&format!("{source}decontaminate = {{ common = 5.0 }}\n"), "3:17", "a share"),
        (&format!("{source}pass_rate = {{ min = 0.9, max = 0.1 }}\n"), "3:13", "`min` the lower"),
    ] {
        let folder = folder(&format!("[stages.prompts]\n{text}"));
        let run = gristmill(folder.path(), RUN);
        assert_eq!(run.code, Some(2), "{text}{}", run.story());
        assert!(run.stderr.contains(&format!("recipe.toml:{place}")), "{text}wanted {place}: {}", run.stderr);
        assert!(run.stderr.contains(hint), "{text}wanted {hint}: {}", run.stderr);
        assert!(!folder.path().join("out/1_prompts").exists());
    }
}

#[test]
fn files_that_would_lose_rows_silently_are_refused() {
    for (name, text, told) in [
        ("open.csv", "question,answer\nWhat is one?,\"1\nWhat is two?,2\n", "open.csv:2"),
        ("splits.json", "{\"train\": [{\"question\": \"a?\"}], \"test\": [{\"question\": \"b?\"}]}", "train, test"),
    ] {
        let folder = folder(&format!("[stages.prompts]\nsources = [{{ path = \"{name}\" }}]\n"));
        std::fs::write(folder.path().join(name), text).unwrap();
        let run = gristmill(folder.path(), RUN);
        assert_eq!(run.code, Some(1), "{}", run.story());
        assert!(run.stderr.contains(told), "{}", run.stderr);
    }
    let folder = folder("[stages.prompts]\nsources = [{ path = \"splits.json\", field = \"test\" }]\n");
    std::fs::write(
        folder.path().join("splits.json"),
        "{\"train\": [{\"question\": \"a?\"}], \"test\": [{\"question\": \"b?\"}]}",
    )
    .unwrap();
    gristmill(folder.path(), RUN).succeeded();
    assert_eq!(questions(folder.path()), ["b?"]);
}

#[test]
fn conflicts_of_golds_are_listed_and_other_problems_stay() {
    let folder = folder(
        "[stages.prompts]\nsources = [{ path = \"q.jsonl\" }]\nevaluation = [{ path = \"e.jsonl\", name = \"e\" }]\n",
    );
    let row = |question: &str, answer: &str| format!("{{\"question\": \"{question}\", \"answer\": \"{answer}\"}}\n");
    let story = "A baker in a small town near the river bakes loaves of bread every morning of the week and sells them at the \
        market to families and students who come by boat; how many loaves does he sell";
    let rows = [
        row("Find x if x + 1 = 3.", "2"),
        row("Find x  if x + 1 = 3.", "5"),
        row(&format!("{story} in all?"), "9"),
        row(&format!("{story} in May?"), "7"),
        row("Problem: What is the capital of Peru? Answer briefly.", "Lima"),
    ];
    std::fs::write(folder.path().join("q.jsonl"), rows.concat()).unwrap();
    std::fs::write(folder.path().join("e.jsonl"), row("What is the capital of Peru?", "Lima")).unwrap();
    gristmill(folder.path(), RUN).succeeded();
    let out = folder.path().join("out/1_prompts");
    let manifest = manifest(&out);
    assert_eq!(manifest["drops"], serde_json::json!({ "contaminated": 1, "gold_conflict": 1 }));
    assert_eq!((&manifest["counts"]["gold_conflicts"], &manifest["counts"]["kept_other_gold"]), (&1.into(), &1.into()));
    assert_eq!(manifest["facts"]["evaluation"][0]["whole"], 1);
    let conflicts = std::fs::read_to_string(out.join("_gold_conflicts.jsonl")).unwrap();
    assert!(conflicts.contains("\"dropped\":true") && conflicts.contains("\"line\":2"), "{conflicts}");
    let drops = std::fs::read_to_string(out.join("_drops.jsonl")).unwrap();
    let reasons: Vec<&str> =
        drops.lines().filter_map(|line| line.split("\"reason\":\"").nth(1)?.split('"').next()).collect();
    assert_eq!(reasons, ["gold_conflict", "contaminated"], "in the order of the rows");
}

#[test]
fn rows_that_cannot_be_read_add_up_and_are_all_listed() {
    let folder = folder(
        "[stages.prompts]\nsources = [{ path = \"q.jsonl\", on_error = \"skip\" }]\n\
         evaluation = [{ path = \"e.jsonl\", name = \"e\", on_error = \"skip\" }]\n",
    );
    let mut text = String::new();
    for i in 0..150 {
        text += &format!("{{\"question\": \"What is {i} + {i}?\", \"answer\": \"{}\"}}\n{{\"question\": \n", 2 * i);
    }
    std::fs::write(folder.path().join("q.jsonl"), text).unwrap();
    let evaluation = "{\"question\": \"What is the capital of Peru?\"}\n{\"question\": tru}\n{\"answer\": \"3\"}\n";
    std::fs::write(folder.path().join("e.jsonl"), evaluation).unwrap();
    let run = gristmill(folder.path(), RUN).succeeded();
    let out = folder.path().join("out/1_prompts");
    let manifest = manifest(&out);
    assert_eq!(manifest["drops"], serde_json::json!({ "import:bad_json": 150 }));
    assert_eq!((&manifest["counts"]["read"], &manifest["counts"]["kept"]), (&300.into(), &150.into()));
    let drops = std::fs::read_to_string(out.join("_drops.jsonl")).unwrap();
    assert_eq!(drops.lines().count(), 150);
    let last: serde_json::Value = serde_json::from_str(drops.lines().last().unwrap()).unwrap();
    assert_eq!(
        (&last["file"], &last["line"], &last["reason"]),
        (&"q.jsonl".into(), &300.into(), &"import:bad_json".into())
    );
    // What the prompts are not compared with is told too.
    let set = &manifest["facts"]["evaluation"][0];
    assert_eq!(
        (&set["rows"], &set["skipped"]),
        (&1.into(), &serde_json::json!({ "bad_json": 1, "missing_prompt": 1 }))
    );
    assert_eq!(set["places"][0]["line"], 2);
    let told = "of the evaluation set `e` that cannot be read are not searched for: 1 bad_json, 1 missing_prompt";
    assert!(run.stderr.contains(told) && run.stderr.contains("the first is e.jsonl:2"), "{}", run.stderr);
}

#[test]
fn a_dataset_of_prompts_that_is_read_again_is_the_same_dataset() {
    let recipe = |path: &str| {
        format!(
            "[stages.prompts]\nsources = [{{ path = \"{path}\", domain = \"talk\" }}]\ndedup = {{ near = false }}\n"
        )
    };
    let folder = folder(&recipe("pairs.jsonl"));
    let rows = [
        r#"{"prompt": "Name a prime number, please.", "chosen": "Seven.", "rejected": "Eight.", "score": 0.1}"#,
        r#"{"prompt": "What is 3 + 4?", "answer": "7", "difficulty": 0.25, "license": "MIT", "solution": "Count on."}"#,
        r#"{"prompt": "Which of these is red?", "answer": "A", "choices": ["blood", "grass"], "lang": "en"}"#,
        r#"{"prompt": "Sum a list.", "verification_info": {"tests": ["assert f([1]) == 1"]}, "domain": "code"}"#,
    ];
    std::fs::write(folder.path().join("pairs.jsonl"), rows.join("\n")).unwrap();
    gristmill(folder.path(), RUN).succeeded();
    std::fs::write(folder.path().join("again.toml"), recipe("out/1_prompts")).unwrap();
    gristmill(folder.path(), ["run", "again.toml", "--out", "again"]).succeeded();
    let prompts = |out: &str| {
        let dataset = Dataset::open(&Location::from(folder.path().join(out).join("1_prompts"))).unwrap();
        dataset.rows_of::<Prompt>().map(|prompt| prompt.unwrap()).collect::<Vec<_>>()
    };
    let (first, again) = (prompts("out"), prompts("again"));
    assert!(first[0].extra.as_deref().is_some_and(|extra| extra.contains("rejected")), "{first:#?}");
    assert!(first[2].verification.is_some(), "{first:#?}");
    assert_eq!(again, first);
}

#[test]
fn prompts_that_were_exported_for_trl_come_back_as_they_were() {
    let folder = folder(
        "[stages.prompts]\nsources = [{ path = \"mixed.jsonl\" }]\n\n[stages.export]\ninput = \"prompts\"\n\
         format = \"prompt_only\"\n",
    );
    let rows = [
        r#"{"prompt": "What is 3 + 4, all in all?", "answer": "7", "difficulty": 0.25}"#,
        r#"{"prompt": "Which of these is red?", "answer": "A", "choices": ["blood", "grass"]}"#,
        r#"{"prompt": "Write f, which doubles.", "verification": {"tests": ["assert f(1) == 2"]}}"#,
        r#"{"prompt": "Say it in three words.", "instruction_id_list": ["punctuation:no_comma"], "kwargs": [{}]}"#,
    ];
    std::fs::write(folder.path().join("mixed.jsonl"), rows.join("\n")).unwrap();
    gristmill(folder.path(), RUN).succeeded();
    std::fs::write(folder.path().join("again.toml"), "[stages.prompts]\nsources = [{ path = \"out/2_export\" }]\n")
        .unwrap();
    gristmill(folder.path(), ["run", "again.toml", "--out", "again"]).succeeded();
    let ids = |out: &str| {
        let dataset = Dataset::open(&Location::from(folder.path().join(out).join("1_prompts"))).unwrap();
        dataset.rows_of::<Prompt>().map(|prompt| prompt.unwrap().prompt_id).collect::<Vec<_>>()
    };
    assert_eq!(ids("out").len(), 4);
    assert_eq!(ids("again"), ids("out"), "messages, gold, verification and domain are the same");
}

fn questions(folder: &Path) -> Vec<String> {
    let prompts = Dataset::open(&Location::from(folder.join("out/1_prompts"))).unwrap();
    prompts.rows_of::<Prompt>().map(|prompt| prompt.unwrap().question().to_owned()).collect()
}
