//! Running strangers' programs: fresh namespaces through bubblewrap, and limits on everything.
//!
//! The program sees `/usr` (and the library folders) read-only, its own folder
//! read-only, an empty `/tmp` and `/dev/shm` of bounded size, a private `/proc` and
//! `/dev`, and nothing else: no network, no home, no environment (bubblewrap itself
//! is started without one, since its process is seen inside), no open files of ours.
//! System calls that no solution needs are refused ([`filter`]). It runs without privileges
//! (as root we also change to a user of its own, because the kernel never counts
//! root's processes), under limits on address space or data, CPU time, processes,
//! file size and open files; a watch on the tree's resident memory, the wall clock
//! and the output kills the PID namespace's first process, and with it all others.
//! Where bubblewrap is missing nothing is run at all.

use std::io::{Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use super::slots;
use crate::error::{Context, Error, Result};

mod child;
mod filter;
mod pair;

use child::Contained;
pub(crate) use pair::{Judged, run_judged};

/// What one run may use.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    pub wall: Duration,
    /// Bytes of resident memory of the whole tree, and of address space or data of each process.
    pub memory: u64,
    pub processes: u64,
    /// Bytes of one file, and of `/tmp`.
    pub file: u64,
    /// Bytes of standard output and of standard error.
    pub output: usize,
    /// Bytes of the stack, as far as we may give them; `None` leaves what we have.
    pub stack: Option<u64>,
    /// Limit the address space (most programs) or only private data (runtimes that reserve much and use little).
    pub address_space: bool,
}

/// One run.
pub(crate) struct Job<'a> {
    /// Program and arguments, as seen inside.
    pub command: &'a [String],
    /// Folder shown read-only as `/box`.
    pub folder: &'a Path,
    /// Folder shown writable as `/out`: for compilers, which do not run the program.
    pub out: Option<&'a Path>,
    /// More folders shown read-only under their own paths (toolchains).
    pub toolchain: &'a [PathBuf],
    pub stdin: &'a [u8],
    pub limits: Limits,
    /// Run as the caller's user: for compilers in folders that only it may read.
    pub own_user: bool,
}

/// How a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    /// With this exit code.
    Exit(i32),
    /// By this signal (also the kernel's for CPU time and file size).
    Signal(i32),
    WallLimit,
    MemoryLimit,
    OutputLimit,
}

/// What a run left behind.
#[derive(Debug)]
pub(crate) struct Ran {
    pub ended: Ended,
    pub stdout: Vec<u8>,
    pub stderr: Vec<u8>,
}

/// Checks once that programs can be contained here.
///
/// # Errors
/// bubblewrap or prlimit missing, or namespaces forbidden: nothing will be run.
pub fn ready() -> Result<()> {
    static READY: OnceLock<std::result::Result<(), String>> = OnceLock::new();
    let probe = || {
        if !cfg!(target_os = "linux") {
            return Err("it needs Linux namespaces".to_owned());
        }
        let folder = folder().map_err(|error| error.to_string())?;
        let limits = Limits {
            wall: Duration::from_secs(10),
            memory: 256 << 20,
            processes: 16,
            file: 1 << 20,
            output: 4096,
            stack: None,
            address_space: true,
        };
        let command = ["/usr/bin/true".to_owned()];
        let job = Job {
            command: &command,
            folder: folder.path(),
            out: None,
            toolchain: &[],
            stdin: b"",
            limits,
            own_user: false,
        };
        let ran = run(&job).map_err(|error| error.to_string())?;
        match ran.ended {
            Ended::Exit(0) => Ok(()),
            _ => Err(String::from_utf8_lossy(&ran.stderr).lines().next().unwrap_or("it does not start").to_owned()),
        }
    };
    READY.get_or_init(probe).clone().map_err(|why| {
        Error::new(format!("code cannot be run in a sandbox on this machine: {why}"))
            .hint("install bubblewrap (Debian: apt-get install bubblewrap) and allow unprivileged user namespaces")
            .hint("nothing is ever run outside the sandbox")
    })
}

/// Lets the sandbox's user look into a folder that we made.
pub(super) fn open_to_all(folder: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(folder, std::fs::Permissions::from_mode(0o755))
}

/// A new folder that the sandbox's user may look into; it goes when dropped.
pub(super) fn folder() -> Result<tempfile::TempDir> {
    let folder = tempfile::tempdir().or_fail(|| "cannot make a folder for a program".into())?;
    open_to_all(folder.path()).or_fail(|| "cannot open a program's folder".into())?;
    Ok(folder)
}

fn arguments(job: &Job<'_>) -> Vec<std::ffi::OsString> {
    let mut all: Vec<std::ffi::OsString> = [
        "--unshare-all",
        "--die-with-parent",
        "--new-session",
        "--cap-drop",
        "ALL",
        "--clearenv",
        "--hostname",
        "box",
        "--ro-bind",
        "/usr",
        "/usr",
        "--proc",
        "/proc",
        "--dev",
        "/dev",
    ]
    .map(Into::into)
    .to_vec();
    for name in ["bin", "sbin", "lib", "lib64", "lib32"] {
        let path = Path::new("/").join(name);
        match std::fs::read_link(&path) {
            Ok(target) => all.extend(["--symlink".into(), target.into(), path.into()]),
            Err(_) if path.is_dir() => all.extend(["--ro-bind".into(), path.clone().into(), path.into()]),
            Err(_) => {}
        }
    }
    for path in ["/etc/alternatives", "/etc/ld.so.cache"] {
        all.extend(["--ro-bind-try".into(), path.into(), path.into()]);
    }
    all.extend(["--size".into(), job.limits.file.to_string().into(), "--tmpfs".into(), "/tmp".into()]);
    let shared = (job.limits.file / 4).max(1 << 20);
    all.extend(["--size".into(), shared.to_string().into(), "--tmpfs".into(), "/dev/shm".into()]);
    all.extend(["--remount-ro", "/dev"].map(Into::into));
    // After what is empty, so that they may lie there.
    for path in job.toolchain {
        all.extend(["--ro-bind".into(), path.into(), path.into()]);
    }
    all.extend(["--ro-bind".into(), job.folder.into(), "/box".into()]);
    if let Some(out) = job.out {
        all.extend(["--bind".into(), out.into(), "/out".into()]);
    }
    for (key, value) in [
        ("PATH", "/usr/bin:/bin"),
        ("HOME", "/tmp"),
        ("LANG", "C.UTF-8"),
        ("PYTHONHASHSEED", "0"),
        ("PYTHONDONTWRITEBYTECODE", "1"),
        // Numerical libraries reserve memory for a thread a core.
        ("OMP_NUM_THREADS", "1"),
        ("OPENBLAS_NUM_THREADS", "1"),
    ] {
        all.extend(["--setenv".into(), key.into(), value.into()]);
    }
    all.extend(["--remount-ro", "/", "--chdir", "/tmp", "--", "/usr/bin/prlimit"].map(Into::into));
    let limits = &job.limits;
    let memory = if limits.address_space { "as" } else { "data" };
    let seconds = limits.wall.as_secs() + 1;
    for limit in [
        format!("--{memory}={}", limits.memory),
        format!("--cpu={seconds}"),
        format!("--nproc={}", limits.processes),
        format!("--fsize={}", limits.file),
        "--nofile=256".to_owned(),
        "--core=0".to_owned(),
        "--memlock=0".to_owned(),
        "--msgqueue=0".to_owned(),
    ] {
        all.push(limit.into());
    }
    if let Some(stack) = limits.stack {
        all.push(format!("--stack={}", stack.min(most_stack())).into());
    }
    all.push("--".into());
    all.extend(job.command.iter().map(Into::into));
    all
}

/// Bytes of stack that we may give away.
fn most_stack() -> u64 {
    let mut own = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `own` is a place for the two numbers.
    match unsafe { libc::getrlimit(libc::RLIMIT_STACK, &mut own) } {
        0 => own.rlim_max,
        _ => 8 << 20,
    }
}

/// Where bubblewrap is. It is looked for here, because it is started without a `PATH`.
fn bubblewrap() -> Result<&'static Path> {
    static FOUND: OnceLock<Option<PathBuf>> = OnceLock::new();
    let find = || {
        let path = std::env::var_os("PATH")?;
        std::env::split_paths(&path)
            .map(|folder| folder.join("bwrap"))
            .find(|file| file.is_absolute() && file.is_file())
    };
    FOUND.get_or_init(find).as_deref().ok_or_else(|| Error::new("bubblewrap (bwrap) is not installed"))
}

/// Starts a job, with standard error captured.
///
/// # Errors
/// Only when bubblewrap itself cannot be started.
fn start(job: &Job<'_>, stdin: Stdio, stdout: Stdio) -> Result<Contained> {
    static SERIAL: AtomicU32 = AtomicU32::new(0);
    child::adopt();
    let filter = filter::pipe()?;
    let (info, told) = std::io::pipe().or_fail(|| "cannot make a pipe for a program's number".into())?;
    let mut command = Command::new(bubblewrap()?);
    let kept = [filter.as_raw_fd(), told.as_raw_fd()];
    command.env_clear().args(["--seccomp", &kept[0].to_string(), "--info-fd", &kept[1].to_string()]);
    command.args(arguments(job));
    command.stdin(stdin).stdout(stdout).stderr(Stdio::piped()).process_group(0);
    // SAFETY: geteuid has no preconditions.
    let root = unsafe { libc::geteuid() } == 0;
    if root && !job.own_user {
        let user = 210_000 + std::process::id() % 1000 * 1000 + SERIAL.fetch_add(1, Ordering::Relaxed) % 1000;
        command.uid(user).gid(user);
    }
    // SAFETY: between fork and exec only async-signal-safe calls are made: open, write, close, fcntl,
    // close_range, on numbers.
    unsafe {
        command.pre_exec(move || {
            let file = libc::open(c"/proc/self/oom_score_adj".as_ptr(), libc::O_WRONLY | libc::O_CLOEXEC);
            if file >= 0 {
                libc::write(file, c"1000".as_ptr().cast(), 4);
                libc::close(file);
            }
            // Whatever is open here, of ours or of who started us, ends with exec, but for bubblewrap's two.
            let (first, last) = (libc::STDERR_FILENO + 1, libc::c_uint::MAX);
            if libc::syscall(libc::SYS_close_range, first, last, libc::CLOSE_RANGE_CLOEXEC) != 0 {
                for file in first..4096 {
                    libc::fcntl(file, libc::F_SETFD, libc::FD_CLOEXEC);
                }
            }
            match kept.iter().all(|file| libc::fcntl(*file, libc::F_SETFD, 0) == 0) {
                true => Ok(()),
                false => Err(std::io::Error::last_os_error()),
            }
        });
    }
    let child = command.spawn().map_err(|error| Error::new("bubblewrap does not start").caused_by(error))?;
    Ok(Contained::new(child, info))
}

/// Runs a job to its end, whatever it does. Its clock starts when it has a place among those that run at once.
///
/// # Errors
/// Only when bubblewrap itself cannot be started.
pub(crate) fn run(job: &Job<'_>) -> Result<Ran> {
    let _slot = slots::of_process().take();
    let mut held = start(job, Stdio::piped(), Stdio::piped())?;
    let child = held.process();
    let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    let flooded = AtomicBool::new(false);
    let ended = std::thread::scope(|scope| {
        scope.spawn(|| {
            if let Some(mut stdin) = stdin {
                // A program that does not read its input closes the pipe: not our failure.
                let _ = stdin.write_all(job.stdin);
            }
        });
        let out = scope.spawn(|| capture(stdout, job.limits.output, &flooded));
        let err = scope.spawn(|| capture(stderr, job.limits.output, &flooded));
        let ended = watch(held.process(), &job.limits, &flooded);
        let ended = ended.unwrap_or(Ended::Signal(libc::SIGKILL));
        // The readers end when the writers have.
        drop(held);
        (ended, out.join().unwrap_or_default(), err.join().unwrap_or_default())
    });
    Ok(Ran { ended: ended.0, stdout: ended.1, stderr: ended.2 })
}

/// Waits for the end, or until a limit is passed.
fn watch(child: &mut Child, limits: &Limits, flooded: &AtomicBool) -> std::io::Result<Ended> {
    let start = Instant::now();
    let mut pause = Duration::from_millis(1);
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(if flooded.load(Ordering::Relaxed) { Ended::OutputLimit } else { ended(status) });
        }
        if let Some(reason) = overrun(child, start, limits, flooded) {
            return Ok(reason);
        }
        std::thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(20));
    }
}

fn ended(status: std::process::ExitStatus) -> Ended {
    // bwrap hands on 128 + n for a signal n.
    match (status.code(), status.signal()) {
        (Some(code @ 129..=159), _) => Ended::Signal(code - 128),
        (Some(code), _) => Ended::Exit(code),
        (None, signal) => Ended::Signal(signal.unwrap_or(libc::SIGKILL)),
    }
}

/// The limit that a running job has passed.
fn overrun(child: &Child, start: Instant, limits: &Limits, flooded: &AtomicBool) -> Option<Ended> {
    if flooded.load(Ordering::Relaxed) {
        Some(Ended::OutputLimit)
    } else if start.elapsed() > limits.wall {
        Some(Ended::WallLimit)
    } else if resident(child.id()) > limits.memory {
        Some(Ended::MemoryLimit)
    } else {
        None
    }
}

/// Bytes of resident memory of a process and all below it.
fn resident(pid: u32) -> u64 {
    let (mut total, mut open) = (0, vec![pid]);
    while let Some(pid) = open.pop() {
        if let Ok(text) = std::fs::read_to_string(format!("/proc/{pid}/statm")) {
            total += text.split(' ').nth(1).and_then(|pages| pages.parse::<u64>().ok()).unwrap_or(0) * 4096;
        }
        let Ok(threads) = std::fs::read_dir(format!("/proc/{pid}/task")) else { continue };
        for thread in threads.flatten() {
            if let Ok(children) = std::fs::read_to_string(thread.path().join("children")) {
                open.extend(children.split_whitespace().filter_map(|child| child.parse::<u32>().ok()));
            }
        }
    }
    total
}

/// Reads up to `most` bytes, then raises the flag and reads no more.
fn capture(source: Option<impl Read>, most: usize, flooded: &AtomicBool) -> Vec<u8> {
    let mut kept = Vec::new();
    if let Some(source) = source {
        // A read error means the pipe is gone: what was read counts.
        let _ = source.take(most as u64 + 1).read_to_end(&mut kept);
        if kept.len() > most {
            flooded.store(true, Ordering::Relaxed);
            kept.truncate(most);
        }
    }
    kept
}

#[cfg(test)]
mod tests;
