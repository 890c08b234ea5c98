//! A limit for the merges of a tokenizer: those of a file, and those that are found for a file without any, where each way to build
//! a token of two others is one. A few hundred kilobytes of tokens can have hundreds of megabytes of them.

/// Longest token in bytes; it is split everywhere.
const TOKEN_BYTES: usize = 1024;
/// Bytes of all merges, whose texts count twice since copies are made. Gemma's 580,000 count for 50 million.
const BYTES: usize = 64 << 20;
/// Bytes that a merge counts for besides its two texts.
const MERGE: usize = 64;

/// Counts the merges of a file's tokens.
#[derive(Debug)]
pub struct FoundMerges {
    left: usize,
}

impl Default for FoundMerges {
    fn default() -> Self {
        Self { left: BYTES }
    }
}

impl FoundMerges {
    /// Checks the length of a token in bytes before it is split.
    ///
    /// # Errors
    /// The reason for refusing the file, if the token is too long.
    pub fn check_token(token_bytes: usize) -> Result<(), String> {
        if token_bytes > TOKEN_BYTES {
            Err(format!("a token of {token_bytes} bytes"))
        } else {
            Ok(())
        }
    }

    /// Counts one merge, whose token has this many bytes.
    ///
    /// # Errors
    /// The reason for refusing the file, if there are too many.
    pub fn add(&mut self, token_bytes: usize) -> Result<(), String> {
        let left = self.left.checked_sub(MERGE + 2 * token_bytes);
        self.left = left.ok_or("too many ways to build its tokens of other tokens")?;
        Ok(())
    }
}
