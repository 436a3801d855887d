//! Matrix products by cuBLASLt: bf16 in, f32 accumulated, f32 or bf16 out.
//!
//! An algorithm is asked for once for each shape and kept: the heuristic costs
//! more than a small product does, and asking again could answer differently.
//! cuBLASLt is column-major; a row-major matrix is its own transpose there, so
//! C = A B is computed as Cᵀ = Bᵀ Aᵀ and nothing is moved.

use std::collections::HashMap;
use std::ffi::c_void;
use std::sync::{Arc, Mutex, PoisonError};

use cudarc::cublaslt::{result, sys};
use cudarc::driver::CudaStream;

use crate::error::{Context, Error, Result};

/// Scratch memory that algorithms may use, in bytes; Hopper's wants 32 MiB.
pub const WORKSPACE: usize = 32 << 20;

/// Element type of the result.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Out {
    Bf16,
    F32,
}

/// `c [m, n] = op(a) op(b)`, or `+=`; a is stored `[m, k]`, or `[k, m]` where it is transposed, b likewise.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Product {
    pub m: usize,
    pub n: usize,
    pub k: usize,
    pub a_transposed: bool,
    pub b_transposed: bool,
    pub out: Out,
    /// Adds to c instead of overwriting it.
    pub accumulate: bool,
}

/// A column-major matrix as cuBLASLt wants it told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Layout {
    rows: usize,
    cols: usize,
    /// Elements from one column to the next.
    ld: usize,
    transposed: bool,
}

impl Product {
    /// cuBLASLt's first operand (our b), its second (our a) and its result (our c).
    fn layouts(&self) -> [Layout; 3] {
        let of = |rows: usize, cols: usize, transposed| match transposed {
            false => Layout { rows: cols, cols: rows, ld: cols, transposed },
            true => Layout { rows, cols, ld: rows, transposed },
        };
        [of(self.k, self.n, self.b_transposed), of(self.m, self.k, self.a_transposed), of(self.m, self.n, false)]
    }
}

/// A description for each of cuBLASLt's arguments, and the algorithm found for them.
struct Plan {
    operation: sys::cublasLtMatmulDesc_t,
    layouts: [sys::cublasLtMatrixLayout_t; 3],
    algorithm: sys::cublasLtMatmulAlgo_t,
}

/// cuBLASLt on one stream, with the plans made so far.
pub struct Matmul {
    handle: sys::cublasLtHandle_t,
    stream: Arc<CudaStream>,
    plans: Mutex<HashMap<Product, Plan>>,
}

// SAFETY: a cuBLASLt handle may be used by several threads; plans are behind a lock and never change once made.
unsafe impl Send for Matmul {}
// SAFETY: as above.
unsafe impl Sync for Matmul {}

impl Matmul {
    /// Loads cuBLASLt.
    ///
    /// # Errors
    /// Where the library is missing or does not start.
    pub fn new(stream: Arc<CudaStream>) -> Result<Self> {
        // SAFETY: tries to load a shared library by its well-known names. cudarc panics where it is missing, so this comes first.
        if !unsafe { sys::is_culib_present() } {
            return Err(Error::new("cuBLASLt (libcublasLt.so) was not found; linear layers on the GPU need it")
                .hint("install the CUDA 12 toolkit or the Python package nvidia-cublas-cu12, and put the folder of its libraries on LD_LIBRARY_PATH"));
        }
        stream.context().bind_to_thread().or_fail(|| "the GPU cannot be used".to_owned())?;
        let handle = result::create_handle().or_fail(|| "cuBLASLt does not start".to_owned())?;
        Ok(Matmul { handle, stream, plans: Mutex::default() })
    }

    /// Issues a product. Addresses are the device's; `workspace` has [`WORKSPACE`] bytes.
    ///
    /// # Safety
    /// Each address is that of as many elements of its type as the product takes, on this stream's GPU, 16-byte
    /// aligned, live until the stream has passed; c is not a or b, and nothing else uses the workspace meanwhile.
    ///
    /// # Errors
    /// Where cuBLASLt has no algorithm for the shape, or refuses to run it.
    pub unsafe fn issue(&self, product: &Product, a: u64, b: u64, c: u64, workspace: u64) -> Result<()> {
        let what = || format!("cuBLASLt cannot multiply {product:?}");
        self.stream.context().bind_to_thread().or_fail(what)?;
        let mut plans = self.plans.lock().unwrap_or_else(PoisonError::into_inner);
        if !plans.contains_key(product) {
            plans.insert(*product, self.plan(product).or_fail(what)?);
        }
        let Plan { operation, layouts: [first, second, third], algorithm } = &plans[product];
        let (one, zero) = (1.0f32, 0.0f32);
        let beta = if product.accumulate { &one } else { &zero };
        let pointer = |address: u64| address as *mut c_void;
        // SAFETY: the plan was made for this product; the caller answers for the memory.
        unsafe {
            result::matmul(
                self.handle,
                *operation,
                (&raw const one).cast(),
                std::ptr::from_ref(beta).cast(),
                pointer(b),
                *first,
                pointer(a),
                *second,
                pointer(c),
                *third,
                pointer(c),
                *third,
                algorithm,
                pointer(workspace),
                WORKSPACE,
                self.stream.cu_stream().cast(),
            )
        }
        .or_fail(what)
    }

    /// Describes a product and asks for an algorithm.
    fn plan(&self, product: &Product) -> Result<Plan, result::CublasError> {
        use sys::cublasLtMatmulDescAttributes_t::{CUBLASLT_MATMUL_DESC_TRANSA, CUBLASLT_MATMUL_DESC_TRANSB};
        use sys::cudaDataType::{CUDA_R_16BF, CUDA_R_32F};
        let layouts = product.layouts();
        let out = if product.out == Out::F32 { CUDA_R_32F } else { CUDA_R_16BF };
        let operation = result::create_matmul_desc(sys::cublasComputeType_t::CUBLAS_COMPUTE_32F, CUDA_R_32F)?;
        for (key, layout) in [CUBLASLT_MATMUL_DESC_TRANSA, CUBLASLT_MATMUL_DESC_TRANSB].into_iter().zip(layouts) {
            // CUBLAS_OP_N is 0, CUBLAS_OP_T 1.
            let value = i32::from(layout.transposed);
            // SAFETY: the description is live; the attribute is four bytes, copied by the call.
            unsafe { result::set_matmul_desc_attribute(operation, key, (&raw const value).cast(), 4)? };
        }
        let describe = |Layout { rows, cols, ld, .. }, kind| {
            result::create_matrix_layout(kind, rows as u64, cols as u64, ld as i64)
        };
        let described =
            [describe(layouts[0], CUDA_R_16BF)?, describe(layouts[1], CUDA_R_16BF)?, describe(layouts[2], out)?];
        let preference = result::create_matmul_pref()?;
        let key = sys::cublasLtMatmulPreferenceAttributes_t::CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES;
        let bytes = WORKSPACE;
        let [first, second, third] = described;
        // SAFETY: everything named is live; the attribute is a size_t, copied by the call.
        let found = unsafe {
            result::set_matmul_pref_attribute(preference, key, (&raw const bytes).cast(), size_of::<usize>())?;
            let found =
                result::get_matmul_algo_heuristic(self.handle, operation, first, second, third, third, preference);
            result::destroy_matmul_pref(preference)?;
            found?
        };
        Ok(Plan { operation, layouts: described, algorithm: found.algo })
    }
}

impl Drop for Matmul {
    fn drop(&mut self) {
        let plans = self.plans.get_mut().unwrap_or_else(PoisonError::into_inner);
        for (_, plan) in plans.drain() {
            // SAFETY: made by this value and used by nothing else. A failure here leaks a description: nothing to do about it.
            unsafe {
                for layout in plan.layouts {
                    let _ = result::destroy_matrix_layout(layout);
                }
                let _ = result::destroy_matmul_desc(plan.operation);
            }
        }
        // SAFETY: as above.
        let _ = unsafe { result::destroy_handle(self.handle) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What cuBLASLt does with these layouts: column-major D = op(A) op(B).
    fn column_major([a, b, d]: [Layout; 3], x: &[f32], y: &[f32]) -> Vec<f32> {
        let at = |l: Layout, m: &[f32], row: usize, col: usize| {
            let (row, col) = if l.transposed { (col, row) } else { (row, col) };
            assert!(row < l.rows && col < l.cols);
            m[row + col * l.ld]
        };
        let inner = if a.transposed { a.rows } else { a.cols };
        let mut out = vec![f32::NAN; d.ld * d.cols];
        for col in 0..d.cols {
            for row in 0..d.rows {
                out[row + col * d.ld] = (0..inner).map(|k| at(a, x, row, k) * at(b, y, k, col)).sum();
            }
        }
        out
    }

    #[test]
    fn a_row_major_product_is_told_to_a_column_major_library() {
        let (m, n, k) = (3, 4, 5);
        let (a, b): (Vec<f32>, Vec<f32>) =
            ((0..15).map(|i| i as f32).collect(), (0..20).map(|i| (i * i) as f32).collect());
        for (a_transposed, b_transposed) in [(false, false), (false, true), (true, false), (true, true)] {
            let product = Product { m, n, k, a_transposed, b_transposed, out: Out::F32, accumulate: false };
            let found = column_major(product.layouts(), &b, &a);
            for i in 0..m {
                for j in 0..n {
                    let want: f32 = (0..k)
                        .map(|x| {
                            let left = if a_transposed { a[x * m + i] } else { a[i * k + x] };
                            left * if b_transposed { b[j * k + x] } else { b[x * n + j] }
                        })
                        .sum();
                    assert_eq!(found[i * n + j], want, "{product:?}");
                }
            }
        }
    }
}
