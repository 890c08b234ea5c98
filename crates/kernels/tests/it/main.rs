//! Every function against plain loops in f64, and what must not depend on shapes or chunks.

mod adamw;
mod attention;
mod check;
mod each;
mod elementwise;
mod head;
mod linear;
mod operations;
mod precision;
mod project;
mod properties;
mod reference;
mod support;
