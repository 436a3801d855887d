//! Remainders: of a sum, of a product and sum, of a power, and inverses.

use super::language::Phrases;
use super::{Language, Problem};
use crate::seed::Rng;

const REMAINDERS: Phrases = Phrases {
    en: &[
        "What is the remainder when {e} is divided by {m}?",
        "Find ({e}) mod {m}.",
        "Compute the remainder of {e} modulo {m}.",
    ],
    fr: &[
        "Quel est le reste de la division de {e} par {m} ?",
        "Calcule le reste de {e} modulo {m}.",
        "Trouve le reste de {e} divisé par {m}.",
    ],
    zh: &["{e}除以{m}的余数是多少？", "求{e}除以{m}所得的余数。", "计算{e}模{m}的余数。"],
    de: &["Welcher Rest bleibt, wenn man {e} durch {m} teilt?", "Bestimme den Rest von {e} modulo {m}."],
    es: &["¿Cuál es el resto de dividir {e} entre {m}?", "Halla el resto de {e} módulo {m}."],
};

const INVERSES: Phrases = Phrases {
    en: &[
        "Find the smallest positive integer x such that {a}x leaves remainder {r} when divided by {m}.",
        "What is the smallest positive integer x for which {a}x has remainder {r} modulo {m}?",
    ],
    fr: &[
        "Trouve le plus petit entier positif x tel que {a}x ait pour reste {r} dans la division par {m}.",
        "Quel est le plus petit entier positif x pour lequel {a}x a pour reste {r} modulo {m} ?",
    ],
    zh: &["求最小的正整数x，使得{a}x除以{m}余{r}。", "最小的正整数x是多少，才能使{a}x除以{m}的余数为{r}？"],
    de: &["Finde die kleinste positive ganze Zahl x, sodass {a}x bei Division durch {m} den Rest {r} lässt."],
    es: &["Halla el menor entero positivo x tal que {a}x deje resto {r} al dividirlo entre {m}."],
};

/// `42 = 5 × 8 + 2`: the remainder shown as the division that gives it.
fn division(value: i64, modulus: i64) -> String {
    format!("{value} = {} × {modulus} + {}", value / modulus, value % modulus)
}

/// Generator `modular`.
pub(super) fn draw(rng: &mut Rng, level: u32, language: Language) -> Problem {
    if level == 4 {
        return inverse(rng, language);
    }
    let (expression, modulus, steps, value) = match level {
        1 => {
            let (a, b, m) = (rng.between(10, 199), rng.between(10, 199), rng.between(3, 19));
            let sum = a + b;
            (format!("{a} + {b}"), m, vec![format!("{a} + {b} = {sum}"), division(sum, m)], sum % m)
        }
        2 => {
            let (a, b, c, m) = (rng.between(11, 99), rng.between(11, 99), rng.between(11, 499), rng.between(5, 29));
            let (ra, rb) = (a % m, b % m);
            let total = ra * rb + c;
            let steps =
                vec![division(a, m), division(b, m), format!("{ra} × {rb} + {c} = {total}"), division(total, m)];
            (format!("{a} × {b} + {c}"), m, steps, total % m)
        }
        _ => {
            let (base, power, m) = (rng.between(2, 40), rng.between(4, 40), rng.between(5, 60));
            let (mut steps, value) = power_chain(base, power, m);
            steps.insert(0, division(base, m));
            (format!("{base}^{power}"), m, steps, value)
        }
    };
    let question = REMAINDERS.say(rng, language, &[("e", &expression), ("m", &modulus)]);
    let gold = value.to_string();
    Problem::exact(format!("modular:{expression} mod {modulus}"), question, gold.as_str())
        .with_chain(language.chain(&steps, &gold))
}

/// Left-to-right binary powers, each step reduced.
fn power_chain(base: i64, power: i64, modulus: i64) -> (Vec<String>, i64) {
    let base = base % modulus;
    let mut value = base;
    let mut steps = Vec::new();
    let bits = 63 - power.leading_zeros();
    for bit in (0..bits).rev() {
        steps.push(format!("{value} × {value} = {}", division(value * value, modulus)));
        value = value * value % modulus;
        if power >> bit & 1 == 1 {
            steps.push(format!("{value} × {base} = {}", division(value * base, modulus)));
            value = value * base % modulus;
        }
    }
    (steps, value)
}

fn inverse(rng: &mut Rng, language: Language) -> Problem {
    let (a, m, x) = loop {
        let m = rng.between(7, 60);
        let (a, x) = (rng.between(2, 2 * m), rng.between(2, m - 1));
        // Coprime, so that there is exactly one x below the modulus.
        if gcd(a, m) == 1 && a % m != 1 {
            break (a, m, x);
        }
    };
    let r = a * x % m;
    let question = INVERSES.say(rng, language, &[("a", &a), ("r", &r), ("m", &m)]);
    // The inverse by Euclid's algorithm, then x = inverse × r.
    let mut steps = Vec::new();
    let (mut high, mut low) = (m, a % m);
    if a > m {
        steps.push(division(a, m));
    }
    while low != 0 {
        steps.push(division(high, low));
        (high, low) = (low, high % low);
    }
    let reduced = a % m;
    let inverse = (1..m).find(|candidate| reduced * candidate % m == 1).expect("coprime numbers have an inverse");
    steps.push(format!("{reduced} × {inverse} = {}", division(reduced * inverse, m)));
    steps.push(format!("{inverse} × {r} = {}", division(inverse * r, m)));
    let gold = x.to_string();
    Problem::exact(format!("modular:{a}x = {r} mod {m}"), question, gold.as_str())
        .with_chain(language.chain(&steps, &gold))
}

fn gcd(a: i64, b: i64) -> i64 {
    if b == 0 { a } else { gcd(b, a % b) }
}
