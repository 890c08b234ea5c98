//! Instructions that a program can check (Zhou et al. 2023, "Instruction-Following Evaluation for Large Language Models",
//! IFEval), by the rules of lm-evaluation-harness's checker. The language of an answer is not checked.

mod checks;
mod sentences;
mod words;

use serde_json::{Map, Value, json};

use checks::Check;

/// Column with the names of a row's instructions.
const NAMES: &str = "instruction_id_list";
/// Column with the arguments of each instruction.
const ARGUMENTS: &str = "kwargs";

/// Instructions of a prompt.
#[derive(Clone, Debug, PartialEq)]
pub struct Instructions(Vec<Instruction>);

#[derive(Clone, Debug, PartialEq)]
struct Instruction {
    name: String,
    /// `None` for an instruction about the language of the answer.
    check: Option<Check>,
}

/// Whether an answer follows an instruction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Followed {
    /// As it is.
    pub(crate) strict: bool,
    /// As it is, or without its first or last line or asterisks.
    pub(crate) loose: bool,
}

impl Instructions {
    /// Instructions of a row; the error is a sentence.
    pub(crate) fn of_row(row: &Map<String, Value>) -> Result<Self, String> {
        let list = |key: &str| match row.get(key) {
            Some(Value::Array(list)) => Ok(list),
            Some(_) => Err(format!("`{key}` is not a list")),
            None => Err(format!("no column `{key}`, which an instruction_following task needs")),
        };
        let (names, arguments) = (list(NAMES)?, list(ARGUMENTS)?);
        if names.len() != arguments.len() {
            return Err(format!(
                "{} instructions in `{NAMES}`, but {} in `{ARGUMENTS}`",
                names.len(),
                arguments.len()
            ));
        }
        if names.is_empty() {
            return Err(format!("`{NAMES}` is empty"));
        }
        let of = |(name, arguments): (&Value, &Value)| {
            let name = name.as_str().ok_or_else(|| format!("`{NAMES}` is not a list of names"))?;
            let check =
                Check::new(name, arguments).map_err(|reason| format!("`{name}`: {reason}"))?;
            Ok(Instruction { name: name.to_owned(), check })
        };
        names.iter().zip(arguments).map(of).collect::<Result<_, String>>().map(Self)
    }

    /// Names of the instructions that are not checked.
    pub fn unchecked(&self) -> impl Iterator<Item = &str> {
        let unchecked = self.0.iter().filter(|instruction| instruction.check.is_none());
        unchecked.map(|instruction| instruction.name.as_str())
    }

    /// Names of all instructions.
    pub(crate) fn names(&self) -> Vec<&str> {
        self.0.iter().map(|instruction| instruction.name.as_str()).collect()
    }

    /// Whether an answer follows each instruction; `None` for those that are not checked.
    pub(crate) fn followed(&self, answer: &str) -> Vec<Option<Followed>> {
        let forms = loose_forms(answer);
        let of = |check: &Check| {
            let checker = check.checker();
            let follows = |text: &str| !crate::python_text::trim(text).is_empty() && checker(text);
            let strict = follows(answer);
            Followed { strict, loose: strict || forms.iter().any(|form| follows(form)) }
        };
        self.0.iter().map(|instruction| instruction.check.as_ref().map(of)).collect()
    }

    /// Names of the instructions with `strict` and `loose`, which are null where an instruction is not checked.
    pub(crate) fn describe(&self, answer: &str) -> Value {
        let of = |(instruction, followed): (&Instruction, Option<Followed>)| {
            json!({
                "instruction": instruction.name,
                "strict": followed.map(|followed| followed.strict),
                "loose": followed.map(|followed| followed.loose),
            })
        };
        self.0.iter().zip(self.followed(answer)).map(of).collect()
    }
}

/// An answer without asterisks, and without its first line, its last one or both, each also without asterisks.
fn loose_forms(answer: &str) -> Vec<String> {
    let lines: Vec<&str> = answer.split('\n').collect();
    let joined = |lines: &[&str]| crate::python_text::trim(&lines.join("\n")).to_owned();
    let n = lines.len();
    let mut forms = vec![answer.to_owned(), joined(&lines[1..]), joined(&lines[..n - 1])];
    forms.push(joined(lines.get(1..n - 1).unwrap_or_default()));
    let plain: Vec<String> = forms.iter().map(|form| form.replace('*', "")).collect();
    forms.into_iter().chain(plain).collect()
}
