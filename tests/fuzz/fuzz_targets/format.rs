//! A completion under the rules that read its shape: templates, language, repetition, readability,
//! length, choices.
#![no_main]

use std::sync::LazyLock;

use gristmill_fuzz::rule::RuleSet;
use gristmill_fuzz::{sample, text, watched};
use libfuzzer_sys::fuzz_target;

static RULES: LazyLock<RuleSet> = LazyLock::new(|| {
    let text = r#"
        reward = "strict + zero + boxed + tags + language + loops + readable + length + choice"
        outcome = "strict"
        rules.strict = { kind = "format", style = "think" }
        rules.zero = { kind = "format", style = "think_answer" }
        rules.boxed = { kind = "format", style = "boxed" }
        rules.tags = { kind = "format", style = "think_answer_opened", partial = true }
        rules.language = { kind = "language", region = "completion" }
        rules.loops = { kind = "repetition" }
        rules.readable = { kind = "readability" }
        rules.length = { kind = "length", shape = "soft_overlong", max = 400, buffer = 100, unit = "words" }
        rules.choice = { kind = "choice" }
    "#;
    RuleSet::parse(text, "format.toml").unwrap_or_else(|fault| panic!("{fault}"))
});

fuzz_target!(|data: &[u8]| {
    let text = text(data);
    let gold = ["A", "C"][data.len() % 2];
    let languages = ["en", "zh", "und", "ja"];
    let sample = gristmill_fuzz::rule::Sample { language: languages[data.len() / 2 % 4], ..sample(&text, Some(gold)) };
    let judged = watched("judge", || RULES.judge(&sample));
    assert_eq!(judged, RULES.judge(&sample));
    for score in &judged.scores {
        assert!(score.score.is_none_or(|s| (-1.0..=1.0).contains(&s)), "{text:?}: {score:?}");
    }
});
