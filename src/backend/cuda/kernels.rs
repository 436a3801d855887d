//! The kernels' sources, as the binary carries them.

/// File name and text of what kernels include.
pub const HEADERS: &[(&str, &str)] = &[
    ("attention.cuh", include_str!("../../../kernels/attention.cuh")),
    ("device.cuh", include_str!("../../../kernels/device.cuh")),
    ("parts.cuh", include_str!("../../../kernels/parts.cuh")),
];

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
    ("product.cu", include_str!("../../../kernels/product.cu")),
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
        // Attention's files write kernels that differ in a constant with a macro, which takes the name first.
        let (name, arguments) = rest.trim_start().split_once('(')?;
        let of_macro = name.bytes().all(|byte| byte.is_ascii_uppercase());
        Some(if of_macro { arguments.split(',').next()?.trim() } else { name.trim() })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entry_points_are_found_with_and_without_launch_bounds() {
        let text = "extern \"C\" __global__ void plain(int n) {}\n\
                    extern \"C\" __global__ void __launch_bounds__(128)\n    bounded(int n) {}\n\
                    extern \"C\" __global__ void __launch_bounds__(128) PASS(made, dq_tile, 64)";
        assert_eq!(entry_points(text).collect::<Vec<_>>(), ["plain", "bounded", "made"]);
    }

    #[test]
    fn every_file_has_a_kernel_and_no_two_have_the_same() {
        let mut names: Vec<&str> = Vec::new();
        for (file, text) in SOURCES {
            assert!(entry_points(text).next().is_some(), "{file}");
            names.extend(entry_points(text));
        }
        let count = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), count);
    }
}
