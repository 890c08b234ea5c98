//! The committed dataset equals the generator's output and has the properties that its README lists.

mod outputs;
mod text;

use std::path::PathBuf;
use std::sync::LazyLock;

use kind_data::{Comment, OutputFile, Source, fill_all, outputs};

static SOURCE: LazyLock<Source> = LazyLock::new(|| Source::read(&dir()).unwrap());
static COMMENTS: LazyLock<Vec<Comment>> = LazyLock::new(|| fill_all(&SOURCE).unwrap());
static OUTPUTS: LazyLock<Vec<OutputFile>> = LazyLock::new(|| outputs(&SOURCE).unwrap());

/// The directory `datasets/kind`.
fn dir() -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../datasets/kind"))
}
