//! The committed dataset is what the generator makes, and what its README promises.

mod outputs;
mod text;

use std::path::PathBuf;
use std::sync::LazyLock;

use kind_data::{Comment, OutputFile, Source, fill_all, outputs};

static SOURCE: LazyLock<Source> = LazyLock::new(|| Source::read(&dir()).unwrap());
static COMMENTS: LazyLock<Vec<Comment>> = LazyLock::new(|| fill_all(&SOURCE).unwrap());
static OUTPUTS: LazyLock<Vec<OutputFile>> = LazyLock::new(|| outputs(&SOURCE).unwrap());

/// `datasets/kind` of this checkout.
fn dir() -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../datasets/kind"))
}
