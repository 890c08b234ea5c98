//! Completions, pages for `man`, and examples in the help.

use std::process::Command;

use crate::support::{Place, say};

#[test]
fn completions_are_scripts_of_their_shells() {
    let place = Place::new();
    for (shell, checker) in [("bash", "bash"), ("zsh", "zsh"), ("fish", "fish")] {
        let outcome = place.temper(&["completions", shell]);
        assert_eq!(outcome.code, Some(0), "{}", outcome.stderr);
        assert!(outcome.stdout.contains("watch") && outcome.stdout.contains("data"), "{shell}");
        place.write(shell, &outcome.stdout);
        // Shells read a script without running it by `-n`.
        let check = Command::new(checker).arg("-n").arg(place.path().join(shell)).status();
        match check {
            Ok(status) => assert!(status.success(), "{shell}"),
            Err(_) => say(&format!("skipped: {shell} is not installed")),
        }
    }
    let error = place.error(&["completions", "tcsh"]);
    assert!(error.starts_with("exit 2") && error.contains("bash, zsh, fish"), "{error}");
}

#[test]
fn bash_completes_commands_and_options() {
    let place = Place::new();
    place.write("temper.bash", place.temper(&["completions", "bash"]).stdout);
    let script = "source ./temper.bash; COMP_WORDS=(temper re); COMP_CWORD=1; _temper temper re temper; \
                  echo \"${COMPREPLY[@]}\"; COMP_WORDS=(temper run --na); COMP_CWORD=2; \
                  _temper temper --na run; echo \"${COMPREPLY[@]}\"";
    let output =
        Command::new("bash").args(["-c", script]).current_dir(place.path()).output().expect("bash");
    let text = String::from_utf8(output.stdout).expect("UTF-8");
    assert_eq!(text, "resume report\n--name\n", "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn every_command_has_a_page_for_man() {
    let place = Place::new();
    let outcome = place.temper(&["man", "man1"]);
    assert_eq!(outcome.code, Some(0), "{}", outcome.stderr);
    let page = |name: &str| {
        let path = place.path().join("man1").join(name);
        std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{name}: {error}"))
    };
    let text = page("temper-run.1");
    assert!(text.contains(".TH temper-run 1") && text.contains("Example"), "{text}");
    assert!(page("temper.1").contains("temper\\-watch(1)"), "{}", page("temper.1"));
    page("temper-data-inspect.1");
    page("temper-tokenizer-train.1");
    // Earlier pages are replaced; a page of somebody else, a link and a pipe are not, and then no page is.
    place.write(
        "man1/temper-run.1",
        text.lines().next().map(|line| format!("{line}\nold")).expect("a line"),
    );
    assert_eq!(place.temper(&["man", "man1"]).code, Some(0));
    assert_eq!(page("temper-run.1"), text);
    let foreign = ".TH temper 1\nAnother program of this name\n";
    place.write("man1/temper-watch.1", foreign);
    fsio::remove_file(place.path().join("man1/temper.1")).expect("removed");
    let error = place.error(&["man", "man1"]);
    assert!(error.contains("man1/temper-watch.1"), "{error}");
    assert_eq!(page("temper-watch.1"), foreign);
    assert!(!place.path().join("man1/temper.1").exists());
    // A file in place of the directory.
    place.write("file", "x");
    let error = place.error(&["man", "file"]);
    assert!(error.starts_with("exit 2"), "{error}");
}

#[test]
fn help_has_an_example() {
    let place = Place::new();
    for command in [&["run"][..], &["watch"], &["data", "inspect"]] {
        let outcome = place.temper(&[command, &["--help"]].concat());
        let line = format!("Example: temper {}", command.join(" "));
        assert!(outcome.stdout.contains(&line), "{}", outcome.stdout);
    }
}
