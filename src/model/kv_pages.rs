//! Which page of the KV cache holds which tokens of which sequence (Kwon et al. 2023, PagedAttention).
//!
//! A sequence takes a page when it grows into it and gives it back when it ends. A prompt's pages are stored once and
//! lent to the completions of its group; a sequence that writes into a page it shares gets its own copy first. The
//! table is what attention over the cache reads, on every backend.

use std::ops::Range;

use crate::backend::{KV_PAGE, PageCopy};

/// No page.
const NONE: u32 = u32::MAX;

/// The page table: `[slots, width]` page numbers, and how many slots use each page.
pub struct KvPages {
    table: Vec<u32>,
    users: Vec<u32>,
    /// Pages nobody uses, the next to be taken last: in the same order in every run.
    free: Vec<u32>,
    width: usize,
    /// Places whose page has changed since [`KvPages::changes`] was asked.
    changed: Vec<u32>,
    /// Whether there is a new table since then.
    anew: bool,
}

impl KvPages {
    /// For `slots` sequences of up to `capacity` tokens, in a pool of `pages` pages for all of them.
    pub fn new(slots: usize, capacity: usize, pages: usize) -> Self {
        let width = capacity.div_ceil(KV_PAGE);
        KvPages {
            table: vec![NONE; slots * width],
            users: vec![0; pages],
            free: (0..pages as u32).rev().collect(),
            width,
            changed: Vec::new(),
            anew: true,
        }
    }

    /// Pages in all.
    pub fn pages(&self) -> usize {
        self.users.len()
    }

    /// Pages nobody uses.
    pub fn free(&self) -> usize {
        self.free.len()
    }

    /// Pages that a slot can have.
    pub fn width(&self) -> usize {
        self.width
    }

    /// `[slots, width]`; `u32::MAX` where a slot has no page.
    pub fn table(&self) -> &[u32] {
        &self.table
    }

    /// Puts into `changes` what has changed since this was last asked, as place in the table and page there. False, and
    /// nothing, where the table is another or so much of it has changed that it is better taken whole.
    pub fn changes(&mut self, changes: &mut Vec<(u32, u32)>) -> bool {
        changes.clear();
        self.changed.sort_unstable();
        self.changed.dedup();
        let whole = std::mem::take(&mut self.anew) || 2 * self.changed.len() > self.table.len();
        if !whole {
            changes.extend(self.changed.iter().map(|&place| (place, self.table[place as usize])));
        }
        self.changed.clear();
        !whole
    }

    fn set(&mut self, place: usize, page: u32) {
        self.table[place] = page;
        self.changed.push(place as u32);
    }

    /// Lets sequences have up to `capacity` tokens; what is stored stays.
    pub fn widen(&mut self, capacity: usize) {
        let width = capacity.div_ceil(KV_PAGE);
        if width <= self.width {
            return;
        }
        let slots = self.table.len().checked_div(self.width).unwrap_or(0);
        let mut table = vec![NONE; slots * width];
        for (wide, narrow) in table.chunks_exact_mut(width).zip(self.table.chunks_exact(self.width)) {
            wide[..self.width].copy_from_slice(narrow);
        }
        (self.table, self.width, self.anew) = (table, width, true);
        self.changed.clear();
    }

    fn take(&mut self) -> u32 {
        let page = self.free.pop().expect("who writes has asked whether there are pages");
        self.users[page as usize] = 1;
        page
    }

    fn leave(&mut self, place: usize) {
        let page = self.table[place];
        if page != NONE {
            self.set(place, NONE);
            self.users[page as usize] -= 1;
            if self.users[page as usize] == 0 {
                self.free.push(page);
            }
        }
    }

    /// Pages that writing these positions of `slot` takes, at most: fresh ones, and copies of shared ones.
    pub fn needed(&self, slot: usize, positions: Range<usize>) -> usize {
        let pages = positions.start / KV_PAGE..positions.end.div_ceil(KV_PAGE);
        let taken = |page: &u32| *page == NONE || self.users[*page as usize] > 1;
        self.table[slot * self.width..][pages].iter().filter(|page| taken(page)).count()
    }

    /// Makes position `position` of `slot` writable. A page that was shared is exchanged for a fresh one,
    /// and the copy that this needs returned: to be done before the write, in every layer.
    /// Writing position 0 begins a new sequence: the slot's old pages are let go.
    ///
    /// # Panics
    /// Where no page is free; [`KvPages::needed`] says how many it takes.
    pub fn write(&mut self, slot: usize, position: usize) -> Option<PageCopy> {
        if position == 0 {
            self.release(slot);
        }
        let place = slot * self.width + position / KV_PAGE;
        let page = self.table[place];
        if page == NONE {
            let fresh = self.take();
            self.set(place, fresh);
            return None;
        }
        if self.users[page as usize] == 1 {
            return None;
        }
        self.users[page as usize] -= 1;
        let to = self.take();
        self.set(place, to);
        Some(PageCopy { from: page, to, len: position % KV_PAGE }).filter(|copy| copy.len > 0)
    }

    /// Lends the pages of the first `len` tokens of slot `from` to slot `to`, in place of what that had.
    pub fn share(&mut self, from: usize, to: usize, len: usize) {
        if from == to {
            return;
        }
        self.release(to);
        for i in 0..len.div_ceil(KV_PAGE) {
            let page = self.table[from * self.width + i];
            assert!(page != NONE, "a shared prefix has been written");
            self.users[page as usize] += 1;
            self.set(to * self.width + i, page);
        }
    }

    /// Gives back the pages of a slot; those it shares stay with the others.
    pub fn release(&mut self, slot: usize) {
        (0..self.width).for_each(|i| self.leave(slot * self.width + i));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::seed::Rng;

    /// Each page's users, counted afresh.
    fn consistent(pages: &KvPages) {
        let mut users = vec![0; pages.pages()];
        pages.table.iter().filter(|&&p| p != NONE).for_each(|&p| users[p as usize] += 1);
        assert_eq!(users, pages.users);
        let mut free = pages.free.clone();
        free.sort_unstable();
        let unused: Vec<u32> = (0..users.len() as u32).filter(|&p| users[p as usize] == 0).collect();
        assert_eq!(free, unused);
    }

    #[test]
    fn a_prompt_is_stored_once_and_copied_where_it_is_written() {
        let mut pages = KvPages::new(3, 64, 12);
        (0..20).for_each(|p| assert_eq!(pages.write(0, p), None));
        pages.share(0, 1, 20);
        pages.share(0, 2, 20);
        assert_eq!((&pages.users[..2], pages.free()), (&[3, 3][..], 10));
        assert_eq!(pages.needed(1, 20..21), 1);
        assert_eq!(pages.write(1, 20), Some(PageCopy { from: 1, to: 2, len: 4 }));
        assert_eq!(pages.write(2, 20), Some(PageCopy { from: 1, to: 3, len: 4 }));
        assert_eq!(pages.needed(0, 20..32), 0);
        assert_eq!(pages.write(0, 20), None, "the last user writes in place");
        consistent(&pages);
        pages.release(0);
        assert_eq!(pages.free(), 12 - 3, "the prompt's first page is still the others'");
        pages.release(1);
        pages.release(2);
        assert_eq!(pages.free(), 12);
    }

    #[test]
    fn a_wider_table_holds_what_the_narrow_one_did() {
        let mut pages = KvPages::new(2, 32, 8);
        let mut changes = vec![(7, 7)];
        assert!(!pages.changes(&mut changes), "a table nobody has seen is taken whole");
        assert!(pages.changes(&mut changes) && changes.is_empty());
        (0..32).for_each(|p| assert_eq!(pages.write(1, p), None));
        let held = pages.table[2..].to_vec();
        pages.widen(50);
        assert_eq!((pages.width(), &pages.table[4..6]), (4, &held[..]));
        assert!(!pages.changes(&mut changes) && changes.is_empty());
        pages.widen(10);
        assert_eq!(pages.width(), 4, "it never narrows");
        assert_eq!(pages.needed(1, 32..50), 2);
        consistent(&pages);
    }

    #[test]
    fn any_order_of_sharing_and_writing_loses_and_doubles_no_page() {
        let (mut pages, mut rng) = (KvPages::new(4, 96, 12), Rng::new(1));
        let mut lens = [0usize; 4];
        // A copy of the table that is told of changes only, sometimes of several at once.
        let (mut copy, mut changes, mut told) = (pages.table().to_vec(), Vec::new(), [0; 2]);
        pages.changes(&mut changes);
        for _ in 0..3000 {
            if rng.below(3) > 0 {
                match pages.changes(&mut changes) {
                    true => changes.iter().for_each(|&(place, page)| copy[place as usize] = page),
                    false => copy.copy_from_slice(pages.table()),
                }
                told[usize::from(changes.is_empty())] += 1;
                assert_eq!(copy, pages.table());
            }
            let (slot, other) = (rng.below(4) as usize, rng.below(4) as usize);
            match rng.below(8) {
                0 => {
                    pages.release(slot);
                    lens[slot] = 0;
                }
                1 if slot != other => {
                    let len = rng.below(lens[slot] as u64 + 1) as usize;
                    pages.share(slot, other, len);
                    lens[other] = len;
                }
                _ if lens[slot] < 96 => {
                    let (needed, before) = (pages.needed(slot, lens[slot]..lens[slot] + 1), pages.free());
                    if needed > before {
                        pages.release(slot);
                        lens[slot] = 0;
                        continue;
                    }
                    pages.write(slot, lens[slot]);
                    assert_eq!(before - pages.free(), needed, "what was said to be needed is what was taken");
                    lens[slot] += 1;
                }
                _ => {}
            }
            consistent(&pages);
        }
        assert!(told.iter().all(|&times| times > 100), "{told:?}");
    }
}
