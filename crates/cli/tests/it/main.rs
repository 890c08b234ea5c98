//! Tests of the binary, and rules about the repository's layout.

mod adapters;
mod architecture;
mod compatibility;
mod document_paths;
mod errors;
mod features;
mod file_cycles;
mod foreign_models;
mod get;
mod gguf;
#[path = "../../../hub/tests/it/server.rs"]
mod hub_server;
mod pointers_and_ids;
mod proof;
mod replicas;
mod rewards;
mod source_tree;
mod support;
mod tokenizer;
mod weights;
