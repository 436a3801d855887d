use std::collections::BTreeMap;

use super::*;
use crate::schema::Prompt;

fn config(count: u64, names: &[&str]) -> ProceduralConfig {
    let mix = names
        .iter()
        .map(|name| Share { name: (*name).to_owned(), weight: 1.0, levels: vec![], languages: vec![] })
        .collect();
    ProceduralConfig {
        count,
        mix,
        levels: vec![],
        languages: vec![],
        source: "procedural".to_owned(),
        part: Part::Train,
        holdout: 0.1,
        when_exhausted: Exhausted::Error,
        ask: None,
    }
}

#[test]
fn words_around_generated_questions_change_what_is_written_and_not_what_is_drawn() {
    let plain = collect(&config(20, &["arithmetic"]), 7);
    let asking = ProceduralConfig {
        ask: Some(Ask::parse("{prompt}\n\nPut it in \\boxed{}.").unwrap()),
        ..config(20, &["arithmetic"])
    };
    for (plain, asked) in plain.iter().zip(collect(&asking, 7)) {
        assert_eq!(asked.question(), format!("{}\n\nPut it in \\boxed{{}}.", plain.question()));
        assert_eq!(asked.bare_question().as_deref(), Some(plain.question()));
        assert_ne!(asked.prompt_id, plain.prompt_id);
        assert_eq!((&asked.gold, &asked.solution), (&plain.gold, &plain.solution));
    }
    let columns = ProceduralConfig { ask: Some(Ask::parse("{prompt} {hint}").unwrap()), ..config(1, &["arithmetic"]) };
    let (place, error) = columns.check().unwrap_err();
    assert!(place == ["ask"] && error.to_string().contains("names `hint`"), "{error}");
}

fn collect(config: &ProceduralConfig, seed: u64) -> Vec<Prompt> {
    config.prompts(seed).unwrap().collect::<Result<_>>().unwrap()
}

#[test]
fn the_same_seed_gives_the_same_rows_and_a_longer_run_the_same_prefix() {
    let mut config = config(400, &["all", "mini"]);
    config.when_exhausted = Exhausted::Redistribute;
    let first = collect(&config, 7);
    assert_eq!(first, collect(&config, 7));
    assert_ne!(first, collect(&config, 8));
    config.count = 600;
    assert_eq!(first, collect(&config, 7)[..400]);
}

#[test]
fn rows_are_distinct_and_no_problem_is_on_both_sides_of_the_split() {
    let mut config = config(1_500, &["reasoning", "mini_mix"]);
    config.holdout = 0.3;
    let keys = |rows: &[Prompt]| -> HashSet<String> {
        rows.iter()
            .map(|p| {
                let extra: serde_json::Value = serde_json::from_str(p.extra.as_deref().unwrap()).unwrap();
                extra["key"].as_str().unwrap().to_owned()
            })
            .collect()
    };
    let train = collect(&config, 3);
    config.part = Part::Eval;
    let eval = collect(&config, 3);
    let questions: HashSet<_> = train.iter().chain(&eval).map(|p| p.question().to_owned()).collect();
    assert_eq!(questions.len(), 3_000);
    assert!(keys(&train).is_disjoint(&keys(&eval)));
    let ids: HashSet<_> = train.iter().chain(&eval).map(|p| &p.prompt_id).collect();
    assert_eq!(ids.len(), 3_000);
}

#[test]
fn a_small_space_is_named_with_its_size_or_made_up_for_by_the_others() {
    let mut config = config(50_000, &["persona", "arithmetic"]);
    let error = config.prompts(1).unwrap().find_map(Result::err).unwrap();
    assert!(error.to_string().contains("`persona` (level 1"), "{error}");
    assert!(error.render(false).contains("redistribute"), "{error:?}");
    config.count = 4_000;
    config.when_exhausted = Exhausted::Redistribute;
    assert_eq!(collect(&config, 1).len(), 4_000);
    config.mix.truncate(1);
    assert!(config.prompts(1).unwrap().last().unwrap().unwrap_err().to_string().contains("the mix has only"));
}

#[test]
fn weights_hold_in_every_prefix() {
    let mut config = config(1_000, &["arithmetic", "linear"]);
    config.mix[0].weight = 3.0;
    for prefix in [40, 200, 1_000] {
        let mut counts = BTreeMap::new();
        for row in &collect(&config, 5)[..prefix] {
            *counts.entry(row.source.clone()).or_insert(0i64) += 1;
        }
        let share = counts["procedural/arithmetic"] as f64 / prefix as f64;
        assert!((share - 0.75).abs() < 0.13, "{counts:?}");
    }
}

#[test]
fn mistakes_in_the_configuration_are_usage_errors_with_hints() {
    for (toml, message, hint) in [
        ("count = 1\nmix = [{ name = \"aritmetic\" }]", "unknown generator `aritmetic`", "arithmetic"),
        ("count = 1\nmix = [{ name = \"linear\", levels = [9] }]", "`linear` has no level 9", "1 to 4"),
        ("count = 1\nmix = [{ name = \"units\", languages = [\"de\"] }]", "does not speak `de`", "en, fr, zh"),
        ("count = 1\nmix = []", "`mix` names no generator", "reasoning"),
        ("count = 1\nmix = [{ name = \"all\", weight = -1.0 }]", "not positive", ""),
        ("count = 1\nholdout = 1.5\nmix = [{ name = \"all\" }]", "not a fraction", ""),
    ] {
        let config: ProceduralConfig = toml::from_str(toml).unwrap();
        let text = config.prompts(0).err().expect(message).render(false);
        assert!(text.contains(message) && text.contains(hint), "{text}");
    }
    assert!(toml::from_str::<ProceduralConfig>("count = 1\nmix = []\nlevel = 3").is_err());
}

#[test]
fn a_held_out_problem_stays_held_out_when_the_fraction_grows() {
    let held = |holdout: f64| (0..2_000).filter(|i| is_held_out(&format!("k{i}"), holdout)).collect::<Vec<_>>();
    let (few, many) = (held(0.1), held(0.4));
    assert!((150..250).contains(&few.len()) && few.iter().all(|i| many.contains(i)));
    assert!(held(0.0).is_empty() && held(1.0).len() == 2_000);
}
