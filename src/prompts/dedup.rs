//! Duplicates: exact ones by the hash of the normal form, near ones by MinHash and locality-sensitive hashing.
//!
//! The first prompt in order stays, but one that can be graded takes the place of a duplicate that cannot;
//! every other duplicate names the kept prompt it duplicates. Where two golds differ, the prompts are not merged: similar questions with
//! different answers are different problems, and equal questions with different answers are a
//! fault of the dataset with a name of its own. Near duplicates are found by banding (two texts of Jaccard
//! similarity J share one of b bands of r lanes with probability 1 − (1 − J^r)^b)
//! and then verified against the kept prompt's signature, so nothing is dropped
//! for a chain of ever less similar texts.
//!
//! Fingerprints are pure and computed in parallel; admission is sequential and
//! cheap. The outcome depends on the order of the prompts alone.

mod config;

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

use super::gold;
use super::hash::{fold, hash_bytes, rolling};
use super::minhash::{MinHasher, similarity};
use super::normal::{Normal, TokenKind};
use crate::Result;
pub use config::{DedupConfig, NearConfig};

/// What deciding on one prompt needs.
#[derive(Clone, Debug, PartialEq)]
pub struct Fingerprint {
    key: u128,
    /// Of the text as it is written, white space aside.
    literal: u64,
    /// Empty where near duplicates are kept or the text has no token.
    signature: Vec<u32>,
    numbers: u64,
    /// [`gold::key`]; 0 if there is none.
    gold: u64,
    /// Whether the prompt can be graded: it has a gold, or something else that a rule checks by.
    pub(super) graded: bool,
}

/// What became of one prompt.
#[derive(Clone, Debug, PartialEq)]
pub enum Admission {
    /// It stays.
    Kept {
        /// A kept prompt that is equal in normal form, if this one was kept because their golds differ.
        conflicts_with: Option<String>,
        /// It was kept as a near duplicate of something because their golds differ.
        other_gold: bool,
    },
    /// It takes the place of a kept prompt that it duplicates and that cannot be graded.
    Better {
        /// Its number among the prompts kept so far, from 0.
        slot: u32,
        /// Whether the normal forms are equal.
        exact: bool,
    },
    /// Equal in normal form to this kept prompt.
    Exact {
        /// The kept prompt's id.
        kept: String,
    },
    /// The very text of this kept prompt, with another gold.
    GoldConflict {
        /// The kept prompt's id.
        kept: String,
    },
    /// Similar to this kept prompt.
    Near {
        /// The kept prompt's id.
        kept: String,
        /// Estimated Jaccard similarity, from the configured threshold to 1.
        similarity: f64,
    },
}

/// Remembers what was kept: about 0.6 KB a prompt with the default bands.
pub struct Deduplicator {
    config: DedupConfig,
    hasher: MinHasher,
    exact: HashMap<u128, u32, Mixed>,
    bands: Vec<HashMap<u32, u32, Mixed>>,
    kept: Vec<Kept>,
    /// Low halves of the kept signatures, one after the other: b-bit minwise hashing (Li and König
    /// 2010) with b = 16, which halves the memory and adds 2^-16 to the similarity.
    signatures: Vec<u16>,
    /// `next[prompt * bands + band]`: the prompt before in the same bucket.
    next: Vec<u32>,
    full_buckets: u64,
}

struct Kept {
    id: [u8; 32],
    literal: u64,
    numbers: u64,
    gold: u64,
    graded: bool,
    /// The prompt before with the same normal form and another gold.
    twin: u32,
}

/// Kept prompts of one normal form that differ in their golds, at most: bounds the work on texts that are
/// nothing but punctuation.
const TWINS: usize = 64;

const NONE: u32 = u32::MAX;

/// Keys are hashes already.
type Mixed = BuildHasherDefault<Identity>;

#[derive(Default)]
struct Identity(u64);

impl Hasher for Identity {
    fn finish(&self) -> u64 {
        self.0
    }
    fn write(&mut self, bytes: &[u8]) {
        self.0 = hash_bytes(bytes, self.0);
    }
    fn write_u32(&mut self, key: u32) {
        self.0 = u64::from(key).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }
    fn write_u128(&mut self, key: u128) {
        self.0 = key as u64;
    }
}

impl Deduplicator {
    /// # Errors
    /// As [`DedupConfig::check`].
    pub fn new(config: DedupConfig) -> Result<Self> {
        config.check()?;
        let near = config.near.clone().unwrap_or_default();
        Ok(Deduplicator {
            hasher: MinHasher::new(near.bands * near.rows, 0x67_7269_7374),
            exact: HashMap::default(),
            bands: (0..near.bands).map(|_| HashMap::default()).collect(),
            kept: Vec::new(),
            signatures: Vec::new(),
            next: Vec::new(),
            full_buckets: 0,
            config,
        })
    }

    /// Prompts kept so far.
    pub fn len(&self) -> usize {
        self.kept.len()
    }

    /// Whether nothing was admitted yet.
    pub fn is_empty(&self) -> bool {
        self.kept.is_empty()
    }

    /// How often a kept prompt found a bucket full, so that later near duplicates of it may be missed.
    pub fn full_buckets(&self) -> u64 {
        self.full_buckets
    }

    /// The pure part: run it in parallel. `text` is what `normal` was made of.
    pub fn fingerprint(&self, text: &str, normal: &Normal, gold: Option<&str>) -> Fingerprint {
        let mut numbers = 0;
        let mut signature = Vec::new();
        if let Some(near) = &self.config.near {
            for token in normal.tokens.iter().filter(|token| token.kind == TokenKind::Number) {
                numbers = fold(numbers ^ token.hash, 0xd6e8_feb8_6659_fd93).wrapping_add(1);
            }
            let shingles = shingles(normal, near.ngram);
            if !shingles.is_empty() {
                signature = self.hasher.signature(&shingles);
            }
        }
        Fingerprint {
            key: normal.key(),
            literal: text.split_whitespace().fold(0, |state, word| hash_bytes(word.as_bytes(), state)),
            signature,
            numbers,
            gold: gold.map_or(0, gold::key),
            graded: gold.is_some(),
        }
    }

    /// Decides on the next prompt in order, and remembers it if kept. `id` is a prompt id of 32 bytes.
    pub fn admit(&mut self, id: &str, print: &Fingerprint) -> Admission {
        let twins = match self.equal(print) {
            Ok(twins) => twins,
            Err((at, Admission::Exact { .. })) if self.is_better(print, at) => {
                return self.replace(at, id, print, true);
            }
            Err((_, decided)) => return decided,
        };
        let search = match self.near_duplicate(print) {
            Ok((at, _)) if self.is_better(print, at) => return self.replace(at, id, print, false),
            Ok((at, similarity)) => return Admission::Near { kept: self.id(at), similarity },
            Err(search) => search,
        };
        let index = u32::try_from(self.kept.len()).expect("four thousand million prompts do not fit in memory");
        let Fingerprint { literal, numbers, gold, graded, .. } = *print;
        let twin = twins.first().copied().unwrap_or(NONE);
        self.kept.push(Kept { id: id_bytes(id), literal, numbers, gold, graded, twin });
        if self.config.exact && twins.len() < TWINS {
            self.exact.insert(print.key, index);
        }
        if let Some(near) = &self.config.near {
            // Every kept prompt has its slots, so that an index is a multiplication.
            self.signatures.extend(print.signature.iter().map(|&lane| lane as u16));
            self.signatures.resize((index as usize + 1) * near.bands * near.rows, 0);
            self.next.resize((index as usize + 1) * near.bands, NONE);
            for (band, key) in search.keys.into_iter().enumerate() {
                match key {
                    Some(key) => {
                        let head = self.bands[band].insert(key, index).unwrap_or(NONE);
                        self.next[index as usize * near.bands + band] = head;
                    }
                    None => self.full_buckets += 1,
                }
            }
        }
        Admission::Kept { conflicts_with: twins.first().map(|&twin| self.id(twin)), other_gold: search.other_gold }
    }

    fn is_better(&self, print: &Fingerprint, at: u32) -> bool {
        print.graded && !self.kept[at as usize].graded
    }

    /// Puts a prompt in the place of a kept one. What is similar to either is still found by the first one's
    /// signature, as what it stands for.
    fn replace(&mut self, slot: u32, id: &str, print: &Fingerprint, exact: bool) -> Admission {
        let kept = &mut self.kept[slot as usize];
        (kept.id, kept.literal, kept.gold, kept.graded) = (id_bytes(id), print.literal, print.gold, true);
        if self.config.exact {
            self.exact.entry(print.key).or_insert(slot);
        }
        Admission::Better { slot, exact }
    }

    /// The kept prompts of the same normal form, the latest first, if the golds of all differ from this
    /// one's and it is written otherwise; or else the one that decides, and the decision.
    fn equal(&self, print: &Fingerprint) -> Result<Vec<u32>, (u32, Admission)> {
        let mut twins = Vec::new();
        if !self.config.exact {
            return Ok(twins);
        }
        let mut conflict = None;
        let mut at = self.exact.get(&print.key).copied().unwrap_or(NONE);
        while at != NONE {
            let kept = &self.kept[at as usize];
            if !differ(kept.gold, print.gold) {
                return Err((at, Admission::Exact { kept: self.id(at) }));
            }
            if kept.literal == print.literal {
                conflict = Some(at);
            }
            twins.push(at);
            at = kept.twin;
        }
        match conflict {
            Some(at) => Err((at, Admission::GoldConflict { kept: self.id(at) })),
            None => Ok(twins),
        }
    }

    /// The first kept prompt similar enough, in band order and newest first inside a bucket.
    fn near_duplicate(&self, print: &Fingerprint) -> Result<(u32, f64), Search> {
        let mut search = Search { keys: Vec::new(), other_gold: false };
        let Some(near) = self.config.near.as_ref().filter(|_| !print.signature.is_empty()) else {
            return Err(search);
        };
        let lanes = near.bands * near.rows;
        let low: Vec<u16> = print.signature.iter().map(|&lane| lane as u16).collect();
        search.keys.reserve(near.bands);
        for (band, rows) in print.signature.chunks_exact(near.rows).enumerate() {
            let key =
                rows.iter().fold(band as u64 + 1, |state, &lane| fold(state ^ u64::from(lane), 0x9e37_79b9_7f4a_7c15));
            let key = (key >> 32) as u32 ^ key as u32;
            let mut at = self.bands[band].get(&key).copied().unwrap_or(NONE);
            let mut seen = 0;
            while at != NONE {
                let kept = &self.kept[at as usize];
                let numbers_agree = !near.keep_other_numbers || kept.numbers == print.numbers;
                let golds_agree = !near.keep_other_gold || !differ(kept.gold, print.gold);
                if numbers_agree && (golds_agree || !search.other_gold) {
                    let similarity = similarity(&self.signatures[at as usize * lanes..][..lanes], &low);
                    if similarity >= near.threshold {
                        if golds_agree {
                            return Ok((at, similarity));
                        }
                        search.other_gold = true;
                    }
                }
                seen += 1;
                at = self.next[at as usize * near.bands + band];
            }
            search.keys.push((seen < near.bucket).then_some(key));
        }
        Err(search)
    }

    fn id(&self, index: u32) -> String {
        String::from_utf8_lossy(&self.kept[index as usize].id).into_owned()
    }
}

/// An id as it is kept.
fn id_bytes(id: &str) -> [u8; 32] {
    let mut bytes = [b'0'; 32];
    let length = id.len().min(32);
    bytes[..length].copy_from_slice(&id.as_bytes()[..length]);
    bytes
}

/// What a search found that no prompt is a near duplicate of.
struct Search {
    /// The band keys to remember, `None` for a bucket that is full.
    keys: Vec<Option<u32>>,
    /// Something was similar enough and had another gold.
    other_gold: bool,
}

/// Whether two golds are there and say different things.
fn differ(a: u64, b: u64) -> bool {
    a != 0 && b != 0 && a != b
}

/// Hashes of all windows of `n` tokens; a shorter text is one shingle, an empty one none.
pub fn shingles(normal: &Normal, n: usize) -> Vec<u64> {
    let hashes: Vec<u64> = normal.tokens.iter().map(|token| token.hash).collect();
    let mut shingles = Vec::with_capacity(hashes.len());
    rolling(&hashes, n.min(hashes.len()), |_, hash| shingles.push(hash));
    shingles
}

#[cfg(test)]
mod tests;
