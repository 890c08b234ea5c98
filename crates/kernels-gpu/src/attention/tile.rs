//! Sizes of the tiles of attention kernels, selected by shapes and the device's shared memory.

/// Queries and keys that a cube holds in shared memory at once, and the grid of its units.
///
/// Units form `unit_rows` rows of `unit_columns`. A unit computes every `unit_rows`-th row and every `unit_columns`-th column
/// of a tile. All sizes are known when a kernel is compiled; each value is another compilation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Tile {
    pub(super) queries: usize,
    pub(super) keys: usize,
    pub(super) unit_columns: usize,
    pub(super) unit_rows: usize,
    /// Width of a head.
    pub(super) width: usize,
    /// The same, rounded up to a multiple of `unit_columns`.
    pub(super) padded: usize,
    /// Whether later keys are hidden.
    pub(super) causal: bool,
    /// Whether scores have a soft cap.
    pub(super) capped: bool,
    /// Whether queries and keys are rotated by angles.
    pub(super) rotated: bool,
}

/// Properties of a call that are compiled into its kernels.
#[derive(Clone, Copy, Debug)]
pub(super) struct Form {
    pub(super) width: usize,
    pub(super) causal: bool,
    pub(super) capped: bool,
    pub(super) rotated: bool,
}

/// Queries, keys, unit columns, unit rows: the largest tiles first. The narrow ones serve decoding, which has few queries, and the
/// last one heads of 256 values in 32 KiB.
const TILES: [[usize; 4]; 11] = [
    [64, 64, 16, 16],
    [64, 32, 16, 16],
    [32, 32, 16, 16],
    [32, 16, 16, 16],
    [16, 16, 16, 16],
    [8, 64, 16, 8],
    [8, 32, 16, 8],
    [16, 16, 8, 8],
    [8, 16, 8, 8],
    [8, 8, 8, 8],
    [4, 8, 8, 4],
];

impl Tile {
    /// The first tile that is not larger than the problem and fits into `limit` bytes of shared memory by `bytes`; the
    /// smallest one if none fits.
    pub(super) fn select(
        form: Form,
        [n_q, n_k]: [usize; 2],
        limit: usize,
        bytes: impl Fn(&Self) -> usize,
    ) -> Self {
        let [most_q, most_k] = [n_q, n_k].map(|n| n.next_power_of_two().max(8));
        let tiles = TILES.map(|sizes| Self::new(form, sizes));
        let fits =
            |tile: &&Self| tile.queries <= most_q && tile.keys <= most_k && bytes(tile) <= limit;
        tiles.iter().find(fits).copied().unwrap_or(tiles[TILES.len() - 1])
    }

    fn new(form: Form, [queries, keys, unit_columns, unit_rows]: [usize; 4]) -> Self {
        let Form { width, causal, capped, rotated } = form;
        let padded = width.next_multiple_of(unit_columns);
        Self { queries, keys, unit_columns, unit_rows, width, padded, causal, capped, rotated }
    }

    /// Bytes of shared memory of the forward kernel. Rows are one value longer than their contents, against bank conflicts.
    pub(super) fn forward_bytes(&self) -> usize {
        let Self { queries, keys, padded, unit_columns, .. } = *self;
        let rows = (queries + keys) * (padded + 1) + queries * (keys + unit_columns + 2);
        4 * (rows + queries + keys)
    }

    /// Bytes of shared memory of the larger one of the backward kernels.
    pub(super) fn backward_bytes(&self) -> usize {
        let Self { queries, keys, padded, unit_columns, .. } = *self;
        let rows = 2 * (queries + keys) * (padded + 1) + queries * (2 * keys + unit_columns + 3);
        4 * (rows + queries + keys)
    }
}

#[cfg(test)]
mod tests {
    use super::{Form, TILES, Tile};

    const FORM: Form = Form { width: 64, causal: true, capped: false, rotated: false };

    #[test]
    fn unit_grids_divide_tiles() {
        for sizes in TILES {
            let tile = Tile::new(FORM, sizes);
            assert_eq!(tile.queries % tile.unit_rows, 0, "{tile:?}");
            assert_eq!(tile.keys % tile.unit_columns, 0, "{tile:?}");
            assert_eq!(tile.keys % tile.unit_rows, 0, "{tile:?}");
        }
    }

    #[test]
    fn tiles_fit_the_problem_and_the_device() {
        let select = |n_q, n_k, limit| {
            let tile = Tile::select(FORM, [n_q, n_k], limit, Tile::forward_bytes);
            (tile.queries, tile.keys)
        };
        assert_eq!(select(1024, 1024, 160 << 10), (64, 64));
        assert_eq!(select(1024, 1024, 48 << 10), (64, 32));
        assert_eq!(select(1, 1024, 160 << 10), (8, 64));
        assert_eq!(select(5, 5, 160 << 10), (8, 8));
        assert_eq!(select(17, 9, 160 << 10), (32, 16));
    }

    #[test]
    fn every_width_up_to_256_fits_the_smallest_device() {
        for width in 1..=256 {
            let form = Form { width, ..FORM };
            for bytes in [Tile::forward_bytes, Tile::backward_bytes] {
                let tile = Tile::select(form, [4096, 4096], 32 << 10, bytes);
                assert!(bytes(&tile) <= 32 << 10, "{tile:?}");
            }
        }
    }
}
