//! A server on a free port, and a client that shows what arrives.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use arch::ModelConfig;
use model::CausalLm;
use serde_json::{Value, json};
use serve::{Listener, Models, NamedModel, Options};
use testkit::{golden_dir, tiny_llama};
use tokenizer::{ChatTemplate, Tokenizer, default_special_tokens};

/// The golden llama: 320 ids, 128 positions.
pub(crate) fn golden_llama() -> CausalLm {
    let device = kernels::device("cpu").unwrap();
    model::load_causal_lm(&golden_dir("models/llama"), &device).unwrap()
}

/// A model with a context in which an answer can take minutes.
pub(crate) fn long_llama() -> CausalLm {
    let mut keys = tiny_llama(300);
    keys["max_position_embeddings"] = 20_000.into();
    let config = ModelConfig::from_json(&keys, Path::new("tiny")).unwrap();
    CausalLm::init(&config, 1, &kernels::device("cpu").unwrap())
}

/// One token per byte, with a template.
pub(crate) fn bytes() -> Tokenizer {
    let specials = default_special_tokens();
    let texts = std::iter::once("ab".to_owned());
    let tokenizer = Tokenizer::train_byte_bpe(texts, 256 + specials.len(), &specials).unwrap();
    tokenizer.with_chat_template(ChatTemplate::builtin("chatml").unwrap())
}

/// `logit_bias` with which an answer never ends on its own.
pub(crate) fn endless() -> Value {
    bytes().eos_ids().into_iter().map(|id| (id.to_string(), json!(-100))).collect()
}

pub(crate) fn options() -> Options {
    Options { max_tokens: 100, max_clients: 32, key: None }
}

/// A running server.
pub(crate) struct Server {
    pub(crate) address: String,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<serve::Result<()>>>,
}

/// A response.
#[derive(Debug)]
pub(crate) struct Response {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: String,
}

impl Response {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.body))
    }

    /// The data of its server-sent events, of which the last is `[DONE]`.
    pub(crate) fn events(&self) -> Vec<Value> {
        let data: Vec<&str> =
            self.body.split("\n\n").filter_map(|event| event.strip_prefix("data: ")).collect();
        let (last, chunks) = data.split_last().unwrap();
        assert_eq!(*last, "[DONE]", "{}", self.body);
        chunks.iter().map(|chunk| serde_json::from_str(chunk).unwrap()).collect()
    }
}

impl Server {
    pub(crate) fn start(options: Options) -> Self {
        Self::start_with(bytes(), options)
    }

    pub(crate) fn start_with(tokenizer: Tokenizer, options: Options) -> Self {
        Self::serve(golden_llama(), tokenizer, options)
    }

    /// A server whose answers can take minutes.
    pub(crate) fn start_long(options: Options) -> Self {
        Self::start_long_with(bytes(), Options { max_tokens: 15_000, ..options })
    }

    /// A server of a model with a long context.
    pub(crate) fn start_long_with(tokenizer: Tokenizer, options: Options) -> Self {
        Self::serve(long_llama(), tokenizer, options)
    }

    fn serve(model: CausalLm, tokenizer: Tokenizer, options: Options) -> Self {
        let listener = Listener::bind("127.0.0.1", 0, options.key.is_some()).unwrap();
        let address = listener.address().unwrap().to_string();
        let stop = Arc::new(AtomicBool::new(false));
        let flag = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            let (name, adapter) = ("tiny".to_owned(), None);
            let named = vec![NamedModel { name, model_idx: 0, adapter, tokenizer }];
            serve::run(listener, Models { models: vec![model], named }, options, &|| {
                flag.load(Ordering::SeqCst)
            })
        });
        Self { address, stop, thread: Some(thread) }
    }

    /// Tells the server to stop.
    pub(crate) fn request_stop(&self) {
        self.stop.store(true, Ordering::SeqCst);
    }

    /// Waits until the server has stopped.
    pub(crate) fn wait(&mut self) {
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap().unwrap();
        }
    }

    pub(crate) fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(&self.address).unwrap();
        stream.set_read_timeout(Some(Duration::from_mins(1))).unwrap();
        stream
    }

    /// Sends a request with further header lines and reads the response.
    pub(crate) fn send(&self, method: &str, path: &str, headers: &str, body: &[u8]) -> Response {
        let mut stream = self.connect();
        let address = &self.address;
        let host =
            if headers.contains("Host:") { String::new() } else { format!("Host: {address}\r\n") };
        let n = body.len();
        let head = format!(
            "{method} {path} HTTP/1.1\r\n{host}Connection: close\r\nContent-Length: {n}\r\n{headers}\r\n"
        );
        stream.write_all(head.as_bytes()).unwrap();
        // A server that refuses a large body may close the connection before it has all of it.
        let _ = stream.write_all(body);
        read_response(stream)
    }

    pub(crate) fn get(&self, path: &str) -> Response {
        self.send("GET", path, "", b"")
    }

    pub(crate) fn post(&self, path: &str, body: &Value) -> Response {
        let json = "Content-Type: application/json\r\n";
        self.send("POST", path, json, body.to_string().as_bytes())
    }

    /// Completes a prompt; `more` replaces and adds fields.
    pub(crate) fn complete(&self, prompt: &str, more: Value) -> Response {
        self.post("/v1/completions", &merged(json!({"model": "tiny", "prompt": prompt}), more))
    }

    /// Answers a message; `more` replaces and adds fields.
    pub(crate) fn chat(&self, text: &str, more: Value) -> Response {
        let messages = json!([{"role": "user", "content": text}]);
        self.post(
            "/v1/chat/completions",
            &merged(json!({"model": "tiny", "messages": messages}), more),
        )
    }

    /// The value of a metric of the model.
    pub(crate) fn metric(&self, name: &str) -> f64 {
        let text = self.get("/metrics").body;
        let line = format!("temper_{name}{{model=\"tiny\"}} ");
        let value = text.lines().find_map(|text| text.strip_prefix(line.as_str()));
        value.unwrap_or_else(|| panic!("no {line} in {text}")).parse().unwrap()
    }

    /// Waits until a metric has a value.
    pub(crate) fn wait_for(&self, name: &str, value: f64) {
        let start = Instant::now();
        while self.metric(name) != value {
            assert!(start.elapsed() < Duration::from_secs(30), "{}", self.get("/metrics").body);
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.request_stop();
        if !std::thread::panicking() {
            self.wait();
        }
    }
}

fn merged(mut body: Value, more: Value) -> Value {
    if let (Some(body), Value::Object(more)) = (body.as_object_mut(), more) {
        body.extend(more);
    }
    body
}

pub(crate) fn read_response(stream: TcpStream) -> Response {
    let mut reader = BufReader::new(stream);
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if reader.read_line(&mut head).unwrap() == 0 {
            break;
        }
    }
    let status = head.split(' ').nth(1).and_then(|code| code.parse().ok());
    let mut raw = Vec::new();
    // A connection that is reset after the response is no matter.
    let _ = reader.read_to_end(&mut raw);
    let is_chunked = head.to_ascii_lowercase().contains("transfer-encoding: chunked");
    let body = if is_chunked { unchunked(&raw) } else { raw };
    let body = String::from_utf8(body).unwrap();
    Response { status: status.unwrap_or(0), head, body }
}

fn unchunked(mut raw: &[u8]) -> Vec<u8> {
    let mut body = Vec::new();
    while let Some(at) = raw.windows(2).position(|pair| pair == b"\r\n") {
        let size = std::str::from_utf8(&raw[..at]).unwrap();
        let size = usize::from_str_radix(size, 16).unwrap();
        if size == 0 {
            break;
        }
        body.extend_from_slice(&raw[at + 2..at + 2 + size]);
        raw = &raw[at + 4 + size..];
    }
    body
}
