//! Both backends side by side: the same values on both, and what came out compared.

use gristmill::backend::cuda::Buffer;
use gristmill::backend::{Backend, Cpu, Cuda, Param};
use half::bf16;

use crate::host::cuda;
use crate::shim::{Act, close};

/// To the rounding of a bf16 result.
pub const ROUNDED: f32 = 1.0 / 128.0;

/// Both backends, and values on both.
pub struct Pair {
    pub cpu: Cpu,
    pub gpu: Cuda,
}

impl Pair {
    pub fn new() -> Option<Self> {
        Some(Pair { cpu: Cpu::new(), gpu: cuda()? })
    }

    /// Activations that bf16 holds exactly.
    pub fn act(&self, len: usize, seed: u64) -> (Vec<f32>, Buffer<bf16>) {
        let values = Act::Bf16.random(len, seed);
        let there = self.gpu.put_act(&values);
        (values, there)
    }

    pub fn f32(&self, values: Vec<f32>) -> (Vec<f32>, Buffer<f32>) {
        let mut there = self.gpu.f32(values.len());
        self.gpu.put_f32(&mut there, 0, &values);
        (values, there)
    }

    pub fn u32(&self, values: &[u32]) -> (Vec<u32>, Buffer<u32>) {
        let mut there = self.gpu.u32(values.len());
        self.gpu.put_u32(&mut there, values);
        (values.to_vec(), there)
    }

    /// A parameter whose values bf16 holds exactly, published.
    pub fn param(&self, rows: usize, cols: usize, matrix: bool, seed: u64) -> (Param<Cpu>, Param<Cuda>) {
        fn of<B: Backend>(b: &B, rows: usize, cols: usize, matrix: bool, values: &[f32]) -> Param<B> {
            let mut param = Param { value: b.f32(rows * cols), ready: b.ready(rows, cols, matrix), rows, cols };
            b.put_f32(&mut param.value, 0, values);
            b.publish(&mut param);
            param
        }
        let values = Act::Bf16.random(rows * cols, seed);
        (of(&self.cpu, rows, cols, matrix, &values), of(&self.gpu, rows, cols, matrix, &values))
    }

    #[track_caller]
    pub fn acts(&self, what: &str, found: &Buffer<bf16>, want: &[f32], tolerance: f32) {
        self.gpu.finish().unwrap();
        close(what, &self.gpu.get_act(found, want.len()), want, tolerance);
    }

    #[track_caller]
    pub fn f32s(&self, what: &str, found: &Buffer<f32>, want: &[f32], tolerance: f32) {
        self.gpu.finish().unwrap();
        close(what, &self.gpu.get_f32(found, 0..want.len()), want, tolerance);
    }
}
