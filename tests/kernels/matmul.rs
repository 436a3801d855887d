//! cuBLASLt's products on a real GPU; without one there is nothing to run.

use gristmill::backend::cuda::driver::Driver;
use gristmill::backend::cuda::matmul::{Out, Product};

use crate::gpu::{self, Memory};
use crate::shim::{Act, close, collect};

/// Values as bf16.
fn bits(values: &[f32]) -> Vec<u16> {
    values.iter().map(|&x| half::bf16::from_f32(x).to_bits()).collect()
}

#[test]
fn every_transposition_multiplies_and_adds_as_the_formula_says() {
    let Some(device) = gpu::device() else {
        println!("skipped: no GPU asked for (GRISTMILL_TEST_DEVICE=cuda)");
        return;
    };
    let (m, n, k) = (72, 40, 136);
    let (a, b, c) = (Act::Bf16.random(m * k, 1), Act::Bf16.random(k * n, 2), Act::Bf16.random(m * n, 3));
    for case in 0..8 {
        let (a_transposed, b_transposed, accumulate) = (case & 1 > 0, case & 2 > 0, case & 4 > 0);
        let product = Product { m, n, k, a_transposed, b_transposed, out: Out::F32, accumulate, parts: 1 };
        let [da, db] = [&a, &b].map(|x| Memory::of(device, bytemuck::cast_slice(&bits(x))));
        let dc = Memory::of(device, bytemuck::cast_slice(&c));
        // SAFETY: each allocation has the bytes that the product takes, and lives until it is read back.
        unsafe { device.multiply(&product, da.1, db.1, dc.1) }.unwrap();
        let found: Vec<f32> = collect(&dc.read(m * n * 4));
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

/// Without an algorithm for these a decoding step falls back to whole sums: right, and slower.
#[test]
fn a_product_in_parts_has_an_algorithm_and_sums_each_part_alone() {
    let Some(device) = gpu::device() else {
        println!("skipped: no GPU asked for (GRISTMILL_TEST_DEVICE=cuda)");
        return;
    };
    let (n, k, parts) = (896, 4864, 4);
    for m in [1, 48, 256] {
        let (a, b) = (Act::Bf16.random(m * k, 1), Act::Bf16.random(n * k, 2));
        let [da, db] = [&a, &b].map(|x| Memory::of(device, bytemuck::cast_slice(&bits(x))));
        let dc = Memory::of(device, &vec![0xff; parts * m * n * 4]);
        let (out, accumulate) = (Out::F32, false);
        let product = Product { m, n, k, a_transposed: false, b_transposed: true, out, accumulate, parts };
        // SAFETY: each allocation has the bytes that the product takes, and lives until it is read back.
        assert!(unsafe { device.multiply(&product, da.1, db.1, dc.1) }.unwrap(), "{product:?}");
        let found: Vec<f32> = collect(&dc.read(parts * m * n * 4));
        let each = k / parts;
        let (some, want): (Vec<f32>, Vec<f32>) = (0..parts * m * n)
            .step_by(379)
            .map(|at| {
                let (part, row, column) = (at / (m * n), at / n % m, at % n);
                let range = part * each..(part + 1) * each;
                (found[at], range.map(|x| a[row * k + x] * b[column * k + x]).sum::<f32>())
            })
            .unzip();
        close(&format!("{product:?}"), &some, &want, 1e-4);
    }
}

/// What `Backend` promises of the reference; here it is a question to the card, and the answer is printed: how many
/// values of a row change when it rides in a larger batch.
#[test]
fn a_rows_bits_in_batches_of_other_sizes() {
    let Some(device) = gpu::device() else {
        println!("skipped: no GPU asked for (GRISTMILL_TEST_DEVICE=cuda)");
        return;
    };
    for (n, k) in [(1152, 896), (896, 896), (9728, 896), (896, 4864), (8192, 896)] {
        let rows = 2048;
        let (x, w) = (bits(&Act::Bf16.random(rows * k, 1)), bits(&Act::Bf16.random(n * k, 2)));
        let (dx, dw) = (Memory::of(device, bytemuck::cast_slice(&x)), Memory::of(device, bytemuck::cast_slice(&w)));
        let dy = Memory::of(device, &vec![0; rows * n * 2]);
        let first_row = |m: usize| {
            let (out, accumulate) = (Out::Bf16, false);
            let product = Product { m, n, k, a_transposed: false, b_transposed: true, out, accumulate, parts: 1 };
            // SAFETY: the allocations were made for the largest m.
            unsafe { device.multiply(&product, dx.1, dw.1, dy.1) }.unwrap();
            collect::<u16>(&dy.read(n * 2))
        };
        let whole = first_row(rows);
        for m in [1, 7, 64, 256, 1000] {
            let differ = first_row(m).iter().zip(&whole).filter(|(a, b)| a != b).count();
            println!("n {n} k {k}: {differ} of {n} values differ between batches of {m} and {rows}");
            assert_eq!(first_row(m), first_row(m), "the same product twice");
        }
    }
}
