//! Products of the shapes that cuBLASLt may have no algorithm for, against the formula.

use crate::args;
use crate::shim::{ACTS, Act, Device, available, close};

/// `op(a) op(b)` of row-major matrices.
fn product((m, n, k): (usize, usize, usize), a: &[f32], b: &[f32], transposed: (bool, bool)) -> Vec<f32> {
    let term = |i: usize, j: usize, x: usize| {
        let left = if transposed.0 { a[x * m + i] } else { a[i * k + x] };
        left * if transposed.1 { b[j * k + x] } else { b[x * n + j] }
    };
    (0..m * n).map(|at| (0..k).map(|x| term(at / n, at % n, x)).sum()).collect()
}

#[test]
fn any_shape_every_transposition_with_and_without_what_was_there() {
    if !available() {
        return;
    }
    for act in ACTS {
        // One of everything; a vocabulary of 141 tokens; exactly a tile; a tile and a bit of each.
        for (case, shape) in [(1, 1, 1), (3, 141, 40), (32, 32, 32), (33, 65, 35)].into_iter().enumerate() {
            let (m, n, k) = shape;
            let (a, b, c) = (act.random(m * k, 1), act.random(k * n, 2), act.random(m * n, 3));
            for flags in 0..8 {
                let [a_transposed, b_transposed, adds] = [1, 2, 4].map(|bit| flags & bit > 0);
                let mut want = product(shape, &a, &b, (a_transposed, b_transposed));
                if adds {
                    want.iter_mut().zip(&c).for_each(|(want, c)| *want += c);
                }
                let flags = [a_transposed, b_transposed, adds].map(usize::from);
                let grid = [n.div_ceil(32), m.div_ceil(32), 1];
                let mut d = Device::new("product.cu", act);
                let ([a, b], [wide, rounded]) = ([&a, &b].map(|x| d.act(x)), [d.f32(&c), d.act(&c)]);
                for (kernel, c) in [("product_f32", wide), ("product_act", rounded)] {
                    d.launch(kernel, grid, 256, 0, args![a, b, c, m, n, k, flags[0], flags[1], flags[2]]);
                }
                close(&format!("case {case}, f32"), &d.read_f32(wide), &want, 2e-5);
                let tolerance = if act == Act::F32 { 2e-5 } else { 8e-3 };
                close(&format!("case {case}, activations"), &d.read_act(rounded), &want, tolerance);
            }
        }
    }
}
