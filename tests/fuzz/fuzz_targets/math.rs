//! A gold answer on the first line, a completion below: judged in bounded work, twice alike.
#![no_main]

use gristmill_fuzz::rule::Rule;
use gristmill_fuzz::rule::math::{Equivalence, MathConfig, MathRule, Place, Think, Tolerance, equivalent};
use gristmill_fuzz::{assert_sound, sample, text, watched};
use libfuzzer_sys::fuzz_target;

/// A gold of more bytes may be a solution in words.
const LONGEST_ANSWER: usize = 160;

fuzz_target!(|data: &[u8]| {
    let text = text(data);
    let (gold, completion) = text.split_once('\n').unwrap_or((&text, &text));
    let config = match data.len() % 4 {
        0 | 1 => MathConfig::default(),
        2 => MathConfig { last_number: true, bare_percent: false, strict_units: true, ..MathConfig::default() },
        _ => MathConfig { think: Think::Ignore, tolerance: Tolerance::Relative(1e-3), ..MathConfig::default() },
    };
    let rule = MathRule::new(config.clone()).expect("settings that make sense");
    let verdict = watched("check", || rule.check(&sample(completion, Some(gold))));
    assert_sound(&verdict);
    let boxed = format!(r"\boxed{{{completion}}}");
    assert_sound(&watched("check in a box", || rule.check(&sample(&boxed, Some(gold)))));
    let found = watched("equivalent", || equivalent(gold, completion, &config));
    assert_eq!(found, equivalent(gold, completion, &config), "two verdicts on {gold:?} and {completion:?}");
    // A gold solution stands for what its box holds or its words announce; an answer stands for itself.
    let announces = || {
        let config = MathConfig { extract: vec![Place::FinalAnswer], think: Think::Ignore, ..MathConfig::default() };
        let rule = MathRule::new(config).expect("settings that make sense");
        rule.check(&sample(gold, Some("1"))).reason != "no_answer"
    };
    let boxed = [r"\boxed", r"\fbox", "####"].iter().any(|mark| gold.contains(mark));
    let solution = boxed || (gold.len() > LONGEST_ANSWER && announces());
    let own = watched("against itself", || equivalent(gold, gold, &config));
    assert!(solution || own != Equivalence::Different, "{gold:?} differs from itself");
});
