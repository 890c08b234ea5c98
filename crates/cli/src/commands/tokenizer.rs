//! `temper tokenizer`: text to token ids and back, conversations rendered as text, training.

use std::fs::File;
use std::io::{self, BufRead, BufReader, IsTerminal, Read};
use std::path::Path;

use ::tokenizer::{Tokenizer, default_special_tokens};
use data::SourceSpec;
use hub_local::{Kind, Need};
use serde_json::Value;

use super::{check_json_memory, print, print_as_is};
use crate::args::{DecodeArgs, EncodeArgs, RenderArgs, TokenizerKind, TrainTokenizerArgs};
use crate::failure::{Failure, Result};
use crate::render::table;

/// Output bytes that are collected before they are printed.
const PRINT_BYTES: usize = 1 << 16;
/// Size limit of a line of text or ids.
const LINE_BYTES: usize = super::TEXT_BYTES;
/// Size limit of a file with messages or tools, in bytes.
const MESSAGES_BYTES: u64 = 64 << 20;

/// Encodes each line of the input.
pub(crate) fn encode(args: &EncodeArgs) -> Result<()> {
    let tokenizer = open(&args.tokenizer)?;
    for_each_line(args.file.as_deref(), |line, _| {
        let text = text_of(line);
        let ids = if args.add_special_tokens {
            tokenizer.encode(&text)?
        } else {
            tokenizer.encode_plain(&text)?
        };
        Ok(Value::from(ids).to_string())
    })
}

/// Decodes each line of the input.
pub(crate) fn decode(args: &DecodeArgs) -> Result<()> {
    let tokenizer = open(&args.tokenizer)?;
    for_each_line(args.file.as_deref(), |line, place| {
        let ids: Vec<u32> = serde_json::from_str(line).map_err(|e| {
            Failure::input(
                format!("{place}: not a JSON array of token ids: {e}"),
                "write one array per line, such as [1, 2, 3]",
            )
        })?;
        if let Some(id) = ids.iter().find(|id| tokenizer.token_text(**id).is_none()) {
            let limit = tokenizer.vocab_size();
            return Err(Failure::input(
                format!("{place}: the tokenizer has no token with the id `{id}`"),
                format!("ids are below {limit}; check that the ids are from this tokenizer"),
            ));
        }
        Ok(Value::from(tokenizer.decode(&ids, args.skip_special_tokens)).to_string())
    })
}

/// Renders a conversation with the tokenizer's chat template. The text is printed without a line
/// feed at the end.
pub(crate) fn render(args: &RenderArgs) -> Result<()> {
    let tokenizer = open(&args.tokenizer)?;
    let template = tokenizer.chat_template().ok_or_else(|| {
        Failure::input(
            format!("{}: the tokenizer has no chat template", args.tokenizer.display()),
            "use the directory of a chat model, with a chat_template.jinja or a template in \
             tokenizer_config.json",
        )
    })?;
    let messages = json_list(&args.messages, "messages")?;
    let tools = args.tools.as_deref().map(|path| json_list(path, "tools")).transpose()?;
    let text =
        tokenizer.render_chat_json(&messages, tools.as_ref(), template, args.generation_prompt)?;
    // A program gets the text as it is.
    if std::io::stdout().is_terminal() { print(&text) } else { print_as_is(&text) }
}

/// Trains a tokenizer on the documents of files and saves it in a new directory.
pub(crate) fn train(args: &TrainTokenizerArgs) -> Result<()> {
    if args.to.exists() {
        return Err(Failure::input(
            format!("`{}` already exists", args.to.display()),
            "choose a new directory; nothing is overwritten",
        ));
    }
    let specials = match args.special_token.as_slice() {
        [] => default_special_tokens(),
        named => named.to_vec(),
    };
    let sources = args
        .files
        .iter()
        .map(|path| {
            let path = ::plan::local_copy(path, Need::Data)?;
            Ok(SourceSpec { files: data::expand(&path, None, None)?, ..SourceSpec::file(path) })
        })
        .collect::<Result<Vec<_>>>()?;
    let documents = recipe::SampleKind::Documents;
    let tokenizer = match (args.kind, args.vocab_size) {
        (TokenizerKind::ByteBpe, vocab_size) => {
            let vocab_size = vocab_size.unwrap_or_default();
            ::plan::train_tokenizer(&sources, documents, |texts| {
                Tokenizer::train_byte_bpe(texts, vocab_size, &specials)
            })?
        }
        (TokenizerKind::Char, None) => ::plan::train_tokenizer(&sources, documents, |texts| {
            Tokenizer::train_char(texts, &specials)
        })?,
        (TokenizerKind::Char, Some(_)) => {
            return Err(Failure::input(
                "--vocab-size does not apply to --kind char, which has a token per character",
                "remove --vocab-size",
            ));
        }
    };
    let mut out = fsio::DirWriter::begin(&args.to)?;
    for (name, bytes) in tokenizer.files()? {
        out.write(&name, bytes)?;
    }
    out.commit(Value::Null)?;
    let n_tokens = table::thousands(tokenizer.vocab_size() as u64);
    print(&format!("{}: {n_tokens} tokens\n", args.to.display()))
}

/// The tokenizer of a directory, file or stage.
fn open(path: &Path) -> Result<Tokenizer> {
    let path = &::plan::local_copy(path, Need::Tokenizer)?;
    let is_tokenizer = path.is_file() || path.join("tokenizer.json").is_file();
    if is_tokenizer {
        return Ok(Tokenizer::from_dir_or_file(path)?);
    }
    if !path.exists()
        && let Some(hint) = hub_local::get_hint(Kind::Model, path)
    {
        return Err(Failure::input(format!("no tokenizer at `{}`", path.display()), hint));
    }
    // A stage keeps its tokenizer with the model. Without a model, the error is that of a tokenizer.
    let dir = ::plan::locate_argument(path).unwrap_or_else(|_| path.to_owned());
    Ok(Tokenizer::from_dir_or_file(dir)?)
}

/// A line that is a JSON string is that string; any other line is a text itself.
fn text_of(line: &str) -> String {
    if line.starts_with('"')
        && let Ok(text) = serde_json::from_str(line)
    {
        return text;
    }
    line.to_owned()
}

/// Reads a JSON file that contains a list.
fn json_list(path: &Path, what: &str) -> Result<Value> {
    let text = fsio::read_text_capped(path, MESSAGES_BYTES)?;
    let hint = || format!("write a JSON list of {what}: [{{...}}, ...]");
    check_json_memory(&text, &path.display().to_string())?;
    match serde_json::from_str(&text) {
        Ok(list @ Value::Array(_)) => Ok(list),
        Ok(_) => Err(Failure::input(format!("{}: not a list", path.display()), hint())),
        Err(e) => Err(Failure::input(format!("{}: not valid JSON: {e}", path.display()), hint())),
    }
}

/// Prints the result of `convert` for each line of a file or of stdin; its second argument is the
/// line's location for errors.
fn for_each_line(
    file: Option<&Path>,
    mut convert: impl FnMut(&str, &str) -> Result<String>,
) -> Result<()> {
    let name = file.map_or_else(|| "stdin".to_owned(), |path| path.display().to_string());
    let unreadable = |e: &io::Error, place: &str| {
        Failure::input(
            format!("{place}: cannot read: {e}"),
            "the input must be a file of UTF-8 text",
        )
    };
    let mut input: Box<dyn BufRead> = match file {
        Some(path) => {
            Box::new(BufReader::new(File::open(path).map_err(|e| unreadable(&e, &name))?))
        }
        None => Box::new(io::stdin().lock()),
    };
    let mut out = String::new();
    for number in 1.. {
        let place = format!("{name}:{number}");
        let Some(line) = next_line(&mut input, LINE_BYTES).map_err(|e| unreadable(&e, &place))?
        else {
            break;
        };
        if line.len() > LINE_BYTES {
            return Err(Failure::input(
                format!("{place}: a line of more than {LINE_BYTES} bytes"),
                "split the text into shorter lines",
            ));
        }
        out += &convert(&line, &place)?;
        out.push('\n');
        if out.len() >= PRINT_BYTES {
            print(&out)?;
            out.clear();
        }
    }
    print(&out)
}

/// The next line without its line break; one of more than `limit` bytes is cut after as many and one more.
fn next_line(input: &mut dyn BufRead, limit: usize) -> io::Result<Option<String>> {
    let mut bytes = Vec::new();
    // Room for "\r\n".
    input.take(limit as u64 + 2).read_until(b'\n', &mut bytes)?;
    if bytes.is_empty() {
        return Ok(None);
    }
    if bytes.pop_if(|byte| *byte == b'\n').is_some() {
        bytes.pop_if(|byte| *byte == b'\r');
    }
    if bytes.len() > limit {
        // The cut may be within a character; only the length of such a line matters.
        return Ok(Some(String::from_utf8_lossy(&bytes).into_owned()));
    }
    String::from_utf8(bytes).map(Some).map_err(|_| {
        io::Error::new(io::ErrorKind::InvalidData, "stream did not contain valid UTF-8")
    })
}
