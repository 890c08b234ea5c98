//! A program that answers lines with lines, under limits of time, output, memory and processes.
//!
//! The program gets no shell, no standard input but the pipe, and of the environment only `PATH` and a locale. It and its
//! children form a process group, which is killed when the [`Program`] is dropped or exceeds a limit.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Time between two counts of the program's processes.
const TICK: Duration = Duration::from_millis(10);
/// Bytes of the program's messages that are kept: the last ones.
const MESSAGE_BYTES: usize = 2048;

/// Limits of a program.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ProgramLimits {
    /// Time for the answer to a line.
    pub timeout: Duration,
    /// Bytes of a line of output.
    pub line_bytes: usize,
    /// Bytes of address space of each process.
    pub memory_bytes: u64,
    /// Number of processes, each thread counted.
    pub processes: usize,
}

/// Why a program gave no answer. The program is no longer running.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum ProgramFailure {
    /// It cannot be started.
    #[error("cannot be started: {0}")]
    NotStarted(String),
    /// It ended before it answered.
    #[error("ended without an answer ({status}){}{message}", if .message.is_empty() { "" } else { ": " })]
    Ended {
        /// Its exit status, in words.
        status: String,
        /// The last line that it wrote to standard error.
        message: String,
    },
    /// It took too long.
    #[error("gave no answer within {} s", .0.as_secs_f64())]
    Late(Duration),
    /// It wrote a line that is too long.
    #[error("wrote a line of more than {0} bytes")]
    LongLine(usize),
    /// It wrote bytes that are no text.
    #[error("wrote a line that is not UTF-8")]
    NotText,
    /// It wrote a line before it was asked for it, so that answers cannot be told apart.
    #[error("wrote more lines than it was sent")]
    Unasked,
    /// It has too many processes.
    #[error("has more than {0} processes and threads")]
    ManyProcesses(usize),
}

/// A running program.
#[derive(Debug)]
pub struct Program {
    child: Child,
    limits: ProgramLimits,
    input: SyncSender<String>,
    output: Receiver<Result<String, ProgramFailure>>,
    message: Arc<Mutex<Vec<u8>>>,
    /// Whether it was killed and waited for: its id may be another program's.
    is_over: bool,
}

impl Program {
    /// Starts `argv` in the directory `dir`.
    ///
    /// Errors: it cannot be started.
    pub fn start(
        argv: &[String],
        dir: &Path,
        limits: ProgramLimits,
    ) -> Result<Self, ProgramFailure> {
        let not_started = |error: std::io::Error| ProgramFailure::NotStarted(error.to_string());
        let (program, arguments) = argv
            .split_first()
            .ok_or_else(|| ProgramFailure::NotStarted("no program is named".to_owned()))?;
        let mut command = Command::new(program);
        command.args(arguments).current_dir(dir).env_clear().env("LC_ALL", "C.UTF-8");
        command.envs(std::env::var_os("PATH").map(|path| ("PATH", path)));
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command.process_group(0);
        let memory = limits.memory_bytes;
        let processes = n_of_user().saturating_add(limits.processes) as u64;
        #[allow(unsafe_code)]
        // SAFETY: between fork and exec only system calls are made, which allocate nothing and take no lock.
        unsafe {
            command.pre_exec(move || restrict(memory, processes));
        }
        let mut child = command.spawn().map_err(not_started)?;
        let (input, lines) = sync_channel::<String>(1);
        let (answers, output) = sync_channel(1);
        let message = Arc::new(Mutex::new(Vec::new()));
        if let Some(stdin) = child.stdin.take() {
            spawn(move || feed(stdin, &lines)).map_err(not_started)?;
        }
        if let Some(stdout) = child.stdout.take() {
            spawn(move || read_lines(stdout, limits.line_bytes, &answers)).map_err(not_started)?;
        }
        if let Some(stderr) = child.stderr.take() {
            let kept = Arc::clone(&message);
            spawn(move || keep_last(stderr, &kept)).map_err(not_started)?;
        }
        Ok(Self { child, limits, input, output, message, is_over: false })
    }

    /// Sends a line, and waits for one in return.
    ///
    /// Errors: a limit is exceeded, or the program has ended. It is killed in either case.
    pub fn ask(&mut self, line: &str) -> Result<String, ProgramFailure> {
        if self.output.try_recv().is_ok() {
            self.kill();
            return Err(ProgramFailure::Unasked);
        }
        // The channel has room: each line is taken before the program can answer it.
        let _ = self.input.send(format!("{line}\n"));
        let start = Instant::now();
        let answer = loop {
            match self.output.recv_timeout(TICK) {
                Ok(answer) => break answer,
                Err(RecvTimeoutError::Disconnected) => break Err(self.ended()),
                Err(RecvTimeoutError::Timeout) => {}
            }
            if start.elapsed() >= self.limits.timeout {
                break Err(ProgramFailure::Late(self.limits.timeout));
            }
            if n_of_group(self.child.id()) > self.limits.processes {
                break Err(ProgramFailure::ManyProcesses(self.limits.processes));
            }
        };
        if answer.is_err() {
            self.kill();
        }
        answer
    }

    /// Whether the program has written nothing since its last answer; waits for a moment.
    pub fn is_quiet(&mut self) -> bool {
        self.output.recv_timeout(TICK).is_err()
    }

    /// The failure of a program that closed its output.
    fn ended(&mut self) -> ProgramFailure {
        // A program that closes its output and runs on is killed.
        let start = Instant::now();
        let mut status = self.child.try_wait();
        while matches!(status, Ok(None)) && start.elapsed() < TICK * 10 {
            std::thread::sleep(TICK / 5);
            status = self.child.try_wait();
        }
        let status = match status {
            Ok(Some(status)) => status.to_string(),
            Ok(None) => "it closed its output".to_owned(),
            Err(error) => error.to_string(),
        };
        // The thread that reads the messages may still be reading the last one.
        std::thread::sleep(TICK);
        let message = self.message.lock().unwrap_or_else(PoisonError::into_inner);
        let text = String::from_utf8_lossy(&message).into_owned();
        let last = text.lines().rev().find(|line| !line.trim().is_empty());
        ProgramFailure::Ended { status, message: last.unwrap_or_default().trim().to_owned() }
    }

    fn kill(&mut self) {
        if std::mem::replace(&mut self.is_over, true) {
            return;
        }
        if let Ok(id) = libc::pid_t::try_from(self.child.id()) {
            #[allow(unsafe_code)]
            // SAFETY: the call takes numbers. The group exists until its leader has been waited for, below.
            unsafe {
                libc::kill(-id, libc::SIGKILL);
            }
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        self.kill();
    }
}

fn spawn(work: impl FnOnce() + Send + 'static) -> std::io::Result<()> {
    std::thread::Builder::new().name("program".to_owned()).spawn(work).map(|_| ())
}

/// Writes lines to the program until it is gone.
fn feed(mut stdin: ChildStdin, lines: &Receiver<String>) {
    for line in lines {
        if stdin.write_all(line.as_bytes()).and_then(|()| stdin.flush()).is_err() {
            return;
        }
    }
}

/// Sends each line of the output, or why it is none; reads no further than one line ahead.
fn read_lines(
    stdout: impl Read,
    line_bytes: usize,
    answers: &SyncSender<Result<String, ProgramFailure>>,
) {
    let mut stdout = BufReader::new(stdout);
    loop {
        let mut line = Vec::new();
        let read = (&mut stdout).take(line_bytes as u64 + 1).read_until(b'\n', &mut line);
        let answer = match read {
            Ok(0) | Err(_) => return,
            Ok(n) if n > line_bytes && line.last() != Some(&b'\n') => {
                Err(ProgramFailure::LongLine(line_bytes))
            }
            Ok(_) => String::from_utf8(line)
                .map(|line| line.trim_end().to_owned())
                .map_err(|_| ProgramFailure::NotText),
        };
        let is_last = answer.is_err();
        if answers.send(answer).is_err() || is_last {
            return;
        }
    }
}

/// Keeps the last bytes of the program's messages.
fn keep_last(mut stderr: impl Read, kept: &Mutex<Vec<u8>>) {
    let mut bytes = [0; 1024];
    while let Ok(n @ 1..) = stderr.read(&mut bytes) {
        let mut kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.extend_from_slice(bytes.get(..n).unwrap_or_default());
        let excess = kept.len().saturating_sub(MESSAGE_BYTES);
        kept.drain(..excess);
    }
}

/// Limits of the new process, set before the program is loaded.
fn restrict(memory: u64, processes: u64) -> std::io::Result<()> {
    let limits =
        [(libc::RLIMIT_AS, memory), (libc::RLIMIT_NPROC, processes), (libc::RLIMIT_CORE, 0)];
    for (resource, value) in limits {
        let limit = libc::rlimit { rlim_cur: value, rlim_max: value };
        #[allow(unsafe_code)]
        // SAFETY: the pointer is to a value that lives through the call.
        let result = unsafe { libc::setrlimit(resource, &raw const limit) };
        if result != 0 {
            return Err(std::io::Error::last_os_error());
        }
    }
    #[cfg(target_os = "linux")]
    #[allow(unsafe_code)]
    // SAFETY: the call takes numbers. The program ends with the thread that started it.
    unsafe {
        libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
    }
    Ok(())
}

/// Number of threads in the processes of a group; 0 where the system does not list them.
fn n_of_group(group: u32) -> usize {
    n_threads(|fields| fields.get(2).and_then(|text| text.parse().ok()) == Some(group), |_| true)
}

/// Number of threads in all processes of this user.
fn n_of_user() -> usize {
    use std::os::unix::fs::MetadataExt;
    let Ok(own) = std::fs::metadata("/proc/self") else { return 0 };
    n_threads(|_| true, |entry| entry.metadata().is_ok_and(|of| of.uid() == own.uid()))
}

/// Number of threads of the processes in /proc that are chosen by the fields of `stat` after the name, and by the entry.
fn n_threads(
    by_fields: impl Fn(&[&str]) -> bool,
    by_entry: impl Fn(&std::fs::DirEntry) -> bool,
) -> usize {
    /// Index of the number of threads after the name; the group's is 2.
    const N_THREADS: usize = 17;
    let of_process = |entry: std::fs::DirEntry| -> Option<usize> {
        entry.file_name().to_str()?.parse::<u32>().ok()?;
        if !by_entry(&entry) {
            return None;
        }
        let stat = std::fs::read_to_string(entry.path().join("stat")).ok()?;
        let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
        if !by_fields(&fields) {
            return None;
        }
        fields.get(N_THREADS)?.parse().ok()
    };
    let Ok(entries) = std::fs::read_dir("/proc") else { return 0 };
    entries.flatten().filter_map(of_process).sum()
}
