//! `hf:OWNER/NAME`: names of repositories on the Hugging Face hub, and the copies of them on this machine.
//!
//! A copy is a directory that `temper get` wrote, or a snapshot in the cache of huggingface_hub. Nothing here connects to
//! a network.

mod cache;
mod environment;
mod error;
mod locate;
mod record;
mod reference;

pub use cache::cache_dir;
pub use environment::{Environment, expand};
pub use error::{Error, Result};
pub use locate::{Need, locate, origin};
pub use record::{RECORD_FILE, Record, RecordedFile, read_record};
pub use reference::{Kind, PREFIX, Reference, get_hint};
