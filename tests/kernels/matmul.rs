//! cuBLASLt's products on a real GPU; without one there is nothing to run.

use cudarc::driver::result;
use gristmill::backend::cuda::matmul::{Matmul, Out, Product, WORKSPACE};

use crate::gpu;
use crate::shim::{Act, close};

#[test]
fn every_transposition_multiplies_and_adds_as_the_formula_says() {
    let Some(device) = gpu::device() else {
        println!("skipped: no GPU asked for (GRISTMILL_TEST_DEVICE=cuda)");
        return;
    };
    let matmul = Matmul::new(device.context().default_stream()).unwrap();
    let (m, n, k) = (72, 40, 136);
    let (a, b, c) = (Act::Bf16.random(m * k, 1), Act::Bf16.random(k * n, 2), Act::Bf16.random(m * n, 3));
    let bits = |x: &[f32]| x.iter().map(|&x| half::bf16::from_f32(x).to_bits()).collect::<Vec<u16>>();
    for case in 0..8 {
        let (a_transposed, b_transposed, accumulate) = (case & 1 > 0, case & 2 > 0, case & 4 > 0);
        let product = Product { m, n, k, a_transposed, b_transposed, out: Out::F32, accumulate };
        let mut found = vec![0.0f32; m * n];
        // SAFETY: each allocation has the bytes that the product takes, and lives until the copy back, which waits.
        unsafe {
            let [da, db] = [&a, &b].map(|x| {
                let at = result::malloc_sync(x.len() * 2).unwrap();
                result::memcpy_htod_sync(at, &bits(x)).unwrap();
                at
            });
            let (dc, workspace) = (result::malloc_sync(m * n * 4).unwrap(), result::malloc_sync(WORKSPACE).unwrap());
            result::memcpy_htod_sync(dc, &c).unwrap();
            matmul.issue(&product, da, db, dc, workspace).unwrap();
            device.context().synchronize().unwrap();
            result::memcpy_dtoh_sync(&mut found, dc).unwrap();
            [da, db, dc, workspace].into_iter().for_each(|at| result::free_sync(at).unwrap());
        }
        let want: Vec<f32> = (0..m * n)
            .map(|at| {
                let (i, j) = (at / n, at % n);
                let term = |x: usize| {
                    let left = if a_transposed { a[x * m + i] } else { a[i * k + x] };
                    left * if b_transposed { b[j * k + x] } else { b[x * n + j] }
                };
                (0..k).map(term).sum::<f32>() + if accumulate { c[at] } else { 0.0 }
            })
            .collect();
        close(&format!("{product:?}"), &found, &want, 1e-4);
    }
}
