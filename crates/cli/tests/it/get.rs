//! `temper get` against a server on the loopback interface, and `hf:OWNER/NAME` as a model and as data.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::hub_server::{Reply, Repo, RepoFile, Server};
use crate::support::{Outcome, Place, tiny_recipe};

const TEXT: &str = "The quick brown fox jumps over the lazy dog, again and again.\n";

fn file(path: &str, content: impl Into<Vec<u8>>) -> RepoFile {
    let content = content.into();
    RepoFile { path: path.to_owned(), oid: fsio::sha256_hex(&content), content, is_lfs: true }
}

/// Runs the binary with a server as its hub and nothing else of the machine's settings.
fn temper(place: &Place, hub: &str, args: &[&str]) -> Outcome {
    let output = command(place, hub, args).output().expect("the binary runs");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("UTF-8");
    Outcome { code: output.status.code(), stdout: text(output.stdout), stderr: text(output.stderr) }
}

fn command(place: &Place, hub: &str, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_temper"));
    command
        .args(args)
        .current_dir(place.path())
        .env_clear()
        .env("HOME", place.path())
        .env("HF_ENDPOINT", hub)
        .env("HF_TOKEN", "hf_secret")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

/// Starts a hub for a repository, whose files all come from a second server.
fn serve(repo: Repo, mut of_cdn: impl FnMut(Reply) -> Reply + Send + 'static) -> (Server, Server) {
    let large = repo.clone();
    let cdn = Server::start(move |request| of_cdn(large.answer_cdn(request)));
    let address = cdn.url();
    (Server::start(move |request| repo.answer(request, &address)), cdn)
}

/// A tiny trained model, exported, as the files of a repository.
fn model(place: &Place) -> Repo {
    place
        .write("text.txt", TEXT.repeat(40))
        .write("tiny.toml", tiny_recipe("{ path = \"text.txt\" }", ""));
    for args in [&["run", "tiny.toml"][..], &["export", "runs/tiny/pretrain", "--to", "exported"]] {
        let outcome = place.temper(args);
        assert_eq!(outcome.code, Some(0), "{}", outcome.stderr);
    }
    let entries = std::fs::read_dir(place.path().join("exported")).expect("a directory");
    let mut files: Vec<RepoFile> = entries
        .flatten()
        .map(|entry| {
            let name = entry.file_name().into_string().expect("a name");
            file(&name, std::fs::read(entry.path()).expect("a file"))
        })
        .collect();
    files.push(file("pytorch_model.bin", "pickle"));
    files.sort_by(|a, b| a.path.cmp(&b.path));
    Repo { directory: "models/o/m".to_owned(), files }
}

#[test]
fn a_model_is_downloaded_and_used() {
    let place = Place::new();
    let (hub, cdn) = serve(model(&place), |reply| reply);
    let missing = temper(&place, &hub.url(), &["generate", "hf:o/m", "--prompt", "The"]);
    assert_eq!(missing.code, Some(2), "{}", missing.stderr);
    assert!(missing.stderr.contains("`temper get hf:o/m` downloads it"), "{}", missing.stderr);
    let plain = temper(&place, &hub.url(), &["generate", "o/m", "--prompt", "The"]);
    assert!(plain.stderr.contains("`temper get hf:o/m`, then `hf:o/m`"), "{}", plain.stderr);
    assert!(hub.requests().is_empty() && cdn.requests().is_empty(), "only get connects");

    let outcome = temper(&place, &hub.url(), &["get", "hf:o/m"]);
    assert_eq!(outcome.code, Some(0), "{}", outcome.stderr);
    assert!(outcome.stdout.starts_with("models/o/m: "), "{}", outcome.stdout);
    assert!(outcome.stdout.contains("left out: MANIFEST"), "{}", outcome.stdout);
    assert!(
        outcome.stdout.contains("pytorch_model.bin 6 B (formats that Temper does not read)"),
        "{}",
        outcome.stdout
    );
    assert!(!format!("{}{}", outcome.stdout, outcome.stderr).contains("hf_secret"));
    let n_requests = hub.requests().len();

    // The copy is a model for commands, for recipes and as a tokenizer.
    let prompt = ["--prompt", "The quick", "--greedy", "--max-new-tokens", "8"];
    let generate = |model: &str| {
        let outcome = temper(&place, &hub.url(), &[&["generate", model][..], &prompt].concat());
        assert_eq!(outcome.code, Some(0), "{}", outcome.stderr);
        outcome.stdout
    };
    assert_eq!(generate("hf:o/m"), generate("runs/tiny/pretrain"));
    let ids = temper(&place, &hub.url(), &["tokenizer", "encode", "hf:o/m", "--file", "text.txt"]);
    assert_eq!(ids.code, Some(0), "{}", ids.stderr);
    place.write("datasets/o/n/train.jsonl", "{\"text\": \"The quick brown fox\"}\n".repeat(40)).write(
        "recipes/more.toml",
        "[pretrain]\nstart = \"hf:o/m\"\ndata = [{ path = \"hf:datasets/o/n\" }]\nsequence_length = 32\n\
         tokens_per_step = 64\nmax_steps = 1\noptimizer = { lr = 1e-3 }\n",
    );
    let plan = temper(&place, &hub.url(), &["plan", "recipes/more.toml", "--no-probe"]);
    assert_eq!(plan.code, Some(0), "{}", plan.stderr);
    assert!(
        plan.stdout.contains("starts from models/o/m (hf:o/m at revision 0123456)"),
        "{}",
        plan.stdout
    );
    let run = temper(&place, &hub.url(), &["run", "recipes/more.toml"]);
    assert_eq!(run.code, Some(0), "{}", run.stderr);
    assert_eq!(hub.requests().len(), n_requests, "only get connects");
}

/// Killed in the middle of a file, a second run transfers the rest.
#[test]
fn a_killed_download_continues() {
    let place = Place::new();
    let weights: Vec<u8> =
        (0..3_000_000_u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let files = vec![file("config.json", "{}"), file("model.safetensors", weights.clone())];
    let repo = Repo { directory: "models/o/m".to_owned(), files };
    let mut n_served = 0;
    let (hub, cdn) = serve(repo, move |mut reply| {
        n_served += 1;
        // The third connection stays open after a third of the file, until the client has gone.
        if n_served == 2 {
            reply.cut_after = Some(1_000_000);
            reply.stays_open = Some(Duration::from_secs(3));
        }
        reply
    });
    let part =
        place.path().join(format!("models/o/.m.partial/parts/{}", fsio::sha256_hex(&weights)));
    let mut child =
        command(&place, &hub.url(), &["get", "hf:o/m"]).spawn().expect("the binary runs");
    let started = Instant::now();
    while std::fs::metadata(&part).map_or(0, |metadata| metadata.len()) < 900_000 {
        assert!(started.elapsed() < Duration::from_mins(1), "no part appears");
        std::thread::sleep(Duration::from_millis(5));
    }
    child.kill().expect("a running child");
    child.wait().expect("a killed child");
    assert!(!place.path().join("models/o/m").exists());
    let outcome = temper(&place, &hub.url(), &["get", "hf:o/m"]);
    assert_eq!(outcome.code, Some(0), "{}", outcome.stderr);
    assert!(outcome.stderr.contains("model.safetensors: continues after"), "{}", outcome.stderr);
    assert!(
        std::fs::read(place.path().join("models/o/m/model.safetensors")).expect("weights")
            == weights
    );
    let range = cdn.requests().pop().expect("a request").header("range").map(str::to_owned);
    assert!(
        range
            .as_deref()
            .is_some_and(|range| range.starts_with("bytes=9") || range.starts_with("bytes=1")),
        "{range:?}"
    );
}

#[test]
fn refusals_have_exit_codes() {
    let place = Place::new();
    let gated = Server::start(|_| Reply::new(403).with("X-Error-Code", "GatedRepo"));
    let limited = Server::start(|_| Reply::new(429).with("Retry-After", "3600"));
    let check = |hub: &str, name: &str, code: i32, lines: [&str; 2]| {
        let error = temper(&place, hub, &["get", name]);
        assert_eq!(error.code, Some(code), "{}", error.stderr);
        let text = error.stderr.replace(hub, "HUB");
        assert!(lines.iter().all(|line| text.contains(line)), "{text}");
        assert_eq!(text.lines().count(), 2, "{text}");
    };
    check(
        &gated.url(),
        "hf:meta/llama",
        2,
        [
            "error: `hf:meta/llama` is gated: its owner must grant access first",
            "  hint: accept the conditions at HUB/meta/llama with the account that owns the token",
        ],
    );
    check(
        &limited.url(),
        "hf:datasets/o/n",
        1,
        [
            "error: HUB/api/datasets/o/n/revision/main limits requests (429) for another 3600 s",
            "  hint: wait, then run the command again: it continues where it stopped",
        ],
    );
    let nobody = gated.url();
    drop(gated);
    check(
        &nobody,
        "hf:o/m",
        1,
        ["error: cannot read from HUB/api/models/o/m/revision/main: ", "  hint: check the network"],
    );
    check(
        &nobody,
        "o/m",
        2,
        [
            "error: not a repository on the Hugging Face hub: `o/m`",
            "  hint: write hf:OWNER/MODEL or hf:datasets/OWNER/NAME",
        ],
    );
    assert!(
        std::fs::read_dir(place.path()).expect("a directory").next().is_none(),
        "nothing is left"
    );
}

#[test]
fn a_missing_data_set_names_the_command() {
    let place = Place::new();
    for (path, command) in [
        ("hf:datasets/o/n", "`temper get hf:datasets/o/n` downloads it"),
        ("o/n", "`temper get hf:datasets/o/n`, then `hf:datasets/o/n`"),
    ] {
        place.write("r.toml", tiny_recipe(&format!("{{ path = \"{path}\" }}"), ""));
        let error = temper(&place, "http://127.0.0.1:9", &["plan", "r.toml"]);
        assert_eq!(error.code, Some(2), "{}", error.stderr);
        assert!(error.stderr.contains(command), "{}", error.stderr);
    }
    place.write("r.toml", tiny_recipe("{ path = \"hf:o/n\" }", ""));
    let error = temper(&place, "http://127.0.0.1:9", &["plan", "r.toml"]);
    assert!(
        error.stderr.contains("write hf:datasets/OWNER/NAME for a data set"),
        "{}",
        error.stderr
    );
}
