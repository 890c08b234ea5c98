//! The environment that a checkpoint records: versions and processor, whose change can change the last bits of results.
//!
//! A resumed run warns about differences and continues.

use serde::{Deserialize, Serialize};

/// The burn version that the workspace pins.
pub const BURN_VERSION: &str = "0.22.1";

/// Binary and processor.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Environment {
    /// Version of Temper.
    pub temper: String,
    /// Version of burn.
    pub burn: String,
    /// Processor architecture.
    pub arch: String,
    /// Instruction sets, which decide which matrix product kernels run.
    pub cpu_features: Vec<String>,
    /// Cache sizes that the system reports, which decide the block sizes of matrix products.
    pub caches: Vec<String>,
    /// The kernels of the environment variable `TEMPER_KERNELS`; empty in checkpoints of older versions.
    #[serde(default)]
    pub kernels: String,
    /// How products in bf16 are computed; empty in another precision and in checkpoints of older versions.
    #[serde(default)]
    pub bf16_products: String,
    /// Number of threads. Results do not depend on it.
    pub threads: usize,
}

impl Environment {
    /// The environment of this process.
    pub fn current() -> Self {
        Self {
            temper: env!("CARGO_PKG_VERSION").into(),
            burn: BURN_VERSION.into(),
            arch: std::env::consts::ARCH.into(),
            cpu_features: cpu_features(),
            caches: caches(),
            kernels: kernels::kernel_setting().to_owned(),
            bf16_products: bf16_products(),
            threads: kernels::n_threads(),
        }
    }

    /// Differences that can change the last bits of results, one line each.
    pub fn differences(&self, other: &Self) -> Vec<String> {
        let mut out = Vec::new();
        let mut compare = |what: &str, a: &str, b: &str| {
            if a != b {
                out.push(format!("{what} was `{a}`, is now `{b}`"));
            }
        };
        compare("temper", &self.temper, &other.temper);
        compare("burn", &self.burn, &other.burn);
        compare("architecture", &self.arch, &other.arch);
        compare("instruction sets", &self.cpu_features.join(" "), &other.cpu_features.join(" "));
        compare("caches", &self.caches.join(" "), &other.caches.join(" "));
        for (what, recorded, now) in [
            ("kernels", &self.kernels, &other.kernels),
            ("products in bf16", &self.bf16_products, &other.bf16_products),
        ] {
            if !recorded.is_empty() && !now.is_empty() {
                compare(what, recorded, now);
            }
        }
        out
    }
}

fn bf16_products() -> String {
    if kernels::precision() == kernels::Precision::Bf16 {
        kernels::bf16_products().name().to_owned()
    } else {
        String::new()
    }
}

#[cfg(target_arch = "x86_64")]
fn cpu_features() -> Vec<String> {
    let found = [
        ("sse4.2", std::is_x86_feature_detected!("sse4.2")),
        ("avx2", std::is_x86_feature_detected!("avx2")),
        ("fma", std::is_x86_feature_detected!("fma")),
        ("avx512f", std::is_x86_feature_detected!("avx512f")),
    ];
    found.iter().filter(|(_, there)| *there).map(|(name, _)| (*name).to_owned()).collect()
}

#[cfg(not(target_arch = "x86_64"))]
fn cpu_features() -> Vec<String> {
    Vec::new()
}

/// `L1 32K`, `L2 1024K`, …; empty where the system does not report them.
fn caches() -> Vec<String> {
    let mut out = Vec::new();
    for idx in 0..8 {
        let dir = format!("/sys/devices/system/cpu/cpu0/cache/index{idx}");
        let read = |name: &str| fsio::read_text_capped(format!("{dir}/{name}"), 4096).ok();
        let (Some(level), Some(size), Some(kind)) = (read("level"), read("size"), read("type"))
        else {
            continue;
        };
        if kind.trim() != "Instruction" {
            out.push(format!("L{} {}", level.trim(), size.trim()));
        }
    }
    out
}
