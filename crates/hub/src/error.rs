//! Errors of a download, each with advice.

use std::path::PathBuf;

/// Result of this crate's functions.
pub type Result<T> = std::result::Result<T, Error>;

/// A download that did not happen or did not finish.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A reference that cannot be read, or a damaged record.
    #[error(transparent)]
    Local(#[from] hub_local::Error),
    /// A file that cannot be read or written.
    #[error(transparent)]
    Files(#[from] fsio::Error),
    /// A setting in the environment.
    #[error("`{name}` {problem}")]
    BadSetting {
        /// The variable.
        name: &'static str,
        /// The problem, as a predicate.
        problem: &'static str,
    },
    /// The request cannot be carried out as written.
    #[error("{problem}")]
    BadRequest {
        /// The problem.
        problem: String,
        /// Advice.
        hint: String,
    },
    /// The environment forbids connections.
    #[error("`temper get` needs the network, and HF_HUB_OFFLINE or TRANSFORMERS_OFFLINE is set")]
    Offline,
    /// No connection, or one that broke.
    #[error("cannot read from {address}: {reason}")]
    Connection {
        /// The address, without secrets.
        address: String,
        /// The reason.
        reason: String,
        /// Whether the server's certificate was refused.
        is_certificate: bool,
    },
    /// The server answered with an error.
    #[error("{address}: {status} {message}")]
    Status {
        /// The address, without secrets.
        address: String,
        /// The status code.
        status: u16,
        /// The server's message.
        message: String,
    },
    /// The repository does not exist, or is not visible with this token.
    #[error("no repository `{reference}` at {endpoint}{}", if *has_token { ", or the token has no access to it" } else { ", or it is private" })]
    NoRepository {
        /// The reference.
        reference: String,
        /// Address of the server.
        endpoint: String,
        /// Whether a token was sent.
        has_token: bool,
    },
    /// The server refused the token.
    #[error("{endpoint} refused the access token")]
    BadToken {
        /// Address of the server.
        endpoint: String,
    },
    /// The repository's owner grants access on request.
    #[error("`{reference}` is gated: its owner must grant access first")]
    Gated {
        /// The reference.
        reference: String,
        /// Page of the repository.
        page: String,
        /// Whether a token was sent.
        has_token: bool,
    },
    /// The token does not allow the request.
    #[error("access to `{reference}` is forbidden: {message}")]
    Forbidden {
        /// The reference.
        reference: String,
        /// The server's message.
        message: String,
    },
    /// The repository has no such branch, tag or commit.
    #[error("`{reference}` has no revision `{revision}`")]
    NoRevision {
        /// The reference.
        reference: String,
        /// The revision.
        revision: String,
        /// Page of the repository.
        page: String,
    },
    /// The server limits the number of requests.
    #[error("{address} limits requests (429){}", seconds.map(|s| format!(" for another {s} s")).unwrap_or_default())]
    TooManyRequests {
        /// The address, without secrets.
        address: String,
        /// Seconds until the next request is allowed.
        seconds: Option<u64>,
        /// Whether a token was sent.
        has_token: bool,
    },
    /// The server's answer makes no sense.
    #[error("{address}: unexpected answer: {problem}")]
    BadAnswer {
        /// The address, without secrets.
        address: String,
        /// The problem.
        problem: String,
    },
    /// A name in the repository that would leave the directory or cannot be a file.
    #[error("the repository has a file with a bad name: `{}`: {problem}", name.escape_debug())]
    BadName {
        /// The name.
        name: String,
        /// The problem.
        problem: &'static str,
    },
    /// The content of a file differs from the listing, after a second transfer too.
    #[error("{path}: {kind} differs from the listing: `{found}` instead of `{expected}`")]
    WrongHash {
        /// Path in the repository.
        path: String,
        /// The hash: `sha256` or `git sha1`.
        kind: &'static str,
        /// Listed hash.
        expected: String,
        /// Hash of what arrived.
        found: String,
    },
    /// The size of a file differs from the listing.
    #[error("{path}: the server sends {found} bytes, and its listing says {expected}")]
    WrongSize {
        /// Path in the repository.
        path: String,
        /// Listed size in bytes.
        expected: u64,
        /// Size that the server sends, in bytes.
        found: u64,
    },
    /// The disk has too little space.
    #[error("{}: {needed} bytes are needed, and {free} are free", dir.display())]
    NoSpace {
        /// Directory of the download.
        dir: PathBuf,
        /// Bytes still to transfer.
        needed: u64,
        /// Free bytes.
        free: u64,
    },
    /// A directory that `temper get` did not write.
    #[error("{}: exists, and `temper get` did not write it", dir.display())]
    NotOurs {
        /// The directory.
        dir: PathBuf,
    },
    /// A directory with another repository or revision.
    #[error("{}: has {found}, not {wanted}", dir.display())]
    OtherContent {
        /// The directory.
        dir: PathBuf,
        /// Repository and revision of the directory.
        found: String,
        /// Repository and revision that are requested.
        wanted: String,
    },
    /// A file of the directory that was changed after it was downloaded.
    #[error("{}: differs from the file of the repository", path.display())]
    Changed {
        /// The file.
        path: PathBuf,
    },
}

impl Error {
    /// Advice for the user, if there is any.
    pub fn hint(&self) -> Option<String> {
        let again = "run the command again: it continues where it stopped";
        Some(match self {
            Self::Local(error) => return error.hint(),
            Self::Files(error) => return error.hint(),
            Self::BadSetting { name, .. } => format!("set {name} to another value, or unset it"),
            Self::BadRequest { hint, .. } => hint.clone(),
            Self::Offline => "unset them; every other command works without a network".to_owned(),
            Self::Connection { is_certificate: true, .. } => {
                "if a proxy has a certificate of its own, name its authority's file in SSL_CERT_FILE".to_owned()
            }
            Self::Connection { .. } => format!(
                "check the network; HTTPS_PROXY names a proxy and HF_ENDPOINT a mirror; then {again}"
            ),
            Self::Status { .. } => format!("the server failed; {again}"),
            Self::NoRepository { has_token: false, .. } => {
                "check the name; for a private repository set HF_TOKEN to an access token".to_owned()
            }
            Self::NoRepository { .. } => {
                "check the name, and whose token HF_TOKEN or the token's file has".to_owned()
            }
            Self::BadToken { .. } => {
                "set HF_TOKEN to a valid access token, or unset it and remove the token's file".to_owned()
            }
            Self::Gated { page, has_token: false, .. } => {
                format!("accept the conditions at {page}, then set HF_TOKEN to an access token of that account")
            }
            Self::Gated { page, .. } => {
                format!("accept the conditions at {page} with the account that owns the token")
            }
            Self::Forbidden { .. } => "use a token with read access to this repository".to_owned(),
            Self::NoRevision { page, .. } => format!("its branches and tags: {page}/refs"),
            Self::TooManyRequests { has_token: false, .. } => {
                format!("wait, then {again}; with an access token in HF_TOKEN the limit is higher")
            }
            Self::TooManyRequests { .. } => format!("wait, then {again}"),
            Self::BadAnswer { .. } => {
                "check HF_ENDPOINT; a proxy or a login page may have answered in the server's place".to_owned()
            }
            Self::BadName { .. } => "nothing was downloaded; do not trust this repository".to_owned(),
            Self::WrongHash { .. } => {
                "the transfer or the server is faulty; the file was removed, and no part of it is used".to_owned()
            }
            Self::WrongSize { .. } => {
                "a proxy may change the content; try again, or use another HF_ENDPOINT".to_owned()
            }
            Self::NoSpace { .. } => {
                "free some space, or choose another disk with --to; files transferred so far are kept".to_owned()
            }
            Self::NotOurs { .. } => "choose another directory with --to, or move it away".to_owned(),
            Self::OtherContent { .. } => {
                "choose another directory with --to, or remove this one; nothing is replaced".to_owned()
            }
            Self::Changed { .. } => {
                "nothing was changed; remove the file to download it again".to_owned()
            }
        })
    }

    /// Whether the same request may succeed later.
    pub(crate) fn may_pass(&self) -> bool {
        matches!(
            self,
            Self::TooManyRequests { .. }
                | Self::Status { .. }
                | Self::Connection { is_certificate: false, .. }
        )
    }

    /// The same error with the revision that was requested, if it is about one.
    pub(crate) fn at_revision(mut self, wanted: &str) -> Self {
        if let Self::NoRevision { revision, .. } = &mut self {
            wanted.clone_into(revision);
        }
        self
    }

    /// Whether the command or the environment is wrong, rather than the network, the server or the disk.
    pub fn is_input(&self) -> bool {
        match self {
            Self::Local(_)
            | Self::BadSetting { .. }
            | Self::BadRequest { .. }
            | Self::Offline
            | Self::NoRepository { .. }
            | Self::BadToken { .. }
            | Self::Gated { .. }
            | Self::Forbidden { .. }
            | Self::NoRevision { .. }
            | Self::NotOurs { .. }
            | Self::OtherContent { .. }
            | Self::Changed { .. } => true,
            Self::Files(_)
            | Self::Connection { .. }
            | Self::Status { .. }
            | Self::TooManyRequests { .. }
            | Self::BadAnswer { .. }
            | Self::BadName { .. }
            | Self::WrongHash { .. }
            | Self::WrongSize { .. }
            | Self::NoSpace { .. } => false,
        }
    }
}
