//! `temper run` and `temper resume`: run the stages of a recipe in order; skip finished ones and resume interrupted ones.

use std::path::{Path, PathBuf};

use arch::HeadOutput;
use plan::{Plan, RUNS_DIR, Stage, StagePlan, Work, locate_model};
use recipe::SampleKind;
use serde_json::Value;
use train::{
    Context, Finished, Outcome, Progress as _, RunDir, SingleReplica, StageDir, StageStatus,
    StopFlag, on_replicas,
};
use watch::{RunState, StageSteps};

use super::plan_validation::few_held_out;
use super::run_record::RunRecord;
use super::{
    launch, plan_recipe, precision_note, print_summary, replica_devices, resources, set_up_kernels,
};
use crate::args::{LogStyle, RecipeArgs, ResumeArgs, RunArgs};
use crate::device_panics;
use crate::failure::{Failure, Result};
use crate::render::progress::RunProgress;
use crate::render::table;
use crate::render::task_metrics::shown_metrics;
use crate::render::view::{Live, LiveSettings, tty};

pub(crate) fn run(args: &RunArgs, log: LogStyle, threads: Option<usize>) -> Result<()> {
    let plan = plan_recipe(&args.recipe, log, threads)?;
    if !args.force {
        resources::check(&plan)?;
    }
    run_plan(&plan, &args.recipe, log)
}

pub(crate) fn resume(args: &ResumeArgs, log: LogStyle, threads: Option<usize>) -> Result<()> {
    let (run_dir, name) = run_dir_of(&args.run)?;
    let recorded = launch::read(&run_dir)?;
    let recipe = RecipeArgs {
        recipe: recorded.recipe,
        data_dir: args.data_dir.clone().or(recorded.data_dir),
        set: recorded.set.into_iter().chain(args.set.iter().cloned()).collect(),
        limit: recorded.limit,
        name: Some(name),
        stage: recorded.stage,
        allow_commands: args.allow_commands,
    };
    let plan = plan_recipe(&recipe, log, threads)?;
    if !args.force {
        resources::check(&plan)?;
    }
    run_plan(&plan, &recipe, log)
}

fn run_plan(plan: &Plan, args: &RecipeArgs, log: LogStyle) -> Result<()> {
    let rows = train_stages(plan, args, log)?;
    print_summary(&summary(plan, &rows));
    Ok(())
}

/// Trains the unfinished stages. Returns every stage with its result.
pub(super) fn train_stages<'a>(
    plan: &'a Plan,
    args: &RecipeArgs,
    log: LogStyle,
) -> Result<Vec<(&'a StagePlan, Finished)>> {
    set_up_kernels(plan);
    let devices = replica_devices(&plan.device, plan.replicas)?;
    let devices: Vec<_> = devices.into_iter().map(kernels::Device::autodiff).collect();
    let stop = train::signals::install()?;
    let run_dir = RunDir::open(&plan.paths.run_dir)?;
    let mut progress = RunProgress::new(log);
    let mut warnings = run_dir.adopt_recipe(&plan.recipe_toml, &plan.recipe)?;
    warnings.extend(plan.warnings());
    warnings.extend(plan.stages.iter().filter_map(few_held_out));
    for message in warnings.into_iter().chain(precision_note(plan).map(str::to_owned)) {
        progress.event(&train::Event::Warning { message });
    }
    check_starts(plan)?;
    let bf16_products = bf16_products_of(plan, &run_dir)?;
    launch::write(&plan.paths.run_dir, args, plan.clock, bf16_products)?;
    progress.attach(Live::start(live_settings(plan, &run_dir, log, &stop)?));
    let mut record = RunRecord::start(plan, &run_dir)?;
    let trained = train_unfinished(plan, &run_dir, &devices, &stop, &mut progress, &mut record);
    record.end(trained.as_ref().err());
    trained
}

/// How the run computes products in bf16 on the CPU: as its newest checkpoint says, else as its command line was recorded, and for
/// a new run the faster way, once measured.
fn bf16_products_of(plan: &Plan, run_dir: &RunDir) -> Result<Option<kernels::Bf16Products>> {
    if plan.device != "cpu" || kernels::precision() != kernels::Precision::Bf16 {
        return Ok(None);
    }
    let stages: Vec<_> = plan.stages.iter().map(|stage| run_dir.stage(&stage.name)).collect();
    let of_checkpoint = train::recorded_environment(&stages)?
        .and_then(|found| kernels::Bf16Products::of_name(&found.bf16_products));
    let recorded = match of_checkpoint {
        Some(products) => Some(products),
        None => launch::bf16_products_of(run_dir.root())?,
    };
    if let Some(products) = recorded {
        // Another processor may lack them. The checkpoint's environment then differs, and the run warns of it.
        kernels::set_bf16_products(products);
    }
    Ok(Some(kernels::bf16_products()))
}

/// Trains the unfinished stages in a run directory that is ready.
fn train_unfinished<'a>(
    plan: &'a Plan,
    run_dir: &RunDir,
    devices: &[kernels::Device],
    stop: &StopFlag,
    progress: &mut RunProgress,
    record: &mut RunRecord,
) -> Result<Vec<(&'a StagePlan, Finished)>> {
    let [device, ..] = devices else { return Ok(Vec::new()) };
    let mut rows = Vec::new();
    for stage in &plan.stages {
        let stage_dir = run_dir.stage(&stage.name);
        if let StageStatus::Finished(finished) = stage_dir.status()? {
            // A stage that has lost its model is an error.
            locate_model(stage_dir.path())?;
            progress.note(&format!("{:<10} already finished: skipped", stage.name));
            rows.push((stage, finished));
            continue;
        }
        fsio::out_of_memory::set_memory_hint(&resources::hint_if_refused(stage));
        let context = Context {
            plan,
            stage,
            run_dir,
            device,
            progress,
            stop: stop.clone(),
            replicas: &SingleReplica,
        };
        let outcome = device_panics::run_stage(stage, &plan.device, device, || {
            on_replicas(context, devices, run_stage).map_err(Failure::during_run)
        });
        match outcome? {
            Outcome::Finished(finished) => {
                record.stage_finished(&stage.name);
                rows.push((stage, finished));
            }
            Outcome::Stopped { .. } => {
                progress.ends(RunState::Stopped);
                progress.note(&format!(
                    "stopped; to continue: temper resume {}",
                    plan.paths.run_dir.display()
                ));
                return Err(Failure::stopped());
            }
        }
    }
    progress.ends(RunState::Finished);
    Ok(rows)
}

/// Settings of the thread beside the run.
fn live_settings(
    plan: &Plan,
    run_dir: &RunDir,
    log: LogStyle,
    stop: &StopFlag,
) -> Result<LiveSettings> {
    let mut stages = Vec::new();
    for stage in &plan.stages {
        let status = run_dir.stage(&stage.name).status()?;
        let finished = matches!(status, StageStatus::Finished(_));
        stages.push(StageSteps { name: stage.name.clone(), max_steps: stage.max_steps, finished });
    }
    let dir = plan.paths.run_dir.clone();
    let name = dir.file_name().map(|name| name.to_string_lossy().into_owned());
    Ok(LiveSettings {
        run_dir: dir,
        name: name.unwrap_or_default(),
        guard: run_dir.guard(),
        stages,
        opens: tty::is_full(log),
        stop: stop.clone(),
    })
}

/// Refuses a run whose starting stages have not been trained, which `--stage` makes possible.
pub(super) fn check_starts(plan: &Plan) -> Result<()> {
    for (idx, stage) in plan.stages.iter().enumerate() {
        for name in stage.needs() {
            let runs_before = plan.stages.iter().take(idx).any(|earlier| earlier.name == name);
            let saved = StageDir::in_run(&plan.paths.run_dir, name);
            if !runs_before && !saved.model().is_dir() {
                let (stage, start) = (stage.name.clone(), name.to_owned());
                return Err(train::Error::StageNotRun { stage, start }.into());
            }
        }
    }
    Ok(())
}

/// Calls the crate of the stage.
fn run_stage(context: Context<'_>) -> Result<Outcome> {
    match &context.stage.kind {
        Stage::Pretrain(_) => Ok(pretrain::run(context)?),
        Stage::Sft(_) => Ok(sft::run(context)?),
        Stage::Distill(distill) => Ok(distill::run(context, distill)?),
        Stage::Reward(section) => Ok(reward::run(context, section)?),
        Stage::Dpo(dpo) => Ok(dpo::run(context, dpo)?),
        Stage::Kto(kto) => Ok(kto::run(context, kto)?),
        Stage::Ppo(ppo) => Ok(ppo::run(context, ppo)?),
        Stage::Grpo(grpo) => Ok(grpo::run(context, grpo)?),
    }
}

/// The table at the end of a run: result and directory of each stage, and suggestions for what to do next.
fn summary(plan: &Plan, rows: &[(&StagePlan, Finished)]) -> String {
    let head = ["", "steps", "time", "result", "saved in"].map(str::to_owned).to_vec();
    let lines = rows.iter().map(|(stage, finished)| {
        vec![
            stage.name.clone(),
            table::thousands(finished.steps),
            table::clock(finished.seconds),
            result_text(finished),
            plan.paths.run_dir.join(&stage.name).display().to_string(),
        ]
    });
    let all: Vec<Vec<String>> = std::iter::once(head).chain(lines).collect();
    let mut text = table::columns(&all, &[1, 2]);
    for (_, finished) in rows {
        text += &example(&finished.result).unwrap_or_default();
    }
    if let Some((stage, _)) = rows.last() {
        let model = plan.paths.run_dir.join(&stage.name).display().to_string();
        let first = match (stage.kind.work(), stage.sample_kind) {
            (Work::Rows { output: HeadOutput::Scores, .. }, _) => {
                format!("score {model} --pairs pairs.jsonl")
            }
            (Work::Rows { .. }, SampleKind::Documents) => {
                format!("generate {model} --prompt \"…\"")
            }
            (Work::Rows { .. } | Work::Rollouts(_) | Work::Groups(_), _) => {
                format!("chat {model}")
            }
        };
        text += &format!("next    temper {first}\n");
        text += &format!("        temper export {model} --to out/{}\n", plan.name);
        text += &format!("        tensorboard --logdir {}\n", plan.paths.run_dir.display());
        let page = plan.paths.run_dir.join(report::PAGE_FILE);
        text += &format!("report  {}\n", page.display());
    }
    text
}

/// A sample prompt with its answers before and after training, if the stage has one.
fn example(result: &Value) -> Option<String> {
    let example = result.get("example")?;
    let text =
        |key: &str| example.get(key).and_then(Value::as_str).map(|text| text.replace('\n', "⏎"));
    let (prompt, before, after) = (text("prompt")?, text("before")?, text("after")?);
    Some(format!("before  {prompt}  →  {before}\nafter   {prompt}  →  {after}\n"))
}

fn result_text(finished: &Finished) -> String {
    let mut metrics = metrics_text(&finished.result);
    if finished.ended_above_start {
        metrics += ": worse than before training";
    }
    match finished.best_step() {
        Some(step) => format!("{metrics}, best at step {}", table::thousands(step)),
        None => metrics,
    }
}

fn metrics_text(result: &Value) -> String {
    let metric = |key: &str| result.get(key).and_then(Value::as_f64);
    if let (Some(score), Some(kl)) = (metric("score"), metric("kl")) {
        let before = result.pointer("/before/score").and_then(Value::as_f64);
        let from = before.map(|before| format!("{before:.2} → ")).unwrap_or_default();
        return format!("reward {from}{score:.2}, KL {kl:.1} nats/answer");
    }
    if let Some(reward) = metric("reward") {
        let before = result.pointer("/before/reward").and_then(Value::as_f64);
        let from = before.map(|before| format!("{before:.2} → ")).unwrap_or_default();
        return format!("reward {from}{reward:.2}");
    }
    let before = |key: &str| result.get("before")?.get(key)?.as_f64();
    if let (Some(accuracy), Some(margin)) = (metric("accuracy"), metric("margin")) {
        // Where all margins were 0, as those of a policy from its reference, there was no accuracy.
        let had_margins = before("margin").is_some_and(|margin| margin != 0.0);
        let from = before("accuracy").filter(|_| had_margins);
        let from = from.map(|share| format!("{:.1} → ", 100.0 * share));
        let from = from.unwrap_or_default();
        return format!("accuracy {from}{:.1} %, mean margin {margin:.2}", 100.0 * accuracy);
    }
    let from = before("eval_loss").map(|loss| format!("{loss:.4} → ")).unwrap_or_default();
    match (metric("eval_loss"), metric("bits_per_byte")) {
        (Some(loss), Some(bits)) => format!("val loss {from}{loss:.4} ({bits:.3} bits/byte)"),
        (Some(loss), None) => format!("val loss {from}{loss:.4}"),
        (None, _) => task_metrics(result),
    }
}

/// Metrics of tasks in the result of a stage without validation data.
fn task_metrics(result: &Value) -> String {
    let metrics = result.as_object().into_iter().flatten();
    let metrics = metrics.filter_map(|(name, value)| Some((name.as_str(), value.as_f64()?)));
    let shown = shown_metrics(metrics);
    if shown.is_empty() { "-".to_owned() } else { shown.join(", ") }
}

/// Name of the run at a path or of this name, if there is one.
pub(super) fn name_of(run: &Path) -> Option<String> {
    run_dir_of(run).ok().map(|(_, name)| name)
}

/// Directory and name of a run, which is given by path or by name.
fn run_dir_of(run: &Path) -> Result<(PathBuf, String)> {
    // The directory's present name counts, so a copy of a run is a run of its own.
    let name = run.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let dir = Path::new(RUNS_DIR).join(name);
    let elsewhere = run.components().count() > 1
        && std::path::absolute(run).ok() != std::path::absolute(&dir).ok();
    if name.is_empty() || elsewhere || !dir.join(launch::FILE).is_file() {
        return Err(Failure::input(
            format!("no such run: `{}`", run.display()),
            match fsio::nearest_path(&dir) {
                Some(near) => format!("did you mean `{}`?", near.display()),
                None => "`temper runs` lists all runs".to_owned(),
            },
        ));
    }
    Ok((dir, name.to_owned()))
}
