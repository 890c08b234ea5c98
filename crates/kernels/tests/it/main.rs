//! Every function against plain loops in f64, and what must not depend on shapes or chunks.

mod adamw;
mod attention;
mod elementwise;
mod head;
mod linear;
mod precision;
mod project;
mod support;
