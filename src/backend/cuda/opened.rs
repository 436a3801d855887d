//! The GPUs that this process has opened.
//!
//! Every stage opens its device, and so do engines beside a trainer: they share one handle for each GPU, with its
//! stream, its loaded kernels, its products' algorithms and its turn. So nothing is loaded twice, and work that one of
//! them records has no other's in it. A handle that has failed is left to those who hold it, and the next gets a new one.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use half::bf16;

use super::Cuda;
use super::buffer::Buffer;
use super::device::Device;
use super::driver::Driver;
use super::linear::forward;
use super::matmul::Out;
use super::nccl::Nccl;
use crate::error::{Error, Result};

/// Handles by ordinal.
pub struct Handles<D> {
    kept: Mutex<BTreeMap<usize, (Arc<D>, Cuda)>>,
}

/// Those of this process.
static HANDLES: Handles<Device> = Handles::new();

impl<D> Handles<D> {
    /// None yet.
    pub const fn new() -> Self {
        Handles { kept: Mutex::new(BTreeMap::new()) }
    }
}

impl<D> Default for Handles<D> {
    fn default() -> Self {
        Handles::new()
    }
}

impl<D: Driver + 'static> Handles<D> {
    /// The device and its backend, opened and tried if it is not there yet or has failed.
    ///
    /// # Errors
    /// Where it does not open, or does not do what it is asked to.
    pub fn get(&self, ordinal: usize, open: impl FnOnce() -> Result<D>) -> Result<(Arc<D>, Cuda)> {
        // Held while it opens: two threads do not open it twice.
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((device, cuda)) = kept.get(&ordinal)
            && !cuda.has_failed()
        {
            cuda.rest();
            return Ok((device.clone(), cuda.clone()));
        }
        kept.remove(&ordinal);
        let device = Arc::new(open()?);
        let cuda = Cuda::on(device.clone());
        cuda.probe().map_err(|error| error.context(format!("GPU {ordinal} cannot be used")))?;
        kept.insert(ordinal, (device.clone(), cuda.clone()));
        Ok((device, cuda))
    }
}

impl Cuda {
    /// GPU `ordinal`; this process has one handle for it.
    ///
    /// # Errors
    /// Where there is no driver, no such GPU, no NVRTC or no cuBLASLt, the GPU is older than Ampere, a kernel does not
    /// compile, or the GPU does not do what it is asked to.
    pub fn open(ordinal: usize) -> Result<Self> {
        HANDLES.get(ordinal, || Device::open(ordinal)).map(|(_, cuda)| cuda)
    }

    /// Opens several GPUs as a group: models on it have a copy on each.
    ///
    /// # Errors
    /// As [`Cuda::open`], for any of them; where they are not of one kind, or NCCL cannot connect them.
    pub fn open_all(ordinals: &[usize]) -> Result<Self> {
        if let [ordinal] = ordinals {
            return Cuda::open(*ordinal);
        }
        let open = |&ordinal: &usize| HANDLES.get(ordinal, || Device::open(ordinal));
        let (devices, all): (Vec<Arc<Device>>, Vec<Cuda>) =
            ordinals.iter().map(open).collect::<Result<Vec<_>>>()?.into_iter().unzip();
        let of = |device: &Device| format!("compute capability {}.{}", device.arch() / 10, device.arch() % 10);
        if let Some((i, odd)) = devices.iter().enumerate().find(|(_, device)| device.arch() != devices[0].arch()) {
            let message = format!("GPU {} has {}, GPU {} has {}", ordinals[0], of(&devices[0]), ordinals[i], of(odd));
            return Err(Error::new(message).hint("take GPUs of one kind: device = \"cuda:0,1\" names them"));
        }
        Cuda::joined(all, Box::new(Nccl::connect(devices)?))
    }

    /// Does a little of everything that needs a library (a copy, a kernel, a product) and looks at what comes out.
    ///
    /// # Errors
    /// What failed first, or that the numbers are wrong.
    pub fn probe(&self) -> Result<()> {
        // Small whole numbers: exact whatever the order of the sums.
        const SIDE: usize = 16;
        let len = SIDE * SIDE;
        let value = |i: usize| (i % 5) as f32 - 2.0;
        let found = self.issue("a first product", |ops| {
            let driver = ops.driver.clone();
            let mut wide = Buffer::<f32>::new(driver.clone(), len)?;
            let mut rounded = Buffer::<bf16>::new(driver, len)?;
            ops.write(wide.part_mut(0), &(0..len).map(value).collect::<Vec<_>>())?;
            ops.round(rounded.part_mut(0), wide.part(0), len)?;
            ops.multiply(&forward(SIDE, (SIDE, SIDE), Out::F32), rounded.part(0), rounded.part(0), wide.part_mut(0))?;
            ops.read(wide.part(0), len)
        });
        let ended = self.driver.synchronize();
        self.keep("a first product", ended);
        self.failure()?;
        let at = |i: usize, j: usize| (0..SIDE).map(|k| value(i * SIDE + k) * value(j * SIDE + k)).sum::<f32>();
        let right = |(i, x): (usize, &f32)| *x == at(i / SIDE, i % SIDE);
        match found.is_some_and(|found| found.len() == len && found.iter().enumerate().all(right)) {
            true => Ok(()),
            false => {
                Err(Error::new("it multiplies wrongly").hint("`benches/gpu/op_parity.sh` shows which operation is off"))
            }
        }
    }

    /// Gives back what operations use within themselves, if nobody has this backend but its owner.
    fn rest(&self) {
        if Arc::strong_count(&self.shared) == 1 {
            self.turn().scratch = super::Scratch::new(&self.driver);
        }
    }
}
