//! Runs that exist: their list, curves, comparison, repetition, removal, and the page about them.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::support::{Place, TEXT, tiny_recipe, trained};

fn read(place: &Place, path: &str) -> String {
    std::fs::read_to_string(place.path().join(path)).expect("a text file")
}

fn json(text: &str) -> Value {
    serde_json::from_str(text).expect("JSON")
}

/// stdout of a command that succeeds.
fn printed(place: &Place, args: &[&str]) -> String {
    let outcome = place.temper(args);
    assert_eq!(outcome.code, Some(0), "{args:?}: {}", outcome.stderr);
    outcome.stdout
}

#[test]
fn a_run_records_its_plan_its_outcome_and_a_page() {
    let place = trained();
    let plan = json(&read(&place, "runs/tiny/plan.json"));
    let stage = &plan["stages"][0];
    assert_eq!(stage["name"], "pretrain");
    assert_eq!(stage["steps"], 3);
    assert_eq!(stage["sources"][0]["path"], "text.txt");
    assert!(stage["counts"]["rows"].as_u64().is_some_and(|rows| rows > 0), "{plan:#}");
    let report = json(&read(&place, "runs/tiny/report.json"));
    assert_eq!(report["outcome"], "finished");
    assert_eq!(report["sessions"], 1);
    assert!(report["stages"][0]["peak_memory_bytes"].as_u64().is_some_and(|bytes| bytes > 1 << 20));
    let page = read(&place, "runs/tiny/report.html");
    for part in ["tiny", "text.txt", "Loss", "temper runs reproduce tiny", "model.safetensors"] {
        assert!(page.contains(part), "{part}");
    }
    assert!(!page.contains(&place.path().display().to_string()), "no path of the machine");

    fsio::remove_file(place.path().join("runs/tiny/report.html")).expect("removed");
    assert_eq!(printed(&place, &["report", "tiny"]), "runs/tiny/report.html\n");
    let recipe = read(&place, "runs/tiny/recipe.toml");
    let error = place.error(&["report", "tiny", "--out", "runs/tiny/recipe.toml"]);
    assert!(error.starts_with("exit 2"), "{error}");
    assert_eq!(read(&place, "runs/tiny/recipe.toml"), recipe);
    assert_eq!(read(&place, "runs/tiny/report.html"), page);
    assert_eq!(printed(&place, &["report", "runs/tiny", "--out", "-"]), page);
    let again = printed(&place, &["run", "tiny.toml"]);
    assert!(again.contains("report  runs/tiny/report.html"), "{again}");
    assert_eq!(json(&read(&place, "runs/tiny/report.json"))["sessions"], 2);
    insta::assert_snapshot!("no_such_run", place.error(&["report", "nobody"]));
}

#[test]
fn runs_are_listed_and_shown() {
    let place = trained();
    let table = printed(&place, &["runs"]);
    assert!(table.contains("3/3") && table.contains("finished"), "{table}");
    let row = json(printed(&place, &["runs", "--json"]).trim());
    assert_eq!(
        (&row["run"], &row["state"], &row["step"]),
        (&"tiny".into(), &"finished".into(), &3.into())
    );
    assert_eq!(row["max_steps"], 3);
    let shown = printed(&place, &["runs", "show", "tiny"]);
    assert!(shown.starts_with("tiny · finished\n") && shown.contains("Loss: training "), "{shown}");
    assert!(shown.contains("Learning rate") && shown.contains('▁'), "{shown}");
    assert_eq!(printed(&place, &["runs", "show", "runs/tiny", "--stage", "pretrain"]), shown);
    insta::assert_snapshot!(
        "no_such_stage",
        place.error(&["runs", "show", "tiny", "--stage", "sft"])
    );
}

#[test]
fn two_runs_are_compared() {
    let place = trained();
    let other = ["run", "tiny.toml", "--name", "other", "--set", "pretrain.optimizer.lr=2e-3"];
    printed(&place, &other);
    let diff = printed(&place, &["runs", "diff", "tiny", "other"]);
    assert!(diff.contains("pretrain.optimizer.lr: 0.001 → 0.002"), "{diff}");
    assert!(diff.contains("data and weights: no difference"), "{diff}");
    // The first loss is that of the same weights on the same data; the rate of its step differs.
    assert!(
        diff.contains("pretrain: different from the first logged step; at step 1: lr"),
        "{diff}"
    );
    let same = printed(&place, &["runs", "diff", "tiny", "tiny"]);
    assert!(same.contains("recipe: no difference"), "{same}");
    assert!(same.contains("equal to the last bit at 2 logged steps"), "{same}");
    assert!(same.contains("the same model to the last bit"), "{same}");
}

#[test]
fn a_run_is_repeated_from_its_directory_alone() {
    let place = trained();
    // The recipe that the run was started with is gone.
    fsio::remove_file(place.path().join("tiny.toml")).expect("removed");
    let outcome = printed(&place, &["runs", "reproduce", "tiny"]);
    assert!(outcome.contains("2 logged steps and all weights agree"), "{outcome}");
    assert!(outcome.contains("tiny and tiny-again agree to the last bit"), "{outcome}");
    insta::assert_snapshot!("reproduced_before", place.error(&["runs", "reproduce", "tiny"]));

    let metrics = read(&place, "runs/tiny/pretrain/metrics.jsonl");
    let changed = metrics.replacen("\"loss\":", "\"loss\":1", 1);
    place.write("runs/tiny/pretrain/metrics.jsonl", changed);
    let outcome = place.temper(&["runs", "reproduce", "tiny", "--name", "third"]);
    assert_eq!(outcome.code, Some(1), "{}", outcome.stderr);
    assert!(outcome.stdout.contains("differs from step 1: loss"), "{}", outcome.stdout);
}

#[test]
fn a_run_is_removed_when_nobody_uses_it() {
    let place = trained();
    let run = place.path().join("runs/tiny");
    insta::assert_snapshot!("no_terminal", place.error(&["runs", "rm", "tiny"]));
    let lock = fsio::Lock::acquire(run.join("LOCK")).expect("free");
    let refused = place.error(&["runs", "rm", "tiny", "--yes"]);
    assert!(refused.contains("locked by another process"), "{refused}");
    drop(lock);

    let kept = printed(&place, &["runs", "rm", "tiny", "--keep-model", "--yes"]);
    assert!(kept.contains("pretrain/checkpoints") && kept.contains("removed "), "{kept}");
    assert!(!run.join("pretrain/checkpoints").exists());
    printed(
        &place,
        &["generate", "runs/tiny/pretrain", "--prompt", "The", "--max-new-tokens", "2"],
    );
    assert!(printed(&place, &["run", "tiny.toml"]).contains("runs/tiny/pretrain"));
    // Another recipe is still compared with the one that trained it.
    let other = place.error(&["run", "tiny.toml", "--set", "pretrain.optimizer.lr=2e-3"]);
    assert!(other.starts_with("exit 2") && other.contains("pretrain.optimizer.lr"), "{other}");
    let nothing = printed(&place, &["runs", "rm", "tiny", "--keep-model", "--yes"]);
    assert!(nothing.contains("nothing to remove"), "{nothing}");

    // A directory that `temper run` did not make stays.
    place.write("runs/mine/recipe.toml", "notes");
    assert_eq!(place.temper(&["runs", "rm", "mine", "--yes"]).code, Some(2));
    // The remains of a removal that was killed are removed; those of a removal in progress are not.
    place.write("runs/.old.removed-1/pretrain/model/model.safetensors", "weights");
    place.write("runs/.new.removed-2/launch.json", "{}");
    let removes = fsio::Lock::acquire(place.path().join("runs/.new.removed-2/LOCK")).expect("free");
    let said = printed(&place, &["runs", "rm", "runs/tiny", "--yes"]);
    assert!(said.contains("an interrupted removal had left"), "{said}");
    assert!(place.path().join("runs/.new.removed-2").exists());
    drop(removes);
    fsio::remove_dir_all(place.path().join("runs/.new.removed-2")).expect("removed");
    assert!(!run.exists() && place.path().join("runs/mine").exists());
    let left: Vec<_> =
        std::fs::read_dir(place.path().join("runs")).expect("runs").flatten().collect();
    assert_eq!(left.len(), 2, "the cache and the directory that is no run: {left:?}");
}

#[test]
fn a_model_that_a_live_run_reads_is_not_removed() {
    let place = trained();
    let plan = "{\"stages\": [{\"name\": \"sft\", \"models\": [\"runs/tiny/pretrain\"]}]}";
    place.write("runs/reader/plan.json", plan);
    let lock = fsio::Lock::acquire(place.path().join("runs/reader/LOCK")).expect("free");
    insta::assert_snapshot!("read_by_another", place.error(&["runs", "rm", "tiny", "--yes"]));
    drop(lock);
    printed(&place, &["runs", "rm", "tiny", "--yes"]);
}

#[test]
fn the_cache_is_shown_and_cleared() {
    let place = trained();
    let shown = printed(&place, &["cache"]);
    assert!(shown.contains("tokenized data") && shown.contains("trained tokenizers"), "{shown}");
    insta::assert_snapshot!("no_terminal_for_the_cache", place.error(&["cache", "clear"]));
    let lock = fsio::Lock::acquire(place.path().join("runs/tiny/LOCK")).expect("free");
    insta::assert_snapshot!("cache_in_use", place.error(&["cache", "clear", "--yes"]));
    drop(lock);
    place.write("runs/.cache/notes.txt", "mine").write("runs/.cache/other/file", "mine");
    let cleared = printed(&place, &["cache", "clear", "--yes"]);
    assert!(
        cleared.contains("removed ") && cleared.contains("not from Temper (kept)"),
        "{cleared}"
    );
    assert_eq!(
        read(&place, "runs/.cache/notes.txt") + &read(&place, "runs/.cache/other/file"),
        "minemine"
    );
    let again = printed(&place, &["cache", "clear", "--yes"]);
    assert!(again.contains("removed 0 B"), "{again}");
    assert_eq!(printed(&Place::new(), &["cache"]), "the cache is empty\n");
    printed(&place, &["run", "tiny.toml", "--name", "after"]);
}

/// A link in place of a directory leads to what no run made.
#[cfg(unix)]
#[test]
fn nothing_is_removed_through_a_link() {
    let place = trained();
    let link = |to: &str, from: &str| {
        std::os::unix::fs::symlink(place.path().join(to), place.path().join(from)).expect("a link");
    };
    place.write("precious/checkpoints/file", "mine").write("linked/keep", "");
    link("precious", "linked/.cache");
    let refused = place.temper(&["cache", "clear", "--dir", "linked", "--yes"]);
    assert_eq!(refused.code, Some(2), "{}", refused.stderr);
    assert!(refused.stderr.contains("a link, not the cache of these runs"), "{}", refused.stderr);
    fsio::rename(place.path().join("runs/tiny/pretrain"), place.path().join("moved"))
        .expect("moved");
    place.write("moved/checkpoints/file", "mine");
    link("moved", "runs/tiny/pretrain");
    printed(&place, &["runs", "rm", "tiny", "--keep-model", "--yes"]);
    assert_eq!(read(&place, "moved/checkpoints/file"), "mine");
    assert_eq!(read(&place, "precious/checkpoints/file"), "mine");
}

#[test]
fn a_failed_run_says_why() {
    let place = Place::new();
    place
        .write("text.txt", TEXT.repeat(40))
        .write("tiny.toml", tiny_recipe("{ path = \"text.txt\" }", ""));
    // A directory in place of the log.
    place.write("runs/tiny/pretrain/metrics.jsonl/file", "");
    let outcome = place.temper(&["run", "tiny.toml"]);
    assert_eq!(outcome.code, Some(1), "{}", outcome.stderr);
    let report = json(&read(&place, "runs/tiny/report.json"));
    assert_eq!(report["outcome"], "failed");
    let page = read(&place, "runs/tiny/report.html");
    assert!(page.contains("The run failed: ") && page.contains("metrics.jsonl"), "{page}");
    assert!(printed(&place, &["runs", "show", "tiny"]).starts_with("tiny · failed\n"));
}

/// Waits until a condition holds, but not for ever.
fn wait_for(mut condition: impl FnMut() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < Duration::from_mins(2), "it did not happen");
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn the_list_is_correct_while_a_run_is_in_progress_and_after_it_was_killed() {
    let place = Place::new();
    place
        .write("text.txt", TEXT.repeat(40))
        .write("tiny.toml", tiny_recipe("{ path = \"text.txt\" }", ""));
    let args = ["run", "tiny.toml", "--set", "pretrain.max_steps=1000000", "--log", "plain"];
    let mut child = Command::new(env!("CARGO_BIN_EXE_temper"))
        .args(args)
        .current_dir(place.path())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("the binary runs");
    let row = || -> Option<Value> {
        if !Path::new(&place.path().join("runs/tiny/plan.json")).exists() {
            return None;
        }
        let text = printed(&place, &["runs", "--json"]);
        text.lines().next().map(json)
    };
    wait_for(|| row().is_some_and(|row| row["step"].as_u64() > Some(1)));
    let running = row().expect("a stage");
    assert_eq!(running["state"], "running", "{running}");
    assert_eq!(running["max_steps"], 1_000_000);
    assert!(running["seconds_left"].as_f64().is_some_and(|left| left > 0.0), "{running}");
    let shown = printed(&place, &["runs", "show", "tiny"]);
    assert!(shown.starts_with("tiny · running\n") && shown.contains("left "), "{shown}");
    printed(&place, &["report", "tiny"]);
    assert!(read(&place, "runs/tiny/report.html").contains("The run is in progress."));

    child.kill().expect("killed");
    child.wait().expect("a status");
    let killed = row().expect("a stage");
    assert_ne!(killed["state"], "running", "{killed}");
    assert!(killed["seconds_left"].is_null(), "{killed}");
    printed(&place, &["report", "tiny"]);
    let page = read(&place, "runs/tiny/report.html");
    assert!(page.contains("was interrupted") && page.contains("temper resume tiny"), "{page}");
}
