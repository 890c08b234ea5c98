//! Tests of the binary, and rules about the repository's layout.

mod adapters;
mod added_tokens;
mod architecture;
mod comparisons;
mod compatibility;
mod damage;
mod document_paths;
mod errors;
mod eval_in_training;
mod eval_tasks;
mod features;
mod file_cycles;
mod foreign_models;
mod generate;
mod get;
mod gguf;
mod grpo;
mod hostile;
#[path = "../../../hub/tests/it/server.rs"]
mod hub_server;
mod init;
mod pointers_and_ids;
mod processes;
mod proof;
mod protobuf;
mod replicas;
mod rewards;
mod security_page;
mod shell;
mod source_tree;
mod support;
mod terminal;
mod tokenizer;
mod weights;
