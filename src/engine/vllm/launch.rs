//! A server of our own: `vllm serve` as a child process, taken down with its whole process group.
//!
//! It ends with its owner, however that ends: dropped, unwound by a panic, or killed. SIGTERM is not enough:
//! vLLM can hang in its shutdown, and hold port and memory. So a shell watches the owner ([`watcher`]), gives the
//! server time after SIGTERM and then kills it, whether the owner is still there or not.

#[cfg(all(test, unix))]
mod tests;
#[cfg(unix)]
mod watcher;

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use super::config::ServerConfig;
use super::transport::redact;
use crate::error::{Context, Error, Result};

/// A running child server.
pub(super) struct ManagedServer {
    child: Child,
    pub address: String,
    pub log: PathBuf,
    /// What its log may hold and errors must not.
    secrets: Vec<String>,
    #[cfg(unix)]
    watcher: watcher::Watcher,
}

/// How long a server may take to end by itself after SIGTERM.
const GRACE: Duration = Duration::from_secs(15);

impl ManagedServer {
    /// Starts the server; it is not ready yet.
    ///
    /// # Errors
    /// The log cannot be written, no port is free or the one that is asked is taken, or the program cannot
    /// be started.
    pub fn start(config: &ServerConfig, api_key: Option<&str>) -> Result<Self> {
        Self::start_with(config, api_key, GRACE)
    }

    /// The same, with so long to end by itself.
    fn start_with(config: &ServerConfig, api_key: Option<&str>, grace: Duration) -> Result<Self> {
        let port = free_port(config.port)?;
        let log = if config.log.as_os_str().is_empty() { config.default_log() } else { config.log.clone() };
        let out = File::create(&log)
            .map_err(|e| Error::new("the server's log cannot be written").in_file(log.display()).caused_by(e))?;
        let err = out.try_clone().or_fail(|| "the server's log cannot be shared".into())?;
        let mut command = Command::new(&config.command);
        command
            .args(["serve", &config.model, "--host", "127.0.0.1", "--port", &port.to_string()])
            .args(&config.args)
            .envs(&config.env)
            .stdin(Stdio::null())
            .stdout(out)
            .stderr(err);
        if let Some(key) = api_key {
            // By environment: an argument would show in the process list.
            command.env("VLLM_API_KEY", key);
        }
        #[cfg(unix)]
        let mut watcher = watcher::Watcher::start(grace)
            .or_fail(|| "the shell that ends the server with gristmill, /bin/sh, cannot be started".into())?;
        #[cfg(unix)]
        let child = watcher.spawn(command);
        #[cfg(not(unix))]
        let child = command.spawn();
        let child = child.map_err(|e| {
            Error::new(format!("the server `{}` cannot be started", config.command))
                .caused_by(e)
                .hint("install vLLM (`pip install vllm`), or set `server.command` to its path")
        })?;
        let mut secrets = config.secrets();
        secrets.extend(api_key.map(str::to_owned));
        Ok(ManagedServer {
            child,
            address: format!("http://127.0.0.1:{port}"),
            log,
            secrets,
            #[cfg(unix)]
            watcher,
        })
    }

    /// Whether the server still runs.
    ///
    /// # Errors
    /// It has ended; with the last lines of its log.
    pub fn check(&mut self) -> Result<()> {
        let Some(status) = self.child.try_wait().or_fail(|| "the server cannot be watched".into())? else {
            return Ok(());
        };
        Err(Error::new(format!("the server that was started here has ended ({status}):\n{}", self.log_tail()))
            .in_file(self.log.display())
            .hint("the whole log is in that file; `server.args` and `server.env` are passed to the server"))
    }

    /// The last lines of the log.
    fn log_tail(&self) -> String {
        let read = || -> std::io::Result<String> {
            let mut file = File::open(&self.log)?;
            let length = file.metadata()?.len();
            file.seek(SeekFrom::Start(length.saturating_sub(4096)))?;
            let mut bytes = Vec::new();
            file.read_to_end(&mut bytes)?;
            Ok(String::from_utf8_lossy(&bytes).into_owned())
        };
        let text = read().unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        let last = lines[lines.len().saturating_sub(12)..].join("\n");
        if last.trim().is_empty() {
            return "its log is empty".into();
        }
        self.secrets.iter().fold(last, |text, secret| redact(text, secret))
    }
}

/// The port to serve at. A port that is taken is refused: whoever listens there would be asked in the
/// place of our server, which cannot listen and ends.
fn free_port(wanted: u16) -> Result<u16> {
    let bound = TcpListener::bind(("127.0.0.1", wanted)).and_then(|listener| listener.local_addr());
    match (bound, wanted) {
        (Ok(address), _) => Ok(address.port()),
        (Err(e), 0) => Err(Error::new("no free port for the server").caused_by(e)),
        (Err(e), port) => Err(Error::new(format!("the server cannot be started at port {port}: it is taken"))
            .in_field("engine.server.port")
            .caused_by(e)
            .hint("another server runs there: end it, name it in `endpoints` if it is the one to ask, or leave `port` out")),
    }
}

impl Drop for ManagedServer {
    fn drop(&mut self) {
        #[cfg(unix)]
        self.watcher.end(&mut self.child);
        #[cfg(not(unix))]
        {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}
