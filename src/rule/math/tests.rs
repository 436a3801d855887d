//! The rule through its public interface: tables of cases by topic, properties, hostile input.

mod completions;
mod copied;
mod hostile;
mod properties;

use super::*;
use crate::rule::RuleSet;
use crate::rule::testing::with_gold;

/// What the rule says of a completion for a prompt that it cannot repeat.
fn check(rule: &MathRule, completion: &str, gold: &str) -> Verdict {
    rule.check(&Sample { prompt: "", ..with_gold(completion, gold) })
}

/// Checks every case of a table: `gold ;; = accepted ;; ! rejected`, one gold a line.
fn table(name: &str, text: &str) {
    let config = MathConfig::default();
    let mut wrong = Vec::new();
    let mut count = 0;
    for (number, line) in text.lines().enumerate() {
        if line.trim().is_empty() || line.starts_with('#') {
            continue;
        }
        let mut fields = line.split(" ;; ");
        let gold = fields.next().expect("split yields one field at least");
        for case in fields {
            let (mark, answer) = case.split_once(' ').expect("a case is a mark, a blank and an answer");
            let found = equivalent(gold, answer, &config);
            let fine = match mark {
                "=" => found == Equivalence::Equal,
                "!" => matches!(found, Equivalence::Different | Equivalence::CannotTell("answer_unparsed")),
                "?" => matches!(found, Equivalence::CannotTell(_)),
                other => panic!("{name}:{}: unknown mark {other:?}", number + 1),
            };
            count += 1;
            if !fine {
                wrong.push(format!("{name}:{}: {gold} | {mark} {answer}: {found:?}", number + 1));
            }
        }
    }
    assert!(count > 0, "{name} holds no cases");
    assert!(wrong.is_empty(), "{} of {count} cases fail:\n{}", wrong.len(), wrong.join("\n"));
}

macro_rules! tables {
    ($($name:ident),*) => {
        $(#[test]
        fn $name() {
            table(stringify!($name), include_str!(concat!("tests/cases/", stringify!($name), ".txt")));
        })*
    };
}

tables!(
    numbers, algebra, sets, relations, units, mixed, everyday, latex, common, graders, distinct, written, notation,
    apart, claims
);

#[test]
fn strict_units_must_be_there_and_agree() {
    let strict = MathConfig { strict_units: true, ..MathConfig::default() };
    for (gold, answer, want) in [
        (r"15\text{ cm}^2", r"15\text{ cm}^2", Equivalence::Equal),
        (r"15\text{ cm}^2", r"1500\text{ mm}^2", Equivalence::Equal),
        (r"15\text{ cm}^2", "15", Equivalence::Different),
        (r"\$18.90", "18.90", Equivalence::Different),
        (r"50\%", "0.5", Equivalence::Equal),
        (r"50\%", "50", Equivalence::Different),
    ] {
        assert_eq!(equivalent(gold, answer, &strict), want, "{gold} | {answer}");
    }
}

#[test]
fn a_percent_sign_counts_where_bare_percent_is_off() {
    let off = MathConfig { bare_percent: false, ..MathConfig::default() };
    for (gold, answer, want) in [
        ("72", r"72\%", Equivalence::Different),
        ("72", r"7200\%", Equivalence::Equal),
        ("x = 72", r"x = 72\%", Equivalence::Different),
        ("x = 72", r"y = 72\%", Equivalence::Different),
        ("1, 72", r"1, 72\%", Equivalence::Different),
        ("(1, 72)", r"(1, 72\%)", Equivalence::Different),
        ("0.25", r"0.25\%", Equivalence::Different),
        ("0.25", r"25\%", Equivalence::Equal),
        ("0.25", r"0.2500\%\%", Equivalence::CannotTell("answer_unparsed")),
        (r"50\%", r"50\%", Equivalence::Equal),
        (r"50\%", "50", Equivalence::Equal),
        (r"50\%", "0.5", Equivalence::Equal),
        (r"\frac{1}{2}", r"50\%", Equivalence::Equal),
        ("72", "72", Equivalence::Equal),
    ] {
        assert_eq!(equivalent(gold, answer, &off), want, "{gold} | {answer}");
    }
    assert_eq!(equivalent("72", r"72\%", &MathConfig::default()), Equivalence::Equal);
}

#[test]
fn what_the_audit_was_paid_for_is_wrong() {
    let rule = MathRule::new(MathConfig { bare_percent: false, ..MathConfig::default() }).unwrap();
    let mut cases = vec![
        ("72", "79 = 72".to_string()),
        ("72", r"72\%".into()),
        ("72", r"72 \text{ million}".into()),
        ("72", "72_7".into()),
        ("0.25", "7.25 = 0.25".into()),
        ("0.25", r"0.25\%".into()),
        ("0.25", r"0.2500\%\%".into()),
        ("0.25", r"0.25 \text{ million}".into()),
    ];
    for gold in [r"\frac{1}{3}", r"\{2, 3\}", r"\sqrt{2}", "(-2, 4)", "x^2+2x+1"] {
        cases.push((gold, format!("1789 = {gold}")));
    }
    for (gold, answer) in cases {
        let verdict = check(&rule, &format!(r"\boxed{{{answer}}}"), gold);
        assert_eq!(verdict.score, Some(0.0), "{gold} | {answer}: {verdict:?}");
    }
}

#[test]
fn a_contradiction_is_named() {
    let rule = MathRule::default();
    let verdict = check(&rule, r"\boxed{79 = 72}", "72");
    assert_eq!((verdict.reason, verdict.score), ("inconsistent_chain", Some(0.0)));
}

#[test]
fn tolerance_is_what_the_rule_file_says() {
    let with = |tolerance| MathConfig { tolerance, ..MathConfig::default() };
    assert_eq!(equivalent("3.14", "3.14159", &with(Tolerance::Exact)), Equivalence::Different);
    assert_eq!(equivalent("3.14", "3.14159", &with(Tolerance::GoldPrecision)), Equivalence::Equal);
    assert_eq!(equivalent("100", "100.9", &with(Tolerance::Relative(0.01))), Equivalence::Equal);
    assert_eq!(equivalent("100", "101.1", &with(Tolerance::Relative(0.01))), Equivalence::Different);
    assert_eq!(equivalent("5", "5.0001", &with(Tolerance::Absolute(0.001))), Equivalence::Equal);
    assert_eq!(equivalent("5", "5.01", &with(Tolerance::Absolute(0.001))), Equivalence::Different);
    // Whole numbers are numbers.
    for (answer, relative, absolute) in [
        ("100", Equivalence::Equal, Equivalence::Equal),
        ("102", Equivalence::Equal, Equivalence::Equal),
        ("105", Equivalence::Equal, Equivalence::Different),
        ("111", Equivalence::Different, Equivalence::Different),
    ] {
        assert_eq!(equivalent("100", answer, &with(Tolerance::Relative(0.1))), relative, "{answer}");
        assert_eq!(equivalent("100", answer, &with(Tolerance::Absolute(2.0))), absolute, "{answer}");
        let same = if answer == "100" { Equivalence::Equal } else { Equivalence::Different };
        for tolerance in [Tolerance::Exact, Tolerance::GoldPrecision] {
            assert_eq!(equivalent("100", answer, &with(tolerance)), same, "{answer}");
        }
    }
}

#[test]
fn settings_that_would_never_pay_are_refused() {
    let faulty = |settings: &str| {
        let text = format!("reward = \"math\"\n[rules.math]\nkind = \"math\"\n{settings}\n");
        RuleSet::parse(&text, "rules.toml").err().unwrap_or_else(|| panic!("{settings} passes")).render(false)
    };
    for (settings, key) in [
        ("extract = []", "extract"),
        ("extract = ['box']", "extract"),
        ("think_tags = [{ open = '', close = '' }]", "think_tags"),
        ("think_tags = [{ open = '<think>', close = '' }]", "think_tags"),
        ("tolerance = { relative = nan }", "tolerance"),
        ("tolerance = { relative = -1 }", "tolerance"),
        ("tolerance = { absolute = inf }", "tolerance"),
        ("steps = 0", "steps"),
    ] {
        let said = faulty(settings);
        assert!(said.contains(key) && said.contains("rules.toml:4"), "{settings}: {said}");
    }
    let fine = "extract = ['boxed']\nthink_tags = []\ntolerance = { absolute = 0 }\nsteps = 1";
    RuleSet::parse(&format!("[rules.math]\nkind = 'math'\n{fine}\n"), "rules.toml").unwrap();
}

#[test]
fn gold_that_does_not_parse_is_a_fault_of_the_dataset() {
    let config = MathConfig::default();
    for gold in ["", r"\frac{1}{", "=", "((", "3 +", "]["] {
        assert!(matches!(equivalent(gold, "1", &config), Equivalence::CannotTell(_)), "{gold}");
    }
}
