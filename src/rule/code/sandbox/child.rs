//! A started sandbox, which leaves no process behind, not even a dead one.
//!
//! bubblewrap is two processes: one that we start, and the first of the PID namespace, which is its child. It ends
//! without waiting for that, so whoever adopts orphans has to: the machine's first process, which in many containers
//! is a program that never does. So orphans are ours (`PR_SET_CHILD_SUBREAPER`), and each sandbox's is waited for.

use std::io::{PipeReader, Read};
use std::os::fd::AsRawFd;
use std::process::Child;
use std::sync::OnceLock;

/// Has orphans of ours come to us; whether the kernel does that.
pub(super) fn adopt() -> bool {
    static ADOPTS: OnceLock<bool> = OnceLock::new();
    // SAFETY: sets a flag of this process; it takes no pointers.
    *ADOPTS.get_or_init(|| unsafe { libc::prctl(libc::PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) } == 0)
}

/// bubblewrap, and what it tells of its child. Dropping it ends all that runs inside.
pub(super) struct Contained {
    process: Child,
    info: PipeReader,
}

impl Contained {
    pub fn new(process: Child, info: PipeReader) -> Self {
        Contained { process, info }
    }

    pub fn process(&mut self) -> &mut Child {
        &mut self.process
    }

    /// The first process inside, if it was started. To be asked once bubblewrap has ended.
    fn first_inside(&mut self) -> Option<libc::pid_t> {
        let mut told = [0; 4096];
        // SAFETY: the descriptor is open, and F_SETFL takes a number. What was to be told has been.
        unsafe { libc::fcntl(self.info.as_raw_fd(), libc::F_SETFL, libc::O_NONBLOCK) };
        let length = self.info.read(&mut told).ok()?;
        let told = std::str::from_utf8(&told[..length]).ok()?;
        let (_, rest) = told.split_once("\"child-pid\":")?;
        let rest = rest.trim_start();
        rest[..rest.find(|c: char| !c.is_ascii_digit())?].parse().ok()
    }
}

impl Drop for Contained {
    fn drop(&mut self) {
        // bubblewrap dies, and with it (die-with-parent) the first process of the PID namespace, and with that, by
        // the kernel, every other. Both fail only where it has ended.
        let _ = self.process.kill();
        let _ = self.process.wait();
        if let Some(first) = self.first_inside().filter(|_| adopt()) {
            // SAFETY: without a place for the status; it is our child by now, and nobody else waits for it.
            while unsafe { libc::waitpid(first, std::ptr::null_mut(), 0) } < 0
                && std::io::Error::last_os_error().kind() == std::io::ErrorKind::Interrupted
            {}
        }
    }
}
