//! `temper data inspect`: prints a stage's first batches, from the same code that builds them in training.

use std::io::IsTerminal;

use plan::{GrpoPlan, Plan, PpoPlan, StagePlan, Work};
use recipe::StageSection;
use train::RunDir;

use super::{inspect_file, plan as plan_command, plan_recipe, print, print_as_is};
use crate::args::{InspectArgs, LogStyle};
use crate::failure::{Failure, Result};
use crate::render::printable::printable;
use crate::render::progress::write_stderr;
use crate::render::view::tty;
use crate::render::{episodes, groups, tokens};

pub(crate) fn run(args: &InspectArgs, log: LogStyle, threads: Option<usize>) -> Result<()> {
    if let Some(line) = args.line {
        return inspect_file::show_row(&args.recipe.recipe, line);
    }
    if inspect_file::is_data(&args.recipe.recipe) {
        return inspect_file::show_file(&args.recipe.recipe, args.n, args.json);
    }
    let plan = plan_recipe(&args.recipe, log, threads)?;
    let Some(stage) = plan.stages.last() else {
        return Err(Failure::input(
            "the recipe has no stage",
            format!("add {}", StageSection::listed()),
        ));
    };
    if plan.stages.len() > 1 {
        let names: Vec<&str> = plan.stages.iter().map(|stage| stage.name.as_str()).collect();
        return Err(Failure::input(
            "the recipe has several stages",
            format!("choose one with --stage: {}", names.join(", ")),
        ));
    }
    match stage.kind.work() {
        Work::Rows { .. } => show_rows(stage, args),
        Work::Rollouts(ppo) => show_episodes(&plan, stage, ppo, args),
        Work::Groups(grpo) => show_groups(&plan, stage, grpo, args),
    }
}

/// Prints rows of the first batches.
fn show_rows(stage: &StagePlan, args: &InspectArgs) -> Result<()> {
    let colour = std::io::stdout().is_terminal() && tty::look().colour;
    let counts = stage.dataset.counts();
    for note in counts.file_choices.iter().cloned().chain(plan_command::not_finite(counts)) {
        if args.json {
            // Only rows are on stdout.
            write_stderr(&format!("{}\n", printable(&note)));
        } else {
            print(&format!("{note}\n"))?;
        }
    }
    for row in 0..args.n as u64 {
        let Some(view) = stage.dataset.inspect_row(row) else { break };
        if args.json {
            print(&format!("{}\n", tokens::json(&view, &stage.tokenizer)))?;
        } else {
            print_as_is(&tokens::text(&view, &stage.tokenizer, colour))?;
        }
    }
    Ok(())
}

/// Prints episodes of the first update, sampled and scored as in a run. Loads the models.
fn show_episodes(plan: &Plan, stage: &StagePlan, ppo: &PpoPlan, args: &InspectArgs) -> Result<()> {
    let device = kernels::device(&plan.device)?.autodiff();
    let run_dir = RunDir::open(&plan.paths.run_dir)?;
    let shown = ppo::first_episodes(plan, stage, ppo, &run_dir, args.n, &device)?;
    let episodes = shown.scored.rollouts.episodes.iter().zip(&shown.scored.episodes);
    for (idx, (rollout, episode)) in episodes.enumerate() {
        let rewards = shown.stated.as_ref().map(|stated| episodes::rewards(stated, idx));
        print(&if args.json {
            format!("{}\n", episodes::json(rollout, episode, rewards.as_deref(), &stage.tokenizer))
        } else {
            episodes::text(rollout, episode, rewards.as_deref(), &stage.tokenizer)
        })?;
    }
    Ok(())
}

/// Prints groups of completions of the first update, sampled and scored as in a run. Loads the models.
fn show_groups(plan: &Plan, stage: &StagePlan, grpo: &GrpoPlan, args: &InspectArgs) -> Result<()> {
    let device = kernels::device(&plan.device)?.autodiff();
    let run_dir = RunDir::open(&plan.paths.run_dir)?;
    let shown = grpo::first_groups(plan, stage, grpo, &run_dir, args.n, &device)?;
    for idx in 0..shown.scored.episodes.len() {
        print(&if args.json {
            format!("{}\n", groups::json(&shown, idx, grpo, &stage.tokenizer))
        } else {
            groups::text(&shown, idx, grpo, &stage.tokenizer)
        })?;
    }
    Ok(())
}
