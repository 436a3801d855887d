//! Whole questions searched for inside prompts: those with fewer words than an n-gram.
//!
//! A question is the run of all its tokens, operators included: `Compute 3+5` is not in
//! `Compute 3-5`. A run that goes on as an expression (`2+2` in `1+2+2`) is another question.

use std::collections::HashMap;

use super::Indexed;
use super::bloom::{Bloom, Prehashed};
use crate::prompts::hash::fold;
use crate::prompts::normal::{Normal, Token, TokenKind};

/// Fewer tokens than this are matched only where they are the whole prompt.
pub(super) const HEAD: usize = 3;

/// Runs by the hash of all their tokens; how long runs may be is known by their first [`HEAD`] tokens.
#[derive(Default)]
pub(super) struct Runs {
    filter: Option<Bloom>,
    lengths: HashMap<u64, Vec<usize>, Prehashed>,
    rows: HashMap<u64, Vec<u32>, Prehashed>,
    powers: Vec<u64>,
}

const BASE: u64 = 0x9e37_79b9_7f4a_7c15;

/// Hashes of all beginnings of a token list, from which any window's follows in one step.
struct Beginnings(Vec<u64>);

impl Beginnings {
    fn of(tokens: &[Token]) -> Beginnings {
        let mut hashes = Vec::with_capacity(tokens.len() + 1);
        hashes.push(0u64);
        for token in tokens {
            hashes.push(hashes[hashes.len() - 1].wrapping_mul(BASE).wrapping_add(token.hash));
        }
        Beginnings(hashes)
    }

    #[inline]
    fn window(&self, at: usize, length: usize, powers: &[u64]) -> u64 {
        let state = self.0[at + length].wrapping_sub(self.0[at].wrapping_mul(powers[length]));
        fold(state ^ length as u64, BASE)
    }
}

impl Runs {
    /// Indexes these rows, each of at least [`HEAD`] tokens.
    pub fn new(rows: &[Indexed], wanted: &[u32]) -> Runs {
        if wanted.is_empty() {
            return Runs::default();
        }
        let longest = wanted.iter().map(|&row| rows[row as usize].normal.tokens.len()).max().unwrap_or(HEAD).max(HEAD);
        let mut runs = Runs {
            filter: None,
            lengths: HashMap::default(),
            rows: HashMap::default(),
            powers: std::iter::successors(Some(1u64), |power| Some(power.wrapping_mul(BASE)))
                .take(longest + 1)
                .collect(),
        };
        let mut filter = Bloom::new(wanted.len());
        for &row in wanted {
            let tokens = &rows[row as usize].normal.tokens;
            let beginnings = Beginnings::of(tokens);
            let head = beginnings.window(0, HEAD, &runs.powers);
            filter.insert(head);
            let lengths = runs.lengths.entry(head).or_default();
            if !lengths.contains(&tokens.len()) {
                lengths.push(tokens.len());
            }
            runs.rows.entry(beginnings.window(0, tokens.len(), &runs.powers)).or_default().push(row);
        }
        runs.filter = Some(filter);
        runs
    }

    /// Calls `visit` with every row whose question stands in the text as a whole, and the tokens it has there.
    pub fn each(&self, rows: &[Indexed], normal: &Normal, mut visit: impl FnMut(u32, &[Token])) {
        let (Some(filter), tokens) = (&self.filter, &normal.tokens[..]) else { return };
        if tokens.len() < HEAD {
            return;
        }
        let beginnings = Beginnings::of(tokens);
        for at in 0..=tokens.len() - HEAD {
            let head = beginnings.window(at, HEAD, &self.powers);
            if !filter.may_hold(head) {
                continue;
            }
            let Some(lengths) = self.lengths.get(&head) else { continue };
            for &length in lengths.iter().filter(|&&length| at + length <= tokens.len()) {
                let Some(found) = self.rows.get(&beginnings.window(at, length, &self.powers)) else { continue };
                let ours = &tokens[at..at + length];
                if goes_on(normal, at, length) {
                    continue;
                }
                for &row in found {
                    let theirs = &rows[row as usize].normal;
                    let same = |(a, b): (&Token, &Token)| normal.slice(a, a) == theirs.slice(b, b);
                    if theirs.tokens.len() == length && ours.iter().zip(&theirs.tokens).all(same) {
                        visit(row, ours);
                    }
                }
            }
        }
    }
}

/// Whether an expression at an end of this run goes on beyond it.
fn goes_on(normal: &Normal, at: usize, length: usize) -> bool {
    let tokens = &normal.tokens;
    let text = |index: usize| tokens.get(index).map(|token| normal.slice(token, token));
    let kind = |index: usize| tokens.get(index).map(|token| token.kind);
    // A number, a variable or a sign: what an operator can bind to.
    let term = |index: usize| match kind(index) {
        Some(TokenKind::Number | TokenKind::Operator) => true,
        Some(TokenKind::Word) => text(index).is_some_and(|word| word.chars().nth(1).is_none()),
        _ => false,
    };
    let operator = |index: usize| kind(index) == Some(TokenKind::Operator);
    let end = at + length;
    if operator(end) && term(end - 1) {
        let sign = text(end).unwrap_or("");
        // Bold and rules of Markdown are doubled signs.
        let markdown = text(end + 1) == Some(sign);
        if matches!(sign, "!" | "%" | "^" | "'") || !markdown && term(end + 1) {
            return true;
        }
    }
    at >= 2 && operator(at - 1) && term(at) && text(at - 2) != text(at - 1) && term(at - 2)
}
