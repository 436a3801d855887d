//! Which page of the cache holds which tokens of which slot.
//!
//! A prompt's pages are stored once and lent to the completions of its group; a
//! slot that writes into a page it shares gets its own copy first. The table is
//! what `kernels/kv_cache.cu` and `kernels/attention_cached.cu` read.

/// No page.
const NONE: u32 = u32::MAX;

/// The page table: `[slots, most]` page numbers, and how many slots use each page.
pub struct KvPages {
    table: Vec<u32>,
    users: Vec<u32>,
    /// Pages nobody uses; the lowest is taken first, so that runs repeat.
    free: Vec<u32>,
    most: usize,
    page: usize,
}

/// The first `len` tokens of page `from` belong into page `to` before anything is written there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PageCopy {
    pub from: u32,
    pub to: u32,
    pub len: usize,
}

impl KvPages {
    /// For `slots` sequences of `capacity` tokens in pages of `page` tokens.
    pub fn new(slots: usize, capacity: usize, page: usize) -> Self {
        let most = capacity.div_ceil(page);
        let pages = (slots * most) as u32;
        KvPages {
            table: vec![NONE; slots * most],
            users: vec![0; pages as usize],
            free: (0..pages).rev().collect(),
            most,
            page,
        }
    }

    /// Pages in all: enough for every slot to be full and share nothing.
    pub fn pages(&self) -> usize {
        self.users.len()
    }

    /// Pages of a slot.
    pub fn most(&self) -> usize {
        self.most
    }

    /// `[slots, most]`; `u32::MAX` where a slot has no page.
    pub fn table(&self) -> &[u32] {
        &self.table
    }

    fn take(&mut self) -> u32 {
        let page = self.free.pop().expect("there are as many pages as places in the table");
        self.users[page as usize] = 1;
        page
    }

    fn leave(&mut self, place: usize) {
        let page = std::mem::replace(&mut self.table[place], NONE);
        if page != NONE {
            self.users[page as usize] -= 1;
            if self.users[page as usize] == 0 {
                self.free.push(page);
            }
        }
    }

    /// Makes position `position` of `slot` writable. A page that was shared is exchanged for a fresh one,
    /// and the copy that this needs returned: to be done before the write, in every layer.
    /// Writing position 0 begins a new sequence: the slot's old pages are let go.
    pub fn write(&mut self, slot: usize, position: usize) -> Option<PageCopy> {
        if position == 0 {
            (0..self.most).for_each(|i| self.leave(slot * self.most + i));
        }
        let place = slot * self.most + position / self.page;
        let page = self.table[place];
        if page == NONE {
            self.table[place] = self.take();
            return None;
        }
        if self.users[page as usize] == 1 {
            return None;
        }
        self.users[page as usize] -= 1;
        let to = self.take();
        self.table[place] = to;
        Some(PageCopy { from: page, to, len: position % self.page }).filter(|copy| copy.len > 0)
    }

    /// Lends the pages of the first `len` tokens of slot `from` to slot `to`.
    pub fn share(&mut self, from: usize, to: usize, len: usize) {
        if from == to {
            return;
        }
        (0..self.most).for_each(|i| self.leave(to * self.most + i));
        for i in 0..len.div_ceil(self.page) {
            let page = self.table[from * self.most + i];
            assert!(page != NONE, "a shared prefix has been written");
            self.users[page as usize] += 1;
            self.table[to * self.most + i] = page;
        }
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
        let mut pages = KvPages::new(3, 64, 16);
        (0..20).for_each(|p| assert_eq!(pages.write(0, p), None));
        pages.share(0, 1, 20);
        pages.share(0, 2, 20);
        assert_eq!(pages.users[..2], [3, 3]);
        assert_eq!(pages.write(1, 20), Some(PageCopy { from: 1, to: 2, len: 4 }));
        assert_eq!(pages.write(2, 20), Some(PageCopy { from: 1, to: 3, len: 4 }));
        assert_eq!(pages.write(0, 20), None, "the last user writes in place");
        consistent(&pages);
    }

    #[test]
    fn any_order_of_sharing_and_writing_loses_and_doubles_no_page() {
        let (mut pages, mut rng) = (KvPages::new(4, 48, 8), Rng::new(1));
        let mut lens = [0usize; 4];
        for _ in 0..3000 {
            let (slot, other) = (rng.below(4) as usize, rng.below(4) as usize);
            match rng.below(8) {
                0 => {
                    pages.write(slot, 0);
                    lens[slot] = 1;
                }
                1 if slot != other => {
                    let len = rng.below(lens[slot] as u64 + 1) as usize;
                    pages.share(slot, other, len);
                    lens[other] = len;
                }
                _ if lens[slot] < 48 => {
                    pages.write(slot, lens[slot]);
                    lens[slot] += 1;
                }
                _ => {}
            }
            consistent(&pages);
        }
    }
}
