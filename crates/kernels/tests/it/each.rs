//! Every operation at sizes that have broken kernels before: one element, odd ones, more than a
//! block, views, masks that exclude everything, rows without targets.

use kernels::WeightLayout;

use crate::check::Lies;
use crate::operations::{
    Kind, Project, check_activations, check_attention, check_embedding, check_head, check_linear,
    check_norms, check_packed, check_rope,
};
use crate::reference::Attention;

const ALL: [Lies; 3] = [Lies::Straight, Lies::Transposed, Lies::Sliced];

fn fused_linear() -> Project {
    Project {
        kind: Kind::Plain,
        b: 2,
        t: 5,
        d_in: 7,
        outs: vec![9],
        layout: WeightLayout::OutIn,
        bias: false,
        rank: None,
        residual: false,
        lies: Lies::Straight,
    }
}

const KINDS: [Kind; 6] = [
    Kind::Plain,
    Kind::RmsNorm,
    Kind::LayerNorm,
    Kind::LayerNormWithoutBias,
    Kind::GeluTanh,
    Kind::SwiGlu,
];

#[test]
fn project_of_every_kind() {
    for kind in KINDS {
        for layout in [WeightLayout::OutIn, WeightLayout::InOut] {
            for lies in ALL {
                let full = Project { kind, layout, lies, outs: vec![3, 1, 5], ..fused_linear() };
                full.check();
                Project { bias: true, residual: true, ..full.clone() }.check();
                Project { rank: Some(2), bias: true, residual: true, ..full }.check();
            }
        }
    }
}

#[test]
fn project_of_one_element_and_of_many() {
    for kind in KINDS {
        let one = Project { kind, b: 1, t: 1, d_in: 1, outs: vec![1], ..fused_linear() };
        one.check();
        Project { bias: true, rank: Some(1), residual: true, ..one }.check();
        // Rows beyond the blocks of sums, widths beyond vectors.
        let many = Project { kind, b: 3, t: 67, d_in: 35, outs: vec![33, 17, 1], ..fused_linear() };
        many.check();
        Project { bias: true, rank: Some(5), residual: true, lies: Lies::Transposed, ..many }
            .check();
    }
}

/// Few rows have a product of their own where nothing is trained.
#[test]
fn project_of_every_number_of_few_rows() {
    for t in [1, 2, 15, 16, 17, 33, 63, 64, 65] {
        Project { b: 1, t, d_in: 19, outs: vec![11, 70], residual: true, ..fused_linear() }.check();
    }
}

fn plain(b: usize, t: usize, s: usize, [h, g, k]: [usize; 3]) -> Attention {
    let (q_segments, k_segments) = (vec![0; b * t], vec![0; b * s]);
    Attention { b, t, s, h, g, k, q_segments, k_segments, window: None, scale: 0.4 }
}

fn segments(segments: Vec<i32>, window: Option<usize>, heads: [usize; 3]) -> Attention {
    let t = segments.len();
    Attention {
        q_segments: segments.clone(),
        k_segments: segments,
        window,
        ..plain(1, t, t, heads)
    }
}

fn small_attentions() -> Vec<Attention> {
    vec![
        plain(1, 1, 1, [1, 1, 1]),
        plain(1, 1, 1, [2, 1, 2]),
        plain(2, 7, 7, [4, 2, 3]),
        plain(1, 9, 9, [6, 2, 4]),
        plain(1, 5, 5, [3, 1, 33]),
        segments(vec![0, 0, 0, 1, 1, 2, 2, 2, -1], None, [4, 2, 2]),
        segments(vec![5, 5, -1, 5, 5, -1, 5], Some(3), [2, 1, 4]),
        segments(vec![0; 11], Some(1), [2, 2, 2]),
        segments(vec![0; 11], Some(100), [2, 2, 2]),
    ]
}

#[test]
fn attention_of_every_mask() {
    for lies in ALL {
        for sizes in small_attentions() {
            check_attention(&sizes, lies);
            check_packed(&sizes, false, lies);
            if sizes.k % 2 == 0 {
                check_packed(&sizes, true, lies);
            }
        }
        // With a cache: fewer queries than keys, one row padded on its left.
        check_attention(&plain(2, 1, 9, [4, 2, 6]), lies);
        check_attention(&plain(1, 10, 23, [4, 1, 6]), lies);
        let padded = [vec![0; 6], vec![-1, -1, 0, 0, 0, 0]].concat();
        check_attention(&Attention { k_segments: padded, ..plain(2, 2, 6, [2, 2, 4]) }, lies);
    }
}

#[test]
fn attention_that_excludes_everything() {
    for (t, s) in [(1, 1), (3, 3), (4, 9), (70, 70)] {
        let nothing = Attention { q_segments: vec![7; t], ..plain(1, t, s, [2, 1, 4]) };
        check_attention(&nothing, Lies::Straight);
        if t == s {
            check_packed(&nothing, true, Lies::Straight);
        }
        // One query in the middle sees nothing, the others see theirs.
        let one = Attention {
            q_segments: (0..t).map(|i| if i == t / 2 { 9 } else { 0 }).collect(),
            ..nothing
        };
        check_attention(&one, Lies::Straight);
    }
}

#[test]
fn attention_over_blocks_and_chunks() {
    // Blocks have 64 queries, chunks 256 keys.
    check_attention(&plain(1, 65, 257, [2, 1, 4]), Lies::Straight);
    check_attention(&plain(1, 130, 130, [4, 2, 2]), Lies::Transposed);
    check_packed(&plain(9, 66, 66, [2, 1, 2]), true, Lies::Straight);
    let texts = |t: usize, length: usize| (0..t).map(|i| (i / length) as i32).collect();
    check_packed(&segments(texts(300, 41), None, [2, 1, 2]), true, Lies::Straight);
    check_packed(&segments(texts(300, 131), Some(50), [2, 1, 2]), false, Lies::Straight);
}

#[test]
fn rope_of_every_size() {
    for lies in ALL {
        for shape in [[1, 1, 1, 2], [2, 3, 2, 6], [1, 67, 5, 34], [3, 1, 1, 4]] {
            check_rope(shape, lies);
        }
    }
}

#[test]
fn norms_of_every_size() {
    for lies in ALL {
        for shape in [[1, 1, 1], [1, 1, 5], [2, 3, 17], [1, 66, 33]] {
            check_norms(shape, lies);
        }
    }
}

#[test]
fn activations_of_every_size() {
    for lies in ALL {
        for shape in [[1, 1], [1, 15], [3, 17], [130, 129]] {
            check_activations(shape, lies);
        }
    }
}

#[test]
fn linear_of_every_size() {
    for lies in ALL {
        for sizes in [[1, 1, 1, 1], [1, 2, 3, 5], [2, 9, 17, 1], [5, 13, 8, 33]] {
            check_linear(sizes, lies);
        }
    }
}

#[test]
fn embedding_of_every_size() {
    for lies in ALL {
        check_embedding(1, 1, &[0], lies);
        check_embedding(3, 5, &[2, 2, 2, 0], lies);
        let ids: Vec<i32> = (0..333).map(|i| (i * i + 3) % 37).collect();
        check_embedding(37, 17, &ids, lies);
    }
}

#[test]
fn heads_of_every_size() {
    for lies in ALL {
        check_head(1, 1, &[0], lies);
        check_head(5, 3, &[4], lies);
        check_head(11, 7, &[3, -1, 10, 0, -100, 3], lies);
        check_head(17, 33, &[-1, 16], lies);
        check_head(6, 4, &[-1, -100, -7], lies);
        let some = |i: i32| if i % 3 == 1 { -1 } else { i * 7 % 19 };
        check_head(19, 5, &(0..70).map(some).collect::<Vec<i32>>(), lies);
    }
    // More than one chunk of rows.
    let targets: Vec<i32> = (0..1_100).map(|i| if i % 5 == 2 { -1 } else { i % 8 }).collect();
    check_head(8, 3, &targets, Lies::Straight);
}
