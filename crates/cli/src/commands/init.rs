//! `temper init`: writes a first recipe for a model and a data file, and plans it.

use std::path::{Path, PathBuf};

use draft::{Facts, Kind, Lengths, RightAnswer, Values};
use plan::{Plan, StagePlan};

use super::plan::show;
use super::{plan_loaded, print, resources};
use crate::args::{InitArgs, InitKind, LogStyle, PlanArgs, RecipeArgs};
use crate::failure::{Failure, Result};

/// Part of the machine's available memory that a recipe is given.
const MEMORY_SHARE: f64 = 0.6;

pub(crate) fn run(args: &InitArgs, log: LogStyle, threads: Option<usize>) -> Result<()> {
    let kind = match args.kind {
        InitKind::Pretrain => Kind::Pretrain,
        InitKind::Sft => Kind::Sft,
        InitKind::Reward => Kind::Reward,
        InitKind::Dpo => Kind::Dpo,
        InitKind::Kto => Kind::Kto,
        InitKind::Ppo => Kind::Ppo,
        InitKind::Grpo => Kind::Grpo,
    };
    if args.reward.is_some() && kind != Kind::Ppo {
        let message = format!("--reward does not apply to `init {}`", kind.section());
        return Err(Failure::input(message, "only ppo has a reward model; remove --reward"));
    }
    let out = args.out.clone().unwrap_or_else(|| format!("{}.toml", kind.section()).into());
    if fsio::is_present(&out) {
        let message = format!("`{}` exists", out.display());
        return Err(Failure::input(message, "write to another file: --out FILE"));
    }
    let planner = Planner { kind, args: plan_args(&out, args.no_probe), log, threads };
    let (text, plan) = planner.draft(facts(kind, args, &out)?)?;
    fsio::write_atomic(&out, &text)?;
    print(&format!("wrote {}\n\n{text}\n", out.display()))?;
    show(&plan, &planner.args)
}

/// Names and sizes that are known before the data is read.
fn facts(kind: Kind, args: &InitArgs, out: &Path) -> Result<Facts> {
    let stem = out.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default();
    let dir = plan::locate_argument(Path::new(&args.model))?;
    let weights = plan::base_of(&dir)?.unwrap_or(dir);
    let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    Ok(Facts {
        name: stem.chars().map(|c| if is_plain(c) { c } else { '-' }).collect(),
        model: path_in_recipe(&model_path(&args.model)?, out)?,
        data: path_in_recipe(&args.data, out)?,
        n_parameters: 0,
        context_length: arch::ModelInfo::read(&weights)?.config.max_positions(),
        split_turns: false,
        reward: match &args.reward {
            Some(reward) => Some(path_in_recipe(&model_path(reward)?, out)?),
            None => None,
        },
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
    kind: Kind,
    args: PlanArgs,
    log: LogStyle,
    threads: Option<usize>,
}

impl Planner {
    /// The recipe and its plan.
    fn draft(&self, mut facts: Facts) -> Result<(String, Plan)> {
        self.measure(&mut facts)?;
        let mut values = Values::of(self.kind, &facts);
        let memory = resources::available_memory();
        loop {
            let text = draft::recipe(self.kind, &facts, &values);
            let plan = self.plan(&text)?;
            let stage = self.stage(&plan)?;
            if let Some(counted) = values.n_steps {
                debug_assert_eq!(
                    counted, stage.max_steps,
                    "the schedule does not change the steps"
                );
                return Ok((text, plan));
            }
            let is_too_large = memory
                .is_some_and(|bytes| stage.cost.peak_bytes as f64 > MEMORY_SHARE * bytes as f64);
            values = if let Some(more) = values.with_more_steps(stage.max_steps) {
                more
            } else if let Some(less) = values.with_less_memory().filter(|_| is_too_large) {
                less
            } else {
                Values { n_steps: Some(stage.max_steps), ..values }
            };
        }
    }

    /// Reads the sizes of model and data off a plan whose rows are as long as the model permits.
    fn measure(&self, facts: &mut Facts) -> Result<()> {
        let values = Values::to_measure(self.kind, facts.context_length);
        let mut outcome = self.plan(&draft::recipe(self.kind, facts, &values));
        if self.kind == Kind::Sft
            && outcome.as_ref().is_err_and(|failure| failure.advises("split_turns"))
        {
            facts.split_turns = true;
            outcome = self.plan(&draft::recipe(self.kind, facts, &values));
        }
        let plan = outcome?;
        let stage = self.stage(&plan)?;
        facts.n_parameters = stage.cost.n_parameters;
        facts.lengths = Lengths::new(stage.dataset.sample_lengths());
        Ok(())
    }

    fn plan(&self, text: &str) -> Result<Plan> {
        let args = &self.args.recipe;
        let loaded = recipe::parse(text.as_bytes(), &args.recipe, &[])?;
        plan_loaded(&loaded, args, self.log, self.threads)
    }

    /// The plan's only stage.
    fn stage<'p>(&self, plan: &'p Plan) -> Result<&'p StagePlan> {
        plan.stages.first().ok_or_else(|| {
            let section = self.kind.section();
            Failure::input(format!("the plan has no [{section}]"), "write the recipe by hand")
        })
    }
}
