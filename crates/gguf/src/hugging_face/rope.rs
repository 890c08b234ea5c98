//! RoPE: keys and factor tensors of GGUF as `rope_scaling` of config.json.

use serde_json::{Value as Json, json};

use super::keys::Keys;
use crate::{Error, GgufFile, Result};

/// Default bounds of YaRN's correction range, in rotations.
pub(super) const YARN_BETAS: [f64; 2] = [32.0, 1.0];
/// Relative difference up to which two factors count as equal; files store f32.
const TOLERANCE: f64 = 1e-5;

/// Context lengths and widths that the factors depend on.
#[derive(Debug, Clone, Copy)]
pub(super) struct RopeShape {
    /// Rotated elements of a head.
    pub(super) n_rotated: usize,
    /// The base of the frequencies.
    pub(super) theta: f64,
    /// The context length of the model.
    pub(super) context: u64,
}

/// Llama 3's scaling: frequencies below a threshold are divided by `factor`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Llama3 {
    pub(super) factor: f64,
    pub(super) low: f64,
    pub(super) high: f64,
    pub(super) original: f64,
}

impl Llama3 {
    /// Divisor of each frequency; Llama 3 herd of models 2024, as transformers computes it.
    pub(super) fn factors(self, shape: RopeShape) -> Vec<f64> {
        let of = |wavelength: f64| {
            if wavelength < self.original / self.high {
                1.0
            } else if wavelength > self.original / self.low {
                self.factor
            } else {
                let smooth = (self.original / wavelength - self.low) / (self.high - self.low);
                1.0 / ((1.0 - smooth) / self.factor + smooth)
            }
        };
        wavelengths(shape).into_iter().map(of).collect()
    }
}

/// Wavelengths of the frequencies in tokens.
fn wavelengths(shape: RopeShape) -> Vec<f64> {
    let n = shape.n_rotated as f64;
    let exponents = (0..shape.n_rotated).step_by(2);
    exponents.map(|i| std::f64::consts::TAU * shape.theta.powf(i as f64 / n)).collect()
}

/// The value of `rope_scaling`; null without scaling.
pub(super) fn read(file: &GgufFile, keys: Keys, shape: RopeShape) -> Result<Json> {
    if let Some(factor) = keys.float("rope.scale_linear")? {
        return Ok(json!({ "rope_type": "linear", "factor": factor }));
    }
    match keys.text("rope.scaling.type")? {
        None | Some("none") => llama3(file, keys, shape),
        Some("linear") => {
            let factor = keys.require_float("rope.scaling.factor")?;
            Ok(if factor == 1.0 {
                Json::Null
            } else {
                json!({ "rope_type": "linear", "factor": factor })
            })
        }
        Some("yarn") => yarn(keys),
        Some("longrope") => long_rope(file, keys, shape),
        Some(other) => Err(Error::Unsupported {
            path: file.path().to_owned(),
            reason: format!("RoPE scaling `{other}` is not supported"),
            hint: "supported: none, linear, yarn, longrope, and Llama 3's factors".to_owned(),
        }),
    }
}

fn yarn(keys: Keys) -> Result<Json> {
    for key in ["rope.scaling.attn_factor", "rope.scaling.yarn_attn_factor"] {
        if keys.float(key)?.is_some_and(|factor| factor != 1.0) {
            return Err(keys.unsupported(key, "only 1 is supported"));
        }
    }
    let original = keys.require_uint("rope.scaling.original_context_length")?;
    Ok(json!({
        "rope_type": "yarn",
        "factor": keys.require_float("rope.scaling.factor")?,
        "original_max_position_embeddings": original,
        "beta_fast": keys.float("rope.scaling.yarn_beta_fast")?.unwrap_or(YARN_BETAS[0]),
        "beta_slow": keys.float("rope.scaling.yarn_beta_slow")?.unwrap_or(YARN_BETAS[1]),
    }))
}

/// The factor of cosines and sines that follows from a stretched context; Ding et al. 2024, equation 9.
pub(super) fn long_rope_attention_factor(context: u64, original: u64) -> f64 {
    let stretch = context as f64 / original as f64;
    if stretch <= 1.0 { 1.0 } else { (1.0 + stretch.ln() / (original as f64).ln()).sqrt() }
}

fn long_rope(file: &GgufFile, keys: Keys, shape: RopeShape) -> Result<Json> {
    let factors = |name: &str| {
        let values: Vec<f64> = file.read(name)?.into_iter().map(shortest).collect();
        let n_expected = shape.n_rotated / 2;
        if values.len() == n_expected {
            return Ok(values);
        }
        let reason = format!("tensor `{name}` has {} elements, not {n_expected}", values.len());
        Err(Error::Malformed { path: file.path().to_owned(), reason })
    };
    let original = keys.require_uint("rope.scaling.original_context_length")?;
    let mut scaling = json!({
        "rope_type": "longrope",
        "long_factor": factors("rope_factors_long.weight")?,
        "short_factor": factors("rope_factors_short.weight")?,
        "original_max_position_embeddings": original,
    });
    if let Some(attention) = keys.float("rope.scaling.attn_factor")? {
        let derived = long_rope_attention_factor(shape.context, original);
        if (attention / derived - 1.0).abs() > TOLERANCE {
            scaling["attention_factor"] = json!(attention);
        }
    }
    Ok(scaling)
}

/// Llama 3's scaling from the factors that a file stores in its place.
fn llama3(file: &GgufFile, keys: Keys, shape: RopeShape) -> Result<Json> {
    const NAME: &str = "rope_freqs.weight";
    if file.tensor(NAME).is_none() {
        return Ok(Json::Null);
    }
    let stored: Vec<f64> = file.read(NAME)?.into_iter().map(f64::from).collect();
    if stored.iter().all(|factor| *factor == 1.0) {
        return Ok(Json::Null);
    }
    let found = solve_llama3(&stored, shape, keys.uint("rope.scaling.original_context_length")?);
    let Some(found) = found else {
        return Err(Error::Unsupported {
            path: file.path().to_owned(),
            reason: format!("the factors in `{NAME}` do not come from Llama 3's RoPE scaling"),
            hint: "convert the model from its Hugging Face directory instead".to_owned(),
        });
    };
    Ok(json!({
        "rope_type": "llama3",
        "factor": found.factor,
        "low_freq_factor": found.low,
        "high_freq_factor": found.high,
        "original_max_position_embeddings": found.original as u64,
    }))
}

/// Parameters that give the stored factors: published ones where they fit, else fitted ones.
fn solve_llama3(stored: &[f64], shape: RopeShape, original: Option<u64>) -> Option<Llama3> {
    let factor = shortest(stored.iter().copied().fold(1.0, f64::max) as f32);
    let fits = |candidate: &Llama3| {
        let expected = candidate.factors(shape);
        expected.len() == stored.len()
            && expected.iter().zip(stored).all(|(a, b)| (a / b - 1.0).abs() <= TOLERANCE)
    };
    let stretched = (shape.context as f64 / factor).round();
    let originals = original.map(|n| n as f64).into_iter().chain([8192.0, stretched]);
    let originals = originals.chain((4..=20).map(|exponent| f64::from(1_u32 << exponent)));
    let published = |original| Llama3 { factor, low: 1.0, high: 4.0, original };
    let guessed = originals.chain(original_context(stored, shape, factor));
    guessed.map(published).find(fits).or_else(|| fitted(stored, shape, factor).filter(fits))
}

/// The context length that explains the factors with `low` = 1 and `high` = 4.
fn original_context(stored: &[f64], shape: RopeShape, factor: f64) -> Option<f64> {
    let points = wavelengths(shape).into_iter().zip(stored);
    let (mut kept, mut divided) = (0.0_f64, f64::INFINITY);
    for (wavelength, stored) in points {
        if *stored == 1.0 {
            kept = kept.max(wavelength);
        } else if *stored >= factor * (1.0 - TOLERANCE) {
            divided = divided.min(wavelength);
        } else {
            let smooth = (1.0 / stored - 1.0 / factor) / (1.0 - 1.0 / factor);
            return Some((wavelength * (3.0 * smooth + 1.0)).round());
        }
    }
    // No frequency is between the thresholds: any length that separates the two groups will do.
    (kept > 0.0 && divided.is_finite()).then(|| (4.0 * kept * divided).sqrt().round())
}

/// With `low` = 1: the factors between 1 and `factor` are linear in the frequency, which gives the other two.
fn fitted(stored: &[f64], shape: RopeShape, factor: f64) -> Option<Llama3> {
    let mut points =
        wavelengths(shape).into_iter().zip(stored).filter_map(|(wavelength, stored)| {
            let is_between = *stored > 1.0 && *stored < factor * (1.0 - TOLERANCE);
            let smooth = (1.0 / stored - 1.0 / factor) / (1.0 - 1.0 / factor);
            is_between.then_some((1.0 / wavelength, smooth))
        });
    let first = points.next()?;
    let last = points.next_back()?;
    let slope = (first.1 - last.1) / (first.0 - last.0);
    let intercept = first.1 - slope * first.0;
    // smooth = (original × frequency − low) / (high − low).
    let range = -1.0 / intercept;
    Some(Llama3 { factor, low: 1.0, high: 1.0 + range, original: (slope * range).round() })
}

/// The f64 with the shortest decimal form that rounds to `x`.
fn shortest(x: f32) -> f64 {
    x.to_string().parse().unwrap_or_else(|_| f64::from(x))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stored(scaling: Llama3, shape: RopeShape) -> Vec<f64> {
        scaling.factors(shape).into_iter().map(|x| f64::from(x as f32)).collect()
    }

    #[test]
    fn published_factors_are_recognised() {
        let shape = RopeShape { n_rotated: 64, theta: 500_000.0, context: 131_072 };
        let scaling = Llama3 { factor: 32.0, low: 1.0, high: 4.0, original: 8192.0 };
        assert_eq!(solve_llama3(&stored(scaling, shape), shape, None), Some(scaling));
    }

    #[test]
    fn other_factors_are_fitted() {
        let shape = RopeShape { n_rotated: 128, theta: 10_000.0, context: 4096 };
        let scaling = Llama3 { factor: 8.0, low: 1.0, high: 3.0, original: 700.0 };
        let factors = stored(scaling, shape);
        let found = solve_llama3(&factors, shape, None).unwrap();
        for (a, b) in found.factors(shape).iter().zip(&factors) {
            assert!((a / b - 1.0).abs() < 1e-5, "{found:?}");
        }
        assert_eq!((found.low, found.original), (1.0, 700.0));
        let wrong: Vec<f64> = (0..64).map(|n| 1.0 + f64::from(n % 7)).collect();
        assert_eq!(solve_llama3(&wrong, shape, None), None);
    }
}
