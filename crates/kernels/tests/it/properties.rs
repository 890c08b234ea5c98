//! Every operation at random shapes.

use kernels::WeightLayout;
use proptest::prelude::*;
use proptest::test_runner::RngSeed;

use crate::check::View;
use crate::operations::{
    FusedLinear, Kind, check_activations, check_attention, check_embedding, check_head,
    check_linear, check_norms, check_packed, check_rope,
};
use crate::optimizer::{check_adamw, check_exponentials, check_sums};
use crate::reference::Attention;

fn view() -> impl Strategy<Value = View> {
    prop_oneof![Just(View::Contiguous), Just(View::Transposed), Just(View::Sliced)]
}

fn layout() -> impl Strategy<Value = WeightLayout> {
    prop_oneof![Just(WeightLayout::OutIn), Just(WeightLayout::InOut)]
}

prop_compose! {
    fn fused_linears()(
        kind in prop_oneof![
            Just(Kind::Plain),
            Just(Kind::RmsNorm),
            Just(Kind::LayerNorm),
            Just(Kind::LayerNormWithoutBias),
            Just(Kind::GeluTanh),
            Just(Kind::SwiGlu)
        ],
        b in 1_usize..4,
        t in 1_usize..20,
        d_in in 1_usize..40,
        outs in prop::collection::vec(1_usize..24, 1..=3),
        layout in layout(),
        bias in any::<bool>(),
        rank in prop::option::of(1_usize..5),
        residual in any::<bool>(),
        view in view(),
    ) -> FusedLinear {
        FusedLinear { kind, b, t, d_in, outs, layout, bias, rank, residual, view }
    }
}

prop_compose! {
    /// Segments from few values, so that some queries see a part of the keys, some none, some all.
    fn attentions()(
        b in 1_usize..3,
        t in 1_usize..20,
        past in 0_usize..12,
        g in 1_usize..4,
        r in 1_usize..4,
        half in 1_usize..9,
        window in prop::option::of(1_usize..12),
        scale in 0.1_f64..0.8,
    )(
        segments in prop::collection::vec(-1..2_i32, b * (t + past)),
        others in prop::collection::vec(-1..2_i32, b * t),
        same in any::<bool>(),
        (b, t, past, g, r, half) in Just((b, t, past, g, r, half)),
        (window, scale) in Just((window, scale)),
        later_too in any::<bool>(),
        soft_cap in prop::option::of(0.5_f64..5.0),
    ) -> Attention {
        let s = t + past;
        let last = |row: &[i32]| row[past..].to_vec();
        let own = segments.chunks(s).flat_map(last).collect();
        let q_segments = if same { own } else { others };
        let (h, k) = (g * r, 2 * half);
        // Windows need a common count of positions.
        let bidirectional = later_too && (window.is_none() || past == 0);
        Attention {
            b,
            t,
            s,
            h,
            g,
            k,
            q_segments,
            k_segments: segments,
            prefixes: Vec::new(),
            window,
            scale,
            bidirectional,
            soft_cap,
        }
    }
}

/// 24 fixed cases of each, or `PROPTEST_CASES` other ones.
fn config() -> ProptestConfig {
    let cases = std::env::var("PROPTEST_CASES").ok().and_then(|cases| cases.parse().ok());
    let rng_seed = if cases.is_some() { RngSeed::Random } else { RngSeed::Fixed(5) };
    let cases = cases.unwrap_or(24);
    ProptestConfig { cases, rng_seed, failure_persistence: None, ..ProptestConfig::default() }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn fused_linear_of_any_shape(fused_linear in fused_linears()) {
        fused_linear.check();
    }

    #[test]
    fn attention_of_any_shape(sizes in attentions(), view in view(), turned: bool) {
        check_attention(&sizes, view);
        if sizes.s == sizes.t {
            check_packed(&sizes, turned, view);
        }
    }

    #[test]
    fn packed_attention_of_any_shape(sizes in attentions(), view in view(), turned: bool) {
        let (t, s) = (sizes.t, sizes.s);
        let first = |row: &[i32]| row[..t].to_vec();
        let k_segments = sizes.k_segments.chunks(s).flat_map(first).collect();
        check_packed(&Attention { s: t, k_segments, ..sizes }, turned, view);
    }

    #[test]
    fn rope_of_any_shape(
        (b, t, h, half) in (1_usize..4, 1_usize..20, 1_usize..5, 1_usize..20),
        view in view(),
    ) {
        check_rope([b, t, h, 2 * half], view);
    }

    #[test]
    fn norms_of_any_shape((b, t, d) in (1_usize..4, 1_usize..20, 1_usize..70), view in view()) {
        check_norms([b, t, d], view);
    }

    #[test]
    fn activations_of_any_shape(shape in (1_usize..40, 1_usize..70), view in view()) {
        check_activations([shape.0, shape.1], view);
    }

    #[test]
    fn linear_of_any_shape(
        (b, t, d_in, d_out) in (1_usize..4, 1_usize..40, 1_usize..40, 1_usize..40),
        view in view(),
    ) {
        check_linear([b, t, d_in, d_out], view);
    }

    #[test]
    fn embedding_of_any_shape(
        (v, d) in (1_usize..60, 1_usize..40),
        ids in prop::collection::vec(any::<prop::sample::Index>(), 1..80),
        view in view(),
    ) {
        let ids: Vec<i32> = ids.iter().map(|id| id.index(v) as i32).collect();
        check_embedding(v, d, &ids, view);
    }

    #[test]
    fn adamw_of_any_shape(
        shape in (1_usize..200, 1_usize..300),
        n_steps in 1_u64..4,
        (lr, weight_decay) in (1e-5_f64..1e-1, 0.0_f64..0.5),
        view in view(),
    ) {
        check_adamw([shape.0, shape.1], n_steps, lr, weight_decay, view);
        check_sums([shape.0, shape.1], view);
    }

    #[test]
    fn exponentials_of_any_row(
        logits in prop::collection::vec(-40.0_f32..40.0, 1..700),
        temperature in 0.2_f64..3.0,
    ) {
        check_exponentials(&logits, temperature);
    }

    #[test]
    fn heads_of_any_shape(
        (v, d) in (1_usize..60, 1_usize..40),
        targets in prop::collection::vec((any::<prop::sample::Index>(), any::<bool>()), 1..40),
        view in view(),
    ) {
        let target = |(id, is_one): &(prop::sample::Index, bool)| {
            if *is_one { id.index(v) as i32 } else { -1 }
        };
        check_head(v, d, &targets.iter().map(target).collect::<Vec<i32>>(), view);
    }
}
