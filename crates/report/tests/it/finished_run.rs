//! A finished run of three stages.

use report::{Outcome, RunData, RunState, StageState, last_validation, page, part_at};

use crate::support::fixture;

fn run() -> RunData {
    RunData::read(&fixture()).expect("the fixture is a run")
}

/// The page without its style, whose paths are those of every checkout.
fn shown(run: &RunData) -> String {
    let page = page(run).replace(&fixture().display().to_string(), "RUN");
    let (start, rest) = page.split_once("<style>").expect("a style");
    let (_, rest) = rest.split_once("</style>").expect("an end of the style");
    format!("{start}<style></style>{rest}")
}

#[test]
fn the_page_shows_the_whole_run() {
    insta::assert_snapshot!(shown(&run()));
}

#[test]
fn the_page_needs_nothing_else_and_runs_no_script() {
    let page = page(&run());
    for word in ["<script", "javascript:", "http://", "https://", "@import", "url(", "src="] {
        assert!(!page.contains(word), "{word}");
    }
    assert!(
        page.contains("default-src &#39;none&#39;"),
        "a policy refuses what is not in the page"
    );
}

#[test]
fn foreign_text_is_escaped_wherever_it_is() {
    let mut run = run();
    let hostile = "</style></title><img onerror=x>\u{202e}\u{1b}".to_owned();
    let stage = &mut run.stages[0];
    stage.name.clone_from(&hostile);
    stage.samples[0].prompt.clone_from(&hostile);
    stage.samples[0].text.clone_from(&hostile);
    stage.metrics.series[0].name.clone_from(&hostile);
    stage.model_files[0].name.clone_from(&hostile);
    stage.problems.push(hostile.clone());
    let plan = stage.plan.as_mut().expect("a plan");
    for text in [&mut plan.start, &mut plan.per_step, &mut plan.notes[0], &mut plan.sources[0].path]
    {
        text.clone_from(&hostile);
    }
    run.name.clone_from(&hostile);
    run.recipe = Some(hostile.clone());
    run.state = RunState::Failed { error: hostile };
    let page = page(&run);
    assert!(!page.contains("<img"), "{page}");
    assert!(!page.contains(['\u{202e}', '\u{1b}']));
    assert_eq!(page.matches("</style>").count(), 1);
}

#[test]
fn planned_times_are_beside_measured_ones_and_results_of_tasks_beside_them() {
    let mut run = run();
    assert!(!page(&run).contains("(planned "), "the fixture was run without `temper plan`");
    let stage = &mut run.stages[0];
    stage.plan.as_mut().expect("a plan").seconds = Some(52.4);
    let result = &mut stage.finished.as_mut().expect("an end").result;
    result["task/arc_easy/acc"] = 0.625.into();
    result["task/arc_easy/acc_stderr"] = 0.125.into();
    let page = page(&run);
    for text in ["(planned 0:52)", "about 0:52", "Task arc_easy/acc", "0.6250 ± 0.1250"] {
        assert!(page.contains(text), "{text}");
    }
    assert!(!page.contains("Task arc_easy/acc_stderr"));
}

#[test]
fn the_directory_is_read_as_it_is() {
    let run = run();
    assert_eq!(run.state, RunState::Finished);
    assert_eq!(run.report.as_ref().map(|report| report.outcome), Some(Outcome::Finished));
    let names: Vec<&str> = run.stages.iter().map(|stage| stage.name.as_str()).collect();
    assert_eq!(names, ["sft", "reward", "ppo"]);
    assert!(run.stages.iter().all(|stage| stage.state == StageState::Finished));
    assert_eq!(run.all_problems(), Vec::<String>::new());
    let validations = run.stages.iter().map(|stage| last_validation(&stage.metrics));
    let validations: Vec<String> = validations.flatten().map(|last| last.to_string()).collect();
    assert_eq!(validations, ["loss 3.015", "accuracy 0.8830", "score 2.300"]);
    let (n_steps, parting) = part_at(&run.stages[0].metrics, &run.stages[0].metrics);
    assert_eq!((n_steps, parting), (60, None));
}
