//! Input made to hurt: the right answer or "cannot tell", within the step budget.

use std::time::Duration;

use super::super::*;
use super::check;

/// This thread's processor time: a busy machine is no fault of the input.
fn thread_time() -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is a valid timespec that the call fills; the clock is one of POSIX.
    unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &mut time) };
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// Checks gold against answer; anything is allowed but the wrong verdict and too much work.
fn bounded(name: &str, gold: &str, answer: &str, equal: bool) {
    let start = thread_time();
    let found = equivalent(gold, answer, &MathConfig::default());
    let took = thread_time() - start;
    match found {
        Equivalence::Equal => assert!(equal, "{name}: called equal"),
        Equivalence::Different => assert!(!equal, "{name}: called different"),
        Equivalence::CannotTell(_) => {}
    }
    // The budget is steps; this only catches a step that costs far more than it says.
    assert!(took < Duration::from_millis(250), "{name}: {took:?} ({found:?})");
}

#[test]
fn towers_and_huge_factorials() {
    for (gold, answer, equal) in [
        ("10^{10^{10}}", "10^{10^{10}}", true),
        ("10^{10^{10}}", "10^{10^{10}}+1", false),
        ("10^{10^{10}}", "10^{10^{11}}", false),
        ("10^10^10", "5", false),
        ("(10^8)!", "(10^8)!", true),
        ("(10^8)!", "(10^8)! + 1", false),
        ("5^{5^5}", "5^{3125}", true),
        ("5^{5^5}", "5^{3124}", false),
        ("5^{5^{5^5}}", "5^{5^{5^5}}", true),
        ("2^{100000}", "4^{50000}", true),
        ("2^{100000}", "2^{100001}", false),
        ("2^{400000}", "4^{200000}", true),
        (r"\binom{100000}{50000}", r"\binom{100000}{50000}", true),
        (r"\sum_{k=1}^{1000000000} k", "500000000500000000", true),
        (r"\sum_{i=1}^{99999}\sum_{j=1}^{99999}\sum_{k=1}^{99999} ijk", "1", false),
        ("9^{9^{9^{9^9}}}", "1", false),
        ("((((2^9)^9)^9)^9)^9", "1", false),
        ("5000!", "5000!", true),
        ("4999!", "5000!", false),
    ] {
        bounded(gold, gold, answer, equal);
    }
}

#[test]
fn deep_nesting() {
    let deep = |open: &str, middle: &str, close: &str, n: usize| open.repeat(n) + middle + &close.repeat(n);
    bounded("fractions", &deep(r"\frac{1}{1+", "1", "}", 2000), "1", false);
    let fractions = deep(r"\frac{1}{1+", "1", "}", 2000);
    bounded("same fractions", &fractions, &fractions, true);
    bounded("braces", &deep("{", "7", "}", 50_000), "7", true);
    bounded("braces in a box", "7", &deep("{", "7", "}", 50_000), true);
    bounded("open braces", &"{".repeat(100_000), "7", false);
    bounded("close braces", "7", &"}".repeat(100_000), false);
    bounded("parentheses", &deep("(", "7", ")", 50_000), "7", true);
    bounded("square roots", &deep(r"\sqrt{", "16", "}", 5_000), "1", false);
    bounded("exponents", &deep("2^{", "2", "}", 5_000), "1", false);
    bounded("bars", &"|".repeat(20_000), "1", false);
    bounded("minus signs", &("-".repeat(50_000) + "7"), "7", true);
    bounded("sets of sets", &deep(r"\{", "1", r"\}", 3_000), "1", false);
    bounded("tuples", &deep("(1,", "1", ")", 3_000), "1", false);
    bounded("functions", &(r"\sin ".repeat(20_000) + "x"), "1", false);
    for (name, open, close) in [
        ("products of sets", r"\mathbb{R}", ""),
        ("sums of sets", r"\mathbb{R}+", ""),
        ("sums of sets to the right", r"\mathbb{R}-(", ")"),
        ("negated sets", "-(", ")"),
        ("functions of sets", r"\sin(", ")"),
        ("quotients of sets", r"\frac{\mathbb{R}}{", "}"),
        ("powers of sets", r"\mathbb{R}^{", "}"),
        ("unions of rows", r"(1,2)\cup(", ")"),
        ("words", r"\text{word}+(", ")"),
    ] {
        let gold = deep(open, r"\mathbb{R}", close, 5_000);
        bounded(name, &gold, &deep(open, r"\mathbb{Z}", close, 5_000), false);
        bounded(name, &gold, &deep(open, r"\mathbb{R}", close, 4_999), false);
        bounded(name, &gold, &format!("{gold}1"), false);
    }
    bounded("products inside each other", &deep("(x", "7", ")", 20_000), "1", false);
    bounded("products that never close", &"(x".repeat(30_000), "1", false);
    bounded("matrices inside each other", &deep(r"\begin{pmatrix}1&2\end{pmatrix}+(", "7", ")", 3_000), "1", false);
    bounded("single-token arguments", &(r"\sqrt".repeat(20_000) + "1"), "1", true);
    bounded("fractions without braces", &(r"\frac1".repeat(20_000) + "1"), "1", true);
}

#[test]
fn wide_input() {
    let digits = "7".repeat(100_000);
    bounded("integer of 100,000 digits", &digits, &digits, true);
    bounded("other last digit", &digits, &(digits[..99_999].to_string() + "8"), false);
    let shorter = "7".repeat(19_000);
    bounded("integer of 19,000 digits", &shorter, &(shorter[..18_999].to_string() + "8"), false);
    let decimal = format!("0.{shorter}");
    bounded("decimal of 19,000 digits", &decimal, &shorter, false);
    let list = |skip: usize| (1..=5000usize).map(move |i| (i * 7919 % 100_003 + usize::from(i == skip)).to_string());
    let set = |items: Vec<String>| format!(r"\{{{}\}}", items.join(", "));
    let forward = set(list(0).collect());
    let backward = set(list(0).rev_vec());
    bounded("5,000 elements in another order", &forward, &backward, true);
    bounded("5,000 elements, one changed", &forward, &set(list(77).collect()), false);
    let roots = |n: usize| set((2..n).map(|i| format!(r"\sqrt{{{i}}}+x")).collect());
    bounded("3,000 symbolic elements", &roots(3000), &roots(3000), true);
    let sum = (1..20_000).map(|i| format!("x^{{{i}}}")).collect::<Vec<_>>().join("+");
    bounded("a polynomial of 20,000 terms", &sum, &format!("{sum}+1"), false);
    bounded("many commas", &",".repeat(100_000), "1", false);
    bounded("many relations", &"x<".repeat(20_000), "1", false);
    bounded("many plus-minus", &vec![r"\pm 1"; 5_000].join(","), "1", false);
    bounded("words", &"word ".repeat(30_000), "word", false);
    bounded("harmonic sum", r"\sum_{k=1}^{20000} \frac{1}{k}", "10", false);
    let fractions = (1..4000).map(|i| format!(r"\frac{{1}}{{{}}}", i * 2 + 1)).collect::<Vec<_>>().join("+");
    bounded("sum of 4,000 fractions", &fractions, "1", false);
    bounded("large matrix", &format!(r"\begin{{pmatrix}}{}\end{{pmatrix}}", "1&".repeat(20_000)), "1", false);
}

#[test]
fn one_shape_repeated() {
    for shape in [
        // Scripts that never close, in front of a letter and behind one.
        "{}_{",
        "^{",
        "_{",
        "C_{",
        r"\mathrm{C}_{",
        "{}_5C_",
        "Rs. ",
        "₹1,",
        r"\begin{pmatrix}1&2\end{pmatrix}^T",
        "|",
        "|x",
        "$",
        "$1$,",
        "=",
        "1=",
        "x=",
        ",",
        "1,",
        "[1,",
        r"\{1,",
        "1:",
        "1;",
        "word ",
        "5 word ",
        "ABC ",
        "5 km ",
        r"1^\circ 2'",
        "x'",
        "f(",
        "=f(",
        r"\begin{",
        r"\begin{cases}1&x>1\\",
        r"\\[",
        r"\bar{",
        r"\angle ABC",
        r"p\lor ",
        r"\frac{dy}{",
        "x_{",
        "1.234.",
        "1 000 ",
        r"x\ne 1,",
        r"k\pi, ",
        r"1\mu ",
        "the answer is not ",
        "** ",
    ] {
        let text = shape.repeat(100_000 / shape.len());
        bounded(shape, "7", &text, false);
        bounded(shape, &text, "7", false);
    }
}

#[test]
fn sets_in_sets() {
    fn set(depth: usize, width: usize, number: usize) -> String {
        if depth == 0 {
            return number.to_string();
        }
        let inner: Vec<String> = (0..width).map(|i| set(depth - 1, width, number * width + i)).collect();
        format!(r"\{{{}\}}", inner.join(","))
    }
    for (depth, width) in [(2, 60), (3, 24), (4, 12), (5, 7)] {
        bounded("sets in sets", &set(depth, width, 1), &set(depth, width, 2), false);
    }
}

trait RevVec {
    fn rev_vec(self) -> Vec<String>;
}

impl<I: Iterator<Item = String>> RevVec for I {
    fn rev_vec(self) -> Vec<String> {
        let mut items: Vec<String> = self.collect();
        items.reverse();
        items
    }
}

#[test]
fn completions_made_of_markers() {
    let rule = MathRule::default();
    for text in [
        r"\boxed{".repeat(20_000),
        r"\boxed{}".repeat(20_000),
        r"\boxed".repeat(20_000),
        r"\boxed{1} and ".repeat(20_000),
        "$".repeat(100_000),
        r"\(".repeat(50_000),
        r"\[ \] ".repeat(50_000),
        "answer ".repeat(20_000),
        "The answer is ".repeat(20_000),
        "####".repeat(30_000),
        "A:".repeat(50_000),
        "\n".repeat(100_000),
        "答案".repeat(30_000),
        "<think>".repeat(20_000),
        "\\".repeat(100_000),
        "\u{200b}".repeat(30_000),
        r"\boxed{1} is wrong. ".repeat(5_000),
        r"\(1\),".repeat(16_000),
        "$1$,".repeat(25_000),
        "the answer is not ".repeat(5_000),
        "答案不是".repeat(8_000),
    ] {
        let start = thread_time();
        let verdict = check(&rule, &text, "7");
        assert_ne!(verdict.outcome, crate::schema::Outcome::Correct, "{:.20}", text);
        let took = thread_time() - start;
        assert!(took < Duration::from_millis(250), "{:.20}: {took:?}", text);
    }
}
