//! A rule file from anywhere: loaded or refused with words, and what is loaded judges.
#![no_main]

use gristmill_fuzz::rule::RuleSet;
use gristmill_fuzz::{sample, text, watched};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let text = text(data);
    // What runs programs or asks servers is for the machine's owner to try.
    if ["code", "judge", "http", "extends"].iter().any(|word| text.contains(word)) {
        return;
    }
    match watched("parse", || RuleSet::parse(&text, "fuzzed.toml")) {
        Ok(rules) => {
            let judged = watched("judge", || rules.judge(&sample(r"<think>6 · 7</think> \boxed{42}", Some("42"))));
            assert!(judged.reward.is_none_or(f64::is_finite), "{judged:?}");
            let resolved = RuleSet::parse(rules.resolved(), "resolved.toml");
            let resolved = resolved.unwrap_or_else(|fault| panic!("{fault}\n{}", rules.resolved()));
            assert_eq!(resolved.digest(), rules.digest(), "{}", rules.resolved());
        }
        Err(fault) => assert!(!fault.to_string().is_empty()),
    }
});
