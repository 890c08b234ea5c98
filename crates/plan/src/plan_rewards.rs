//! Plans the rewards of PPO and GRPO: patterns and schemas, reward models, judges and programs. Opens no weights.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::path::PathBuf;

use recipe::{JudgeKeys, Loaded, Reward, RewardKind};
use rewards::Rewards;
use tokenizer::Tokenizer;

use crate::error::AtKey;
use crate::stage::{JudgePlan, RewardModelPlan, RewardsPlan, Start};
use crate::stage_plan::StagePlan;
use crate::starting_point::{StartingPoint, of_name};
use crate::{Error, Paths, Request, Result};

/// Starting points of the models of rewards, for the plan of memory.
pub(crate) struct RewardPoints {
    pub(crate) models: Vec<StartingPoint>,
    pub(crate) judges: Vec<StartingPoint>,
}

/// Plans the rewards of the section `stage`; `models` are path, start and weight of its reward models.
#[expect(clippy::too_many_arguments, reason = "the recipe and what was planned before")]
pub(crate) fn plan_rewards(
    loaded: &Loaded,
    request: &Request,
    paths: &Paths,
    stage: &str,
    rewards: &[Reward],
    models: Vec<(Cow<'static, str>, &str, f64)>,
    max_new_tokens: usize,
    earlier: &[StagePlan],
) -> Result<(RewardsPlan, RewardPoints)> {
    let stated = compiled(loaded, stage, rewards, max_new_tokens)?;
    let programs = programs(loaded, request, paths, stage, rewards)?;
    let mut points = RewardPoints { models: Vec::new(), judges: Vec::new() };
    let mut planned = Vec::new();
    for (key, start, weight) in models {
        let path = format!("{stage}.{key}");
        let point = of_name(paths, start, earlier).at_key(loaded, &path)?;
        if point.is_scalar == Some(false) {
            let message = format!("not a reward model: `{start}`");
            let label = "a language model, without a score";
            let hint = "name a stage [reward], or a classifier with one label".to_owned();
            return Err(Error::Recipe(loaded.spans.error(&path, message, label, Some(hint))));
        }
        planned.push(RewardModelPlan { key, start: point.start.clone(), weight });
        points.models.push(point);
    }
    let mut judges = Vec::new();
    for (idx, reward) in rewards.iter().enumerate() {
        let RewardKind::Judge(keys) = &reward.kind else { continue };
        let key = format!("rewards[{idx}].start");
        let point =
            of_name(paths, &keys.start, earlier).at_key(loaded, &format!("{stage}.{key}"))?;
        if point.is_scalar == Some(true) {
            let message = format!("a reward model cannot be a judge: `{}`", keys.start);
            let hint = "name a language model, or use `kind = \"model\"`".to_owned();
            let path = format!("{stage}.{key}");
            let label = "it writes no text";
            return Err(Error::Recipe(loaded.spans.error(&path, message, label, Some(hint))));
        }
        if let Start::Directory(dir) = &point.start {
            let tokenizer = Tokenizer::from_dir_or_file(dir)?;
            if let Some(config) = &point.config {
                check_room(loaded, stage, idx, keys, &tokenizer, config.max_positions())?;
            }
        }
        judges.push(JudgePlan {
            key: Cow::Owned(key),
            start: point.start.clone(),
            config: point.config.clone(),
            max_new_tokens: keys.max_new_tokens,
        });
        points.judges.push(point);
    }
    // A program cannot be started in a directory without a name.
    let here = paths.recipe_dir.as_os_str().is_empty();
    let program_dir = if here { PathBuf::from(".") } else { paths.recipe_dir.clone() };
    Ok((RewardsPlan { stated, models: planned, judges, program_dir, programs }, points))
}

/// Checks that the text of a judge's template leaves room in its context. A judge of an earlier stage is checked when it is read.
fn check_room(
    loaded: &Loaded,
    stage: &str,
    idx: usize,
    keys: &JudgeKeys,
    tokenizer: &Tokenizer,
    n_positions: usize,
) -> Result<()> {
    let Ok(text) = keys.template.render(|_| Some(Cow::Borrowed(""))) else { return Ok(()) };
    let n = tokenizer.encode(&text)?.len();
    if n < n_positions {
        return Ok(());
    }
    let message =
        format!("the template alone has {n} tokens, and the judge has {n_positions} positions");
    let hint = "shorten it, or name a judge with a longer context".to_owned();
    let path = format!("{stage}.rewards[{idx}].template");
    Err(Error::Recipe(loaded.spans.error(&path, message, "leaves no room", Some(hint))))
}

/// The rewards that need no reward model, with patterns and schemas compiled.
fn compiled(
    loaded: &Loaded,
    stage: &str,
    rewards: &[Reward],
    max_new_tokens: usize,
) -> Result<Rewards> {
    Rewards::new(rewards, max_new_tokens).map_err(|(idx, error)| {
        let key = format!("{stage}.rewards[{idx}].{}", error.key());
        let hint = Some(error.hint().to_owned());
        let message = format!("`{}` in [{stage}.rewards[{idx}]] {error}", error.key());
        Error::Recipe(loaded.spans.error(&key, message, "cannot be used", hint))
    })
}

/// Hashes of the programs that compute rewards, by key and file.
///
/// Errors: the command line does not allow programs, or there is no such program.
fn programs(
    loaded: &Loaded,
    request: &Request,
    paths: &Paths,
    stage: &str,
    rewards: &[Reward],
) -> Result<BTreeMap<String, String>> {
    let mut hashes = BTreeMap::new();
    for (idx, reward) in rewards.iter().enumerate() {
        let RewardKind::Command(keys) = &reward.kind else { continue };
        let key = format!("{stage}.rewards[{idx}].argv");
        if !request.allow_commands {
            let message = format!("the recipe starts a program: `{}`", keys.argv.join(" "));
            let hint = "it runs with your rights on your files: read it, then add `--allow-commands` to the command line";
            let label = "programs are not allowed";
            return Err(Error::Recipe(loaded.spans.error(
                &key,
                message,
                label,
                Some(hint.to_owned()),
            )));
        }
        let files = rewards::command_files(&keys.argv, &paths.recipe_dir).map_err(|error| {
            let hint = "a name without `/` is searched in PATH, any other is relative to the recipe's directory";
            let label = "cannot be started";
            Error::Recipe(loaded.spans.error(&key, error.to_string(), label, Some(hint.to_owned())))
        })?;
        for (_, path) in files {
            let hash = fsio::sha256_file(&path)?;
            hashes.insert(format!("program of {key}: {}", path.display()), hash);
        }
    }
    Ok(hashes)
}
