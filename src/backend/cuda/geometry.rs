//! What the host computes for launches.

/// Queries and keys of one block of attention.
pub const ATTENTION_TILE: u32 = 64;

/// The tiles of packed sequences, three numbers each: the sequence's first row, the row after its last,
/// and the tile's first row counted from the sequence's first. Longest work first, so that the blocks
/// that finish last are short; ties in order, so that the list is always the same.
pub fn attention_tiles(cu_seqlens: &[u32]) -> Vec<u32> {
    let mut tiles: Vec<[u32; 3]> = Vec::new();
    for pair in cu_seqlens.windows(2) {
        let firsts = (0..pair[1] - pair[0]).step_by(ATTENTION_TILE as usize);
        tiles.extend(firsts.map(|first| [pair[0], pair[1], first]));
    }
    tiles.sort_by_key(|tile| std::cmp::Reverse(tile[2]));
    tiles.concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tiles_cover_every_row_once_and_the_longest_come_first() {
        let tiles = attention_tiles(&[0, 1, 1, 130]);
        assert_eq!(tiles, [1, 130, 128, 1, 130, 64, 0, 1, 0, 1, 130, 0]);
        assert!(attention_tiles(&[0]).is_empty());
    }
}
