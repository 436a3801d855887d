//! Reward expressions: meval's syntax over rule scores and facts, compiled once.
//!
//! meval parses and orders the expression; its postfix tokens are then lowered to
//! a small program over numbered slots, so a reward costs no lookup and no
//! allocation. Beside meval's functions there are comparisons and choices:
//! `if eq ne lt le gt ge and or not clamp first`.
//!
//! NaN stands for "not known" and every operation hands it on (meval's own `max`,
//! `min` and `^` would swallow it); only `if`, which looks at the branch it
//! takes, and `first`, which takes the first known score, can drop it.

mod compile;

use std::ops::Range;

use meval::tokenizer::Operation;

/// Longest expression in bytes.
pub const MAX_TEXT: usize = 4096;
/// Deepest nesting of parentheses.
pub const MAX_NESTING: usize = 64;
/// Most values alive at once while evaluating.
const MAX_STACK: usize = 128;

/// What is wrong with an expression, and where in its text.
#[derive(Clone, Debug, PartialEq)]
pub struct ExpressionError {
    /// For people, without the place.
    pub message: String,
    /// Byte range in the expression's text.
    pub span: Range<usize>,
    /// What to write instead, where that is known.
    pub hint: Option<String>,
}

/// A compiled reward expression.
#[derive(Clone, Debug)]
pub struct Expression {
    ops: Vec<Op>,
    /// Slots read, ascending, each once.
    uses: Vec<usize>,
    /// Slots read outside `first(…)` and `if(…)`: those must be known for the reward to be.
    needs: Vec<usize>,
    text: String,
}

#[derive(Clone, Copy, Debug)]
enum Op {
    Number(f64),
    Slot(usize),
    Negate,
    Binary(Operation),
    Call(Function, usize),
}

#[derive(Clone, Copy, Debug)]
enum Function {
    Real(fn(f64) -> f64),
    Pair(fn(f64, f64) -> f64),
    Max,
    Min,
    If,
    Clamp,
    First,
}

/// Name, arguments (least, most), meaning.
const FUNCTIONS: &[(&str, usize, usize, Function, &str)] = &[
    ("sqrt", 1, 1, Function::Real(f64::sqrt), "square root"),
    ("exp", 1, 1, Function::Real(f64::exp), "e to the power"),
    ("ln", 1, 1, Function::Real(f64::ln), "natural logarithm"),
    ("abs", 1, 1, Function::Real(f64::abs), "absolute value"),
    ("sin", 1, 1, Function::Real(f64::sin), "sine"),
    ("cos", 1, 1, Function::Real(f64::cos), "cosine"),
    ("tan", 1, 1, Function::Real(f64::tan), "tangent"),
    ("asin", 1, 1, Function::Real(f64::asin), "inverse sine"),
    ("acos", 1, 1, Function::Real(f64::acos), "inverse cosine"),
    ("atan", 1, 1, Function::Real(f64::atan), "inverse tangent"),
    ("sinh", 1, 1, Function::Real(f64::sinh), "hyperbolic sine"),
    ("cosh", 1, 1, Function::Real(f64::cosh), "hyperbolic cosine"),
    ("tanh", 1, 1, Function::Real(f64::tanh), "hyperbolic tangent"),
    ("asinh", 1, 1, Function::Real(f64::asinh), "inverse hyperbolic sine"),
    ("acosh", 1, 1, Function::Real(f64::acosh), "inverse hyperbolic cosine"),
    ("atanh", 1, 1, Function::Real(f64::atanh), "inverse hyperbolic tangent"),
    ("floor", 1, 1, Function::Real(f64::floor), "largest integer not above"),
    ("ceil", 1, 1, Function::Real(f64::ceil), "least integer not below"),
    ("round", 1, 1, Function::Real(f64::round), "nearest integer, halves away from 0"),
    ("signum", 1, 1, Function::Real(f64::signum), "sign: -1 or 1"),
    ("atan2", 2, 2, Function::Pair(f64::atan2), "angle of the point (x, y), as atan2(y, x)"),
    ("max", 1, 64, Function::Max, "largest of its arguments"),
    ("min", 1, 64, Function::Min, "least of its arguments"),
    ("not", 1, 1, Function::Real(|x| flag(x == 0.0)), "1 if 0, else 0"),
    ("eq", 2, 2, Function::Pair(|a, b| flag(a == b)), "1 if equal"),
    ("ne", 2, 2, Function::Pair(|a, b| flag(a != b)), "1 if not equal"),
    ("lt", 2, 2, Function::Pair(|a, b| flag(a < b)), "1 if less"),
    ("le", 2, 2, Function::Pair(|a, b| flag(a <= b)), "1 if less or equal"),
    ("gt", 2, 2, Function::Pair(|a, b| flag(a > b)), "1 if greater"),
    ("ge", 2, 2, Function::Pair(|a, b| flag(a >= b)), "1 if greater or equal"),
    ("and", 2, 2, Function::Pair(|a, b| flag(a != 0.0 && b != 0.0)), "1 if neither is 0"),
    ("or", 2, 2, Function::Pair(|a, b| flag(a != 0.0 || b != 0.0)), "1 if one is not 0"),
    ("if", 3, 3, Function::If, "if(c, a, b): a where c is not 0, else b"),
    ("clamp", 3, 3, Function::Clamp, "clamp(x, low, high)"),
    ("first", 1, 64, Function::First, "the first rule score that is known: first(math, judge)"),
];

const CONSTANTS: &[(&str, f64)] = &[("pi", std::f64::consts::PI), ("e", std::f64::consts::E)];

fn flag(condition: bool) -> f64 {
    f64::from(u8::from(condition))
}

/// Whether a name means something in every expression, so that no rule may take it.
pub fn is_reserved(name: &str) -> bool {
    FUNCTIONS.iter().any(|f| f.0 == name) || CONSTANTS.iter().any(|c| c.0 == name)
}

/// Every function with its meaning, for the reference.
pub fn functions() -> impl Iterator<Item = (&'static str, &'static str)> {
    FUNCTIONS.iter().map(|f| (f.0, f.4))
}

impl Expression {
    /// Evaluates over the slots; NaN is "not known". Never panics when `slots` covers every name.
    pub fn eval(&self, slots: &[f64]) -> f64 {
        let mut stack = [0.0f64; MAX_STACK];
        let mut top = 0;
        for &op in &self.ops {
            let (value, takes) = match op {
                Op::Number(value) => (value, 0),
                Op::Slot(slot) => (slots[slot], 0),
                Op::Negate => (-stack[top - 1], 1),
                Op::Binary(operation) => (binary(operation, stack[top - 2], stack[top - 1]), 2),
                Op::Call(function, count) => (call(function, &stack[top - count..top]), count),
            };
            top -= takes;
            stack[top] = value;
            top += 1;
        }
        stack[0]
    }

    /// Slots the expression reads, ascending.
    pub fn uses(&self) -> &[usize] {
        &self.uses
    }

    /// Slots that must be known for the result to be known, ascending.
    pub fn needs(&self) -> &[usize] {
        &self.needs
    }

    /// The text it was compiled from.
    pub fn text(&self) -> &str {
        &self.text
    }
}

fn binary(operation: Operation, a: f64, b: f64) -> f64 {
    match operation {
        Operation::Plus => a + b,
        Operation::Minus => a - b,
        Operation::Times => a * b,
        Operation::Div => a / b,
        Operation::Rem => a % b,
        // powf gives 1 for NaN^0 and 1^NaN.
        Operation::Pow if a.is_nan() || b.is_nan() => f64::NAN,
        Operation::Pow => a.powf(b),
    }
}

fn call(function: Function, arguments: &[f64]) -> f64 {
    let unknown = || arguments.iter().any(|a| a.is_nan());
    match function {
        Function::First => arguments.iter().copied().find(|a| !a.is_nan()).unwrap_or(f64::NAN),
        Function::If if arguments[0].is_nan() => f64::NAN,
        Function::If => arguments[if arguments[0] != 0.0 { 1 } else { 2 }],
        _ if unknown() => f64::NAN,
        Function::Real(f) => f(arguments[0]),
        Function::Pair(f) => f(arguments[0], arguments[1]),
        Function::Max => arguments.iter().copied().fold(f64::NEG_INFINITY, f64::max),
        Function::Min => arguments.iter().copied().fold(f64::INFINITY, f64::min),
        Function::Clamp => arguments[0].max(arguments[1]).min(arguments[2]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn eval(text: &str, slots: &[(&str, f64)]) -> f64 {
        let names: Vec<&str> = slots.iter().map(|s| s.0).collect();
        let values: Vec<f64> = slots.iter().map(|s| s.1).collect();
        Expression::compile(text, &names).unwrap().eval(&values)
    }

    fn fails(text: &str, names: &[&str]) -> ExpressionError {
        Expression::compile(text, names).unwrap_err()
    }

    #[test]
    fn gates_and_weights() {
        assert_eq!(
            eval("accuracy * format + 0.5 * language", &[("accuracy", 1.0), ("format", 1.0), ("language", 0.5)]),
            1.25
        );
        assert_eq!(eval("if(ge(tokens, 100), -1, accuracy)", &[("tokens", 120.0), ("accuracy", 1.0)]), -1.0);
        assert_eq!(eval("-2^2", &[]), -4.0);
    }

    #[test]
    fn what_is_not_known_stays_not_known() {
        for text in ["0 * x", "max(x, 1)", "min(1, x)", "x ^ 0", "1 ^ x", "clamp(x, 0, 1)", "and(x, 0)", "if(x, 1, 1)"]
        {
            assert!(eval(text, &[("x", f64::NAN)]).is_nan(), "{text}");
        }
        assert_eq!(eval("first(x, y)", &[("x", f64::NAN), ("y", 0.5)]), 0.5);
        assert_eq!(eval("if(y, y, x)", &[("x", f64::NAN), ("y", 0.5)]), 0.5);
    }

    #[test]
    fn a_mistyped_name_is_pointed_at_with_a_suggestion() {
        let error = fails("acuracy * format", &["accuracy", "format"]);
        assert_eq!(error.span, 0..7);
        assert_eq!(error.hint.as_deref(), Some("did you mean `accuracy`?"));
        assert!(fails("maxx(1, 2)", &[]).hint.unwrap().contains("`max`"));
    }

    #[test]
    fn traps_of_the_parser_are_errors_not_panics() {
        for text in
            ["", "   ", "\n", "1 +", "(1", "1)", "a b", "1e", "f(", "max()", "1,2", "@", "é", "1..2", "first(1+1)"]
        {
            let error = fails(text, &["a", "b", "f"]);
            assert!(error.span.end <= text.len(), "{text:?} {error:?}");
        }
        assert!(fails(&"(".repeat(3000), &[]).message.contains("nested"));
        assert!(fails(&"1+".repeat(3000), &[]).message.contains("limit"));
        assert!(fails("1/0", &[]).message.contains("finite"));
        assert!(fails("1/0 * a", &["a"]).message.contains("finite"));
        assert!(fails("a / (b - b)", &["a", "b"]).message.contains("finite"));
        assert!(Expression::compile("a / (b - 1)", &["a", "b"]).is_ok());
        assert!(fails("a == 1", &["a"]).hint.unwrap().contains("functions"));
        let ladder = format!("{}1{}", "1+(".repeat(63), ")".repeat(63));
        assert!(Expression::compile(&ladder, &[]).is_ok());
    }

    #[test]
    fn needs_leave_out_what_a_branch_may_not_take() {
        let e = Expression::compile("first(a, b) * c + if(d, a, b)", &["a", "b", "c", "d"]).unwrap();
        assert_eq!(e.needs(), [2, 3]);
        assert_eq!(e.uses(), [0, 1, 2, 3]);
    }

    proptest! {
        #[test]
        fn any_text_compiles_or_is_an_error(text in "[a-c0-9 +*/^%(),.e-]{0,40}") {
            if let Ok(e) = Expression::compile(&text, &["a", "b", "c"]) {
                let ours = e.eval(&[0.5, 2.0, -1.0]);
                let theirs = meval::eval_str_with_context(text.trim(), (vec![("a", 0.5), ("b", 2.0), ("c", -1.0)], meval::Context::new()));
                if let Ok(theirs) = theirs {
                    prop_assert!(ours == theirs || ours.is_nan() || theirs.is_nan(), "{text}: {ours} {theirs}");
                }
            }
        }
    }
}
