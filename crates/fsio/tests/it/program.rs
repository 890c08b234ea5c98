//! Programs that answer lines, and what happens to those that exceed a limit.

use std::time::{Duration, Instant};

use fsio::{Program, ProgramFailure, ProgramLimits};

const LIMITS: ProgramLimits = ProgramLimits {
    timeout: Duration::from_secs(20),
    line_bytes: 1000,
    memory_bytes: 512 << 20,
    processes: 8,
};

/// Starts a program of the shell's language. The tests name the shell; Temper starts none.
fn script(text: &str, limits: ProgramLimits) -> Program {
    let argv = ["sh", "-c", text].map(str::to_owned);
    Program::start(&argv, std::path::Path::new("/"), limits).expect("a shell")
}

fn failure(text: &str, limits: ProgramLimits) -> ProgramFailure {
    script(text, limits).ask("x").expect_err("a failure")
}

#[test]
fn each_line_is_answered_by_one() {
    let mut program = script("while read -r line; do echo \"<$line>\"; done", LIMITS);
    for line in ["a", "b c", "{\"x\": 1}"] {
        assert_eq!(program.ask(line), Ok(format!("<{line}>")));
    }
}

#[test]
fn the_environment_has_nothing_of_ours() {
    // Cargo sets many variables for tests.
    assert!(std::env::vars().any(|(name, _)| name.starts_with("CARGO")));
    let mut program = script("read -r line; env | cut -d= -f1 | sort | tr '\\n' ' '", LIMITS);
    let names = program.ask("x").expect("names");
    let names: Vec<&str> = names.split_whitespace().collect();
    // The shell adds names of its own.
    let allowed = ["LC_ALL", "PATH", "PWD", "SHLVL", "_", "OLDPWD"];
    assert!(names.iter().all(|name| allowed.contains(name)), "{names:?}");
    assert!(names.contains(&"PATH"), "{names:?}");
}

#[test]
fn a_program_that_ends_is_named_with_its_last_words() {
    let failed = failure("echo first >&2; echo 'no such table' >&2; exit 3", LIMITS);
    let text = failed.to_string();
    assert!(text.contains("exit status: 3") && text.ends_with("no such table"), "{text}");
    let missing = Program::start(&["./no-such".to_owned()], std::path::Path::new("/"), LIMITS);
    let missing = missing.expect_err("no program").to_string();
    assert!(missing.starts_with("cannot be started"), "{missing}");
}

#[test]
fn a_program_that_takes_too_long_is_killed() {
    let limits = ProgramLimits { timeout: Duration::from_millis(300), ..LIMITS };
    let start = Instant::now();
    let mut program = script("read -r line; sleep 60 & sleep 60", limits);
    assert_eq!(program.ask("x"), Err(ProgramFailure::Late(limits.timeout)));
    assert!(start.elapsed() < Duration::from_secs(10));
    // A line that is never read does not block either.
    let mut deaf = script("sleep 60", limits);
    assert_eq!(deaf.ask(&"x".repeat(1 << 20)), Err(ProgramFailure::Late(limits.timeout)));
}

#[test]
fn output_is_limited() {
    let text = "read -r line; head -c 100000000 /dev/zero | tr '\\0' a; echo";
    assert_eq!(failure(text, LIMITS), ProgramFailure::LongLine(1000));
    assert_eq!(failure("read -r line; printf '\\377\\n'", LIMITS), ProgramFailure::NotText);
}

#[test]
fn memory_is_limited() {
    // A string that doubles until there is no room for it.
    let text =
        "read -r line; awk 'BEGIN { s = \"x\"; while (length(s) < 2e9) s = s s; print length(s) }'";
    let limits = ProgramLimits { memory_bytes: 64 << 20, ..LIMITS };
    let result = script(text, limits).ask("x");
    assert!(matches!(result, Err(ProgramFailure::Ended { .. })), "{result:?}");
}

#[test]
fn processes_are_limited() {
    let text = "read -r line; for i in 1 2 3 4 5 6 7 8 9 10 11 12; do sleep 30 & done; wait";
    let limits = ProgramLimits { timeout: Duration::from_secs(25), ..LIMITS };
    let start = Instant::now();
    let result = script(text, limits).ask("x");
    // The count of the group, or the system's own limit for users other than root.
    assert!(
        matches!(result, Err(ProgramFailure::ManyProcesses(8) | ProgramFailure::Ended { .. })),
        "{result:?}"
    );
    assert!(start.elapsed() < Duration::from_secs(20));
}

#[test]
fn children_end_with_their_program() {
    let mut program = script("sleep 61.25 & echo $!; wait", LIMITS);
    let id = program.ask("x").expect("the child's number");
    let state = || {
        let stat = std::fs::read_to_string(format!("/proc/{id}/stat")).unwrap_or_default();
        stat.rsplit_once(')').and_then(|(_, rest)| rest.trim().chars().next())
    };
    assert!(matches!(state(), Some('S' | 'R' | 'D')), "{:?}", state());
    drop(program);
    let start = Instant::now();
    while matches!(state(), Some('S' | 'R' | 'D')) {
        assert!(start.elapsed() < Duration::from_secs(10), "it still runs");
        std::thread::sleep(Duration::from_millis(10));
    }
}
