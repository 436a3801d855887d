//! Kernels that are wrong on purpose: each gate must see its own kind of fault.

use gristmill::backend::cuda::kernels;

use crate::host::pass_with;
use crate::shim::{Act, Device, on_host};
use crate::{args, backend, kv_cache, r1_mini};

/// Runs `kernel` of this text over 64 threads with a buffer of 64 f32; what the shim says.
fn fault(body: &str) -> String {
    let text = format!("#include \"device.cuh\"\nextern \"C\" __global__ void wrong(float* x) {{ {body} }}\n");
    let mut d = Device::of_text("wrong.cu", &text, Act::F32);
    let x = d.f32(&[1.0; 64]);
    d.try_launch("wrong", [1, 1, 1], 64, 0, args![x]).expect_err("a wrong kernel passed")
}

#[test]
fn a_barrier_that_some_threads_miss() {
    if on_host() {
        let said = fault("if (threadIdx.x == 5) return; __syncthreads(); x[threadIdx.x] = 0.0f;");
        assert!(said.contains("63 of 64 threads wait"), "{said}");
        assert!(said.contains("thread 5 has returned"), "{said}");
    }
}

#[test]
fn barriers_that_are_not_the_same_one() {
    if on_host() {
        let said = fault("if (threadIdx.x < 32) {\n __syncthreads(); } else {\n __syncthreads(); }");
        assert!(said.contains("divergent barrier"), "{said}");
    }
}

#[test]
fn a_shuffle_that_a_lane_misses() {
    if on_host() {
        let said = fault("if (threadIdx.x % 32 != 7) x[threadIdx.x] = warp_sum(x[threadIdx.x]);");
        assert!(said.contains("divergence"), "{said}");
    }
}

#[test]
fn a_missing_barrier_changes_the_bits() {
    if on_host() {
        let said = fault(
            "__shared__ float s[64]; s[threadIdx.x] = x[threadIdx.x]; \
             x[threadIdx.x] = s[63 - threadIdx.x];",
        );
        assert!(said.contains("order changes the result"), "{said}");
    }
}

#[test]
fn a_write_past_the_end() {
    if on_host() {
        let said = fault("x[threadIdx.x + 1] = 0.0f;");
        assert!(said.contains("outside its 256 bytes"), "{said}");
    }
}

#[test]
fn an_asynchronous_copy_that_nobody_waits_for() {
    if on_host() {
        let said = fault(
            "__shared__ __attribute__((aligned(16))) float s[256]; \
             cp_async16(shared_address(s + 4 * threadIdx.x), x, true); cp_async_commit();",
        );
        assert!(said.contains("never waited"), "{said}");
    }
}

#[test]
fn a_wrong_sign_in_a_real_kernel() {
    if !on_host() {
        return;
    }
    let right = gristmill::backend::cuda::kernels::source("rope.cu").unwrap();
    let wrong = right.replace("a[j] = x * c[j] - y * sine;", "a[j] = x * c[j] + y * sine;");
    assert_ne!(wrong, right, "the seeded fault is in the kernel");
    let turn = |text: &str| {
        let mut d = Device::of_text("rope.cu", text, Act::F32);
        let (qkv, positions, table) = (d.f32(&[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]), d.u32(&[0]), d.f32(&[0.6, 0.8]));
        d.launch("rope", [1, 1, 1], 128, 0, args![qkv, positions, table, 1usize, 1usize, 2usize, 1.0f32]);
        d.read_f32(qkv)
    };
    let close = |found: &[f32]| found.iter().zip([-1.0, 2.0, -1.4, 4.8, 5.0, 6.0]).all(|(a, b)| (a - b).abs() < 1e-5);
    assert!(close(&turn(right)), "{:?}", turn(right));
    assert!(!close(&turn(&wrong)), "the comparison would not see a wrong sign");
}

#[test]
fn a_wrong_lane_in_the_tensor_core_path() {
    use gristmill::backend::cuda::geometry::{attention_passes, attention_tiles};
    if !on_host() {
        return;
    }
    let header = kernels::HEADERS.iter().find(|(name, _)| *name == "attention.cuh").unwrap().1;
    let wrong = header.replace("a[1] = bf16_pair(left[2], left[3]);", "a[1] = bf16_pair(left[3], left[2]);");
    assert_ne!(wrong, header, "the seeded fault is in the header");
    let source = kernels::source("attention.cu").unwrap();
    let shared = attention_passes(64).unwrap().forward.shared;
    let attend = |header: &str| {
        let act = Act::Bf16;
        let text = source.replace("#include \"attention.cuh\"", &header.replace("#pragma once", ""));
        let mut d = Device::of_text("attention.cu", &text, act);
        let (qkv, tiles) = (d.act(&act.random(20 * 3 * 64, 1)), d.u32(&attention_tiles(&[0, 20], 128)));
        let (out, lse) = (d.act_out(20 * 64), d.f32_out(20));
        d.launch("attention_64", [1, 1, 1], 128, shared, args![qkv, tiles, 1usize, 1usize, out, lse]);
        d.read_act(out)
    };
    let worst = attend(header).iter().zip(attend(&wrong)).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    assert!(worst > 0.1, "two swapped weights change the result by {worst} only");
}

/// A file, what stands in it, what is wrong instead, and the tests of operations that meet it.
type Seeded = (&'static str, &'static str, &'static str, &'static [fn()]);

/// A slip of the kind that is easily made, in every file.
const SEEDED: &[Seeded] = &[
    ("attention.cu", "at + KEYS - 1 > row + 16 * m", "at > row + 16 * m", &[backend::attention_over_packed_sequences]),
    ("attention.cu", "key <= row; key++", "key < row + 2; key++", &[backend::attention_over_packed_sequences]),
    ("attention.cu", "+ row + r % PAGE", "+ row + r", &[kv_cache::prompts_that_go_into_the_cache_in_pieces]),
    (
        "attention_backward.cu",
        "from < own + 16 * m + 15",
        "from < own + 16 * m",
        &[backend::attention_over_packed_sequences],
    ),
    ("attention_backward.cu", "[0] *= p.x", "[0] *= p.y", &[backend::attention_over_packed_sequences]),
    ("attention_backward.cu", "dv[e] = fmaf(p,", "dv[e] = fmaf(ds,", &[backend::attention_over_packed_sequences]),
    ("attention_cached.cu", "min(WARP, keys - base)", "min(WARP - 1, keys - base)", &[CACHE]),
    (
        "attention_cached.cu",
        "load8<Exact>(k + d + 8 * i, dim - d - 8 * i,",
        "load8<false>(k + d + 8 * i, 8 < dim ? 4 : 8,",
        &[CACHE],
    ),
    ("head.cu", "fmaf(e[j], v[j], weighted)", "fmaf(e[0], v[j], weighted)", &[backend::the_head_in_one_tile]),
    ("cast.cu", "v[j] += b[j]", "v[j] -= b[j]", &[backend::linear_layers_and_their_three_gradients]),
    ("embedding.cu", "sum[j] += d[j]", "sum[j] = d[j]", &[backend::embedding_and_rows_by_index]),
    ("head.cu", "fmaf(-h, log_p + big_h, -g)", "fmaf(-h, log_p - big_h, -g)", &[backend::the_head_in_one_tile]),
    ("kv_cache.cu", "head * page + position % page", "head * page + (position + 1) % page", &[CACHE]),
    ("optimizer.cu", "sqrtf(v), root, eps", "v, root, eps", &[backend::norms_and_adamw]),
    (
        "product.cu",
        "left[i][row + 8 * r]",
        "left[i][row + 4 * r]",
        &[r1_mini::and_where_cublaslt_has_no_algorithm_for_any_of_their_shapes],
    ),
    (
        "product.cu",
        "(u64)gridDim.y * width, parts",
        "0, parts",
        &[backend::linear_layers_whose_sums_are_cut_into_parts],
    ),
    (
        "qk_norm.cu",
        "head < query ? query_weight",
        "head <= query ? query_weight",
        &[backend::query_key_norm_and_rotation],
    ),
    (
        "reduce.cu",
        "for (int c = warp; c < chunks; c += WARP)",
        "for (int c = warp + 1; c < chunks; c += WARP)",
        &[backend::linear_layers_and_their_three_gradients],
    ),
    ("rms_norm.cu", "h[j] * r * mean", "h[j] * mean", &[backend::rms_norm_alone_fused_and_backward]),
    ("rms_norm.cu", "(u64)rows * width, parts", "0, parts", &[backend::linear_layers_whose_sums_are_cut_into_parts]),
    ("rope.cu", "x * c[j] - y * sine", "x * c[j] + y * sine", &[backend::query_key_norm_and_rotation]),
    (
        "sample.cu",
        "c[2] = high0 ^ c[3] ^ key[1]",
        "c[2] = high0 ^ c[3] ^ key[0]",
        &[backend::logits_and_draws_from_them],
    ),
    ("swiglu.cu", "fmaf(g[j], 1.0f - sigma, 1.0f)", "fmaf(g[j], 1.0f - sigma, 0.5f)", &[backend::swiglu_both_ways]),
];

const CACHE: fn() = kv_cache::a_cache_that_is_filled_lent_and_written_in_three_layers;

#[test]
fn a_slip_in_any_file_of_kernels_fails_the_comparison_with_the_cpu() {
    if !on_host() {
        return;
    }
    for (file, _) in kernels::SOURCES {
        assert!(SEEDED.iter().any(|(seeded, ..)| seeded == file), "no fault is seeded in kernels/{file}");
    }
    for &(file, right, wrong, tests) in SEEDED {
        let text = kernels::source(file).unwrap();
        assert_eq!(text.matches(right).count(), 1, "`{right}` stands once in kernels/{file}");
        assert!(!pass_with(file, text.replace(right, wrong), tests), "kernels/{file} with `{wrong}` passes");
    }
    // The same way round with nothing changed but a name of the file's own.
    let text = kernels::source("swiglu.cu").unwrap().replace("sigmoid", "logistic");
    assert!(pass_with("swiglu.cu", text, &[backend::swiglu_both_ways]));
}
