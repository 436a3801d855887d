//! Gold answers against methods that share no code with the generators.

use std::collections::HashSet;

use super::evaluate::{Fraction, equation_holds, evaluate};
use super::*;

/// Every draw of a generator, with its key's content after the generator's name.
fn each(name: &str, mut check: impl FnMut(u32, Language, &Problem, &str)) {
    let generator = Generator::named(name).unwrap();
    for level in 1..=generator.max_level {
        for &language in generator.languages {
            for k in 0..200 {
                let problem = Cell { generator, level, language }.draw(7, k);
                let (_, content) = problem.key.split_once(':').unwrap();
                check(level, language, &problem, content);
            }
        }
    }
}

fn gold(problem: &Problem) -> &str {
    problem.gold.as_deref().unwrap()
}

fn number(problem: &Problem) -> i64 {
    gold(problem).parse().unwrap()
}

/// All whole numbers of a text, in order.
fn numbers(text: &str) -> Vec<i64> {
    text.split(|c: char| !(c.is_ascii_digit() || c == '-')).filter_map(|part| part.parse().ok()).collect()
}

#[test]
fn arithmetic_equals_what_the_expression_evaluates_to() {
    each("arithmetic", |_, _, problem, content| {
        assert!(problem.question.contains(content));
        assert_eq!(evaluate(content, None), Some(Fraction(number(problem).into(), 1)), "{content}");
    });
}

#[test]
fn linear_solutions_satisfy_the_equation_and_their_neighbours_do_not() {
    for name in ["linear", "mini_linear"] {
        each(name, |_, _, problem, content| {
            let x = number(problem);
            assert!(problem.question.contains(content) && equation_holds(content, Some(x)), "{content} {x}");
            assert!(!equation_holds(content, Some(x + 1)) && !equation_holds(content, Some(x - 7)), "{content}");
        });
    }
}

#[test]
fn mini_expressions_equal_what_they_evaluate_to() {
    for name in ["mini_mix", "mini_sum", "mini_total"] {
        each(name, |_, _, problem, content| {
            assert!(problem.question.contains(content));
            assert_eq!(evaluate(content, None), Some(Fraction(number(problem).into(), 1)), "{content}");
        });
    }
}

#[test]
fn remainders_are_found_by_counting_up() {
    each("modular", |level, _, problem, content| {
        let given = numbers(content);
        let gold = number(problem);
        match (level, &given[..]) {
            (1, [a, b, m]) => assert_eq!((a + b) % m, gold),
            (2, [a, b, c, m]) => assert_eq!((a * b + c) % m, gold),
            (3, [base, power, m]) => assert_eq!((0..*power).fold(1, |value, _| value * base % m), gold),
            (_, [a, r, m]) => assert_eq!((1..*m).find(|x| a * x % m == *r), Some(gold)),
            _ => panic!("{content}"),
        }
    });
}

#[test]
fn countdown_solutions_use_each_number_once_and_reach_the_target() {
    each("countdown", |_, _, problem, content| {
        let (given, target) = content.split_once(" -> ").unwrap();
        assert_eq!(evaluate(gold(problem), None), Some(Fraction(target.parse().unwrap(), 1)));
        let mut used = numbers(&gold(problem).replace('-', " "));
        used.sort_unstable();
        assert_eq!(used, numbers(given));
    });
}

#[test]
fn sequences_go_on_by_the_rule_that_their_terms_show() {
    each("sequences", |level, _, problem, content| {
        let t = numbers(content);
        let n = t.len();
        let next = match level {
            1 => 2 * t[n - 1] - t[n - 2],
            2 => t[n - 1] * t[n - 1] / t[n - 2],
            3 => 3 * t[n - 1] - 3 * t[n - 2] + t[n - 3],
            4 => 2 * t[n - 2] - t[n - 4],
            _ => {
                let times = (t[2] - t[1]) / (t[1] - t[0]);
                times * t[n - 1] + t[1] - times * t[0]
            }
        };
        assert_eq!(next, number(problem), "{content}");
    });
}

#[test]
fn counts_and_orders_are_those_of_a_second_look() {
    each("counting", |_, _, problem, content| {
        let (kind, list) = content.rsplit_once(':').unwrap();
        let list = numbers(list);
        let above = |k: i64| list.iter().filter(move |n| **n > k);
        let answer = match kind.split_once('>') {
            Some(("count", k)) => above(k.parse().unwrap()).count().to_string(),
            Some((_, k)) => above(k.parse().unwrap()).filter(|n| *n % 2 == 0).sum::<i64>().to_string(),
            // The median has as many below as above.
            None if kind == "median" => {
                let middle = number(problem);
                assert_eq!(list.iter().filter(|n| **n < middle).count(), list.len() / 2);
                assert_eq!(above(middle).count(), list.len() / 2);
                return;
            }
            None => {
                let shown = numbers(gold(problem));
                let down = kind == "sort:true";
                assert!(shown.windows(2).all(|w| if down { w[0] > w[1] } else { w[0] < w[1] }));
                let (a, b): (HashSet<_>, HashSet<_>) = (shown.iter().collect(), list.iter().collect());
                assert_eq!(a, b);
                return;
            }
        };
        assert_eq!(answer, gold(problem), "{content}");
    });
}

/// The next day of the calendar.
fn tomorrow((year, month, day): (i64, i64, i64)) -> (i64, i64, i64) {
    let leap = (year % 4 == 0 && year % 100 != 0) || year % 400 == 0;
    let lengths = [31, if leap { 29 } else { 28 }, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    if day < lengths[month as usize - 1] {
        (year, month, day + 1)
    } else if month < 12 {
        (year, month + 1, 1)
    } else {
        (year + 1, 1, 1)
    }
}

#[test]
fn calendars_are_walked_day_by_day() {
    let weekdays = [
        ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"],
        ["lundi", "mardi", "mercredi", "jeudi", "vendredi", "samedi", "dimanche"],
        ["星期一", "星期二", "星期三", "星期四", "星期五", "星期六", "星期日"],
    ];
    let date = |text: &str| {
        let parts: Vec<i64> = text.trim().split('-').map(|part| part.parse().unwrap()).collect();
        (parts[0], parts[1], parts[2])
    };
    let days = |from, to| {
        let (mut day, mut count) = (from, 0i64);
        while day != to {
            day = tomorrow(day);
            count += 1;
        }
        count
    };
    each("calendar", |level, language, problem, content| {
        let names = weekdays[language.of3(0, 1, 2)];
        match level {
            1 => {
                let given = numbers(content);
                let mut day = given[0];
                (0..given[1]).for_each(|_| day = (day + 1) % 7);
                assert_eq!(names[day as usize], gold(problem));
            }
            2 => {
                let (a, b) = content.split_once(" to ").unwrap();
                assert_eq!(days(date(a), date(b)), number(problem), "{content}");
            }
            3 => {
                let (a, count) = content.split_once(" + ").unwrap();
                let end = (0..count.parse::<i64>().unwrap()).fold(date(a), |day, _| tomorrow(day));
                assert_eq!(format!("{:04}-{:02}-{:02}", end.0, end.1, end.2), gold(problem), "{content}");
            }
            _ => {
                let (a, b) = content.split_once(" to ").unwrap();
                // January 1st 1900 was a Monday; the question must state the true weekday of its first date.
                let from = days((1900, 1, 1), date(a)) % 7;
                assert!(problem.question.contains(names[from as usize]), "{}", problem.question);
                let to = (from + days(date(a), date(b))) % 7;
                assert_eq!(names[to as usize], gold(problem), "{content}");
            }
        }
    });
}

#[test]
fn conversions_are_exact_in_base_units() {
    let size = |unit: &str| match unit {
        "kilometres" | "tonnes" => 1_000_000,
        "metres" | "kilograms" | "litres" => 1_000,
        "centimetres" | "centilitres" => 10,
        "millimetres" | "grams" | "seconds" | "millilitres" | "square centimetres" => 1,
        "weeks" => 7 * 24 * 3_600,
        "days" => 24 * 3_600,
        "hours" => 3_600,
        "minutes" => 60,
        "square metres" => 10_000,
        "square decimetres" => 100,
        _ => panic!("{unit}"),
    };
    let quantity = |text: &str| {
        let (number, unit) = text.split_once(' ').unwrap();
        number.parse::<i64>().unwrap() * size(unit)
    };
    each("units", |level, _, problem, content| match level {
        1 | 2 => {
            let (from, to) = content.split_once(" in ").unwrap();
            assert_eq!(quantity(from), number(problem) * size(to), "{content}");
        }
        3 => {
            let (a, b) = content.split_once(" + ").unwrap();
            assert_eq!(quantity(a) + quantity(b), number(problem) * size(b.split_once(' ').unwrap().1));
        }
        _ => {
            let (times, rest) = content.split_once(" × (").unwrap();
            let (mixed, less) = rest.split_once(") - ").unwrap();
            let second = mixed.rfind(|c: char| c.is_ascii_digit()).unwrap();
            let second = mixed[..second].rfind(' ').unwrap() + 1;
            let (large, small) = (mixed[..second].trim(), &mixed[second..]);
            let unit = size(small.split_once(' ').unwrap().1);
            let total = times.parse::<i64>().unwrap() * (quantity(large) + quantity(small));
            assert_eq!(total - less.parse::<i64>().unwrap() * unit, number(problem) * unit, "{content}");
        }
    });
}

#[test]
fn letters_are_where_a_second_look_finds_them() {
    each("strings", |_, _, problem, content| {
        let (kind, word) = content.split_once(':').unwrap();
        let alphabet = "abcdefghijklmnopqrstuvwxyzabcdefghijklmnopqrstuvwxyz";
        let by: usize = kind.rsplit(' ').next().unwrap().parse().unwrap_or(0);
        let shifted = |text: &str| -> String {
            text.chars().map(|c| alphabet.chars().nth(alphabet.find(c).unwrap() + by).unwrap()).collect()
        };
        let reversed: String = word.chars().rev().collect();
        let answer = match kind.split(' ').next().unwrap() {
            "count" => word.matches(kind.rsplit(' ').next().unwrap()).count().to_string(),
            "shift" => shifted(word),
            _ => shifted(&reversed),
        };
        assert_eq!(answer, gold(problem), "{content}");
    });
}

const PEOPLE: [&str; 6] = ["Paul", "Mark", "Hugo", "Oscar", "Leo", "Simon"];

fn people(text: &str) -> Vec<usize> {
    text.split(|c: char| !c.is_alphabetic()).filter_map(|word| PEOPLE.iter().position(|name| *name == word)).collect()
}

/// Where each name of the gold answer stands among the names, in any language.
fn listed(gold: &str) -> Vec<usize> {
    let names =
        [PEOPLE, ["Paul", "Marc", "Hugo", "Oscar", "Léo", "Simon"], ["小明", "小刚", "小强", "小华", "小军", "小伟"]];
    gold.split([',', '、'])
        .map(|part| names.iter().find_map(|table| table.iter().position(|name| *name == part.trim())).expect(part))
        .collect()
}

#[test]
fn knights_are_the_only_ones_that_fit_what_was_said() {
    each("knights", |_, _, problem, content| {
        let claims: Vec<(Vec<usize>, &str)> = content.split("; ").map(|claim| (people(claim), claim)).collect();
        let island: usize = claims.iter().map(|(who, _)| 1 << who[0]).sum();
        let fits: Vec<usize> = (0..1usize << PEOPLE.len())
            .filter(|world| world & !island == 0)
            .filter(|world| {
                let knight = |p: usize| world & (1 << p) != 0;
                claims.iter().all(|(who, claim)| {
                    let said = match claim {
                        c if c.contains("same kind") => knight(who[1]) == knight(who[2]),
                        c if c.contains("different") => knight(who[1]) != knight(who[2]),
                        c if c.ends_with("a knight") => knight(who[1]),
                        _ => !knight(who[1]),
                    };
                    said == knight(who[0])
                })
            })
            .collect();
        let world: usize = listed(gold(problem)).iter().map(|person| 1 << person).sum();
        assert_eq!(fits, [world], "{content}");
    });
}

#[test]
fn orders_are_the_only_ones_that_satisfy_the_clues() {
    let mut turn = 0;
    each("ordering", |level, _, problem, content| {
        turn += 1;
        if level == 4 && turn % 8 != 0 {
            return;
        }
        let (runners, clues) = content.split_once(':').unwrap();
        let runners = people(runners);
        let count = runners.len();
        let read: Vec<(Vec<usize>, &str)> = clues.split_inclusive('.').map(|clue| (people(clue), clue)).collect();
        // Places in base `count`: every assignment, those with two in one place left out.
        let fits: Vec<[usize; 6]> = (0..count.pow(count as u32))
            .map(|code| {
                let mut places = [usize::MAX; 6];
                (0..count).for_each(|i| places[runners[i]] = code / count.pow(i as u32) % count);
                places
            })
            .filter(|places| (0..count).all(|place| places.contains(&place)))
            .filter(|places| {
                read.iter().all(|(who, clue)| match clue {
                    c if c.contains("did not") => places[who[0]] + 1 != numbers(c)[0] as usize,
                    c if c.contains("right after") => places[who[0]] == places[who[1]] + 1,
                    _ => places[who[0]] < places[who[1]],
                })
            })
            .collect();
        let mut places = [usize::MAX; 6];
        listed(gold(problem)).iter().enumerate().for_each(|(place, person)| places[*person] = place);
        assert_eq!(fits, [places], "{content}");
    });
}

#[test]
fn syllogisms_are_decided_by_every_world_of_up_to_four_people() {
    let (mut yes, mut all) = (0, 0);
    each("syllogism", |level, _, problem, content| {
        all += 1;
        let says_yes = matches!(gold(problem), "yes" | "oui" | "是");
        yes += u32::from(says_yes);
        let propositions: Vec<Vec<&str>> = content.split("; ").map(|p| p.split(' ').collect()).collect();
        let mut terms: Vec<&str> = propositions.iter().flat_map(|p| [p[1], p[p.len() - 1]]).collect();
        terms.sort_unstable();
        terms.dedup();
        let index = |word: &str| terms.iter().position(|term| *term == word).unwrap();
        let holds = |p: &[&str], persons: &[u32]| {
            let (subject, predicate) = (index(p[1]), index(p[p.len() - 1]));
            let mut subjects = persons.iter().filter(|person| *person >> subject & 1 == 1);
            let is = |person: &u32| person >> predicate & 1 == 1;
            match (p[0], p.contains(&"not")) {
                ("all", _) => subjects.all(is),
                ("no", _) => !subjects.any(is),
                (_, false) => subjects.any(is),
                (_, true) => subjects.any(|person| !is(person)),
            }
        };
        if level == 3 && all % 8 != 0 {
            return;
        }
        let kinds = 1u32 << terms.len();
        // Each premise and the denied conclusion need at most one witness, so four people are enough.
        let people = if level == 3 { 4 } else { 3 };
        let counterexample = (0..kinds.pow(people)).any(|code| {
            let mut persons = [0; 4];
            (0..people).for_each(|i| persons[i as usize] = code / kinds.pow(i) % kinds);
            let persons = &persons[..people as usize];
            let (conclusion, premises) = propositions.split_last().unwrap();
            premises.iter().all(|p| holds(p, persons)) && !holds(conclusion, persons)
        });
        assert_eq!(says_yes, !counterexample, "{content}");
    });
    assert!((all * 2 / 5..all * 3 / 5).contains(&yes), "{yes} of {all}");
}

/// IFEval's checks of the kinds in use.
fn satisfies(text: &str, id: &str, arguments: &serde_json::Value) -> bool {
    let lower = text.to_lowercase();
    let words = |key: &str| -> Vec<String> {
        arguments[key].as_array().unwrap().iter().map(|w| w.as_str().unwrap().to_lowercase()).collect()
    };
    match id {
        "detectable_format:number_bullet_lists" => {
            text.trim_matches('"').lines().filter(|line| line.starts_with("* ")).count() as u64
                == arguments["num_bullets"].as_u64().unwrap()
        }
        "keywords:existence" => words("keywords").iter().all(|word| lower.contains(word)),
        "keywords:forbidden_words" => {
            let han = |word: &str| !word.is_ascii() && word.chars().all(|c| c > '\u{2fff}');
            !words("forbidden_words").iter().any(|word| {
                if han(word) {
                    lower.contains(word)
                } else {
                    lower.split(|c: char| !c.is_alphabetic()).any(|w| w == word)
                }
            })
        }
        "punctuation:no_comma" => !text.contains([',', '，', '、']),
        "startend:end_checker" => text.trim().ends_with(arguments["end_phrase"].as_str().unwrap()),
        "startend:quotation" => text.len() > 1 && text.starts_with('"') && text.ends_with('"'),
        _ => panic!("{id}"),
    }
}

#[test]
fn constrained_replies_satisfy_their_constraints_and_worse_ones_do_not() {
    each("constrained", |level, _, problem, _| {
        let told: serde_json::Value = serde_json::from_str(problem.verification.as_deref().unwrap()).unwrap();
        let ids = told["instruction_id_list"].as_array().unwrap();
        assert_eq!(ids.len(), level as usize);
        let all = |text: &str| {
            ids.iter().enumerate().all(|(i, id)| satisfies(text, id.as_str().unwrap(), &told["kwargs"][i]))
        };
        let (_, worse) = problem.rejected.as_ref().unwrap();
        assert!(all(&problem.answer), "{}\n{told}\n{}", problem.question, problem.answer);
        assert!(!all(worse), "{}\n{told}\n{worse}", problem.question);
    });
}
