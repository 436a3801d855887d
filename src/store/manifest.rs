//! The manifest: what a stage wrote, of what, and what it dropped. Writing it is the commit.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{Location, ShardInfo, reader};
use crate::error::{Error, Result};
use crate::schema::DatasetKind;

/// Name of the manifest in a stage's folder.
pub const MANIFEST_FILE: &str = "_manifest.json";
/// Name of the file beside it that holds what differs between two equal runs: wall-clock times.
pub const TIMES_FILE: &str = "_times.json";

/// A dataset's kind and the version of its contract.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SchemaName {
    /// Which contract.
    pub name: DatasetKind,
    /// From 1; a newer one than the program's is refused.
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
    /// What each unit of the work came to, in order, where there were several: so that one whose shard
    /// is lost later is made again alone.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub units: Vec<Unit>,
}

/// A part of a stage's work that was done, and recorded, for itself.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Unit {
    /// Shards of the manifest that are its, from where the unit before it ends.
    pub shards: usize,
    /// Rows it dropped, by reason.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub drops: BTreeMap<String, u64>,
    /// Sums over its rows, as in [`Manifest::counts`].
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub counts: BTreeMap<String, u64>,
    /// What else it noted, as in [`Manifest::facts`].
    #[serde(default, skip_serializing_if = "serde_json::Map::is_empty")]
    pub facts: serde_json::Map<String, serde_json::Value>,
}

/// A file that is not as its stage wrote it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Altered {
    /// Its path within the stage's folder.
    pub file: String,
    /// What is wrong: it is gone, has fewer or more bytes, or others.
    pub what: String,
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
            units: Vec::new(),
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

    /// Commits the stage unless it is committed already; whether it did. Of several that try at once in an
    /// object store one does; on a disk the caller holds others off.
    ///
    /// # Errors
    /// The disk or store refuses.
    pub fn commit_first(&self, folder: &Location) -> Result<bool> {
        let file = folder.join(MANIFEST_FILE);
        match file.as_local() {
            None => file.write_new(pretty(self)),
            Some(_) if file.size()?.is_some() => Ok(false),
            Some(_) => file.write(pretty(self)).map(|()| true),
        }
    }

    /// Fails if a shard that it lists is gone or was cut.
    ///
    /// # Errors
    /// That, naming the first such file; the disk or store refuses.
    pub fn check_shards(&self, folder: &Location) -> Result<()> {
        let Some((shard, bytes)) = damaged(folder, &self.shards)?.into_iter().next() else { return Ok(()) };
        let message = match bytes {
            Some(bytes) => format!("the file has {bytes} bytes where the manifest says {}", shard.bytes),
            None => "a shard that the manifest lists is missing".to_owned(),
        };
        let hint = "run the recipe that made it again: it makes what is missing, and nothing else";
        Err(Error::new(message).in_file(folder.join(&shard.file)).hint(hint))
    }

    /// Those of its files that are not as they were written, in its order. Reads all of them.
    ///
    /// # Errors
    /// The disk or store refuses.
    pub fn altered(&self, folder: &Location) -> Result<Vec<Altered>> {
        let damaged = damaged(folder, &self.shards)?;
        let mut found = Vec::new();
        for shard in &self.shards {
            let what = match damaged.iter().find(|(other, _)| std::ptr::eq(*other, shard)) {
                Some((_, None)) => "is gone".to_owned(),
                Some((_, Some(bytes))) => format!("has {bytes} bytes of {}", shard.bytes),
                None if reader::digest(&folder.join(&shard.file), shard.bytes)? == shard.blake3 => continue,
                None => "has other bytes than were written".to_owned(),
            };
            found.push(Altered { file: shard.file.clone(), what });
        }
        Ok(found)
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
                .hint("bring the file back, or have the stage made again with `--from STAGE`")
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

/// Those of the shards whose file in the folder is gone (`None`) or has another size (its bytes).
///
/// # Errors
/// The disk or store refuses to list the folder.
pub fn damaged<'s>(
    folder: &Location,
    shards: impl IntoIterator<Item = &'s ShardInfo>,
) -> Result<Vec<(&'s ShardInfo, Option<u64>)>> {
    // One listing a folder: in an object store every question is a request.
    let mut listed: BTreeMap<&str, BTreeMap<String, u64>> = BTreeMap::new();
    let mut found = Vec::new();
    for shard in shards {
        let (parent, name) = shard.file.rsplit_once('/').unwrap_or(("", &shard.file));
        if !listed.contains_key(parent) {
            let parent_folder = if parent.is_empty() { folder.clone() } else { folder.join(parent) };
            let files = parent_folder.list()?.into_iter().filter(|entry| !entry.is_folder);
            listed.insert(parent, files.map(|entry| (entry.name, entry.bytes)).collect());
        }
        let bytes = listed[parent].get(name).copied();
        if bytes != Some(shard.bytes) {
            found.push((shard, bytes));
        }
    }
    Ok(found)
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
