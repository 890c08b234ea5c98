//! The file of `--out`: parts of it in a directory beside it until all are there, so that an interrupted command continues.

use std::ffi::OsString;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use recipe::Template;
use serde_json::{Value, json};
use tokenizer::Tokenizer;

use super::prompts::Prompt;
use crate::args::GenerateArgs;
use crate::failure::{Failure, Result};

/// File with the key of the command, in the directory of parts.
const KEY_FILE: &str = "key";
/// Maximum size of a part.
const PART_BYTES: u64 = 1 << 30;

/// Refuses to overwrite a file.
///
/// Parts beside a complete file are those of a command that was killed after it had written the file: they are removed.
pub(super) fn refuse_existing(out: &Path) -> Result<()> {
    if std::fs::symlink_metadata(out).is_ok() {
        if parts_of(out).join(KEY_FILE).is_file() {
            fsio::remove_dir_all(parts_of(out))?;
        }
        return Err(Failure::input(
            format!("already exists: `{}`", out.display()),
            "choose another file for --out, or remove this one",
        ));
    }
    if out.file_name().is_none() {
        return Err(Failure::input(
            format!("not a file name: `{}`", out.display()),
            "as in --out answers.jsonl",
        ));
    }
    Ok(())
}

/// A hash of everything that the output depends on.
pub(super) fn key(
    args: &GenerateArgs,
    template: Option<&Template>,
    tokenizer: &Tokenizer,
    prompts: &[Prompt],
) -> Result<String> {
    let hashes =
        |path: &Path| -> Result<Value> { Ok(train::weight_hashes(&plan::locate_argument(path)?)?) };
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
}

impl Parts {
    /// The parts that earlier commands with the same key have saved.
    pub(super) fn open(out: &Path, key: &str) -> Result<Self> {
        let dir = parts_of(out);
        let key_file = dir.join(KEY_FILE);
        match fsio::read_optional_text(&key_file, 1 << 10)? {
            Some(found) if found == key => {}
            Some(_) => {
                return Err(Failure::input(
                    format!("`{}` was begun with another model, prompts or options", dir.display()),
                    "repeat the command that began it, or remove that directory to start again",
                ));
            }
            None => {
                fsio::create_dir_all(&dir)?;
                fsio::write_atomic(&key_file, key)?;
            }
        }
        Ok(Self { out: out.to_owned(), dir })
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
        Ok(fsio::remove_dir_all(&self.dir)?)
    }
}

/// The directory of the parts of a file.
fn parts_of(out: &Path) -> PathBuf {
    let mut name: OsString = out.as_os_str().to_owned();
    name.push(".parts");
    PathBuf::from(name)
}
