//! Errors that end the server, with hints. Those of a request are in `api::error`.

use std::io;

/// Result with this crate's error.
pub type Result<T> = std::result::Result<T, Error>;

/// A server that does not start or cannot continue.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The host is neither an address nor `localhost`.
    #[error("not an address: `{host}`")]
    UnknownHost {
        /// The host.
        host: String,
    },
    /// The server cannot listen at the address.
    #[error("cannot listen at {host}:{port}: {source}")]
    Listen {
        /// The host.
        host: String,
        /// The port.
        port: u16,
        /// The reason.
        source: io::Error,
    },
    /// Other machines could use the models without a key.
    #[error("a host that other machines reach needs a key: `{host}`")]
    NoKey {
        /// The host.
        host: String,
    },
    /// Two models have the same name.
    #[error("two models have the name `{name}`")]
    DuplicateName {
        /// The name.
        name: String,
    },
    /// The machine starts no thread.
    #[error(transparent)]
    Thread(#[from] fsio::NoThread),
    /// The system cannot report connections.
    #[error("cannot wait for connections: {source}")]
    Runtime {
        /// The reason.
        source: io::Error,
    },
    /// The thread of a model panicked.
    #[error("the model `{name}` failed: {reason}")]
    Model {
        /// The model's name.
        name: String,
        /// The panic's message.
        reason: String,
    },
}

impl Error {
    /// A hint for the user.
    pub fn hint(&self) -> Option<String> {
        let hint = match self {
            Self::UnknownHost { .. } => {
                "use an address of this machine, or localhost: names are not looked up. 0.0.0.0 is all addresses"
            }
            Self::Listen { source, .. } if source.kind() == io::ErrorKind::AddrInUse => {
                "another program uses this port: choose one with --port"
            }
            Self::Listen { .. } => "choose another --host or --port",
            Self::NoKey { .. } => {
                "write a key into a file and add --key-file FILE; clients send it as `Authorization: Bearer KEY`"
            }
            Self::DuplicateName { .. } => "name them, as in first=runs/x/sft second=runs/x/dpo",
            Self::Thread(_) | Self::Runtime { .. } => return None,
            Self::Model { .. } => {
                "the machine may lack memory: lower --max-clients or --max-tokens"
            }
        };
        Some(hint.to_owned())
    }

    /// Whether the command line is right and the machine or the model failed.
    pub fn is_failure(&self) -> bool {
        matches!(self, Self::Thread(_) | Self::Runtime { .. } | Self::Model { .. })
    }
}
