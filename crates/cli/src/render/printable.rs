//! Text from foreign files as a terminal may show it: without control characters.

pub(crate) use watch::{is_unsafe, printable};
