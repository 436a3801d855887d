//! The CUDA kernels on machines without a GPU (DESIGN: "Kernels without a GPU").
//!
//! `shim` compiles each kernel's own source with the host compiler and runs it,
//! threads as fibers, against the CPU backend; `nvrtc` compiles every kernel to
//! device code with NVIDIA's compiler. Both gates are themselves tested to fail. `stand_in` puts this host in the place of
//! NVIDIA's libraries, so that the code that calls them runs whole.

mod attention;
mod backend;
mod bench;
mod broken_gpus;
mod compile;
mod decode;
mod faults;
mod gates_can_fail;
mod gpu;
mod head;
mod host;
mod kv_cache;
mod libraries;
mod matmul;
mod model;
mod nvrtc;
mod opened;
mod ops;
mod pair;
mod peers;
mod product;
mod r1_mini;
mod recording;
mod sample;
mod shim;
mod stand_in;

/// The bench's own modules.
#[path = "../../benches/gpu"]
mod benches {
    pub mod suite;
}
