//! Shapes of answers: names, constants, the values a list stands for.

use super::super::ast::{Func, Func2, Id, Node, Rel, Sym, hash_name};
use super::super::lex::{is_operator, is_unknown};
use super::super::number::Q;
use super::super::reading::Reading;
use super::super::text;
use super::Val;

/// `\forall x`, `\exists x`.
pub fn is_quantified(r: &Reading, id: Id) -> bool {
    r.arena.any(id, |n| matches!(n, Node::Sym(sym) if matches!(r.arena.name(*sym), "forall" | "exists" | "nexists")))
}

/// Holds an operator that this rule does not work out: ∫, lim, ∇, d/dx.
pub fn is_unevaluated(r: &Reading, id: Id) -> bool {
    // Few answers have such a name at all.
    r.operators && r.arena.any(id, |n| matches!(n, Node::Sym(sym) if is_operator(r.arena.name(*sym))))
}

/// The operations below that nothing is known of: `\star`, `⊕`.
pub fn unknown_operations(r: &Reading, id: Id) -> Vec<Sym> {
    let unknown = |n: &Node| match *n {
        Node::Sym(sym) if is_unknown(r.arena.name(sym)) => Some(sym),
        _ => None,
    };
    let mut operations: Vec<Sym> = match r.operators {
        true => r.arena.subtree(id).iter().filter_map(unknown).collect(),
        false => Vec::new(),
    };
    operations.sort_unstable();
    operations.dedup();
    operations
}

/// A name that a value may be given to: `x`, `f(x)`, words, or a tuple of names.
pub fn is_name(r: &Reading, id: Id) -> bool {
    match *r.node(id) {
        Node::Sym(_) | Node::Text(_) => true,
        Node::Tuple(list) => r.arena.list(list).iter().all(|&id| matches!(r.node(id), Node::Sym(_))),
        // `f^{-1}(x)`
        Node::Call2(Func2::Apply, inverse, argument) if is_inverse(r, inverse) => {
            matches!(r.node(argument), Node::Sym(_))
        }
        // `f(x)` without an equals sign right behind, `P(A)`, `∠ABC`, `a_n b`.
        Node::Mul(..) | Node::Call2(Func2::Apply, ..) => r.arena.subtree(id).iter().all(|n| {
            matches!(n, Node::Sym(_) | Node::Mul(..) | Node::Text(_) | Node::Label(_) | Node::Euler | Node::Imaginary)
                || matches!(n, Node::Call2(Func2::Apply, ..))
        }),
        _ => false,
    }
}

/// What may be an element of a set: a name, or a point by its coordinates' names or with numbers among them.
pub fn is_named(r: &Reading, id: Id) -> bool {
    is_name(r, id)
        || is_quantified(r, id)
        || matches!(r.node(id), Node::Tuple(_) | Node::List(_) | Node::Euler | Node::Imaginary)
}

/// `|AB|`: the length of a segment, named by its ends.
pub fn is_segment(r: &Reading, id: Id) -> bool {
    let Node::Call(Func::Abs, inner) = *r.node(id) else { return false };
    let capital = |n: &Node| match n {
        Node::Sym(sym) => r.arena.name(*sym).starts_with(|c: char| c.is_ascii_uppercase()),
        Node::Mul(..) => true,
        _ => false,
    };
    matches!(r.node(inner), Node::Mul(..)) && r.arena.subtree(inner).iter().all(capital)
}

/// `f(x)` inside a chain: the value of a function.
pub fn is_function_value(r: &Reading, id: Id) -> bool {
    matches!(*r.node(id), Node::Call2(Func2::Apply, function, argument)
        if matches!(r.node(function), Node::Sym(_)) && matches!(r.node(argument), Node::Sym(_)))
}

/// `f^{-1}` of a letter that names functions.
fn is_inverse(r: &Reading, id: Id) -> bool {
    let Node::Pow(base, exponent) = *r.node(id) else { return false };
    matches!(*r.node(base), Node::Sym(sym) if matches!(r.arena.name(sym), "f" | "g" | "h" | "F" | "G"))
        && r.value(exponent).is_some_and(|q| *q == Q::int(-1))
}

/// `x ≠ 2`.
pub fn is_excluded(r: &Reading, id: Id) -> bool {
    matches!(*r.node(id), Node::Chain { operands, rels }
        if r.arena.chain_rels(rels, r.arena.list(operands).len()) == [Rel::Ne])
}

/// Two capitals or more in one word, as points and abbreviations are written.
pub fn is_capitals(r: &Reading, id: Id) -> bool {
    let name = match *r.node(id) {
        Node::Text(index) => r.arena.texts[index as usize].as_str(),
        Node::Sym(sym) => r.arena.name(sym),
        _ => return false,
    };
    name.len() > 1 && name.bytes().all(|b| b.is_ascii_uppercase())
}

/// More words than a name has.
pub fn is_sentence(r: &Reading, id: Id) -> bool {
    matches!(*r.node(id), Node::Text(index) if r.arena.texts[index as usize].split_whitespace().count() > 3)
}

/// Words that take back what stands before them: "12 is wrong".
pub fn denies(r: &Reading, id: Id) -> bool {
    const DENIALS: [&str; 6] = ["wrong", "not", "incorrect", "false", "impossible", "no"];
    let Node::Text(index) = *r.node(id) else { return false };
    let denial = |word: &str| DENIALS.contains(&word.to_lowercase().as_str()) || word.ends_with("n't");
    r.arena.texts[index as usize].split_whitespace().any(denial)
}

/// A lone capital from A to J: the letter of an option.
pub fn option(r: &Reading, id: Id) -> Option<char> {
    let name = match *r.node(id) {
        Node::Sym(sym) => r.arena.name(sym),
        Node::Text(index) => r.arena.texts[index as usize].as_str(),
        _ => return None,
    };
    let mut letters = name.chars();
    letters.next().filter(|c| ('A'..='J').contains(c) && letters.next().is_none())
}

/// What a point is called in front of its coordinates: a capital, or words.
pub fn names_point(r: &Reading, id: Id) -> bool {
    match *r.node(id) {
        Node::Sym(sym) => {
            let name = r.arena.name(sym);
            name.len() == 1 && name.starts_with(|c: char| c.is_ascii_uppercase())
        }
        Node::Label(_) => true,
        _ => false,
    }
}

/// `Some(true)` for ∞, `Some(false)` for −∞.
pub fn infinity(r: &Reading, id: Id) -> Option<bool> {
    match *r.node(id) {
        Node::Infinity => Some(true),
        Node::Neg(a) if *r.node(a) == Node::Infinity => Some(false),
        Node::PlusMinus(a, true) if *r.node(a) == Node::Infinity => Some(true),
        _ => None,
    }
}

/// No free symbol below.
pub fn is_constant(r: &Reading, id: Id) -> bool {
    r.arena.is_scalar(id) && !r.arena.any(id, |n| matches!(n, Node::Sym(_)))
}

/// A polynomial in one letter that is put equal to zero.
pub fn is_equation(r: &Reading, left: Id, right: Id) -> bool {
    let mut letters =
        r.arena.subtree(left).iter().filter_map(|n| if let Node::Sym(sym) = n { Some(*sym) } else { None });
    let Some(letter) = letters.next() else { return false };
    let plain = |n: &Node| {
        matches!(n, Node::Sym(_) | Node::Num(_) | Node::Decimal { .. } | Node::Neg(_) | Node::Add(..) | Node::Sub(..))
            || matches!(n, Node::Mul(..) | Node::Pow(..))
    };
    r.value(right).is_some_and(Q::is_zero)
        && letters.all(|other| other == letter)
        && r.arena.any(left, |n| matches!(n, Node::Add(..) | Node::Sub(..)))
        && r.arena.subtree(left).iter().all(plain)
}

/// A constant with its unit.
pub fn is_quantity(r: &Reading, id: Id) -> bool {
    is_constant(r, id) && r.arena.any(id, |n| matches!(n, Node::Unit(_) | Node::Degree(_) | Node::Percent(_)))
}

/// The one letter that a leaf is, inside a structure.
pub fn letter_of(r: &Reading, id: Id) -> Option<char> {
    let name = match r.node(id) {
        Node::Text(index) => r.arena.texts[*index as usize].as_str(),
        Node::Sym(sym) => r.arena.name(*sym),
        _ => return None,
    };
    let mut letters = name.trim().chars();
    letters.next().filter(|_| letters.next().is_none())
}

/// The text a leaf stands for when compared with words.
pub fn words_of(r: &Reading, id: Id) -> Option<String> {
    match r.node(id) {
        Node::Text(index) => Some(text::normalise(&r.arena.texts[*index as usize])),
        Node::Sym(sym) => Some(text::normalise(r.arena.name(*sym))),
        Node::Imaginary => Some("i".into()),
        Node::Euler => Some("e".into()),
        _ => None,
    }
}

/// `number · letter` or `number · letter²` where the letter is also a unit: its name and power.
pub fn letter_unit(r: &Reading, id: Id) -> Option<(&str, i64)> {
    let Node::Mul(value, unit) = *r.node(id) else { return None };
    let (sym, power) = match *r.node(unit) {
        Node::Sym(sym) => (sym, 1),
        Node::Pow(base, e) => match *r.node(base) {
            Node::Sym(sym) => (sym, r.value(e)?.to_i64()?),
            _ => return None,
        },
        _ => return None,
    };
    let name = r.arena.name(sym);
    // Areas and volumes have powers: 3s² is algebra.
    let unit = matches!(name, "m" | "g" | "s" | "h" | "L" | "J" | "N" | "W" | "V") && (power == 1 || name == "m");
    (is_constant(r, value) && unit).then_some((name, power))
}

/// A matrix and the factor before it.
pub struct Scaled {
    pub rows: u16,
    pub cols: u16,
    pub entries: Vec<Id>,
    /// What multiplies it, whether that divides, and the sign.
    pub factor: Factor,
}

/// What multiplies a matrix: a node, whether it divides instead, and whether the sign flips.
#[derive(Clone, Copy, Debug)]
pub struct Factor {
    pub by: Option<Id>,
    pub divides: bool,
    pub negative: bool,
}

/// `M`, `−M`, `c M`, `M / c`.
pub fn scaled_matrix(r: &Reading, id: Id) -> Option<Scaled> {
    let (id, negative) = match *r.node(id) {
        Node::Neg(inner) => (inner, true),
        _ => (id, false),
    };
    let (id, by, divides) = match *r.node(id) {
        Node::Mul(a, b) if r.arena.is_scalar(a) => (b, Some(a), false),
        Node::Mul(a, b) if r.arena.is_scalar(b) => (a, Some(b), false),
        Node::Div(a, b) if r.arena.is_scalar(b) => (a, Some(b), true),
        _ => (id, None, false),
    };
    match *r.node(id) {
        Node::Matrix { rows, cols, entries } => Some(Scaled {
            rows,
            cols,
            entries: r.arena.list(entries).to_vec(),
            factor: Factor { by, divides, negative },
        }),
        _ => None,
    }
}

/// `[[1, 2], [3, 4]]`: the rows of a matrix, as programs write them.
pub fn nested_rows(r: &Reading, id: Id) -> Option<((usize, usize), Vec<Id>)> {
    let items = |id: Id| match *r.node(id) {
        Node::Interval { lo, hi, closed: (true, true) } => Some(vec![lo, hi]),
        Node::Tuple(list) => Some(r.arena.list(list).to_vec()),
        _ => None,
    };
    let rows: Vec<Vec<Id>> = items(id)?.into_iter().map(items).collect::<Option<_>>()?;
    let cols = rows.first()?.len();
    let regular = rows.iter().all(|row| row.len() == cols && row.iter().all(|&id| r.arena.is_scalar(id)));
    regular.then(|| ((rows.len(), cols), rows.concat()))
}

/// Says only which numbers a parameter runs over: "n ∈ ℤ", "any integer k".
pub fn is_proviso(r: &Reading, id: Id) -> bool {
    match *r.node(id) {
        Node::Chain { operands, rels } => {
            let ids = r.arena.list(operands);
            let numbers = |id: Id| match *r.node(id) {
                Node::Numbers(_) => true,
                Node::Sym(sym) => matches!(r.arena.name(sym), "positive integers" | "Integers*" | "Naturals*"),
                _ => false,
            };
            ids.len() == 2 && r.arena.chain_rels(rels, 2) == [Rel::In] && numbers(ids[1])
        }
        Node::Text(index) => {
            let words = &r.arena.texts[index as usize];
            words.contains("integer") || words.contains("constant") || words.starts_with("where")
        }
        _ => false,
    }
}

/// The values of a list, set or single scalar, each ± taken both ways.
pub fn values(r: &Reading, id: Id) -> Vec<Val> {
    let mut out = Vec::new();
    let single = [id];
    let ids: &[Id] = match *r.node(id) {
        Node::List(list) | Node::Set(list) => r.arena.list(list),
        _ => &single,
    };
    for &item in ids {
        if ids.len() > 1 && is_proviso(r, item) {
            continue;
        }
        let item = unname(r, item);
        match *r.node(item) {
            Node::List(list) | Node::Set(list) if ids.len() > 1 && matches!(r.node(id), Node::List(_)) => {
                out.extend(r.arena.list(list).iter().map(|&id| Val::of(id)));
            }
            _ if r.arena.any(item, |n| matches!(n, Node::PlusMinus(..))) && r.arena.is_scalar(item) => {
                out.push(Val { id: item, sign: true });
                out.push(Val { id: item, sign: false });
            }
            _ => out.push(Val::of(item)),
        }
    }
    out
}

/// The letter whose values a list gives: the x of "x = 1, 2" and of "x_1 = 1, x_2 = 2".
pub fn unknown(r: &Reading, id: Id) -> Option<&str> {
    let first = match *r.node(id) {
        Node::List(list) | Node::All(list) => *r.arena.list(list).first()?,
        _ => return None,
    };
    let Node::Chain { operands, rels } = *r.node(first) else { return None };
    let ids = r.arena.list(operands);
    match (r.arena.chain_rels(rels, ids.len()), r.node(ids[0])) {
        ([Rel::Eq], Node::Sym(sym)) => r.arena.name(*sym).split(['_', '(']).next(),
        // "2x = 1, 2" gives x no values.
        ([Rel::Eq], _) => {
            let reckoned = r.arena.is_scalar(ids[0]) && !is_constant(r, ids[0]) && !is_name(r, ids[0]);
            reckoned.then_some("")
        }
        _ => None,
    }
}

/// The value of `name = value`; anything else as it is.
pub fn unname(r: &Reading, id: Id) -> Id {
    if let Node::Chain { operands, rels } = *r.node(id) {
        let ids = r.arena.list(operands);
        if r.arena.chain_rels(rels, ids.len()).iter().all(|k| *k == Rel::Eq) && is_name(r, ids[0]) {
            return *ids.last().expect("a chain has two operands or more");
        }
    }
    id
}

/// The values of `x_1 = 2, x_2 = 3`: one letter, numbered.
pub fn numbered(r: &Reading, id: Id) -> Option<Vec<Val>> {
    if !matches!(r.node(id), Node::All(_)) {
        return None;
    }
    let pairs = named(r, id)?;
    let letter = |sym: Sym| r.arena.name(sym).split_once('_').map(|(letter, _)| letter.to_string());
    let first = letter(pairs.first()?.0)?;
    let same = pairs.iter().all(|&(sym, _)| letter(sym).is_some_and(|l| l == first));
    same.then(|| pairs.into_iter().map(|(_, id)| Val::of(id)).collect())
}

/// What a name is called; `AB` is read as a product and called by its letters.
fn name_of(r: &Reading, id: Id) -> Option<Sym> {
    match *r.node(id) {
        Node::Sym(sym) => Some(sym),
        Node::Mul(..) | Node::Call2(Func2::Apply, ..) if is_name(r, id) => {
            let letters = r.arena.subtree(id).iter().filter_map(|n| match n {
                Node::Sym(sym) => Some(r.arena.name(*sym)),
                _ => None,
            });
            Some(hash_name(&letters.collect::<String>()))
        }
        _ => None,
    }
}

/// `x = 1, y = 2` or `(x, y) = (1, 2)`: names with their values.
pub fn named(r: &Reading, id: Id) -> Option<Vec<(Sym, Id)>> {
    let pair = |id: Id| -> Option<Vec<(Sym, Id)>> {
        let Node::Chain { operands, rels } = *r.node(id) else { return None };
        let ids = r.arena.list(operands);
        if !r.arena.chain_rels(rels, ids.len()).iter().all(|k| *k == Rel::Eq) {
            return None;
        }
        let last = *ids.last()?;
        if let Node::Tuple(names) = *r.node(ids[0])
            && let Node::Tuple(values) = *r.node(last)
        {
            let (names, values) = (r.arena.list(names), r.arena.list(values));
            if names.len() != values.len() {
                return None;
            }
            return names
                .iter()
                .zip(values)
                .map(|(&n, &v)| match *r.node(n) {
                    Node::Sym(sym) => Some((sym, v)),
                    _ => None,
                })
                .collect();
        }
        // "x = y = 4" names both.
        ids[..ids.len() - 1].iter().map(|&n| Some((name_of(r, n)?, last))).collect()
    };
    match *r.node(id) {
        Node::All(list) => {
            let mut all = Vec::new();
            for &id in r.arena.list(list) {
                all.extend(pair(id)?);
            }
            Some(all)
        }
        Node::Chain { .. } => pair(id),
        _ => None,
    }
}
