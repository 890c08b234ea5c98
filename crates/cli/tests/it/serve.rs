//! `temper serve`: the binary answers over HTTP what `temper generate` prints, and ends at a signal.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt as _;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::adapters::tuned;
use crate::support::{Place, trained};

/// A server, killed when the test ends.
pub(crate) struct Server {
    child: Child,
    pub(crate) address: String,
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Server {
    /// Starts the binary on a free port and waits until it listens.
    pub(crate) fn start(place: &Place, args: &[&str]) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_temper"))
            .args(["serve", "--port", "0"])
            .args(args)
            .current_dir(place.path())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the binary runs");
        let mut line = String::new();
        let stdout = child.stdout.take().expect("a pipe");
        BufReader::new(stdout).read_line(&mut line).expect("a line");
        let address = line.split("http://").nth(1).and_then(|rest| rest.split(' ').next());
        let address = address.unwrap_or_else(|| panic!("no address: {line}")).to_owned();
        Self { child, address }
    }

    pub(crate) fn post(&self, headers: &str, body: &Value) -> (u16, Value) {
        self.post_to("completions", headers, body)
    }

    pub(crate) fn post_to(&self, path: &str, headers: &str, body: &Value) -> (u16, Value) {
        let mut stream = TcpStream::connect(&self.address).expect("a connection");
        let body = body.to_string();
        let request = format!(
            "POST /v1/{path} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n{headers}\
             Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            self.address,
            body.len()
        );
        stream.write_all(request.as_bytes()).expect("a request");
        let mut response = String::new();
        stream.read_to_string(&mut response).expect("a response");
        let status = response.split(' ').nth(1).and_then(|status| status.parse().ok());
        let body = response.split_once("\r\n\r\n").expect("a body").1;
        (status.unwrap_or(0), serde_json::from_str(body).expect(body))
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends a signal and returns the exit code.
    pub(crate) fn stop(mut self, signal: &str) -> Option<i32> {
        let kill = Command::new("kill").args([signal, &self.child.id().to_string()]).status();
        assert!(kill.expect("kill").success());
        let start = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().expect("a child") {
                return status.code();
            }
            assert!(start.elapsed() < Duration::from_secs(30), "it does not end");
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

#[test]
fn the_server_answers_what_generate_prints() {
    let place = trained();
    let printed = place.temper(&[
        "generate",
        "runs/tiny/pretrain",
        "--prompt",
        "The quick",
        "--n",
        "2",
        "--seed",
        "5",
        "--max-new-tokens",
        "12",
    ]);
    assert_eq!(printed.code, Some(0), "{}", printed.stderr);
    let texts: Vec<Value> = printed
        .stdout
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).expect("JSON")["completion"].clone())
        .collect();
    assert_eq!(texts.len(), 2);

    let server = Server::start(&place, &["runs/tiny/pretrain", "again=runs/tiny/pretrain"]);
    for model in ["tiny/pretrain", "again"] {
        let body =
            json!({"model": model, "prompt": "The quick", "n": 2, "seed": 5, "max_tokens": 12});
        let (status, answer) = server.post("", &body);
        assert_eq!(status, 200, "{answer}");
        let choices = answer["choices"].as_array().expect("choices");
        assert!(choices.iter().map(|choice| &choice["text"]).eq(&texts), "{answer} {texts:?}");
    }
    let (status, answer) = server.post("", &json!({"model": "x", "prompt": "The"}));
    assert_eq!((status, &answer["error"]["code"]), (404, &json!("model_not_found")));
    assert_eq!(server.stop("-TERM"), Some(0));
}

#[test]
fn a_key_comes_from_a_file() {
    let place = trained();
    place.write("key", "k3y\n").write("empty", "\n");
    let server = Server::start(&place, &["runs/tiny/pretrain", "--key-file", "key"]);
    let body = json!({"model": "tiny/pretrain", "prompt": "The", "max_tokens": 2});
    assert_eq!(server.post("", &body).0, 401);
    assert_eq!(server.post("Authorization: Bearer k3y\r\n", &body).0, 200);
    assert_eq!(server.stop("-INT"), Some(0));

    let model = "runs/tiny/pretrain";
    let refused = place.error(&["serve", model, "--host", "0.0.0.0", "--port", "0"]);
    assert!(refused.contains("exit 2") && refused.contains("--key-file"), "{refused}");
    // A key that others can read or guess is a warning.
    let warned = |key: &str, mode: u32| {
        place.write("weak", key);
        let permissions = std::fs::Permissions::from_mode(mode);
        std::fs::set_permissions(place.path().join("weak"), permissions).expect("a mode");
        place.temper(&["serve", "none", "--port", "0", "--key-file", "weak"]).stderr
    };
    let (short, readable) = ("the key in `weak` has 3 characters", "`chmod 600 weak`");
    let stderr = warned("k3y", 0o644);
    assert!(stderr.contains(short) && stderr.contains(readable), "{stderr}");
    let stderr = warned("0123456789abcdef\n", 0o640);
    assert!(!stderr.contains("warning"), "{stderr}");
    let refused = place.error(&["serve", model, "--key-file", "empty"]);
    assert!(refused.contains("exit 2") && refused.contains("no key in `empty`"), "{refused}");
    let twice = ["serve", "a=runs/tiny/pretrain", "a=runs/tiny/pretrain", "--port", "0"];
    let refused = place.error(&twice);
    assert!(refused.contains("exit 2") && refused.contains("two models"), "{refused}");
    let refused = place.error(&["serve", "runs/none/sft", "--port", "0"]);
    assert!(refused.contains("exit 2") && refused.contains("runs/none/sft"), "{refused}");
}

/// Two adapters and their base in one server, at the same time: each answers what `generate` prints.
#[test]
fn adapters_are_served_with_their_base() {
    let place = tuned();
    let recipe = "[sft]\nstart = \"runs/tiny/pretrain\"\nlora = { rank = 3 }\ndata = [{ path = \"other.jsonl\" }]\n\
                  chat_template = \"plain\"\nsequence_length = 32\ntokens_per_step = 64\nmax_steps = 3\n\
                  optimizer = { lr = 1e-1 }\n";
    let chats = "{\"prompt\": \"Hi?\", \"completion\": \"jump over\"}\n".repeat(8);
    place.write("other.toml", recipe).write("other.jsonl", chats);
    let outcome = place.temper(&["run", "other.toml"]);
    assert_eq!(outcome.code, Some(0), "{}", outcome.stderr);

    let models = ["runs/tiny/pretrain", "runs/tiny/sft", "runs/other/sft"];
    let server = Server::start(&place, &models);
    let printed = |model: &str| {
        let args = ["generate", model, "--prompt", "The quick", "--n", "3", "--seed", "7"];
        let printed = place.temper(&[&args[..], &["--max-new-tokens", "20"]].concat());
        assert_eq!(printed.code, Some(0), "{}", printed.stderr);
        let text =
            |line: &str| serde_json::from_str::<Value>(line).expect("JSON")["completion"].clone();
        printed.stdout.lines().map(text).collect::<Vec<Value>>()
    };
    let served = |model: &str| {
        let model = &model["runs/".len()..];
        let body =
            json!({"model": model, "prompt": "The quick", "n": 3, "seed": 7, "max_tokens": 20});
        let (status, answer) = server.post("", &body);
        assert_eq!(status, 200, "{answer}");
        let choices = answer["choices"].as_array().expect("choices").clone();
        choices.into_iter().map(|choice| choice["text"].clone()).collect::<Vec<Value>>()
    };
    let expected: Vec<Vec<Value>> = models.iter().map(|model| printed(model)).collect();
    assert!(expected[0] != expected[1] && expected[1] != expected[2] && expected[0] != expected[2]);
    for _ in 0..3 {
        let served = &served;
        let together: Vec<Vec<Value>> = std::thread::scope(|scope| {
            let threads: Vec<_> =
                models.iter().map(|model| scope.spawn(move || served(model))).collect();
            threads.into_iter().map(|thread| thread.join().expect("an answer")).collect()
        });
        assert_eq!(together, expected);
    }
    // A model that learned plain text has no chat template.
    let body = json!({"model": "tiny/pretrain", "messages": [{"role": "user", "content": "Hi?"}]});
    let (status, answer) = server.post_to("chat/completions", "", &body);
    assert_eq!(status, 400);
    assert!(answer.to_string().contains("no chat template"), "{answer}");
    assert_eq!(server.stop("-TERM"), Some(0));
}
