//! An evaluator of equations as a reader sees them, exact over fractions.

/// A fraction in lowest terms, denominator positive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Fraction(pub i128, pub i128);

impl Fraction {
    fn new(top: i128, bottom: i128) -> Option<Fraction> {
        fn gcd(a: i128, b: i128) -> i128 {
            if b == 0 { a.abs() } else { gcd(b, a % b) }
        }
        let by = gcd(top, bottom);
        (bottom != 0).then(|| Fraction(top / by * bottom.signum(), bottom.abs() / by))
    }
}

struct Parser {
    chars: Vec<char>,
    at: usize,
    x: Option<i64>,
}

impl Parser {
    fn peek(&self) -> Option<char> {
        self.chars.get(self.at).copied()
    }

    fn sum(&mut self) -> Option<Fraction> {
        let mut left = self.product()?;
        while let Some(sign @ ('+' | '-')) = self.peek() {
            self.at += 1;
            let right = self.product()?;
            let by = if sign == '+' { 1 } else { -1 };
            left = Fraction::new(left.0 * right.1 + by * right.0 * left.1, left.1 * right.1)?;
        }
        Some(left)
    }

    fn product(&mut self) -> Option<Fraction> {
        let mut left = self.signed()?;
        loop {
            let divide = match self.peek() {
                Some('*' | '×') => false,
                Some('/' | '÷') => true,
                Some('x' | '(') => {
                    let right = self.signed()?;
                    left = Fraction::new(left.0 * right.0, left.1 * right.1)?;
                    continue;
                }
                _ => return Some(left),
            };
            self.at += 1;
            let right = self.signed()?;
            left = if divide {
                Fraction::new(left.0 * right.1, left.1 * right.0)?
            } else {
                Fraction::new(left.0 * right.0, left.1 * right.1)?
            };
        }
    }

    fn signed(&mut self) -> Option<Fraction> {
        if self.peek() == Some('-') {
            self.at += 1;
            let value = self.product()?;
            return Some(Fraction(-value.0, value.1));
        }
        match self.peek()? {
            '(' => {
                self.at += 1;
                let value = self.sum()?;
                (self.peek()? == ')').then(|| self.at += 1)?;
                Some(value)
            }
            'x' => {
                self.at += 1;
                Some(Fraction(self.x?.into(), 1))
            }
            digit if digit.is_ascii_digit() => {
                let start = self.at;
                while self.peek().is_some_and(|c| c.is_ascii_digit()) {
                    self.at += 1;
                }
                let number: String = self.chars[start..self.at].iter().collect();
                Some(Fraction(number.parse().ok()?, 1))
            }
            _ => None,
        }
    }
}

/// The value of an expression; `None` if it is not one.
pub(super) fn evaluate(text: &str, x: Option<i64>) -> Option<Fraction> {
    let chars: Vec<char> = text.chars().filter(|c| !c.is_whitespace()).collect();
    let mut parser = Parser { chars, at: 0, x };
    let value = parser.sum()?;
    (parser.at == parser.chars.len()).then_some(value)
}

/// The parts of a line that are equations: runs of mathematical signs with an equals sign.
pub(super) fn equations(line: &str) -> Vec<String> {
    let mathematical = |c: char| c.is_ascii_digit() || " x+-*/×÷()=".contains(c);
    line.split(|c| !mathematical(c))
        .map(str::trim)
        .filter(|run| {
            run.contains('=') && run.split('=').all(|side| side.contains(|c: char| c.is_ascii_digit() || c == 'x'))
        })
        .map(str::to_owned)
        .collect()
}

/// True if all sides of the equation have one value.
pub(super) fn equation_holds(equation: &str, x: Option<i64>) -> bool {
    let sides: Vec<Option<Fraction>> = equation.split('=').map(|side| evaluate(side, x)).collect();
    sides[0].is_some() && sides.iter().all(|side| *side == sides[0])
}

#[test]
fn the_evaluator_knows_precedence_brackets_and_implied_products() {
    for (text, value) in
        [("2 + 3 × 4", 14), ("(2 + 3) × 4", 20), ("20 - 6 - 4", 10), ("-3 + 5", 2), ("2(x - 1) + 3x", 13)]
    {
        assert_eq!(evaluate(text, Some(3)), Some(Fraction(value, 1)), "{text}");
    }
    assert_eq!(evaluate("12 ÷ 8", None), Some(Fraction(3, 2)));
    assert!(evaluate("2 +", None).is_none() && evaluate("1 / 0", None).is_none());
    assert!(!equation_holds("2 + 2 = 5", None) && equation_holds("7 = 2 × 3 + 1", None));
}
