//! A path or URL: local disk, `s3://`, `gs://`, `az://`, behind one set of blocking calls.

use std::fmt;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use futures::TryStreamExt;
use object_store::{ObjectStore, ObjectStoreExt};

use super::faults::io_error;
use super::hash::hash_file;
use super::pending::{PendingFile, folder_of, make_folder};
use super::remote::{connect, remote_error, upload, wait};
use crate::error::{Error, Result};

/// A file or folder, on the local disk or in an object store.
#[derive(Clone)]
pub struct Location(Place);

#[derive(Clone)]
pub(super) enum Place {
    Local(PathBuf),
    Remote { store: Arc<dyn ObjectStore>, root: Arc<str>, path: object_store::path::Path },
}

/// What [`Location::list`] finds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The last part of its path.
    pub name: String,
    /// Whether it holds entries itself; of an object store, whether it is a prefix of keys.
    pub is_folder: bool,
    /// 0 for folders.
    pub bytes: u64,
    /// Of an object, what changes when its bytes do (its ETag); none of local files and folders.
    pub mark: Option<String>,
}

impl Location {
    /// Reads a local path, `file://`, `s3://bucket/path`, `gs://bucket/path` or `az://container/path`.
    ///
    /// Nothing is contacted yet; credentials and endpoints come from the environment
    /// variables the provider's own tools read.
    ///
    /// # Errors
    /// The text is empty, has an unknown scheme or no bucket, or the environment's
    /// configuration of the object store is not usable.
    pub fn parse(text: &str) -> Result<Location> {
        if text.is_empty() {
            return Err(Error::usage("a path is empty"));
        }
        let Some((scheme, rest)) = text.split_once("://") else {
            return Ok(Location(Place::Local(PathBuf::from(text))));
        };
        match scheme {
            "file" => {
                // `file://localhost/path` and `file:///path` are the same.
                let path = rest.strip_prefix("localhost").unwrap_or(rest);
                Ok(Location(Place::Local(PathBuf::from(path))))
            }
            "s3" | "gs" | "az" => {
                let (bucket, path) = rest.split_once('/').unwrap_or((rest, ""));
                if bucket.is_empty() {
                    return Err(Error::usage("the URL names no bucket")
                        .in_file(text)
                        .hint(format!("{scheme}://bucket/path")));
                }
                let path = object_store::path::Path::parse(path.trim_matches('/'))
                    .map_err(|e| Error::usage("the URL's path is not valid").in_file(text).caused_by(e))?;
                let root = format!("{scheme}://{bucket}").into();
                Ok(Location(Place::Remote { store: connect(scheme, bucket)?, root, path }))
            }
            other => Err(Error::usage(format!("paths of the kind `{other}://` are not known")).in_file(text).hint(
                super::hub_hint(text).unwrap_or_else(|| "use a local path, file://, s3://, gs:// or az://".into()),
            )),
        }
    }

    /// The local path, if it is one.
    pub fn as_local(&self) -> Option<&Path> {
        match &self.0 {
            Place::Local(path) => Some(path),
            Place::Remote { .. } => None,
        }
    }

    pub(super) fn place(&self) -> &Place {
        &self.0
    }

    /// This folder's file or folder of that relative name, `/` between the parts.
    pub fn join(&self, name: &str) -> Location {
        match &self.0 {
            Place::Local(path) => Location(Place::Local(path.join(name))),
            Place::Remote { store, root, path } => {
                let path =
                    name.split('/').filter(|part| !part.is_empty()).fold(path.clone(), |path, part| path.join(part));
                Location(Place::Remote { store: store.clone(), root: root.clone(), path })
            }
        }
    }

    /// The last part of the path.
    pub fn file_name(&self) -> &str {
        match &self.0 {
            Place::Local(path) => path.file_name().and_then(|name| name.to_str()).unwrap_or_default(),
            Place::Remote { path, .. } => path.filename().unwrap_or_default(),
        }
    }

    /// The folder it lies in; of a bucket, the bucket itself.
    pub fn parent(&self) -> Location {
        match &self.0 {
            Place::Local(path) => Location(Place::Local(path.parent().map(Path::to_path_buf).unwrap_or_default())),
            Place::Remote { store, root, path } => {
                let parent = path.as_ref().rsplit_once('/').map_or("", |(parent, _)| parent);
                Location(Place::Remote { store: store.clone(), root: root.clone(), path: parent.into() })
            }
        }
    }

    /// The size of the file in bytes, or `None` if there is no such file (a folder is not one).
    ///
    /// # Errors
    /// The disk or store refuses to say.
    pub fn size(&self) -> Result<Option<u64>> {
        Ok(self.look()?.map(|entry| entry.bytes))
    }

    /// What is known of the file without reading it, or `None` if there is no such file.
    ///
    /// # Errors
    /// As [`Location::size`].
    pub fn look(&self) -> Result<Option<Entry>> {
        let file = |bytes, mark| Entry { name: self.file_name().to_owned(), is_folder: false, bytes, mark };
        match &self.0 {
            Place::Local(path) => match fs::metadata(path) {
                Ok(metadata) => Ok(metadata.is_file().then(|| file(metadata.len(), None))),
                Err(e) if is_absent(&e) => Ok(None),
                Err(e) => Err(io_error("look at", self, e)),
            },
            Place::Remote { store, path, .. } => {
                if path.as_ref().is_empty() {
                    return Ok(None);
                }
                let (store, path) = (store.clone(), path.clone());
                match wait(async move { store.head(&path).await }) {
                    Ok(meta) => Ok(Some(file(meta.size, Some(mark(&meta))))),
                    Err(object_store::Error::NotFound { .. }) => Ok(None),
                    Err(e) => Err(remote_error("look at", &self.to_string(), e)),
                }
            }
        }
    }

    /// Whether there is a file, or a folder with something in it (locally also an empty one).
    ///
    /// # Errors
    /// The disk or store refuses to say.
    pub fn exists(&self) -> Result<bool> {
        match &self.0 {
            Place::Local(path) => path.try_exists().map_err(|e| io_error("look at", self, e)),
            Place::Remote { .. } => Ok(self.size()?.is_some() || !self.list()?.is_empty()),
        }
    }

    /// What the folder is called without links, if it is there; an object store has none.
    pub(crate) fn canonical(&self) -> String {
        let real = self.as_local().and_then(|path| match path.as_os_str().is_empty() {
            true => std::env::current_dir().ok(),
            false => fs::canonicalize(path).ok(),
        });
        real.map_or_else(|| self.to_string(), |path| path.display().to_string())
    }

    /// What lies directly in the folder, by name; nothing if there is no such folder.
    ///
    /// # Errors
    /// It is a file, or the disk or store refuses to list it.
    pub fn list(&self) -> Result<Vec<Entry>> {
        let mut entries = match &self.0 {
            Place::Local(path) => {
                let folder = if path.as_os_str().is_empty() { Path::new(".") } else { path };
                let listing = match fs::read_dir(folder) {
                    Ok(listing) => listing,
                    Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
                    Err(e) => return Err(io_error("list", self, e)),
                };
                let mut entries = Vec::new();
                for entry in listing {
                    let entry = entry.map_err(|e| io_error("list", self, e))?;
                    // Through links; one that leads nowhere (or is gone by now) is not listed.
                    let Ok(metadata) = fs::metadata(entry.path()) else { continue };
                    entries.push(Entry {
                        name: entry.file_name().to_string_lossy().into_owned(),
                        is_folder: metadata.is_dir(),
                        bytes: if metadata.is_dir() { 0 } else { metadata.len() },
                        mark: None,
                    });
                }
                entries
            }
            Place::Remote { store, path, .. } => {
                let (store, path) = (store.clone(), path.clone());
                let listing = wait(async move { store.list_with_delimiter(Some(&path)).await })
                    .map_err(|e| remote_error("list", &self.to_string(), e))?;
                let folder = |path: &object_store::path::Path| Entry {
                    name: path.filename().unwrap_or_default().to_owned(),
                    is_folder: true,
                    bytes: 0,
                    mark: None,
                };
                let files = listing.objects.iter().map(|object| Entry {
                    name: object.location.filename().unwrap_or_default().to_owned(),
                    is_folder: false,
                    bytes: object.size,
                    mark: Some(mark(object)),
                });
                listing.common_prefixes.iter().map(folder).chain(files).collect()
            }
        };
        entries.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(entries)
    }

    /// The whole file.
    ///
    /// # Errors
    /// There is no such file, or the disk or store refuses to give it.
    pub fn read(&self) -> Result<Bytes> {
        self.read_if_exists()?
            .ok_or_else(|| Error::new("cannot read: there is no such file").in_file(self).hint("check the path"))
    }

    /// The whole file, or `None` if there is none.
    ///
    /// # Errors
    /// The disk or store refuses to give it.
    pub fn read_if_exists(&self) -> Result<Option<Bytes>> {
        match &self.0 {
            Place::Local(path) => match fs::read(path) {
                Ok(bytes) => Ok(Some(bytes.into())),
                Err(e) if is_absent(&e) => Ok(None),
                Err(e) => Err(io_error("read", self, e)),
            },
            Place::Remote { store, path, .. } => {
                let (store, path) = (store.clone(), path.clone());
                match wait(async move { store.get(&path).await?.bytes().await }) {
                    Ok(bytes) => Ok(Some(bytes)),
                    Err(object_store::Error::NotFound { .. }) => Ok(None),
                    Err(e) => Err(remote_error("read", &self.to_string(), e)),
                }
            }
        }
    }

    /// BLAKE3 of the file's bytes, 64 hex digits. They stream through: memory does not depend on the size.
    ///
    /// # Errors
    /// There is no such file, or the disk or store refuses to give it.
    pub fn blake3(&self) -> Result<String> {
        let mut hasher = blake3::Hasher::new();
        match &self.0 {
            Place::Local(path) => hash_file(&mut hasher, path).map_err(|e| io_error("read", self, e))?,
            Place::Remote { store, path, .. } => {
                let (store, path) = (store.clone(), path.clone());
                hasher = wait(async move {
                    let mut chunks = store.get(&path).await?.into_stream();
                    while let Some(chunk) = chunks.try_next().await? {
                        hasher.update(&chunk);
                    }
                    Ok::<_, object_store::Error>(hasher)
                })
                .map_err(|e| remote_error("read", &self.to_string(), e))?;
            }
        }
        Ok(hasher.finalize().to_hex().to_string())
    }

    /// Writes the whole file at once: readers see the old bytes or the new ones, whatever
    /// happens meanwhile. When this returns, a local file is on the disk. Folders are made.
    ///
    /// # Errors
    /// The disk is full or read-only, permission is denied, the store refuses.
    pub fn write(&self, bytes: impl Into<Bytes>) -> Result<()> {
        let bytes = bytes.into();
        match &self.0 {
            Place::Local(path) => {
                let mut pending = PendingFile::create(path)?;
                pending.file.write_all(&bytes).map_err(|e| io_error("write", self, e))?;
                pending.publish()
            }
            Place::Remote { store, path, .. } => upload(store, path, &self.to_string(), std::io::Cursor::new(bytes)),
        }
    }

    /// Writes the whole file unless there is one; whether it did. Of several that try at once one does.
    ///
    /// # Errors
    /// As [`Location::write`].
    pub fn write_new(&self, bytes: impl Into<Bytes>) -> Result<bool> {
        let bytes = bytes.into();
        match &self.0 {
            Place::Local(path) => {
                make_folder(folder_of(path))?;
                match fs::File::create_new(path) {
                    Ok(mut file) => {
                        file.write_all(&bytes)
                            .and_then(|()| file.sync_all())
                            .map_err(|e| io_error("write", self, e))?;
                        Ok(true)
                    }
                    Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => Ok(false),
                    Err(e) => Err(io_error("write", self, e)),
                }
            }
            Place::Remote { store, path, .. } => {
                let (store, path) = (store.clone(), path.clone());
                let mode = object_store::PutMode::Create.into();
                match wait(async move { store.put_opts(&path, bytes.into(), mode).await }) {
                    Ok(_) => Ok(true),
                    Err(object_store::Error::AlreadyExists { .. }) => Ok(false),
                    Err(e) => Err(remote_error("upload", &self.to_string(), e)),
                }
            }
        }
    }

    /// Deletes the file; no error if there is none.
    ///
    /// # Errors
    /// The disk or store refuses.
    pub fn delete(&self) -> Result<()> {
        match &self.0 {
            Place::Local(path) => match fs::remove_file(path) {
                Ok(()) => Ok(()),
                Err(e) if is_absent(&e) => Ok(()),
                Err(e) => Err(io_error("delete", self, e)),
            },
            Place::Remote { store, path, .. } => {
                let (store, path) = (store.clone(), path.clone());
                match wait(async move { store.delete(&path).await }) {
                    Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
                    Err(e) => Err(remote_error("delete", &self.to_string(), e)),
                }
            }
        }
    }

    /// Makes the folder and those above it; nothing to do in an object store.
    ///
    /// # Errors
    /// The disk refuses.
    pub fn create_folder(&self) -> Result<()> {
        match &self.0 {
            Place::Local(path) if path.as_os_str().is_empty() => Ok(()),
            Place::Local(path) => make_folder(path),
            Place::Remote { .. } => Ok(()),
        }
    }
}

impl From<&Path> for Location {
    fn from(path: &Path) -> Self {
        Location(Place::Local(path.to_owned()))
    }
}

impl From<PathBuf> for Location {
    fn from(path: PathBuf) -> Self {
        Location(Place::Local(path))
    }
}

/// The path as the user would write it; credentials never appear in it.
impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Place::Local(path) => path.display().fmt(f),
            Place::Remote { root, path, .. } if path.as_ref().is_empty() => f.write_str(root),
            Place::Remote { root, path, .. } => write!(f, "{root}/{path}"),
        }
    }
}

impl fmt::Debug for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// What changes when an object's bytes do.
fn mark(object: &object_store::ObjectMeta) -> String {
    object.e_tag.clone().unwrap_or_else(|| object.last_modified.to_rfc3339())
}

fn is_absent(error: &std::io::Error) -> bool {
    matches!(error.kind(), std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory)
}
