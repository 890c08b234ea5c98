//! Arguments of `temper serve`.

use std::path::{Path, PathBuf};

use clap::Args;

use crate::evaluation_args::count;

/// `temper serve`
#[derive(Debug, Args)]
#[command(after_help = "Example: temper serve runs/x/sft small=hf:OWNER/MODEL --port 8000")]
pub(crate) struct ServeArgs {
    /// Model, or NAME=MODEL: a stage of a run (runs/x/sft), checkpoint, Hugging Face directory, hf:OWNER/MODEL, or GGUF file.
    /// The name is used in requests [default: RUN/STAGE, or the name of the directory]
    #[arg(required = true, value_name = "[NAME=]MODEL")]
    pub(crate) models: Vec<NamedPath>,
    /// Address or host name to listen on; one that other machines can reach needs --key-file
    #[arg(long, default_value = "127.0.0.1")]
    pub(crate) host: String,
    /// Port; 0 for any free one
    #[arg(long, default_value_t = 8080)]
    pub(crate) port: u16,
    /// Maximum number of tokens per completion, also where a request names none
    #[arg(long, value_name = "N", default_value_t = 1024, value_parser = count())]
    pub(crate) max_tokens: usize,
    /// Requests answered at the same time; further ones are refused
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = count())]
    pub(crate) max_clients: usize,
    /// File with the key that requests must send as `Authorization: Bearer KEY`
    #[arg(long, value_name = "FILE")]
    pub(crate) key_file: Option<PathBuf>,
    /// Base model of those MODELs that are adapters; without it, the one that each records
    #[arg(long, value_name = "DIR")]
    pub(crate) base: Option<PathBuf>,
    /// Type of weights and matrix products: f32, or bf16, which halves memory
    #[arg(long, value_name = "DTYPE", default_value = "f32")]
    pub(crate) dtype: String,
    /// Device: cpu, cuda, cuda:N, wgpu or wgpu:N
    #[arg(long, default_value = "cpu")]
    pub(crate) device: String,
}

/// A model with its name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct NamedPath {
    pub(crate) name: String,
    pub(crate) path: PathBuf,
}

impl std::str::FromStr for NamedPath {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, path) = match text.split_once('=') {
            // A file's name may have the sign, too.
            Some((name, path)) if !Path::new(text).exists() => (Some(name), path),
            Some(_) | None => (None, text),
        };
        let path = PathBuf::from(path);
        let name = name.map_or_else(|| default_name(&path), str::to_owned);
        if name.is_empty() || name.chars().any(char::is_control) {
            return Err("the model has no name: give one, as in NAME=MODEL".to_owned());
        }
        Ok(Self { name, path })
    }
}

/// `RUN/STAGE` for a stage of a run, `OWNER/MODEL` for one of the hub, and else the name of the file or directory.
fn default_name(path: &Path) -> String {
    if let Some(reference) = path.to_str().and_then(|path| path.strip_prefix("hf:")) {
        return reference.to_owned();
    }
    let parts: Vec<&str> = path.iter().filter_map(|part| part.to_str()).collect();
    let runs = parts.iter().rposition(|part| *part == plan::RUNS_DIR);
    if let Some([run, stage, ..]) = runs.and_then(|at| parts.get(at + 1..)) {
        return format!("{run}/{stage}");
    }
    let is_gguf = path.extension().is_some_and(|extension| extension == "gguf");
    let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let name = if is_gguf { absolute.file_stem() } else { absolute.file_name() };
    name.map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::NamedPath;

    #[test]
    fn names_of_models() {
        for (text, name, path) in [
            ("runs/x/sft", "x/sft", "runs/x/sft"),
            ("/a/runs/x/sft/model", "x/sft", "/a/runs/x/sft/model"),
            ("small=runs/x/sft", "small", "runs/x/sft"),
            ("models/tiny/", "tiny", "models/tiny/"),
            ("models/tiny-q8_0.gguf", "tiny-q8_0", "models/tiny-q8_0.gguf"),
            ("hf:owner/name", "owner/name", "hf:owner/name"),
            ("a=hf:owner/name", "a", "hf:owner/name"),
        ] {
            let model: NamedPath = text.parse().expect(text);
            assert_eq!((model.name.as_str(), model.path.to_str()), (name, Some(path)), "{text}");
        }
        assert!("=runs/x/sft".parse::<NamedPath>().is_err());
    }
}
