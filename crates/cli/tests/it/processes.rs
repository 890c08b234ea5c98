//! Runs beside other processes, signals, limits and streams that are closed or that nobody reads.

use std::io::Read as _;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use crate::support::{Place, say, tiny_recipe, trained};

const TEXT: &str = "The quick brown fox jumps over the lazy dog, again and again.\n";

/// A directory with a text and a recipe that trains on it.
fn place() -> Place {
    let place = Place::new();
    place
        .write("text.txt", TEXT.repeat(40))
        .write("tiny.toml", tiny_recipe("{ path = \"text.txt\" }", ""));
    place
}

/// The binary, or a program that is to run it.
fn command(place: &Place, program: &str, args: &[&str]) -> Command {
    let mut command = Command::new(program);
    command.args(args).current_dir(place.path()).env_remove("TEMPER_DATA");
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command
}

/// Waits for a child, but not for ever.
fn ends(child: &mut Child, within: Duration) -> ExitStatus {
    let start = Instant::now();
    loop {
        if let Some(status) = child.try_wait().expect("a status") {
            return status;
        }
        if start.elapsed() > within {
            let _ = child.kill();
            panic!("still running after {within:?}");
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn stderr_of(child: &mut Child) -> String {
    let mut text = String::new();
    child.stderr.take().expect("a pipe").read_to_string(&mut text).expect("UTF-8");
    text
}

/// Whether `unshare` can give processes ids of their own here, as containers that share a directory have them.
fn has_namespaces() -> bool {
    let status =
        Command::new("unshare").args(["--pid", "--fork", "true"]).stderr(Stdio::null()).status();
    status.is_ok_and(|status| status.success())
}

#[test]
fn many_processes_on_a_cold_cache() {
    let temper = env!("CARGO_BIN_EXE_temper");
    let namespaces = has_namespaces();
    if !namespaces {
        say("skipped: processes with ids of their own, `unshare --pid` does not work here");
    }
    for round in 0..4 {
        let place = place();
        let start = |k: usize| {
            let name = format!("r{k}");
            let run = [temper, "run", "tiny.toml", "--name", &name, "--log", "plain"];
            let mut command = if namespaces && round % 2 == 1 {
                command(&place, "unshare", &[&["--pid", "--fork"][..], &run].concat())
            } else {
                command(&place, temper, &run[1..])
            };
            command.stderr(Stdio::piped()).spawn().expect("the binary runs")
        };
        let mut children: Vec<Child> = (0..8).map(start).collect();
        for child in &mut children {
            let text = stderr_of(child);
            let status = ends(child, Duration::from_mins(2));
            assert_eq!(status.code(), Some(0), "round {round}: {text}");
        }
        let entries = std::fs::read_dir(place.path().join("runs/.cache")).expect("the cache");
        let names: Vec<String> = entries
            .map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned())
            .collect();
        // Tokens and tokenizer once each, and no leftovers.
        let of_caches = names.iter().filter(|name| name.len() >= 64);
        assert_eq!(of_caches.count(), 2, "{names:?}");
        assert!(!names.iter().any(|name| name.contains(".tmp-")), "{names:?}");
    }
}

#[test]
fn a_number_of_threads_in_the_recipe_on_a_cold_cache() {
    for command in ["plan", "run"] {
        let place = place();
        let recipe = tiny_recipe("{ path = \"text.txt\" }", "");
        place.write("tiny.toml", format!("threads = 1\n{recipe}"));
        let outcome = place.temper(&[command, "tiny.toml"]);
        assert_eq!(outcome.code, Some(0), "{command}: {}", outcome.stderr);
    }
}

#[test]
fn the_name_on_the_command_line_follows_the_rule_of_the_recipe() {
    let place = place();
    place.write("pretrain/model/weights.bin", "precious");
    for name in ["..", ".", "", "a/b", "../x", ".hidden", "a b", "/tmp/x"] {
        let outcome = place.temper(&["run", "tiny.toml", "--name", name]);
        assert_eq!(outcome.code, Some(2), "{name}: {}", outcome.stderr);
        assert!(outcome.stderr.contains("at most 64 letters"), "{name}: {}", outcome.stderr);
    }
    assert!(place.path().join("pretrain/model/weights.bin").is_file());
    assert!(!place.path().join("runs").exists());
}

/// A template that writes the date reads that of the run's first day, which is part of the key of its data.
#[test]
fn the_date_of_a_run_is_fixed_when_it_starts() {
    let template = "{{ bos_token }}{{ strftime_now('%d %B %Y') }}\n{% for message in messages %}\
                    {{ message['role'] + ': ' + message['content'] }}\
                    {% if message['role'] == 'assistant' %}{{ eos_token }}{% endif %}\n{% endfor %}\
                    {% if add_generation_prompt %}{{ 'assistant: ' }}{% endif %}";
    let rows = "{\"prompt\": \"Hi?\", \"completion\": \"Ho!\"}\n".repeat(12);
    let recipe = tiny_recipe("{ path = \"text.txt\" }", "")
        .replace("max_position_embeddings = 32", "max_position_embeddings = 64")
        + "[sft]\nstart = \"pretrain\"\ndata = [{ path = \"chats.jsonl\" }]\nchat_template = \"dated.jinja\"\n\
           sequence_length = 64\ntokens_per_step = 64\nmax_steps = 4\nsave_every_steps = 2\n\
           optimizer = { lr = 1e-3 }\noverlong = \"cut\"\n";
    let place = place();
    place.write("dated.jinja", template).write("chats.jsonl", rows).write("t.toml", recipe);
    let n_caches = || {
        let entries = std::fs::read_dir(place.path().join("runs/.cache")).expect("the cache");
        entries.filter(|entry| entry.as_ref().expect("one").file_name().len() == 64).count()
    };
    let run = |args: &[&str]| {
        let outcome = place.temper(args);
        assert_eq!(outcome.code, Some(0), "{}", outcome.stderr);
    };
    let weights = |name: &str| {
        let path = format!("runs/{name}/sft/model/model.safetensors");
        fsio::sha256_file(place.path().join(path)).expect("weights")
    };
    run(&["run", "t.toml", "--name", "today"]);
    let launch = std::fs::read_to_string(place.path().join("runs/today/launch.json")).expect("one");
    let launch: serde_json::Value = serde_json::from_str(&launch).expect("JSON");
    assert_eq!(launch["date"].as_str().map(str::len), Some("2025-11-29".len()), "{launch}");
    assert_eq!(n_caches(), 2);
    // A run that was started on another day, and its last checkpoint is gone.
    let mut old = launch;
    old["date"] = "2001-02-03".into();
    place.write("runs/old/launch.json", old.to_string());
    run(&["run", "t.toml", "--name", "old"]);
    assert_eq!(n_caches(), 3);
    let of_old = weights("old");
    assert_ne!(of_old, weights("today"));
    let sft = place.path().join("runs/old/sft");
    fsio::remove_dir_all(sft.join("model")).expect("removed");
    fsio::remove_file(sft.join("finished.json")).expect("removed");
    fsio::remove_dir_all(sft.join("checkpoints/step-000004")).expect("removed");
    run(&["resume", "old"]);
    assert_eq!((n_caches(), weights("old")), (3, of_old));
    let launch = std::fs::read_to_string(place.path().join("runs/old/launch.json")).expect("one");
    assert!(launch.contains("\"2001-02-03\""), "{launch}");
}

/// A run goes on with the products in bf16 that it began with, whichever are faster now.
#[test]
fn a_run_keeps_its_products_in_bf16() {
    let place = place();
    let recipe = tiny_recipe("{ path = \"text.txt\" }", "save_every_steps = 1\n");
    place.write("t.toml", format!("precision = \"bf16\"\n{recipe}"));
    let run = |args: &[&str]| {
        let outcome = place.temper(args);
        assert_eq!(outcome.code, Some(0), "{}", outcome.stderr);
    };
    let weights = |name: &str| {
        let path = format!("runs/{name}/pretrain/model/model.safetensors");
        fsio::sha256_file(place.path().join(path)).expect("weights")
    };
    let launch = |name: &str| -> serde_json::Value {
        let path = place.path().join(format!("runs/{name}/launch.json"));
        serde_json::from_str(&std::fs::read_to_string(path).expect("one")).expect("JSON")
    };
    run(&["run", "t.toml", "--name", "measured"]);
    let measured = launch("measured");
    let names = kernels::Bf16Products::ALL.map(kernels::Bf16Products::name);
    let used = measured["bf16_products"].as_str().expect("a name");
    assert!(names.contains(&used), "{used}");
    for products in kernels::Bf16Products::ALL.into_iter().filter(|found| found.is_supported()) {
        let (name, mut begun) = (products.name(), measured.clone());
        begun["bf16_products"] = name.into();
        place.write(&format!("runs/{name}/launch.json"), begun.to_string());
        run(&["run", "t.toml", "--name", name]);
        assert_eq!(launch(name)["bf16_products"], name);
        assert_eq!(weights(name) == weights("measured"), name == used, "{name}, measured {used}");
        let stage = place.path().join(format!("runs/{name}/pretrain"));
        let whole = weights(name);
        fsio::remove_dir_all(stage.join("model")).expect("removed");
        fsio::remove_file(stage.join("finished.json")).expect("removed");
        fsio::remove_dir_all(stage.join("checkpoints/step-000003")).expect("removed");
        // The command line of a damaged record, and the day: the checkpoints say the rest.
        let date = measured["date"].as_str().expect("a day");
        place.write(&format!("runs/{name}/launch.json"), format!("{{\"date\": \"{date}\"}}"));
        run(&["run", "t.toml", "--name", name]);
        assert_eq!(weights(name), whole, "{name}");
        assert_eq!(launch(name)["bf16_products"], name);
    }
    for damaged in ["null", "[]", "{\"format\": 1, \"bf16_products\": \"pairx\"}"] {
        place.write("runs/damaged/launch.json", damaged);
        let outcome = place.temper(&["run", "t.toml", "--name", "damaged"]);
        assert_eq!(outcome.code, Some(2), "{damaged}: {}", outcome.stderr);
        assert!(outcome.stderr.contains("the file is damaged"), "{}", outcome.stderr);
    }
}

/// A recipe of many short steps.
fn long_recipe(place: &Place) {
    let recipe = tiny_recipe("{ path = \"text.txt\" }", "log_every_steps = 1\n");
    place.write("long.toml", recipe.replace("max_steps = 3", "max_steps = 100000"));
}

fn wait_for(path: &Path) {
    let start = Instant::now();
    while std::fs::metadata(path).map_or(0, |metadata| metadata.len()) < 200 {
        assert!(start.elapsed() < Duration::from_mins(1), "{}", path.display());
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn signal(child: &Child, name: &str) {
    let status = Command::new("kill").args([name, &child.id().to_string()]).status();
    assert!(status.expect("kill").success());
}

#[test]
fn a_hang_up_saves_and_stops() {
    let place = place();
    long_recipe(&place);
    let mut child = command(&place, env!("CARGO_BIN_EXE_temper"), &["run", "long.toml"]);
    let mut child = child.spawn().expect("the binary runs");
    let stage = place.path().join("runs/long/pretrain");
    wait_for(&stage.join("metrics.jsonl"));
    signal(&child, "-HUP");
    assert_eq!(ends(&mut child, Duration::from_mins(1)).code(), Some(75));
    assert_eq!(std::fs::read_dir(stage.join("checkpoints")).expect("checkpoints").count(), 1);
}

/// As under `nohup`: a hang-up that was ignored at the start stays ignored.
#[test]
fn an_ignored_hang_up_stays_ignored() {
    let place = place();
    long_recipe(&place);
    let script = "trap '' HUP; exec \"$0\" run long.toml";
    let mut child = command(&place, "sh", &["-c", script, env!("CARGO_BIN_EXE_temper")]);
    let mut child = child.spawn().expect("the binary runs");
    let metrics = place.path().join("runs/long/pretrain/metrics.jsonl");
    wait_for(&metrics);
    signal(&child, "-HUP");
    let length = std::fs::metadata(&metrics).expect("metrics").len();
    std::thread::sleep(Duration::from_millis(500));
    assert!(std::fs::metadata(&metrics).expect("metrics").len() > length, "training continues");
    signal(&child, "-TERM");
    assert_eq!(ends(&mut child, Duration::from_mins(1)).code(), Some(75));
}

/// The directory of a run that is removed, moved or replaced while a process trains: the process stops, and the run that has
/// the name now keeps its files.
#[test]
fn a_run_whose_directory_goes_away_stops() {
    let place = place();
    long_recipe(&place);
    let run = place.path().join("runs/long");
    let (away, metrics) = (place.path().join("away"), run.join("pretrain/metrics.jsonl"));
    for case in ["removed", "moved", "replaced"] {
        let args = ["run", "long.toml", "--log", "plain"];
        let mut child = command(&place, env!("CARGO_BIN_EXE_temper"), &args);
        let mut child = child.stderr(Stdio::piped()).spawn().expect("the binary runs");
        wait_for(&metrics);
        fsio::rename(&run, &away).expect("moved");
        let mut other = None;
        if case == "removed" {
            fsio::remove_dir_all(&away).expect("removed");
        } else if case == "replaced" {
            let mut second = command(&place, env!("CARGO_BIN_EXE_temper"), &args);
            other = Some(second.spawn().expect("the binary runs"));
        }
        let text = stderr_of(&mut child);
        assert_eq!(ends(&mut child, Duration::from_mins(1)).code(), Some(1), "{case}: {text}");
        assert!(text.contains("directory was removed, moved or replaced"), "{case}: {text}");
        if let Some(mut other) = other {
            wait_for(&metrics);
            signal(&other, "-TERM");
            assert_eq!(ends(&mut other, Duration::from_mins(1)).code(), Some(75));
            let saved = std::fs::read_dir(run.join("pretrain/checkpoints")).expect("checkpoints");
            assert_eq!(saved.count(), 1, "its own");
            let report = std::fs::read_to_string(run.join("report.json")).expect("a report");
            assert!(report.contains("stopped"), "{report}");
        } else {
            assert!(!run.exists(), "{case}");
        }
        for dir in [&run, &away] {
            if dir.exists() {
                fsio::remove_dir_all(dir).expect("removed");
            }
        }
    }
}

#[test]
fn a_stdout_that_takes_nothing_is_no_failure_of_a_run() {
    let place = place();
    let full = std::fs::File::options().write(true).open("/dev/full").expect("/dev/full");
    let mut run = command(&place, env!("CARGO_BIN_EXE_temper"), &["run", "tiny.toml"]);
    let mut child = run.stdout(full).stderr(Stdio::piped()).spawn().expect("the binary runs");
    let text = stderr_of(&mut child);
    assert_eq!(ends(&mut child, Duration::from_mins(1)).code(), Some(0), "{text}");
    assert!(text.contains("warning: cannot write the summary to stdout: No space left"), "{text}");
    // A pipe whose reader has ended.
    let mut run = command(&place, env!("CARGO_BIN_EXE_temper"), &["run", "tiny.toml"]);
    let mut child = run.stdout(Stdio::piped()).spawn().expect("the binary runs");
    drop(child.stdout.take());
    assert_eq!(ends(&mut child, Duration::from_mins(1)).code(), Some(0));
}

#[test]
fn a_stdout_that_takes_nothing_is_no_failure_of_a_sweep() {
    for is_full in [true, false] {
        let place = place();
        let args = ["sweep", "tiny.toml", "--no-probe", "--set", "seed=1,2"];
        let mut sweep = command(&place, env!("CARGO_BIN_EXE_temper"), &args);
        let full = std::fs::File::options().write(true).open("/dev/full").expect("/dev/full");
        let stdout = if is_full { Stdio::from(full) } else { Stdio::piped() };
        let mut child =
            sweep.stdout(stdout).stderr(Stdio::piped()).spawn().expect("the binary runs");
        drop(child.stdout.take());
        let text = stderr_of(&mut child);
        assert_eq!(ends(&mut child, Duration::from_mins(1)).code(), Some(0), "{text}");
        for seed in [1, 2] {
            let finished = format!("runs/tiny-seed-{seed}/pretrain/finished.json");
            assert!(place.path().join(finished).is_file(), "{text}");
        }
    }
}

#[test]
fn a_file_beyond_the_limit_of_file_sizes_is_named_with_the_limit() {
    let place = place();
    let script = "ulimit -f 16; exec \"$0\" run tiny.toml";
    let mut run = command(&place, "sh", &["-c", script, env!("CARGO_BIN_EXE_temper")]);
    let mut child = run.stderr(Stdio::piped()).spawn().expect("the binary runs");
    let text = stderr_of(&mut child);
    assert_eq!(ends(&mut child, Duration::from_mins(1)).code(), Some(1), "{text}");
    assert!(text.contains("File too large") && text.contains("; the limit is "), "{text}");
    assert!(text.contains("model.safetensors") && text.contains("ulimit -f"), "{text}");
}

/// The main thread has the stack that the user's limit gives it, of which a command needs more.
#[test]
fn a_small_limit_of_the_stack_changes_nothing() {
    let place = place();
    for command_line in ["plan tiny.toml", "run tiny.toml"] {
        for kilobytes in [64, 192, 1000] {
            let script = format!("ulimit -s {kilobytes}; exec \"$0\" {command_line}");
            let mut run = command(&place, "sh", &["-c", &script, env!("CARGO_BIN_EXE_temper")]);
            let mut child = run.stderr(Stdio::piped()).spawn().expect("the binary runs");
            let text = stderr_of(&mut child);
            let code = ends(&mut child, Duration::from_mins(1)).code();
            assert_eq!(code, Some(0), "{kilobytes} {command_line}: {text}");
        }
    }
}

/// A stage that needs more memory than the process may have says how much was refused, and which key helps.
#[test]
fn refused_memory_is_an_error_with_the_key_that_helps() {
    let place = place();
    let script = "ulimit -v 2000000; exec \"$0\" run tiny.toml --force --threads 1 \
                  --set pretrain.tokens_per_step=4194304 --set pretrain.micro_batch=65536";
    let mut run = command(&place, "sh", &["-c", script, env!("CARGO_BIN_EXE_temper")]);
    let mut child = run.stderr(Stdio::piped()).spawn().expect("the binary runs");
    let text = stderr_of(&mut child);
    assert_eq!(ends(&mut child, Duration::from_mins(1)).code(), Some(1), "{text}");
    assert!(text.contains("error: out of memory: the system refused "), "{text}");
    assert!(text.contains("hint: [pretrain] was planned with "), "{text}");
    assert!(text.contains("set `micro_batch = "), "{text}");
}

#[test]
fn an_export_without_file_descriptors_leaves_nothing() {
    let place = trained();
    let mut codes = Vec::new();
    for limit in 4..14 {
        let script = format!("ulimit -n {limit}; exec \"$0\" export runs/tiny/pretrain --to out/m");
        let mut run = command(&place, "sh", &["-c", &script, env!("CARGO_BIN_EXE_temper")]);
        let status = ends(&mut run.spawn().expect("sh runs"), Duration::from_mins(1));
        let left: Vec<_> = std::fs::read_dir(place.path().join("out"))
            .map(|entries| entries.map(|entry| entry.expect("an entry").file_name()).collect())
            .unwrap_or_default();
        if status.success() {
            assert_eq!(left, ["m"], "{limit}");
            assert!(codes.contains(&Some(1)), "{codes:?}");
            return;
        }
        // 127 where not even the loader can open its libraries.
        assert!(matches!(status.code(), Some(1 | 127)), "{limit}: {status}");
        codes.push(status.code());
        assert!(left.is_empty(), "{limit}: {left:?}");
    }
    panic!("13 file descriptors are not enough for an export");
}

/// A signal ends an export at any moment, and nothing of it is left.
#[test]
fn a_stopped_export_leaves_nothing() {
    let place = trained();
    let exports: [&[&str]; 2] = [
        &["export", "runs/tiny/pretrain", "--to", "m"],
        &["export", "runs/tiny/pretrain", "--gguf", "f32", "--to", "m.gguf"],
    ];
    let mut n_stopped = 0;
    for delay in 0..24_u64 {
        let args = exports[usize::from(delay % 2 == 1)];
        let mut child = command(&place, env!("CARGO_BIN_EXE_temper"), args).spawn().expect("runs");
        std::thread::sleep(Duration::from_millis(delay * 8));
        let signal = if delay % 3 == 0 { "-INT" } else { "-TERM" };
        // It may have ended already.
        let _ = Command::new("kill").args([signal, &child.id().to_string()]).output();
        let status = ends(&mut child, Duration::from_mins(1));
        let names = || {
            let entries = std::fs::read_dir(place.path()).expect("it");
            entries.map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned())
        };
        let left: Vec<String> = names().filter(|name| name.contains(".tmp-")).collect();
        assert!(left.is_empty(), "after {delay}: {left:?}");
        n_stopped += usize::from(!status.success());
        for name in names()
            .filter(|name| ["m", "m.gguf", "m.proof.json", "Modelfile"].contains(&name.as_str()))
        {
            let path = place.path().join(name);
            if path.is_dir() { fsio::remove_dir_all(path) } else { fsio::remove_file(path) }
                .expect("removed");
        }
    }
    assert!(n_stopped > 0, "no export was stopped");
}

#[test]
fn of_two_exports_to_one_file_one_is_whole_and_the_other_refused() {
    let place = trained();
    let args = ["export", "runs/tiny/pretrain", "--gguf", "f32", "--to", "m.gguf"];
    for _ in 0..4 {
        let start = || command(&place, env!("CARGO_BIN_EXE_temper"), &args).spawn().expect("runs");
        let mut both = [start(), start(), start()];
        let codes = both.each_mut().map(|child| ends(child, Duration::from_mins(1)).code());
        assert_eq!(codes.iter().filter(|code| **code == Some(0)).count(), 1, "{codes:?}");
        let verify = place.temper(&["verify", "m.gguf"]);
        assert_eq!(verify.code, Some(0), "{}", verify.stdout);
        let left = std::fs::read_dir(place.path())
            .expect("it")
            .map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned());
        let left: Vec<String> = left.filter(|name| name.contains(".tmp-")).collect();
        assert!(left.is_empty(), "{left:?}");
        for name in ["m.gguf", "m.proof.json", "Modelfile"] {
            fsio::remove_file(place.path().join(name)).expect("removed");
        }
    }
}

#[test]
fn a_gguf_file_without_room_for_its_proof_leaves_nothing() {
    let place = trained();
    place.write("m.proof.json", "mine");
    let args = ["export", "runs/tiny/pretrain", "--gguf", "f32", "--to", "m.gguf"];
    let outcome = place.temper(&args);
    assert_eq!(outcome.code, Some(2), "{}", outcome.stderr);
    assert!(!place.path().join("m.gguf").exists() && !place.path().join("Modelfile").exists());
    assert_eq!(std::fs::read(place.path().join("m.proof.json")).expect("it"), b"mine");
}

#[test]
fn a_target_below_a_file_is_wrong_input() {
    let place = trained();
    place.write("file", "");
    let outcome = place.temper(&["export", "runs/tiny/pretrain", "--to", "file/m"]);
    assert_eq!(outcome.code, Some(2), "{}", outcome.stderr);
    assert!(outcome.stderr.contains("a part of the path is a file"), "{}", outcome.stderr);
}

#[test]
fn a_gguf_file_that_cannot_be_written_is_named() {
    let place = trained();
    let script = "ulimit -f 8; exec \"$0\" export runs/tiny/pretrain --gguf f32 --to m.gguf";
    let mut run = command(&place, "sh", &["-c", script, env!("CARGO_BIN_EXE_temper")]);
    let mut child = run.stderr(Stdio::piped()).spawn().expect("the binary runs");
    let text = stderr_of(&mut child);
    assert_eq!(ends(&mut child, Duration::from_mins(1)).code(), Some(1), "{text}");
    assert!(text.contains("m.gguf: cannot write: File too large"), "{text}");
}

#[test]
fn threads_that_cannot_be_started_are_an_error() {
    let place = place();
    let temper = env!("CARGO_BIN_EXE_temper");
    for args in
        [&["run", "tiny.toml"][..], &["plan", "tiny.toml"], &["generate", "x", "--prompt", "y"]]
    {
        let inject = ["-f", "-qq", "-o", "trace", "-e", "inject=clone3,clone:error=EAGAIN", temper];
        let mut run = command(&place, "strace", &[&inject[..], args].concat());
        let Ok(mut child) = run.stderr(Stdio::piped()).spawn() else {
            say("skipped: strace is not installed");
            return;
        };
        let text = stderr_of(&mut child);
        let status = ends(&mut child, Duration::from_mins(1));
        if !place.path().join("trace").is_file() || text.contains("ptrace") {
            say("skipped: strace may not trace here");
            return;
        }
        assert_eq!(status.code(), Some(1), "{args:?}: {text}");
        assert!(text.contains("error: cannot start threads: Resource temporarily"), "{text}");
    }
}

/// The stack of a thread that compiles a template has no room in the address space.
#[test]
fn a_template_whose_thread_cannot_be_started_is_not_called_malicious() {
    let place = trained();
    place.write("chat.json", r#"[{"role": "user", "content": "Hi"}]"#);
    place.write("runs/tiny/pretrain/model/chat_template.jinja", "{{ messages[0].content }}");
    let script = "ulimit -v 250000; exec \"$0\" tokenizer render runs/tiny/pretrain/model --messages chat.json";
    let mut render = command(&place, "sh", &["-c", script, env!("CARGO_BIN_EXE_temper")]);
    let mut child = render.stderr(Stdio::piped()).spawn().expect("the binary runs");
    let text = stderr_of(&mut child);
    assert_eq!(ends(&mut child, Duration::from_mins(1)).code(), Some(1), "{text}");
    assert!(
        text.contains("error: cannot start a thread: ") && text.contains("ulimit -v"),
        "{text}"
    );
}

/// A stderr that nobody reads: a full pipe here, a stopped terminal in life.
#[test]
fn a_stderr_that_nobody_reads_does_not_stop_a_run() {
    let place = place();
    let recipe = tiny_recipe("{ path = \"text.txt\" }", "log_every_steps = 1\n");
    place.write("tiny.toml", recipe.replace("max_steps = 3", "max_steps = 1500"));
    let args = ["run", "tiny.toml", "--log", "json"];
    let mut run = command(&place, env!("CARGO_BIN_EXE_temper"), &args);
    let mut child = run.stderr(Stdio::piped()).spawn().expect("the binary runs");
    let status = ends(&mut child, Duration::from_mins(2));
    assert_eq!(status.code(), Some(0));
    assert!(place.path().join("runs/tiny/pretrain/finished.json").is_file());
    // The pipe was full long before the end.
    let text = stderr_of(&mut child);
    assert!(!text.contains("\"event\":\"finished\""), "{} bytes", text.len());
}

#[test]
fn a_file_in_place_of_a_directory_is_wrong_input() {
    let place = place();
    place.write("runs/.cache", "a file in place of the directory");
    let error = place.error(&["run", "tiny.toml"]);
    assert!(error.starts_with("exit 2\n"), "{error}");
    assert!(error.contains("runs/.cache: cannot create the directory"), "{error}");
}

/// Leftovers of a killed export are removed by the next export to the same place.
#[test]
fn a_killed_export_leaves_nothing_for_long() {
    let place = place();
    assert_eq!(place.temper(&["run", "tiny.toml"]).code, Some(0));
    // As a process that has ended left it, here or in another container: its id may be in use.
    let number = std::process::id();
    place
        .write(&format!("out.tmp-{number}/model.safetensors"), "half")
        .write("out.tmp-7/x", "half");
    place.write("other.tmp-7/x", "not of this export");
    let outcome = place.temper(&["export", "runs/tiny/pretrain", "--to", "out"]);
    assert_eq!(outcome.code, Some(0), "{}", outcome.stderr);
    for gone in [format!("out.tmp-{number}"), "out.tmp-7".to_owned()] {
        assert!(!place.path().join(&gone).exists(), "{gone}");
    }
    assert!(place.path().join("other.tmp-7").exists());
}

/// The record of a base model is followed only within runs.
#[test]
fn a_foreign_adapter_names_no_base_model() {
    let place = place();
    let sft = "[sft]\nstart = \"pretrain\"\nlora = { rank = 2 }\ndata = [{ path = \"chats.jsonl\" }]\n\
               chat_template = \"plain\"\nsequence_length = 32\ntokens_per_step = 64\nmax_steps = 2\n\
               optimizer = { lr = 1e-3 }\n";
    let rows = "{\"prompt\": \"Hi?\", \"completion\": \"Ho!\"}\n".repeat(12);
    place.write("chats.jsonl", rows).write("t.toml", tiny_recipe("{ path = \"text.txt\" }", sft));
    assert_eq!(place.temper(&["run", "t.toml"]).code, Some(0));
    let generate = |args: &[&str]| {
        place
            .error(&[&["generate"][..], args, &["--prompt", "a", "--max-new-tokens", "1"]].concat())
    };
    assert!(generate(&["runs/t/sft"]).starts_with("exit 0"));
    for entry in std::fs::read_dir(place.path().join("runs/t/sft/model")).expect("an adapter") {
        let path = entry.expect("an entry").path();
        let name = path.file_name().and_then(|name| name.to_str()).expect("a name");
        place.write(&format!("foreign/{name}"), std::fs::read(&path).expect("a file"));
    }
    let error = generate(&["foreign"]);
    assert!(error.starts_with("exit 2\n"), "{error}");
    assert!(
        error.contains("base.json names a base model outside of the adapter's directory"),
        "{error}"
    );
    assert!(error.contains("--base"), "{error}");
    let outcome = generate(&["foreign", "--base", "runs/t/pretrain"]);
    assert!(outcome.starts_with("exit 0"), "{outcome}");
}
