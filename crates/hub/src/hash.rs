//! The two hashes by which the hub names contents: SHA-256 of files in Git LFS, and the SHA-1 that git gives any file.

use std::fmt::Write as _;

use fsio::Sha256;
use sha1::{Digest as _, Sha1};

/// Hash that the server lists for a file.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Expected {
    /// SHA-256 of the content, for files in Git LFS.
    Sha256(String),
    /// SHA-1 of `blob SIZE`, a zero byte and the content.
    GitBlob(String),
}

impl Expected {
    /// The hash as lower-case hex.
    pub(crate) fn hex(&self) -> &str {
        match self {
            Self::Sha256(hex) | Self::GitBlob(hex) => hex,
        }
    }

    /// Name of the hash in messages.
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Self::Sha256(_) => "sha256",
            Self::GitBlob(_) => "git sha1",
        }
    }
}

/// Both hashes of a content of known size, which arrives in pieces.
pub(crate) struct Hasher {
    sha256: Sha256,
    git: Option<Sha1>,
}

/// Finished hashes.
pub(crate) struct Hashes {
    /// SHA-256 as lower-case hex.
    pub(crate) sha256: String,
    git: Option<String>,
}

impl Hasher {
    /// Hashes of no bytes yet; git's hash only if `expected` needs it.
    pub(crate) fn new(expected: &Expected, size: u64) -> Self {
        let git = match expected {
            Expected::Sha256(_) => None,
            Expected::GitBlob(_) => Some(Sha1::new_with_prefix(format!("blob {size}\0"))),
        };
        Self { sha256: Sha256::new(), git }
    }

    pub(crate) fn update(&mut self, bytes: &[u8]) {
        self.sha256.update(bytes);
        if let Some(git) = &mut self.git {
            git.update(bytes);
        }
    }

    pub(crate) fn finish(self) -> Hashes {
        let git = self.git.map(|git| {
            git.finalize().iter().fold(String::new(), |mut hex, byte| {
                // Writing into a String cannot fail.
                let _ = write!(hex, "{byte:02x}");
                hex
            })
        });
        Hashes { sha256: self.sha256.finish_hex(), git }
    }
}

impl Hashes {
    /// The hash that corresponds to an expected one.
    pub(crate) fn like(&self, expected: &Expected) -> &str {
        match expected {
            Expected::Sha256(_) => &self.sha256,
            Expected::GitBlob(_) => self.git.as_deref().unwrap_or_default(),
        }
    }

    pub(crate) fn is(&self, expected: &Expected) -> bool {
        self.like(expected) == expected.hex()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `printf 'hello\n' | git hash-object --stdin`, and the empty file.
    #[test]
    fn a_blob_has_gits_hash() {
        let known = [
            ("hello\n", "ce013625030ba8dba906f756967f9e9ca394464a"),
            ("", "e69de29bb2d1d6434b8b29ae775ad8c2e48c5391"),
        ];
        for (text, hash) in known {
            let expected = Expected::GitBlob(hash.to_owned());
            let mut hasher = Hasher::new(&expected, text.len() as u64);
            hasher.update(text.as_bytes());
            let hashes = hasher.finish();
            assert!(hashes.is(&expected), "{text:?}: {}", hashes.like(&expected));
            assert!(!hashes.is(&Expected::GitBlob("0".repeat(40))));
            assert_eq!(hashes.sha256, fsio::sha256_hex(text.as_bytes()));
        }
    }
}
