//! What a recipe says of duplicates.

use std::fmt;

use serde::de::value::MapAccessDeserializer;
use serde::de::{self, Deserializer, MapAccess, Visitor};
use serde::{Deserialize, Serialize};

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
    /// Bands of the signature: more of them find less similar texts.
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
