//! Logic puzzles with exactly one solution.
//!
//! Knights and knaves (2 to 5 people) and finishing orders (3 to 6 people) are
//! proven unique by enumeration; syllogisms over 3 or 4 terms are decided exactly.

mod knights;
mod ordering;
mod syllogism;

pub(super) use knights::draw_knights;
pub(super) use ordering::draw_ordering;
pub(super) use syllogism::draw_syllogism;

use super::Language;
use crate::seed::Rng;

const NAMES: [[&str; 3]; 6] = [
    ["Paul", "Paul", "小明"],
    ["Mark", "Marc", "小刚"],
    ["Hugo", "Hugo", "小强"],
    ["Oscar", "Oscar", "小华"],
    ["Leo", "Léo", "小军"],
    ["Simon", "Simon", "小伟"],
];

fn name(index: usize, language: Language) -> &'static str {
    let [en, fr, zh] = NAMES[index];
    language.of3(en, fr, zh)
}

/// Who plays which part: the first `count` of a shuffle of [`NAMES`].
fn cast(rng: &mut Rng, count: usize) -> Vec<usize> {
    let mut all: Vec<usize> = (0..NAMES.len()).collect();
    rng.shuffle(&mut all);
    all.truncate(count);
    all
}

fn names(people: &[usize], cast: &[usize], language: Language) -> String {
    language.list(&people.iter().map(|person| name(cast[*person], language)).collect::<Vec<_>>())
}
