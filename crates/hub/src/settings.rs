//! Settings from environment variables, read as huggingface_hub reads them.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use hub_local::Environment;

use crate::url::Url;
use crate::{Error, Result};

/// Address of the public hub.
const PUBLIC: &str = "https://huggingface.co";
/// Longest wait for a connection, and for each piece of a response.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Largest file with a token, in bytes.
const TOKEN_BYTES: u64 = 64 << 10;
/// Largest file with certificates, in bytes.
const CERTIFICATES_BYTES: u64 = 16 << 20;

/// Server, token and patience of a download.
#[derive(Clone)]
pub struct Settings {
    /// Address of the server, without a slash at the end.
    pub endpoint: String,
    /// Access token, sent to the server and to no other.
    pub token: Option<String>,
    /// Whether the environment forbids connections (`HF_HUB_OFFLINE`, `TRANSFORMERS_OFFLINE`).
    pub is_offline: bool,
    /// Longest wait for a connection, and for each piece of a response.
    pub timeout: Duration,
    /// Pause before the first repetition of a failed request; doubled each time.
    pub pause: Duration,
    /// Longest pause that a server may ask for; a longer one is an error.
    pub longest_pause: Duration,
    /// Certificates of authorities in PEM, in place of the built-in ones.
    pub certificates: Option<Vec<u8>>,
}

impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The token is a secret.
        f.debug_struct("Settings")
            .field("endpoint", &self.endpoint)
            .field("has_token", &self.token.is_some())
            .field("is_offline", &self.is_offline)
            .finish_non_exhaustive()
    }
}

impl Settings {
    /// Settings for a server, without a token.
    pub fn new(endpoint: impl Into<String>) -> Self {
        Self {
            endpoint: endpoint.into(),
            token: None,
            is_offline: false,
            timeout: TIMEOUT,
            pause: Duration::from_secs(1),
            longest_pause: Duration::from_mins(5),
            certificates: None,
        }
    }

    /// Settings of an environment: `HF_ENDPOINT`, `HF_TOKEN` and the token's file, `HF_HUB_OFFLINE`,
    /// `HF_HUB_DOWNLOAD_TIMEOUT`; certificates from `SSL_CERT_FILE` or `REQUESTS_CA_BUNDLE`.
    pub fn read(environment: &Environment<'_>) -> Result<Self> {
        let endpoint = environment.get("HF_ENDPOINT").unwrap_or_else(|| PUBLIC.to_owned());
        let endpoint = endpoint.trim_end_matches('/').to_owned();
        let url = Url::parse(&endpoint).ok_or(Error::BadSetting {
            name: "HF_ENDPOINT",
            problem: "must be an address such as https://huggingface.co",
        })?;
        let mut settings = Self::new(endpoint);
        settings.is_offline =
            environment.is_true("HF_HUB_OFFLINE") || environment.is_true("TRANSFORMERS_OFFLINE");
        settings.token = token(environment)?;
        if !url.is_confidential() && settings.token.take().is_some() {
            return Err(Error::BadSetting {
                name: "HF_ENDPOINT",
                problem: "is not https, and an access token would be sent unencrypted",
            });
        }
        if let Some(text) = environment.get("HF_HUB_DOWNLOAD_TIMEOUT") {
            let seconds =
                text.trim().parse().ok().filter(|seconds: &u64| (1..=3600).contains(seconds));
            let problem = "must be a number of seconds from 1 to 3600";
            let name = "HF_HUB_DOWNLOAD_TIMEOUT";
            settings.timeout =
                Duration::from_secs(seconds.ok_or(Error::BadSetting { name, problem })?);
        }
        let certificates = ["SSL_CERT_FILE", "REQUESTS_CA_BUNDLE"]
            .into_iter()
            .find_map(|name| environment.get(name).filter(|path| !path.is_empty()));
        if let Some(path) = certificates {
            settings.certificates = Some(fsio::read_capped(path, CERTIFICATES_BYTES)?);
        }
        Ok(settings)
    }
}

/// The token: `HF_TOKEN`, `HUGGING_FACE_HUB_TOKEN`, or the file at `HF_TOKEN_PATH` or `token` in the home of
/// huggingface_hub's files, unless `HF_HUB_DISABLE_IMPLICIT_TOKEN` is set.
fn token(environment: &Environment<'_>) -> Result<Option<String>> {
    if environment.is_true("HF_HUB_DISABLE_IMPLICIT_TOKEN") {
        return Ok(None);
    }
    let is_set = |value: &String| !value.is_empty();
    let variable = environment
        .get("HF_TOKEN")
        .filter(is_set)
        .or_else(|| environment.get("HUGGING_FACE_HUB_TOKEN").filter(is_set));
    if let Some(token) = variable.and_then(|text| cleaned(&text)) {
        return checked(token, "HF_TOKEN").map(Some);
    }
    let path: PathBuf =
        environment.path("HF_TOKEN_PATH").unwrap_or_else(|| environment.hf_home().join("token"));
    match fsio::read_text_capped(&path, TOKEN_BYTES) {
        Ok(text) => cleaned(&text).map(|token| checked(token, "the token's file")).transpose(),
        Err(error) if error.is_not_found() => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// A token without white space around it and line breaks in it; `None` if nothing is left.
fn cleaned(text: &str) -> Option<String> {
    let token = text.replace(['\r', '\n'], "").trim().to_owned();
    (!token.is_empty()).then_some(token)
}

/// A token must be fit for a header.
fn checked(token: String, name: &'static str) -> Result<String> {
    if token.chars().all(|c| c.is_ascii_graphic()) {
        return Ok(token);
    }
    Err(Error::BadSetting { name, problem: "has characters that no access token has" })
}
