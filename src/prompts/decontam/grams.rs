//! n-grams of evaluation questions, and where they stand.

use std::collections::{BTreeMap, HashMap};

use super::bloom::{Bloom, Prehashed};
use super::{Indexed, SetReport};
use crate::prompts::hash::rolling;

/// n-gram hash to its places, behind a filter that turns most misses away.
pub(super) struct Grams {
    pub n: usize,
    filter: Bloom,
    heads: HashMap<u64, u32, Prehashed>,
    places: Vec<Place>,
}

/// An n-gram of a row.
#[derive(Clone, Copy)]
pub(super) struct Place {
    pub row: u32,
    /// Index of its first token among the row's plain ones.
    pub at: u32,
    /// The next place of the same hash, in order of rows; [`END`] ends.
    next: u32,
}

const END: u32 = u32::MAX;
/// So many rows of a set have an n-gram before it may count as common.
const COMMON_ROWS: u32 = 4;

impl Grams {
    /// Indexes the n-grams of these rows. What more than `common` of a set's rows have is left out, and
    /// told in the set's report.
    pub fn new(n: usize, common: f64, rows: &[Indexed], wanted: &[u32], reports: &mut [SetReport]) -> Self {
        let mut found: Vec<(u64, Place)> = Vec::new();
        for &index in wanted {
            let hashes: Vec<u64> = rows[index as usize].plain.iter().map(|token| token.hash).collect();
            rolling(&hashes, n, |at, hash| found.push((hash, Place { row: index, at: at as u32, next: END })));
        }
        let left_out = common_grams(n, common, rows, &found, reports);
        let mut grams = Grams { n, filter: Bloom::new(found.len()), heads: HashMap::default(), places: Vec::new() };
        // Backwards, so that a chain runs from the first place to the last.
        for (hash, mut place) in found.into_iter().rev() {
            if left_out.contains(&(rows[place.row as usize].set, hash)) {
                continue;
            }
            let index = grams.places.len() as u32;
            let head = grams.heads.insert(hash, index).unwrap_or(END);
            // An n-gram repeated inside one row is one place: its first.
            let twin = grams.places.get(head as usize).filter(|twin| twin.row == place.row).map(|twin| twin.next);
            place.next = twin.unwrap_or(head);
            grams.places.push(place);
            grams.filter.insert(hash);
        }
        grams
    }

    /// The rows that have an n-gram in the index.
    pub fn rows(&self) -> impl Iterator<Item = u32> {
        self.places.iter().map(|place| place.row)
    }

    #[inline]
    pub fn each(&self, hash: u64, mut visit: impl FnMut(Place)) {
        if !self.filter.may_hold(hash) {
            return;
        }
        let mut at = self.heads.get(&hash).copied().unwrap_or(END);
        while at != END {
            let place = self.places[at as usize];
            visit(place);
            at = place.next;
        }
    }
}

/// (set, hash) of the n-grams that too many rows of one set have: an instruction all questions end with says nothing.
fn common_grams(
    n: usize,
    common: f64,
    rows: &[Indexed],
    found: &[(u64, Place)],
    reports: &mut [SetReport],
) -> std::collections::HashSet<(u32, u64)> {
    let mut counts: HashMap<(u32, u64), (u32, Place)> = HashMap::new();
    for &(hash, place) in found {
        let (count, last) = counts.entry((rows[place.row as usize].set, hash)).or_insert((0, place));
        // Places come in order of rows: another row than the last is a new one.
        if *count == 0 || last.row != place.row {
            *count += 1;
            *last = place;
        }
    }
    let limit = |set: u32| f64::from(COMMON_ROWS).max(common * reports[set as usize].rows as f64);
    counts.retain(|&(set, _), (count, _)| f64::from(*count) > limit(set));
    // By set, count and place: maps have no order of their own.
    let mut most: BTreeMap<u32, (u32, Place)> = BTreeMap::new();
    for (&(set, _), &(count, place)) in &counts {
        reports[set as usize].common_ngrams += 1;
        let key = |count: u32, place: Place| (count, std::cmp::Reverse((place.row, place.at)));
        let best = most.entry(set).or_insert((count, place));
        if key(count, place) > key(best.0, best.1) {
            *best = (count, place);
        }
    }
    for (set, (count, place)) in most {
        let row = &rows[place.row as usize];
        let tokens = &row.plain[place.at as usize..][..n];
        reports[set as usize].most_common =
            Some(format!("{} ({count} rows)", row.normal.slice(&tokens[0], &tokens[n - 1])));
    }
    counts.into_keys().collect()
}
