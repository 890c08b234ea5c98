//! Refusals of a server, faulty servers and hostile ones: an error that says what to do, and nothing under the final name.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use hub::Error;

use crate::server::{Reply, Server};
use crate::support::{Events, Hub, TOKEN, bytes, large, model, named, request, small, tree};

/// The error of a download from a hub whose every answer is `reply`.
fn refused(reply: Reply, with_token: bool) -> Error {
    let hub = Hub::changed(model(), move |_, _| reply.clone(), |_, reply| reply);
    let place = tempfile::tempdir().expect("a directory");
    let mut settings = hub.settings();
    settings.token = settings.token.filter(|_| with_token);
    let error =
        hub::get(&settings, &request(place.path()), &mut Events::default()).expect_err("refused");
    assert!(tree(place.path()).is_empty(), "a refusal leaves nothing");
    error
}

#[test]
fn refusals_say_what_to_do() {
    let cases = [
        (Reply::new(401), false, "no repository `hf:o/m`", "HF_TOKEN"),
        (Reply::new(401), true, "or the token has no access", "whose token"),
        (
            Reply::new(401).with("X-Error-Message", "Invalid credentials in Authorization header"),
            true,
            "refused the access token",
            "unset it",
        ),
        (
            Reply::new(401).with("X-Error-Code", "GatedRepo"),
            false,
            "gated",
            "/o/m, then set HF_TOKEN",
        ),
        (
            Reply::new(403).with("X-Error-Code", "GatedRepo"),
            true,
            "gated",
            "accept the conditions at",
        ),
        (
            Reply {
                body: b"{\"error\": \"blocked by\\u001b[2J policy\"}".to_vec(),
                ..Reply::new(403)
            },
            true,
            "forbidden: blocked by[2J policy",
            "read access",
        ),
        (
            Reply::new(404).with("X-Error-Code", "RepoNotFound"),
            true,
            "no repository",
            "check the name",
        ),
        (
            Reply::new(404).with("X-Error-Code", "RevisionNotFound"),
            true,
            "no revision `main`",
            "/o/m/refs",
        ),
        (
            Reply::new(429).with("Retry-After", "86400"),
            false,
            "for another 86400 s",
            "the limit is higher",
        ),
        (
            Reply::new(429).with("RateLimit", "\"api\";r=0;t=999"),
            true,
            "for another 1000 s",
            "wait",
        ),
        (Reply::new(500), true, "500", "continues where it stopped"),
        (Reply::ok("<html>sign in</html>"), true, "not JSON", "login page"),
        (Reply::ok("{\"sha\": \"../../x\"}"), true, "no commit", "HF_ENDPOINT"),
        (
            Reply::ok("x").with("Content-Encoding", "gzip"),
            true,
            "content-encoding `gzip`",
            "HF_ENDPOINT",
        ),
        (Reply::new(302).with("Location", "/again"), true, "redirects", "HF_ENDPOINT"),
        (Reply::new(302), true, "not JSON", "HF_ENDPOINT"),
    ];
    for (reply, with_token, message, hint) in cases {
        let shown = format!("{reply:?}");
        if shown.contains("302") && !shown.contains("Location") {
            continue;
        }
        let error = refused(reply, with_token);
        let (text, advice) = (error.to_string(), error.hint().unwrap_or_default());
        assert!(text.contains(message), "{shown}: {text}");
        assert!(advice.contains(hint), "{shown}: {advice}");
        assert!(!format!("{text} {advice} {error:?}").contains(TOKEN), "{error:?}");
        assert!(!text.contains('\u{1b}'), "{text:?}");
    }
}

#[test]
fn a_short_limit_is_waited_for() {
    let n = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&n);
    let hub = Hub::changed(
        model(),
        move |_, reply| match counter.fetch_add(1, Ordering::SeqCst) {
            0 => Reply::new(429).with("Retry-After", "0"),
            3 => Reply::new(502),
            _ => reply,
        },
        |_, reply| reply,
    );
    let place = tempfile::tempdir().expect("a directory");
    let mut events = Events::default();
    hub.get_as(&request(place.path()), &mut events).expect("a download");
    let waits = events.lines.iter().filter(|line| line.starts_with("Waiting")).count();
    assert_eq!(waits, 2, "{:?}", events.lines);
}

#[test]
fn without_a_server_the_error_comes_at_once() {
    let server = Server::start(|_| Reply::new(500));
    let mut settings = hub::Settings::new(server.url());
    drop(server);
    // Pauses of an hour: a repetition would show.
    settings.pause = Duration::from_hours(1);
    let place = tempfile::tempdir().expect("a directory");
    let error =
        hub::get(&settings, &request(place.path()), &mut Events::default()).expect_err("refused");
    assert!(matches!(error, Error::Connection { .. }), "{error}");
    assert!(error.hint().unwrap_or_default().contains("HTTPS_PROXY"));
    assert!(tree(place.path()).is_empty());
    settings.is_offline = true;
    let error =
        hub::get(&settings, &request(place.path()), &mut Events::default()).expect_err("offline");
    assert!(matches!(error, Error::Offline), "{error}");
}

#[test]
fn wrong_content_never_gets_its_name() {
    let hub = Hub::changed(
        model(),
        |_, reply| reply,
        |_, mut reply| {
            if let Some(byte) = reply.body.get_mut(500_000) {
                *byte ^= 1;
            }
            reply
        },
    );
    let place = tempfile::tempdir().expect("a directory");
    let error = hub.get(place.path()).expect_err("one flipped bit");
    assert!(
        matches!(&error, Error::WrongHash { path, kind: "sha256", .. } if path == "model.safetensors"),
        "{error}"
    );
    assert_eq!(hub.cdn.requests().len(), 2, "transferred once more");
    assert!(!place.path().join("models/o/m").exists());
    let left: Vec<String> = tree(place.path())
        .into_iter()
        .filter(|path| path.contains("model.safetensors") || path.contains("/parts/"))
        .collect();
    assert!(left.is_empty(), "{left:?}");
    // Outside of Git LFS, git's hash is compared.
    let hub = Hub::changed(
        model(),
        |request, mut reply| {
            if request.path.ends_with("/config.json") {
                reply.body[3] ^= 1;
            }
            reply
        },
        |_, reply| reply,
    );
    let place = tempfile::tempdir().expect("a directory");
    let error = hub.get(place.path()).expect_err("one flipped bit");
    assert!(
        matches!(&error, Error::WrongHash { path, kind: "git sha1", .. } if path == "config.json"),
        "{error}"
    );
}

#[test]
fn wrong_sizes_are_refused() {
    for change in [0, 1, 2] {
        let hub = Hub::changed(
            model(),
            |_, reply| reply,
            move |_, mut reply| {
                match change {
                    0 => reply.body.push(1),
                    1 => drop(reply.body.pop()),
                    // More bytes than any length says.
                    _ => {
                        reply.body.extend(bytes(10_000));
                        reply.length = Some(1_010_000);
                    }
                }
                reply
            },
        );
        let place = tempfile::tempdir().expect("a directory");
        let error = hub.get(place.path()).expect_err("another size");
        assert!(
            matches!(&error, Error::WrongSize { path, .. } if path == "model.safetensors"),
            "{error}"
        );
        assert!(!place.path().join("models/o/m").exists());
    }
}

#[test]
fn an_early_end_is_no_end() {
    let hub = Hub::changed(
        model(),
        |_, reply| reply,
        |_, mut reply| {
            reply.cut_after = Some(0);
            reply
        },
    );
    let place = tempfile::tempdir().expect("a directory");
    let error = hub.get(place.path()).expect_err("no bytes");
    assert!(matches!(error, Error::Connection { .. }), "{error}");
    assert_eq!(hub.cdn.requests().len(), 5, "attempts are limited");
    assert!(!error.to_string().contains("secret"), "the signature is not shown: {error}");
}

#[test]
fn a_wrong_part_is_not_joined() {
    let n = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&n);
    let hub = Hub::changed(
        model(),
        |_, reply| reply,
        move |_, mut reply| {
            match counter.fetch_add(1, Ordering::SeqCst) {
                0 => reply.cut_after = Some(100_000),
                1 => {
                    // Another part than was requested.
                    reply.headers.retain(|(name, _)| name != "Content-Range");
                    return reply.with("Content-Range", "bytes 0-899999/1000000");
                }
                2 => reply.cut_after = Some(100_000),
                3 => return Reply::new(416),
                _ => {}
            }
            reply
        },
    );
    let place = tempfile::tempdir().expect("a directory");
    let outcome = hub.get(place.path()).expect("a download");
    assert_eq!(
        std::fs::read(outcome.dir.join("model.safetensors")).expect("weights"),
        bytes(1_000_000)
    );
    let ranges: Vec<bool> =
        hub.cdn.requests().iter().map(|request| request.header("range").is_some()).collect();
    assert_eq!(ranges, [false, true, false, true, false]);
}

#[test]
fn hostile_names_reach_no_disk() {
    for path in [
        "../evil.json",
        "/tmp/evil.json",
        "a/../../evil.json",
        "..\\evil.json",
        ".temper-source.json",
        "a//b.json",
    ] {
        let mut repo = model();
        repo.files.push(small(path, "{}"));
        let hub = Hub::new(repo);
        let place = tempfile::tempdir().expect("a directory");
        let error = hub.get(&place.path().join("deep")).expect_err("hostile");
        assert!(matches!(error, Error::BadName { .. }), "{path}: {error}");
        assert!(tree(place.path()).is_empty(), "{path}");
    }
}

/// Redirects of the API to another host, and a next page there, get no token.
#[test]
fn another_host_gets_no_token() {
    let other = Server::start(|_| Reply::ok("[]"));
    let target = other.url();
    let hub = Hub::changed(
        model(),
        move |_, _| Reply::new(307).with("Location", format!("{target}/api")),
        |_, reply| reply,
    );
    let place = tempfile::tempdir().expect("a directory");
    hub.get(place.path()).expect_err("no commit");
    let requests = other.requests();
    assert_eq!(requests.len(), 1);
    assert!(requests[0].header("authorization").is_none());
    let target = other.url();
    let hub = Hub::changed(
        model(),
        move |request, reply| {
            let link = format!("<{target}/next>; rel=\"next\"");
            if request.path.contains("/tree/") { reply.with("Link", link) } else { reply }
        },
        |_, reply| reply,
    );
    let error = hub.get(place.path()).expect_err("another server");
    assert!(error.to_string().contains("another server"), "{error}");
    assert_eq!(other.requests().len(), 1);
}

/// A listing that links to itself, or to empty pages, ends at once.
#[test]
fn a_listing_without_an_end_is_refused() {
    for (name, empties) in [("before", false), ("empty", true)] {
        let mut n_pages = 0;
        let hub = Hub::changed(
            model(),
            move |request, reply| {
                if !request.path.contains("/tree/") {
                    return reply;
                }
                n_pages += 1;
                let host = request.header("host").expect("a host");
                let cursor = if empties { n_pages } else { 0 };
                let path = request.path.split("&cursor").next().expect("a path");
                let link = format!("<http://{host}{path}&cursor={cursor}>; rel=\"next\"");
                let reply = if empties { Reply::ok("[]") } else { reply };
                reply.with("Link", link)
            },
            |_, reply| reply,
        );
        let place = tempfile::tempdir().expect("a directory");
        let error = hub.get(place.path()).expect_err("no end");
        assert!(error.to_string().contains(name), "{error}");
        assert!(hub.hub.requests().len() < 6);
        assert!(tree(place.path()).is_empty());
    }
}

/// A machine in a cloud has a service at a link-local address that gives its credentials.
#[test]
fn a_redirect_to_a_local_address_is_not_followed() {
    let hub = Hub::changed(
        model(),
        |_, _| Reply::new(307).with("Location", "http://169.254.169.254/latest/meta-data"),
        |_, reply| reply,
    );
    let place = tempfile::tempdir().expect("a directory");
    let error = hub.get(place.path()).expect_err("refused");
    assert!(error.to_string().contains("a redirect to the local address"), "{error}");
}

/// Other spellings of addresses that only this machine or its network reaches; the C library reads them as such.
#[test]
fn a_redirect_to_an_odd_number_is_not_followed() {
    let odd = [
        "http://2852039166/",
        "http://0xa9fea9fe/",
        "http://169.16689662/",
        "http://0251.0376.0251.0376/",
    ];
    for address in odd.into_iter().chain(["http://[::ffff:169.254.169.254]/", "http://[fe80::1]/"])
    {
        let hub = Hub::changed(
            model(),
            move |_, _| Reply::new(302).with("Location", format!("{address}latest/meta-data")),
            |_, reply| reply,
        );
        let place = tempfile::tempdir().expect("a directory");
        let error = hub.get(place.path()).expect_err("refused").to_string();
        assert!(error.contains("a redirect to "), "{address}: {error}");
        assert!(tree(place.path()).is_empty(), "{address}");
    }
}

#[test]
fn a_listing_without_files_is_an_error() {
    let hub = Hub::changed(
        model(),
        |request, reply| {
            if request.path.contains("/tree/") { Reply::ok("[]") } else { reply }
        },
        |_, reply| reply,
    );
    let place = tempfile::tempdir().expect("a directory");
    let error = hub.get(place.path()).expect_err("nothing to download").to_string();
    assert!(error.contains("the repository has no files"), "{error}");
    assert!(tree(place.path()).is_empty());
}

#[test]
fn a_full_disk_is_noticed_before() {
    let mut file = large("model.safetensors", bytes(10));
    // Only the listing is large.
    file.path = "model.safetensors".to_owned();
    let repo = crate::server::Repo { directory: "models/o/m".to_owned(), files: vec![file] };
    let hub = Hub::changed(
        repo,
        |request, mut reply| {
            if request.path.contains("/tree/") {
                let text = String::from_utf8(reply.body)
                    .expect("text")
                    .replace("\"size\": 10", "\"size\": 9000000000000000000");
                reply = Reply::ok(text);
            }
            reply
        },
        |_, reply| reply,
    );
    let place = tempfile::tempdir().expect("a directory");
    let error = hub.get(place.path()).expect_err("no space");
    assert!(matches!(error, Error::NoSpace { needed: 9_000_000_000_000_000_000, .. }), "{error}");
    assert!(hub.cdn.requests().is_empty());
}

#[test]
fn references_with_a_path_are_refused() {
    let hub = Hub::new(model());
    let place = tempfile::tempdir().expect("a directory");
    let with_path = named("hf:o/m/config.json", place.path());
    let error = hub.get_as(&with_path, &mut Events::default()).expect_err("a path");
    assert!(
        error.hint().unwrap_or_default().contains("temper get hf:o/m --file config.json"),
        "{error:?}"
    );
}
