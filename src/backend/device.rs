//! Opening what a recipe's `device` names.

use super::{Cpu, Cuda, cuda, notice};
pub use crate::device::Device;
use crate::device::Gpus;
use crate::error::{Error, Result};

impl Gpus {
    /// Their ordinals on this machine.
    ///
    /// # Errors
    /// Where all were asked for and there is none.
    pub fn here(self) -> Result<Vec<usize>> {
        let available = if self == Gpus::ALL { cuda::device::Device::count()? } else { 0 };
        let ordinals = self.ordinals(available);
        match ordinals.is_empty() {
            true => Err(Error::new("the NVIDIA driver lists no GPU")),
            false => Ok(ordinals),
        }
    }
}

/// An opened device. The model, engines and trainers are generic over `Backend`: match, and go on with what is inside.
///
/// ```text
/// match device.open()? {
///     Opened::Cpu(backend) => train(backend, config),
///     Opened::Cuda(backend) => train(backend, config),
/// }
/// ```
#[derive(Clone)]
pub enum Opened {
    /// The reference backend, on the process's thread pool.
    Cpu(Cpu),
    /// One GPU, or several with a copy of every model each.
    Cuda(Cuda),
}

impl Device {
    /// Opens the device on the process's thread pool or the GPU.
    ///
    /// # Errors
    /// Where a GPU was asked for by name and cannot be used; `auto` takes the CPU then.
    pub fn open(self) -> Result<Opened> {
        match self {
            Device::Cpu => Ok(Opened::Cpu(Cpu::new())),
            Device::Cuda(gpus) => Ok(Opened::Cuda(Cuda::open_all(&gpus.here()?)?)),
            Device::Auto => {
                let gpus = if cuda::requirements::has_driver() { cuda::device::Device::count() } else { Ok(0) };
                let (opened, why) = or_cpu(gpus, || Cuda::open(0));
                why.iter().for_each(|line| notice::once(line));
                Ok(opened)
            }
        }
    }
}

/// The GPU if it works, else the CPU; a line that says why where a GPU is there and does not work.
fn or_cpu(gpus: Result<usize>, open: impl FnOnce() -> Result<Cuda>) -> (Opened, Option<String>) {
    match gpus.and_then(|gpus| (gpus > 0).then(open).transpose()) {
        Ok(Some(gpu)) => (Opened::Cuda(gpu), None),
        Ok(None) => (Opened::Cpu(Cpu::new()), None),
        Err(error) => {
            let why = error.with_cause();
            let why = why.lines().next().unwrap_or_default();
            let line = format!("device = \"auto\" takes the CPU: {why} (`gristmill doctor` shows what was found)");
            (Opened::Cpu(Cpu::new()), Some(line))
        }
    }
}

impl Opened {
    /// `cpu` or `cuda`, for a run's log.
    pub fn name(&self) -> &'static str {
        match self {
            Opened::Cpu(_) => "cpu",
            Opened::Cuda(_) => "cuda",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn auto_takes_the_cpu_whatever_is_broken_and_says_so_in_a_line() {
        let (opened, why) = or_cpu(Ok(0), || panic!("there is nothing to open"));
        assert_eq!((opened.name(), why), ("cpu", None), "no GPU is nothing to speak of");
        let old = || Err(Error::new("the NVIDIA driver is too old"));
        let broken =
            || Err(Error::new("kernels/rope.cu does not compile for sm_90: rope.cu(3): error\nrope.cu(9): more"));
        for (gpus, open, word) in
            [(old(), None, "the NVIDIA driver is too old"), (Ok(1), Some(broken()), "kernels/rope.cu does not compile")]
        {
            let (opened, why) = or_cpu(gpus, || open.expect("not asked"));
            let line = why.expect("a line");
            assert_eq!(opened.name(), "cpu");
            assert!(line.contains(word) && line.lines().count() == 1 && line.contains("doctor"), "{line}");
        }
    }

    #[test]
    fn auto_works_on_any_machine_and_a_gpu_that_is_not_there_is_said_in_a_line() {
        assert!(["cpu", "cuda"].contains(&Device::Auto.open().unwrap().name()));
        for many in ["cuda:63", "cuda:62,63"] {
            let Err(error) = many.parse::<Device>().unwrap().open() else { panic!("no machine has as many") };
            assert_eq!(error.message().lines().count(), 1, "{error}");
        }
    }
}
