//! `temper sweep`: a grid of runs, one after the other, that can be interrupted and repeated.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::support::{Outcome, Place, TEXT, tiny_recipe};

/// A recipe with validation data.
fn place() -> Place {
    let place = Place::new();
    let eval = "eval = { holdout = 0.1, every_steps = 2 }\n";
    let row = |n: usize| format!("{{\"text\": \"{n} {}\"}}\n", TEXT.trim());
    place
        .write("text.jsonl", (0..40).map(row).collect::<String>())
        .write("tiny.toml", tiny_recipe("{ path = \"text.jsonl\" }", eval));
    place
}

fn sweep(place: &Place, rest: &[&str]) -> Outcome {
    place.temper(&[&["sweep", "tiny.toml", "--no-probe", "--log", "plain"], rest].concat())
}

fn runs(place: &Place) -> Vec<String> {
    let Ok(entries) = std::fs::read_dir(place.path().join("runs")) else { return Vec::new() };
    let names = entries.map(|entry| entry.expect("an entry").file_name());
    let mut names: Vec<String> = names.map(|name| name.to_string_lossy().into_owned()).collect();
    names.retain(|name| !name.starts_with('.'));
    names.sort();
    names
}

#[test]
fn a_grid_is_planned_trained_and_compared() {
    let place = place();
    let rates = ["--set", "optimizer.lr=1e-3,1e-2", "--set", "seed=1,2", "--set", "max_steps=4"];
    let dry = place.temper(&[&["sweep", "tiny.toml", "--dry-run"][..], &rates].concat());
    assert_eq!(dry.code, Some(0), "{}", dry.stderr);
    for part in
        ["lr     seed   steps", "4 runs · about 0:0", "of disk space", "tiny-lr-1e-3-seed-2"]
    {
        assert!(dry.stdout.contains(part), "{part}: {}", dry.stdout);
    }
    assert_eq!(runs(&place), [""; 0]);

    let trained = sweep(&place, &rates);
    assert_eq!(trained.code, Some(0), "{}", trained.stderr);
    assert!(
        trained.stderr.contains("run 2 of 4: lr = 1e-3, seed = 2 (runs/tiny-lr-1e-3-seed-2)"),
        "{}",
        trained.stderr
    );
    let names = [
        "tiny-lr-1e-2-seed-1",
        "tiny-lr-1e-2-seed-2",
        "tiny-lr-1e-3-seed-1",
        "tiny-lr-1e-3-seed-2",
    ];
    assert_eq!(runs(&place), names);
    let table = trained.stdout.split("\n\n").nth(1).expect("a table").to_owned();
    assert_eq!(table.lines().filter(|line| line.contains(" loss ")).count(), 4, "{table}");
    // A larger rate learns more of this text in four steps.
    let best = table.lines().find(|line| line.contains(" *  ")).expect("a mark");
    assert!(best.starts_with("1e-2"), "{table}");
    assert!(table.contains("* best [pretrain]: runs/tiny-lr-1e-2-seed-"), "{table}");

    // Finished runs are skipped, and a larger grid trains only its new runs.
    let again = sweep(&place, &rates);
    assert_eq!(again.code, Some(0), "{}", again.stderr);
    assert!(again.stdout.contains("4 runs, 4 of them finished\n"), "{}", again.stdout);
    assert!(again.stdout.ends_with(&table), "{}", again.stdout);
    let more =
        ["--set", "optimizer.lr=1e-3,1e-2,2e-2", "--set", "seed=1,2", "--set", "max_steps=4"];
    let more = sweep(&place, &more);
    assert_eq!(more.code, Some(0), "{}", more.stderr);
    assert!(more.stderr.contains("run 1 of 2: lr = 2e-2, seed = 1"), "{}", more.stderr);
    assert_eq!(runs(&place).len(), 6);

    // Another recipe under the same names is refused before anything is trained.
    let other = sweep(
        &place,
        &["--set", "optimizer.lr=1e-3,1e-2", "--set", "seed=1,2", "--set", "tokens_per_step=128"],
    );
    assert_eq!(other.code, Some(2), "{}", other.stderr);
    assert!(other.stderr.contains("error: tiny-lr-1e-3-seed-1: "), "{}", other.stderr);
    assert!(other.stderr.contains("tokens_per_step"), "{}", other.stderr);
    let resumed = place.temper(&["resume", "tiny-lr-2e-2-seed-1"]);
    assert_eq!(resumed.code, Some(0), "{}", resumed.stderr);
}

#[test]
fn a_run_that_fails_does_not_stop_the_others() {
    let place = place();
    // Another process has the first run open.
    let run = place.path().join("runs/try-seed-1");
    fsio::create_dir_all(&run).expect("a directory");
    let lock = fsio::Lock::acquire(run.join("LOCK")).expect("free");
    let failed = sweep(&place, &["--set", "seed=1,2", "--name", "try"]);
    drop(lock);
    assert_eq!(failed.code, Some(1), "{}", failed.stderr);
    assert!(failed.stderr.contains("error: try-seed-1: "), "{}", failed.stderr);
    assert!(failed.stderr.contains("error: 1 of 2 runs failed"), "{}", failed.stderr);
    let line = |start: &str| {
        let lines = failed.stdout.lines().rev();
        lines.into_iter().find(|line| line.starts_with(start)).unwrap_or_default().to_owned()
    };
    assert!(line("1 ").contains("failed"), "{}", failed.stdout);
    assert!(line("2 ").contains("loss "), "{}", failed.stdout);
    let again = sweep(&place, &["--set", "seed=1,2", "--name", "try"]);
    assert_eq!(again.code, Some(0), "{}", again.stderr);
    assert!(again.stderr.contains("run 1 of 1: seed = 1"), "{}", again.stderr);
}

#[test]
fn what_is_wrong_is_found_before_the_first_run() {
    let place = place();
    for (set, part) in [
        (&["--set", "optimizer.lr=1e-3"][..], "no key has several values"),
        (&["--set", "optimizer.lr=1e-3,"], "a value is empty"),
        (
            &["--set", "optimizer.lr=1e-3,fast"],
            "`lr` in [pretrain.optimizer] must be a number: `\"fast\"`",
        ),
        (&["--set", "nothing=1,2"], "unknown key `nothing`"),
        (&["--set", "sequence_length=32,64"], "`sequence_length` in [pretrain] must be at most"),
        (
            &[
                "--set",
                "seed=1,2",
                "--set",
                "model.hidden_size=16384",
                "--set",
                "model.num_hidden_layers=100",
                "--set",
                "model.intermediate_size=65536",
                "--set",
                "model.num_attention_heads=128",
            ],
            "error: tiny-seed-1: [pretrain] needs ",
        ),
    ] {
        let outcome = sweep(&place, set);
        assert_eq!(outcome.code, Some(2), "{set:?}: {}", outcome.stderr);
        assert!(outcome.stderr.contains(part), "{set:?}: {}", outcome.stderr);
        assert_eq!(runs(&place), [""; 0], "{set:?}");
    }
}

#[test]
fn an_interrupted_sweep_goes_on() {
    let place = place();
    let set = ["--set", "seed=1,2", "--set", "max_steps=200", "--set", "log_every_steps=1"];
    let arguments = [&["sweep", "tiny.toml", "--no-probe", "--log", "plain"][..], &set].concat();
    let mut child = Command::new(env!("CARGO_BIN_EXE_temper"))
        .args(&arguments)
        .current_dir(place.path())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("the binary runs");
    let metrics = place.path().join("runs/tiny-seed-1/pretrain/metrics.jsonl");
    let start = Instant::now();
    while !std::fs::read_to_string(&metrics).is_ok_and(|text| text.lines().count() > 3) {
        assert!(start.elapsed() < Duration::from_mins(2), "no step");
        std::thread::sleep(Duration::from_millis(5));
    }
    let killed = Command::new("kill").args(["-INT", &child.id().to_string()]).status();
    assert!(killed.is_ok_and(|status| status.success()));
    let status = child.wait().expect("a status");
    let mut text = String::new();
    let mut stdout = child.stdout.take().expect("a pipe");
    std::io::Read::read_to_string(&mut stdout, &mut text).expect("UTF-8");
    assert_eq!(status.code(), Some(75), "{text}");
    assert!(text.contains("interrupted") && text.contains("waiting"), "{text}");
    let again = place.temper(&arguments);
    assert_eq!(again.code, Some(0), "{}", again.stderr);
    assert!(again.stdout.contains("resumes [pretrain] at step "), "{}", again.stdout);
    assert!(again.stderr.contains("resuming from "), "{}", again.stderr);
}
