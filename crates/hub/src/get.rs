//! A download from start to end: what is there already, what the server has, and the transfer of the difference.

use std::path::{Path, PathBuf};

use hub_local::{RECORD_FILE, Record, RecordedFile, Reference, read_record};

use crate::client::Client;
use crate::listing::{self, RemoteFile};
use crate::selection::{self, LeftOut};
use crate::staging::{Staging, sha256_if_equal};
use crate::transfer::transfer;
use crate::{Error, Event, Result, Settings, Watch, url};

/// Branch of a reference without a revision.
const MAIN: &str = "main";

/// A repository to download, and its place.
#[derive(Clone, Debug)]
pub struct Request {
    /// The repository, without a path in it.
    pub reference: Reference,
    /// Directory to create.
    pub to: PathBuf,
    /// Files or patterns to download in place of the default selection; empty for that selection.
    pub files: Vec<String>,
}

/// A finished download.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The directory.
    pub dir: PathBuf,
    /// Commit of its files.
    pub revision: String,
    /// Number of files in it that come from the repository.
    pub n_files: usize,
    /// Their size in bytes.
    pub bytes: u64,
    /// Number of files that were transferred now.
    pub n_transferred: usize,
    /// Files of the repository that are not in the directory; empty if it was complete before.
    pub left_out: Vec<LeftOut>,
}

/// Downloads a repository into a directory, or completes one.
///
/// A directory of an earlier download keeps its revision: only missing files are transferred, all others are checked by
/// their hash. Nothing that exists is replaced.
pub fn get(settings: &Settings, request: &Request, watch: &mut dyn Watch) -> Result<Outcome> {
    let reference = &request.reference;
    if let Some(path) = &reference.path {
        return Err(Error::BadRequest {
            problem: format!("`{reference}` names a file in the repository"),
            hint: format!(
                "`{}`",
                Reference { path: Some(path.clone()), ..reference.clone() }.get_command()
            ),
        });
    }
    let record = existing(request)?;
    let wanted = reference.revision.as_deref();
    let keeps_revision = |record: &Record| wanted.is_none_or(|wanted| wanted == record.revision);
    if let Some(record) = record.as_ref().filter(|record| record.complete && keeps_revision(record))
        && request.files.is_empty()
        && is_intact(&request.to, record)?
    {
        if wanted.is_none() && !settings.is_offline {
            note_newer(settings, request, record, watch)?;
        }
        return Ok(outcome(request, record, 0, Vec::new()));
    }
    if settings.is_offline {
        return Err(Error::Offline);
    }
    let client = client(settings, reference)?;
    let revision = match (&record, wanted) {
        (Some(record), None) => record.revision.clone(),
        _ => listing::commit(&client, reference, wanted.unwrap_or(MAIN), watch)?,
    };
    check_same(request, record.as_ref(), &revision)?;
    let all = listing::files(&client, reference, &revision, watch)?;
    let selected = match request.files.as_slice() {
        [] => selection::by_default(all, reference.kind)?,
        names => selection::by_name(all, names)?,
    };
    let staging = Staging::begin(&request.to)?;
    // Another process may have finished in the meantime.
    let record = existing(request)?;
    check_same(request, record.as_ref(), &revision)?;
    let requested = wanted.unwrap_or(MAIN).to_owned();
    let source = Reference { revision: None, ..reference.clone() }.to_string();
    let mut record = record.unwrap_or_else(|| {
        Record::new(source, settings.endpoint.clone(), requested, revision.clone())
    });
    let n_transferred = collect(&client, &selected.files, &staging, &mut record, request, watch)?;
    record.complete |= request.files.is_empty();
    staging.place(&selected.files, RECORD_FILE, &record.to_json())?;
    Ok(outcome(request, &record, n_transferred, selected.left_out))
}

/// Transfers the files that are missing, and records every file. Returns the number of transferred ones.
fn collect(
    client: &Client,
    files: &[RemoteFile],
    staging: &Staging,
    record: &mut Record,
    request: &Request,
    watch: &mut dyn Watch,
) -> Result<usize> {
    staging.prune(files)?;
    let mut missing = Vec::new();
    for file in files {
        let placed = request.to.join(&file.path);
        let is_placed = std::fs::symlink_metadata(&placed).is_ok();
        let staged = staging.finished(file);
        let path = if is_placed { &placed } else { &staged };
        match sha256_if_equal(path, file)? {
            Some(sha256) => remember(record, file, sha256),
            None if is_placed => return Err(Error::Changed { path: placed }),
            None => {
                if staged.exists() {
                    fsio::remove_file(&staged)?;
                }
                missing.push(file);
            }
        }
    }
    let bytes = missing
        .iter()
        .try_fold(0_u64, |sum, file| sum.checked_add(file.size - staging.bytes_of(file)))
        .ok_or_else(|| Error::BadAnswer {
            address: client.address(&request.reference.id()),
            problem: "the files are larger than any disk".to_owned(),
        })?;
    watch.event(Event::Listed { revision: &record.revision, n_files: missing.len(), bytes });
    check_space(staging, bytes)?;
    for file in &missing {
        let sha256 = transfer(
            client,
            &address(client, request, &record.revision, file),
            file,
            staging,
            watch,
        )?;
        remember(record, file, sha256);
    }
    Ok(missing.len())
}

fn remember(record: &mut Record, file: &RemoteFile, sha256: String) {
    record.files.insert(file.path.clone(), RecordedFile { bytes: file.size, sha256 });
}

/// Address of a file at a commit.
fn address(client: &Client, request: &Request, revision: &str, file: &RemoteFile) -> String {
    let page = page(&request.reference);
    client.address(&format!("{page}/resolve/{revision}/{}", url::path(&file.path)))
}

/// Path of the repository's page under the server.
fn page(reference: &Reference) -> String {
    match reference.kind {
        hub_local::Kind::Model => reference.id(),
        hub_local::Kind::Dataset => format!("datasets/{}", reference.id()),
    }
}

fn client(settings: &Settings, reference: &Reference) -> Result<Client> {
    let shown = Reference { revision: None, ..reference.clone() }.to_string();
    Client::new(settings, shown, &page(reference))
}

/// The record of the directory; `None` if the directory does not exist or is empty.
fn existing(request: &Request) -> Result<Option<Record>> {
    let dir = &request.to;
    let Ok(metadata) = std::fs::metadata(dir) else { return Ok(None) };
    if let Some(record) = read_record(dir)? {
        let wanted = Reference { revision: None, ..request.reference.clone() }.to_string();
        if record.source != wanted {
            return Err(Error::OtherContent { dir: dir.clone(), found: record.source, wanted });
        }
        return Ok(Some(record));
    }
    let is_empty = metadata.is_dir()
        && std::fs::read_dir(dir).is_ok_and(|mut entries| entries.next().is_none());
    if is_empty { Ok(None) } else { Err(Error::NotOurs { dir: dir.clone() }) }
}

fn check_same(request: &Request, record: Option<&Record>, revision: &str) -> Result<()> {
    match record {
        Some(record) if record.revision != revision => Err(Error::OtherContent {
            dir: request.to.clone(),
            found: format!("revision `{}`", record.revision),
            wanted: format!("`{revision}`"),
        }),
        Some(_) | None => Ok(()),
    }
}

/// Whether all recorded files are there. One with another content is an error.
fn is_intact(dir: &Path, record: &Record) -> Result<bool> {
    for (name, file) in &record.files {
        let confined = name.split('/').all(|part| fsio::basename_only(part).is_ok());
        if !confined {
            return Err(Error::BadName { name: name.clone(), problem: "it is in the record" });
        }
        let path = dir.join(name);
        if std::fs::symlink_metadata(&path).is_err() {
            return Ok(false);
        }
        if fsio::sha256_file(&path)? != file.sha256 {
            return Err(Error::Changed { path });
        }
    }
    Ok(true)
}

/// Says if the branch `main` has moved on since the download. A missing network is no error here.
fn note_newer(
    settings: &Settings,
    request: &Request,
    record: &Record,
    watch: &mut dyn Watch,
) -> Result<()> {
    let client = client(settings, &request.reference)?;
    match listing::commit(&client, &request.reference, &record.requested, watch) {
        Ok(newest) if newest != record.revision => watch.event(Event::Note(&format!(
            "`{}` is now at {newest}; to download that revision, name another directory with --to",
            record.requested
        ))),
        Ok(_) => {}
        Err(error) => {
            let text = format!("could not look for a newer revision: {error}");
            watch.event(Event::Note(&text));
        }
    }
    Ok(())
}

/// Refuses a download that the disk has no room for.
fn check_space(staging: &Staging, needed: u64) -> Result<()> {
    let dir = staging.to();
    match fsio::free_space(dir) {
        Some(free) if free < needed => Err(Error::NoSpace { dir: dir.to_path_buf(), needed, free }),
        Some(_) | None => Ok(()),
    }
}

fn outcome(
    request: &Request,
    record: &Record,
    n_transferred: usize,
    left_out: Vec<LeftOut>,
) -> Outcome {
    Outcome {
        dir: request.to.clone(),
        revision: record.revision.clone(),
        n_files: record.files.len(),
        bytes: record.files.values().map(|file| file.bytes).sum(),
        n_transferred,
        left_out,
    }
}
