//! `temper plan`: checks a recipe and prints its steps, memory, time and disk space. Trains nothing.

use std::path::PathBuf;
use std::time::Instant;

use arch::HeadOutput;
use burn::tensor::{Device, Int, Tensor};
use data::{Batch, DatasetCounts, DrawnPairCounts, IssueKind, SourceReport};
use distill::{Objective, Teacher, TeacherTargets};
use model::{CausalLm, ScalarModel};
use nn::TokenBatch;
use plan::{DistillPlan, Plan, StagePlan, Start, Work};
use recipe::{Precision, SampleKind};
use train::{Gradients, ParameterNames};

use super::estimates;
use super::plan_tasks::tasks_note;
use super::plan_validation::validation_note;
use super::rollouts::{full_length, groups_note, rollouts_note, sampling_seconds};
use super::teacher::teacher_note;
use super::{plan_evaluations, plan_recipe, precision_note, print, resources, set_up_kernels};
use crate::args::{LogStyle, PlanArgs};
use crate::device_panics;
use crate::failure::Result;
use crate::render::table::{self, counted};

/// Files of a source that are listed by name.
const SHOWN_FILES: usize = 3;
/// Approximate duration of the probe of a stage, in seconds.
const PROBE_SECONDS: f64 = 2.0;

pub(crate) fn run(args: &PlanArgs, log: LogStyle, threads: Option<usize>) -> Result<()> {
    let plan = plan_recipe(&args.recipe, log, threads)?;
    show(&plan, args)
}

/// Prints a plan.
pub(super) fn show(plan: &Plan, args: &PlanArgs) -> Result<()> {
    set_up_kernels(plan);
    print(&head(plan))?;
    // The probe allocates a model and the activations of a step.
    let fits = resources::check(plan);
    let probes = !args.no_probe && fits.is_ok();
    let seconds: Vec<Option<f64>> = plan
        .stages
        .iter()
        .map(|stage| if probes { timed(plan, stage).map(Some) } else { Ok(None) })
        .collect::<Result<_>>()?;
    estimates::save(plan, &seconds);
    print(&stages(plan, &seconds))?;
    print(&notes(plan, args.list_cut))?;
    let recipe = args.recipe.recipe.display();
    let force = match fits {
        Ok(()) => "",
        Err(_) if args.force => " --force",
        Err(refusal) => return Err(refusal),
    };
    print(&format!("ready: temper run {recipe}{force}\n"))
}

fn head(plan: &Plan) -> String {
    let precision = format!(", {}", plan.precision.name());
    let replicas = match plan.replicas {
        1 => String::new(),
        n => format!(", {n} replicas"),
    };
    format!(
        "{} · {} ({} threads{replicas}{}) · {}\n",
        plan.name,
        plan.device,
        kernels::n_threads(),
        if plan.precision == Precision::F32 { "" } else { &precision },
        plan.paths.run_dir.display()
    )
}

fn stages(plan: &Plan, seconds: &[Option<f64>]) -> String {
    let head = ["", "steps", "per step", "targets", "parameters", "memory", "TFLOP", "time"];
    let lines = plan.stages.iter().zip(seconds).map(|(stage, seconds)| {
        vec![
            stage.name.clone(),
            table::thousands(stage.max_steps),
            per_step(stage),
            table::thousands(stage.dataset.run_targets()),
            parameters(stage),
            table::bytes(stage.cost.peak_bytes),
            format!("{:.3}", stage.cost.flops / 1e12),
            seconds.map_or_else(|| "-".to_owned(), table::clock),
        ]
    });
    let rows: Vec<Vec<String>> =
        std::iter::once(head.map(str::to_owned).to_vec()).chain(lines).collect();
    table::columns(&rows, &[1, 3, 4, 5, 6, 7])
}

/// Number of trained parameters, the total if it differs, and in a mixture of experts the number that a token uses.
fn parameters(stage: &StagePlan) -> String {
    let cost = &stage.cost;
    let trained = table::millions(cost.n_trained);
    let text = if cost.n_trained == cost.n_parameters {
        trained
    } else {
        format!("{trained} of {}", table::millions(cost.n_parameters))
    };
    match cost.n_idle {
        0 => text,
        n_idle => format!("{text}, {} active", table::millions(cost.n_parameters - n_idle)),
    }
}

/// Size of a step: tokens, rows and row length.
pub(super) fn per_step(stage: &StagePlan) -> String {
    let (rows, length) = (stage.rows_per_step, stage.sequence_length);
    let at_once = match stage.micro_batch {
        micro if micro == rows => String::new(),
        micro => format!(", {micro} at a time"),
    };
    match stage.sample_kind {
        SampleKind::Documents | SampleKind::Chats => {
            let tokens = table::thousands((rows * length) as u64);
            format!("{tokens} tokens ({rows} rows × {length}{at_once})")
        }
        SampleKind::Pairs => format!("{rows} pairs (2 texts of up to {length}{at_once})"),
        SampleKind::Completions => format!("{rows} rows (up to {length} tokens{at_once})"),
        SampleKind::Prompts => format!("{rows} episodes (up to {length} tokens{at_once})"),
    }
}

fn notes(plan: &Plan, list_cut: bool) -> String {
    let mut text = precision_note(plan).map(|note| format!("  {note}\n")).unwrap_or_default();
    for warning in plan.warnings() {
        text += &format!("  warning: {warning}\n");
    }
    for stage in &plan.stages {
        for line in stage_notes(stage) {
            text += &format!("  {}: {line}\n", stage.name);
        }
        if list_cut {
            for issue in stage.dataset.sample_issues() {
                let location = issue.location.as_ref().map(ToString::to_string).unwrap_or_default();
                text += &format!(
                    "    {location}: {} tokens, {}\n",
                    table::thousands(issue.n_tokens),
                    issue_text(issue.kind)
                );
            }
        }
    }
    text + &disk(plan)
}

fn issue_text(kind: IssueKind) -> &'static str {
    match kind {
        IssueKind::Truncated => "cut off at the end",
        IssueKind::TooLong => "dropped: longer than a row",
        IssueKind::NoTargets => "dropped: no target left",
        IssueKind::IdenticalTexts => "dropped: both texts of the pair are equal",
        IssueKind::DifferentPrompts => "dropped: the answers of the pair follow different prompts",
    }
}

/// The averaged weights of a stage, by the number of updates that weigh most in them.
fn average_note(stage: &StagePlan, decay: f64) -> String {
    let window = 1.0 / (1.0 - decay);
    let text = format!(
        "validation and model/ use averaged weights (ema = {decay}, about the last {} updates)",
        table::thousands(window.round() as u64)
    );
    let n_updates = stage.n_updates();
    if window <= n_updates as f64 {
        return text;
    }
    let updates = table::counted(n_updates, "update");
    format!("{text}; the stage makes {updates}, so early weights count for much in the average")
}

/// What the user should know about a stage, as sentences.
pub(super) fn stage_notes(stage: &StagePlan) -> Vec<String> {
    let counts = stage.dataset.counts();
    let n = table::thousands;
    let mut lines = Vec::new();
    let from = match &stage.start {
        Start::Fresh => "new weights".to_owned(),
        Start::Stage(name) => format!("starts from [{name}], with its tokenizer and configuration"),
        Start::Directory(dir) => {
            let origin = hub_local::origin(dir).map(|origin| format!(" ({origin})"));
            format!("starts from {}{}", dir.display(), origin.unwrap_or_default())
        }
    };
    let merged = if stage.merges_start { " and merges its adapter" } else { "" };
    lines.push(format!(
        "{from}{merged}; vocabulary of {} tokens",
        n(stage.tokenizer.vocab_size() as u64)
    ));
    if let Some(lora) = &stage.lora {
        lines.push(format!(
            "{} of rank {} and scale {} on {} layers; all other weights are frozen",
            if lora.adapter.is_some() { "continues an adapter" } else { "new adapter" },
            lora.config.rank,
            lora.config.scale(),
            lora.layout.layers.len()
        ));
        if lora.layout.unties {
            lines.push(
                "embedding and output layer are one weight in the base model; with this adapter they are two, and \
                 merged weights have an output layer of their own"
                    .to_owned(),
            );
        }
    }
    lines.extend(stage.keys.ema.map(|decay| average_note(stage, decay)));
    lines.extend(models_note(stage));
    lines.extend(stage.sources.iter().map(source));
    let sample = match stage.sample_kind {
        SampleKind::Documents | SampleKind::Chats => "sample",
        SampleKind::Pairs => "text",
        SampleKind::Completions => "completion",
        SampleKind::Prompts => "prompt",
    };
    // A pair is a row of the data and of an epoch, and has two texts.
    let row = if stage.sample_kind == SampleKind::Pairs { "pair" } else { "row" };
    lines.push(format!(
        "{} read: {}, {}; an epoch has {} with {}; {:.2} epochs",
        counted(counts.rows, "row"),
        counted(counts.samples, sample),
        counted(counts.tokens, "token"),
        counted(counts.epoch_rows, row),
        counted(counts.epoch_targets, "target"),
        stage.dataset.epoch_of(stage.max_steps),
    ));
    lines.extend(counts.file_choices.iter().cloned());
    lines.extend(validation_note(stage));
    lines.extend(tasks_note(stage));
    lines.extend(counts.drawn.iter().map(drawn));
    lines.extend(not_finite(counts));
    if counts.undesirable > 0 {
        lines.push(format!(
            "{} with the label false not read: fine-tuning learns the desirable completions",
            table::counted(counts.undesirable, "row")
        ));
    }
    if counts.filtered > 0 {
        lines.push(format!("{} rows skipped by `where`", n(counts.filtered)));
    }
    if counts.identical_texts > 0 {
        lines.push(format!("{} pairs dropped: both texts are equal", n(counts.identical_texts)));
    }
    if counts.different_prompts > 0 {
        lines.push(format!(
            "{} pairs dropped: the answers follow different prompts",
            n(counts.different_prompts)
        ));
    }
    if counts.truncated + counts.too_long + counts.without_targets > 0 {
        lines.push(format!(
            "{} of {} samples cut at {} tokens, {} dropped because they are longer, {} dropped because no target is left \
             (--list-cut lists them)",
            n(counts.truncated),
            n(counts.samples),
            stage.sequence_length,
            n(counts.too_long),
            n(counts.without_targets)
        ));
    }
    if counts.bad > 0 {
        lines.push(format!("{} unreadable rows skipped", n(counts.bad)));
        lines.extend(counts.bad_rows.iter().take(3).map(|row| format!("  {row}")));
    }
    if counts.empty > 0 {
        lines.push(format!("{} rows with an empty text or answer left out", n(counts.empty)));
    }
    if counts.duplicates > 0 {
        lines.push(format!("{} samples are duplicates", n(counts.duplicates)));
    }
    let memory = &stage.cost.memory;
    lines.push(format!(
        "memory: weights {}, gradients {}, optimizer {}, activations {}, logits {}",
        table::bytes(memory.weights),
        table::bytes(memory.gradients),
        table::bytes(memory.optimizer),
        table::bytes(memory.activations),
        table::bytes(memory.logits)
    ));
    lines.extend(sampling_memory(stage));
    lines.extend(stage.notes.iter().cloned());
    lines
}

/// Memory of the key–value cache of a stage that samples answers.
fn sampling_memory(stage: &StagePlan) -> Option<String> {
    let bytes = stage.cost.kv_cache_bytes;
    let config = &stage.config;
    let is_windowed = |layer: &usize| config.attention_window(*layer).is_some();
    let n_windowed = (0..config.n_layers()).filter(is_windowed).count();
    let windowed = match n_windowed {
        0 => String::new(),
        n => format!("; {n} of {} layers store their window only", config.n_layers()),
    };
    let text = format!("memory while sampling: keys and values {}{windowed}", table::bytes(bytes));
    (bytes > 0).then_some(text)
}

/// Number of values in JSON files that are no numbers.
pub(super) fn not_finite(counts: &DatasetCounts) -> Option<String> {
    (counts.not_finite > 0).then(|| {
        format!(
            "{} in JSON files, `NaN` or `Infinity`, read as missing",
            table::counted(counts.not_finite, "value")
        )
    })
}

/// Files, layout and columns of a data source, with what is not read.
pub(super) fn source(report: &SourceReport) -> String {
    let list = |names: &[String]| {
        let names: Vec<String> = names.iter().map(|name| format!("`{name}`")).collect();
        names.join(", ")
    };
    let mut line = report.path.clone();
    if report.files.len() > 1 {
        let name = |file: &PathBuf| {
            file.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
        };
        let shown: Vec<String> = report.files.iter().take(SHOWN_FILES).map(name).collect();
        let more = report.files.len() - shown.len();
        let more = if more == 0 { String::new() } else { format!(" and {more} more") };
        line += &format!(" ({}{more})", shown.join(", "));
    }
    line += &format!(": {}", report.layout);
    if !report.read.is_empty() {
        line += &format!(" from {}", list(&report.read));
    }
    if !report.unread.is_empty() {
        line += &format!("; not read: {}", list(&report.unread));
    }
    if !report.unread_fields.is_empty() {
        line += &format!("; fields of messages not read: {}", list(&report.unread_fields));
    }
    line
}

/// Models of a stage besides the trained one.
fn models_note(stage: &StagePlan) -> Option<String> {
    match stage.kind.work() {
        Work::Rows { distill: Some(distill), .. } => Some(teacher_note(distill)),
        Work::Rows { n_reference, n_kl_rows, .. } => (n_reference > 0).then(|| {
            let n = table::thousands(n_reference);
            let (texts, divergence) = match stage.sample_kind {
                SampleKind::Completions if n_kl_rows > 0 => (
                    "texts",
                    "; half of them, and one more forward pass for each row of a step, are prompts with the answer of \
                     another row, from which the divergence is estimated",
                ),
                SampleKind::Completions => ("completions", ""),
                SampleKind::Documents
                | SampleKind::Chats
                | SampleKind::Pairs
                | SampleKind::Prompts => ("pairs", ""),
            };
            format!(
                "reference log-probabilities of {n} {texts} are computed once, before training{divergence}"
            )
        }),
        Work::Groups(grpo) => Some(groups_note(stage, grpo)),
        Work::Rollouts(ppo) => Some(rollouts_note(ppo)),
    }
}

/// Numbers of drawn pairs, and of the texts that they are drawn from.
fn drawn(source: &DrawnPairCounts) -> String {
    let n = table::thousands;
    format!(
        "{}: {} rows match `chosen` and {} match `rejected` ({} match both and {} neither, and are not used); {} pairs \
         drawn for training, {} for validation",
        source.path,
        n(source.chosen),
        n(source.rejected),
        n(source.both),
        n(source.neither),
        n(source.train_pairs),
        n(source.eval_pairs),
    )
}

fn disk(plan: &Plan) -> String {
    let sizes = plan
        .stages
        .iter()
        .map(|stage| format!("{} {}", stage.name, table::bytes(stage.cost.checkpoint_bytes)));
    let sizes: Vec<String> = sizes.collect();
    let free = resources::free_disk(plan).map(|free| format!(", {} free", table::bytes(free)));
    format!(
        "  disk: checkpoint size {}; about {} in total{}\n",
        sizes.join(", "),
        table::bytes(resources::needed_disk(plan)),
        free.unwrap_or_default()
    )
}

/// Runs the probe of a stage. A failure of the device is returned as an error.
pub(super) fn timed(plan: &Plan, stage: &StagePlan) -> Result<f64> {
    let device = kernels::device(&plan.device)?;
    device_panics::run_stage(stage, &plan.device, &device, || probe(plan, stage))
}

/// Estimates the running time of a stage in seconds, from a few forward and backward passes on its first rows.
fn probe(plan: &Plan, stage: &StagePlan) -> Result<f64> {
    let device = kernels::device(&plan.device)?.autodiff();
    let model = model::CausalLm::init(&stage.config, 0, &device);
    let (batch, at_once) = match stage.sample_kind {
        SampleKind::Documents | SampleKind::Chats | SampleKind::Pairs | SampleKind::Completions => {
            let at_once = stage.micro_batch * stage.dataset.batch_rows() as usize;
            (stage.dataset.batch(0), at_once)
        }
        // Completions do not exist yet, so rows of full length replace them.
        SampleKind::Prompts => {
            // Scores are compared in pairs.
            let n_rows = match stage.kind.work() {
                Work::Rollouts(_) => stage.micro_batch.next_multiple_of(2),
                Work::Rows { .. } | Work::Groups(_) => stage.micro_batch,
            };
            (Batch::of_texts(&vec![vec![0; stage.sequence_length]; n_rows], 0), n_rows)
        }
    };
    let scalar = || ScalarModel::from_backbone(model.backbone.clone(), &stage.config, 0);
    let pass: Box<dyn Fn(&Batch)> = match stage.kind.work() {
        Work::Rows { distill: Some(distill), .. } if distill.section.top_k.is_none() => {
            let (model, device) = (&model, &device);
            let teacher =
                model::CausalLm::init(&distill.teacher_config, 0, &device.clone().inner());
            let teacher = Teacher::of(&teacher);
            Box::new(move |micro| distill_pass(model, &teacher, stage, distill, micro, device))
        }
        Work::Rows { output: HeadOutput::CrossEntropy | HeadOutput::Distributions, .. } => {
            Box::new(|micro| forward_backward(&model, micro, &device))
        }
        Work::Rows { output: HeadOutput::LogProbs, .. } => {
            Box::new(|micro| forward_backward(&model, &micro.trimmed(), &device))
        }
        Work::Groups(grpo) => {
            let rollouts = full_length(stage, grpo)?;
            let settings = grpo::settings(grpo, stage);
            let (model, device) = (&model, &device);
            Box::new(move |_| rl::forward_backward(model, &rollouts, &settings, device))
        }
        Work::Rows { output: HeadOutput::Scores, .. } | Work::Rollouts(_) => {
            let scalar = scalar();
            let device = device.clone();
            Box::new(move |micro| score_backward(&scalar, micro, &device))
        }
    };
    let started = Instant::now();
    let (mut rows, mut seconds) = (0, 0.0);
    // The first pass also allocates memory, so the last one counts.
    while started.elapsed().as_secs_f64() < PROBE_SECONDS {
        for micro in batch.micro_batches(at_once).take(1) {
            let start = Instant::now();
            pass(&micro);
            (rows, seconds) = (micro.rows, start.elapsed().as_secs_f64());
        }
    }
    let n_rows = stage.dataset.n_run_rows() * stage.dataset.batch_rows();
    // Replicas on GPUs run in parallel; those on the CPU share it.
    let n_devices = if plan.device == "cpu" { 1 } else { plan.replicas };
    let per_row = seconds / (rows.max(1) * n_devices) as f64;
    let mut per_answer = 0.0;
    let training = match stage.kind.work() {
        // What the probe left out is scaled by floating-point operations.
        Work::Rows { distill: Some(distill), .. } => {
            let probed = plan_evaluations::probed_flops(stage, distill) * n_rows as f64;
            per_row * n_rows as f64 * (stage.cost.flops / probed).max(1.0)
        }
        Work::Rows { n_reference, n_kl_rows, .. } => {
            // A forward pass takes a third of forward and backward.
            let n_forward = n_reference * stage.dataset.batch_rows() + n_kl_rows;
            per_row * (n_rows as f64 + n_forward as f64 / 3.0)
        }
        Work::Groups(grpo) => {
            let n_rows = stage.max_steps as f64 * stage.rows_per_step as f64;
            // A forward pass takes a third of forward and backward.
            let passes = grpo.section.num_iterations as f64 + grpo.n_scoring_passes() as f64 / 3.0;
            let sampling = sampling_seconds(&model, stage, grpo)?;
            per_answer = sampling / stage.rows_per_step.max(1) as f64;
            per_row * n_rows * passes + sampling * stage.max_steps as f64 / n_devices as f64
        }
        Work::Rollouts(_) => {
            // Scaled by floating-point operations.
            let length = stage.sequence_length as u64;
            let probed = stage.config.training_flops(1, length, HeadOutput::LogProbs);
            per_row * stage.cost.flops / probed
        }
    };
    // One replica evaluates.
    let per_row = per_row * n_devices as f64;
    Ok(training + plan_evaluations::seconds(stage, per_row, per_answer))
}

fn score_backward(scorer: &ScalarModel, micro: &Batch, device: &Device) {
    let scores_b = evaluate::text_scores(scorer, &micro.trimmed(), device);
    drop(reward::Objective::default().loss(scores_b, &micro.margins).sum.backward());
}

/// The teacher's forward pass, and the student's passes.
fn distill_pass(
    model: &CausalLm,
    teacher: &Teacher,
    stage: &StagePlan,
    distill: &DistillPlan,
    micro: &Batch,
    device: &Device,
) {
    let micro = micro.trimmed();
    let targets = TeacherTargets::of(teacher, &micro);
    let mut gradients = Gradients::new(&ParameterNames::of(model));
    let objective = Objective::of(stage, distill);
    objective.accumulate(model, &targets, &micro, device, &mut gradients);
}

fn forward_backward(model: &CausalLm, micro: &Batch, device: &Device) {
    let (b, t) = (micro.rows, micro.sequence_length);
    let tokens = TokenBatch::new(&micro.ids, &micro.positions, &micro.segments, b, t, device);
    let targets_n = Tensor::<1, Int>::from_data(micro.targets.as_slice(), device);
    let hidden_nd = model.forward(&tokens).hidden_nd();
    let count = micro.n_targets as u64;
    let loss = loss::cross_entropy(hidden_nd, model.head(), targets_n, count);
    // The backward pass frees the graph.
    drop(loss.sum.backward());
}
