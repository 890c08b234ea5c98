//! `temper serve`: opens models and serves them with OpenAI's interface until a signal.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use ::serve::{Listener, Options};

use super::{print, served_models};
use crate::failure::{Failure, Result};
use crate::render::progress::warn;
use crate::serve_args::ServeArgs;

/// Bytes of a file with a key.
const KEY_BYTES: u64 = 4096;
/// Characters of a key that cannot be guessed.
const SAFE_KEY: usize = 16;
/// Permission of all users to read a file.
const READ_BY_OTHERS: u32 = 0o004;

pub(crate) fn run(args: &ServeArgs) -> Result<()> {
    for (idx, named) in args.models.iter().enumerate() {
        if args.models.iter().take(idx).any(|earlier| earlier.name == named.name) {
            return Err(::serve::Error::DuplicateName { name: named.name.clone() }.into());
        }
    }
    let key = args.key_file.as_deref().map(read_key).transpose()?;
    if let (Some(path), Some(key)) = (&args.key_file, &key) {
        warn_of_weak_key(path, key);
    }
    // An address that is in use is reported before models are opened.
    let listener = Listener::bind(&args.host, args.port, key.is_some())?;
    let models = served_models::open(args)?;
    let names: Vec<&str> = models.named.iter().map(|model| model.name.as_str()).collect();
    let stop = train::signals::install()?;
    print(&format!(
        "serving {} at http://{} (OpenAI's interface: /v1; a page to chat: /); Ctrl-C ends it\n",
        names.join(", "),
        listener.address()?
    ))?;
    let options = Options { max_tokens: args.max_tokens, max_clients: args.max_clients, key };
    Ok(::serve::run(listener, models, options, &|| stop.is_requested())?)
}

/// Warns of a key that others can read or guess.
fn warn_of_weak_key(path: &Path, key: &str) {
    let shown = path.display();
    let mode = std::fs::metadata(path).map(|metadata| metadata.permissions().mode());
    if mode.is_ok_and(|mode| mode & READ_BY_OTHERS != 0) {
        warn(&format!("every user of this machine can read `{shown}`: `chmod 600 {shown}`"));
    }
    if key.len() < SAFE_KEY {
        warn(&format!(
            "the key in `{shown}` has {} characters and can be guessed: make one of at least {SAFE_KEY}, as from \
             `openssl rand -hex 32`",
            key.len()
        ));
    }
}

/// The key of a file, without the space around it.
fn read_key(path: &Path) -> Result<String> {
    let text = fsio::read_text_capped(path, KEY_BYTES)?;
    let key = text.trim();
    if key.is_empty() || !key.chars().all(|c| c.is_ascii_graphic()) {
        return Err(Failure::input(
            format!("no key in `{}`", path.display()),
            "a key is one line of ASCII characters without spaces, as from `openssl rand -hex 32`",
        ));
    }
    Ok(key.to_owned())
}
