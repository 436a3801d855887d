//! The order in which training data is visited: one shuffle an epoch, resumable from two numbers.

use std::collections::HashSet;

use serde::{Deserialize, Serialize};

use crate::seed;

/// Where in the data a run is. All that a checkpoint needs: the shuffle of an epoch derives from
/// the run's seed and the epoch's number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Position {
    /// 0-based epoch.
    pub epoch: u64,
    /// Rows of this epoch's order already visited.
    pub row: u64,
}

/// Visits `0..len` in a new order every epoch.
#[derive(Clone, Debug)]
pub struct Order {
    seed: u64,
    name: &'static str,
    shuffle: bool,
    len: usize,
    position: Position,
    /// This epoch's order.
    rows: Vec<u32>,
}

impl Order {
    /// An order over `len` rows that stands at its beginning. `name` keeps the orders of one run apart.
    /// Without `shuffle` every epoch is 0, 1, 2 …
    pub fn new(seed: u64, name: &'static str, len: usize, shuffle: bool) -> Self {
        let mut order = Order { seed, name, shuffle, len, position: Position::default(), rows: Vec::new() };
        order.lay_out();
        order
    }

    fn lay_out(&mut self) {
        self.rows = (0..self.len as u32).collect();
        if self.shuffle {
            seed::stream(self.seed, self.name, self.position.epoch).shuffle(&mut self.rows);
        }
    }

    /// Where the order stands.
    pub fn position(&self) -> Position {
        self.position
    }

    /// Continues from a stored position.
    pub fn seek(&mut self, position: Position) {
        self.position = position;
        self.lay_out();
    }

    /// The next `count` rows of this epoch, fewer at its end; the next call begins a new epoch.
    pub fn next_in_epoch(&mut self, count: usize) -> Vec<usize> {
        let start = (self.position.row as usize).min(self.len);
        let end = (start + count).min(self.len);
        let rows = self.rows[start..end].iter().map(|&r| r as usize).collect();
        self.position.row = end as u64;
        if end == self.len {
            self.position = Position { epoch: self.position.epoch + 1, row: 0 };
            self.lay_out();
        }
        rows
    }

    /// The next `count` rows that are not in `taken`, crossing into new epochs as needed, and adds them to it. A row
    /// that is passed over has had its turn. Fewer, once every row is taken.
    pub fn next_apart(&mut self, count: usize, taken: &mut HashSet<usize>) -> Vec<usize> {
        let mut rows = Vec::with_capacity(count);
        while rows.len() < count && taken.len() < self.len {
            let next = self.next_in_epoch(count - rows.len());
            rows.extend(next.into_iter().filter(|&row| taken.insert(row)));
        }
        rows
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_epoch_visits_every_row_once_and_the_next_in_another_order() {
        let mut order = Order::new(1, "test", 50, true);
        let mut epochs = [order.next_in_epoch(50), order.next_in_epoch(50)];
        assert_ne!(epochs[0], epochs[1]);
        for epoch in &mut epochs {
            epoch.sort_unstable();
            assert!(epoch.iter().copied().eq(0..50));
        }
    }

    #[test]
    fn an_order_continues_where_it_was_stopped() {
        let mut straight = Order::new(7, "test", 11, true);
        let mut stopped = straight.clone();
        let next = |order: &mut Order| order.next_apart(4, &mut HashSet::new());
        let expected: Vec<usize> = (0..6).flat_map(|_| next(&mut straight)).collect();
        let mut seen: Vec<usize> = (0..3).flat_map(|_| next(&mut stopped)).collect();
        let mut resumed = Order::new(7, "test", 11, true);
        resumed.seek(stopped.position());
        seen.extend((0..3).flat_map(|_| next(&mut resumed)));
        assert_eq!(seen, expected);
    }

    #[test]
    fn no_row_is_given_twice_while_it_is_taken_whatever_epochs_end() {
        for seed in 0..20 {
            let mut order = Order::new(seed, "test", 11, true);
            let mut seen = [0; 11];
            for _ in 0..22 {
                let mut taken = HashSet::new();
                // Two thirds of an epoch in three helpings: most batches cross into the next.
                let rows: Vec<usize> = (0..3).flat_map(|_| order.next_apart(3, &mut taken)).collect();
                assert_eq!((rows.len(), taken.len()), (9, 9), "{rows:?}");
                rows.into_iter().for_each(|row| seen[row] += 1);
            }
            assert!(seen.iter().all(|n| (12..=24).contains(n)), "every row has its turn: {seen:?}");
        }
        let mut order = Order::new(7, "test", 5, true);
        assert_eq!(order.next_apart(9, &mut HashSet::new()).len(), 5, "no more than there are");
    }

    #[test]
    fn the_last_batch_of_an_epoch_is_short_and_no_data_gives_no_rows() {
        let mut order = Order::new(7, "test", 5, false);
        assert_eq!([order.next_in_epoch(3), order.next_in_epoch(3)], [vec![0, 1, 2], vec![3, 4]]);
        assert_eq!(order.position(), Position { epoch: 1, row: 0 });
        assert!(Order::new(7, "test", 0, true).next_apart(3, &mut HashSet::new()).is_empty());
    }
}
