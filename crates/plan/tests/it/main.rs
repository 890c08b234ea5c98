//! Plans of small recipes over files in a temporary folder; nothing is trained but tokenizers.

mod locating;
mod planning;
mod support;
