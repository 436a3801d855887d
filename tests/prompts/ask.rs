//! Words around the questions that models are asked.

use gristmill::schema::{CorpusRow, Prompt};
use gristmill::store::{Dataset, Location};

use super::{RUN, folder, questions};
use crate::support::{gristmill, manifest};

#[test]
fn an_ask_is_what_models_see_and_recordings_of_the_bare_question_answer_it() {
    let ask = r#"ask = "{prompt}\n\nPut your final answer within \\boxed{}.""#;
    let stages = |source: &str| {
        format!(
            "[stages.prompts]\nsources = [{{ {source} }}]\nevaluation = [{{ path = \"test.jsonl\" }}]\n\n\
             [stages.generate]\nengine = {{ kind = \"replay\", files = [\"recorded\"], question = \"problem\", \
             completions = [\"completion\"] }}\n\n[stages.verify]\nrules = \"rules.toml\"\n\n[stages.group]\n\n[stages.select]\n\n\
             [stages.corpus]\ntracks = [{{ name = \"maths\", groups = \"select\", prompts = \"prompts\" }}]\n"
        )
    };
    let folder = folder(&stages(&format!("path = \"set.jsonl\", domain = \"math\", {ask}")));
    let put = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
    let first = r#"{"problem": "What is the sum of one and two?", "answer": "3"}"#;
    let others = r#"{"problem": "what is the sum of one and two", "answer": "3"}
{"problem": "How many eggs are in two dozen boxes of ten?", "answer": "240"}
{"problem": "How many days has a leap year of the calendar?", "answer": "366"}"#;
    put("set.jsonl", &format!("{first}\n{others}\n"));
    put("test.jsonl", r#"{"question": "How many days has a leap year of the calendar?", "answer": "366"}"#);
    put("rules.toml", "reward = \"accuracy\"\n[rules.accuracy]\nkind = \"math\"\nlast_number = true\n");
    std::fs::create_dir_all(folder.path().join("recorded/data")).unwrap();
    put(
        "recorded/data/train.jsonl",
        r#"{"problem": "What is the sum of one and two?", "completion": "It is 3."}
{"problem": "How many eggs are in two dozen boxes of ten?\n\nPut your final answer within \\boxed{}.", "completion": "\\boxed{240}"}"#,
    );
    gristmill(folder.path(), RUN).succeeded();
    let asked = |of: [&str; 2]| of.map(|question| format!("{question}\n\nPut your final answer within \\boxed{{}}."));
    let wanted = asked(["What is the sum of one and two?", "How many eggs are in two dozen boxes of ten?"]);
    assert_eq!(questions(folder.path()), wanted, "one copy, and nothing of the test set");
    let out = folder.path().join("out");
    let drops = manifest(&out.join("1_prompts"))["drops"].clone();
    assert_eq!(drops, serde_json::json!({ "contaminated": 1, "exact_duplicate": 1 }));
    let counts = &manifest(&out.join("3_verify"))["counts"];
    assert_eq!(counts["correct"], 2, "the bare question's and the asked one's recording: {counts}");
    let corpus = Dataset::open(&Location::from(out.join("6_corpus"))).unwrap();
    let rows: Vec<CorpusRow> = corpus.rows_of().map(|row| row.unwrap()).collect();
    let mut turns: Vec<&str> = rows.iter().map(|row| row.messages[0].content.as_str()).collect();
    turns.sort_unstable_by_key(|turn| std::cmp::Reverse(turn.to_string()));
    assert_eq!(turns, wanted, "a model learns to answer what it is asked");

    // A corpus is a folder as the hub has it, and so were the recordings.
    put("corpus.toml", "[stages.prompts]\nsources = [{ path = \"out/6_corpus\" }]\n");
    gristmill(folder.path(), ["run", "corpus.toml", "--out", "of_corpus"]).succeeded();
    assert_eq!(manifest(&folder.path().join("of_corpus/1_prompts"))["rows"], 2);

    // Read again, other words take the place of those that are there.
    let again = r#"path = "out/1_prompts", ask = "Answer briefly. {prompt}""#;
    put("again.toml", &format!("[stages.prompts]\nsources = [{{ {again} }}]\n"));
    gristmill(folder.path(), ["run", "again.toml", "--out", "again"]).succeeded();
    let again = Dataset::open(&Location::from(folder.path().join("again/1_prompts"))).unwrap();
    let first: Prompt = again.rows_of().next().unwrap().unwrap();
    assert_eq!(first.question(), "Answer briefly. What is the sum of one and two?");

    for (source, told) in [
        (r#"path = "set.jsonl", ask = "Think.""#, "no place for the question"),
        (r#"path = "set.jsonl", ask = "{prompt} {}""#, "`{}` in it names no column"),
    ] {
        put("wrong.toml", &format!("[stages.prompts]\nsources = [{{ {source} }}]\n"));
        let said = gristmill(folder.path(), ["run", "wrong.toml"]).refusal();
        assert!(said.contains(told) && said.contains("wrong.toml:2:"), "{said}");
    }
}
