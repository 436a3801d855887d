//! NCCL moves memory between the GPUs of one machine: over NVLink where there is any.
//!
//! Its few functions are looked up here: cudarc asks for `libnccl.so`, and packages have `libnccl.so.2` alone.
//!
//! A GPU that fails never comes to what the others exchange with it, and they would wait for it for ever, and whoever waits
//! for them. So a thread looks at all of them now and then, and once one has failed it ends the exchange on every GPU: the
//! failure is then what its own backend reports.

use std::ffi::{CStr, c_char, c_int, c_void};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use cudarc::driver::CudaEvent;

use super::device::Device;
use super::library::NCCL;
use super::peers::{Link, Transfer};
use crate::error::{Context, Error, Result};

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
    comm_abort: unsafe extern "C" fn(Communicator) -> Status,
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
                comm_abort: library.function(c"ncclCommAbort")?,
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

/// How often the GPUs are looked at.
const INTERVAL: Duration = Duration::from_millis(50);

/// One communicator for each GPU of a group, all in this process.
pub struct Nccl {
    connected: Arc<Connected>,
    /// The thread that looks after them, until this is dropped.
    watch: Option<(Sender<()>, JoinHandle<()>)>,
}

struct Connected {
    functions: Functions,
    devices: Vec<Arc<Device>>,
    state: Mutex<State>,
}

struct State {
    /// None once the exchange has been ended.
    communicators: Vec<Communicator>,
    /// Behind the last exchange on each device.
    issued: Vec<CudaEvent>,
    /// Why it has been ended.
    broken: Option<String>,
}

// SAFETY: communicators are used by one thread at a time, behind a lock.
unsafe impl Send for State {}

impl Nccl {
    /// Connects these GPUs, in this order.
    ///
    /// # Errors
    /// Where the library is missing or cannot connect them.
    pub fn connect(devices: Vec<Arc<Device>>) -> Result<Self> {
        let functions = Functions::load()?;
        let ordinals: Vec<c_int> = devices.iter().map(|device| device.context().ordinal() as c_int).collect();
        let what = || format!("the GPUs {ordinals:?} cannot be connected");
        let event = |device: &Arc<Device>| device.context().new_event(None).or_fail(what);
        let issued = devices.iter().map(event).collect::<Result<_>>()?;
        let mut communicators = vec![std::ptr::null_mut(); devices.len()];
        // SAFETY: both lists are as long as is said, and live past the call.
        let status = unsafe {
            (functions.comm_init_all)(communicators.as_mut_ptr(), ordinals.len() as c_int, ordinals.as_ptr())
        };
        functions.check(status, what)?;
        let state = Mutex::new(State { communicators, issued, broken: None });
        let connected = Arc::new(Connected { functions, devices, state });
        let (stop, stopped) = channel();
        let watched = Arc::clone(&connected);
        let watch = std::thread::Builder::new().name("gpus".to_owned()).spawn(move || watched.watch(&stopped));
        let watch = watch.or_fail(|| "no thread can be started to look after the GPUs".to_owned())?;
        Ok(Nccl { connected, watch: Some((stop, watch)) })
    }
}

impl Connected {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Looks at the GPUs until one has failed or its owner is gone.
    fn watch(&self, stopped: &Receiver<()>) {
        while stopped.recv_timeout(INTERVAL) == Err(RecvTimeoutError::Timeout) {
            if self.end_if_one_failed() {
                return;
            }
        }
    }

    /// Ends what the GPUs exchange if one of them has failed; says whether it has.
    fn end_if_one_failed(&self) -> bool {
        let mut state = self.state();
        let fault = state.issued.iter().zip(&self.devices).find_map(|(event, device)| {
            let looked = event.context().bind_to_thread().and_then(|()| event.try_is_complete());
            looked.err().map(|error| format!("GPU {} failed: {error}", device.context().ordinal()))
        });
        let Some(fault) = fault else { return false };
        state.broken = Some(fault);
        for communicator in std::mem::take(&mut state.communicators) {
            // SAFETY: made by `connect`, and used by nothing any more. A failure here is of a GPU that has failed.
            unsafe { (self.functions.comm_abort)(communicator) };
        }
        true
    }

    /// # Safety
    /// As [`Link::copy`].
    unsafe fn issue(&self, communicators: &[Communicator], transfer: &Transfer) -> Result<()> {
        let Transfer { from, to, bytes } = *transfer;
        let stream = |device: usize| self.devices[device].stream().cu_stream().cast::<c_void>();
        // SAFETY: communicators and streams are live; the caller answers for the memory.
        unsafe {
            let (comm, peer) = (communicators[from.device], to.device as c_int);
            let status = (self.functions.send)(from.address as *const _, bytes, BYTES, peer, comm, stream(from.device));
            self.functions.check(status, || MOVING.to_owned())?;
            let (comm, peer) = (communicators[to.device], from.device as c_int);
            let status = (self.functions.recv)(to.address as *mut _, bytes, BYTES, peer, comm, stream(to.device));
            self.functions.check(status, || MOVING.to_owned())
        }
    }
}

const MOVING: &str = "memory cannot be moved between the GPUs";

impl Link for Nccl {
    unsafe fn copy(&self, transfers: &[Transfer]) -> Result<()> {
        let Connected { functions, devices, .. } = &*self.connected;
        let state = self.connected.state();
        if let Some(why) = &state.broken {
            return Err(Error::new(format!("{MOVING}: {why}")).hint("the last checkpoint is whole"));
        }
        // SAFETY: has no arguments.
        functions.check(unsafe { (functions.group_start)() }, || MOVING.to_owned())?;
        let mut issued = transfers.iter().try_for_each(|transfer| {
            // SAFETY: the caller's transfers.
            unsafe { self.connected.issue(&state.communicators, transfer) }
        });
        // A group that was begun is ended, whatever came of it.
        // SAFETY: has no arguments.
        let ended = functions.check(unsafe { (functions.group_end)() }, || MOVING.to_owned());
        for (event, device) in state.issued.iter().zip(devices) {
            issued = issued.and(event.record(device.stream()).or_fail(|| MOVING.to_owned()));
        }
        issued.and(ended)
    }
}

impl Drop for Nccl {
    fn drop(&mut self) {
        // Failures here are earlier ones that were reported, or leak a communicator: nothing to do about them.
        for device in &self.connected.devices {
            let _ = device.stream().synchronize();
        }
        if let Some((stop, watch)) = self.watch.take() {
            drop(stop);
            let _ = watch.join();
        }
        let communicators = std::mem::take(&mut self.connected.state().communicators);
        for communicator in communicators {
            // SAFETY: made by `connect`, and used by nothing any more.
            unsafe { (self.connected.functions.comm_destroy)(communicator) };
        }
    }
}
