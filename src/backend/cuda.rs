//! The CUDA backend, as far as it can be checked without a GPU: the kernels'
//! sources and their compilation, the tiles and page tables that the host computes.
//!
//! Everything of NVIDIA's is loaded at run time (cudarc, dynamic loading), so one
//! binary runs everywhere. GPU.md says what waits for a GPU.

pub mod compile;
pub mod device;
pub mod geometry;
pub mod kernels;
pub mod kv_pages;
pub mod matmul;
