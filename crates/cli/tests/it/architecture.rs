//! The crates and their arrows: what ARCHITECTURE.md draws is what cargo builds.

use std::collections::BTreeMap;

use cargo_metadata::{DependencyKind, MetadataCommand, Package};

use crate::support::root;

/// From the bottom up; arrows point to lower layers only.
const LAYERS: &[&[&str]] = &[
    &["workspace-hack"],
    &["fsio", "gguf", "seed", "kernels-cpu"],
    &["recipe", "arch", "kernels"],
    &["tokenizer", "loss", "tensor-file"],
    &["data", "nn"],
    &["model"],
    &["plan", "lora"],
    &["generate", "export"],
    &["train"],
    &["rl"],
    &["evaluate"],
    &["next-token"],
    &["pretrain", "sft", "reward", "dpo", "ppo", "bench"],
    &["cli"],
];

/// Crates that plan and parse: they build without tensors.
const WITHOUT_BURN: &[&str] =
    &["fsio", "gguf", "seed", "recipe", "arch", "tensor-file", "tokenizer", "data", "plan"];

/// Test support and development tools: no crate of a layer may depend on them.
const OUTSIDE_LAYERS: &[&str] =
    &["testkit", "kernels-portable", "kernels-cpu-portable", "kind-data", "judge", "readers"];

fn packages() -> BTreeMap<String, Package> {
    let metadata = MetadataCommand::new()
        .manifest_path(root().join("Cargo.toml"))
        .no_deps()
        .exec()
        .expect("cargo metadata");
    metadata.packages.into_iter().map(|package| (package.name.to_string(), package)).collect()
}

/// Names of a crate's ordinary dependencies.
fn dependencies(package: &Package) -> Vec<&str> {
    package
        .dependencies
        .iter()
        .filter(|dependency| dependency.kind == DependencyKind::Normal)
        .map(|dependency| dependency.name.as_str())
        .collect()
}

fn layer(name: &str) -> Option<usize> {
    LAYERS.iter().position(|layer| layer.contains(&name))
}

#[test]
fn every_crate_has_its_place() {
    for name in packages().keys() {
        let outside = OUTSIDE_LAYERS.contains(&name.as_str());
        assert!(layer(name).is_some() != outside, "{name} is in no layer, or in two places");
    }
}

#[test]
fn arrows_point_down() {
    let packages = packages();
    for (name, package) in &packages {
        let Some(own) = layer(name) else { continue };
        for dependency in dependencies(package) {
            let Some(below) = layer(dependency) else { continue };
            assert!(below < own, "{name} (layer {own}) depends on {dependency} (layer {below})");
        }
        let outside = dependencies(package).into_iter().find(|name| OUTSIDE_LAYERS.contains(name));
        assert!(outside.is_none(), "{name} ships {}", outside.unwrap_or_default());
    }
}

#[test]
fn planning_builds_without_tensors() {
    let packages = packages();
    for name in WITHOUT_BURN {
        let package = packages.get(*name).expect("a crate of the list");
        for dependency in dependencies(package) {
            assert!(!dependency.starts_with("burn"), "{name} depends on {dependency}");
            let ours = packages.contains_key(dependency);
            assert!(
                !ours || WITHOUT_BURN.contains(&dependency),
                "{name} reaches burn through {dependency}"
            );
        }
    }
}
