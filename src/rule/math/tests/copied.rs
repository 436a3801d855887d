//! The question is no answer to itself, and what an honest answer takes from it is one.

use super::super::*;
use crate::rule::testing::with_gold;
use crate::schema::Outcome;

fn verdict(prompt: &str, gold: &str, completion: &str) -> Verdict {
    MathRule::default().check(&Sample { prompt, ..with_gold(completion, gold) })
}

/// `prompt ;; gold ;; = accepted ;; ! copied`, a completion each; `@` stands for the prompt, ⏎ for a line break.
#[test]
fn copies_by_the_table() {
    let mut wrong = Vec::new();
    let lines = include_str!("cases/copied.txt").lines().enumerate();
    for (number, line) in lines.filter(|(_, line)| !line.is_empty() && !line.starts_with('#')) {
        let mut fields = line.split(" ;; ");
        let (Some(prompt), Some(gold)) = (fields.next(), fields.next()) else { panic!("no gold in {line:?}") };
        let prompt = prompt.replace('⏎', "\n");
        for case in fields {
            let (mark, text) = case.split_once(' ').expect("a case is a mark, a blank and a completion");
            let text = text.replace('⏎', "\n").replace('@', &prompt);
            let found = verdict(&prompt, gold, &text);
            let fine = match mark {
                "=" => found.outcome == Outcome::Correct,
                "!" => found.reason == COPIED,
                // For whatever reason.
                "-" => found.outcome == Outcome::Wrong,
                other => panic!("cases/copied.txt:{}: unknown mark {other:?}", number + 1),
            };
            if !fine {
                wrong.push(format!("{}: {prompt} {mark} {text}: {} {:?}", number + 1, found.reason, found.evidence));
            }
        }
    }
    assert!(wrong.is_empty(), "{} cases fail:\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn a_copy_says_what_it_copied() {
    let found = verdict(r"Simplify $\sqrt{242}$.", r"11\sqrt{2}", r"\boxed{\sqrt{242}}");
    assert_eq!((found.reason, found.score), ("copied_from_prompt", Some(0.0)));
    assert!(found.evidence.contains(&("extracted", r"\sqrt{242}".to_string())), "{found:?}");
    assert!(found.evidence.contains(&("step", "prompt".to_string())), "{found:?}");
}

#[test]
fn any_prompt_is_looked_at_without_harm() {
    for prompt in ["", " ", "$", "=", "\\", "{", "½ ≤ x²", "2", "**", "2=2", "x = = 2", r"\frac{", "题目"] {
        for answer in [r"\boxed{2}", "2 = 2", "$x=2$", r"\boxed{=2}", r"\boxed{½ ≤ x²}", "x = = 2"] {
            let _ = verdict(prompt, "2", answer);
        }
    }
    let long = "1+".repeat(20_000) + "1";
    let found = verdict(&format!("Compute {long}."), "20001", &format!(r"\boxed{{{long}}}"));
    assert_ne!(found.outcome, Outcome::Correct, "{:.100?}", found.evidence);
}
