//! Downloads repositories of the Hugging Face hub: resumable, with sizes and hashes checked. The only crate that connects
//! to a network, and only `temper get` calls it.
//!
//! [`get`] lists a repository at one commit, chooses the files that Temper reads, and transfers them one after another
//! into a hidden directory beside the final one. A directory appears under its final name once all files are in it.

mod client;
mod error;
mod get;
mod hash;
mod listing;
mod progress;
mod selection;
mod settings;
mod staging;
mod transfer;
mod url;

pub use error::{Error, Result};
pub use get::{Outcome, Request, get};
pub use progress::{Event, Watch};
pub use selection::{LeftOut, Reason};
pub use settings::Settings;
