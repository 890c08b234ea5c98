//! `temper serve` in a crowd: a short form of tests/serve/soak.py. Every answer is the one that a single client gets, whatever
//! others send, the memory stays what it was, and nothing listens beyond this machine.

use std::io::Write as _;
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::adapters::tuned;
use crate::serve::Server;

/// Clients at the same time, and the seconds for which they ask.
const CLIENTS: usize = 24;
const SECONDS: u64 = 6;
/// Growth of the memory that is no leak: buffers of threads and connections, pages of the allocator.
const GROWTH_KIB: u64 = 40 << 10;

fn requests() -> Vec<(&'static str, Value)> {
    let mut found = Vec::new();
    for model in ["tiny/pretrain", "tiny/sft"] {
        for seed in 0..4 {
            let body = json!({"model": model, "prompt": "The quick ", "seed": seed, "max_tokens": 4 + 6 * seed, "n": 1 + seed % 2});
            found.push(("completions", body));
        }
        found.push(("embeddings", json!({"model": model, "input": ["The dog", "jumps"]})));
    }
    found
}

fn essence(answer: &Value) -> Value {
    if answer["choices"].is_null() { answer["data"].clone() } else { answer["choices"].clone() }
}

/// Sends what no good client sends, until `is_over`.
fn disturb(server: &Server, is_over: &AtomicBool) {
    let long = json!({"model": "tiny/pretrain", "prompt": "The", "max_tokens": 100, "n": 4, "stream": true}).to_string();
    let head = format!(
        "POST /v1/completions HTTP/1.1\r\nHost: {}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
        server.address,
        long.len()
    );
    let whole = format!("{head}{long}");
    let mut silent = Vec::new();
    while !is_over.load(Ordering::SeqCst) {
        for n in [whole.len(), whole.len() / 2, 20] {
            let mut stream = TcpStream::connect(&server.address).expect("a connection");
            let _ = stream.write_all(&whole.as_bytes()[..n]);
            silent.push(stream);
        }
        for (body, status) in [(json!([1]), 400), (json!({"model": "none", "prompt": "x"}), 404)] {
            assert_eq!(server.post("", &body).0, status);
        }
        std::thread::sleep(Duration::from_millis(20));
        // Some leave at once, some keep their connection and read nothing.
        if silent.len() > 30 {
            silent.clear();
        }
    }
}

fn rss_kib(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("a status");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("a line");
    line.trim().trim_end_matches("kB").trim().parse().expect("a number")
}

/// Addresses at which a process listens, as /proc/net/tcp has them.
fn listeners(pid: u32) -> Vec<String> {
    let open: Vec<String> = std::fs::read_dir(format!("/proc/{pid}/fd"))
        .expect("open files")
        .filter_map(|entry| {
            std::fs::read_link(entry.ok()?.path()).ok()?.into_os_string().into_string().ok()
        })
        .collect();
    let mut found = Vec::new();
    for table in ["tcp", "tcp6"] {
        let table = std::fs::read_to_string(format!("/proc/{pid}/net/{table}")).unwrap_or_default();
        for line in table.lines().skip(1) {
            let fields: Vec<&str> = line.split_whitespace().collect();
            // State 0A is listening.
            if fields[3] == "0A" && open.contains(&format!("socket:[{}]", fields[9])) {
                found.push(fields[1].to_owned());
            }
        }
    }
    found
}

#[test]
#[cfg(target_os = "linux")]
fn a_crowd_gets_the_answers_of_single_clients() {
    let place = tuned();
    let server = Server::start(&place, &["runs/tiny/pretrain", "runs/tiny/sft"]);
    let requests = requests();
    let ask = |idx: usize| {
        let (path, body) = &requests[idx % requests.len()];
        let (status, answer) = server.post_to(path, "", body);
        assert_eq!(status, 200, "{answer}");
        essence(&answer)
    };
    let expected: Vec<Value> = (0..requests.len()).map(ask).collect();
    let (is_over, n_answers) = (AtomicBool::new(false), AtomicUsize::new(0));
    let memory = std::thread::scope(|scope| {
        let (ask, expected, is_over, n_answers, server) =
            (&ask, &expected, &is_over, &n_answers, &server);
        for client in 0..CLIENTS {
            scope.spawn(move || {
                for idx in (client * 7..).step_by(3) {
                    if is_over.load(Ordering::SeqCst) {
                        break;
                    }
                    assert_eq!(ask(idx), expected[idx % expected.len()], "request {idx}");
                    n_answers.fetch_add(1, Ordering::SeqCst);
                }
            });
        }
        scope.spawn(move || disturb(server, is_over));
        let mut memory = Vec::new();
        let start = Instant::now();
        while start.elapsed() < Duration::from_secs(SECONDS) {
            std::thread::sleep(Duration::from_millis(500));
            memory.push(rss_kib(server.pid()));
        }
        is_over.store(true, Ordering::SeqCst);
        memory
    });
    assert!(n_answers.load(Ordering::SeqCst) > CLIENTS, "{n_answers:?} answers");
    let (first, last) = (memory[2.min(memory.len() - 1)], memory[memory.len() - 1]);
    assert!(last < first + GROWTH_KIB, "memory: {memory:?} KiB");
    let listeners = listeners(server.pid());
    assert!(listeners.len() == 1 && listeners[0].starts_with("0100007F:"), "{listeners:?}");
    assert_eq!((0..requests.len()).map(ask).collect::<Vec<_>>(), expected);
    assert_eq!(server.stop("-TERM"), Some(0));
}
