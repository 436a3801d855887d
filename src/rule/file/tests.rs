use super::*;
use crate::rule::testing::{sample, with_gold};

#[test]
fn the_rule_file_of_the_guide_loads_and_keeps_its_example() {
    let (_, text) = include_str!("../../../rules/README.md").split_once("```toml\n").unwrap();
    let rules = RuleSet::parse(text.split_once("```").unwrap().0, "my_rules.toml").unwrap();
    assert!(!rules.examples().is_empty());
    for example in rules.examples() {
        let (_, differences) = example.run(&rules);
        assert!(differences.is_empty(), "{differences:?}");
    }
}

#[test]
fn the_rule_file_of_the_readme_loads() {
    let (_, text) = include_str!("../../../README.md").split_once("reward:\n\n```toml\n").unwrap();
    RuleSet::parse(text.split_once("```").unwrap().0, "readme.toml").unwrap();
}

const BASE: &str = r#"
reward = "accuracy * format"

[meta]
description = "a test"

[rules.accuracy]
kind = "exact"

[rules.format]
kind = "format"
style = "think_answer"
"#;

const GOOD: &str = "<think>two and two</think><answer>4</answer>";

fn parse(text: &str) -> RuleSet {
    RuleSet::parse(text, "test.toml").unwrap()
}

fn error(text: &str) -> String {
    RuleSet::parse(text, "test.toml").err().expect("the file has a fault").render(false)
}

#[test]
fn a_reward_is_the_expression_over_the_scores() {
    let rules = parse(BASE);
    let judgement = rules.judge(&with_gold(GOOD, "4"));
    assert_eq!((judgement.reward, judgement.outcome), (Some(1.0), Outcome::Correct));
    assert_eq!(judgement.scores.iter().map(|s| s.rule.as_str()).collect::<Vec<_>>(), ["accuracy", "format"]);
    let loose = rules.judge(&with_gold("4", "4"));
    assert_eq!((loose.reward, loose.outcome), (Some(0.0), Outcome::Correct));
}

#[test]
fn a_score_that_cannot_be_told_makes_the_reward_null() {
    let judgement = parse(BASE).judge(&sample("4"));
    assert_eq!(
        (judgement.reward, judgement.outcome, judgement.reason.as_str()),
        (None, Outcome::CannotTell, "gold_missing")
    );
}

#[test]
fn rewards_that_are_not_finite_cannot_tell() {
    let rules = parse(&BASE.replace("accuracy * format", "1 / (accuracy - 1)"));
    let judgement = rules.judge(&with_gold(GOOD, "4"));
    assert_eq!((judgement.reward, judgement.reason.as_str()), (None, "reward_not_finite"));
    let nan = parse(&BASE.replace("accuracy * format", "ln(0.5 - accuracy)"));
    assert_eq!(nan.judge(&with_gold(GOOD, "4")).reason, "reward_not_finite");
}

#[test]
fn batches_say_what_single_judgements_say() {
    let text =
        format!("{BASE}\n[rules.other]\nkind = \"overlap\"\nfallback_for = \"accuracy\"\ndomains = [\"math\"]\n");
    let rules = parse(&text);
    let mut samples = vec![with_gold(GOOD, "4"), sample(GOOD), with_gold("5", "4")];
    samples[2].domain = "logic";
    let singly: Vec<_> = samples.iter().map(|s| rules.judge(s)).collect();
    assert_eq!(rules.judge_batch(&samples), singly);
    assert_eq!(singly[0].scores.len(), 2, "the fallback runs only where accuracy cannot tell");
    assert_eq!(singly[1].scores.len(), 3);
}

#[test]
fn domains_have_rewards_of_their_own() {
    let text = r#"
        outcome = ["math", "stem"]
        [rewards]
        math = "math"
        stem = "2 * stem"
        [rules.math]
        kind = "exact"
        domains = ["math"]
        [rules.stem]
        kind = "choice"
        domains = ["stem"]
    "#;
    let rules = parse(text);
    let mut sample = with_gold("C", "C");
    assert_eq!(rules.judge(&sample).reward, Some(1.0));
    sample.domain = "stem";
    let judgement = rules.judge(&sample);
    assert_eq!((judgement.reward, judgement.outcome), (Some(2.0), Outcome::Correct));
    sample.domain = "code";
    assert_eq!(rules.judge(&sample).reason, "no_reward_for_domain");
    assert!(error(&text.replace("2 * stem", "math")).contains("does not take that domain"));
}

#[test]
fn first_takes_the_rule_that_can_tell_and_clip_bounds_the_reward() {
    let text = r#"
        reward = "3 * first(math, text) - 1"
        clip = [-0.5, 1]
        outcome = ["math", "text"]
        [rules.math]
        kind = "choice"
        [rules.text]
        kind = "exact"
        fallback_for = "math"
    "#;
    let judgement = parse(text).judge(&with_gold("blue", "Blue"));
    assert_eq!(
        (judgement.reward, judgement.outcome, judgement.reason.as_str()),
        (Some(1.0), Outcome::Correct, "equal")
    );
    assert_eq!(parse(text).judge(&with_gold("red", "Blue")).reward, Some(-0.5));
}

#[test]
fn mistakes_are_shown_with_line_column_and_suggestion() {
    for (from, to, place, hint) in [
        ("accuracy * format", "acuracy * format", "test.toml:2:11", "did you mean `accuracy`?"),
        ("kind = \"exact\"", "kind = \"exakt\"", "test.toml:8:8", "did you mean `exact`?"),
        ("style =", "stile =", "test.toml:12:1", "did you mean `style`?"),
        ("[meta]", "[mta]", "test.toml:4:2", "did you mean `meta`?"),
        ("\"think_answer\"", "\"think_anser\"", "test.toml:12:9", ""),
        ("\"think_answer\"", "7", "test.toml:12:9", ""),
        ("description =", "reward =", "test.toml:5:1", "above the first"),
        ("[rules.format]", "[rules.pi]", "test.toml:10:8", ""),
        ("[rules.format]", "[rules.tokens]", "test.toml:10:8", ""),
        ("style = \"think_answer\"", "style = \"custom\"", "test.toml:12:9", "pattern"),
        ("reward =", "clip = [1, 0]\nreward =", "test.toml:2:8", ""),
        ("reward =", "outcome = \"acc\"\nreward =", "test.toml:2:11", "accuracy"),
        ("reward =", "extends = \"r2\"\nreward =", "test.toml:2:11", ""),
        ("[meta]", "[meta", "test.toml:4", ""),
    ] {
        let text = BASE.replacen(from, to, 1);
        assert_ne!(text, BASE);
        let shown = error(&text);
        assert!(shown.contains(place), "{to}: wanted {place} in\n{shown}");
        assert!(shown.contains(hint), "{to}: wanted {hint} in\n{shown}");
    }
}

#[test]
fn files_extend_each_other_key_by_key() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("base.toml"), BASE).unwrap();
    let child =
        "extends = \"base.toml\"\nreward = \"format\"\nwithout = \"accuracy\"\n[rules.format]\npartial = true\n";
    let path = folder.path().join("child.toml");
    std::fs::write(&path, child).unwrap();
    let rules = RuleSet::load(path.to_str().unwrap()).unwrap();
    assert_eq!(rules.rules().collect::<Vec<_>>(), [("format", "format")]);
    assert!(rules.resolved().contains("partial = true") && rules.resolved().contains("think_answer"));
    std::fs::write(&path, child.replace("partial", "partal")).unwrap();
    let shown = RuleSet::load(path.to_str().unwrap()).err().unwrap().render(false);
    assert!(shown.contains("child.toml:5:1") && shown.contains("`partial`"), "{shown}");
    std::fs::write(folder.path().join("base.toml"), BASE.replace("think_answer", "thnk")).unwrap();
    std::fs::write(&path, child).unwrap();
    let shown = RuleSet::load(path.to_str().unwrap()).err().unwrap().render(false);
    assert!(shown.contains("base.toml:12:9"), "{shown}");
    std::fs::write(folder.path().join("base.toml"), "extends = \"child.toml\"").unwrap();
    assert!(RuleSet::load(path.to_str().unwrap()).is_err());
}

#[test]
fn the_digest_sees_meaning_and_not_layout() {
    let plain = parse(BASE);
    let dressed = parse(&format!("# comment\n{}", BASE.replace(" = ", "  =  ").replace("a test", "another")));
    assert_eq!(plain.digest(), dressed.digest());
    assert_ne!(plain.digest(), parse(&BASE.replace("think_answer", "think")).digest());
    let again = parse(plain.resolved());
    assert_eq!(again.digest(), plain.digest());
    assert_eq!(again.resolved(), plain.resolved());
}

#[test]
fn examples_are_read_and_run() {
    let text = format!(
        "{BASE}\n[[examples]]\ncompletion = \"{GOOD}\"\ngold = \"4\"\nexpect = \"accept\"\n\n[[examples]]\ncompletion = \"5\"\ngold = \"4\"\nreward = 1.0\nscores = {{ format = 0 }}\n"
    );
    let rules = parse(&text);
    assert!(rules.examples()[0].run(&rules).1.is_empty());
    let faults = rules.examples()[1].run(&rules).1;
    assert_eq!(faults.len(), 1, "{faults:?}");
    assert!(error(&format!("{BASE}[[examples]]\ncompletion = \"x\"\n")).contains("expects nothing"));
    assert!(error(&format!("{BASE}[[examples]]\ncompletoin = \"x\"\n")).contains("`completion`"));
}

#[test]
fn rewards_and_examples_that_can_never_hold_are_errors() {
    let two = |reward: &str, second: &str| {
        format!(
            "reward = \"{reward}\"\n[rules.math]\nkind = \"exact\"\ndomains = [\"math\"]\n[rules.tests]\nkind = \"exact\"\n{second}\n"
        )
    };
    let shown = error(&two("math * tests", "domains = [\"code\"]"));
    assert!(shown.contains("test.toml:1:10") && shown.contains("first(math, tests)"), "{shown}");
    parse(&two("first(math, tests)", "domains = [\"code\"]"));
    parse(&two("math * tests", "domains = [\"code\", \"math\"]"));
    parse(&two("math * tests", ""));
    let example = "[[examples]]\ncompletion = \"x\"\nscores = { fromat = 1 }\n";
    let shown = error(&format!("{BASE}{example}"));
    assert!(shown.contains("did you mean `format`?"), "{shown}");
    let folder = tempfile::tempdir().unwrap();
    for (name, base) in [("a.toml", "b.toml"), ("b.toml", "a.toml")] {
        std::fs::write(folder.path().join(name), format!("extends = \"{base}\"\n")).unwrap();
    }
    let loops = RuleSet::load(folder.path().join("a.toml").to_str().unwrap()).err().unwrap().render(false);
    assert!(loops.contains("b.toml:1") && loops.contains("extends itself"), "{loops}");
}

#[test]
fn what_is_hardly_meant_is_warned_of() {
    let warnings = parse(&BASE.replace("accuracy * format", "accuracy")).warnings();
    assert!(warnings.iter().any(|w| w.contains("`format`")), "{warnings:?}");
}

#[test]
fn shipped_rule_files_keep_their_promises() {
    for (name, _) in BUILTIN {
        let rules = RuleSet::load(name).unwrap_or_else(|error| panic!("{}", error.render(false)));
        assert!(rules.examples().len() >= 2, "{name} needs examples");
        assert_eq!(RuleSet::parse(rules.resolved(), name).unwrap().digest(), rules.digest());
        for example in rules.examples() {
            let (judgement, faults) = example.run(&rules);
            if judgement.scores.iter().any(|score| score.reason == "sandbox_missing") {
                eprintln!("skipped: {name}:{}, no sandbox", example.line);
                continue;
            }
            assert!(faults.is_empty(), "{name}:{} {faults:?}", example.line);
        }
    }
}

/// Run by hand: `cargo test --release --lib rewards_a_second -- --ignored --nocapture`.
#[test]
#[ignore = "a measurement"]
fn rewards_a_second() {
    let rules = parse(BASE);
    let sample = with_gold(GOOD, "4");
    let count = 500_000;
    let start = std::time::Instant::now();
    let total: f64 = (0..count).map(|_| rules.judge(&sample).reward.unwrap()).sum();
    assert_eq!(total, count as f64);
    eprintln!("exact * format: {:.0} judgements a second", count as f64 / start.elapsed().as_secs_f64());
    let names = ["accuracy", "format", "language", "tokens"];
    let expression =
        Expression::compile("accuracy * format + 0.1 * language - max(0, tokens - 1000) / 1e4", &names).unwrap();
    let start = std::time::Instant::now();
    let total: f64 = (0..10 * count).map(|i| expression.eval(&[1.0, 1.0, 0.5, i as f64])).sum();
    assert!(total.is_finite());
    eprintln!("expression alone: {:.0} evaluations a second", 10.0 * count as f64 / start.elapsed().as_secs_f64());
}

#[test]
fn where_no_outcome_is_named_the_rules_that_the_reward_reads_decide() {
    let each = "[rules.accuracy]\nkind = \"exact\"\ndomains = [\"math\"]\n[rules.shape]\nkind = \"format\"\n\
                [rules.tests]\nkind = \"exact\"\ndomains = [\"code\"]\n";
    let judged = |head: &str, domain: &str, completion: &str| {
        let rules = RuleSet::parse(&format!("{head}\n{each}"), "r").unwrap();
        assert_eq!(rules.domains(), ["math", "code"], "{head}");
        assert!(rules.warnings().iter().all(|warning| !warning.contains("neither correct")), "{head}");
        let judgement = rules.judge(&Sample { domain, ..with_gold(completion, "4") });
        (judgement.outcome, judgement.reward)
    };
    for head in ["[rewards]\nmath = \"accuracy\"\ncode = \"tests + 0 * shape\"", "reward = \"first(accuracy, tests)\""]
    {
        for domain in ["math", "code"] {
            assert_eq!(judged(head, domain, "4"), (Outcome::Correct, Some(1.0)), "{head} {domain}");
            assert_eq!(judged(head, domain, "5"), (Outcome::Wrong, Some(0.0)), "{head} {domain}");
        }
        assert_eq!(judged(head, "stem", "4"), (Outcome::CannotTell, None), "{head}");
    }
    // The first rule decides wherever the reward reads it, whatever else it reads.
    let first = "reward = \"shape\"\n[rewards]\nmath = \"shape * a\"\n[rules.shape]\nkind = \"format\"\n\
                 [rules.a]\nkind = \"exact\"\ndomains = [\"math\"]\n";
    let rules = RuleSet::parse(first, "r").unwrap();
    assert_eq!(rules.judge(&with_gold("<think>x</think>5", "4")).outcome, Outcome::Correct);
    // A named outcome that takes no sample of a domain is told.
    let named = RuleSet::parse(&format!("outcome = \"accuracy\"\n[rewards]\ncode = \"tests\"\n{each}"), "r").unwrap();
    assert!(named.warnings().iter().any(|warning| warning.contains("`code`")), "{:?}", named.warnings());
}

#[test]
fn a_value_of_the_wrong_form_is_told_what_may_stand_there() {
    let math = error("[rules.a]\nkind = \"math\"\ntolerance = 0.01\n");
    assert!(math.contains("{ relative = limit }") && math.contains("3 |"), "{math}");
    let schema = error("[rules.a]\nkind = \"json_schema\"\nschema = { type = \"object\" }\n");
    assert!(schema.contains("hint: `schema` takes a string, in quotes: The schema, as JSON text"), "{schema}");
    let region = error("[rules.a]\nkind = \"repetition\"\nregion = \"answr\"\n");
    assert!(region.contains("\"answer\", \"reasoning\", \"completion\""), "{region}");
}
