//! The `command` reward: a program that reads a completion as a line of JSON and writes its reward as another.
//!
//! ```text
//! {"prompt": "…", "completion": "…", "answer": "…"}   →   {"reward": 0.5, "why": "…"}
//! ```

use std::path::{Path, PathBuf};
use std::time::Duration;

use fsio::{Program, ProgramFailure, ProgramLimits};
use recipe::CommandKeys;
use serde_json::{Value, json};

use crate::{Error, Part, Result};

/// A completion as a judge or a program reads it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct GradedText {
    /// The user's words.
    pub prompt: String,
    /// The completion without its end token.
    pub completion: String,
    /// The text of the prompt's row, if the reward has one.
    pub answer: Option<String>,
}

/// Values that a program computed.
#[derive(Clone, Debug, PartialEq)]
pub struct CommandValues {
    /// One for each completion.
    pub parts: Vec<Part>,
    /// Number of completions at which the program failed. They have no value.
    pub n_failed: usize,
}

/// Asks a program for the rewards of completions; it runs in the directory `dir`.
///
/// A completion at which the program ends, exceeds a limit or answers nonsense has no value, and the program is started again
/// for the next one: one bad completion does not end a run.
///
/// Errors: the program cannot be started, fails at every completion, or writes more lines than it is sent.
pub fn run_command(
    keys: &CommandKeys,
    dir: &Path,
    completions: &[&GradedText],
) -> Result<CommandValues> {
    let limits = ProgramLimits {
        timeout: Duration::from_secs_f64(keys.timeout_s),
        line_bytes: keys.max_output_bytes,
        memory_bytes: keys.max_memory_mb.saturating_mul(1 << 20),
        processes: keys.max_processes,
    };
    let named = |reason: String| Error::Command { argv: keys.argv.join(" "), reason };
    let mut running: Option<Program> = None;
    let mut parts = Vec::with_capacity(completions.len());
    let mut n_failed = 0;
    for completion in completions {
        let mut program = match running.take() {
            Some(program) => program,
            None => Program::start(&keys.argv, dir, limits)
                .map_err(|failure| named(failure.to_string()))?,
        };
        let GradedText { prompt, completion, answer } = completion;
        let line = json!({ "prompt": prompt, "completion": completion, "answer": answer });
        let part = match program.ask(&line.to_string()) {
            Ok(answer) => {
                running = Some(program);
                part(&answer)
            }
            // Earlier answers may be another completion's too.
            Err(failure @ ProgramFailure::Unasked) => return Err(named(failure.to_string())),
            Err(failure) => Err(format!("the program {failure}")),
        };
        parts.push(part.unwrap_or_else(|why| {
            n_failed += 1;
            Part { value: None, why }
        }));
    }
    if running.is_some_and(|mut program| !program.is_quiet()) {
        return Err(named(ProgramFailure::Unasked.to_string()));
    }
    match parts.first() {
        Some(first) if n_failed == parts.len() => Err(named(first.why.clone())),
        _ => Ok(CommandValues { parts, n_failed }),
    }
}

/// The value in a line of the program.
fn part(line: &str) -> std::result::Result<Part, String> {
    let wrong = || {
        let short: String = line.chars().take(60).collect();
        format!("the program wrote `{short}` and not {{\"reward\": NUMBER}}")
    };
    let Ok((Value::Object(mut keys), _)) = fsio::strict_json(line.as_bytes()) else {
        return Err(wrong());
    };
    let value = match keys.remove("reward") {
        Some(Value::Null) => None,
        Some(Value::Number(number)) => {
            let value = number.as_f64().ok_or_else(wrong)?;
            // Scores are 32-bit numbers.
            if !(value as f32).is_finite() {
                return Err(format!(
                    "the program wrote the reward {value:e}, which is out of range"
                ));
            }
            Some(value)
        }
        _ => return Err(wrong()),
    };
    let why = match (keys.remove("why"), value) {
        (Some(Value::String(why)), _) => why,
        (Some(_), _) => return Err(wrong()),
        (None, Some(_)) => "computed by the program".to_owned(),
        (None, None) => "the program gave no value".to_owned(),
    };
    match keys.keys().next() {
        None => Ok(Part { value, why }),
        Some(_) => Err(wrong()),
    }
}

/// The files of a command by the names in `argv`: the program, and arguments that name a file in the directory `dir`.
///
/// Errors: no such program.
pub fn command_files(argv: &[String], dir: &Path) -> Result<Vec<(String, PathBuf)>> {
    let (program, arguments) = argv
        .split_first()
        .map_or((None, &[][..]), |(program, rest)| (Some(program.as_str()), rest));
    let named = |reason: &str| Error::Command { argv: argv.join(" "), reason: reason.to_owned() };
    let name = program.ok_or_else(|| named("no program is named"))?;
    let found = if name.contains('/') {
        Some(dir.join(name)).filter(|path| path.is_file())
    } else {
        let path = std::env::var_os("PATH").unwrap_or_default();
        std::env::split_paths(&path).map(|dir| dir.join(name)).find(|path| path.is_file())
    };
    let found = found.ok_or_else(|| named("there is no such program"))?;
    let mut files = vec![(name.to_owned(), found)];
    let file =
        |name: &String| Some((name.clone(), dir.join(name))).filter(|(_, path)| path.is_file());
    files.extend(arguments.iter().filter_map(file));
    Ok(files)
}
