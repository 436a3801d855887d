//! The shell that leads a server's process group and ends it, also where we are killed and cannot.

use std::io::Write;
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::time::{Duration, Instant};

/// What the shell does; its first words say how.
const SCRIPT: &str = include_str!("watch.sh");
/// How much longer than it was told the shell may take on a busy machine.
const SLACK: Duration = Duration::from_secs(10);
const POLL: Duration = Duration::from_millis(20);

/// A shell that waits for our end.
pub(super) struct Watcher {
    shell: Child,
    /// Closed by the system if not by us. No child of ours inherits it.
    pipe: Option<ChildStdin>,
    /// How long a server may take to end by itself after SIGTERM.
    grace: Duration,
}

impl Watcher {
    /// Starts the shell; there is no server yet.
    pub fn start(grace: Duration) -> std::io::Result<Self> {
        let tenths = grace.as_millis().div_ceil(100).to_string();
        let mut shell = Command::new("/bin/sh")
            .args(["-c", SCRIPT, "gristmill-server-watcher", &tenths])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()?;
        let pipe = shell.stdin.take();
        Ok(Watcher { shell, pipe, grace })
    }

    /// Starts a server in the shell's process group. Nobody can do so once the shell has ended.
    ///
    /// # Errors
    /// The program cannot be started.
    pub fn spawn(&mut self, mut server: Command) -> std::io::Result<Child> {
        let server = server.process_group(self.group()).spawn()?;
        if let Some(pipe) = &mut self.pipe {
            // A shell that was killed meanwhile reads nothing; then `end` is what ends the server.
            let _ = writeln!(pipe, "{}", server.id());
        }
        Ok(server)
    }

    /// What somebody else might do to the shell.
    #[cfg(test)]
    pub fn kill(&self) {
        // SAFETY: kill takes no pointers, and the shell was not reaped.
        unsafe { libc::kill(self.group(), libc::SIGKILL) };
    }

    fn group(&self) -> libc::pid_t {
        libc::pid_t::try_from(self.shell.id()).expect("process ids are positive")
    }

    /// Ends the server and all that came of it. Bounded: the shell kills what does not listen.
    pub fn end(&mut self, server: &mut Child) {
        drop(self.pipe.take());
        let until = Instant::now() + self.grace + SLACK;
        loop {
            // Reaped, so that the shell sees that it has ended.
            let served = matches!(server.try_wait(), Ok(None));
            let watched = matches!(self.shell.try_wait(), Ok(None));
            if !watched || Instant::now() >= until {
                if served || watched {
                    // The shell was killed, or does not get to it. The number is still the group's: one that
                    // is in it was not reaped.
                    // SAFETY: killpg takes no pointers.
                    unsafe { libc::killpg(self.group(), libc::SIGKILL) };
                }
                break;
            }
            std::thread::sleep(POLL);
        }
        let _ = server.wait();
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        // Where no server was started: at its end the shell ends itself.
        drop(self.pipe.take());
        let _ = self.shell.wait();
    }
}
