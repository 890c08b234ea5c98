//! `temper serve`: opens models and serves them with OpenAI's interface until a signal.

use std::path::Path;

use ::serve::{Listener, Options};

use super::{print, served_models};
use crate::failure::{Failure, Result};
use crate::serve_args::ServeArgs;

/// Bytes of a file with a key.
const KEY_BYTES: u64 = 4096;

pub(crate) fn run(args: &ServeArgs) -> Result<()> {
    for (idx, named) in args.models.iter().enumerate() {
        if args.models.iter().take(idx).any(|earlier| earlier.name == named.name) {
            return Err(::serve::Error::DuplicateName { name: named.name.clone() }.into());
        }
    }
    let key = args.key_file.as_deref().map(read_key).transpose()?;
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
