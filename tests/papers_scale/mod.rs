//! `datasets/r1_800k.toml`: the paper's own scale needs servers, GPUs and weeks. That its stages fit together does not.

use std::path::Path;

use gristmill::rule::Sample;
use gristmill::rule::file::RuleSet;
use gristmill::schema::{CorpusRow, FinishReason, GroupRow, Outcome, Role};
use gristmill::store::{Dataset, Location};

use crate::support::{gristmill, manifest, repository};

/// (domain, question, answer, reasoning): two that rules can judge of each domain but code, which has tests instead.
const PROBLEMS: [(&str, &str, &str, &str); 7] = [
    (
        "math",
        "How many eggs are left of 16 after 7 are eaten?",
        "9",
        "Sixteen eggs without seven of them are nine eggs.",
    ),
    (
        "math",
        "A shelf holds 4 rows of 6 books. How many books are there?",
        "24",
        "Four rows of six books are many books.",
    ),
    ("stem", "Which is a noble gas? A) Oxygen B) Argon C) Iron D) Tin", "B", "Argon is the only noble gas of these."),
    ("stem", "Which is a metal? A) Iron B) Sulfur C) Neon D) Iodine", "A", "Iron is the only metal in this list."),
    ("logic", "Ann always lies. She says it is raining. Is it raining?", "no", "She lies, so it is not raining."),
    (
        "logic",
        "Bob is older than Cid, and Cid is older than Dan. Who is the oldest?",
        "Bob",
        "Bob is older than both of them.",
    ),
    (
        "code",
        "Read a whole number and print its double.",
        "print(2 * int(input()))",
        "The program reads it and doubles it.",
    ),
];

fn zero_form(answer: &str, reasoning: &str) -> String {
    format!("<think>{reasoning}</think>\n<answer>{answer}</answer>")
}

fn r1_form(answer: &str, reasoning: &str) -> String {
    format!("<think>\n{reasoning}\n</think>\n\n{answer}")
}

/// A program stands in a block of code.
fn shown(domain: &str, answer: &str) -> String {
    if domain == "code" { format!("\n```python\n{answer}\n```\n") } else { answer.to_owned() }
}

/// The data that the recipe asks for, a few rows of each; what the two policies would answer; a base model.
fn write_inputs(folder: &Path) -> Vec<String> {
    let write = |name: &str, rows: Vec<serde_json::Value>| {
        let text: String = rows.iter().map(|row| format!("{row}\n")).collect();
        std::fs::write(folder.join(name), text).unwrap();
    };
    std::fs::create_dir(folder.join("data")).unwrap();
    for domain in ["math", "stem", "logic", "code"] {
        let rows = PROBLEMS.iter().filter(|problem| problem.0 == domain).map(|(_, question, answer, _)| match domain {
            "code" => serde_json::json!({ "problem": question, "verification_info": {
                "language": "python", "tests": [{ "input": "4\n", "output": "8\n" }] } }),
            _ => serde_json::json!({ "problem": question, "answer": answer }),
        });
        write(&format!("data/{domain}.jsonl"), rows.collect());
    }
    let held_out = serde_json::json!({ "problem": "What is 12 / 4?", "answer": "3" });
    write("data/evaluation.jsonl", vec![held_out]);
    let turn = |role: &str, content: &str| serde_json::json!({ "role": role, "content": content });
    write(
        "data/general.jsonl",
        vec![serde_json::json!({ "messages": [turn("user", "Hello."), turn("assistant", "Hello!")] })],
    );
    let pair = |prompt: &str, chosen: &str, preference: &str| serde_json::json!({ "prompt": prompt, "chosen": chosen, "rejected": "8", "preference": preference });
    write(
        "data/preferences.jsonl",
        vec![pair("Name a prime.", "7", "helpful"), pair("Name a safe tool.", "A spoon.", "harmless")],
    );
    let answers = |form: fn(&str, &str) -> String| {
        let rows = PROBLEMS.iter().map(|(domain, question, answer, reasoning)| {
            serde_json::json!({ "question": question, "completions": [form(&shown(domain, answer), reasoning)] })
        });
        rows.collect()
    };
    write("zero.jsonl", answers(zero_form));
    write("r1.jsonl", answers(r1_form));
    let base = r#"name = "tiny"
        [stages.base_text]
        documents = 20
        text = { tasks = [{ family = "mix", level = 1 }] }
        [stages.base]
        kind = "sft"
        init = { tokenizer = "mini", hidden = 16, intermediate = 32, layers = 1, heads = 2, kv_heads = 1, context = 512 }
        corpus = "base_text"
        format = "text"
        training = { steps = 1, batch_size = 4 }
    "#;
    std::fs::write(folder.join("tiny.toml"), base).unwrap();
    gristmill(folder, ["run", "tiny.toml", "--out", "tiny"]).succeeded();
    let (model, data) = (folder.join("tiny/2_base/model"), folder.join("data"));
    let sets = [("base", &model), ("student", &model), ("data", &data)];
    sets.iter().map(|(var, path)| format!("vars.{var}={}", path.display())).collect()
}

/// The recipe with these overrides.
fn run(folder: &Path, sets: &[String], more: &[&str]) -> crate::support::Finished {
    let recipe = repository("datasets/r1_800k.toml").display().to_string();
    let sets = sets.iter().flat_map(|set| ["--set", set]);
    gristmill(folder, ["run", &recipe, "--out", "out"].into_iter().chain(sets).chain(more.iter().copied()))
}

#[test]
fn the_recipe_plans_from_end_to_end() {
    let folder = tempfile::tempdir().unwrap();
    let sets = write_inputs(folder.path());
    let plan = run(folder.path(), &sets, &["--set", "device=cpu", "--dry-run"]).succeeded();
    for stage in ["prompts", "r1_zero", "cold_start", "reasoning_rl", "corpus", "r1", "distilled", "eval", "claims"] {
        assert!(plan.state_of(stage).starts_with("will run"), "{}", plan.story());
    }
}

/// Every stage of it, with recorded answers in the place of the servers' and one step of each training.
#[test]
fn every_stage_accepts_what_the_one_before_it_makes() {
    let folder = tempfile::tempdir().unwrap();
    let mut sets = write_inputs(folder.path());
    let mut set = |key: &str, value: &str| sets.push(format!("{key}={value}"));
    set("device", "cpu");
    for stage in ["r1_zero", "reasoning_rl", "final_rl"] {
        set(&format!("{stage}.engine"), r#"{ kind = "local" }"#);
        set(&format!("{stage}.group_size"), "2");
        set(&format!("{stage}.sampling.max_tokens"), "8");
        set(&format!("{stage}.training.steps"), "1");
        set(&format!("{stage}.training.prompts_per_rollout"), "2");
        set(&format!("{stage}.training.minibatches"), "1");
        if stage != "final_rl" {
            set(&format!("{stage}.evaluate.sampling.max_tokens"), "8");
        }
    }
    for stage in ["cold_start", "sft", "distilled"] {
        set(&format!("{stage}.training.steps"), "1");
    }
    for (stage, file) in [("cold_generate", "zero.jsonl"), ("generate", "r1.jsonl")] {
        let file = folder.path().join(file).display().to_string();
        let engine = format!(r#"{{ kind = "replay", files = ["{file}"], completions = ["completions"] }}"#);
        set(&format!("{stage}.engine"), &engine);
    }
    for stage in ["eval", "eval_zero"] {
        set(&format!("{stage}.engine"), r#"{ kind = "local" }"#);
    }
    for stage in ["eval", "eval_zero", "eval_student"] {
        set(&format!("{stage}.samples"), "1");
        set(&format!("{stage}.sampling.max_tokens"), "8");
    }
    let done = run(folder.path(), &sets, &[]).succeeded();
    let out = folder.path().join("out");
    let stage = |name: &str| {
        let found = std::fs::read_dir(&out).unwrap().map(|entry| entry.unwrap().path());
        let is_it = |path: &std::path::PathBuf| {
            path.file_name().unwrap().to_string_lossy().split_once('_').is_some_and(|(_, of)| of == name)
        };
        found.filter(|path| path.is_dir()).find(is_it).unwrap_or_else(|| panic!("no `{name}`\n{}", done.story()))
    };
    let open = |path: &Path| Dataset::open(&Location::parse(path.to_str().unwrap()).unwrap()).unwrap();

    // R1-Zero is told what to write by its template, and nobody after it is.
    let asked = open(&stage("r1_zero").join("rollouts"));
    assert!(asked.rows_of::<GroupRow>().next().is_some(), "it was asked");
    let tells = |name: &str| {
        let files = std::fs::read_dir(stage(name).join("model")).unwrap().map(|entry| entry.unwrap().path());
        let read = |path: std::path::PathBuf| std::fs::read_to_string(path).unwrap_or_default();
        files.map(read).any(|text| text.contains("A conversation between User and Assistant."))
    };
    assert_eq!((tells("r1_zero"), tells("cold_start")), (true, false));

    // Two of mathematics and two of logic, out of R1-Zero's form into R1's.
    let cold: Vec<CorpusRow> = open(&stage("cold_corpus")).rows_of().map(Result::unwrap).collect();
    assert_eq!(cold.len(), 4, "{:#}", manifest(&stage("cold_select")));
    for row in &cold {
        let reply = &row.messages.last().unwrap().content;
        assert!(reply.starts_with("<think>\n") && !reply.contains("<answer>"), "{reply}");
        assert_eq!(row.messages[0].role, Role::User);
    }
    let kept = manifest(&stage("select"))["rows"].as_u64().unwrap();
    assert!(kept >= 6, "all but the program, which needs a sandbox: {kept}");
}

#[test]
fn each_rule_file_accepts_what_the_one_before_it_rewards() {
    let judge = |rules: &str, form: fn(&str, &str) -> String, problem: usize| {
        let (domain, prompt, answer, reasoning) = PROBLEMS[problem];
        let completion = form(&shown(domain, answer), reasoning);
        let sample = Sample {
            prompt,
            completion: &completion,
            gold: (domain != "code").then_some(answer),
            verification: (domain == "code")
                .then_some(r#"{"language": "python", "tests": [{"input": "4\n", "output": "8\n"}]}"#),
            domain,
            language: "en",
            difficulty: None,
            finish_reason: FinishReason::Stop,
            tokens: None,
            origin: Default::default(),
        };
        (RuleSet::load(rules).unwrap().judge(&sample), completion)
    };
    for (problem, (domain, ..)) in PROBLEMS.iter().enumerate() {
        for (rewards, selects, form) in
            [("r1_zero", "rejection_zero", zero_form as fn(&str, &str) -> String), ("r1", "rejection", r1_form)]
        {
            let (rewarded, completion) = judge(rewards, form, problem);
            if *domain == "code" && rewarded.outcome == Outcome::CannotTell && rewarded.reason == "sandbox_missing" {
                println!("skipped: there is no sandbox here");
                continue;
            }
            assert_eq!(rewarded.outcome, Outcome::Correct, "{rewards}: {completion}: {}", rewarded.reason);
            assert!(rewarded.reward.unwrap() >= 1.0 - 1e-9, "{rewards}: {completion}");
            let (selected, _) = judge(selects, form, problem);
            assert_eq!(selected.outcome, Outcome::Correct, "{selects}: {completion}: {}", selected.reason);
            let passed =
                |rule: &str| selected.scores.iter().any(|score| score.rule == rule && score.score == Some(1.0));
            for rule in ["format", "language", "readable", "repetition"] {
                assert!(passed(rule), "{selects}: {rule} of {completion}");
            }
        }
    }
}
