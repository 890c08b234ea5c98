//! `temper data inspect`: what the model will see, from the code that builds batches.

use std::io::IsTerminal;

use super::{plan_recipe, print};
use crate::args::{InspectArgs, LogStyle};
use crate::failure::{Failure, Result};
use crate::render::tokens;

pub(crate) fn run(args: &InspectArgs, log: LogStyle) -> Result<()> {
    let plan = plan_recipe(&args.recipe, log)?;
    let Some(stage) = plan.stages.last() else {
        return Err(Failure::input("the recipe has no stage", "add [pretrain] or [sft]"));
    };
    if plan.stages.len() > 1 {
        let names: Vec<&str> = plan.stages.iter().map(|stage| stage.name.as_str()).collect();
        return Err(Failure::input(
            "the recipe has several stages",
            format!("say which with --stage: {}", names.join(", ")),
        ));
    }
    let colour = std::io::stdout().is_terminal();
    for row in 0..args.n as u64 {
        let Some(view) = stage.dataset.view(row) else { break };
        let shown = if args.json {
            format!("{}\n", tokens::json(&view, &stage.tokenizer))
        } else {
            tokens::text(&view, &stage.tokenizer, colour)
        };
        print(&shown)?;
    }
    Ok(())
}
