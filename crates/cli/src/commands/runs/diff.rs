//! `temper runs diff`: what differs between two runs, and from which step their curves do.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use report::{Environment, RunData, StageData, headline, part_at};

use super::locate;
use crate::args::DiffArgs;
use crate::commands::print;
use crate::failure::Result;
use crate::render::table::{counted, thousands};

/// Characters of a hash that are shown.
const HASH_CHARS: usize = 12;

pub(super) fn run(dir: &Path, args: &DiffArgs) -> Result<()> {
    let a = RunData::read(&locate(dir, &args.a)?)?;
    let b = RunData::read(&locate(dir, &args.b)?)?;
    print(&format!("{} and {}\n", a.path.display(), b.path.display()))?;
    let mut text = part("recipe", &recipes(&a, &b)?);
    text += &part("data and weights", &inputs(&a, &b));
    text += &part("program and machine", &programs(&a, &b));
    text += &part("curves", &curves(&a, &b));
    text += &part("results", &results(&a, &b));
    print(&text)
}

/// Lines below a title. Without lines, both are the same.
fn part(title: &str, lines: &[String]) -> String {
    if lines.is_empty() {
        return format!("{title}: no difference\n");
    }
    lines.iter().fold(format!("{title}:\n"), |text, line| text + "  " + line + "\n")
}

/// Lines for keys with different values.
fn changes(a: &BTreeMap<String, String>, b: &BTreeMap<String, String>) -> Vec<String> {
    let keys: BTreeSet<&String> = a.keys().chain(b.keys()).collect();
    let changed = keys.into_iter().filter(|key| a.get(*key) != b.get(*key));
    let shown = |value: Option<&String>| value.map_or("not set", String::as_str).to_owned();
    changed.map(|key| format!("{key}: {} → {}", shown(a.get(key)), shown(b.get(key)))).collect()
}

/// Keys of the recipes that differ. A key without a value has its default, so both are read as recipes.
fn recipes(a: &RunData, b: &RunData) -> Result<Vec<String>> {
    let read = |run: &RunData| -> Result<BTreeMap<String, String>> {
        let Some(text) = &run.recipe else { return Ok(BTreeMap::new()) };
        let loaded = recipe::parse(text.as_bytes(), &run.path.join("recipe.toml"), &[])?;
        // A recipe came from TOML, so its keys are strings.
        Ok(train::flat_keys(&serde_json::to_value(&loaded.recipe).unwrap_or_default()))
    };
    let names = (a.name.as_str(), b.name.as_str());
    let (mut a, mut b) = (read(a)?, read(b)?);
    // The name of a run changes nothing in it.
    a.remove("name");
    b.remove("name");
    // A section that only one of them has is one line, not one for each of its keys.
    let (of_a, of_b) = (sections(&a), sections(&b));
    let is_shared = |key: &String| {
        let section = section_of(key);
        section.is_none_or(|section| of_a.contains(section) && of_b.contains(section))
    };
    let (mut shared_a, mut shared_b) = (a.clone(), b.clone());
    shared_a.retain(|key, _| is_shared(key));
    shared_b.retain(|key, _| is_shared(key));
    let mut lines = only_in(&of_a, &of_b, names);
    lines.extend(changes(&shared_a, &shared_b));
    Ok(lines)
}

/// The section of a key such as `sft.optimizer.lr`.
fn section_of(key: &str) -> Option<&str> {
    let (section, _) = key.split_once('.')?;
    section.split('[').next()
}

fn sections(keys: &BTreeMap<String, String>) -> BTreeSet<String> {
    keys.keys().filter_map(|key| section_of(key)).map(str::to_owned).collect()
}

/// Lines for names that only one of two runs has.
fn only_in(a: &BTreeSet<String>, b: &BTreeSet<String>, names: (&str, &str)) -> Vec<String> {
    let of_a = a.difference(b).map(|name| format!("{name}: only in {}", names.0));
    of_a.chain(b.difference(a).map(|name| format!("{name}: only in {}", names.1))).collect()
}

/// Hashes of the inputs that differ, stage by stage.
fn inputs(a: &RunData, b: &RunData) -> Vec<String> {
    let short = |stage: &StageData| -> BTreeMap<String, String> {
        // The hash of a model is that of its files, which have entries of their own.
        let is_file = |name: &str| {
            name.rsplit_once(": ").is_some_and(|(model, _)| stage.inputs.contains_key(model))
        };
        let hashes = stage.inputs.iter().filter(|(name, _)| !is_file(name));
        let hashes = hashes.map(|(name, hash)| {
            let hash: String = hash.chars().take(HASH_CHARS).collect();
            (name.clone(), hash)
        });
        let start = stage.plan.as_ref().map(|plan| ("starts from".to_owned(), plan.start.clone()));
        hashes.chain(start).collect()
    };
    let mut lines = Vec::new();
    for (of_a, of_b) in both(a, b) {
        let changes = changes(&short(of_a), &short(of_b));
        lines.extend(changes.into_iter().map(|line| format!("{}: {line}", of_a.name)));
    }
    lines
}

/// Versions, processors and the device.
fn programs(a: &RunData, b: &RunData) -> Vec<String> {
    let facts = |run: &RunData| -> BTreeMap<String, String> {
        let environment = run.stages.iter().find_map(|stage| stage.environment.clone());
        let of: Environment = environment.unwrap_or_default();
        let plan = run.plan.clone().unwrap_or_default();
        let or = |first: String, second: String| if first.is_empty() { second } else { first };
        let facts = [
            ("temper", or(of.temper, plan.temper)),
            ("burn", or(of.burn, plan.burn)),
            ("architecture", of.arch),
            (
                "instruction sets",
                or(of.cpu_features.join(" "), plan.machine.cpu_features.join(" ")),
            ),
            ("caches", of.caches.join(" ")),
            ("threads", plan.threads.to_string()),
            ("processor", plan.machine.processor),
            ("device", plan.device),
        ];
        let known = facts.into_iter().filter(|(_, value)| !value.is_empty() && value != "0");
        known.map(|(name, value)| (name.to_owned(), value)).collect()
    };
    changes(&facts(a), &facts(b))
}

/// Stages that both runs have.
fn both<'a>(a: &'a RunData, b: &'a RunData) -> Vec<(&'a StageData, &'a StageData)> {
    let other = |name: &str| b.stages.iter().find(|stage| stage.name == name);
    a.stages.iter().filter_map(|stage| Some((stage, other(&stage.name)?))).collect()
}

/// A line for each stage: where its curves part, or that they do not.
fn curves(a: &RunData, b: &RunData) -> Vec<String> {
    let mut lines = Vec::new();
    for (of_a, of_b) in both(a, b) {
        let line = match part_at(&of_a.metrics, &of_b.metrics) {
            (0, None) => "no logged step in both".to_owned(),
            (n, None) => format!("equal to the last bit at {}", counted(n, "logged step")),
            (_, Some(at)) => {
                let until = at.agreed_until.map_or_else(
                    || "different from the first logged step".to_owned(),
                    |step| format!("equal to the last bit until step {}", thousands(step)),
                );
                let (was, is) = at.values;
                format!("{until}; at step {}: {} {was} → {is}", thousands(at.step), at.metric)
            }
        };
        lines.push(format!("{}: {line}", of_a.name));
    }
    let stages = |run: &RunData| -> BTreeSet<String> {
        run.stages.iter().map(|stage| stage.name.clone()).collect()
    };
    lines.extend(only_in(&stages(a), &stages(b), (&a.name, &b.name)));
    lines
}

/// Results of stages that both runs have finished.
fn results(a: &RunData, b: &RunData) -> Vec<String> {
    let mut lines = Vec::new();
    for (of_a, of_b) in both(a, b) {
        let (Some(was), Some(is)) = (&of_a.finished, &of_b.finished) else { continue };
        let same_model = of_a.model_files == of_b.model_files && !of_a.model_files.is_empty();
        let headlines = [was, is].map(|of| headline(&of.result).unwrap_or_else(|| "-".to_owned()));
        let [was, is] = headlines;
        if same_model {
            lines.push(format!("{}: the same model to the last bit", of_a.name));
        } else {
            lines.push(format!("{}: {was} in {}; {is} in {}", of_a.name, a.name, b.name));
        }
    }
    lines
}
