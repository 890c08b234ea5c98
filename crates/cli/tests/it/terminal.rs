//! The view of a run on a terminal, which the program `script` provides.

use std::io::{Read as _, Write as _};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use crate::support::{Place, TEXT, say, tiny_recipe, trained};

const ENTER: &str = "\x1b[?1049h";
const LEAVE: &str = "\x1b[?1049l";

/// A directory with a recipe of so many short steps.
fn place(max_steps: u64) -> Place {
    let place = Place::new();
    let recipe = tiny_recipe("{ path = \"text.txt\" }", "log_every_steps = 1\n");
    place
        .write("text.txt", TEXT.repeat(40))
        .write("long.toml", recipe.replace("max_steps = 3", &format!("max_steps = {max_steps}")));
    place
}

/// Runs a command of a shell on a terminal of this size; `None` without `script`. The exit code is the command's.
fn on_terminal(place: &Place, (columns, rows): (u16, u16), shell: &str) -> Option<Child> {
    let temper = env!("CARGO_BIN_EXE_temper");
    let text = format!(
        "trap : INT; stty cols {columns} rows {rows}; {}",
        shell.replace("temper ", &format!("{temper} "))
    );
    let mut command = Command::new("script");
    command.args(["-q", "-e", "-c", &text, "/dev/null"]).current_dir(place.path());
    command.env_remove("TEMPER_DATA").env_remove("NO_COLOR").env("TERM", "xterm");
    command.env("LC_ALL", "C.UTF-8").env("SHELL", "/bin/sh");
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
    let child = command.spawn().ok();
    if child.is_none() {
        say("skipped: `script` is not installed");
    }
    child
}

fn wait_for(path: &Path, text: &str) {
    let start = Instant::now();
    while !std::fs::read_to_string(path).is_ok_and(|found| found.contains(text)) {
        assert!(start.elapsed() < Duration::from_mins(1), "{} has no {text}", path.display());
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn press(child: &mut Child, keys: &str) {
    let stdin = child.stdin.as_mut().expect("a pipe");
    stdin.write_all(keys.as_bytes()).and_then(|()| stdin.flush()).expect("a terminal");
}

/// What the terminal showed, and how the command ended.
fn shown(mut child: Child) -> (String, ExitStatus) {
    let mut bytes = Vec::new();
    child.stdout.take().expect("a pipe").read_to_end(&mut bytes).expect("output");
    (String::from_utf8_lossy(&bytes).into_owned(), child.wait().expect("a status"))
}

#[test]
fn the_view_opens_and_closes_and_training_goes_on() {
    let place = place(100_000);
    let shell = "temper run long.toml; code=$?; stty -a; exit $code";
    let Some(mut child) = on_terminal(&place, (80, 24), shell) else { return };
    let status = place.path().join("runs/long/status.json");
    wait_for(&status, "\"state\": \"training\"");
    wait_for(&place.path().join("runs/long/pretrain/metrics.jsonl"), "\"step\":20,");
    std::thread::sleep(Duration::from_millis(500));
    press(&mut child, "s");
    press(&mut child, "q");
    std::thread::sleep(Duration::from_secs(1));
    // In the live line's terminal ctrl-C is a signal.
    press(&mut child, "\x03");
    let (text, code) = shown(child);
    assert_eq!(code.code(), Some(75), "{text}");
    let entered = text.find(ENTER).expect("the view opened");
    let left = text.find(LEAVE).expect("the view closed");
    assert!(entered < left, "{text}");
    let after = &text[left..];
    assert!(
        text[entered..left].contains("loss") && text[entered..left].contains("training"),
        "{text}"
    );
    assert!(
        after.contains("the view is closed, training goes on; to open it again: temper watch long"),
        "{after}"
    );
    assert!(after.contains("finishing step") && after.contains("stopped; to continue"), "{after}");
    assert!(
        after.contains(" icanon") && after.contains(" echo "),
        "the terminal is restored: {after}"
    );
    let status = std::fs::read_to_string(status).expect("the status");
    assert!(status.contains("\"state\": \"stopped\""), "{status}");
}

#[test]
fn ctrl_c_in_the_view_saves_and_stops() {
    let place = place(100_000);
    let Some(mut child) =
        on_terminal(&place, (80, 24), "temper run long.toml; code=$?; stty -a; exit $code")
    else {
        return;
    };
    wait_for(&place.path().join("runs/long/pretrain/metrics.jsonl"), "\"step\":20,");
    std::thread::sleep(Duration::from_millis(500));
    press(&mut child, "\x03");
    let (text, code) = shown(child);
    assert_eq!(code.code(), Some(75), "{text}");
    let after = &text[text.find(LEAVE).expect("the view closed")..];
    assert!(after.contains("stopped; to continue") && after.contains(" icanon"), "{after}");
}

#[test]
fn a_finished_run_closes_the_view_and_prints_what_waited() {
    let place = place(400);
    let Some(child) = on_terminal(&place, (100, 30), "temper run long.toml; stty -a") else {
        return;
    };
    let (text, _) = shown(child);
    let after = &text[text.find(LEAVE).expect("the view closed")..];
    assert!(after.contains("400 steps in") && after.contains("next    temper generate"), "{after}");
    assert!(after.contains(" icanon"), "{after}");
}

#[test]
fn a_small_terminal_has_one_line_and_a_dumb_one_has_lines() {
    let place = place(30);
    let Some(child) = on_terminal(&place, (50, 20), "temper run long.toml") else { return };
    let (text, _) = shown(child);
    assert!(!text.contains(ENTER) && text.contains("\r\x1b[2K"), "{text}");
    let longest = text
        .split(['\r', '\n'])
        .filter(|line| line.contains("/30"))
        .map(|line| line.chars().count());
    assert!(longest.max() < Some(60), "{text}");
    for shell in [
        "TERM=dumb temper run long.toml --name dumb",
        "TERM=dumb temper run long.toml --name full --log full",
    ] {
        let Some(child) = on_terminal(&place, (80, 24), shell) else { return };
        let (text, _) = shown(child);
        assert!(!text.contains('\x1b') && text.contains("30/30"), "{text}");
    }
}

#[test]
fn no_color_is_respected() {
    let place = place(100_000);
    for (name, has_colour) in [("NO_COLOR=1", false), ("NO_COLOR=", true)] {
        let shell = format!("{name} temper run long.toml --name c{has_colour}");
        let Some(mut child) = on_terminal(&place, (80, 24), &shell) else { return };
        // A run that ends at once is not drawn.
        let metrics = place.path().join(format!("runs/c{has_colour}/pretrain/metrics.jsonl"));
        wait_for(&metrics, "\"step\":20,");
        std::thread::sleep(Duration::from_millis(500));
        press(&mut child, "\x03");
        let (text, _) = shown(child);
        assert!(text.contains(ENTER), "{text}");
        assert_eq!(text.contains("\x1b[0;36m"), has_colour, "{name}: {text}");
    }
}

/// The shell passes the hang-up of its terminal on, so that a run receives it twice.
#[test]
fn a_closed_terminal_saves_and_stops() {
    let place = place(1_000_000);
    let Some(mut child) = on_terminal(&place, (80, 24), "bash -ic 'temper run long.toml; true'")
    else {
        return;
    };
    let stage = place.path().join("runs/long/pretrain");
    wait_for(&stage.join("metrics.jsonl"), "\"step\":20,");
    child.kill().expect("killed");
    child.wait().expect("a status");
    wait_for(&place.path().join("runs/long/status.json"), "\"state\": \"stopped\"");
    assert_eq!(std::fs::read_dir(stage.join("checkpoints")).expect("checkpoints").count(), 1);
}

/// A terminal that takes nothing: its buffer fills, and training goes on.
#[test]
fn a_terminal_that_nobody_reads_does_not_stop_a_run() {
    let place = place(3000);
    let Some(mut child) = on_terminal(&place, (200, 60), "temper run long.toml") else { return };
    wait_for(&place.path().join("runs/long/pretrain/finished.json"), "\"steps\": 3000");
    wait_for(&place.path().join("runs/long/status.json"), "\"state\": \"finished\"");
    let _ = child.kill();
    let _ = child.wait();
}

#[test]
fn a_run_is_watched_from_its_directory() {
    let place = trained();
    for run in [&["watch", "tiny"][..], &["watch", "runs/tiny"], &["watch"]] {
        let outcome = place.temper(run);
        assert_eq!(outcome.code, Some(0), "{}", outcome.stderr);
        assert!(outcome.stdout.contains("3/3  loss"), "{}", outcome.stdout);
        assert!(outcome.stdout.ends_with("the run is finished\n"), "{}", outcome.stdout);
    }
    let outcome = place.temper(&["watch", "tiny", "--log", "json"]);
    let rows: Vec<serde_json::Value> =
        outcome.stdout.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert_eq!(rows.first().and_then(|row| row["step"].as_u64()), Some(3));
    assert_eq!(rows.last().map(|row| &row["state"]), Some(&"finished".into()));
    let error = place.error(&["watch", "other"]);
    assert!(error.starts_with("exit 2\nerror: no such run: `other`"), "{error}");
    // A view in another terminal, closed by `q`.
    let Some(mut child) = on_terminal(&place, (80, 24), "temper watch tiny; stty -a") else {
        return;
    };
    std::thread::sleep(Duration::from_secs(1));
    press(&mut child, "q");
    let (text, _) = shown(child);
    assert!(text.contains(ENTER) && text.contains(LEAVE) && text.contains(" icanon"), "{text}");
    assert!(text.contains("finished") && text.contains("q end watching"), "{text}");
}

/// A learning rate that is far too large does not end without a warning, and nothing is called the best.
#[test]
fn a_learning_rate_that_is_too_large_is_named() {
    let place = Place::new();
    let extra = "eval = { holdout = 0.1, every_steps = 20 }\nlog_every_steps = 20\n";
    let recipe = tiny_recipe("{ path = \"text.jsonl\" }", extra);
    let recipe = recipe.replace("lr = 1e-3", "lr = 10").replace("max_steps = 3", "max_steps = 60");
    let row = |n: u64| format!("{{\"text\": \"line {n} of a text about {}\"}}\n", n * 7919 % 97);
    let rows: Vec<String> = (0..200).map(row).collect();
    place.write("text.jsonl", rows.concat()).write("hot.toml", recipe);
    let outcome = place.temper(&["run", "hot.toml", "--log", "plain"]);
    assert_eq!(outcome.code, Some(0), "{}", outcome.stderr);
    let warning = "at the start: lower pretrain.optimizer.lr (now 10)";
    assert_eq!(outcome.stderr.matches(warning).count(), 1, "{}", outcome.stderr);
    assert!(outcome.stderr.contains("before training: lower pretrain"), "{}", outcome.stderr);
    assert!(!outcome.stderr.contains("best so far"), "{}", outcome.stderr);
    assert!(outcome.stderr.contains("step 0  val loss"), "{}", outcome.stderr);
    assert!(outcome.stdout.contains(" → "), "{}", outcome.stdout);
}

/// A directory with a run whose stage `sft` is a tiny chat model.
fn chat_model() -> Place {
    let place = Place::new();
    let rows = "{\"prompt\": \"Hi?\", \"completion\": \"Ho!\"}\n".repeat(12);
    let recipe = tiny_recipe("{ path = \"text.txt\" }", "")
        .replace("max_position_embeddings = 32", "max_position_embeddings = 96")
        + "[sft]\nstart = \"pretrain\"\ndata = [{ path = \"chats.jsonl\" }]\nsequence_length = 64\n\
           chat_template = \"chatml\"\ntokens_per_step = 64\nmax_steps = 4\noptimizer = { lr = 1e-3 }\n";
    place.write("text.txt", TEXT.repeat(40)).write("chats.jsonl", rows).write("t.toml", recipe);
    let outcome = place.temper(&["run", "t.toml"]);
    assert_eq!(outcome.code, Some(0), "{}", outcome.stderr);
    place
}

#[test]
fn a_conversation_has_commands_and_its_context_slides() {
    let place = chat_model();
    let shell = "temper chat runs/t/sft --max-new-tokens 8";
    let Some(mut child) = on_terminal(&place, (80, 24), shell) else { return };
    std::thread::sleep(Duration::from_secs(1));
    for line in [
        "/help",
        "hi\\",
        "there",
        "/stats",
        "/temp 0",
        "/retry",
        "/save chat.json",
        "one",
        "two",
        "three",
        "four",
        "/nonsense",
        "/load none.json",
        "/reset",
        "/stats",
        "/quit",
    ] {
        press(&mut child, &format!("{line}\r"));
        std::thread::sleep(Duration::from_millis(300));
    }
    let (text, status) = shown(child);
    assert_eq!(status.code(), Some(0), "{text}");
    for part in [
        "/help lists commands",
        "start again with the same system message",
        "of 96 tokens of context",
        "temperature 0",
        "saved in chat.json",
        "the context of 96 tokens is full: the oldest",
        "no such command: /nonsense",
        "error: none.json",
        "a new conversation",
    ] {
        assert!(text.contains(part), "{part} is missing: {text}");
    }
    let saved = std::fs::read_to_string(place.path().join("chat.json")).expect("the conversation");
    let saved: serde_json::Value = serde_json::from_str(&saved).expect("JSON");
    assert_eq!(saved[0]["content"], "hi\nthere");
    assert_eq!(saved.as_array().map(Vec::len), Some(2), "a retried answer replaces the one before");
}

/// The model never ends its answer; ctrl-C does, and the conversation goes on.
#[test]
fn ctrl_c_ends_an_answer_and_not_the_conversation() {
    let place = chat_model();
    let config = place.path().join("runs/t/sft/model/config.json");
    assert!(config.is_file());
    let shell = "temper chat runs/t/sft --max-new-tokens 90; echo code $?";
    let Some(mut child) = on_terminal(&place, (80, 24), shell) else { return };
    std::thread::sleep(Duration::from_secs(1));
    // At the prompt it drops the line.
    press(&mut child, "half a line\x03");
    std::thread::sleep(Duration::from_millis(300));
    press(&mut child, "/stats\r");
    std::thread::sleep(Duration::from_millis(300));
    press(&mut child, "\x04");
    let (text, _) = shown(child);
    assert!(text.contains("there is no answer yet") && text.contains("code 0"), "{text}");
}

/// Bytes that are not text drop their line and not the conversation, and a signal that ends it leaves the terminal as it was.
#[test]
fn a_conversation_survives_bytes_that_are_no_text_and_gives_the_terminal_back() {
    let place = chat_model();
    let shell = "sh -c 'echo $$ > pid; exec temper chat runs/t/sft --max-new-tokens 4'; echo code $?; stty -a";
    let Some(mut child) = on_terminal(&place, (80, 24), shell) else { return };
    std::thread::sleep(Duration::from_secs(1));
    let stdin = child.stdin.as_mut().expect("a pipe");
    stdin.write_all(b"\xff\xfe\xc3\x28\r").and_then(|()| stdin.flush()).expect("a terminal");
    std::thread::sleep(Duration::from_millis(300));
    press(&mut child, "/stats\r");
    std::thread::sleep(Duration::from_millis(300));
    press(&mut child, "half a line");
    std::thread::sleep(Duration::from_millis(300));
    let pid = std::fs::read_to_string(place.path().join("pid")).expect("started");
    let killed = Command::new("kill").args(["-TERM", pid.trim()]).status().expect("kill runs");
    assert!(killed.success());
    let (text, _) = shown(child);
    assert!(text.contains("not UTF-8 text") && text.contains("there is no answer yet"), "{text}");
    assert!(text.contains("code 143"), "{text}");
    assert!(text.contains("\x1b[?2004l"), "{text}");
    assert!(
        text.contains(" icanon") && text.contains(" echo ") && !text.contains("-icanon"),
        "{text}"
    );
}
