//! The transfer of one file: continued where it stopped, checked by size and hash before it counts as finished.

use std::io::Read as _;

use fsio::PartialFile;

use crate::client::{Answer, Client, broken};
use crate::hash::Hasher;
use crate::listing::RemoteFile;
use crate::staging::Staging;
use crate::{Error, Event, Result, Watch};

/// Bytes that are read at a time.
const PIECE: usize = 256 << 10;

/// An unfinished file with the hash of its bytes.
struct Part<'a> {
    file: &'a RemoteFile,
    content: PartialFile,
    hasher: Hasher,
}

impl<'a> Part<'a> {
    /// Opens the part of an earlier attempt, or an empty one. Its bytes are hashed again.
    fn open(file: &'a RemoteFile, staging: &Staging) -> Result<Self> {
        let content = PartialFile::open(staging.part(&file.expected))?;
        let mut part = Self { file, content, hasher: Hasher::new(&file.expected, file.size) };
        if part.content.len() > file.size {
            part.restart()?;
        }
        let hasher = &mut part.hasher;
        part.content.for_each_piece(|piece| hasher.update(piece))?;
        Ok(part)
    }

    fn restart(&mut self) -> Result<()> {
        self.content.restart()?;
        self.hasher = Hasher::new(&self.file.expected, self.file.size);
        Ok(())
    }

    fn append(&mut self, bytes: &[u8]) -> Result<()> {
        self.content.append(bytes)?;
        self.hasher.update(bytes);
        Ok(())
    }

    fn is_whole(&self) -> bool {
        self.content.len() == self.file.size
    }
}

/// Transfers a file from an address into the staging directory. Returns its SHA-256.
///
/// A file whose hash is wrong is transferred once more from the start, because a part of an earlier attempt may have been
/// damaged on the disk.
pub(crate) fn transfer(
    client: &Client,
    address: &str,
    file: &RemoteFile,
    staging: &Staging,
    watch: &mut dyn Watch,
) -> Result<String> {
    let mut wrong: Option<Error> = None;
    loop {
        let mut part = Part::open(file, staging)?;
        if !part.content.is_empty() {
            watch.event(Event::Resumed { path: &file.path, bytes: part.content.len() });
        }
        fill(client, address, &mut part, staging, watch)?;
        let hashes = part.hasher.finish();
        if hashes.is(&file.expected) {
            let finished = staging.finished(file);
            if let Some(parent) = finished.parent() {
                fsio::create_dir_all(parent)?;
            }
            part.content.finish(finished)?;
            staging.record_tag(&file.expected, None)?;
            watch.event(Event::Finished { path: &file.path, size: file.size });
            return Ok(hashes.sha256);
        }
        staging.forget(&file.expected)?;
        if let Some(error) = wrong {
            return Err(error);
        }
        watch.event(Event::Note(&format!(
            "{}: the hash is wrong; it is transferred again",
            file.path
        )));
        wrong = Some(Error::WrongHash {
            path: file.path.clone(),
            kind: file.expected.kind(),
            expected: file.expected.hex().to_owned(),
            found: hashes.like(&file.expected).to_owned(),
        });
    }
}

/// Requests the missing bytes until all are there. Attempts without progress are limited.
fn fill(
    client: &Client,
    address: &str,
    part: &mut Part<'_>,
    staging: &Staging,
    watch: &mut dyn Watch,
) -> Result<()> {
    let mut failures = 0;
    while !part.is_whole() {
        let before = part.content.len();
        if let Err(error) = request_rest(client, address, part, staging, watch) {
            if part.content.len() > before {
                failures = 0;
            }
            failures += 1;
            client.pause(error, failures, watch)?;
        }
    }
    Ok(())
}

/// One request for the bytes that are missing.
fn request_rest(
    client: &Client,
    address: &str,
    part: &mut Part<'_>,
    staging: &Staging,
    watch: &mut dyn Watch,
) -> Result<()> {
    let file = part.file;
    let n_there = part.content.len();
    let mut headers = Vec::new();
    if n_there > 0 {
        headers.push(("Range", format!("bytes={n_there}-")));
        // The server sends the whole file if it has changed. Without a tag the hash alone decides.
        if let Some(tag) = staging.tag(&file.expected) {
            headers.push(("If-Range", tag));
        }
    }
    let answer = client.once(address, &headers)?;
    let bad = |problem: String| Error::BadAnswer { address: answer.address.clone(), problem };
    match answer.status {
        206 if n_there > 0 => {
            if let Err(problem) = check_range(answer.header("content-range"), n_there, file.size) {
                // The bytes that are there are of no use with this server.
                part.restart()?;
                return Err(broken(&answer.address, &std::io::Error::other(problem)));
            }
        }
        200 => {
            let length =
                answer.header("content-length").and_then(|value| value.trim().parse().ok());
            if let Some(found) = length.filter(|length| *length != file.size) {
                return Err(Error::WrongSize {
                    path: file.path.clone(),
                    expected: file.size,
                    found,
                });
            }
            if n_there > 0 {
                part.restart()?;
            }
        }
        // The server has fewer bytes than the part.
        416 => {
            part.restart()?;
            return Err(broken(&answer.address, &std::io::Error::other("the range is not there")));
        }
        status => return Err(bad(format!("status {status}"))),
    }
    staging.record_tag(&file.expected, answer.header("etag"))?;
    receive(answer, part, watch)
}

/// Appends the body of an answer to the part.
fn receive(answer: Answer, part: &mut Part<'_>, watch: &mut dyn Watch) -> Result<()> {
    let file = part.file;
    let address = answer.address.clone();
    let mut body = answer.into_reader();
    let mut piece = vec![0; PIECE];
    loop {
        let n = match body.read(&mut piece) {
            Ok(n) => n,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(broken(&address, &error)),
        };
        if n == 0 {
            break;
        }
        let there = part.content.len() + n as u64;
        if there > file.size {
            return Err(Error::WrongSize {
                path: file.path.clone(),
                expected: file.size,
                found: there,
            });
        }
        part.append(piece.get(..n).unwrap_or_default())?;
        watch.event(Event::Received { path: &file.path, bytes: there, size: file.size });
    }
    if part.is_whole() {
        return Ok(());
    }
    let missing = file.size - part.content.len();
    Err(broken(
        &address,
        &std::io::Error::other(format!("the connection ended {missing} bytes early")),
    ))
}

/// Checks `bytes FIRST-LAST/SIZE` of an answer with a part.
fn check_range(
    header: Option<&str>,
    first: u64,
    size: u64,
) -> std::result::Result<(), &'static str> {
    let range = header.and_then(|value| value.trim().strip_prefix("bytes "));
    let (range, total) = range.and_then(|range| range.split_once('/')).ok_or("no Content-Range")?;
    let start: Option<u64> = range.split_once('-').and_then(|(start, _)| start.trim().parse().ok());
    if start != Some(first) {
        return Err("the server sends another part than was requested");
    }
    let is_size = total == "*" || total.trim().parse() == Ok(size);
    if is_size { Ok(()) } else { Err("the file has another size on the server") }
}
