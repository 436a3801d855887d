//! Where to run, as a recipe says it.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::{Cpu, Cuda, cuda, notice};
use crate::error::{Error, Result};

/// `"cpu"`, `"cuda"` (the first GPU), `"cuda:1"`, `"cuda:0,1"` or `"cuda:all"` (several, each with a copy of every
/// model), or `"auto"`: a GPU where there is one that works, else the CPU.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Device {
    Cpu,
    Cuda(Gpus),
    #[default]
    Auto,
}

/// GPUs by ordinal, below 64; at least one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gpus(u64);

impl Gpus {
    /// Every GPU of the machine.
    pub const ALL: Gpus = Gpus(u64::MAX);
    const MOST: usize = 64;

    /// Those of these ordinals; `None` if there is none, one twice, or one beyond what is covered.
    pub fn of(ordinals: impl IntoIterator<Item = usize>) -> Option<Self> {
        let mut set = 0u64;
        for ordinal in ordinals {
            let one = (ordinal < Gpus::MOST).then(|| 1 << ordinal).filter(|one| set & one == 0)?;
            set |= one;
        }
        (set != 0).then_some(Gpus(set))
    }

    /// Their ordinals, ascending, on a machine with so many.
    pub fn ordinals(self, available: usize) -> Vec<usize> {
        match self {
            Gpus::ALL => (0..available).collect(),
            Gpus(set) => (0..Gpus::MOST).filter(|ordinal| set >> ordinal & 1 == 1).collect(),
        }
    }

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
    Cpu(Cpu),
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

impl FromStr for Device {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            "cpu" => return Ok(Device::Cpu),
            "cuda" => return Ok(Device::Cuda(Gpus(1))),
            "cuda:all" => return Ok(Device::Cuda(Gpus::ALL)),
            "auto" => return Ok(Device::Auto),
            _ => {}
        }
        let ordinals = text.strip_prefix("cuda:").map(|list| list.split(',').map(str::parse::<usize>).collect());
        ordinals.and_then(|all: Result<Vec<usize>, _>| Gpus::of(all.ok()?)).map(Device::Cuda).ok_or_else(|| {
            Error::usage(format!("`{text}` is no device")).in_field("device").hint(
                "\"auto\", \"cpu\", \"cuda\", \"cuda:1\" for the second GPU, \"cuda:0,1\" for two of them, or \"cuda:all\"",
            )
        })
    }
}

impl TryFrom<String> for Device {
    type Error = Error;

    fn try_from(text: String) -> Result<Self> {
        text.parse()
    }
}

impl From<Device> for String {
    fn from(device: Device) -> Self {
        device.to_string()
    }
}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Device::Cpu => f.write_str("cpu"),
            Device::Cuda(Gpus(1)) => f.write_str("cuda"),
            Device::Cuda(Gpus::ALL) => f.write_str("cuda:all"),
            Device::Cuda(gpus) => {
                let ordinals: Vec<String> = gpus.ordinals(0).iter().map(usize::to_string).collect();
                write!(f, "cuda:{}", ordinals.join(","))
            }
            Device::Auto => f.write_str("auto"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_are_written_as_they_are_read() {
        for text in ["cpu", "cuda", "cuda:3", "cuda:0,2,5", "cuda:all", "auto"] {
            assert_eq!(text.parse::<Device>().unwrap().to_string(), text);
        }
        for text in ["gpu", "cuda:", "cuda:x", "cuda:1,", "cuda:1,1", "cuda:64", "CPU", ""] {
            let error = text.parse::<Device>().unwrap_err();
            assert_eq!(error.exit_code(), 2, "{error}");
        }
    }

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
