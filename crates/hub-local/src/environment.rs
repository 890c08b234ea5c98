//! Environment variables, expanded as huggingface_hub does, and the home directory of its files.

use std::path::PathBuf;

/// Access to environment variables.
#[derive(Clone, Copy)]
pub struct Environment<'a> {
    variable: &'a dyn Fn(&str) -> Option<String>,
}

impl std::fmt::Debug for Environment<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Environment")
    }
}

/// The variables of this process. One that is not valid UTF-8 counts as not set.
fn of_process(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

impl Environment<'static> {
    /// Variables of this process.
    pub fn of_process() -> Self {
        Self { variable: &of_process }
    }
}

impl<'a> Environment<'a> {
    /// Variables that a function returns.
    pub fn new(variable: &'a dyn Fn(&str) -> Option<String>) -> Self {
        Self { variable }
    }

    /// Value of a variable; `None` if it is not set.
    pub fn get(&self, name: &str) -> Option<String> {
        (self.variable)(name)
    }

    /// Whether a variable is set to `1`, `ON`, `YES` or `TRUE`, in any case.
    pub fn is_true(&self, name: &str) -> bool {
        let value = self.get(name).unwrap_or_default().to_ascii_uppercase();
        ["1", "ON", "YES", "TRUE"].contains(&value.as_str())
    }

    /// Path in a variable, expanded by [`expand`]; `None` if it is not set.
    pub fn path(&self, name: &str) -> Option<PathBuf> {
        self.get(name).map(|text| PathBuf::from(expand(&text, self)))
    }

    /// Home of huggingface_hub's files: `HF_HOME`, or `huggingface` in `XDG_CACHE_HOME` or `~/.cache`.
    pub fn hf_home(&self) -> PathBuf {
        self.path("HF_HOME").unwrap_or_else(|| {
            let parent = self.get("XDG_CACHE_HOME").unwrap_or_else(|| "~/.cache".to_owned());
            PathBuf::from(expand(&parent, self)).join("huggingface")
        })
    }
}

/// Replaces a leading `~` with `HOME`, then `$NAME` and `${NAME}` with variables. A variable that is not set is left as it
/// is written, as Python's `os.path.expandvars` leaves it.
pub fn expand(text: &str, environment: &Environment<'_>) -> String {
    let text = match (text.strip_prefix('~'), environment.get("HOME")) {
        (Some(rest), Some(home)) if rest.is_empty() || rest.starts_with('/') => {
            format!("{}{rest}", home.trim_end_matches('/'))
        }
        _ => text.to_owned(),
    };
    let mut out = String::with_capacity(text.len());
    let mut rest = text.as_str();
    while let Some(at) = rest.find('$') {
        let (before, from) = rest.split_at(at);
        out += before;
        let (length, name) = variable_at(from);
        match name.and_then(|name| environment.get(name)) {
            Some(value) => out += &value,
            None => out += from.get(..length).unwrap_or(from),
        }
        rest = from.get(length..).unwrap_or_default();
    }
    out + rest
}

/// Length of the variable at the start of a text that begins with `$`, and its name.
fn variable_at(text: &str) -> (usize, Option<&str>) {
    let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let after = text.get(1..).unwrap_or_default();
    if let Some(inside) = after.strip_prefix('{') {
        return match inside.split_once('}') {
            Some((name, _)) => (name.len() + 3, Some(name)),
            None => (1, None),
        };
    }
    let name = after.split(|c| !is_name(c)).next().unwrap_or_default();
    if name.is_empty() { (1, None) } else { (name.len() + 1, Some(name)) }
}
