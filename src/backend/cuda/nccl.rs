//! NCCL moves memory between the GPUs of one machine: over NVLink where there is any.

use std::sync::Arc;

use cudarc::nccl::{result, sys};

use super::device::Device;
use super::peers::{Link, Transfer};
use crate::error::{Error, Result};

/// One communicator for each GPU of a group, all in this process.
pub struct Nccl {
    devices: Vec<Arc<Device>>,
    communicators: Vec<sys::ncclComm_t>,
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
        // SAFETY: tries to load a shared library by its well-known names. cudarc panics where it is missing, so this comes first.
        if !unsafe { sys::is_culib_present() } {
            return Err(Error::new("NCCL (libnccl.so) was not found; training on several GPUs needs it").hint(
                "install the Python package nvidia-nccl-cu12, and put the folder of its libraries on LD_LIBRARY_PATH; \
                 or train on one: device = \"cuda\"",
            ));
        }
        let ordinals: Vec<i32> = devices.iter().map(|device| device.context().ordinal() as i32).collect();
        let mut communicators = vec![std::ptr::null_mut(); devices.len()];
        // SAFETY: both lists are as long as is said, and live past the call.
        let made =
            unsafe { result::comm_init_all(communicators.as_mut_ptr(), ordinals.len() as i32, ordinals.as_ptr()) };
        made.map_err(|error| failed(&format!("the GPUs {ordinals:?} cannot be connected"), &error))?;
        Ok(Nccl { devices, communicators })
    }

    /// # Safety
    /// As [`Link::copy`].
    unsafe fn issue(&self, transfer: &Transfer) -> Result<(), result::NcclError> {
        let Transfer { from, to, bytes } = *transfer;
        let stream = |device: usize| self.devices[device].stream().cu_stream().cast();
        let kind = sys::ncclDataType_t::ncclUint8;
        // SAFETY: communicators and streams are live; the caller answers for the memory.
        unsafe {
            let (comm, peer) = (self.communicators[from.device], to.device as i32);
            result::send(from.address as *const _, bytes, kind, peer, comm, stream(from.device))?;
            let (comm, peer) = (self.communicators[to.device], from.device as i32);
            result::recv(to.address as *mut _, bytes, kind, peer, comm, stream(to.device))?;
        }
        Ok(())
    }
}

impl Link for Nccl {
    unsafe fn copy(&self, transfers: &[Transfer]) -> Result<()> {
        let what = || "memory cannot be moved between the GPUs".to_owned();
        result::group_start().map_err(|error| failed(&what(), &error))?;
        // SAFETY: the caller's transfers.
        let issued = transfers.iter().try_for_each(|transfer| unsafe { self.issue(transfer) });
        // A group that was begun is ended, whatever came of it.
        let ended = result::group_end();
        issued.and(ended.map(drop)).map_err(|error| failed(&what(), &error))
    }
}

impl Drop for Nccl {
    fn drop(&mut self) {
        for (device, communicator) in self.devices.iter().zip(&self.communicators) {
            // A failure here is an earlier one that was reported, or leaks a communicator: nothing to do about it.
            let _ = device.stream().synchronize();
            // SAFETY: made by `connect`, and used by nothing any more.
            let _ = unsafe { result::comm_destroy(*communicator) };
        }
    }
}

/// NCCL's word on a failure, in ours.
fn failed(what: &str, error: &result::NcclError) -> Error {
    Error::new(format!("{what}: {:?}", error.0))
        .hint("NCCL_DEBUG=WARN makes NCCL say why; the last checkpoint is whole")
}
