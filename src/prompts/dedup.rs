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

use std::collections::HashMap;
use std::fmt;
use std::hash::{BuildHasherDefault, Hasher};

use serde::de::value::MapAccessDeserializer;
use serde::de::{self, Deserializer, MapAccess, Visitor};
use serde::{Deserialize, Serialize};

use super::gold;
use super::hash::{fold, hash_bytes, rolling};
use super::minhash::{MinHasher, similarity};
use super::text::{Normal, TokenKind};
use crate::{Error, Result};

/// Which duplicates are dropped.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DedupConfig {
    /// Drop prompts equal in normal form.
    pub exact: bool,
    /// Drop near duplicates: `false` keeps them, `true` or a table of parameters drops them.
    #[serde(deserialize_with = "near")]
    pub near: Option<NearConfig>,
}

impl Default for DedupConfig {
    fn default() -> Self {
        DedupConfig { exact: true, near: Some(NearConfig::default()) }
    }
}

impl DedupConfig {
    /// # Errors
    /// A parameter is out of range.
    pub fn check(&self) -> Result<()> {
        let Some(near) = &self.near else { return Ok(()) };
        let wrong = |what: &str| Err(Error::usage(format!("dedup.near: {what}")));
        if near.ngram == 0 || near.bands == 0 || near.rows == 0 || near.bucket == 0 {
            return wrong("`ngram`, `bands`, `rows` and `bucket` must be at least 1");
        }
        if near.bands.saturating_mul(near.rows) > 4096 {
            return wrong("`bands` times `rows` must be at most 4096");
        }
        if !(near.threshold > 0.0 && near.threshold <= 1.0) {
            return wrong("`threshold` must be above 0 and at most 1");
        }
        Ok(())
    }
}

/// TOML has no null, so that a switch stands where the table may.
fn near<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<NearConfig>, D::Error> {
    struct SwitchOrTable;

    impl<'de> Visitor<'de> for SwitchOrTable {
        type Value = Option<NearConfig>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("true, false or a table of MinHash parameters")
        }

        fn visit_bool<E: de::Error>(self, on: bool) -> Result<Self::Value, E> {
            Ok(on.then(NearConfig::default))
        }

        /// What `None` is written as in formats that have a null.
        fn visit_unit<E: de::Error>(self) -> Result<Self::Value, E> {
            Ok(None)
        }

        fn visit_map<A: MapAccess<'de>>(self, table: A) -> Result<Self::Value, A::Error> {
            NearConfig::deserialize(MapAccessDeserializer::new(table)).map(Some)
        }
    }

    deserializer.deserialize_any(SwitchOrTable)
}

/// MinHash-LSH. The defaults are datatrove's shingles and bands: found with probability 0.92 at J = 0.8.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct NearConfig {
    /// Words in a shingle; characters in scripts written without spaces.
    pub ngram: usize,
    pub bands: usize,
    /// Lanes in a band.
    pub rows: usize,
    /// Estimated Jaccard similarity from which two prompts are duplicates, 0 to 1.
    pub threshold: f64,
    /// Keep prompts whose numbers differ: the same story with other numbers is another problem.
    pub keep_other_numbers: bool,
    /// Keep prompts whose gold answers differ: a similar question with another answer is another problem.
    pub keep_other_gold: bool,
    /// Kept prompts that one band's bucket holds at most. Bounds the work on sets made from one template.
    pub bucket: usize,
}

impl Default for NearConfig {
    fn default() -> Self {
        NearConfig {
            ngram: 5,
            bands: 14,
            rows: 8,
            threshold: 0.8,
            keep_other_numbers: true,
            keep_other_gold: true,
            bucket: 64,
        }
    }
}

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
    Kept {
        /// A kept prompt that is equal in normal form, if this one was kept because their golds differ.
        conflicts_with: Option<String>,
        /// It was kept as a near duplicate of something because their golds differ.
        other_gold: bool,
    },
    /// It takes the place of the kept prompt number `slot`, which it duplicates (`exact`: is equal to in normal
    /// form), and which cannot be graded.
    Better { slot: u32, exact: bool },
    /// Equal in normal form to this kept prompt.
    Exact { kept: String },
    /// The very text of this kept prompt, with another gold.
    GoldConflict { kept: String },
    /// Similar to this kept prompt; `similarity` is the estimated Jaccard similarity.
    Near { kept: String, similarity: f64 },
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
mod tests {
    use super::*;
    use crate::seed::Rng;
    use proptest::prelude::*;
    use rayon::prelude::*;

    const KEPT: Admission = Admission::Kept { conflicts_with: None, other_gold: false };

    fn id(i: usize) -> String {
        format!("{i:032}")
    }

    fn print(dedup: &Deduplicator, text: &str, gold: Option<&str>) -> Fingerprint {
        dedup.fingerprint(text, &Normal::of(text), gold)
    }

    /// Questions with their golds, an empty one being none.
    fn run_with_golds(config: DedupConfig, rows: &[(&str, &str)]) -> Vec<Admission> {
        let mut dedup = Deduplicator::new(config).unwrap();
        let admit = |(i, (text, gold)): (usize, &(&str, &str))| {
            let print = print(&dedup, text, Some(*gold).filter(|gold| !gold.is_empty()));
            dedup.admit(&id(i), &print)
        };
        rows.iter().enumerate().map(admit).collect()
    }

    fn run(config: DedupConfig, texts: &[&str]) -> Vec<Admission> {
        run_with_golds(config, &texts.iter().map(|text| (*text, "")).collect::<Vec<_>>())
    }

    const STORY: &str = "Natalia sold clips to forty eight of her friends in April and then she sold half as many clips \
        in May so how many clips did Natalia sell altogether in April and May if none of them was ever given back to her";

    #[test]
    fn the_first_stays_and_duplicates_name_it() {
        let near = STORY.replace("back to her", "back to him");
        let out = run(DedupConfig::default(), &[STORY, &STORY.to_uppercase(), "Another question?", &near]);
        assert_eq!(out[..3], [KEPT, Admission::Exact { kept: id(0) }, KEPT]);
        assert!(matches!(&out[3], Admission::Near { kept, similarity, .. } if *kept == id(0) && *similarity > 0.8));
    }

    #[test]
    fn similar_questions_with_other_golds_are_other_problems() {
        let other = STORY.replace("back to her", "back to him");
        let rows = [
            (STORY, "72"),
            (&*other, "71"),
            (&*other.replace("him", "them"), "72.0"),
            (&*STORY.replace("to her", "to us"), ""),
        ];
        let out = run_with_golds(DedupConfig::default(), &rows);
        assert_eq!(out[1], Admission::Kept { conflicts_with: None, other_gold: true });
        assert!(matches!(&out[2], Admission::Near { kept, .. } if *kept == id(0)), "golds that say the same: {out:?}");
        assert!(matches!(&out[3], Admission::Near { .. }), "no gold differs from none: {out:?}");
        let near = NearConfig { keep_other_gold: false, ..NearConfig::default() };
        let out = run_with_golds(DedupConfig { exact: true, near: Some(near) }, &rows);
        assert!(matches!(&out[1], Admission::Near { kept, .. } if *kept == id(0)), "{out:?}");
    }

    #[test]
    fn equal_questions_with_other_golds_are_conflicts() {
        let exact = DedupConfig { exact: true, near: None };
        let out = run_with_golds(
            exact.clone(),
            &[
                ("Find x.", "1"),
                ("Find  x.\n", "2"),
                ("find X", "2"),
                ("FIND x", "2.0"),
                ("find x!?", "1"),
                ("Find X", ""),
            ],
        );
        assert_eq!(out[1], Admission::GoldConflict { kept: id(0) }, "the same to the letter");
        assert_eq!(
            out[2],
            Admission::Kept { conflicts_with: Some(id(0)), other_gold: false },
            "the normal form may err"
        );
        assert_eq!(out[3], Admission::Exact { kept: id(2) }, "each gold has its kept prompt");
        assert_eq!(out[5], Admission::Exact { kept: id(2) }, "no gold differs from none");
        // Nothing but punctuation is one normal form, however many there are.
        let rows: Vec<(String, String)> = (0..300).map(|i| ("?".repeat(i + 1), i.to_string())).collect();
        let rows: Vec<(&str, &str)> = rows.iter().map(|(text, gold)| (text.as_str(), gold.as_str())).collect();
        let kept = run_with_golds(exact, &rows).iter().filter(|a| matches!(a, Admission::Kept { .. })).count();
        assert_eq!(kept, 300);
    }

    #[test]
    fn what_can_be_graded_takes_the_place_of_what_cannot() {
        let near = STORY.replace("back to her", "back to him");
        let rows = [(STORY, ""), (&*STORY.to_uppercase(), "72"), (STORY, "72"), (&*near, ""), (STORY, "71")];
        let out = run_with_golds(DedupConfig::default(), &rows);
        assert_eq!(out[..3], [KEPT, Admission::Better { slot: 0, exact: true }, Admission::Exact { kept: id(1) }]);
        assert!(matches!(&out[3], Admission::Near { kept, .. } if *kept == id(1)), "{out:?}");
        assert!(matches!(&out[4], Admission::Kept { conflicts_with: Some(kept), .. } if *kept == id(1)), "{out:?}");
        let rows = [(STORY, ""), (&*near, "72"), (&*near, "71"), (&*near, "72"), (STORY, "")];
        let out = run_with_golds(DedupConfig::default(), &rows);
        assert_eq!(out[1], Admission::Better { slot: 0, exact: false });
        assert_eq!(out[2], Admission::GoldConflict { kept: id(1) }, "the same to the letter");
        assert_eq!(out[3..], [Admission::Exact { kept: id(1) }, Admission::Exact { kept: id(1) }]);
    }

    #[test]
    fn other_numbers_are_another_problem_unless_told_otherwise() {
        let (a, b) = (format!("48 girls: {STORY}"), format!("96 girls: {STORY}"));
        assert_eq!(run(DedupConfig::default(), &[&a, &b])[1], KEPT);
        let near = NearConfig { keep_other_numbers: false, threshold: 0.7, ..NearConfig::default() };
        let out = run(DedupConfig { exact: true, near: Some(near) }, &[&a, &b]);
        assert!(matches!(out[1], Admission::Near { .. }), "{out:?}");
    }

    #[test]
    fn short_and_empty_texts_are_compared_whole() {
        let out = run(DedupConfig::default(), &["Add 3+5", "Add 3-5", "add 3+5.", "", "?"]);
        assert_eq!(out[..2], [KEPT, KEPT]);
        assert!(matches!(out[2], Admission::Exact { .. }));
        assert_eq!(out[3], KEPT);
        assert!(matches!(out[4], Admission::Exact { .. }), "nothing but punctuation is nothing");
    }

    #[test]
    fn chinese_is_shingled_by_characters() {
        let a = "小明家里养了一些鸡和兔子,一共有三十五个头和九十四只脚,请问小明家里鸡和兔子各有多少只,请写出详细的计算过程。";
        let b = a.replace("计算过程", "计算步骤");
        let out = run(
            DedupConfig { exact: true, near: Some(NearConfig { threshold: 0.6, ..NearConfig::default() }) },
            &[a, &b],
        );
        assert!(matches!(out[1], Admission::Near { .. }), "{out:?}");
    }

    #[test]
    fn a_template_set_stays_fast_and_bounded() {
        let texts: Vec<String> = (0..20_000)
            .map(|i| format!("A farmer has {i} apples and gives some of them away to each of his many friends in the village today"))
            .collect();
        let mut dedup = Deduplicator::new(DedupConfig::default()).unwrap();
        let start = std::time::Instant::now();
        for (i, text) in texts.iter().enumerate() {
            let print = print(&dedup, text, None);
            assert_eq!(dedup.admit(&id(i), &print), KEPT);
        }
        assert!(dedup.full_buckets() > 0);
        assert!(start.elapsed().as_secs() < 20, "{:?}", start.elapsed());
    }

    #[test]
    fn near_duplicates_are_kept_where_the_recipe_switches_them_off() {
        let read = |near: &str| serde_json::from_str::<DedupConfig>(&format!("{{\"near\": {near}}}"));
        for off in ["false", "null"] {
            let config = read(off).unwrap();
            assert_eq!((config.exact, &config.near), (true, &None));
            let (a, b) = (format!("{STORY} Why?"), format!("{STORY} How?"));
            assert_eq!(run(DedupConfig::default(), &[&a, &b])[1], run(read("true").unwrap(), &[&a, &b])[1]);
            assert_eq!(run(config, &[&a, &b, &a])[1], KEPT);
        }
        assert_eq!(read("true").unwrap(), DedupConfig::default());
        assert_eq!(read("{\"bands\": 9}").unwrap().near, Some(NearConfig { bands: 9, ..NearConfig::default() }));
        assert!(read("{\"band\": 9}").unwrap_err().to_string().contains("unknown field `band`"));
        assert!(read("3").unwrap_err().to_string().contains("true, false or a table"));
    }

    #[test]
    fn parameters_out_of_range_are_usage_errors() {
        for near in [
            NearConfig { rows: 0, ..NearConfig::default() },
            NearConfig { threshold: 1.5, ..NearConfig::default() },
            NearConfig { threshold: f64::NAN, ..NearConfig::default() },
            NearConfig { bands: 1 << 40, ..NearConfig::default() },
        ] {
            let error = Deduplicator::new(DedupConfig { exact: true, near: Some(near) }).err().unwrap();
            assert_eq!(error.exit_code(), 2, "{error}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]

        #[test]
        fn the_similarity_of_edited_texts_is_estimated_within_its_error(seed: u64, edits in 0usize..6) {
            let mut rng = Rng::new(seed);
            let mut words: Vec<String> = (0..80).map(|_| format!("w{}", rng.below(5_000))).collect();
            let original = words.join(" ");
            for _ in 0..edits {
                let at = rng.below(80) as usize;
                words[at] = format!("e{}", rng.below(5_000));
            }
            let (a, b) = (shingles(&Normal::of(&original), 5), shingles(&Normal::of(&words.join(" ")), 5));
            let (mut left, mut right) = (a.clone(), b.clone());
            left.sort_unstable(); left.dedup(); right.sort_unstable(); right.dedup();
            let shared = left.iter().filter(|x| right.binary_search(x).is_ok()).count();
            let truth = shared as f64 / (left.len() + right.len() - shared) as f64;
            let hasher = MinHasher::new(112, 0x67_7269_7374);
            let estimate = similarity(&hasher.signature(&a), &hasher.signature(&b));
            let deviation = (truth * (1.0 - truth) / 112.0).sqrt();
            prop_assert!((estimate - truth).abs() <= 6.0 * deviation + 0.02, "{estimate} for {truth}");
        }
    }

    #[test]
    fn threads_do_not_change_the_outcome() {
        let mut rng = Rng::new(5);
        let texts: Vec<String> = (0..600)
            .map(|_| {
                (0..12).map(|i| format!("{}{}", "abc".repeat(i % 3 + 1), rng.below(3))).collect::<Vec<_>>().join(" ")
            })
            .collect();
        let outcome = |threads: usize| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            let near = NearConfig { ngram: 2, threshold: 0.5, keep_other_numbers: false, ..NearConfig::default() };
            let mut dedup = Deduplicator::new(DedupConfig { exact: true, near: Some(near) }).unwrap();
            let prints: Vec<_> = pool.install(|| texts.par_iter().map(|text| print(&dedup, text, None)).collect());
            prints.iter().enumerate().map(|(i, print)| dedup.admit(&id(i), print)).collect::<Vec<_>>()
        };
        let one = outcome(1);
        assert_eq!(one, outcome(4));
        assert!(one.iter().any(|a| matches!(a, Admission::Near { .. })));
    }
}
