//! Properties over generated answers.

use proptest::prelude::*;

use super::super::*;

fn equal(a: &str, b: &str) -> Equivalence {
    equivalent(a, b, &MathConfig::default())
}

/// An expression in one or two letters, in LaTeX.
fn expression() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        (1i64..60).prop_map(|n| n.to_string()),
        Just("x".to_string()),
        Just("y".to_string()),
        Just(r"\pi".to_string()),
        (2i64..30).prop_map(|n| format!(r"\sqrt{{{n}}}")),
    ];
    leaf.prop_recursive(3, 12, 2, |inner| {
        prop_oneof![
            (inner.clone(), inner.clone()).prop_map(|(a, b)| format!("{a}+{b}")),
            (inner.clone(), inner.clone()).prop_map(|(a, b)| format!("({a})-({b})")),
            (inner.clone(), inner.clone()).prop_map(|(a, b)| format!(r"({a}) \cdot ({b})")),
            (inner.clone(), 1i64..9).prop_map(|(a, n)| format!(r"\frac{{{a}}}{{{n}}}")),
            (inner, 2i64..4).prop_map(|(a, n)| format!("({a})^{{{n}}}")),
        ]
    })
}

/// The same expression in another dress.
fn rewritten(text: &str, choice: u8) -> String {
    match choice % 8 {
        0 => text.replace(r"\frac", r"\dfrac"),
        1 => text.replace('(', r"\left(").replace(')', r"\right)"),
        2 => text.replace(r"\cdot", r"\times"),
        3 => format!("${text}$"),
        4 => text.replace('+', " + ").replace('-', " - "),
        5 => text.replace('-', "−"),
        6 => format!(r"\displaystyle {text}\,"),
        _ => format!("{{{text}}}"),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn reflexive_on_any_text(text in "\\PC{0,60}") {
        let found = equal(&text, &text);
        prop_assert!(found != Equivalence::Different, "{text:?}");
    }

    #[test]
    fn any_text_ends_in_a_verdict(gold in "[-0-9a-z\\\\{}()\\[\\]^_+*/=<>|,.$ %!&~]{0,80}", answer in "[-0-9a-z\\\\{}()\\[\\]^_+*/=<>|,.$ %!&~]{0,80}") {
        equal(&gold, &answer);
    }

    #[test]
    fn latex_like_text_ends_in_a_verdict(parts in prop::collection::vec(prop_oneof![
        Just(r"\frac"), Just(r"\sqrt"), Just("{"), Just("}"), Just("^"), Just("_"), Just("("), Just(")"), Just("["),
        Just("]"), Just(r"\{"), Just(r"\}"), Just("|"), Just("1"), Just("23"), Just("x"), Just("+"), Just("-"),
        Just(","), Just("="), Just("<"), Just(r"\sin"), Just(r"\log"), Just(r"\begin{pmatrix}"), Just(r"\end{pmatrix}"),
        Just("&"), Just(r"\\"), Just(r"\sum"), Just(r"\text{cm}"), Just(r"\pm"), Just(r"\cup"), Just(r"\infty"),
        Just("!"), Just("%"), Just(r"^\circ"), Just(":"), Just(r"\in"), Just(r"\binom"), Just("."), Just(" or "),
    ], 0..24)) {
        let text = parts.concat();
        prop_assert!(equal(&text, &text) != Equivalence::Different, "{text:?}");
        equal(&text, "1");
        equal("x+1", &text);
    }

    #[test]
    fn rewriting_latex_changes_nothing(text in expression(), choice in any::<u8>()) {
        prop_assert_eq!(equal(&text, &rewritten(&text, choice)), Equivalence::Equal, "{} / {}", text, rewritten(&text, choice));
    }

    #[test]
    fn commuting_and_distributing_change_nothing(a in expression(), b in expression(), c in expression()) {
        let sum = format!(r"({a})({b}+{c})");
        let spread = format!(r"({c})({a})+({b})({a})");
        prop_assert_eq!(equal(&sum, &spread), Equivalence::Equal, "{} / {}", sum, spread);
    }

    #[test]
    fn adding_one_changes_it(text in expression()) {
        let more = format!("{text}+1");
        prop_assert_eq!(equal(&text, &more), Equivalence::Different, "{}", text);
    }

    #[test]
    fn symmetric_without_decimals(a in expression(), b in expression()) {
        prop_assert_eq!(equal(&a, &b), equal(&b, &a), "{} / {}", a, b);
    }

    #[test]
    fn unequal_rationals_are_never_equal(a in -2000i64..2000, b in 1i64..2000, c in -2000i64..2000, d in 1i64..2000) {
        let left = format!(r"\frac{{{a}}}{{{b}}}");
        let right = format!("{c}/{d}");
        let want = if a * d == c * b { Equivalence::Equal } else { Equivalence::Different };
        prop_assert_eq!(equal(&left, &right), want);
    }

    #[test]
    fn sets_ignore_order_and_tuples_do_not(items in prop::collection::vec(-50i64..50, 2..6), swap in any::<prop::sample::Index>()) {
        let show = |items: &[i64]| items.iter().map(i64::to_string).collect::<Vec<_>>().join(", ");
        let mut turned = items.clone();
        turned.rotate_left(1 + swap.index(items.len() - 1));
        let (a, b) = (show(&items), show(&turned));
        prop_assert_eq!(equal(&format!(r"\{{{a}\}}"), &format!(r"\{{{b}\}}")), Equivalence::Equal);
        let want = if items == turned { Equivalence::Equal } else { Equivalence::Different };
        prop_assert_eq!(equal(&format!("({a})"), &format!("({b})")), want);
    }

    #[test]
    fn a_subset_is_wrong(items in prop::collection::btree_set(-50i64..50, 2..7)) {
        let all = items.iter().map(i64::to_string).collect::<Vec<_>>().join(", ");
        let part = items.iter().skip(1).map(i64::to_string).collect::<Vec<_>>().join(", ");
        prop_assert_eq!(equal(&format!(r"\{{{all}\}}"), &format!(r"\{{{part}\}}")), Equivalence::Different);
        prop_assert_eq!(equal(&format!(r"\{{{part}\}}"), &format!(r"\{{{all}\}}")), Equivalence::Different);
    }

    #[test]
    fn the_verdict_is_the_same_on_every_thread(a in expression(), b in expression()) {
        let here = equal(&a, &b);
        let (x, y) = (a.clone(), b.clone());
        let there = std::thread::spawn(move || equal(&x, &y)).join().expect("the thread does not panic");
        prop_assert_eq!(here, there);
    }
}

#[test]
fn a_value_and_its_size_differ_whatever_the_letter() {
    let config = MathConfig::default();
    let letters = "abdfghjkmnopqrstvwxyz";
    for a in letters.chars() {
        for (gold, answer) in [
            (format!("{a}"), format!("|{a}|")),
            (format!("|{a}|"), format!("{a}")),
            (format!("{a}"), format!(r"\sqrt{{{a}^2}}")),
            ("1".to_string(), format!(r"\frac{{|{a}|}}{{{a}}}")),
            (format!("|{a} + 6|"), format!("{a} + 6")),
            (format!("|{a} - 50|"), format!("50 - {a}")),
            (format!("|{a}| + C"), format!("{a} + C")),
            (
                format!(r"2\begin{{pmatrix}}|{a}|\\1\end{{pmatrix}}"),
                format!(r"2\begin{{pmatrix}}{a}\\1\end{{pmatrix}}"),
            ),
            (format!("u^2 = |{a}|"), format!("u^2 = {a}")),
            ("1".to_string(), format!("(-1)^{{{a}}}")),
            ("0".to_string(), format!(r"\frac{{1 - (-1)^{{{a}}}}}{{2}}")),
            (r"\frac{\pi}{2}".to_string(), format!(r"\arctan {a} + \arctan\frac{{1}}{{{a}}}")),
        ] {
            assert_eq!(equivalent(&gold, &answer, &config), Equivalence::Different, "{gold} | {answer}");
        }
        for b in letters.chars().filter(|b| *b > a) {
            let (gold, answer) = (format!("{a}-{b}"), format!("|{a}-{b}|"));
            assert_eq!(equivalent(&gold, &answer, &config), Equivalence::Different, "{gold} | {answer}");
            let (gold, answer) = (format!(r"{a} \cdot {b}"), format!(r"\sqrt{{{a}^2 \cdot {b}^2}}"));
            assert_eq!(equivalent(&gold, &answer, &config), Equivalence::Different, "{gold} | {answer}");
        }
    }
}
