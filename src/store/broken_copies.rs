//! For tests: bytes of a file, damaged at random and each time alike.

use crate::seed::Rng;

/// Four hundred copies of the file, each with one to four bytes changed.
pub(crate) fn broken_copies(bytes: &[u8]) -> impl Iterator<Item = Vec<u8>> {
    let mut rng = Rng::new(3);
    (0..400).map(move |_| {
        let mut broken = bytes.to_vec();
        for _ in 0..rng.between(1, 4) {
            let at = rng.below(broken.len() as u64) as usize;
            broken[at] = rng.below(256) as u8;
        }
        broken
    })
}
