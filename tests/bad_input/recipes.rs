//! Faulty recipes and faulty commands: exit code 2, with line, column and the nearest right word.

use super::{RUN, refused, with_recipe};
use crate::support::{TINY_MODEL, gristmill, write_recordings};

const PROMPTS: &str = "[stages.prompts]\nprocedural = [{ count = 5, mix = [{ name = \"arithmetic\" }] }]\n";

#[test]
fn a_cycle_names_its_stages() {
    let folder = with_recipe(
        "[stages.prompts]\nmeasured_by = \"again\"\n\n[stages.again]\nkind = \"select\"\ngroups = \"pick\"\n\n[stages.pick]\nkind = \"select\"\ngroups = \"again\"\n",
    );
    assert_told!(refused(folder.path(), &RUN));
}

#[test]
fn an_unknown_kind_of_stage_is_told_with_the_nearest() {
    let folder = with_recipe(&format!("{PROMPTS}\n[stages.second]\nkind = \"promts\"\n"));
    assert_told!(refused(folder.path(), &RUN));
}

#[test]
fn a_stage_whose_name_is_no_kind_is_told_the_kinds() {
    let folder = with_recipe(&format!("{PROMPTS}\n[stages.distillation]\n"));
    assert_told!(refused(folder.path(), &RUN));
}

#[test]
fn an_unknown_key_is_told_with_line_column_and_the_nearest() {
    let folder = with_recipe("[stages.prompts]\nsources = []\n\n[stages.prompts.dedup]\nexcat = true\n");
    assert_told!(refused(folder.path(), &RUN));
}

#[test]
fn a_value_of_the_wrong_type_is_told_with_its_place() {
    let folder = with_recipe("seed = \"seven\"\n\n[stages.prompts]\n");
    assert_told!(refused(folder.path(), &RUN));
}

#[test]
fn an_input_that_is_neither_stage_nor_file_is_told() {
    let folder = with_recipe(&format!("{PROMPTS}\n[stages.export]\ninput = \"prompt\"\nformat = \"messages\"\n"));
    assert_told!(refused(folder.path(), &RUN));
}

#[test]
fn an_input_of_the_wrong_kind_is_told() {
    let folder = with_recipe(&format!("{PROMPTS}\n[stages.select]\ngroups = \"prompts\"\n"));
    assert_told!(refused(folder.path(), &RUN));
}

#[test]
fn toml_that_does_not_parse_is_shown_where() {
    let folder = with_recipe("seed = 1\n[stages.prompts\nsources = []\n");
    assert_told!(refused(folder.path(), &RUN));
}

#[test]
fn a_recipe_without_stages_is_told() {
    let folder = with_recipe("seed = 1\n");
    assert_told!(refused(folder.path(), &RUN));
}

#[test]
fn a_recipe_that_is_not_there_is_told() {
    let folder = tempfile::tempdir().unwrap();
    assert_told!(refused(folder.path(), &["run", "nowhere.toml"]));
}

#[test]
fn a_variable_that_is_not_set_is_told() {
    let folder = with_recipe("[vars]\ndata = \".\"\n\n[stages.prompts]\nsources = [{ path = \"${dta}/a.jsonl\" }]\n");
    assert_told!(refused(folder.path(), &RUN));
}

#[test]
fn an_override_needs_an_equals_sign() {
    let folder = with_recipe(PROMPTS);
    assert_told!(refused(folder.path(), &["run", "recipe.toml", "--out", "out", "--set", "seed"]));
}

#[test]
fn an_override_of_an_unknown_stage_is_told_with_the_nearest() {
    let folder = with_recipe(PROMPTS);
    assert_told!(refused(folder.path(), &["run", "recipe.toml", "--out", "out", "--set", "promts.sample=1"]));
}

#[test]
fn an_override_of_an_unknown_key_points_at_the_argument() {
    let folder = with_recipe(PROMPTS);
    assert_told!(refused(folder.path(), &["run", "recipe.toml", "--out", "out", "--set", "prompts.sampel=1"]));
}

#[test]
fn a_stage_that_the_recipe_does_not_have_is_told() {
    let folder = with_recipe(PROMPTS);
    assert_told!(refused(folder.path(), &["run", "recipe.toml", "--out", "out", "--only", "verify"]));
}

#[test]
fn a_shard_out_of_range_is_told() {
    let folder = with_recipe(PROMPTS);
    assert_told!(refused(folder.path(), &["run", "recipe.toml", "--shard", "2/2"]));
}

#[test]
fn no_threads_at_all_is_told() {
    let folder = with_recipe(PROMPTS);
    assert_told!(refused(folder.path(), &["run", "recipe.toml", "--out", "out", "--threads", "0"]));
}

#[test]
fn a_faulty_rule_file_is_found_before_anything_runs() {
    let folder = with_recipe(&format!(
        "{PROMPTS}\n[stages.generate]\nengine = {{ kind = \"replay\", files = [\"c.jsonl\"], completions = [\"c\"] }}\n\n[stages.verify]\nrules = \"rules.toml\"\n"
    ));
    std::fs::write(folder.path().join("c.jsonl"), "{\"question\": \"x\", \"c\": \"y\"}\n").unwrap();
    std::fs::write(folder.path().join("rules.toml"), "reward = \"acc\"\n[rules.accuracy]\nkind = \"maths\"\n").unwrap();
    assert_told!(refused(folder.path(), &["run", "recipe.toml", "--out", "out", "--dry-run"]));
}

#[test]
fn settings_that_nothing_can_meet_are_told_before_anything_runs() {
    let folder = tempfile::tempdir().unwrap();
    write_recordings(folder.path(), 50);
    for (set, told) in [
        ("select.pass_rate=[0.9, 0.1]", "a window [low, high] within [0, 1]"),
        ("select.per_prompt=0", "`per_prompt` must be at least 1"),
        ("select.max_similarity=7", "from 0 to 1"),
        ("select.min_reward=nan", "`min_reward` must be a number"),
        ("prompts.sources=[]", "nothing to take prompts from"),
        (
            "corpus.tracks=[{name=\"a\",prompts=\"prompts\"},{name=\"a\",prompts=\"prompts\"}]",
            "two tracks are called `a`",
        ),
    ] {
        let told_so = gristmill(folder.path(), ["run", "recipe.toml", "--out", "out", "--set", set]);
        assert_eq!(told_so.code, Some(2), "{set}: {}", told_so.story());
        assert!(told_so.stderr.contains(told), "{set}: {}", told_so.stderr);
    }
    assert!(!folder.path().join("out/1_prompts").exists());
}

#[test]
fn a_required_rule_that_judged_nothing_is_a_slip_and_not_an_empty_selection() {
    let folder = tempfile::tempdir().unwrap();
    write_recordings(folder.path(), 50);
    let run = gristmill(folder.path(), ["run", "recipe.toml", "--out", "out", "--set", "select.require=[\"acuracy\"]"]);
    assert_eq!(run.code, Some(2), "{}", run.story());
    assert!(run.stderr.contains("no completion was judged by such a rule"), "{}", run.stderr);
}

#[test]
fn a_recipe_that_is_no_text_or_no_file_is_wrong_usage() {
    let folder = with_recipe("");
    std::fs::write(folder.path().join("recipe.toml"), b"name = \"x\"\nseed = \xff\n").unwrap();
    let said = refused(folder.path(), &RUN);
    assert!(said.starts_with("exit 2") && said.contains("line 2 holds bytes that are not UTF-8"), "{said}");
    std::fs::create_dir(folder.path().join("sub")).unwrap();
    let said = refused(folder.path(), &["run", "sub", "--out", "out"]);
    assert!(said.starts_with("exit 2") && said.contains("it is a folder"), "{said}");
}

#[test]
fn a_runs_name_stays_within_its_folder() {
    let recipe = |name: &str| with_recipe(&format!("name = \"{name}\"\n{PROMPTS}"));
    for name in ["../../x", "", "a/b", "..", ".hidden"] {
        let said = refused(recipe(name).path(), &["run", "recipe.toml"]);
        assert!(said.starts_with("exit 2") && said.contains("cannot name a run"), "{said}");
        assert!(said.contains("recipe.toml:1:8"), "{said}");
    }
}

#[test]
fn a_format_that_does_not_fit_is_told_before_anything_runs() {
    let export = |input: &str, format: &str, more: &str| {
        with_recipe(&format!("{PROMPTS}\n[stages.export]\ninput = \"{input}\"\nformat = \"{format}\"\n{more}"))
    };
    let dry = [&RUN[..], &["--dry-run"]].concat();
    assert_told!(refused(export("prompts", "sharegpt", "").path(), &dry));
    let said = refused(export("prompts", "messages", "min_margin = -3").path(), &dry);
    assert!(said.contains("`min_margin` must be above 0") && said.contains("recipe.toml:7:14"), "{said}");
}

#[test]
fn a_rule_file_that_is_not_there_is_told_with_its_place() {
    let engine = "engine = { kind = \"replay\", files = [\"c.jsonl\"], completions = [\"c\"] }";
    let folder =
        with_recipe(&format!("{PROMPTS}\n[stages.generate]\n{engine}\n\n[stages.verify]\nrules = \"mine.toml\"\n"));
    assert_told!(refused(folder.path(), &[&RUN[..], &["--dry-run"]].concat()));
}

#[test]
fn a_stage_alone_says_which_option_is_missing() {
    let folder = tempfile::tempdir().unwrap();
    assert_told!(refused(folder.path(), &["verify", "--rules", "r1", "--output", "o"]));
    let said = refused(folder.path(), &["verify", "--prompts", "nowhere", "--rules", "r1", "--output", "o"]);
    assert!(said.contains("`prompts` is no dataset: `./nowhere`"), "{said}");
}

#[test]
fn overrides_keep_their_text_where_text_is_wanted() {
    let folder = with_recipe(&format!("{PROMPTS}\n[vars]\nv = 1\n"));
    let set = |sets: &[&str]| {
        let sets = sets.iter().flat_map(|set| ["--set", set]);
        gristmill(folder.path(), ["run", "recipe.toml", "--out", "o"].into_iter().chain(sets))
    };
    let source = |sets: &[&str]| {
        set(sets).succeeded();
        let shown = gristmill(folder.path(), ["inspect", "o/1_prompts", "--json"]).succeeded().stdout;
        let shown: serde_json::Value = serde_json::from_str(&shown).unwrap();
        shown["sample"][0]["source"].as_str().unwrap().trim_end_matches("/arithmetic").to_owned()
    };
    assert_eq!(source(&["prompts.procedural.0.source=2024"]), "2024");
    assert_eq!(source(&["prompts.procedural.0.source = 1.10 "]), "1.10");
    assert_eq!(source(&["prompts.procedural.0.source=${v}", "vars.v=1.10"]), "1.10");
    assert_eq!(source(&["prompts.procedural.0.source=${v}", "vars.v=0x10"]), "0x10");
    // A number stays one where one is wanted, and a seed may have all of its 64 bits.
    set(&["prompts.procedural.0.count = 7", "seed=18446744073709551615"]).succeeded();
    let log = std::fs::read_to_string(folder.path().join("o/run.jsonl")).unwrap();
    assert!(log.contains("\"seed\":18446744073709551615"), "{log}");
    let said = set(&["seed=18446744073709551616"]);
    assert!(said.code == Some(2) && said.stderr.contains("too large"), "{}", said.story());
}

#[test]
fn what_other_tools_would_take_is_told_how_to_be_given_here() {
    let folder = with_recipe("name = \"x\"\n[prompts]\nsources = []\n");
    std::fs::write(folder.path().join("rows.jsonl"), "{\"question\": \"1 + 1?\", \"answer\": \"2\"}\n").unwrap();
    let told = [
        refused(folder.path(), &RUN),
        refused(folder.path(), &["eval", "--prompts", "rows.jsonl", "--model", "Qwen/Qwen2.5-0.5B", "--output", "out"]),
        refused(
            folder.path(),
            &["sft", "--corpus", "openai/gsm8k", "--model", "hf://Qwen/Qwen2.5-0.5B", "--output", "out"],
        ),
        refused(folder.path(), &["prompts", "-s", "sources=[{path=\"openai/gsm8k\"}]", "--output", "out"]),
        refused(
            folder.path(),
            &["prompts", "-s", "sources=[{path=\"hf://datasets/openai/gsm8k\"}]", "--output", "out"],
        ),
        refused(folder.path(), &["chat", "Qwen/Qwen2.5-0.5B", "--prompt", "hi"]),
        refused(
            folder.path(),
            &[
                "verify",
                "--prompts",
                "rows.jsonl",
                "--completions",
                "rows.jsonl",
                "--rules",
                "r1",
                "--output",
                "judged",
            ],
        ),
        refused(folder.path(), &["inspect", "rows.jsonl"]),
    ];
    assert_told!(told.join("\n"));
}

#[test]
fn a_rule_file_that_is_not_there_is_a_slip_of_whoever_named_it() {
    let folder = with_recipe(
        "[stages.prompts]\nprocedural = [{ count = 8, mix = [{ name = \"mini_mix\" }], levels = [1] }]\n\n\
        [stages.grpo]\nprompts = \"prompts\"\nrules = \"nope.toml\"\ninit = { tokenizer = \"mini\", hidden = 8, layers = 1, heads = 1 }\n",
    );
    for args in [&["rules", "check", "nope.toml"][..], &["serve-rewards", "--rules", "nope.toml"], &RUN] {
        let refused = gristmill(folder.path(), args);
        assert_eq!(refused.code, Some(2), "{}", refused.story());
        for told in ["cannot read the rule file ", "nope.toml", "No such file", "hint: give the path of a rule file"] {
            assert!(refused.stderr.contains(told), "{told}: {}", refused.story());
        }
    }
}

#[test]
fn settings_of_servers_that_cannot_be_used_are_told_by_the_plan_with_their_place() {
    let endpoints = "endpoints = [\"http://localhost:9\"]";
    let recipe = |engine: &str| {
        format!("{PROMPTS}\n[stages.generate]\nsamples = 1\n\n[stages.generate.engine]\nkind = \"vllm\"\n{engine}\n")
    };
    for (engine, place, told) in [
        (format!("{endpoints}\ntoken_timeout_s = 0.0"), "10:19", "`token_timeout_s` is 0"),
        (format!("{endpoints}\nmax_attempts = 0"), "10:16", "`max_attempts` must be at least 1"),
        ("endpoints = [\"http://a\", \"ftp://x\"]".into(), "9:26", "does not start with http:// or https://"),
        ("endpoints = [\"http://a\", \"http://a\"]".into(), "9:26", "`http://a` is listed twice"),
        (format!("{endpoints}\ntemplate = \"plain\""), "10:12", "always uses the server's template"),
        (format!("{endpoints}\nextra_body = {{ model = \"x\" }}"), "10:24", "`model` is written by the engine itself"),
        (format!("{endpoints}\nomit = [\"seed\", \"tempurature\"]"), "10:17", "did you mean `temperature`?"),
        (String::new(), "7:", "no server to ask"),
    ] {
        let folder = with_recipe(&recipe(&engine));
        let said = refused(folder.path(), &["run", "recipe.toml", "--out", "out", "--dry-run"]);
        assert!(said.starts_with("exit 2") && said.contains(told), "{said}");
        assert!(said.contains(&format!("recipe.toml:{place}")), "{place}: {said}");
    }
    let folder = with_recipe(&recipe(&format!("{endpoints}\napi_key_env = \"GRISTMILL_NO_SUCH_KEY\"")));
    let told = "the API key is missing: $GRISTMILL_NO_SUCH_KEY is not set";
    let plan = gristmill(folder.path(), ["run", "recipe.toml", "--out", "out", "--dry-run"]).succeeded();
    assert!(plan.stderr.contains(&format!("it cannot run here as it is: {told}")), "{}", plan.story());
    let said = refused(folder.path(), &RUN);
    assert!(said.contains(told) && said.contains("recipe.toml:10:15"), "{said}");
    assert!(!folder.path().join("out/1_prompts").exists(), "nothing had begun");
}

#[test]
fn settings_of_servers_are_looked_at_wherever_servers_are_asked() {
    for stage in ["[stages.grpo]\nmodel = \"base\"\nprompts = \"prompts\"\n", "[stages.eval]\nmodels = [\"base\"]\n"] {
        let engine = "engine = { kind = \"vllm\", endpoints = [\"http://localhost:9\"], omit = [\"sed\"] }\n";
        let folder = with_recipe(&format!("{TINY_MODEL}{PROMPTS}{stage}{engine}"));
        let said = refused(folder.path(), &["run", "recipe.toml", "--out", "out", "--dry-run"]);
        assert!(said.contains("did you mean `seed`?") && said.contains("recipe.toml:"), "{said}");
    }
}
