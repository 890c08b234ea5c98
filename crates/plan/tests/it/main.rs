//! Plans of small recipes over files in a temporary folder; nothing is trained but tokenizers.

mod adapters;
mod bases;
mod locating;
mod planning;
mod roles;
mod support;
