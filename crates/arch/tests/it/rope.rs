//! RoPE against transformers 5.23 (frequencies, which it has in f32) and against exact cosines far out.

use std::path::Path;

use arch::{DecoderConfig, ModelConfig};
use serde_json::{Value, json};

use crate::{config, patched};

const HEAD_DIM: usize = 128;
/// The pairs at which frequencies are compared.
const PAIRS: [usize; 9] = [0, 1, 13, 24, 29, 37, 40, 47, 63];

fn llama(rope_parameters: &Value) -> DecoderConfig {
    let patch = json!({
        "head_dim": HEAD_DIM, "max_position_embeddings": 131_072, "rope_parameters": rope_parameters,
    });
    let value = patched(config!("llama.json"), &patch);
    match ModelConfig::from_json(&value, Path::new("config.json")) {
        Ok(ModelConfig::Decoder(config)) => config,
        other => panic!("expected llama, found {other:?}"),
    }
}

fn check(rope_parameters: &Value, attention_factor: f64, frequencies: [f64; 9]) {
    let config = llama(rope_parameters);
    let rope = config.rope_parameters();
    assert!((rope.attention_factor() - attention_factor).abs() < 1e-14, "{rope_parameters}");
    let found = rope.inverse_frequencies(HEAD_DIM);
    assert_eq!(found.len(), HEAD_DIM / 2);
    for (pair, expected) in PAIRS.into_iter().zip(frequencies) {
        let difference = (found[pair] / expected - 1.0).abs();
        assert!(difference < 1e-6, "pair {pair} of {rope_parameters}: {} {expected}", found[pair]);
    }
}

#[test]
#[expect(clippy::unreadable_literal, reason = "as printed by the reference")]
fn frequencies_are_those_of_transformers() {
    check(
        &json!({ "rope_type": "default", "rope_theta": 500_000.0 }),
        1.0,
        [
            1.0,
            0.8146172165870667,
            0.06956595182418823,
            0.00729266507551074,
            0.0026160990819334984,
            0.0005073211505077779,
            0.00027424818836152554,
            6.528582161990926e-05,
            2.4551407022954663e-06,
        ],
    );
    check(
        &json!({ "rope_type": "linear", "rope_theta": 10_000.0, "factor": 4.0 }),
        1.0,
        [
            0.25,
            0.21649108827114105,
            0.0384981632232666,
            0.007905694656074047,
            0.0038498162757605314,
            0.0012174188159406185,
            0.0007905694656074047,
            0.0002886955044232309,
            2.8869548259535804e-05,
        ],
    );
    check(
        &json!({
            "rope_type": "llama3", "rope_theta": 500_000.0, "factor": 8.0, "low_freq_factor": 1.0,
            "high_freq_factor": 4.0, "original_max_position_embeddings": 8192,
        }),
        1.0,
        [
            1.0,
            0.8146172165870667,
            0.06956595182418823,
            0.00729266507551074,
            0.0021665706299245358,
            6.341514381347224e-05,
            3.428102354519069e-05,
            8.160727702488657e-06,
            3.068925877869333e-07,
        ],
    );
}

#[test]
#[expect(clippy::unreadable_literal, reason = "as printed by the reference")]
fn yarn_is_that_of_transformers() {
    check(
        &json!({
            "rope_type": "yarn", "rope_theta": 1_000_000.0, "factor": 4.0,
            "original_max_position_embeddings": 32_768,
        }),
        1.138629436111989,
        [
            1.0,
            0.8058422207832336,
            0.0604296438395977,
            0.005375321488827467,
            0.0014051124453544617,
            0.00012993148993700743,
            4.4456985051510856e-05,
            9.8104746939498e-06,
            3.102344408034696e-07,
        ],
    );
    check(
        &json!({
            "rope_type": "yarn", "rope_theta": 10_000.0, "factor": 40.0, "beta_fast": 32,
            "beta_slow": 1, "original_max_position_embeddings": 4096, "mscale": 0.707,
            "mscale_all_dim": 1.0,
        }),
        0.9210423553163399,
        [
            1.0,
            0.8659643530845642,
            0.1539926528930664,
            0.026879360899329185,
            0.010202012956142426,
            0.0017652573296800256,
            0.0007905694073997438,
            2.886955189751461e-05,
            2.886954689529375e-06,
        ],
    );
    check(
        &json!({
            "rope_type": "yarn", "rope_theta": 150_000.0, "factor": 32.0, "truncate": false,
            "original_max_position_embeddings": 4096,
        }),
        1.3465735902799727,
        [
            1.0,
            0.8300869464874268,
            0.0888395756483078,
            0.006794959306716919,
            0.0015030460199341178,
            3.1799645512364805e-05,
            1.818833698052913e-05,
            4.939216069033137e-06,
            2.50977734594926e-07,
        ],
    );
    check(
        &json!({
            "rope_type": "yarn", "rope_theta": 10_000.0, "factor": 2.0, "attention_factor": 1.25,
            "original_max_position_embeddings": 65_536,
        }),
        1.25,
        [
            1.0,
            0.8659643530845642,
            0.1539926528930664,
            0.03162277862429619,
            0.015399265103042126,
            0.004869675263762474,
            0.003162277862429619,
            0.0009931125678122044,
            6.235822365852073e-05,
        ],
    );
}

/// cos and sin of 131,071 × 500,000^(-2i/128), worked out with 40 digits.
const FAR: [(usize, f64, f64); 5] = [
    (0, -0.817_983_499_387_949_1, -0.575_241_683_754_789_4),
    (1, -0.817_316_150_023_864_3, 0.576_189_474_834_596_6),
    (7, 0.940_760_090_871_334_5, -0.339_072_929_358_507_1),
    (20, -0.969_630_275_577_123_7, 0.244_575_404_904_563_5),
    (63, 0.948_668_369_702_916_1, 0.316_272_547_536_474_2),
];

#[test]
fn the_table_is_exact_at_position_131_071() {
    let config = llama(&json!({ "rope_type": "default", "rope_theta": 500_000.0 }));
    let table = config.rope_table(131_072);
    assert_eq!((table.n_positions, table.half_width), (131_072, 64));
    assert_eq!((table.cos.len(), table.sin.len()), (131_072 * 64, 131_072 * 64));
    for (pair, cos, sin) in FAR {
        let at = 131_071 * 64 + pair;
        // Half a unit in the last place of an f32 below 1.
        assert!((f64::from(table.cos[at]) - cos).abs() < 3.1e-8, "cos of pair {pair}");
        assert!((f64::from(table.sin[at]) - sin).abs() < 3.1e-8, "sin of pair {pair}");
    }
    assert!(table.cos[..64].iter().all(|&c| c == 1.0) && table.sin[..64].iter().all(|&s| s == 0.0));
}

#[test]
fn the_attention_factor_is_in_the_table() {
    let yarn = json!({
        "rope_type": "yarn", "rope_theta": 10_000.0, "factor": 2.0, "attention_factor": 1.25,
    });
    let table = llama(&yarn).rope_table(1);
    assert!(table.cos.iter().all(|&c| c == 1.25));
}
