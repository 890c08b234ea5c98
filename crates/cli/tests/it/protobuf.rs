//! The crate protobuf writes for TensorBoard and never reads: protobuf 2 recurses without a limit when it decodes
//! (RUSTSEC-2024-0437, which deny.toml ignores for this reason).

use std::path::Path;

use cargo_metadata::{Metadata, MetadataCommand};

use crate::support::root;

/// Names of everything in protobuf 2 that decodes.
const DECODERS: [&str; 6] = [
    "parse_from",
    "merge_from",
    "merge_field",
    "CodedInputStream",
    "parse_length_delimited",
    "from_reader",
];

fn metadata() -> Metadata {
    let manifest = root().join("Cargo.toml");
    MetadataCommand::new().manifest_path(manifest).exec().expect("cargo metadata")
}

/// Rust sources below a directory.
fn sources(dir: &Path, found: &mut Vec<String>) {
    for path in std::fs::read_dir(dir).expect("a directory").flatten().map(|entry| entry.path()) {
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|ending| ending == "rs") {
            found.push(std::fs::read_to_string(&path).expect("a source file"));
        }
    }
}

fn assert_no_decoder(what: &str, dir: &Path) {
    let mut texts = Vec::new();
    sources(dir, &mut texts);
    assert!(!texts.is_empty(), "{what}: no sources");
    for decoder in DECODERS {
        assert!(!texts.iter().any(|text| text.contains(decoder)), "{what} names `{decoder}`");
    }
}

#[test]
fn protobuf_serves_tensorboard_alone() {
    let metadata = metadata();
    let protobuf = metadata.packages.iter().find(|package| package.name.as_str() == "protobuf");
    let protobuf = &protobuf.expect("protobuf is locked").id;
    let nodes = metadata.resolve.as_ref().expect("a resolved graph").nodes.iter();
    let users = nodes.filter(|node| node.dependencies.contains(protobuf)).map(|node| {
        let package = metadata.packages.iter().find(|package| package.id == node.id);
        package.expect("a package").name.to_string()
    });
    let mut users: Vec<String> = users.filter(|name| name != "workspace-hack").collect();
    users.sort();
    assert_eq!(users, ["tensorboard-proto", "tensorboard-rs", "train"]);
}

#[test]
fn nothing_is_decoded() {
    assert_no_decoder("train", &root().join("crates/train/src"));
    let metadata = metadata();
    let package =
        metadata.packages.iter().find(|package| package.name.as_str() == "tensorboard-rs");
    let manifest = package.expect("tensorboard-rs is locked").manifest_path.clone();
    let dir = manifest.parent().expect("a directory").join("src");
    assert_no_decoder("tensorboard-rs", dir.as_std_path());
}

#[test]
fn the_exception_is_recorded_with_its_reason() {
    let text = std::fs::read_to_string(root().join("deny.toml")).expect("deny.toml");
    let line = text.lines().find(|line| line.contains("RUSTSEC-2024-0437")).expect("the exception");
    assert!(line.contains("reason = \""), "{line}");
}
