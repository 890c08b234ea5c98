//! Addresses: origin, redirects, and the escape of path segments.

use std::fmt::Write as _;

/// An http or https address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Url {
    is_https: bool,
    /// Host and port in lower case, as written.
    authority: String,
    /// Path and query, with the slash at the start.
    path: String,
}

impl Url {
    /// Reads an absolute address. A user name in it is refused, because it would be sent as a password.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let (scheme, rest) = text.split_once("://")?;
        let is_https = match scheme.to_ascii_lowercase().as_str() {
            "https" => true,
            "http" => false,
            _ => return None,
        };
        let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
        let (authority, path) = rest.split_at(end);
        let is_host = |c: char| c.is_ascii_alphanumeric() || "-._:[]".contains(c);
        if authority.is_empty() || !authority.chars().all(is_host) {
            return None;
        }
        let path = path.split('#').next().unwrap_or_default();
        // The client refuses other characters, and a server that sends them is not to be trusted.
        if !path.chars().all(|c| c.is_ascii_graphic()) {
            return None;
        }
        let slash = if path.starts_with('/') { "" } else { "/" };
        Some(Self {
            is_https,
            authority: authority.to_ascii_lowercase(),
            path: format!("{slash}{path}"),
        })
    }

    /// The target of a redirect from this address.
    pub(crate) fn join(&self, location: &str) -> Option<Self> {
        if location.contains("://") && !location.starts_with(['/', '?']) {
            return Self::parse(location);
        }
        let scheme = self.scheme();
        if location.starts_with("//") {
            return Self::parse(&format!("{scheme}:{location}"));
        }
        let path = self.path.split('?').next().unwrap_or_default();
        let directory = path.rsplit_once('/').map_or("", |(directory, _)| directory);
        let target = match location.chars().next() {
            Some('/') => location.to_owned(),
            Some('?') => format!("{path}{location}"),
            _ => format!("{directory}/{location}"),
        };
        Self::parse(&format!("{scheme}://{}{target}", self.authority))
    }

    /// Whether another address has the same scheme, host and port.
    pub(crate) fn has_origin_of(&self, other: &Self) -> bool {
        self.is_https == other.is_https
            && self.host() == other.host()
            && self.port() == other.port()
    }

    /// Whether a redirect from `self` to `to` leaves encryption.
    pub(crate) fn loses_encryption(&self, to: &Self) -> bool {
        self.is_https && !to.is_https
    }

    /// Whether what is sent stays secret: over https, or within this machine.
    pub(crate) fn is_confidential(&self) -> bool {
        self.is_https || self.is_loopback()
    }

    /// Whether the address is of this machine.
    pub(crate) fn is_loopback(&self) -> bool {
        let host = self.host();
        let is_ip = |ip: std::net::IpAddr| ip.to_canonical().is_loopback() || ip.is_unspecified();
        host == "localhost" || host.trim_matches(['[', ']']).parse().is_ok_and(is_ip)
    }

    /// Whether the address is valid within one network segment only, as that of a cloud machine's metadata service.
    pub(crate) fn is_link_local(&self) -> bool {
        match self.host().trim_matches(['[', ']']).parse() {
            Ok(std::net::IpAddr::V4(ip)) => ip.is_link_local(),
            Ok(std::net::IpAddr::V6(ip)) => {
                ip.is_unicast_link_local() || ip.to_ipv4().is_some_and(|ip| ip.is_link_local())
            }
            Err(_) => false,
        }
    }

    /// Whether the host is a number in another form than an address has, such as `127.1`, `0x7f000001` or `2130706433`. Systems
    /// read such numbers as addresses, local ones too.
    pub(crate) fn is_odd_number(&self) -> bool {
        let host = self.host().trim_end_matches('.');
        let last = host.rsplit('.').next().unwrap_or_default();
        let is_number = !last.is_empty() && last.bytes().all(|byte| byte.is_ascii_digit())
            || last.starts_with("0x")
            || last.starts_with("0X");
        is_number && host.parse::<std::net::Ipv4Addr>().is_err()
    }

    /// Host without the port.
    pub(crate) fn host(&self) -> &str {
        match self.authority.rsplit_once(':') {
            Some((host, port)) if !port.ends_with(']') => host,
            _ => &self.authority,
        }
    }

    fn port(&self) -> &str {
        match self.authority.rsplit_once(':') {
            Some((_, port)) if !port.ends_with(']') && !port.is_empty() => port,
            _ if self.is_https => "443",
            _ => "80",
        }
    }

    fn scheme(&self) -> &'static str {
        if self.is_https { "https" } else { "http" }
    }

    /// The whole address.
    pub(crate) fn full(&self) -> String {
        format!("{}://{}{}", self.scheme(), self.authority, self.path)
    }

    /// The address without its query, which may have the signature of a download.
    pub(crate) fn shown(&self) -> String {
        let path = self.path.split('?').next().unwrap_or_default();
        format!("{}://{}{path}", self.scheme(), self.authority)
    }
}

/// Escapes a text for one segment of a path: all bytes but letters, digits and `-._~`.
pub(crate) fn segment(text: &str) -> String {
    text.bytes().fold(String::new(), |mut out, byte| {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(byte as char);
        } else {
            // Writing into a String cannot fail.
            let _ = write!(out, "%{byte:02X}");
        }
        out
    })
}

/// Escapes a path, segment by segment.
pub(crate) fn path(text: &str) -> String {
    text.split('/').map(segment).collect::<Vec<_>>().join("/")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn url(text: &str) -> Url {
        Url::parse(text).unwrap_or_else(|| panic!("{text}"))
    }

    #[test]
    fn redirects_are_resolved() {
        let from = url("https://hub.example/a/b?x=1");
        let to = |location: &str| from.join(location).map(|url| url.full());
        assert_eq!(to("https://cdn.example/c?s=2").as_deref(), Some("https://cdn.example/c?s=2"));
        assert_eq!(to("//cdn.example/c").as_deref(), Some("https://cdn.example/c"));
        assert_eq!(to("/c?u=http://x").as_deref(), Some("https://hub.example/c?u=http://x"));
        assert_eq!(to("c").as_deref(), Some("https://hub.example/a/c"));
        for bad in
            ["ftp://x/y", "https://user:word@x/y", "https:///y", "https://x/\u{e9}", "file:///etc"]
        {
            assert_eq!(to(bad), None, "{bad}");
        }
    }

    #[test]
    fn an_origin_is_scheme_host_and_port() {
        let hub = url("https://hub.example/a");
        assert!(hub.has_origin_of(&url("https://HUB.example:443/b")));
        for other in [
            "http://hub.example",
            "https://hub.example:8443",
            "https://cdn.hub.example",
            "https://hub.example.evil",
        ] {
            assert!(!hub.has_origin_of(&url(other)), "{other}");
        }
        assert!(hub.loses_encryption(&url("http://hub.example")));
        assert!(url("http://[::1]:80/").is_loopback() && url("http://127.0.0.1:9").is_loopback());
        for open in ["http://127.example.org", "http://mirror.example", "http://localhost.example"]
        {
            assert!(!url(open).is_confidential(), "{open}");
        }
    }

    #[test]
    fn numbers_that_are_no_addresses_are_recognised() {
        for odd in [
            "http://2130706433:8/",
            "http://0x7f000001",
            "http://127.1",
            "http://0177.0.0.1.",
            "http://0",
        ] {
            assert!(url(odd).is_odd_number(), "{odd}");
        }
        for plain in
            ["http://127.0.0.1:8", "http://hub.example", "http://4.example", "http://[::1]:1"]
        {
            assert!(!url(plain).is_odd_number(), "{plain}");
        }
        assert!(url("http://0.0.0.0:9").is_loopback());
    }

    #[test]
    fn link_local_addresses_are_recognised() {
        let inside =
            ["http://169.254.169.254/latest", "http://[fe80::1]:8/", "http://[::ffff:169.254.1.1]"];
        for address in inside {
            assert!(url(address).is_link_local(), "{address}");
        }
        for address in ["http://169.255.1.1", "http://fe80.example", "http://[2001:db8::1]/"] {
            assert!(!url(address).is_link_local(), "{address}");
        }
    }

    #[test]
    fn segments_are_escaped() {
        assert_eq!(path("a b/c#d?é"), "a%20b/c%23d%3F%C3%A9");
        assert_eq!(segment("refs/pr/1"), "refs%2Fpr%2F1");
    }
}
