//! Dependencies between crates follow the layers in ARCHITECTURE.md.

use std::collections::BTreeMap;

use cargo_metadata::{DependencyKind, MetadataCommand, Package};

use crate::support::root;

/// Crates that build without tensors.
const WITHOUT_BURN: &[&str] = &[
    "fsio",
    "ggml-blocks",
    "gguf",
    "seed",
    "hub",
    "hub-local",
    "recipe",
    "report",
    "rewards",
    "tasks",
    "watch",
    "arch",
    "tensor-file",
    "tokenizer",
    "data",
    "plan",
];

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

/// Layers of ARCHITECTURE.md from the bottom up, above the crate that only unifies features.
fn layers() -> Vec<Vec<String>> {
    let page = std::fs::read_to_string(root().join("ARCHITECTURE.md")).expect("ARCHITECTURE.md");
    let section = page.split("\n## Crates\n").nth(1).expect("the section of crates");
    let picture = section.split("```").nth(1).expect("the picture of the layers");
    let mut layers = vec![vec!["workspace-hack".to_owned()]];
    for (number, line) in picture.trim().lines().rev().enumerate() {
        let mut words = line.split_whitespace();
        assert_eq!(words.next(), Some(number.to_string().as_str()), "layers count up from 0");
        layers.push(words.map(str::to_owned).collect());
    }
    assert!(layers.len() > 10, "{layers:?}");
    layers
}

fn layer(layers: &[Vec<String>], name: &str) -> Option<usize> {
    layers.iter().position(|layer| layer.iter().any(|known| known == name))
}

#[test]
fn every_crate_has_its_place() {
    let (layers, packages) = (layers(), packages());
    for name in packages.keys() {
        let outside = OUTSIDE_LAYERS.contains(&name.as_str());
        let is_layered = layer(&layers, name).is_some();
        assert!(is_layered != outside, "{name} is in no layer, or in two places");
    }
    let unknown = layers.iter().flatten().find(|name| !packages.contains_key(*name));
    assert!(unknown.is_none(), "no such crate: {unknown:?}");
}

#[test]
fn arrows_point_down() {
    let (layers, packages) = (layers(), packages());
    for (name, package) in &packages {
        let Some(own) = layer(&layers, name) else { continue };
        for dependency in dependencies(package) {
            let Some(below) = layer(&layers, dependency) else { continue };
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

/// A recipe's files decide nothing that reaches a network: the client is linked into one command.
#[test]
fn only_the_command_line_depends_on_the_network() {
    let packages = packages();
    let users = |name: &str| -> Vec<&str> {
        // workspace-hack names what several crates build, so that they build it with the same features.
        let uses = |package: &&Package| {
            package.name != "workspace-hack" && dependencies(package).contains(&name)
        };
        packages.values().filter(uses).map(|package| package.name.as_str()).collect()
    };
    assert_eq!(users("hub"), ["cli"]);
    assert_eq!(users("ureq"), ["hub"]);
    assert_eq!(users("serve"), ["cli"]);
    for server in ["axum", "hyper", "hyper-util", "tokio"] {
        assert_eq!(users(server), ["serve"]);
    }
    for client in ["rustls", "reqwest", "native-tls", "openssl", "curl", "http"] {
        assert!(users(client).is_empty(), "{client} is used by {:?}", users(client));
    }
}
