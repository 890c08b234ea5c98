//! The binary as a user meets it, and the shape of the house.

mod adapters;
mod architecture;
mod errors;
mod features;
mod replicas;
mod source_tree;
mod support;
