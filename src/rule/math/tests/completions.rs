//! Whole completions: where the answer is found, and where it must not be.

use super::super::*;
use super::check;
use crate::rule::testing::{sample, with_gold};
use crate::schema::Outcome;

fn verdict(completion: &str, gold: &str) -> Verdict {
    check(&MathRule::default(), completion, gold)
}

fn accepts(completion: &str, gold: &str) {
    let found = verdict(completion, gold);
    assert_eq!(found.outcome, Outcome::Correct, "{completion:?} for {gold:?}: {found:?}");
}

fn rejects(completion: &str, gold: &str, reason: &str) {
    let found = verdict(completion, gold);
    assert_eq!((found.outcome, found.reason), (Outcome::Wrong, reason), "{completion:?} for {gold:?}: {found:?}");
}

#[test]
fn the_last_box_is_the_answer() {
    accepts(r"First \boxed{3}. No, wait. So it is \boxed{4}.", "4");
    rejects(r"First \boxed{4}. No, wait. So it is \boxed{3}.", "4", "not_equal");
    accepts(r"\boxed{\text{B}}", "B");
    accepts(r"so $\boxed{\frac{1}{2}}$", "0.5");
    accepts(r"\boxed 5", "5");
    accepts(r"\fbox{12}", "12");
    accepts(r"\boxed{x = 5}", "5");
    accepts(r"**Answer:** $\boxed{10{,}000}$", "10000");
}

#[test]
fn marks_and_ends_that_stand_beside_an_answer() {
    accepts("So three are left.\nAns: 12", "12");
    accepts("ANS: $12$", "12");
    rejects("Ans: 13", "12", "not_equal");
    for end in ["</s>", "<eos>", "<｜end▁of▁sentence｜>", "<|im_end|>", "<|endoftext|>", "<|eot_id|>"] {
        accepts(&format!("The final answer is 12{end}"), "12");
        accepts(&format!("The final answer is 12.{end}"), "12");
    }
}

#[test]
fn nested_and_adjacent_boxes() {
    accepts(r"\boxed{\boxed{5}}", "5");
    accepts(r"\boxed{x=\boxed{5}}", "5");
    accepts(r"The roots are \boxed{2} and \boxed{3}.", "2, 3");
    accepts(r"$\boxed{2}$, $\boxed{3}$ or $\boxed{5}$", r"\{2,3,5\}");
    rejects(r"The roots are \boxed{2} and \boxed{3}.", "3", "not_equal");
    rejects(r"\boxed{2} is one step. Then \boxed{3}.", "2", "not_equal");
}

#[test]
fn boxes_with_words_between_them_answer_a_gold_of_as_many_parts() {
    let text = r"So there are \boxed{3} hens, and \boxed{8} ducks.";
    accepts(text, "3, 8");
    accepts(text, "8");
    rejects(text, "3", "not_equal");
    accepts(r"$y_1 = \boxed{x^2+1}$ and $y_2 = \boxed{x-4}$", "y_1 = x^2+1, y_2 = x-4");
    accepts(r"\boxed{(5, 2)} \text{ for part (a) and } \boxed{(1, 7)}", "(5,2), (1,7)");
    // Three boxes are no answer to a question for two, nor are boxes that no list joins.
    rejects(r"\boxed{3} hens, \boxed{5} geese, and \boxed{8} ducks", "3, 8", "not_equal");
    rejects(r"First we find \boxed{3} which leads to \boxed{8}", "3, 8", "not_equal");
}

#[test]
fn gold_may_have_several_boxes_or_be_a_solution_in_words() {
    accepts(r"\boxed{4, 9}", r"\boxed{4} cups and \boxed{9} plates");
    rejects(r"\boxed{9}", r"\boxed{4} cups and \boxed{9} plates", "not_equal");
    accepts(r"\boxed{12}", r"It is \boxed{12}. Yes: \boxed{12}");
    let long = "The train needs 3 hours for the first part of the way and 4 hours for the second part, in all seven \
                hours for a way of 420 km. Final Answer: The final answer is $60$. I hope it is correct.";
    accepts(r"\boxed{60}", long);
    rejects(r"\boxed{420}", long, "not_equal");
}

#[test]
fn a_sentence_behind_the_announcement_is_read_for_what_it_says() {
    accepts("Final Answer: The area of $ABCD$ is 96.", "96");
    accepts("Final Answer: The smallest $k$ is 41.", "41");
    accepts(r"Final answer: the ratio equals $\frac{2}{9}$.", "2/9");
    accepts("Final Answer: The two of them met 6 days ago.", "6");
    rejects("Final Answer: The area is not 96.", "96", "not_equal");
    rejects("Final Answer: It takes less than 6 days.", "6", "different_kind");
    rejects("Final Answer: Of 6 boys and 7 girls all came.", "7", "not_equal");
}

#[test]
fn a_condition_behind_an_answer_is_not_the_answer() {
    accepts("The answer is 5 if n is 2.", "5");
    rejects("The answer is 5 if n is 2.", "2", "not_equal");
    rejects("Final Answer: 7 when x = 72", "72", "not_equal");
    rejects(r"\boxed{7 \text{ if } x = 72}", "72", "different_kind");
}

#[test]
fn a_dash_that_touches_a_formula_is_its_sign() {
    accepts(r"-\frac{10}{9}", "-10/9");
    rejects(r"-\frac{10}{9}", "10/9", "not_equal");
    accepts("So we have:\n- 7", "7");
    accepts("So we have:\n-7", "-7");
    accepts("**-x^2**", "-x^2");
    accepts("Which city?\n-Paris", "Paris");
}

#[test]
fn the_last_number_stands_alone_and_behind_everything() {
    let rule = MathRule::new(MathConfig { last_number: true, ..MathConfig::default() }).unwrap();
    let reward = |text: &str, gold: &str| check(&rule, text, gold).score;
    assert_eq!(reward("no, it is not 10, so it's 1,250.75m²", "1250.75"), Some(1.0));
    assert_eq!(reward("room AB7C", "7"), Some(0.0));
    assert_eq!(reward("因此一共有4 + 9 = 13只鸡和鸭子。", "13"), Some(1.0));
    assert_eq!(reward("两者的比例为17/29", "17/29"), Some(1.0));
    assert_eq!(
        reward("Alors 500 g - 60 g = 440 g. Donc il lui reste encore 60 g de farine dans le sac.", "60"),
        Some(1.0)
    );
}

#[test]
fn boxes_that_overlap_are_read_without_harm() {
    // Found by fuzzing: a box without braces that reaches over the end of the one around it.
    accepts(r"\boxed{1 \boxed5} 6", "5");
    for text in [r"\boxed{1\boxedù}ol^*8 = 0 & 3", r"\boxed{\boxed}x}", r"\boxed\boxed{2}", r"{\boxed 5}"] {
        let _ = verdict(text, "5");
    }
}

#[test]
fn an_empty_or_open_box_is_no_answer() {
    rejects(r"\boxed{}", "0", "no_answer");
    rejects(r"It is \boxed{5", "5", "no_answer");
}

#[test]
fn the_answer_stands_behind_the_reasoning() {
    accepts("<think>maybe 3</think> The answer is 4.", "4");
    rejects(r"<think>it is \boxed{4}</think> The answer is 3.", "4", "not_equal");
    rejects(r"<think>it is \boxed{4}", "4", "no_answer");
    let cut = Sample { finish_reason: FinishReason::Length, ..with_gold(r"<think>it is \boxed{4}", "4") };
    let cut = MathRule::default().check(&cut);
    assert_eq!((cut.outcome, cut.reason), (Outcome::Wrong, "truncated"));
    let required = MathRule::new(MathConfig { think: Think::Required, ..MathConfig::default() }).unwrap();
    assert_eq!(check(&required, r"\boxed{4}", "4").reason, "no_answer");
}

#[test]
fn announcements_in_many_languages() {
    for text in [
        "The final answer is 42.",
        "So the answer is: 42",
        "Answer: 42",
        "**Final Answer:** 42",
        "**Final Answer**\n\n42",
        "### Answer\n42",
        "The answer to the question is $42$.",
        "Therefore, the correct answer is **42**.",
        "A: 42",
        "so 6 times 7\n#### 42",
        "答案是42。",
        "答案：42",
        "所以最终答案为 42。",
        "答：42",
        "La réponse finale est 42.",
        "La réponse est donc 42.",
        "Die Antwort ist also 42.",
        "La respuesta es entonces 42.",
        "Réponse : 42",
        "Die Antwort ist 42.",
        "Antwort: 42",
        "La respuesta es 42.",
        "Respuesta final: 42",
        "答えは42です",
        "答え：42",
        "정답은 42입니다.",
        "답: 42",
        "Ответ: 42",
        "ответ: 42.",
        "La risposta è 42.",
        "A resposta é 42.",
        "The answer is \\(42\\).",
        "The answer is \\[42\\]",
        "Final answer: $42$ dollars per day",
        "The answer is 42 apples, because 6 × 7 = 42.",
    ] {
        accepts(text, "42");
        rejects(text, "41", "not_equal");
    }
}

#[test]
fn formulas_and_last_lines() {
    accepts("We get $x = 3$ and then $x + 1 = 4$.", "4");
    accepts(r"Hence \[ \frac{3}{4} \]", "0.75");
    accepts("Adding up:\n6 * 7 = 42", "42");
    accepts("42", "42");
    accepts(r"\frac{1}{2}", "1/2");
    accepts(r"So the solutions are $x=2$ or $x=3$.", "2, 3");
    accepts(r"\begin{align*} x &= 2 + 3 \\ &= 5 \end{align*}", "5");
}

#[test]
fn a_number_in_prose_is_no_answer_unless_asked_for() {
    let text = "There were 12 ducks and then 42 ducks came along to the pond with the others";
    assert_eq!(verdict(text, "42").outcome, Outcome::Wrong);
    let lenient = MathRule::new(MathConfig { last_number: true, ..MathConfig::default() }).unwrap();
    let found = check(&lenient, text, "42");
    assert_eq!(found.outcome, Outcome::Correct);
    assert!(found.evidence.contains(&("where", "last_number".to_string())));
}

#[test]
fn no_number_is_read_out_of_a_formula_that_breaks_off() {
    let lenient = MathRule::new(MathConfig { last_number: true, ..MathConfig::default() }).unwrap();
    for broken in [
        r"34\choose",
        r"A: 34\choose",
        r"The answer is 34\choose.",
        r"Answer: 34 \begin{pmatrix}",
        r"(A)34−\begin{pmatrix}",
        "A: 34 +",
        "A: 34^",
        r"A: 34 \cdot",
        r"A: 34 \frac{",
        r"\boxed{34\over}",
    ] {
        assert_ne!(verdict(broken, "34").outcome, Outcome::Correct, "{broken}");
        let found = check(&lenient, broken, "34");
        assert_ne!(found.outcome, Outcome::Correct, "last number of {broken}: {found:?}");
    }
    for whole in
        ["A: 34", "A: 34.", r"The answer is 34 \%", "A: 34 **", r"Answer: 34 \text{ cm}", "The answer is 34 - all"]
    {
        accepts(whole, "34");
    }
}

#[test]
fn rupees_end_no_sentence() {
    for completion in ["The answer is Rs. 500.", "**Answer:** Rs. 500", "#### Rs. 500", "Answer: Rs.500/-"] {
        accepts(completion, "500");
        accepts(completion, "₹500");
        rejects(completion, "5", "not_equal");
    }
    accepts("The answer is 7 hrs. 500 people came.", "7");
}

#[test]
fn listing_candidates_earns_nothing() {
    rejects(r"\boxed{1, 2, 3, 4, 5}", "3", "not_equal");
    rejects(r"\boxed{1} \boxed{2} \boxed{3}", "3", "not_equal");
    rejects(r"\boxed{3 \text{ or } 4}", "3", "not_equal");
    rejects(r"The answer is 3 or 4.", "3", "not_equal");
    assert_ne!(verdict(r"\boxed{0 \cdot x + \text{anything}}", "3").outcome, Outcome::Correct);
}

#[test]
fn answers_as_models_end_them() {
    for (completion, right, wrong) in [
        (r"Final Answer: The final answer is $\frac{3}{4}$. I hope it is correct.", "0.75", "3"),
        (r"The final answer is $17$. I hope it is correct.", "17", "1"),
        (r"Final Answer: The final answer is $x^2 - 1$. I hope it is correct.", "(x-1)(x+1)", "x^2+1"),
        (r"The final answer is $(-2, 3]$. I hope it is correct.", "-2 < x \\le 3", "(-2, 3)"),
        (r"The final answer is 12. I hope it is correct.", "12", "2"),
        (r"Thus the area is $\boxed{42}$ square units.", "42", "24"),
        (r"\boxed{42} is the answer, since $6 \cdot 7 = 42$ and $7 \cdot 7 = 49$.", "42", "49"),
        ("So \\boxed{5}.\n\nLet me know if you have questions about 7!", "5", "7"),
        (r"It follows that \boxed{ 5 }", "5", "6"),
        (r"$\boxed{\text{(B)}\ 12}$", "B", "A"),
        (r"$\boxed{\textbf{(B)}\ 12}$", "12", "13"),
        (r"\boxed{\text{B. }12}", "B", "C"),
        (r"\boxed{x=2,\ y=3}", "(2, 3)", "(3, 2)"),
        (r"\[ \boxed{\begin{pmatrix} 1 \\ 2 \end{pmatrix}} \]", "(1,2)", "(2,1)"),
        (r"\boxed{\{1, 2\}}", "2, 1", "1"),
        (r"\boxed{\$12.50}", "12.5", "1250"),
        (r"\begin{align*} 3 + 4 &= 7 \\ &= \boxed{7} \end{align*}", "7", "3"),
        (r"\boxed{\boxed{\frac{1}{2}}}", "1/2", "2"),
        (r"$\boxed {9}$", "9", "8"),
        (r"First \boxed{1}, then in the end $\boxed{4}$", "4", "1"),
        (r"\(\boxed{3}\) and \(\boxed{-3}\)", "\\pm 3", "3"),
        ("<answer>42</answer>", "42", "41"),
        (r"<think>or \boxed{41}</think><answer>\boxed{42}</answer>", "42", "41"),
        ("The answer is: 42 (forty-two).", "42", "2"),
        ("The answer is 5, not 6.", "5", "6"),
        ("My answer is 5. Wait, that is wrong. The answer is 6.", "6", "5"),
        ("The answer is 3.5.", "3.5", "3"),
        ("The answer is -3.", "-3", "3"),
        ("The answer is 1,000,000.", "1000000", "1"),
        ("Answer: 2:30 PM", "2:30 p.m.", "2:30 a.m."),
        ("ANSWER: 17", "17", "7"),
        (r"Answer: \frac{1}{2}", "0.5", "1"),
        (r"final answer: $\displaystyle \frac{7}{3}$", "7/3", "3/7"),
        ("The correct answer is (C).", "C", "B"),
        ("Answer: **(D)**", "D", "A"),
        ("### Final answer\n\n**x = 8**", "8", "9"),
        ("So she has $18 left.\n#### 18", "18", "8"),
        ("#### $1,234.50", "1234.5", "1234"),
        ("#### 25%", "25\\%", "52\\%"),
        ("#### -7", "-7", "7"),
        (r"Therefore, $f(2) = 10$.", "10", "2"),
        (r"We conclude that $x \in [2, 5)$.", "[2,5)", "(2,5)"),
        (r"答案是：$\boxed{\frac{1}{2}}$", "0.5", "2"),
        ("因此，答案为十五。", "15", "5"),
        ("最终答案：x=３", "3", "2"),
        ("Die Antwort lautet: 12", "12", "1"),
        ("La réponse est 12.", "12", "2"),
        ("The answer is twelve.", "12", "2"),
    ] {
        accepts(completion, right);
        assert_ne!(verdict(completion, wrong).outcome, Outcome::Correct, "{completion:?} for {wrong:?}");
    }
}

#[test]
fn a_sentence_put_equal_to_a_name_is_no_answer() {
    assert_ne!(verdict("nothing of the kind = Cid", "Cid").outcome, Outcome::Correct);
    accepts("The shortest one of the three = 12", "12");
}

#[test]
fn a_missing_gold_is_not_scored() {
    let sample = Sample { prompt: "", ..sample(r"\boxed{4}") };
    let rule = MathRule::default();
    assert_eq!(rule.check(&sample).reason, "no_gold");
    assert_eq!(rule.check(&Sample { gold: Some(r"\frac{1}{"), ..sample }).reason, "gold_unparsed");
    assert_eq!(rule.check(&Sample { gold: Some("4"), ..sample }).outcome, Outcome::Correct);
}

#[test]
fn decimal_commas_follow_the_language() {
    let rule = MathRule::default();
    let sample = Sample { prompt: "", language: "de", ..with_gold(r"\boxed{3.5}", "3,5") };
    assert_eq!(rule.check(&sample).outcome, Outcome::Correct);
    assert_eq!(rule.check(&Sample { language: "en", ..sample }).outcome, Outcome::Wrong);
}

#[test]
fn evidence_says_what_was_read() {
    let found = verdict(r"\boxed{\frac{2}{4}}", "0.5");
    let keys: Vec<&str> = found.evidence.iter().map(|(key, _)| *key).collect();
    assert_eq!(keys, ["extracted", "where", "parsed", "gold_parsed", "step"]);
    assert!(found.evidence.contains(&("parsed", "1/2".to_string())));
}

/// `gold ;; = accepted ;; ! not accepted`, a completion each; ⏎ is a line break.
#[test]
fn completions_by_the_table() {
    let mut wrong = Vec::new();
    let lines = include_str!("cases/completions.txt").lines().enumerate();
    for (number, line) in lines.filter(|(_, line)| !line.is_empty() && !line.starts_with('#')) {
        let mut fields = line.split(" ;; ");
        let gold = &fields.next().expect("split yields one field at least").replace('⏎', "\n");
        for case in fields {
            let (mark, text) = case.split_once(' ').expect("a case is a mark, a blank and a completion");
            let found = verdict(&text.replace('⏎', "\n"), gold);
            if (found.outcome == Outcome::Correct) != (mark == "=") {
                wrong.push(format!("{}: {gold} {mark} {text}: {} {:?}", number + 1, found.reason, found.evidence));
            }
        }
    }
    assert!(wrong.is_empty(), "{} cases fail:\n{}", wrong.len(), wrong.join("\n"));
}
