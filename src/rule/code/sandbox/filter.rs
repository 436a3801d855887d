//! System calls that no program under test needs, refused by seccomp.
//!
//! Namespaces and limits do not cover everything: memory files (`memfd_create`, SysV segments) are memory that
//! no process is seen to hold, and mounts, nested namespaces, tracing, BPF, `io_uring` and key rings are where
//! sandboxes have been left through faults of the kernel. The filter is a list of numbers for the
//! architecture the binary is made for; calls of any other architecture are refused as well.

use std::io::Write;
use std::os::fd::OwnedFd;

use crate::error::{Context, Result};

/// Refused with `EPERM`.
const REFUSED: &[libc::c_long] = &[
    // Memory that is not counted.
    libc::SYS_memfd_create,
    libc::SYS_memfd_secret,
    libc::SYS_shmget,
    libc::SYS_msgget,
    // Other namespaces and roots.
    libc::SYS_unshare,
    libc::SYS_setns,
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_pivot_root,
    libc::SYS_chroot,
    libc::SYS_open_tree,
    libc::SYS_move_mount,
    libc::SYS_mount_setattr,
    libc::SYS_fsopen,
    libc::SYS_fsconfig,
    libc::SYS_fsmount,
    libc::SYS_fspick,
    libc::SYS_open_by_handle_at,
    libc::SYS_name_to_handle_at,
    // Other processes and the kernel.
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_pidfd_getfd,
    libc::SYS_bpf,
    libc::SYS_perf_event_open,
    libc::SYS_userfaultfd,
    libc::SYS_io_uring_setup,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
    libc::SYS_keyctl,
    libc::SYS_add_key,
    libc::SYS_request_key,
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_delete_module,
    libc::SYS_kexec_load,
    libc::SYS_swapon,
    libc::SYS_swapoff,
    libc::SYS_reboot,
    libc::SYS_quotactl,
    libc::SYS_acct,
    libc::SYS_syslog,
    libc::SYS_personality,
];

/// `CLONE_NEW*` among the flags of `clone`.
const NEW_NAMESPACES: u32 = 0x7e02_0000;

#[cfg(target_arch = "x86_64")]
const ARCHITECTURE: u32 = 0xc000_003e;
#[cfg(target_arch = "aarch64")]
const ARCHITECTURE: u32 = 0xc000_00b7;
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
compile_error!("give the code rule's filter the AUDIT_ARCH of this architecture");

/// Numbers of the x32 calls, which are others' under the same architecture.
const X32: u32 = 0x4000_0000;

// Instructions of the classic BPF machine, and places in `struct seccomp_data`.
const LOAD: u16 = 0x20;
const IF_EQUAL: u16 = 0x15;
const IF_AT_LEAST: u16 = 0x35;
const IF_ANY_BIT: u16 = 0x45;
const RETURN: u16 = 0x06;
const NUMBER: u32 = 0;
const ARCH: u32 = 4;
const FIRST_ARGUMENT: u32 = 16;

const ALLOW: u32 = 0x7fff_0000;
const FAIL: u32 = 0x0005_0000;

/// The filter, eight bytes an instruction.
fn program() -> Vec<u8> {
    // Each test returns at once or falls through to the next, so jumps are over one instruction.
    let fail = |code: i32| (RETURN, 0, 0, FAIL | code as u32);
    let mut all: Vec<(u16, u8, u8, u32)> = vec![
        (LOAD, 0, 0, ARCH),
        (IF_EQUAL, 1, 0, ARCHITECTURE),
        fail(libc::EPERM),
        (LOAD, 0, 0, NUMBER),
        (IF_AT_LEAST, 0, 1, X32),
        fail(libc::EPERM),
        // Its flags are behind a pointer; libraries fall back to `clone`.
        (IF_EQUAL, 0, 1, libc::SYS_clone3 as u32),
        fail(libc::ENOSYS),
    ];
    for call in REFUSED {
        all.extend([(IF_EQUAL, 0, 1, *call as u32), fail(libc::EPERM)]);
    }
    all.extend([
        (IF_EQUAL, 0, 3, libc::SYS_clone as u32),
        (LOAD, 0, 0, FIRST_ARGUMENT),
        (IF_ANY_BIT, 0, 1, NEW_NAMESPACES),
        fail(libc::EPERM),
        (RETURN, 0, 0, ALLOW),
    ]);
    all.into_iter()
        .flat_map(|(code, yes, no, value)| {
            let (code, value) = (code.to_ne_bytes(), value.to_ne_bytes());
            [code[0], code[1], yes, no, value[0], value[1], value[2], value[3]]
        })
        .collect()
}

/// The filter in a pipe, as bubblewrap reads it.
///
/// # Errors
/// No pipe can be made.
pub(super) fn pipe() -> Result<OwnedFd> {
    let (reader, mut writer) = std::io::pipe().or_fail(|| "cannot make a pipe for a program's filter".into())?;
    // Less than a pipe holds: the write does not wait for a reader.
    writer.write_all(&program()).or_fail(|| "cannot write a program's filter".into())?;
    Ok(reader.into())
}
