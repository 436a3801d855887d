//! A server of our own: `vllm serve` as a child process, taken down with its whole process group.
//!
//! It ends with its owner, however that ends: dropped, unwound by a panic, or (on Linux) killed. For
//! the last the kernel sends the child SIGTERM when the *thread* that started it ends, so that thread
//! lives as long as the server does and does nothing else.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

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
    /// The thread that started the child ends once this is dropped, which is after the child.
    _keeper: mpsc::Sender<()>,
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
        std::os::unix::process::CommandExt::process_group(&mut command, 0);
        #[cfg(target_os = "linux")]
        end_with_this_process(&mut command);
        let (keeper, child) = spawn_kept(command).or_fail(|| "the server's thread cannot start".into())?;
        let child = child.map_err(|e| {
            Error::new(format!("the server `{}` cannot be started", config.command))
                .caused_by(e)
                .hint("install vLLM (`pip install vllm`), or set `server.command` to its path")
        })?;
        let mut secrets = config.secrets();
        secrets.extend(api_key.map(str::to_owned));
        Ok(ManagedServer { child, address: format!("http://127.0.0.1:{port}"), log, secrets, _keeper: keeper })
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

    #[cfg(unix)]
    fn signal(&self, signal: libc::c_int) {
        if let Ok(group) = libc::pid_t::try_from(self.child.id()) {
            // SAFETY: killpg takes no pointers. The group is our child's own (process_group(0)), and the
            // child has not been reaped for the last time before `drop` ends, so the id is not reused.
            unsafe { libc::killpg(group, signal) };
        }
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

/// Starts the command on a thread that lives until the sender is dropped.
fn spawn_kept(mut command: Command) -> std::io::Result<(mpsc::Sender<()>, std::io::Result<Child>)> {
    let (keeper, until) = mpsc::channel();
    let (started, child) = mpsc::channel();
    std::thread::Builder::new().name("gristmill-server".into()).spawn(move || {
        let _ = started.send(command.spawn());
        // An error, which comes when there is no sender left: nothing is ever sent.
        let _ = until.recv();
    })?;
    let child = child.recv().map_err(std::io::Error::other)?;
    Ok((keeper, child))
}

/// Has the kernel send the child SIGTERM when we end, even by SIGKILL: vLLM then takes its workers down.
#[cfg(target_os = "linux")]
fn end_with_this_process(command: &mut Command) {
    use std::os::unix::process::CommandExt;

    let parent = std::process::id();
    let ask = move || {
        // SAFETY: prctl with PR_SET_PDEATHSIG takes a number and no pointer.
        if unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGTERM) } != 0 {
            return Err(std::io::Error::last_os_error());
        }
        // SAFETY: getppid takes nothing and cannot fail.
        let now = unsafe { libc::getppid() };
        // We may have ended before the kernel was asked.
        if u32::try_from(now) == Ok(parent) { Ok(()) } else { Err(std::io::ErrorKind::BrokenPipe.into()) }
    };
    // SAFETY: between fork and exec the closure makes two system calls and allocates nothing: an
    // error is built from a code or a kind.
    unsafe { command.pre_exec(ask) };
}

impl Drop for ManagedServer {
    fn drop(&mut self) {
        #[cfg(unix)]
        {
            self.signal(libc::SIGTERM);
            let since = Instant::now();
            while since.elapsed() < GRACE {
                match self.child.try_wait() {
                    Ok(None) => std::thread::sleep(Duration::from_millis(50)),
                    _ => break,
                }
            }
            // Workers that outlived their parent, and a parent that did not listen.
            self.signal(libc::SIGKILL);
        }
        #[cfg(not(unix))]
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    fn shell(dir: &std::path::Path, script: &str) -> ServerConfig {
        use std::os::unix::fs::PermissionsExt;
        let program = dir.join("fake-vllm");
        std::fs::write(&program, format!("#!/bin/sh\n{script}\n")).unwrap();
        std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
        ServerConfig {
            command: program.display().to_string(),
            model: "tiny".into(),
            log: dir.join("log"),
            args: vec!["--dtype".into(), "float32".into()],
            ..ServerConfig::default()
        }
    }

    fn until<T>(mut poll: impl FnMut() -> Option<T>) -> T {
        let since = Instant::now();
        loop {
            if let Some(value) = poll() {
                return value;
            }
            assert!(since.elapsed() < Duration::from_secs(20), "waited too long");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    fn alive(pid: u32) -> bool {
        let state = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let state = state.rsplit(')').next().unwrap_or_default().trim().chars().next();
        !matches!(state, None | Some('Z' | 'X'))
    }

    #[test]
    fn a_server_that_dies_says_its_last_words() {
        let dir = tempfile::tempdir().unwrap();
        let mut server =
            ManagedServer::start(&shell(dir.path(), "echo \"args: $@\"; echo no such model >&2; exit 3"), None)
                .unwrap();
        let error = until(|| server.check().err());
        assert!(error.message().contains("no such model"), "{error}");
        assert!(error.message().contains("serve tiny --host 127.0.0.1 --port"), "{error}");
        assert!(error.message().contains("--dtype float32"), "{error}");
    }

    #[test]
    fn a_server_that_prints_its_keys_is_not_quoted_with_them() {
        let dir = tempfile::tempdir().unwrap();
        let mut config = shell(dir.path(), "echo \"args: $@ $VLLM_API_KEY $HF_TOKEN\"; exit 1");
        config.args =
            ["--api-key", "hunter1", "hunter2", "--hf-token=hunter3", "--dtype", "float32"].map(String::from).into();
        config.env.insert("HF_TOKEN".into(), "hunter4".into());
        let shown = format!("{config:?}");
        let mut server = ManagedServer::start(&config, Some("hunter5")).unwrap();
        let message = until(|| server.check().err()).message().to_owned();
        assert!(message.contains("--dtype float32") && message.contains("***"), "{message}");
        for text in [&message, &shown] {
            assert!(!text.contains("hunter"), "{text}");
        }
    }

    #[test]
    fn a_port_that_is_taken_is_refused_before_anything_starts() {
        let dir = tempfile::tempdir().unwrap();
        let stranger = TcpListener::bind("0.0.0.0:0").unwrap();
        let port = stranger.local_addr().unwrap().port();
        let config = ServerConfig { port, ..shell(dir.path(), "exec sleep 600") };
        let error = ManagedServer::start(&config, None).err().unwrap().to_string();
        assert!(error.contains(&format!("port {port}")) && error.contains("engine.server.port"), "{error}");
        assert!(!config.log.exists(), "nothing was started");
    }

    #[test]
    fn the_whole_process_group_is_taken_down() {
        let dir = tempfile::tempdir().unwrap();
        // The grandchild writes its pid, the parent waits for it.
        let script = format!("sleep 600 & echo $! > {}/pid; wait", dir.path().display());
        let server = ManagedServer::start(&shell(dir.path(), &script), None).unwrap();
        let pid: u32 =
            until(|| std::fs::read_to_string(dir.path().join("pid")).ok().and_then(|t| t.trim().parse().ok()));
        drop(server);
        until(|| (!alive(pid)).then_some(()));
    }

    #[test]
    fn a_panic_takes_the_server_down() {
        let dir = tempfile::tempdir().unwrap();
        let script = format!("echo $$ > {}/pid; exec sleep 600", dir.path().display());
        let config = shell(dir.path(), &script);
        let pid = std::sync::Mutex::new(0);
        let panicked = std::panic::catch_unwind(|| {
            let _server = ManagedServer::start(&config, None).unwrap();
            let read = || std::fs::read_to_string(dir.path().join("pid")).ok().and_then(|t| t.trim().parse().ok());
            *pid.lock().unwrap() = until(read);
            std::panic::resume_unwind(Box::new("told to"));
        });
        assert!(panicked.is_err());
        let pid = *pid.lock().unwrap();
        assert!(pid > 0);
        until(|| (!alive(pid)).then_some(()));
    }

    /// Not a test of its own: what the next one starts in a process that it can kill.
    #[test]
    #[ignore = "is started by another test"]
    fn owner_that_waits_to_be_killed() {
        let Some(dir) = std::env::var_os("GRISTMILL_TEST_SERVER_DIR") else { return };
        let dir = std::path::PathBuf::from(dir);
        // On a thread that ends at once: the server must outlive it.
        let config = shell(&dir, &format!("echo $$ > {}/pid; exec sleep 600", dir.display()));
        let _server = std::thread::spawn(move || ManagedServer::start(&config, None).unwrap()).join().unwrap();
        std::thread::sleep(Duration::from_secs(600));
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_server_ends_when_its_owner_is_killed() {
        let dir = tempfile::tempdir().unwrap();
        let mut owner = Command::new(std::env::current_exe().unwrap())
            .args(["--ignored", "--exact", "engine::vllm::launch::tests::owner_that_waits_to_be_killed"])
            .env("GRISTMILL_TEST_SERVER_DIR", dir.path())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let pid: u32 =
            until(|| std::fs::read_to_string(dir.path().join("pid")).ok().and_then(|t| t.trim().parse().ok()));
        std::thread::sleep(Duration::from_millis(300));
        assert!(alive(pid), "the thread that asked for the server has ended, the server has not");
        owner.kill().unwrap();
        owner.wait().unwrap();
        until(|| (!alive(pid)).then_some(()));
    }

    #[test]
    fn a_missing_program_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let config = ServerConfig { command: "/nowhere/vllm".into(), ..shell(dir.path(), "") };
        let error = ManagedServer::start(&config, None).err().unwrap();
        assert!(error.to_string().contains("/nowhere/vllm"), "{error}");
    }
}
