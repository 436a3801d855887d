//! The kernels' sources, as the binary carries them.

/// `kernels/device.cuh`, which every kernel includes.
pub const DEVICE: &str = include_str!("../../../kernels/device.cuh");

/// File name and text of every file of kernels.
pub const SOURCES: &[(&str, &str)] = &[
    ("attention.cu", include_str!("../../../kernels/attention.cu")),
    ("attention_backward.cu", include_str!("../../../kernels/attention_backward.cu")),
    ("attention_cached.cu", include_str!("../../../kernels/attention_cached.cu")),
    ("cast.cu", include_str!("../../../kernels/cast.cu")),
    ("embedding.cu", include_str!("../../../kernels/embedding.cu")),
    ("head.cu", include_str!("../../../kernels/head.cu")),
    ("kv_cache.cu", include_str!("../../../kernels/kv_cache.cu")),
    ("optimizer.cu", include_str!("../../../kernels/optimizer.cu")),
    ("qk_norm.cu", include_str!("../../../kernels/qk_norm.cu")),
    ("reduce.cu", include_str!("../../../kernels/reduce.cu")),
    ("rms_norm.cu", include_str!("../../../kernels/rms_norm.cu")),
    ("rope.cu", include_str!("../../../kernels/rope.cu")),
    ("sample.cu", include_str!("../../../kernels/sample.cu")),
    ("swiglu.cu", include_str!("../../../kernels/swiglu.cu")),
];

/// The text of one file.
pub fn source(file: &str) -> Option<&'static str> {
    SOURCES.iter().find(|(name, _)| *name == file).map(|(_, text)| *text)
}

/// Names of the kernels that a source defines: the identifiers before the argument lists of `__global__` functions.
pub fn entry_points(text: &str) -> impl Iterator<Item = &str> {
    text.split("extern \"C\" __global__ void").skip(1).filter_map(|rest| {
        let rest = match rest.trim_start().strip_prefix("__launch_bounds__(") {
            Some(bounds) => bounds.split_once(')')?.1,
            None => rest,
        };
        Some(rest.split_once('(')?.0.trim())
    })
}
