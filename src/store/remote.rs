//! Object stores behind blocking calls.
//!
//! Futures run on a runtime of our own and the caller waits on a channel, so
//! these calls work on any thread, other runtimes' included (where
//! `Runtime::block_on` would panic).

use std::future::Future;
use std::io::Read;
use std::sync::{Arc, LazyLock, mpsc};

use futures::TryStreamExt;
use futures::stream::FuturesUnordered;
use object_store::path::Path;
use object_store::{MultipartUpload, ObjectStore, ObjectStoreExt};
use tokio::runtime::Runtime;

use super::faults::io_error;
use crate::error::{Error, Result};

/// Below this an object is sent in one request.
const PART_BYTES: usize = 8 << 20;
/// Parts sent at once.
const PARTS_IN_FLIGHT: usize = 4;

static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .thread_name("gristmill-store")
        .enable_all()
        .build()
        .expect("a process that runs can start two threads")
});

/// Runs the future to its end and blocks the calling thread meanwhile.
pub(super) fn wait<T: Send + 'static>(future: impl Future<Output = T> + Send + 'static) -> T {
    let (sender, receiver) = mpsc::sync_channel(1);
    RUNTIME.spawn(async move {
        // The receiver waits below for as long as this runs.
        let _ = sender.send(future.await);
    });
    receiver.recv().expect("the task sends its result before it ends")
}

/// The store of a bucket (or container), configured from the environment variables
/// the provider's own tools read (`AWS_…`, `GOOGLE_…`, `AZURE_…`).
pub(super) fn connect(scheme: &str, bucket: &str) -> Result<Arc<dyn ObjectStore>> {
    let url = format!("{scheme}://{bucket}");
    #[cfg(feature = "cloud")]
    {
        use object_store::{aws::AmazonS3Builder, azure::MicrosoftAzureBuilder, gcp::GoogleCloudStorageBuilder};
        let built = match scheme {
            "s3" => {
                AmazonS3Builder::from_env().with_url(&url).build().map(|store| Arc::new(store) as Arc<dyn ObjectStore>)
            }
            "gs" => GoogleCloudStorageBuilder::from_env().with_url(&url).build().map(|store| Arc::new(store) as _),
            _ => MicrosoftAzureBuilder::from_env().with_url(&url).build().map(|store| Arc::new(store) as _),
        };
        built.map_err(|e| remote_error("connect", &url, e))
    }
    #[cfg(not(feature = "cloud"))]
    Err(Error::usage(format!("this gristmill was built without {scheme}:// paths"))
        .in_file(url)
        .hint("build it with `--features cloud`"))
}

/// An object store's error with the URL, its innermost cause and, for the common ones, what to do.
pub(super) fn remote_error(doing: &str, url: &str, error: object_store::Error) -> Error {
    use object_store::Error::{NotFound, PermissionDenied, Unauthenticated};
    let (what, hint) = match &error {
        NotFound { .. } => ("there is no such object", "check the URL"),
        PermissionDenied { .. } => ("permission denied", "check the rights of the credentials in the environment"),
        Unauthenticated { .. } => {
            ("the credentials are missing or wrong", "set the provider's usual environment variables")
        }
        _ => ("the object store did not answer as hoped", "check the URL, the endpoint and the network"),
    };
    Error::new(format!("cannot {doing}: {what}")).in_file(url).hint(hint).caused_by(Reason::of(&error))
}

/// Why a request failed. Each layer of a client repeats what is below it, and the lowest may hold a page of XML.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Reason(String);

impl Reason {
    fn of(error: &dyn std::error::Error) -> Reason {
        let mut innermost = error;
        while let Some(source) = innermost.source() {
            innermost = source;
        }
        let text = innermost.to_string();
        let element = |name: &str| {
            let (_, rest) = text.split_once(&format!("<{name}>"))?;
            rest.split_once(&format!("</{name}>")).map(|(value, _)| value.trim())
        };
        let answer = text.split('<').next().unwrap_or_default().trim().trim_end_matches(':');
        Reason(match (element("Code"), element("Message")) {
            (Some(code), Some(message)) => format!("{answer} ({code}: {message})"),
            (Some(only), None) | (None, Some(only)) => format!("{answer} ({only})"),
            (None, None) => text.lines().next().unwrap_or_default().to_owned(),
        })
    }
}

/// Uploads what `read` yields: one request if it is small, several parts otherwise. Of an upload that
/// fails nothing stays at the store.
pub(super) fn upload(
    store: &Arc<dyn ObjectStore>,
    path: &Path,
    url: &str,
    read: impl Read + Send + 'static,
) -> Result<()> {
    let (store, path) = (store.clone(), path.clone());
    let mut parts = Parts { read, name: url.to_owned() };
    wait(async move {
        let name = parts.name.clone();
        let failed = |e| remote_error("upload", &name, e);
        let first = parts.next()?;
        if first.len() < PART_BYTES {
            return store.put(&path, first.into()).await.map(drop).map_err(failed);
        }
        let mut upload = store.put_multipart(&path).await.map_err(failed)?;
        let sent = send(&mut *upload, first, &mut parts).await;
        if sent.is_err() {
            // Best effort: the store is at fault already, and what stays there is paid for but never seen.
            let _ = upload.abort().await;
        }
        sent
    })
}

/// Sends all parts, a few at a time, and has the store put them together.
async fn send<R: Read>(upload: &mut dyn MultipartUpload, first: Vec<u8>, parts: &mut Parts<R>) -> Result<()> {
    let name = parts.name.clone();
    let failed = |e| remote_error("upload", &name, e);
    let mut flying = FuturesUnordered::new();
    let mut part = first;
    while !part.is_empty() {
        if flying.len() == PARTS_IN_FLIGHT {
            flying.try_next().await.map_err(failed)?;
        }
        flying.push(upload.put_part(part.into()));
        part = parts.next()?;
    }
    while flying.try_next().await.map_err(failed)?.is_some() {}
    upload.complete().await.map(drop).map_err(failed)
}

/// What is to be uploaded, cut into parts.
struct Parts<R> {
    read: R,
    name: String,
}

impl<R: Read> Parts<R> {
    /// The next part; an empty one at the end.
    fn next(&mut self) -> Result<Vec<u8>> {
        let mut part = Vec::new();
        let read = self.read.by_ref().take(PART_BYTES as u64).read_to_end(&mut part);
        read.map_err(|e| io_error("read the spooled bytes of", &self.name, e))?;
        Ok(part)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("a request failed: {0}")]
    struct Outer(#[source] Inner);

    #[derive(Debug, thiserror::Error)]
    #[error(
        "Server returned non-2xx status code: 403 Forbidden: <?xml version=\"1.0\"?><Error><Code>AccessDenied</Code><Message>Access Denied</Message><RequestId>x</RequestId></Error>"
    )]
    struct Inner;

    #[test]
    fn a_cause_is_told_once_and_without_its_xml() {
        let source = Box::new(Outer(Inner));
        let error = object_store::Error::Generic { store: "S3", source };
        let told = remote_error("read", "s3://bucket/file", error).render(false);
        assert!(told.contains("403 Forbidden (AccessDenied: Access Denied)"), "{told}");
        assert_eq!(told.matches("403").count(), 1, "{told}");
        assert!(!told.contains('<'), "{told}");
    }
}
