//! HTTP requests: redirects with the token only for the server itself, errors by name, pauses and repetitions.

use std::cell::Cell;
use std::io::Read;
use std::sync::Arc;
use std::time::Duration;

use ureq::http::{HeaderMap, Response as HttpResponse};
use ureq::tls::{Certificate, PemItem, RootCerts, TlsConfig, parse_pem};
use ureq::{Agent, Body};

use crate::url::Url;
use crate::{Error, Event, Result, Settings, Watch};

/// Redirects that are followed.
const REDIRECTS: usize = 10;
/// Attempts without a byte of progress before a download fails.
pub(crate) const ATTEMPTS: u32 = 5;
/// Longest message of a server that is shown, in characters.
const MESSAGE_CHARS: usize = 200;

/// A client of one server.
pub(crate) struct Client {
    agent: Agent,
    settings: Settings,
    endpoint: Url,
    /// Name of the repository, for errors.
    reference: String,
    /// Page of the repository, for errors.
    page: String,
    /// Whether any request has been answered: before that, a missing network is reported at once.
    was_answered: Cell<bool>,
}

/// A successful answer, whose body is still to be read.
pub(crate) struct Answer {
    pub(crate) status: u16,
    headers: HeaderMap,
    body: Body,
    /// Address without secrets.
    pub(crate) address: String,
}

impl Answer {
    /// A header's value, if it is text.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// Reader of the body.
    pub(crate) fn into_reader(self) -> impl Read {
        self.body.into_reader()
    }
}

impl Client {
    pub(crate) fn new(settings: &Settings, reference: String, page: &str) -> Result<Self> {
        let endpoint = Url::parse(&settings.endpoint).ok_or(Error::BadSetting {
            name: "HF_ENDPOINT",
            problem: "must be an address such as https://huggingface.co",
        })?;
        let mut config = Agent::config_builder()
            .user_agent(concat!("temper/", env!("CARGO_PKG_VERSION")))
            // Redirects are followed here, so that the token stays with the server.
            .max_redirects(0)
            .max_redirects_will_error(false)
            .http_status_as_error(false)
            .accept_encoding("identity")
            .timeout_resolve(Some(settings.timeout))
            .timeout_connect(Some(settings.timeout))
            .timeout_recv_response(Some(settings.timeout.max(Duration::from_secs(10))))
            .timeout_per_read(Some(settings.timeout));
        if endpoint.is_loopback() {
            config = config.proxy(None);
        }
        if let Some(pem) = &settings.certificates {
            config = config.tls_config(TlsConfig::builder().root_certs(roots(pem)?).build());
        }
        Ok(Self {
            agent: config.build().into(),
            settings: settings.clone(),
            endpoint,
            page: format!("{}/{page}", settings.endpoint),
            reference,
            was_answered: Cell::new(false),
        })
    }

    /// Sends a GET request and follows redirects; repeats it after failures that may pass.
    pub(crate) fn get(
        &self,
        address: &str,
        headers: &[(&str, String)],
        watch: &mut dyn Watch,
    ) -> Result<Answer> {
        let mut failures = 0;
        loop {
            let failure = match self.once(address, headers) {
                Ok(answer) => return Ok(answer),
                Err(failure) => failure,
            };
            failures += 1;
            self.pause(failure, failures, watch)?;
        }
    }

    /// Waits before the next attempt, or returns the error if there is none.
    pub(crate) fn pause(&self, failure: Error, failures: u32, watch: &mut dyn Watch) -> Result<()> {
        let own = self.settings.pause.saturating_mul(1 << failures.saturating_sub(1).min(10));
        let pause = if let Error::TooManyRequests { seconds: Some(seconds), .. } = &failure {
            Duration::from_secs(*seconds)
        } else {
            own
        };
        let may_pass = self.was_answered.get() && failure.may_pass();
        if !may_pass || failures >= ATTEMPTS || pause > self.settings.longest_pause {
            return Err(failure);
        }
        watch.event(Event::Waiting { reason: &failure.to_string(), pause });
        std::thread::sleep(pause);
        Ok(())
    }

    /// Address under the server.
    pub(crate) fn address(&self, path: &str) -> String {
        format!("{}/{path}", self.settings.endpoint)
    }

    /// Whether an address is of the server itself.
    pub(crate) fn is_own(&self, address: &str) -> bool {
        Url::parse(address).is_some_and(|url| url.has_origin_of(&self.endpoint))
    }

    /// Sends a GET request once and follows redirects.
    pub(crate) fn once(&self, address: &str, headers: &[(&str, String)]) -> Result<Answer> {
        let bad = |url: &Url, problem: String| Error::BadAnswer { address: url.shown(), problem };
        let mut url = Url::parse(address).ok_or_else(|| Error::BadAnswer {
            address: address.to_owned(),
            problem: "not an address".to_owned(),
        })?;
        for _ in 0..=REDIRECTS {
            let response = self.send(&url, headers)?;
            let status = response.status().as_u16();
            if !matches!(status, 301 | 302 | 303 | 307 | 308) {
                return self.answer(&url, response);
            }
            let location = text(response.headers(), "location").unwrap_or_default();
            let next = url
                .join(location)
                .ok_or_else(|| bad(&url, "a redirect to a bad address".to_owned()))?;
            if url.loses_encryption(&next) {
                return Err(bad(&url, format!("a redirect from https to {}", next.shown())));
            }
            // A server elsewhere has no business with services that only this machine reaches.
            if next.is_odd_number() {
                let problem =
                    format!("a redirect to a number that is no address: {}", next.shown());
                return Err(bad(&url, problem));
            }
            if next.is_link_local() || (next.is_loopback() && !self.endpoint.is_loopback()) {
                let problem = format!("a redirect to the local address {}", next.shown());
                return Err(bad(&url, problem));
            }
            url = next;
        }
        Err(bad(&url, format!("more than {REDIRECTS} redirects")))
    }

    /// One request. The token is sent to the server's own origin only.
    fn send(&self, url: &Url, headers: &[(&str, String)]) -> Result<HttpResponse<Body>> {
        let mut request = self.agent.get(url.full());
        for (name, value) in headers {
            request = request.header(*name, value);
        }
        if let Some(token) = &self.settings.token
            && url.has_origin_of(&self.endpoint)
        {
            request = request.header("Authorization", format!("Bearer {token}"));
        }
        let response = request.call().map_err(|error| connection(url, &error))?;
        self.was_answered.set(true);
        Ok(response)
    }

    fn answer(&self, url: &Url, response: HttpResponse<Body>) -> Result<Answer> {
        let (parts, mut body) = response.into_parts();
        let status = parts.status.as_u16();
        let address = url.shown();
        if (200..300).contains(&status) || status == 416 {
            let encoding = text(&parts.headers, "content-encoding").unwrap_or("identity");
            if !encoding.eq_ignore_ascii_case("identity") {
                let problem =
                    format!("content-encoding `{}`, which was not requested", plain(encoding));
                return Err(Error::BadAnswer { address, problem });
            }
            return Ok(Answer { status, headers: parts.headers, body, address });
        }
        let code = text(&parts.headers, "x-error-code").unwrap_or_default();
        let message = text(&parts.headers, "x-error-message").map_or_else(
            || {
                // The rest of a long page does not matter, and one that cannot be read says nothing.
                let mut start = Vec::new();
                let _ = body.as_reader().take(4096).read_to_end(&mut start);
                error_text(&String::from_utf8_lossy(&start))
            },
            plain,
        );
        Err(self.refusal(url, status, code, message, &parts.headers))
    }

    /// The error of a status, by the hub's own codes where it sends one.
    fn refusal(
        &self,
        url: &Url,
        status: u16,
        code: &str,
        message: String,
        headers: &HeaderMap,
    ) -> Error {
        let has_token = self.settings.token.is_some();
        let reference = self.reference.clone();
        let address = url.shown();
        let is_own = url.has_origin_of(&self.endpoint);
        let endpoint = self.settings.endpoint.clone();
        match (status, code) {
            (429, _) => Error::TooManyRequests { address, seconds: pause_of(headers), has_token },
            (408 | 500..=599, _) => Error::Status { address, status, message },
            // A signed address of a download has expired: the server gives a new one.
            (401 | 403, _) if !is_own => Error::Status { address, status, message },
            (_, "GatedRepo") => Error::Gated { reference, page: self.page.clone(), has_token },
            (_, "RevisionNotFound") => {
                let revision = String::new();
                Error::NoRevision { reference, revision, page: self.page.clone() }
            }
            (401, _) if has_token && message.to_ascii_lowercase().contains("credentials") => {
                Error::BadToken { endpoint }
            }
            // The hub answers 401 for repositories that do not exist, unless a token shows who asks.
            (401, _) | (404, "RepoNotFound") => {
                Error::NoRepository { reference, endpoint, has_token }
            }
            (403, _) => Error::Forbidden { reference, message },
            (404, "") if address.contains("/api/") => {
                Error::NoRepository { reference, endpoint, has_token }
            }
            _ => {
                let problem = format!("status {status}: {message}");
                Error::BadAnswer { address, problem }
            }
        }
    }
}

/// Certificates of authorities from a PEM file.
fn roots(pem: &[u8]) -> Result<RootCerts> {
    let problem = "has no certificate in PEM";
    let bad = || Error::BadSetting { name: "SSL_CERT_FILE", problem };
    let mut certificates: Vec<Certificate<'static>> = Vec::new();
    for item in parse_pem(pem) {
        if let PemItem::Certificate(certificate) = item.map_err(|_| bad())? {
            certificates.push(certificate);
        }
    }
    if certificates.is_empty() {
        return Err(bad());
    }
    Ok(RootCerts::Specific(Arc::new(certificates)))
}

fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}

/// Seconds until the next request is allowed: `Retry-After`, or the time `t` in `RateLimit`.
fn pause_of(headers: &HeaderMap) -> Option<u64> {
    let after = text(headers, "retry-after").and_then(|value| value.trim().parse().ok());
    after.or_else(|| {
        let limit = text(headers, "ratelimit")?;
        let seconds = limit.split(';').find_map(|part| part.trim().strip_prefix("t="))?;
        // A second more, so that rounding does not waste the attempt.
        seconds.trim().parse::<u64>().ok().map(|seconds| seconds.saturating_add(1))
    })
}

/// The message in a JSON body `{"error": …}`, or the start of the body.
fn error_text(body: &str) -> String {
    let json: Option<serde_json::Value> = serde_json::from_str(body).ok();
    let error = json.as_ref().and_then(|json| json.get("error")?.as_str());
    plain(error.unwrap_or(body))
}

/// A server's text on one line, without control characters.
pub(crate) fn plain(text: &str) -> String {
    let words: Vec<&str> = text.split_whitespace().collect();
    words.join(" ").chars().filter(|c| !c.is_control()).take(MESSAGE_CHARS).collect()
}

/// A failure of the connection, as a sentence without the library's prefixes.
fn connection(url: &Url, error: &ureq::Error) -> Error {
    let is_certificate = matches!(error, ureq::Error::Rustls(_) | ureq::Error::Tls(_));
    #[expect(clippy::wildcard_enum_match_arm, reason = "a foreign enum that may grow")]
    let reason = match error {
        ureq::Error::HostNotFound => "the name of the server is not known".to_owned(),
        ureq::Error::Timeout(_) => "no answer in time".to_owned(),
        ureq::Error::Io(error) => error.to_string(),
        other => other.to_string(),
    };
    // rustls's errors arrive as I/O errors where they happen while reading.
    let is_certificate = is_certificate || reason.contains("certificate");
    Error::Connection { address: url.shown(), reason: plain(&reason), is_certificate }
}

/// The error of a connection that broke while a body was read.
pub(crate) fn broken(address: &str, error: &std::io::Error) -> Error {
    Error::Connection {
        address: address.to_owned(),
        reason: plain(&error.to_string()),
        is_certificate: false,
    }
}
