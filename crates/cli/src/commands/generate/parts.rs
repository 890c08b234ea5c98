//! The file of `--out`: parts of it in a directory beside it until all are there, so that an interrupted command continues.

use std::ffi::OsString;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use fsio::DirLock;
use recipe::Template;
use serde_json::{Value, json};
use tokenizer::Tokenizer;

use super::prompts::Prompt;
use crate::args::GenerateArgs;
use crate::failure::{Failure, Result};

/// File with the key of the command, in the directory of parts.
const KEY_FILE: &str = "key";
/// Longest name of the file: most file systems allow 255 bytes, and the directory of parts has a longer name.
const NAME_BYTES: usize = 255 - ".parts".len();
/// Maximum size of a part.
const PART_BYTES: u64 = 1 << 30;

/// Refuses to overwrite a file, or to write one that another command is writing.
///
/// Parts beside a complete file are those of a command that was killed after it had written the file: they are removed.
pub(super) fn refuse_existing(out: &Path) -> Result<()> {
    let parts = parts_of(out);
    let lock = if found_key(&parts)?.is_some() { Some(lock(&parts)?) } else { None };
    if std::fs::symlink_metadata(out).is_ok() {
        if lock.is_some() {
            remove_parts(&parts)?;
        }
        return Err(exists(out));
    }
    let Some(name) = out.file_name() else {
        return Err(Failure::input(
            format!("not a file name: `{}`", out.display()),
            "as in --out answers.jsonl",
        ));
    };
    if name.len() > NAME_BYTES {
        let message = format!("a name of more than {NAME_BYTES} bytes: `{}`", out.display());
        let hint = "choose a shorter one for --out: parts are kept in a directory of this name and `.parts`";
        return Err(Failure::input(message, hint));
    }
    Ok(())
}

fn exists(out: &Path) -> Failure {
    Failure::input(
        format!("already exists: `{}`", out.display()),
        "choose another file for --out, or remove this one",
    )
}

/// A hash of everything that the output depends on.
pub(super) fn key(
    args: &GenerateArgs,
    template: Option<&Template>,
    tokenizer: &Tokenizer,
    prompts: &[Prompt],
) -> Result<String> {
    let hashes = |path: &Path| -> Result<Value> {
        Ok(json!(train::model_hashes(&plan::locate_argument(path)?)?))
    };
    let mut of_prompts = fsio::Sha256::new();
    for prompt in prompts {
        let row = json!([prompt.shown, prompt.ids, prompt.row]);
        of_prompts.update(format!("{row}\n"));
    }
    let inputs = json!({
        "version": env!("CARGO_PKG_VERSION"),
        "model": hashes(&args.model)?,
        "base": args.base.as_deref().map(hashes).transpose()?,
        "reward": args.reward.as_deref().map(hashes).transpose()?,
        "tokenizer": tokenizer.hash()?,
        "prompts": of_prompts.finish_hex(),
        "template": template.map(Template::as_str),
        "column": args.completion_column(),
        "pairs": args.pairs,
        "sampling": [
            json!(args.dtype), json!(args.n), json!(args.max_new_tokens), json!(args.temperature), json!(args.top_k),
            json!(args.top_p), json!(args.min_p), json!(args.repetition_penalty), json!(args.greedy), json!(args.stop),
            json!(args.seed),
        ],
    });
    Ok(fsio::sha256_hex(inputs.to_string().as_bytes()))
}

/// The parts of a file. The first line of each is the hash of the others, so that damage is found before they are joined.
#[derive(Debug)]
pub(super) struct Parts {
    out: PathBuf,
    dir: PathBuf,
    /// No other command writes parts while this one does.
    _lock: DirLock,
}

impl Parts {
    /// The parts that earlier commands with the same key have saved.
    pub(super) fn open(out: &Path, key: &str) -> Result<Self> {
        let dir = parts_of(out);
        if found_key(&dir)?.is_none() {
            refuse_foreign(&dir)?;
            fsio::create_dir_all(&dir)?;
        }
        let lock = lock(&dir)?;
        // Another command may have finished since the first look.
        if fsio::is_present(out) {
            fsio::remove_empty_dir(&dir)?;
            return Err(exists(out));
        }
        match found_key(&dir)? {
            Some(found) if found == key => {}
            Some(_) => {
                return Err(Failure::input(
                    format!("`{}` was begun with another model, prompts or options", dir.display()),
                    "repeat the command that began it, or remove that directory to start again",
                ));
            }
            None => fsio::write_atomic(dir.join(KEY_FILE), key)?,
        }
        Ok(Self { out: out.to_owned(), dir, _lock: lock })
    }

    fn path(&self, number: usize) -> PathBuf {
        self.dir.join(format!("{number:06}.jsonl"))
    }

    /// Whether a part is saved.
    pub(super) fn has(&self, number: usize) -> bool {
        self.path(number).is_file()
    }

    /// Saves the lines of a part.
    pub(super) fn save(&mut self, number: usize, lines: &str) -> Result<()> {
        let hash = fsio::sha256_hex(lines.as_bytes());
        Ok(fsio::write_atomic(self.path(number), format!("{hash}\n{lines}"))?)
    }

    /// Joins all parts to the file, which appears complete, and removes them.
    pub(super) fn join(self, n_parts: usize) -> Result<()> {
        let mut file = fsio::AtomicFile::begin(&self.out)?;
        for number in 0..n_parts {
            let path = self.path(number);
            let text = fsio::read_text_capped(&path, PART_BYTES)?;
            let (hash, lines) = text.split_once('\n').unwrap_or_default();
            if fsio::sha256_hex(lines.as_bytes()) != hash {
                return Err(Failure::input(
                    format!("{}: checksum differs: the part is damaged", path.display()),
                    "remove it and repeat the command: its prompts are answered again",
                ));
            }
            file.write_all(lines.as_bytes())
                .map_err(|error| fsio::Error::of_writer(error, &self.out))?;
        }
        file.commit()?;
        remove_parts(&self.dir)
    }
}

/// The lock of a directory of parts, which a command holds while it writes them.
fn lock(dir: &Path) -> Result<DirLock> {
    DirLock::acquire(dir)?.ok_or_else(|| {
        Failure::input(
            format!("another command is writing `{}`", dir.display()),
            "wait until it ends, or choose another file for --out",
        )
    })
}

/// The key of a directory of parts; none if it is missing or has no key of this program.
fn found_key(dir: &Path) -> Result<Option<String>> {
    if !is_own_dir(dir) {
        return Ok(None);
    }
    let found = fsio::read_optional_text(dir.join(KEY_FILE), 1 << 10)?;
    let is_hash = |text: &String| text.len() == 64 && text.chars().all(|c| c.is_ascii_hexdigit());
    Ok(found.filter(is_hash))
}

/// Whether a path is a directory and no link to one.
fn is_own_dir(dir: &Path) -> bool {
    std::fs::symlink_metadata(dir).is_ok_and(|found| found.is_dir())
}

/// Refuses a directory that this program did not make: one without a key that has other entries than parts.
fn refuse_foreign(dir: &Path) -> Result<()> {
    if std::fs::symlink_metadata(dir).is_err() {
        return Ok(());
    }
    let mut entries = std::fs::read_dir(dir).into_iter().flatten();
    let is_foreign = |entry: std::io::Result<std::fs::DirEntry>| {
        entry.is_ok_and(|entry| !is_own_name(&entry.file_name().to_string_lossy()))
    };
    if is_own_dir(dir) && !entries.any(is_foreign) {
        return Ok(());
    }
    Err(Failure::input(
        format!("`{}` exists and has other files than parts of an answer file", dir.display()),
        "remove it, or choose another file for --out: parts are saved there until the file is complete",
    ))
}

/// Whether a name is that of a part, or of a file that a killed process left.
fn is_own_name(name: &str) -> bool {
    let is_number = |number: &str| number.len() >= 6 && number.chars().all(|c| c.is_ascii_digit());
    name.strip_suffix(".jsonl").is_some_and(is_number) || fsio::is_stale_tmp(name)
}

/// Removes the parts and their key; what else is in the directory is left, with the directory.
fn remove_parts(dir: &Path) -> Result<()> {
    let entries = std::fs::read_dir(dir).into_iter().flatten().filter_map(std::result::Result::ok);
    for path in entries.map(|entry| entry.path()) {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        // The key is removed last: without it, the parts are nobody's.
        if path.is_file() && is_own_name(name) {
            fsio::remove_file(&path)?;
        }
    }
    fsio::remove_file(dir.join(KEY_FILE))?;
    fsio::remove_empty_dir(dir)?;
    Ok(())
}

/// The directory of the parts of a file.
fn parts_of(out: &Path) -> PathBuf {
    let mut name: OsString = out.as_os_str().to_owned();
    name.push(".parts");
    PathBuf::from(name)
}
