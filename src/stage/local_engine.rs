//! How much the embedded engine takes on at once, as the tables of stages say it: the same keys wherever it may stand.

use serde::{Deserialize, Deserializer, de::Error as _};

use crate::backend::STEP_ROWS;
use crate::model::memory::Limits;

/// These keys, dotted from the stage's table: they say how completions are made, and not what they are.
pub(super) const HOW_LOCAL: &[&str] = &["engine.batch", "engine.cache_gib", "engine.prefill_tokens"];

/// `engine = { kind = "local", … }` where the model is known already.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct LocalTable {
    /// Most sequences decoded together on a device.
    pub batch: Option<Count>,
    /// GiB of KV cache on a device.
    pub cache_gib: Option<Gib>,
    /// Prompt tokens run through the model in one step.
    pub prefill_tokens: Option<Count>,
}

impl LocalTable {
    pub fn limits(self) -> Limits {
        Limits {
            batch: self.batch.map(|Count(n)| n),
            cache_bytes: self.cache_gib.map(|Gib(bytes)| bytes),
            prefill: self.prefill_tokens.map(|Count(n)| n),
        }
    }
}

/// A number of rows of a step, from 1: a GPU rounds a step of more than [`STEP_ROWS`] otherwise, and these keys are not to change
/// what is written.
#[derive(Clone, Copy, Debug)]
pub(super) struct Count(usize);

impl<'de> Deserialize<'de> for Count {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match usize::deserialize(deserializer)? {
            n @ 1..=STEP_ROWS => Ok(Count(n)),
            n => Err(D::Error::custom(format!("it is {n}, and must be from 1 to {STEP_ROWS}"))),
        }
    }
}

/// Bytes, written as GiB.
#[derive(Clone, Copy, Debug)]
pub(super) struct Gib(usize);

impl<'de> Deserialize<'de> for Gib {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let gib = f64::deserialize(deserializer)?;
        match gib > 0.0 && gib <= 1e6 {
            true => Ok(Gib((gib * (1u64 << 30) as f64) as usize)),
            false => Err(D::Error::custom(format!("{gib} GiB of KV cache: it must be above 0"))),
        }
    }
}
