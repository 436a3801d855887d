//! What honest answers to a case look like, and what of its prompt could be handed in as one.

use super::Case;

/// Plain reasoning in the language of the prompt.
pub(super) fn reasoning(language: &str) -> &'static str {
    match language {
        "zh" => "我们先仔细看题目给出的条件，然后一步一步地计算，最后检查结果是不是正确。",
        "fr" => "Nous lisons d'abord ce qui est donné, puis nous calculons pas à pas et nous vérifions le résultat.",
        "de" => "Wir lesen zuerst, was gegeben ist, dann rechnen wir Schritt für Schritt und prüfen das Ergebnis.",
        "es" => "Primero leemos lo que se da, luego calculamos paso a paso y al final comprobamos el resultado.",
        _ => "We first read what is given, then work through it step by step, and at the end we check the result.",
    }
}

/// Gold is the letter of an option.
pub(super) fn is_letter(gold: &str) -> bool {
    matches!(gold.as_bytes(), [b'A'..=b'J'])
}

/// An answer as an honest completion states it.
pub(super) fn stated(case: &Case, answer: &str) -> String {
    match case.domain.as_str() {
        "math" => format!("\\boxed{{{answer}}}"),
        "code" => format!("```python\n{answer}\n```"),
        _ if is_letter(&case.gold) => format!("The answer is {answer}."),
        _ => answer.to_owned(),
    }
}

/// The right answer as stated.
pub(super) fn right(case: &Case) -> String {
    stated(case, &case.gold)
}

/// Some answer near gold that is not gold.
pub(super) fn other(case: &Case) -> String {
    let gold = case.gold.trim();
    if is_letter(gold) {
        return if gold == "A" { "B".into() } else { "A".into() };
    }
    if case.domain == "code" {
        return "def f(*arguments):\n    return 'nothing of the kind'".into();
    }
    match gold.parse::<f64>() {
        Ok(number) => format!("{}", number + 7.0),
        Err(_) if case.domain == "math" => "1789".into(),
        Err(_) => "nothing of the kind".into(),
    }
}

/// The wrong answer as stated.
pub(super) fn wrong(case: &Case) -> String {
    stated(case, &other(case))
}

/// What a prompt asks to be worked out: between dollar signs, or else the longest part that is no words.
pub(super) fn formula(prompt: &str) -> &str {
    if let Some(inside) = prompt.split('$').nth(1) {
        return inside;
    }
    let (mut from, mut best) = (0, "");
    let words = prompt.match_indices(' ').map(|(at, _)| at).chain([prompt.len()]);
    let mut start = 0;
    for end in words {
        let word = &prompt[start..end];
        if word.chars().filter(|c| c.is_alphabetic()).count() > 1 {
            from = end;
        } else if prompt[from..end].trim().len() > best.len() {
            best = prompt[from..end].trim();
        }
        start = end + 1;
    }
    best.trim_end_matches(['?', '.', ',', ':'])
}
