//! The name of a device, as a recipe says it; `backend` opens it.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// `"cpu"`, `"cuda"` (the first GPU), `"cuda:1"`, `"cuda:0,1"` or `"cuda:all"` (several, each with a copy of every
/// model), or `"auto"`: a GPU where there is one that works, else the CPU.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Device {
    /// The process's thread pool.
    Cpu,
    /// These GPUs; an error when it is opened if one of them cannot be used.
    Cuda(Gpus),
    /// The first GPU if it works, else the CPU.
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
}

impl Device {
    /// `cpu`, `cuda` or `auto`: which of them, and how many, moves no result that is kept.
    pub fn make(self) -> &'static str {
        match self {
            Device::Cpu => "cpu",
            Device::Cuda(_) => "cuda",
            Device::Auto => "auto",
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
}
