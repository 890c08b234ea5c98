//! Runs that are in progress, were killed, failed, or lost files. Each has a page that says so.

use report::{RunData, RunState, StageState, page};

use crate::support::Copy;

/// A run that was killed in its last stage, without `finished.json` and a model.
fn killed() -> Copy {
    let copy = Copy::new();
    copy.remove("ppo/finished.json").remove("ppo/model").remove("report.json");
    copy
}

#[test]
fn a_killed_run_is_interrupted_and_says_how_to_continue() {
    let copy = killed();
    let metrics = copy.text("ppo/metrics.jsonl");
    copy.write("ppo/metrics.jsonl", &metrics[..metrics.len() - 20]);
    let run = RunData::read(&copy.path()).expect("a run");
    assert_eq!(run.state, RunState::Interrupted);
    assert_eq!(run.stages[2].state, StageState::Interrupted);
    assert_eq!(run.all_problems(), ["ppo: metrics.jsonl: the last line is incomplete"]);
    let page = page(&run);
    assert!(page.contains("temper resume kind"), "{page}");
    assert!(page.contains("ppo: metrics.jsonl: the last line is incomplete"));
}

#[test]
fn a_run_that_a_process_has_open_is_running_and_has_a_time_left() {
    let copy = killed();
    let lock = fsio::Lock::acquire(copy.path().join("LOCK")).expect("free");
    let mut plan = copy.text("plan.json");
    plan = plan.replace("\"steps\": 12", "\"steps\": 24");
    copy.write("plan.json", plan);
    let run = RunData::read(&copy.path()).expect("a run");
    assert_eq!(run.state, RunState::Running { pid: Some(std::process::id()) });
    let ppo = &run.stages[2];
    assert_eq!((ppo.state, ppo.step(), ppo.max_steps()), (StageState::Running, 12, 24));
    // 12 steps of 600 tokens, at 5,200 tokens per second.
    let left = ppo.seconds_left().expect("an estimate");
    assert!((left - 7200.0 / 5200.0).abs() < 1e-9, "{left}");
    assert!(page(&run).contains("in progress"));
    drop(lock);
    assert_eq!(RunData::read(&copy.path()).expect("a run").state, RunState::Interrupted);
}

#[test]
fn a_failure_is_on_the_page_with_its_message() {
    let copy = killed();
    let report = "{\"outcome\": \"failed\", \"error\": \"the loss is not finite at step 9\"}";
    copy.write("report.json", report);
    let run = RunData::read(&copy.path()).expect("a run");
    assert_eq!(run.stages[2].state, StageState::Failed);
    assert!(page(&run).contains("The run failed: the loss is not finite at step 9"));
}

#[test]
fn a_stage_without_metrics_has_a_section() {
    let copy = killed();
    copy.remove("ppo");
    let run = RunData::read(&copy.path()).expect("a run");
    assert_eq!(run.stages[2].state, StageState::Waiting);
    assert!(page(&run).contains("The stage has not begun."));
    // A run of an older version has neither plan nor report.
    copy.remove("plan.json").remove("launch.json");
    let run = RunData::read(&copy.path()).expect("a run");
    assert_eq!(run.stages.len(), 2);
    assert_eq!(run.state, RunState::Finished);
    assert!(page(&run).contains("instructions.jsonl"), "the recipe is shown");
}

#[test]
fn an_empty_run_and_no_run_are_told_apart() {
    let copy = Copy::new();
    for name in ["sft", "reward", "ppo", "plan.json", "report.json"] {
        copy.remove(name);
    }
    let run = RunData::read(&copy.path()).expect("a run");
    assert_eq!(run.state, RunState::Empty);
    assert!(page(&run).contains("No stage of this run has begun."));
    copy.remove("recipe.toml").remove("launch.json");
    let error = RunData::read(&copy.path()).expect_err("not a run").to_string();
    assert!(error.starts_with("not the directory of a run: `"), "{error}");
}

#[test]
fn damaged_files_are_sentences_on_the_page() {
    for (name, bytes) in [
        ("plan.json", &b"{\"stages\": 3}"[..]),
        ("report.json", b"\xff\xfe"),
        ("launch.json", b"["),
        ("recipe.toml", b"\xff"),
        ("sft/finished.json", b"{"),
        ("sft/metrics.jsonl", b"\x00\xff\n{}\n{\"step\":-1}\n{\"step\":1,\"loss\":1e999}\nnull\n"),
        ("sft/samples.jsonl", b"{\"step\":1}\n{\"step\":2,\"text\":\"\"}"),
        ("sft/model/MANIFEST", b"{}"),
        ("sft/checkpoints/step-000060/MANIFEST", b""),
        (
            "reward/calibration.json",
            b"{\"bins\":[{\"n\":0},{\"n\":18446744073709551615,\"confidence_sum\":null}]}",
        ),
        (
            "reward/calibration.json",
            b"{\"step\":1,\"bins\":[{\"n\":0},{\"n\":18446744073709551615}]}",
        ),
    ] {
        let copy = Copy::new();
        copy.write(name, bytes);
        let run = RunData::read(&copy.path()).expect("a run");
        let page = page(&run);
        assert!(page.ends_with("</html>\n"), "{name}");
        for problem in run.all_problems() {
            assert!(!problem.is_empty(), "{name}");
        }
    }
}

/// Names in the files of a run lead nowhere else.
#[test]
fn stages_of_a_plan_are_directories_of_the_run() {
    let copy = Copy::new();
    copy.write(
        "plan.json",
        "{\"stages\": [{\"name\": \"../kind/sft\"}, {\"name\": \"/\"}, {\"name\": \"\"}]}",
    );
    let run = RunData::read(&copy.path()).expect("a run");
    let names: Vec<&str> = run.stages.iter().map(|stage| stage.name.as_str()).collect();
    assert_eq!(names, ["sft", "reward", "ppo"]);
}
