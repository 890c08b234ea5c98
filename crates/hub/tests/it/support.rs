//! A repository with known content, and downloads into temporary directories.

use std::path::{Path, PathBuf};
use std::time::Duration;

use hub::{Error, Event, Outcome, Request, Settings, Watch};
use hub_local::Reference;
use sha1::Digest as _;

use crate::server::{Received, Reply, Repo, RepoFile, Server};

/// Token of the tests.
pub(crate) const TOKEN: &str = "hf_secret";

/// Bytes without a pattern that a faulty offset could repeat.
pub(crate) fn bytes(n: usize) -> Vec<u8> {
    let mut state = 12345_u32;
    (0..n)
        .map(|_| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 24) as u8
        })
        .collect()
}

/// A file in Git LFS.
pub(crate) fn large(path: &str, content: Vec<u8>) -> RepoFile {
    let oid = fsio::sha256_hex(&content);
    RepoFile { path: path.to_owned(), content, oid, is_lfs: true }
}

/// A file outside of Git LFS.
pub(crate) fn small(path: &str, content: &str) -> RepoFile {
    let mut hash = sha1::Sha1::new();
    hash.update(format!("blob {}\0{content}", content.len()));
    let digits = "0123456789abcdef".as_bytes();
    let digit = |n: u8| char::from(digits[usize::from(n)]);
    let oid =
        hash.finalize().iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect();
    RepoFile { path: path.to_owned(), content: content.as_bytes().to_vec(), oid, is_lfs: false }
}

/// A model of a few files.
pub(crate) fn model() -> Repo {
    let files = vec![
        small(".gitattributes", "*.safetensors filter=lfs\n"),
        small("README.md", "# A model\n"),
        small("config.json", "{\"model_type\": \"llama\"}\n"),
        small("empty.json", ""),
        large("model.safetensors", bytes(1_000_000)),
        large("pytorch_model.bin", bytes(10)),
        small("sub/a b.json", "[]"),
        small("tokenizer.json", "{}"),
    ];
    Repo { directory: "models/o/m".to_owned(), files }
}

/// A hub and its content delivery network.
pub(crate) struct Hub {
    pub(crate) hub: Server,
    pub(crate) cdn: Server,
}

impl Hub {
    pub(crate) fn new(repo: Repo) -> Self {
        Self::changed(repo, |_, reply| reply, |_, reply| reply)
    }

    /// A hub whose answers are changed by two functions: of the hub, and of the content delivery network.
    pub(crate) fn changed(
        repo: Repo,
        mut of_hub: impl FnMut(&Received, Reply) -> Reply + Send + 'static,
        mut of_cdn: impl FnMut(&Received, Reply) -> Reply + Send + 'static,
    ) -> Self {
        let large = repo.clone();
        let cdn = Server::start(move |request| of_cdn(request, large.answer_cdn(request)));
        let address = cdn.url();
        let hub = Server::start(move |request| of_hub(request, repo.answer(request, &address)));
        Self { hub, cdn }
    }

    /// Settings with the token, and pauses too short to notice.
    pub(crate) fn settings(&self) -> Settings {
        let mut settings = Settings::new(self.hub.url());
        settings.token = Some(TOKEN.to_owned());
        settings.pause = Duration::from_millis(1);
        settings.timeout = Duration::from_secs(2);
        settings
    }

    pub(crate) fn get(&self, place: &Path) -> Result<Outcome, Error> {
        self.get_as(&request(place), &mut Events::default())
    }

    pub(crate) fn get_as(&self, request: &Request, events: &mut Events) -> Result<Outcome, Error> {
        hub::get(&self.settings(), request, events)
    }
}

/// The events as text.
#[derive(Default)]
pub(crate) struct Events {
    pub(crate) lines: Vec<String>,
}

impl Watch for Events {
    fn event(&mut self, event: Event<'_>) {
        self.lines.push(format!("{event:?}"));
    }
}

impl Events {
    pub(crate) fn has(&self, start: &str) -> bool {
        self.lines.iter().any(|line| line.starts_with(start))
    }
}

/// A request for the model of the tests.
pub(crate) fn request(place: &Path) -> Request {
    named("hf:o/m", place)
}

pub(crate) fn named(reference: &str, place: &Path) -> Request {
    let reference = Reference::parse(reference).expect("the prefix").expect("a reference");
    Request { to: place.join(reference.directory()), reference, files: Vec::new() }
}

/// All paths below a directory, sorted, without those in hidden directories.
pub(crate) fn tree(dir: &Path) -> Vec<String> {
    let mut paths = Vec::new();
    let mut open: Vec<PathBuf> = vec![dir.to_owned()];
    while let Some(next) = open.pop() {
        for entry in std::fs::read_dir(next).into_iter().flatten().flatten() {
            if entry.path().is_dir() {
                open.push(entry.path());
            } else {
                let path = entry.path();
                paths.push(path.strip_prefix(dir).expect("below").display().to_string());
            }
        }
    }
    paths.sort();
    paths
}
