//! Tests of the server over real connections, with a tiny model.

mod access;
mod answers;
mod batch;
mod connections;
mod embeddings;
mod refusals;
mod support;
mod tools;
