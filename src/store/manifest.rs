//! The manifest: what a stage wrote, of what, and what it dropped. Writing it is the commit.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{Location, ShardInfo};
use crate::error::{Error, Result};
use crate::schema::DatasetKind;

/// Name of the manifest in a stage's folder.
pub const MANIFEST_FILE: &str = "_manifest.json";
/// Name of the file beside it that holds what differs between two equal runs: wall-clock times.
pub const TIMES_FILE: &str = "_times.json";

/// A dataset's kind and the version of its contract.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SchemaName {
    pub name: DatasetKind,
    pub version: u32,
}

/// What a stage's folder says of itself. Two runs of the same recipe write the same bytes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    /// Version of this file's own layout.
    pub format: u32,
    /// The stage's name in the recipe.
    pub stage: String,
    /// What it does: `prompts`, `generate`, `verify` …
    pub kind: String,
    /// The contract of its rows; none for stages that write other things than datasets.
    pub schema: Option<SchemaName>,
    /// BLAKE3 of everything the output depends on.
    pub fingerprint: String,
    /// Rows of all shards.
    pub rows: u64,
    /// In file order.
    pub shards: Vec<ShardInfo>,
    /// Rows that were dropped, by reason.
    #[serde(default)]
    pub drops: BTreeMap<String, u64>,
    /// Sums over the rows, such as `correct` or `completion_tokens`.
    #[serde(default)]
    pub counts: BTreeMap<String, u64>,
    /// What else is worth knowing: engine, device, token totals. Kept in the order given.
    #[serde(default)]
    pub facts: serde_json::Map<String, serde_json::Value>,
}

impl Manifest {
    /// The layout this gristmill writes and the newest it reads.
    pub const FORMAT: u32 = 1;

    /// A manifest of these shards, without drops and facts; its row count is theirs.
    pub fn new(
        stage: impl Into<String>,
        kind: impl Into<String>,
        schema: Option<DatasetKind>,
        fingerprint: impl Into<String>,
        shards: Vec<ShardInfo>,
    ) -> Manifest {
        Manifest {
            format: Manifest::FORMAT,
            stage: stage.into(),
            kind: kind.into(),
            schema: schema.map(|name| SchemaName { name, version: name.version() }),
            fingerprint: fingerprint.into(),
            rows: shards.iter().map(|shard| shard.rows).sum(),
            shards,
            drops: BTreeMap::new(),
            counts: BTreeMap::new(),
            facts: serde_json::Map::new(),
        }
    }

    /// BLAKE3 of the manifest: names the dataset's content and how it was made.
    pub fn digest(&self) -> String {
        blake3::hash(&pretty(self)).to_hex().to_string()
    }

    /// Commits the stage: writes the manifest into its folder, atomically and durably.
    ///
    /// # Errors
    /// The disk or store refuses.
    pub fn commit(&self, folder: &Location) -> Result<()> {
        folder.join(MANIFEST_FILE).write(pretty(self))
    }

    /// The manifest of a folder; `None` if it has none, that is, if nothing was committed there.
    ///
    /// # Errors
    /// It cannot be read, is not a manifest, or is of a newer layout.
    pub fn load(folder: &Location) -> Result<Option<Manifest>> {
        #[derive(Deserialize)]
        struct Format {
            format: u32,
        }
        let file = folder.join(MANIFEST_FILE);
        let Some(bytes) = file.read_if_exists()? else { return Ok(None) };
        let bad = |e: serde_json::Error| {
            Error::new(format!("this is not a manifest: {e}"))
                .in_file(&file)
                .at_line(e.line(), Some(e.column()))
                .hint("remove the file to have the stage run again")
        };
        let Format { format } = serde_json::from_slice(&bytes).map_err(bad)?;
        if format > Manifest::FORMAT {
            return Err(Error::new(format!(
                "manifest format {format} is newer than this gristmill, which reads up to {}",
                Manifest::FORMAT
            ))
            .in_file(&file)
            .hint("use the gristmill that wrote it, or a later one"));
        }
        serde_json::from_slice(&bytes).map(Some).map_err(bad)
    }
}

/// Writes what may differ between two equal runs (start, end, seconds) beside the manifest.
///
/// # Errors
/// The disk or store refuses.
pub fn write_times(folder: &Location, times: &serde_json::Map<String, serde_json::Value>) -> Result<()> {
    folder.join(TIMES_FILE).write(pretty(times))
}

/// What [`write_times`] wrote; `None` if there is no such file or it is not readable as JSON.
///
/// # Errors
/// The disk or store refuses.
pub fn read_times(folder: &Location) -> Result<Option<serde_json::Map<String, serde_json::Value>>> {
    let bytes = folder.join(TIMES_FILE).read_if_exists()?;
    Ok(bytes.and_then(|bytes| serde_json::from_slice(&bytes).ok()))
}

fn pretty(value: &impl Serialize) -> Vec<u8> {
    let mut bytes = serde_json::to_vec_pretty(value).expect("manifests have string keys and no failing types");
    bytes.push(b'\n');
    bytes
}
