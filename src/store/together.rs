//! Many objects at once: a store takes its tens of milliseconds for each request, whatever it is for.

use std::sync::Arc;

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt};
use object_store::{ObjectStore, ObjectStoreExt};

use super::Location;
use super::location::Place;
use super::remote::{remote_error, wait};
use crate::error::{Error, Result};

/// Requests under way together.
pub(super) const AT_ONCE: usize = 16;

/// The bytes of files, in their order; all of them are in memory.
///
/// # Errors
/// One is gone, or the disk or store refuses to give it.
pub(super) fn read(files: &[Location]) -> Result<Vec<Bytes>> {
    let objects: Vec<_> = files.iter().filter_map(object).collect();
    if objects.len() < files.len() {
        return files.iter().map(Location::read).collect();
    }
    let fetches: Vec<_> = objects.into_iter().map(fetch).collect();
    wait(async move { futures::stream::iter(fetches).buffered(AT_ONCE).try_collect().await })
}

async fn fetch((store, path, name): Object) -> Result<Bytes> {
    let fetched = async { store.get(&path).await?.bytes().await };
    fetched.await.map_err(|error| match error {
        // What was listed a moment ago somebody else has deleted.
        object_store::Error::NotFound { .. } => {
            Error::new("an object that was there a moment ago is gone").in_file(name).hint(super::ANOTHER_RUN)
        }
        error => remote_error("read", &name, error),
    })
}

/// Deletes files; those that are gone already are no error.
///
/// # Errors
/// The disk or store refuses.
pub(super) fn delete(files: &[Location]) -> Result<()> {
    let objects: Vec<_> = files.iter().filter_map(object).collect();
    if objects.len() < files.len() {
        return files.iter().try_for_each(Location::delete);
    }
    let removals: Vec<_> = objects.into_iter().map(remove).collect();
    wait(async move { futures::stream::iter(removals).buffer_unordered(AT_ONCE).try_collect().await })
}

/// One request each: not every store that speaks S3 knows how to delete many by one.
async fn remove((store, path, name): Object) -> Result<()> {
    match store.delete(&path).await {
        Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
        Err(error) => Err(remote_error("delete", &name, error)),
    }
}

type Object = (Arc<dyn ObjectStore>, object_store::path::Path, String);

fn object(file: &Location) -> Option<Object> {
    match file.place() {
        Place::Local(_) => None,
        Place::Remote { store, path, .. } => Some((store.clone(), path.clone(), file.to_string())),
    }
}
