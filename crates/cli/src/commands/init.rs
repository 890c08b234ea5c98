//! `temper init`: writes a first recipe for a model and data files, and plans it.

use std::path::{Path, PathBuf};

use draft::{Facts, Kind, Lengths, RightAnswer, Section, Values};
use plan::{Plan, StagePlan};

use super::plan::show;
use super::{plan_loaded, print, resources};
use crate::args::{Align, InitArgs, InitKind, LogStyle, PlanArgs, RecipeArgs};
use crate::failure::{Failure, Result};

/// Part of the machine's available memory that a recipe is given.
const MEMORY_SHARE: f64 = 0.6;

pub(crate) fn run(args: &InitArgs, log: LogStyle, threads: Option<usize>) -> Result<()> {
    let (name, kinds) = kinds(args);
    check_options(args, name)?;
    let out = args.out.clone().unwrap_or_else(|| format!("{name}.toml").into());
    fsio::check_destination(&out).map_err(|error| {
        let hint = "write to a file in a directory that exists: --out FILE";
        Failure::from_error(&error, Some(hint.to_owned()))
    })?;
    if fsio::is_present(&out) {
        let message = format!("`{}` exists", out.display());
        return Err(Failure::input(message, "write to another file: --out FILE"));
    }
    let mut facts = Vec::new();
    for &kind in kinds {
        facts.push((kind, facts_of(kind, args, &out)?));
    }
    let planner = Planner { args: plan_args(&out, args.no_probe), log, threads };
    let (text, plan) = planner.draft(facts)?;
    fsio::write_atomic(&out, &text)?;
    print(&format!("wrote {}\n\n{text}\n", out.display()))?;
    show(&plan, &planner.args)
}

/// Name of the recipe, and its stages.
fn kinds(args: &InitArgs) -> (&'static str, &'static [Kind]) {
    let kinds: &'static [Kind] = match (args.kind, args.align) {
        (InitKind::Pretrain, _) => &[Kind::Pretrain],
        (InitKind::Sft, _) => &[Kind::Sft],
        (InitKind::Reward, _) => &[Kind::Reward],
        (InitKind::Dpo, _) => &[Kind::Dpo],
        (InitKind::Kto, _) => &[Kind::Kto],
        (InitKind::Ppo, _) => &[Kind::Ppo],
        (InitKind::Grpo, _) => &[Kind::Grpo],
        (InitKind::Chain, Some(Align::Dpo)) => &[Kind::Sft, Kind::Dpo],
        (InitKind::Chain, Some(Align::Ppo) | None) => &[Kind::Sft, Kind::Reward, Kind::Ppo],
    };
    match kinds {
        [kind] => (kind.section(), kinds),
        _ => ("chain", kinds),
    }
}

/// Refuses options that do not apply to the recipe.
fn check_options(args: &InitArgs, name: &str) -> Result<()> {
    let is_chain = args.kind == InitKind::Chain;
    let samples = is_chain && args.align != Some(Align::Dpo);
    let rules = [
        ("--reward", args.reward.is_some(), args.kind == InitKind::Ppo, "only ppo"),
        ("--pairs", args.pairs.is_some(), is_chain, "only chain"),
        ("--align", args.align.is_some(), is_chain, "only chain"),
        ("--prompts", args.prompts.is_some(), samples, "only chain with PPO"),
    ];
    match rules.into_iter().find(|(_, is_given, applies, _)| *is_given && !applies) {
        Some((option, _, _, whose)) => Err(Failure::input(
            format!("{option} does not apply to `init {name}`"),
            format!("{whose} has it; remove {option}"),
        )),
        None => Ok(()),
    }
}

/// Names and sizes that are known before the data is read.
fn facts_of(kind: Kind, args: &InitArgs, out: &Path) -> Result<Facts> {
    let stem = out.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default();
    let dir = plan::locate_argument(Path::new(&args.model))?;
    let weights = plan::base_of(&dir)?.unwrap_or(dir);
    let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    // In a chain, every stage after the first one starts from it.
    let is_stage = args.kind == InitKind::Chain && kind != Kind::Sft;
    let reward = match &args.reward {
        Some(reward) => Some(path_in_recipe(&model_path(reward)?, out)?),
        None => (is_stage && kind == Kind::Ppo).then(|| Kind::Reward.section().to_owned()),
    };
    let data = match kind {
        Kind::Ppo => args.prompts.as_ref(),
        Kind::Reward | Kind::Dpo => args.pairs.as_ref(),
        Kind::Pretrain | Kind::Sft | Kind::Kto | Kind::Grpo => None,
    };
    Ok(Facts {
        name: stem.chars().map(|c| if is_plain(c) { c } else { '-' }).collect(),
        model: if is_stage {
            Kind::Sft.section().to_owned()
        } else {
            path_in_recipe(&model_path(&args.model)?, out)?
        },
        is_stage,
        data: path_in_recipe(data.unwrap_or(&args.data), out)?,
        prompts_of_chats: is_stage && kind == Kind::Ppo && args.prompts.is_none(),
        n_parameters: 0,
        context_length: arch::ModelInfo::read(&weights)?.config.max_positions(),
        split_turns: false,
        reward,
        right_answer: if kind == Kind::Grpo { Some(right_answer(&args.data)?) } else { None },
        lengths: Lengths::default(),
    })
}

/// A MODEL as a recipe names it: the stage of a run that is given by the run's name, and any other as it is.
fn model_path(model: &str) -> Result<String> {
    if model.starts_with("hf:") || Path::new(model).exists() {
        return Ok(model.to_owned());
    }
    let dir = plan::locate_argument(Path::new(model))?;
    let stage = if dir.ends_with(plan::MODEL_DIR) { dir.parent().unwrap_or(&dir) } else { &dir };
    Ok(stage.to_string_lossy().into_owned())
}

/// The right answers of a data file, by its first row.
fn right_answer(data: &str) -> Result<RightAnswer> {
    let data_dir = std::env::var_os("TEMPER_DATA").map_or_else(|| "data".into(), PathBuf::from);
    let path = data::resolve(data, Path::new(""), &data_dir)?;
    let mut rows = match data::expand(&path, None, None)?.first() {
        Some(file) => data::read_rows(file, None, None, &data::BytesRead::default())?,
        None => return Err(Failure::input(format!("no files at `{data}`"), "check the path")),
    };
    let row = match rows.next() {
        Some(row) => row?,
        None => return Err(Failure::input(format!("`{data}` has no rows"), "name another file")),
    };
    RightAnswer::of_row(&row.columns).ok_or_else(|| {
        let names: Vec<String> = row.columns.keys().map(|name| format!("`{name}`")).collect();
        Failure::input(
            format!("{}: no column has the right answer; columns: {}", row.location, names.join(", ")),
            "rename the column of right answers to `answer`, or write `rewards` by hand: docs/rewards.md",
        )
    })
}

/// A path of the command line as a recipe at `out` names it: relative paths start at the recipe's directory.
fn path_in_recipe(path: &str, out: &Path) -> Result<String> {
    let is_here = out.parent().is_none_or(|parent| parent.as_os_str().is_empty());
    if is_here || path.starts_with(recipe::DATA_PREFIX) || path.starts_with("hf:") {
        return Ok(path.to_owned());
    }
    let absolute = std::path::absolute(path).map_err(|error| {
        Failure::input(format!("`{path}`: {error}"), "name an existing file or directory")
    })?;
    Ok(absolute.to_string_lossy().into_owned())
}

fn plan_args(out: &Path, no_probe: bool) -> PlanArgs {
    let recipe = RecipeArgs {
        recipe: out.to_path_buf(),
        data_dir: None,
        set: Vec::new(),
        limit: None,
        name: None,
        stage: None,
        allow_commands: false,
    };
    PlanArgs { recipe, no_probe, list_cut: false, force: false }
}

/// Plans recipes that are not on disk yet.
struct Planner {
    args: PlanArgs,
    log: LogStyle,
    threads: Option<usize>,
}

impl Planner {
    /// The recipe and its plan.
    fn draft(&self, facts: Vec<(Kind, Facts)>) -> Result<(String, Plan)> {
        let mut sections = self.measured(facts)?;
        let memory = resources::available_memory();
        loop {
            let text = draft::recipe(&sections);
            let plan = self.plan(&text)?;
            let is_complete = sections.iter().all(|section| section.values.n_steps.is_some());
            for section in &mut sections {
                let stage = stage(&plan, section.kind)?;
                match section.values.n_steps {
                    Some(counted) => debug_assert_eq!(
                        counted, stage.max_steps,
                        "the schedule does not change the steps"
                    ),
                    None => {
                        section.values = corrected(section.kind, &section.values, stage, memory);
                    }
                }
            }
            if is_complete {
                return Ok((text, plan));
            }
        }
    }

    /// Reads the sizes of model and data off a plan whose rows are as long as the model permits, and chooses the values.
    fn measured(&self, facts: Vec<(Kind, Facts)>) -> Result<Vec<Section>> {
        let measuring = |(kind, facts): (Kind, Facts)| {
            let values = Values::to_measure(kind, facts.context_length);
            Section { kind, facts, values }
        };
        let mut sections: Vec<Section> = facts.into_iter().map(measuring).collect();
        let mut outcome = self.plan(&draft::recipe(&sections));
        let needs_split = outcome.as_ref().is_err_and(|failure| failure.advises("split_turns"));
        if let Some(sft) = sections.iter_mut().find(|section| section.kind == Kind::Sft)
            && needs_split
        {
            sft.facts.split_turns = true;
            outcome = self.plan(&draft::recipe(&sections));
        }
        let plan = outcome?;
        for section in &mut sections {
            let stage = stage(&plan, section.kind)?;
            // PPO's cost counts all four of its models.
            section.facts.n_parameters = stage.config.n_parameters();
            section.facts.lengths = Lengths::new(stage.dataset.sample_lengths());
            section.values = Values::of(section.kind, &section.facts);
        }
        Ok(sections)
    }

    fn plan(&self, text: &str) -> Result<Plan> {
        let args = &self.args.recipe;
        let loaded = recipe::parse(text.as_bytes(), &args.recipe, &[])?;
        plan_loaded(&loaded, args, self.log, self.threads)
    }
}

/// Values after a plan of the stage: with more steps, with less memory, or with the steps counted.
fn corrected(kind: Kind, values: &Values, stage: &StagePlan, memory: Option<u64>) -> Values {
    let is_too_large =
        memory.is_some_and(|bytes| stage.cost.peak_bytes as f64 > MEMORY_SHARE * bytes as f64);
    if let Some(more) = values.with_more_steps(kind, stage.max_steps) {
        more
    } else if let Some(less) = values.with_less_memory().filter(|_| is_too_large) {
        less
    } else {
        Values { n_steps: Some(stage.max_steps), ..values.clone() }
    }
}

/// The stage of a section.
fn stage(plan: &Plan, kind: Kind) -> Result<&StagePlan> {
    let section = kind.section();
    plan.stages.iter().find(|stage| stage.name == section).ok_or_else(|| {
        Failure::input(format!("the plan has no [{section}]"), "write the recipe by hand")
    })
}
