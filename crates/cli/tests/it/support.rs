//! Runs the binary in a temporary directory.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// The repository.
pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// An empty directory to run in.
pub(crate) struct Place {
    dir: tempfile::TempDir,
}

/// Outcome of a command.
pub(crate) struct Outcome {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Place {
    pub(crate) fn new() -> Self {
        Self { dir: tempfile::tempdir().expect("a temporary folder") }
    }

    pub(crate) fn path(&self) -> &Path {
        self.dir.path()
    }

    pub(crate) fn write(&self, name: &str, bytes: impl AsRef<[u8]>) -> &Self {
        let path = self.path().join(name);
        let parent = path.parent().expect("a parent");
        fsio::create_dir_all(parent).expect("a folder");
        fsio::write_atomic(&path, bytes).expect("a file");
        self
    }

    pub(crate) fn temper(&self, args: &[&str]) -> Outcome {
        self.temper_with_input(args, "")
    }

    /// Runs the binary with a text on stdin.
    pub(crate) fn temper_with_input(&self, args: &[&str], input: &str) -> Outcome {
        run(self.command(args), input)
    }

    /// Runs the binary with an environment variable.
    pub(crate) fn temper_with_variable(&self, args: &[&str], name: &str, value: &str) -> Outcome {
        let mut command = self.command(args);
        command.env(name, value);
        run(command, "")
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_temper"));
        command.args(args).current_dir(self.path()).env_remove("TEMPER_DATA");
        command
    }

    /// The exit code and the text of stderr without progress lines, for a snapshot.
    pub(crate) fn error(&self, args: &[&str]) -> String {
        let outcome = self.temper(args);
        let from = outcome.stderr.find("error:").unwrap_or(0);
        let message = outcome.stderr[from..].trim_end();
        let code = outcome.code.map_or_else(|| "none".to_owned(), |code| code.to_string());
        format!("exit {code}\n{message}").replace(&self.path().display().to_string(), "DIR")
    }
}

/// Runs a command with a text on stdin.
fn run(mut command: Command, input: &str) -> Outcome {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the binary runs");
    let mut stdin = child.stdin.take().expect("a pipe");
    // A command that reads no input may have ended already.
    let _ = stdin.write_all(input.as_bytes());
    drop(stdin);
    let output = child.wait_with_output().expect("the binary ends");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("UTF-8");
    Outcome { code: output.status.code(), stdout: text(output.stdout), stderr: text(output.stderr) }
}

/// A recipe for a tiny model on the file `text.txt`; `extra` is appended.
pub(crate) fn tiny_recipe(data: &str, extra: &str) -> String {
    format!(
        "[tokenizer]\ntrain = {{ kind = \"byte-bpe\", vocab_size = 300 }}\n\n\
         [model]\nfamily = \"llama\"\nhidden_size = 16\nnum_hidden_layers = 1\n\
         num_attention_heads = 2\nintermediate_size = 32\nmax_position_embeddings = 32\n\n\
         [pretrain]\ndata = [{data}]\nsequence_length = 32\ntokens_per_step = 64\nmax_steps = 3\n\
         optimizer = {{ lr = 1e-3 }}\n{extra}"
    )
}

/// A line of text for tiny models.
pub(crate) const TEXT: &str = "The quick brown fox jumps over the lazy dog, again and again.\n";

/// A directory with a text and the finished run of a recipe that trains on it, `runs/tiny`.
pub(crate) fn trained() -> Place {
    let place = Place::new();
    place
        .write("text.txt", TEXT.repeat(40))
        .write("tiny.toml", tiny_recipe("{ path = \"text.txt\" }", ""));
    let outcome = place.temper(&["run", "tiny.toml"]);
    assert_eq!(outcome.code, Some(0), "{}", outcome.stderr);
    assert!(outcome.stdout.contains("runs/tiny/pretrain"), "{}", outcome.stdout);
    place
}

/// The number in an environment variable, or else `default`.
pub(crate) fn number_from(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

/// Prints a line: a seed, or a part that is skipped.
pub(crate) fn say(text: &str) {
    // A closed stdout is no failure of a test.
    let _ = writeln!(std::io::stdout(), "{text}");
}
