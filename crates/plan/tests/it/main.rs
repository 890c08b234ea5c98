//! Plans of small recipes over files in a temporary directory. Only tokenizers are trained.

mod adapters;
mod added_tokens;
mod bases;
mod locating;
mod planning;
mod roles;
mod support;
