//! What the card copies a second within its memory: the yardstick of everything that moves bytes.
//!
//! Not an operation of the backend's, so it asks the driver itself.

use std::time::Instant;

use cudarc::driver::DriverError;
use gristmill::backend::cuda::device::Device;
use gristmill::{Error, Result};

use super::{Figure, Scale, Unit};

/// Bytes of noise that the source repeats: memory that holds zeros may be faster.
const NOISE: usize = 64 << 20;
/// Copies of a run.
const COPIES: usize = 32;

/// Bytes read and written a second.
///
/// # Errors
/// What the driver reports.
pub fn bandwidth(device: &Device, scale: &Scale) -> Result<Figure> {
    let seconds = copies(device, scale).map_err(|error| Error::new("the card does not copy").caused_by(error))?;
    let size = format!("{} MiB to another place", scale.copied >> 20);
    Ok(Figure::new("copy", size, Unit::Bytes, (2 * scale.copied) as f64, seconds))
}

/// Seconds of one copy, in each run.
fn copies(device: &Device, scale: &Scale) -> Result<Vec<f64>, DriverError> {
    let len = scale.copied / 8;
    let stream = device.stream();
    let mut rng = gristmill::seed::Rng::new(7);
    let noise: Vec<u64> = (0..len.min(NOISE / 8)).map(|_| rng.next_u64()).collect();
    let mut from = stream.alloc_zeros::<u64>(len)?;
    let mut to = stream.alloc_zeros::<u64>(len)?;
    for at in (0..len).step_by(noise.len()) {
        let end = len.min(at + noise.len());
        stream.memcpy_htod(&noise[..end - at], &mut from.slice_mut(at..end))?;
    }
    let mut timed = || {
        stream.synchronize()?;
        let start = Instant::now();
        for _ in 0..COPIES {
            stream.memcpy_dtod(&from, &mut to)?;
        }
        stream.synchronize()?;
        Ok(start.elapsed().as_secs_f64() / COPIES as f64)
    };
    timed()?;
    (0..scale.runs).map(|_| timed()).collect()
}
