//! Every operation at sizes that have broken kernels before: one element, odd sizes, more than a block, views, masks that
//! exclude everything, rows without targets.

use kernels::WeightLayout;

use crate::check::View;
use crate::operations::{
    FusedLinear, Kind, check_activations, check_attention, check_biased_attention, check_embedding,
    check_head, check_linear, check_norms, check_packed, check_residual_norms, check_rope,
};
use crate::reference::Attention;

const ALL: [View; 3] = [View::Contiguous, View::Transposed, View::Sliced];

fn fused_linear() -> FusedLinear {
    FusedLinear {
        kind: Kind::Plain,
        b: 2,
        t: 5,
        d_in: 7,
        outs: vec![9],
        layout: WeightLayout::OutIn,
        bias: false,
        rank: None,
        residual: false,
        view: View::Contiguous,
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
fn fused_linear_of_every_kind() {
    for kind in KINDS {
        for layout in [WeightLayout::OutIn, WeightLayout::InOut] {
            for view in ALL {
                let full =
                    FusedLinear { kind, layout, view, outs: vec![3, 1, 5], ..fused_linear() };
                full.check();
                FusedLinear { bias: true, residual: true, ..full.clone() }.check();
                FusedLinear { rank: Some(2), bias: true, residual: true, ..full }.check();
            }
        }
    }
}

#[test]
fn fused_linear_of_one_element_and_of_many() {
    for kind in KINDS {
        let one = FusedLinear { kind, b: 1, t: 1, d_in: 1, outs: vec![1], ..fused_linear() };
        one.check();
        FusedLinear { bias: true, rank: Some(1), residual: true, ..one }.check();
        // More rows than a block of sums, widths that are no multiple of a vector.
        let many =
            FusedLinear { kind, b: 3, t: 67, d_in: 35, outs: vec![33, 17, 1], ..fused_linear() };
        many.check();
        FusedLinear { bias: true, rank: Some(5), residual: true, view: View::Transposed, ..many }
            .check();
    }
}

/// Few rows of a frozen weight have a product of their own.
#[test]
fn fused_linear_of_every_number_of_few_rows() {
    for t in [1, 2, 15, 16, 17, 33, 63, 64, 65] {
        FusedLinear { b: 1, t, d_in: 19, outs: vec![11, 70], residual: true, ..fused_linear() }
            .check();
    }
}

fn plain(b: usize, t: usize, s: usize, [h, g, k]: [usize; 3]) -> Attention {
    let (q_segments, k_segments) = (vec![0; b * t], vec![0; b * s]);
    Attention {
        b,
        t,
        s,
        h,
        g,
        k,
        q_segments,
        k_segments,
        prefixes: Vec::new(),
        window: None,
        scale: 0.4,
        bidirectional: false,
        soft_cap: None,
    }
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
    for view in ALL {
        for sizes in small_attentions() {
            check_attention(&sizes, view);
            check_packed(&sizes, false, view);
            if sizes.k % 2 == 0 {
                check_packed(&sizes, true, view);
            }
        }
        // With a cache: fewer queries than keys; one row is padded on the left.
        check_attention(&plain(2, 1, 9, [4, 2, 6]), view);
        check_attention(&plain(1, 10, 23, [4, 1, 6]), view);
        let padded = [vec![0; 6], vec![-1, -1, 0, 0, 0, 0]].concat();
        check_attention(&Attention { k_segments: padded, ..plain(2, 2, 6, [2, 2, 4]) }, view);
    }
}

/// The same sizes over all keys of a segment, earlier and later.
fn bidirectional(sizes: Attention) -> Attention {
    Attention { bidirectional: true, ..sizes }
}

#[test]
fn bidirectional_attention_of_every_mask() {
    for view in ALL {
        for sizes in small_attentions().into_iter().map(bidirectional) {
            check_attention(&sizes, view);
            check_packed(&sizes, sizes.k % 2 == 0, view);
        }
    }
    let texts = |t: usize, length: usize| (0..t).map(|i| (i / length) as i32).collect();
    let long = bidirectional(segments(texts(300, 131), Some(50), [2, 1, 2]));
    check_packed(&long, true, View::Contiguous);
    check_attention(&bidirectional(segments(texts(300, 41), None, [2, 1, 2])), View::Contiguous);
}

/// Keys of another sequence, shorter and longer than the queries', with padding on both sides.
#[test]
fn cross_attention() {
    for (t, s) in [(5, 3), (3, 8), (1, 9), (9, 1), (70, 300)] {
        let q_segments = (0..t).map(|i| (i * 2 / t) as i32).collect();
        let k_segments = (0..s).map(|i| if i == s - 1 { -1 } else { (i * 2 / s) as i32 }).collect();
        let sizes = Attention { q_segments, k_segments, ..plain(1, t, s, [4, 2, 4]) };
        for view in ALL {
            check_attention(&bidirectional(sizes.clone()), view);
        }
        check_biased_attention(&bidirectional(sizes), [1, 4], View::Contiguous);
    }
}

#[test]
fn capped_scores() {
    let capped = |sizes: Attention| Attention { soft_cap: Some(0.8), scale: 1.1, ..sizes };
    for sizes in small_attentions() {
        for sizes in [capped(sizes.clone()), bidirectional(capped(sizes))] {
            check_attention(&sizes, View::Sliced);
            check_packed(&sizes, false, View::Contiguous);
        }
    }
    check_attention(&capped(plain(2, 1, 9, [4, 2, 6])), View::Contiguous);
    check_attention(&capped(plain(1, 65, 257, [2, 1, 4])), View::Contiguous);
    let padded = [vec![0; 6], vec![-1, -1, 0, 0, 0, 0]].concat();
    let padded = Attention { k_segments: padded, ..plain(2, 2, 6, [2, 2, 4]) };
    check_biased_attention(&capped(padded.clone()), [2, 2], View::Contiguous);
    check_attention(&capped(Attention { q_segments: vec![7; 4], ..padded }), View::Contiguous);
}

/// Rows of groups, one after the other: a prompt, and answers that see it but not each other. `lengths` has each group's
/// prompt and answers; rows are padded to the longest.
fn groups(rows: &[&[&[usize]]], window: Option<usize>, heads: [usize; 3]) -> Attention {
    let length = |row: &[&[usize]]| row.iter().flat_map(|group| group.iter()).sum::<usize>();
    let t = rows.iter().map(|row| length(row)).max().unwrap_or(0);
    let (mut segments, mut prefixes) = (Vec::new(), Vec::new());
    for (row, groups) in rows.iter().enumerate() {
        let mut next = 0;
        for group in *groups {
            let prompt = next;
            for n in *group {
                segments.extend(std::iter::repeat_n(next, *n));
                prefixes.extend(std::iter::repeat_n(prompt, *n));
                next += 1;
            }
        }
        segments.resize((row + 1) * t, -1);
        prefixes.resize((row + 1) * t, -1);
    }
    let plain = plain(rows.len(), t, t, heads);
    Attention { q_segments: segments.clone(), k_segments: segments, prefixes, window, ..plain }
}

#[test]
fn answers_that_share_a_prompt() {
    let small: [&[&[&[usize]]]; 4] = [
        &[&[&[1, 1]]],
        &[&[&[3, 2, 1, 4]]],
        &[&[&[2, 3, 3], &[4, 1]], &[&[5, 1, 2, 1]]],
        &[&[&[1, 1, 1, 1, 1, 1], &[2, 1]], &[&[7]], &[&[1, 2]]],
    ];
    for rows in small {
        for window in [None, Some(1), Some(3), Some(5)] {
            for heads in [[1, 1, 2], [4, 2, 6], [3, 1, 5]] {
                let sizes = groups(rows, window, heads);
                for view in ALL {
                    check_attention(&sizes, view);
                }
                check_packed(&sizes, heads[2] % 2 == 0, View::Contiguous);
                let capped = Attention { soft_cap: Some(0.8), scale: 1.1, ..sizes };
                check_packed(&capped, false, View::Sliced);
                check_biased_attention(&capped, [1, heads[0]], View::Contiguous);
            }
        }
    }
}

/// Longer than blocks of queries and chunks of keys, with prompts on both sides of a chunk's border.
#[test]
fn long_answers_that_share_a_prompt() {
    let rows: &[&[&[usize]]] = &[&[&[37, 63, 70, 20, 5, 5, 90]], &[&[130, 31, 65], &[9, 40]]];
    for window in [None, Some(50)] {
        check_packed(&groups(rows, window, [2, 1, 2]), true, View::Contiguous);
    }
    let long: &[&[&[usize]]] = &[&[&[259, 17, 66, 3, 35]]];
    let capped = Attention { soft_cap: Some(0.8), ..groups(long, None, [3, 1, 2]) };
    check_attention(&capped, View::Contiguous);
    let far: &[&[&[usize]]] = &[&[&[20, 300, 16, 64]]];
    check_attention(&groups(far, Some(30), [4, 4, 3]), View::Contiguous);
}

#[test]
fn biased_scores() {
    for sizes in small_attentions() {
        let (b, h) = (sizes.b, sizes.h);
        for shape in [[1, 1], [1, h], [b, 1], [b, h]] {
            check_biased_attention(&sizes, shape, View::Contiguous);
        }
        check_biased_attention(&bidirectional(sizes), [1, h], View::Transposed);
    }
    let nothing = Attention { q_segments: vec![7; 3], ..plain(1, 3, 5, [2, 1, 4]) };
    check_biased_attention(&nothing, [1, 2], View::Contiguous);
}

#[test]
#[should_panic(expected = "a window over 3 queries and 5 other keys")]
fn a_window_between_two_sequences_is_refused() {
    let segments = |n| crate::support::ints(&vec![0; n], [1, n]);
    let _ = kernels::AttentionMask::bidirectional(segments(3), segments(5)).with_window(Some(2));
}

#[test]
#[should_panic(expected = "a causal mask of 5 queries and 3 keys")]
fn more_queries_than_keys_are_refused() {
    let segments = |n| crate::support::ints(&vec![0; n], [1, n]);
    let _ = kernels::AttentionMask::causal(segments(5), segments(3));
}

#[test]
fn variants_of_a_mask_are_independent() {
    let ids = |n: usize| crate::support::ints(&vec![0; n], [1, n]);
    let full = kernels::AttentionMask::causal(ids(4), ids(4));
    // Built before and after the variants were made.
    let before = testkit::values(&full.additive());
    let near = full.clone().with_window(Some(2));
    let visible = |mask: &kernels::AttentionMask| -> Vec<bool> {
        testkit::values(&mask.additive()).iter().map(|value| *value == 0.0).collect()
    };
    let want = |window: usize| -> Vec<bool> {
        (0..16).map(|i| i % 4 <= i / 4 && i / 4 - i % 4 < window).collect()
    };
    assert_eq!(visible(&near), want(2));
    assert_eq!(visible(&full), want(4));
    assert_eq!(testkit::values(&full.additive()), before);
    assert_eq!(visible(&near.with_window(None)), want(4));
}

#[test]
fn attention_that_excludes_everything() {
    for (t, s) in [(1, 1), (3, 3), (4, 9), (70, 70)] {
        let nothing = Attention { q_segments: vec![7; t], ..plain(1, t, s, [2, 1, 4]) };
        check_attention(&nothing, View::Contiguous);
        if t == s {
            check_packed(&nothing, true, View::Contiguous);
        }
        // One query in the middle has no visible key.
        let one = Attention {
            q_segments: (0..t).map(|i| if i == t / 2 { 9 } else { 0 }).collect(),
            ..nothing
        };
        check_attention(&one, View::Contiguous);
    }
}

#[test]
fn attention_over_blocks_and_chunks() {
    // Blocks have 64 queries, chunks 256 keys.
    check_attention(&plain(1, 65, 257, [2, 1, 4]), View::Contiguous);
    check_attention(&plain(1, 130, 130, [4, 2, 2]), View::Transposed);
    check_packed(&plain(9, 66, 66, [2, 1, 2]), true, View::Contiguous);
    let texts = |t: usize, length: usize| (0..t).map(|i| (i / length) as i32).collect();
    check_packed(&segments(texts(300, 41), None, [2, 1, 2]), true, View::Contiguous);
    check_packed(&segments(texts(300, 131), Some(50), [2, 1, 2]), false, View::Contiguous);
}

#[test]
fn rope_of_every_size() {
    for view in ALL {
        for shape in [[1, 1, 1, 2], [2, 3, 2, 6], [1, 67, 5, 34], [3, 1, 1, 4]] {
            check_rope(shape, view);
        }
    }
}

#[test]
fn norms_of_every_size() {
    for view in ALL {
        for shape in [[1, 1, 1], [1, 1, 5], [2, 3, 17], [1, 66, 33]] {
            check_norms(shape, view);
            check_residual_norms(shape, view);
        }
    }
}

#[test]
fn activations_of_every_size() {
    for view in ALL {
        for shape in [[1, 1], [1, 15], [3, 17], [130, 129]] {
            check_activations(shape, view);
        }
    }
}

#[test]
fn linear_of_every_size() {
    for view in ALL {
        for sizes in [[1, 1, 1, 1], [1, 2, 3, 5], [2, 9, 17, 1], [5, 13, 8, 33]] {
            check_linear(sizes, view);
        }
    }
}

#[test]
fn embedding_of_every_size() {
    for view in ALL {
        check_embedding(1, 1, &[0], view);
        check_embedding(3, 5, &[2, 2, 2, 0], view);
        let ids: Vec<i32> = (0..333).map(|i| (i * i + 3) % 37).collect();
        check_embedding(37, 17, &ids, view);
    }
}

#[test]
fn heads_of_every_size() {
    for view in ALL {
        check_head(1, 1, &[0], view);
        check_head(5, 3, &[4], view);
        check_head(11, 7, &[3, -1, 10, 0, -100, 3], view);
        check_head(17, 33, &[-1, 16], view);
        check_head(6, 4, &[-1, -100, -7], view);
        let some = |i: i32| if i % 3 == 1 { -1 } else { i * 7 % 19 };
        check_head(19, 5, &(0..70).map(some).collect::<Vec<i32>>(), view);
    }
    // More than one chunk of rows.
    let targets: Vec<i32> = (0..1_100).map(|i| if i % 5 == 2 { -1 } else { i % 8 }).collect();
    check_head(8, 3, &targets, View::Contiguous);
}
