use super::*;
use crate::rule::testing::with_gold;

fn reason(completion: &str, gold: &str) -> &'static str {
    let mut sample = with_gold(completion, gold);
    sample.prompt = "Which is prime?\nA) 4\nB) 6\nC) 7\nD) nine";
    ChoiceRule::new(ChoiceConfig::default()).unwrap().check(&sample).reason
}

#[test]
fn commitments_of_many_forms_are_read() {
    for answer in [
        "C",
        "(C)",
        "**C**",
        "C.",
        "C) 7",
        "**C. 7**",
        "The answer is C.",
        "The correct answer is (C).",
        r"So \boxed{C}.",
        r"$\boxed{\text{C}}$",
        r"\boxed{(C)}",
        "Answer: **C**",
        "答案：C",
        "答案是 C。",
        "因此选C。",
        "La réponse est C.",
        "Die Antwort lautet C.",
        "La respuesta correcta es C.",
        "Ответ: C",
        "7",
        "Some words.\n\nC",
        "정답: C",
        "A is even and B too, so the answer is option C",
        "The answer is C because A and B are even.",
        "The answer is C, as 7 is prime.",
        r"The answer is \(C\).",
        "C. It is 7.",
        "C. It can't be A or B.",
        "It's not A because 4 is even, so I think it's C",
        "The answer is for sure C, it cannot be D",
        "I would choose C.",
        "C is correct.",
        "A is correct? No, (C) is the right one.",
        "Hence option (C) is correct, not option (D).",
        "The answer is not A, it is C.",
        "<think>A? B?</think>C",
        "c",
        "(c)",
        "c.",
        r"\boxed{c}",
        "The answer is c.",
        "The answer is (c) 7.",
        "答案：Ｃ",
        "[C]",
        "The answer is 7.",
        "**Answer:** 7",
        r"\boxed{\text{(C) 7}}",
        "Answer: C\nOption B is wrong: 6 is even.",
        "The correct option is (C).",
        "A and B are even, so option C.",
        "Since it is not A the answer is C.",
        "It can't be A, B or D, so I think the answer is C",
        "Option D is nine, which is three squared. The answer is C.",
        "If it were even it could be A. It isn't, so the answer is C.",
        "Final answer: C\n\nA would need 4 to be prime.",
        "The answer is D? No, the answer is C.",
        "Answer: C - 7",
        "**C** — 7",
        "The answer is C – 7.",
        "C is prime, so C.",
        "A, B and D are not prime. Therefore (C).",
        "只有 7 是质数，所以C。",
    ] {
        assert_eq!(reason(answer, "C"), "equal", "{answer}");
    }
    assert_eq!(reason("C", "7"), "equal");
}

#[test]
fn what_is_not_a_commitment_earns_nothing() {
    for (answer, expected) in [
        ("A", "not_equal"),
        ("A nice question about primes", "no_answer"),
        ("C nice question about primes.", "no_answer"),
        ("I would say so.", "no_answer"),
        ("The answer is not C.", "no_answer"),
        ("A, B, C", "several_answers"),
        ("The answer is A, B, C", "several_answers"),
        (r"\boxed{A} \boxed{D}", "several_answers"),
        (r"\boxed{A} or \boxed{C}", "several_answers"),
        ("The answer is C or A.", "no_answer"),
        (r"The answer is C \text{ or } A.", "no_answer"),
        ("The answer is C = A.", "no_answer"),
        ("Answer: C - 9", "no_answer"),
        ("Answer: C - nine", "no_answer"),
        ("C - A", "no_answer"),
        ("It is prime, so C or D.", "no_answer"),
        ("If so, C.", "no_answer"),
        ("The answer is C/(1-1).", "no_answer"),
        ("C. B. A. D.", "no_answer"),
        ("I would say 7 or so, not nine", "no_answer"),
        ("<think>C</think>", "no_answer"),
        ("<think>The answer is C", "no_answer"),
        ("C) nine", "no_answer"),
        ("I don't think the answer is C.", "no_answer"),
        ("I doubt that the answer is C.", "no_answer"),
        ("The answer isn't C.", "no_answer"),
        ("The answer can't be C.", "no_answer"),
        ("not C", "no_answer"),
        ("C is not correct.", "no_answer"),
        ("It is unlikely that C is correct.", "no_answer"),
        ("Is the answer C?", "no_answer"),
        ("If the answer is C then all is well.", "no_answer"),
        ("The answer is C. Or maybe D.", "no_answer"),
        ("The answer is either C or D.", "no_answer"),
        ("The answer is C/D.", "no_answer"),
        ("Option C is wrong.", "no_answer"),
        ("Option C says 7.", "no_answer"),
        ("The answer is a prime number.", "no_answer"),
        ("The answer is 7 or nine.", "no_answer"),
        ("The answer is not 7.", "no_answer"),
        ("E", "no_such_option"),
        ("", "no_answer"),
    ] {
        assert_eq!(reason(answer, "C"), expected, "{answer}");
    }
    for article in
        ["A dog", "A good one.", "The answer is A dog.", "I choose A dog", "A 4-sided figure", "A is a vowel"]
    {
        assert_ne!(reason(article, "A"), "equal", "{article}");
    }
    for picked in ["A", "a)", "The answer is A.", "The answer is A because 4 is.", "A) 4", "A is right."] {
        assert_eq!(reason(picked, "A"), "equal", "{picked}");
    }
    assert_eq!(reason("c", "c"), "equal");
    assert_eq!(reason("C", "F"), "gold_not_an_option");
    assert_eq!(reason("C", "eleven"), "gold_not_an_option");
}

#[test]
fn options_come_from_verification_first() {
    let mut sample = with_gold("Lyon", "B");
    sample.verification = Some(r#"{"choices": ["Paris", "Lyon"]}"#);
    let rule = ChoiceRule::new(ChoiceConfig::default()).unwrap();
    assert_eq!(rule.check(&sample).reason, "equal");
    sample.verification = Some(r#"{"choices": {"A": "Lyon", "B": "Paris"}}"#);
    assert_eq!(rule.check(&sample).reason, "not_equal");
}

#[test]
fn several_right_options_are_a_set() {
    let rule = ChoiceRule::new(ChoiceConfig { multiple: true, ..ChoiceConfig::default() }).unwrap();
    assert_eq!(rule.check(&with_gold("The answer is C and A", "AC")).reason, "equal");
    assert_eq!(rule.check(&with_gold("A", "AC")).reason, "not_equal");
    assert_eq!(rule.check(&with_gold("ABCD", "AC")).reason, "not_equal");
}
