//! Where to run, as a recipe says it.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::{Cpu, Cuda};
use crate::error::{Error, Result};

/// `"cpu"`, `"cuda"` (the first GPU), `"cuda:1"`, or `"auto"`: a GPU where there is one that works, else the CPU.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Device {
    Cpu,
    /// The GPU of this ordinal.
    Cuda(usize),
    #[default]
    Auto,
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
            Device::Cuda(ordinal) => Ok(Opened::Cuda(Cuda::open(ordinal)?)),
            Device::Auto => Ok(Cuda::open(0).map_or_else(|_| Opened::Cpu(Cpu::new()), Opened::Cuda)),
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
            "cuda" => return Ok(Device::Cuda(0)),
            "auto" => return Ok(Device::Auto),
            _ => {}
        }
        let ordinal = text.strip_prefix("cuda:").and_then(|n| n.parse().ok());
        ordinal.map(Device::Cuda).ok_or_else(|| {
            Error::usage(format!("`{text}` is no device"))
                .in_field("device")
                .hint("\"auto\", \"cpu\", \"cuda\", or \"cuda:1\" for the second GPU")
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
            Device::Cuda(0) => f.write_str("cuda"),
            Device::Cuda(ordinal) => write!(f, "cuda:{ordinal}"),
            Device::Auto => f.write_str("auto"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_are_written_as_they_are_read() {
        for text in ["cpu", "cuda", "cuda:3", "auto"] {
            assert_eq!(text.parse::<Device>().unwrap().to_string(), text);
        }
        for text in ["gpu", "cuda:", "cuda:x", "CPU", ""] {
            let error = text.parse::<Device>().unwrap_err();
            assert_eq!(error.exit_code(), 2, "{error}");
        }
    }

    #[test]
    fn auto_works_on_any_machine_and_a_gpu_that_is_not_there_is_said_in_a_line() {
        assert!(["cpu", "cuda"].contains(&Device::Auto.open().unwrap().name()));
        let Err(error) = Device::Cuda(10_000).open() else { panic!("no machine has as many") };
        assert_eq!(error.message().lines().count(), 1, "{error}");
    }
}
