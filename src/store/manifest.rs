//! The manifest: what a stage wrote, of what, and what it dropped. Writing it is the commit.

use std::collections::BTreeMap;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::faults::io_error;
use super::{Location, ShardInfo, hash_file, reader};
use crate::error::{Error, Result};
use crate::schema::DatasetKind;

/// Name of the manifest in a stage's folder.
pub const MANIFEST_FILE: &str = "_manifest.json";

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
    /// What else it left that others read: a model's files, tables of figures.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub files: Vec<FileInfo>,
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
    /// Digests of what the fingerprint was made of, by dotted name, where a change of it costs too much to be made
    /// unasked: so that a refusal can say what has changed.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub made_of: BTreeMap<String, String>,
}

/// A finished file that is no shard.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileInfo {
    /// Its path within the stage's folder, `/` between the parts.
    pub file: String,
    /// Its length.
    pub bytes: u64,
    /// BLAKE3 of it, 64 hex digits.
    pub blake3: String,
}

impl FileInfo {
    /// Reads a file of a stage's folder, a local one.
    ///
    /// # Errors
    /// The disk refuses.
    pub fn of(folder: &Path, file: impl Into<String>) -> Result<FileInfo> {
        let file = file.into();
        let path = folder.join(&file);
        let mut hasher = blake3::Hasher::new();
        let read = std::fs::metadata(&path).and_then(|metadata| {
            hash_file(&mut hasher, &path)?;
            Ok(metadata.len())
        });
        let bytes = read.map_err(|e| io_error("read what was just written", path.display(), e))?;
        Ok(FileInfo { file, bytes, blake3: hasher.finalize().to_hex().to_string() })
    }
}

/// A part of a stage's work that was done, and recorded, for itself.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Unit {
    /// How many of the manifest's shards belong to this unit; they follow the previous unit's.
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
            files: Vec::new(),
            drops: BTreeMap::new(),
            counts: BTreeMap::new(),
            facts: serde_json::Map::new(),
            units: Vec::new(),
            made_of: BTreeMap::new(),
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
    /// Names the first file that differs; the disk or store refuses.
    pub fn check_shards(&self, folder: &Location) -> Result<()> {
        let Some((shard, bytes)) = damaged(folder, &self.shards)?.into_iter().next() else { return Ok(()) };
        let message = match bytes {
            Some(bytes) => format!("the file has {bytes} bytes where the manifest says {}", shard.bytes),
            None => "a shard that the manifest lists is missing".to_owned(),
        };
        let hint = "run the recipe that made it again: it makes what is missing, and nothing else";
        let error = Error::new(message).in_file(folder.join(&shard.file)).hint(hint);
        Err(if folder.as_local().is_none() { error.hint(super::ANOTHER_RUN) } else { error })
    }

    /// Those of its files that are not as they were written, in its order. Reads all of them.
    ///
    /// # Errors
    /// The disk or store refuses.
    pub fn altered(&self, folder: &Location) -> Result<Vec<Altered>> {
        self.altered_within(folder, "")
    }

    /// As [`Manifest::altered`], of files whose path begins so.
    ///
    /// # Errors
    /// The disk or store refuses.
    pub fn altered_within(&self, folder: &Location, prefix: &str) -> Result<Vec<Altered>> {
        let listed: Vec<_> = self.listed().filter(|(file, ..)| file.starts_with(prefix)).collect();
        let cut = cut(folder, listed.iter().map(|(file, bytes, _)| (*file, *bytes)))?;
        let mut found = Vec::new();
        for (file, bytes, digest) in listed {
            let what = match cut.get(file) {
                Some(None) => "is gone".to_owned(),
                Some(Some(there)) => format!("has {there} bytes of {bytes}"),
                None if reader::digest(&folder.join(file), bytes)? == digest => continue,
                None => "has other bytes than were written".to_owned(),
            };
            found.push(Altered { file: file.to_owned(), what });
        }
        Ok(found)
    }

    /// Those of its files that are gone or were cut, with the bytes that are there. Reads none of them.
    ///
    /// # Errors
    /// The disk or store refuses to list the folder.
    pub fn damaged(&self, folder: &Location) -> Result<BTreeMap<&str, Option<u64>>> {
        cut(folder, self.listed().map(|(file, bytes, _)| (file, bytes)))
    }

    /// Whether the stage wrote a dataset into its own folder, and not only a model, figures, or texts for other tools.
    pub fn has_rows(&self) -> bool {
        self.schema.is_some() || self.shards.iter().any(|shard| shard.file.ends_with(".parquet"))
    }

    /// All of its files: path, bytes, digest.
    pub fn listed(&self) -> impl Iterator<Item = (&str, u64, &str)> {
        let shards = self.shards.iter().map(|shard| (shard.file.as_str(), shard.bytes, shard.blake3.as_str()));
        shards.chain(self.files.iter().map(|file| (file.file.as_str(), file.bytes, file.blake3.as_str())))
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
    let shards: Vec<&ShardInfo> = shards.into_iter().collect();
    let cut = cut(folder, shards.iter().map(|shard| (shard.file.as_str(), shard.bytes)))?;
    Ok(shards.into_iter().filter_map(|shard| Some((shard, *cut.get(shard.file.as_str())?))).collect())
}

/// Those of the files, each with the bytes it should have, that are gone or have others.
fn cut<'s>(
    folder: &Location,
    files: impl IntoIterator<Item = (&'s str, u64)>,
) -> Result<BTreeMap<&'s str, Option<u64>>> {
    // One listing a folder: in an object store every question is a request.
    let mut listed: BTreeMap<&str, BTreeMap<String, u64>> = BTreeMap::new();
    let mut found = BTreeMap::new();
    for (file, wanted) in files {
        let (parent, name) = file.rsplit_once('/').unwrap_or(("", file));
        if !listed.contains_key(parent) {
            let parent_folder = if parent.is_empty() { folder.clone() } else { folder.join(parent) };
            let files = parent_folder.list()?.into_iter().filter(|entry| !entry.is_folder);
            listed.insert(parent, files.map(|entry| (entry.name, entry.bytes)).collect());
        }
        let bytes = listed[parent].get(name).copied();
        if bytes != Some(wanted) {
            found.insert(file, bytes);
        }
    }
    Ok(found)
}

fn pretty(value: &impl Serialize) -> Vec<u8> {
    let mut bytes = serde_json::to_vec_pretty(value).expect("manifests have string keys and no failing types");
    bytes.push(b'\n');
    bytes
}
