//! NCCL moves memory between the GPUs of one machine: over NVLink where there is any.
//!
//! Its few functions are looked up here: cudarc asks for `libnccl.so`, and packages have `libnccl.so.2` alone.

use std::ffi::{CStr, c_char, c_int, c_void};
use std::sync::Arc;

use super::device::Device;
use super::library::NCCL;
use super::peers::{Link, Transfer};
use crate::error::{Error, Result};

/// `ncclComm_t`.
type Communicator = *mut c_void;
/// `ncclResult_t`; 0 is success.
type Status = c_int;
/// `ncclUint8` of `ncclDataType_t`.
const BYTES: c_int = 1;

/// NCCL's functions, as `nccl.h` declares them.
#[derive(Clone, Copy)]
struct Functions {
    get_version: unsafe extern "C" fn(*mut c_int) -> Status,
    error_string: unsafe extern "C" fn(Status) -> *const c_char,
    comm_init_all: unsafe extern "C" fn(*mut Communicator, c_int, *const c_int) -> Status,
    comm_destroy: unsafe extern "C" fn(Communicator) -> Status,
    group_start: unsafe extern "C" fn() -> Status,
    group_end: unsafe extern "C" fn() -> Status,
    send: unsafe extern "C" fn(*const c_void, usize, c_int, c_int, Communicator, *mut c_void) -> Status,
    recv: unsafe extern "C" fn(*mut c_void, usize, c_int, c_int, Communicator, *mut c_void) -> Status,
}

impl Functions {
    fn load() -> Result<Self> {
        let library = NCCL.open()?;
        // SAFETY: each is declared in nccl.h with this type, the same since version 2.7.
        unsafe {
            Ok(Functions {
                get_version: library.function(c"ncclGetVersion")?,
                error_string: library.function(c"ncclGetErrorString")?,
                comm_init_all: library.function(c"ncclCommInitAll")?,
                comm_destroy: library.function(c"ncclCommDestroy")?,
                group_start: library.function(c"ncclGroupStart")?,
                group_end: library.function(c"ncclGroupEnd")?,
                send: library.function(c"ncclSend")?,
                recv: library.function(c"ncclRecv")?,
            })
        }
    }

    /// NCCL's word on a failure, in ours.
    fn check(&self, status: Status, what: impl FnOnce() -> String) -> Result<()> {
        if status == 0 {
            return Ok(());
        }
        // SAFETY: the library returns a text of its own for any number.
        let why = unsafe { CStr::from_ptr((self.error_string)(status)) }.to_string_lossy().into_owned();
        Err(Error::new(format!("{}: {why}", what()))
            .hint("NCCL_DEBUG=WARN makes NCCL say more; the last checkpoint is whole"))
    }
}

/// NCCL's version, as 22304 for 2.23.4.
///
/// # Errors
/// Where the library is missing.
pub fn version() -> Result<i32> {
    let functions = Functions::load()?;
    let mut version = 0;
    // SAFETY: the pointer is valid for the call, which needs no GPU.
    let status = unsafe { (functions.get_version)(&mut version) };
    functions.check(status, || "NCCL does not tell its version".to_owned())?;
    Ok(version)
}

/// One communicator for each GPU of a group, all in this process.
pub struct Nccl {
    functions: Functions,
    devices: Vec<Arc<Device>>,
    communicators: Vec<Communicator>,
}

// SAFETY: communicators are used by one thread at a time: the group's backends hold their turns meanwhile.
unsafe impl Send for Nccl {}
// SAFETY: as above.
unsafe impl Sync for Nccl {}

impl Nccl {
    /// Connects these GPUs, in this order.
    ///
    /// # Errors
    /// Where the library is missing or cannot connect them.
    pub fn connect(devices: Vec<Arc<Device>>) -> Result<Self> {
        let functions = Functions::load()?;
        let ordinals: Vec<c_int> = devices.iter().map(|device| device.context().ordinal() as c_int).collect();
        let mut communicators = vec![std::ptr::null_mut(); devices.len()];
        // SAFETY: both lists are as long as is said, and live past the call.
        let status = unsafe {
            (functions.comm_init_all)(communicators.as_mut_ptr(), ordinals.len() as c_int, ordinals.as_ptr())
        };
        functions.check(status, || format!("the GPUs {ordinals:?} cannot be connected"))?;
        Ok(Nccl { functions, devices, communicators })
    }

    /// # Safety
    /// As [`Link::copy`].
    unsafe fn issue(&self, transfer: &Transfer) -> Result<()> {
        let Transfer { from, to, bytes } = *transfer;
        let stream = |device: usize| self.devices[device].stream().cu_stream().cast::<c_void>();
        // SAFETY: communicators and streams are live; the caller answers for the memory.
        unsafe {
            let (comm, peer) = (self.communicators[from.device], to.device as c_int);
            let status = (self.functions.send)(from.address as *const _, bytes, BYTES, peer, comm, stream(from.device));
            self.functions.check(status, || MOVING.to_owned())?;
            let (comm, peer) = (self.communicators[to.device], from.device as c_int);
            let status = (self.functions.recv)(to.address as *mut _, bytes, BYTES, peer, comm, stream(to.device));
            self.functions.check(status, || MOVING.to_owned())
        }
    }
}

const MOVING: &str = "memory cannot be moved between the GPUs";

impl Link for Nccl {
    unsafe fn copy(&self, transfers: &[Transfer]) -> Result<()> {
        // SAFETY: has no arguments.
        self.functions.check(unsafe { (self.functions.group_start)() }, || MOVING.to_owned())?;
        // SAFETY: the caller's transfers.
        let issued = transfers.iter().try_for_each(|transfer| unsafe { self.issue(transfer) });
        // A group that was begun is ended, whatever came of it.
        // SAFETY: has no arguments.
        let ended = self.functions.check(unsafe { (self.functions.group_end)() }, || MOVING.to_owned());
        issued.and(ended)
    }
}

impl Drop for Nccl {
    fn drop(&mut self) {
        for (device, communicator) in self.devices.iter().zip(&self.communicators) {
            // A failure here is an earlier one that was reported, or leaks a communicator: nothing to do about it.
            let _ = device.stream().synchronize();
            // SAFETY: made by `connect`, and used by nothing any more.
            let _ = unsafe { (self.functions.comm_destroy)(*communicator) };
        }
    }
}
