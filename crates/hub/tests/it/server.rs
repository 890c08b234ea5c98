//! A hub and its content delivery network on the loopback interface: two servers, so that they differ in origin.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

/// Commit of the repository.
pub(crate) const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

/// A request as it arrived.
#[derive(Clone, Debug)]
pub(crate) struct Received {
    pub(crate) path: String,
    /// Headers by lower-case name.
    pub(crate) headers: BTreeMap<String, String>,
}

impl Received {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(String::as_str)
    }
}

/// An answer.
#[derive(Clone, Debug, Default)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
    /// Number of bytes of the body after which the connection breaks.
    pub(crate) cut_after: Option<usize>,
    /// Length in the header, if it is not that of the body.
    pub(crate) length: Option<usize>,
    /// Time for which the connection stays open after the body.
    pub(crate) stays_open: Option<Duration>,
}

impl Reply {
    pub(crate) fn new(status: u16) -> Self {
        Self { status, ..Self::default() }
    }

    pub(crate) fn ok(body: impl Into<Vec<u8>>) -> Self {
        Self { body: body.into(), ..Self::new(200) }
    }

    pub(crate) fn with(mut self, name: &str, value: impl Into<String>) -> Self {
        self.headers.push((name.to_owned(), value.into()));
        self
    }
}

type Handler = Box<dyn FnMut(&Received) -> Reply + Send>;

/// A server that ends when it is dropped.
pub(crate) struct Server {
    address: String,
    stops: Arc<AtomicBool>,
    log: Arc<Mutex<Vec<Received>>>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    pub(crate) fn start(mut handler: impl FnMut(&Received) -> Reply + Send + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address").to_string();
        let stops = Arc::new(AtomicBool::new(false));
        let log = Arc::new(Mutex::new(Vec::new()));
        let (stopped, requests) = (Arc::clone(&stops), Arc::clone(&log));
        let thread = std::thread::spawn(move || {
            let mut handler: Handler = Box::new(move |request| handler(request));
            for stream in listener.incoming().flatten() {
                if stopped.load(Ordering::SeqCst) {
                    return;
                }
                serve(stream, &mut handler, &requests);
            }
        });
        Self { address, stops, log, thread: Some(thread) }
    }

    /// Address with the scheme.
    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Requests so far.
    pub(crate) fn requests(&self) -> Vec<Received> {
        self.log.lock().expect("not poisoned").clone()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stops.store(true, Ordering::SeqCst);
        // Wakes the thread, which waits for a connection.
        let _ = TcpStream::connect(&self.address);
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

/// One request on a connection, which then closes.
fn serve(stream: TcpStream, handler: &mut Handler, log: &Mutex<Vec<Received>>) {
    let mut reader = BufReader::new(stream.try_clone().expect("a stream"));
    let mut line = String::new();
    if reader.read_line(&mut line).unwrap_or(0) == 0 {
        return;
    }
    let path = line.split(' ').nth(1).unwrap_or_default().to_owned();
    let mut headers = BTreeMap::new();
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).unwrap_or(0) <= 2 {
            break;
        }
        if let Some((name, value)) = line.split_once(':') {
            headers.insert(name.to_ascii_lowercase(), value.trim().to_owned());
        }
    }
    let request = Received { path, headers };
    let reply = handler(&request);
    log.lock().expect("not poisoned").push(request);
    let length = reply.length.unwrap_or(reply.body.len());
    let mut head =
        format!("HTTP/1.1 {} X\r\nContent-Length: {length}\r\nConnection: close\r\n", reply.status);
    for (name, value) in &reply.headers {
        head += &format!("{name}: {value}\r\n");
    }
    let mut stream = stream;
    let n_sent = reply.cut_after.unwrap_or(reply.body.len()).min(reply.body.len());
    // The client may have closed the connection already.
    let _ = stream.write_all(format!("{head}\r\n").as_bytes());
    let _ = stream.write_all(&reply.body[..n_sent]);
    if let Some(time) = reply.stays_open {
        std::thread::sleep(time);
    }
}

/// A file of the repository.
#[derive(Clone, Debug)]
pub(crate) struct RepoFile {
    pub(crate) path: String,
    pub(crate) content: Vec<u8>,
    /// SHA-256 for a file in Git LFS, or else git's SHA-1.
    pub(crate) oid: String,
    pub(crate) is_lfs: bool,
}

/// Content of a repository.
#[derive(Clone, Debug, Default)]
pub(crate) struct Repo {
    /// `models/o/m` or `datasets/o/n`.
    pub(crate) directory: String,
    pub(crate) files: Vec<RepoFile>,
}

impl Repo {
    /// Answers as the hub does: API, small files, and redirects to the content delivery network for large ones.
    pub(crate) fn answer(&self, request: &Received, cdn: &str) -> Reply {
        let api = format!("/api/{}", self.directory);
        let page = self.directory.strip_prefix("models/").unwrap_or(&self.directory);
        let files = format!("/{page}/resolve/{COMMIT}/");
        if let Some(revision) = request.path.strip_prefix(&format!("{api}/revision/")) {
            return match revision {
                "main" | "v1" | "refs%2Fpr%2F1" => Reply::ok(format!("{{\"sha\": \"{COMMIT}\"}}")),
                _ => Reply::new(404).with("X-Error-Code", "RevisionNotFound"),
            };
        }
        if request.path.starts_with(&format!("{api}/tree/{COMMIT}?recursive=true")) {
            return Reply::ok(self.listing());
        }
        let Some(path) = request.path.strip_prefix(&files) else {
            return Reply::new(404).with("X-Error-Code", "RepoNotFound");
        };
        let Some(file) = self.files.iter().find(|file| file.path == path.replace("%20", " "))
        else {
            return Reply::new(404).with("X-Error-Code", "EntryNotFound");
        };
        if file.is_lfs {
            let location = format!("{cdn}/cdn/{}?signature=secret", file.oid);
            return Reply::new(302)
                .with("Location", location)
                .with("X-Linked-Size", file.content.len().to_string());
        }
        content(request, &file.content, &file.oid)
    }

    /// Answers as the content delivery network does.
    pub(crate) fn answer_cdn(&self, request: &Received) -> Reply {
        let oid = request
            .path
            .strip_prefix("/cdn/")
            .and_then(|rest| rest.strip_suffix("?signature=secret"));
        let file = self.files.iter().find(|file| Some(file.oid.as_str()) == oid);
        file.map_or_else(|| Reply::new(403), |file| content(request, &file.content, &file.oid))
    }

    fn listing(&self) -> String {
        let entries: Vec<String> = self
            .files
            .iter()
            .map(|file| {
                let size = file.content.len();
                let path = file.path.escape_debug();
                let git = "f".repeat(40);
                if file.is_lfs {
                    format!(
                        "{{\"type\": \"file\", \"oid\": \"{git}\", \"size\": {size}, \"path\": \"{path}\", \
                         \"lfs\": {{\"oid\": \"{}\", \"size\": {size}, \"pointerSize\": 134}}}}",
                        file.oid
                    )
                } else {
                    format!("{{\"type\": \"file\", \"oid\": \"{}\", \"size\": {size}, \"path\": \"{path}\"}}", file.oid)
                }
            })
            .collect();
        let directory = "{\"type\": \"directory\", \"oid\": \"x\", \"size\": 0, \"path\": \"sub\"}";
        format!("[{directory}{}{}]", if entries.is_empty() { "" } else { ", " }, entries.join(", "))
    }
}

/// A file with its entity tag; a part of it if the request asks for one and the tag is the same.
pub(crate) fn content(request: &Received, bytes: &[u8], tag: &str) -> Reply {
    let tag = format!("\"{tag}\"");
    let start = request
        .header("range")
        .and_then(|range| range.strip_prefix("bytes=")?.strip_suffix('-')?.parse::<usize>().ok())
        .filter(|_| request.header("if-range").is_none_or(|known| known == tag));
    match start {
        Some(start) if start >= bytes.len() => Reply::new(416),
        Some(start) => Reply { status: 206, ..Reply::ok(&bytes[start..]) }
            .with("Content-Range", format!("bytes {start}-{}/{}", bytes.len() - 1, bytes.len()))
            .with("ETag", tag),
        None => Reply::ok(bytes).with("ETag", tag),
    }
}
