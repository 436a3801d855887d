//! Checks of every generator by methods of their own: an evaluator that reads the
//! equations as text, day-by-day calendars, brute force over worlds and orders.

mod evaluate;
mod golds;

use std::collections::HashSet;

use self::evaluate::{equation_holds, equations};
use super::*;

/// Draws enough to meet every branch, for every generator, level and language.
fn for_each(mut check: impl FnMut(&'static Generator, u32, Language, Problem)) {
    for generator in GENERATORS {
        for level in 1..=generator.max_level {
            for &language in generator.languages {
                let cell = Cell { generator, level, language };
                for k in 0..150 {
                    check(generator, level, language, cell.draw(42, k));
                }
            }
        }
    }
}

#[test]
fn a_draw_depends_on_its_cell_and_number_only() {
    for generator in GENERATORS {
        let cell = Cell { generator, level: 1, language: generator.languages[0] };
        let forward: Vec<_> = (0..20).map(|k| cell.draw(9, k)).collect();
        let backward: Vec<_> = (0..20).rev().map(|k| cell.draw(9, k)).collect();
        assert!(forward.iter().eq(backward.iter().rev()), "{}", generator.name);
    }
}

#[test]
fn texts_are_clean_and_every_reasoning_problem_has_a_gold_answer() {
    for_each(|generator, _, _, problem| {
        let Problem { question, answer, gold, key, .. } = &problem;
        for text in [question, answer] {
            assert!(!text.is_empty() && text.trim() == text && !text.contains("  "), "{}: {text:?}", generator.name);
            for letter in 'a'..='z' {
                assert!(!text.contains(&format!("{{{letter}}}")), "{}: {text}", generator.name);
            }
        }
        assert!(!key.is_empty() && (0.0..=1.0).contains(&problem.difficulty));
        if generator.domain != "general" {
            assert!(gold.is_some() && problem.chain.is_some(), "{}", generator.name);
        }
        if let Some(verification) = &problem.verification {
            serde_json::from_str::<serde_json::Value>(verification).unwrap();
        }
    });
}

#[test]
fn every_equation_of_every_chain_holds_and_its_last_line_gives_the_answer() {
    let mut checked = 0;
    for_each(|generator, level, _, problem| {
        let (Some(chain), Some(gold)) = (&problem.chain, &problem.gold) else { return };
        let x = gold.parse().ok();
        for line in chain.lines() {
            for equation in equations(line) {
                assert!(
                    equation_holds(&equation, x),
                    "{} {level}: {equation} in\n{}\n{chain}",
                    generator.name,
                    problem.question
                );
                checked += 1;
            }
        }
        let last = chain.lines().last().unwrap().trim_end_matches(['.', '。', ' ']);
        let end = last.len() - gold.len();
        assert!(last.ends_with(gold.as_str()), "{}: {last} against {gold}", generator.name);
        assert!(!last[..end].ends_with(|c: char| c.is_ascii_digit()), "{}: {last}", generator.name);
    });
    assert!(checked > 20_000, "{checked}");
}

#[test]
fn arithmetic_chains_show_equations() {
    for name in
        ["arithmetic", "linear", "modular", "sequences", "units", "mini_mix", "mini_linear", "mini_sum", "mini_total"]
    {
        let generator = Generator::named(name).unwrap();
        for level in 1..=generator.max_level {
            let problem = generator.generate(&mut Rng::new(4), level, Language::En);
            let chain = problem.chain.unwrap();
            assert!(chain.lines().flat_map(equations).count() >= 1, "{name} {level}: {chain}");
        }
    }
}

/// Words that give a language away.
const TELLING: [(Language, &[&str]); 4] = [
    (Language::En, &["the", "is", "are", "what", "of", "with", "and", "which", "answer"]),
    (Language::Fr, &["le", "la", "les", "des", "est", "une", "quel", "dans", "avec", "et", "réponse"]),
    (Language::De, &["der", "die", "das", "und", "ist", "welche", "antwort"]),
    (Language::Es, &["el", "los", "cuál", "cuánto", "respuesta", "halla"]),
];

#[test]
fn languages_do_not_leak() {
    for_each(|generator, _, language, problem| {
        let mut texts = vec![problem.question.clone()];
        texts.extend(problem.chain.clone());
        // A translation's answer is in another language on purpose.
        if !matches!(generator.name, "translation" | "mini_general") {
            texts.push(problem.answer.clone());
        }
        for text in texts {
            let han = text.chars().any(|c| ('\u{4e00}'..='\u{9fff}').contains(&c));
            assert!(language == Language::Zh || !han, "{}: {text}", generator.name);
            let words: HashSet<String> =
                text.to_lowercase().split(|c: char| !c.is_alphabetic()).map(str::to_owned).collect();
            for (other, telling) in TELLING {
                // Random letters are in no language.
                if other != language && generator.name != "strings" {
                    let found = telling.iter().find(|word| words.contains(**word));
                    let shared = language == Language::Es && matches!(found, Some(&"la" | &"es" | &"des" | &"una"));
                    assert!(found.is_none() || shared, "{} {language:?}: {found:?} in {text}", generator.name);
                }
            }
        }
        if language == Language::Zh {
            assert!(problem.question.chars().any(|c| ('\u{4e00}'..='\u{9fff}').contains(&c)), "{}", problem.question);
        }
    });
}

#[test]
fn a_problem_has_one_key_in_all_languages() {
    // The same stream drawn in two languages picks the same content wherever phrasings number the same.
    let mut shared = 0;
    for generator in GENERATORS {
        let key = |language| generator.generate(&mut Rng::new(77), 1, language).key;
        shared += usize::from(key(generator.languages[0]) == key(generator.languages[1]));
    }
    assert!(shared * 2 > GENERATORS.len(), "{shared}");
}

#[test]
fn a_preference_pair_has_two_different_replies() {
    let mut kinds = HashSet::new();
    for_each(|generator, _, _, problem| {
        let pair = preference(&problem);
        assert_eq!(pair.is_some(), generator.domain == "general", "{}", generator.name);
        if let Some(pair) = pair {
            assert_ne!(pair.chosen, pair.rejected, "{}: {}", generator.name, problem.question);
            kinds.insert(pair.kind);
        }
    });
    assert_eq!(kinds.len(), 2);
}

#[test]
fn levels_get_harder() {
    // Longer chains for those whose chain is the work to do.
    for name in [
        "arithmetic",
        "linear",
        "modular",
        "countdown",
        "calendar",
        "units",
        "knights",
        "ordering",
        "mini_total",
        "mini_sum",
    ] {
        let generator = Generator::named(name).unwrap();
        let mean = |level| {
            let cell = Cell { generator, level, language: Language::En };
            (0..200).map(|k| cell.draw(1, k).chain.unwrap().len()).sum::<usize>() / 200
        };
        assert!(mean(generator.max_level) > mean(1), "{name}: {} {}", mean(1), mean(generator.max_level));
    }
}

#[test]
fn small_spaces_are_found_out_and_large_ones_are_not_walked_through() {
    let cell = |name, level| Cell { generator: Generator::named(name).unwrap(), level, language: Language::En };
    // 6 topics × 3 phrasings × 6 openings.
    assert_eq!(measure_space(&cell("persona", 1), 10_000), Space::Exhausted(108));
    assert_eq!(measure_space(&cell("safety", 1), 10_000), Space::Exhausted(60));
    assert_eq!(measure_space(&cell("arithmetic", 3), 2_000), Space::AtLeast(2_000));
}
