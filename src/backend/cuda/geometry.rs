//! What the host computes for launches.

use crate::backend::Run;
use crate::error::{Error, Result};

/// A kernel of attention.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pass {
    /// Its name.
    pub kernel: &'static str,
    /// Blocks for each tile.
    pub blocks: usize,
    /// Dynamic shared memory of a block, in bytes.
    pub shared: usize,
}

/// The kernels for one size of head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Passes {
    /// Outputs and log-sum-exps.
    pub forward: Pass,
    /// The queries' gradients.
    pub dq: Pass,
    /// The keys' and values' gradients.
    pub dkv: Pass,
    /// Outputs of prompts over the KV cache, where there is a kernel of its own for them.
    pub prefill: Option<Pass>,
    /// Rows of a tile.
    pub tile: u32,
    /// The plain kernels take the dimension as an argument.
    pub plain: bool,
}

/// The kernels for heads of `dim` dimensions. A block's shared memory is what the kernels' files lay out in it, at most
/// 99 KiB: the least that a card with tensor cores for bf16 has.
///
/// # Errors
/// Where heads are larger than the kernels cover.
pub fn attention_passes(dim: usize) -> Result<Passes> {
    let pass = |kernel, blocks, shared| Pass { kernel, blocks, shared };
    Ok(match dim {
        64 => Passes {
            forward: pass("attention_64", 1, 40 << 10),
            dq: pass("attention_dq_64", 1, 32 << 10),
            dkv: pass("attention_dkv_64", 2, 41 << 10),
            prefill: Some(pass("attention_prefill_64", 1, 40 << 10)),
            tile: 128,
            plain: false,
        },
        128 => Passes {
            forward: pass("attention_128", 1, 80 << 10),
            dq: pass("attention_dq_128", 1, 96 << 10),
            dkv: pass("attention_dkv_128", 2, 65 << 10),
            prefill: Some(pass("attention_prefill_128", 1, 80 << 10)),
            tile: 128,
            plain: false,
        },
        1..=256 => Passes {
            forward: pass("attention_plain", 1, 0),
            dq: pass("attention_dq_plain", 1, 0),
            dkv: pass("attention_dkv_plain", 1, 0),
            prefill: None,
            tile: 64,
            plain: true,
        },
        _ => return Err(Error::new(format!("attention covers heads of up to 256 dimensions, not {dim}"))),
    })
}

/// The tiles of packed sequences, three numbers each: the sequence's first row, the row after its last,
/// and the tile's first row, a multiple of `tile`, counted from the sequence's first. Those with the most keys first, so
/// that the blocks that finish last are short; ties in order, so that the list is always the same.
pub fn attention_tiles(cu_seqlens: &[u32], tile: u32) -> Vec<u32> {
    let mut tiles: Vec<[u32; 3]> = Vec::new();
    for pair in cu_seqlens.windows(2) {
        let firsts = (0..pair[1] - pair[0]).step_by(tile as usize);
        tiles.extend(firsts.map(|first| [pair[0], pair[1], first]));
    }
    longest_first(tiles)
}

/// The tiles of runs, as [`attention_tiles`] with rows and positions of a sequence counted from its beginning, which may
/// lie before the step's first row: modulo 2³².
pub fn prefill_tiles(runs: &[Run], tile: u32) -> Vec<u32> {
    let mut tiles = Vec::new();
    for &Run { row, rows, position } in runs {
        let (start, end) = (row.wrapping_sub(position), row + rows);
        tiles.extend((0..rows).step_by(tile as usize).map(|first| [start, end, position + first]));
    }
    longest_first(tiles)
}

fn longest_first(mut tiles: Vec<[u32; 3]>) -> Vec<u32> {
    tiles.sort_by_key(|tile| std::cmp::Reverse(tile[2]));
    tiles.concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tiles_cover_every_row_once_and_the_longest_come_first() {
        let tiles = attention_tiles(&[0, 1, 1, 130], 64);
        assert_eq!(tiles, [1, 130, 128, 1, 130, 64, 0, 1, 0, 1, 130, 0]);
        assert!(attention_tiles(&[0], 64).is_empty());
        assert_eq!(attention_tiles(&[0, 129], 128), [0, 129, 128, 0, 129, 0]);
        let runs = [Run { row: 0, rows: 3, position: 512 }, Run { row: 3, rows: 130, position: 0 }];
        let before = 0u32.wrapping_sub(512);
        assert_eq!(prefill_tiles(&runs, 128), [before, 3, 512, 3, 133, 128, 3, 133, 0]);
    }
}
