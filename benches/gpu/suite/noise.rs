//! Buffers of noise: kernels on zeros hide what they do not write, and can be faster than on real data.

use gristmill::backend::{Backend, Cuda, Param};
use gristmill::seed::Rng;

type Act = <Cuda as Backend>::Act;
type F32 = <Cuda as Backend>::F32;

/// Width of a row of the table, and its rows.
const WIDTH: usize = 128;
const ROWS: usize = 2048;

/// A table of normally distributed values that buffers are filled from on the device: the host would take seconds.
pub struct Noise<'a> {
    gpu: &'a Cuda,
    values: Vec<f32>,
    table: Act,
}

impl<'a> Noise<'a> {
    pub fn new(gpu: &'a Cuda) -> Self {
        let mut rng = Rng::new(11);
        let values: Vec<f32> = (0..ROWS * WIDTH).map(|_| rng.normal() as f32).collect();
        let table = gpu.put_act(&values);
        Noise { gpu, values, table }
    }

    /// Activations, at least `len` of them.
    pub fn act(&self, len: usize) -> Act {
        let rows = len.div_ceil(WIDTH);
        let index: Vec<u32> = (0..rows as u64).map(|i| (i * 2_654_435_761 % ROWS as u64) as u32).collect();
        let mut act = self.gpu.act(rows * WIDTH);
        self.gpu.gather(&self.table, &index, WIDTH, &mut act);
        act
    }

    /// Floats, multiplied by `scale`.
    pub fn f32(&self, len: usize, scale: f32) -> F32 {
        let mut buffer = self.gpu.f32(len);
        let values = self.values(scale);
        for at in (0..len).step_by(values.len()) {
            self.gpu.put_f32(&mut buffer, at, &values[..values.len().min(len - at)]);
        }
        buffer
    }

    /// The table on the host, multiplied by `scale`.
    pub fn values(&self, scale: f32) -> Vec<f32> {
        self.values.iter().map(|x| x * scale).collect()
    }

    /// A matrix of noise, as products read it; it has no masters.
    pub fn matrix(&self, rows: usize, cols: usize) -> Param<Cuda> {
        Param { value: self.gpu.f32(0), ready: self.act(rows * cols), rows, cols }
    }

    /// A vector of noise around 1, as norms read it.
    pub fn vector(&self, len: usize) -> Param<Cuda> {
        let mut value = self.gpu.f32(len);
        let near: Vec<f32> = self.values.iter().cycle().take(len).map(|x| 1.0 + 0.1 * x).collect();
        self.gpu.put_f32(&mut value, 0, &near);
        Param { value, ready: self.gpu.act(0), rows: 1, cols: len }
    }
}
