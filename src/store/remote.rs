//! Object stores behind blocking calls.
//!
//! Futures run on a runtime of our own and the caller waits on a channel, so
//! these calls work on any thread, other runtimes' included (where
//! `Runtime::block_on` would panic).

use std::future::Future;
use std::sync::{Arc, LazyLock, mpsc};

use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt, WriteMultipart};
use tokio::runtime::Runtime;

use crate::error::{Error, Result};

/// Below this an object is sent in one request.
const PART_BYTES: usize = 8 << 20;

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

/// An object store's error with the URL and, for the common causes, what to do.
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
    Error::new(format!("cannot {doing}: {what}")).in_file(url).hint(hint).caused_by(error)
}

/// Uploads what `read` yields: one request if it is small, several parts otherwise.
pub(super) fn upload(
    store: &Arc<dyn ObjectStore>,
    path: &Path,
    url: &str,
    mut read: impl std::io::Read + Send + 'static,
) -> Result<()> {
    let (store, path) = (store.clone(), path.clone());
    let name = url.to_owned();
    wait(async move {
        let mut part = Vec::new();
        let fill = |read: &mut dyn std::io::Read, part: &mut Vec<u8>| {
            part.clear();
            std::io::Read::read_to_end(&mut std::io::Read::take(read, PART_BYTES as u64), part)
                .map_err(|e| super::faults::io_error("read the spooled shard of", &name, e))
        };
        let mut first = fill(&mut read, &mut part)?;
        if first < PART_BYTES {
            let put = store.put(&path, std::mem::take(&mut part).into()).await;
            return put.map(drop).map_err(|e| remote_error("upload", &name, e));
        }
        let upload = store.put_multipart(&path).await.map_err(|e| remote_error("upload", &name, e))?;
        let mut writer = WriteMultipart::new_with_chunk_size(upload, PART_BYTES);
        while first > 0 {
            writer.wait_for_capacity(4).await.map_err(|e| remote_error("upload", &name, e))?;
            writer.write(&part);
            first = fill(&mut read, &mut part)?;
        }
        writer.finish().await.map(drop).map_err(|e| remote_error("upload", &name, e))
    })
}
