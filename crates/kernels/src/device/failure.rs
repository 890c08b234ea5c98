//! Classification of device failures by the text of a panic.
//!
//! burn reports most failures of a GPU by a panic on its worker thread. The panic is caught where a stage starts.

/// Failure of a device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DeviceFailure {
    /// The device is out of memory.
    OutOfMemory {
        /// Bytes of the failed allocation, if the text has them.
        requested: Option<u64>,
    },
    /// A kernel could not be compiled.
    Compilation(String),
    /// The driver reported a fault after which the process cannot continue.
    Fault(String),
    /// Any other failure, possibly a mistake in the program.
    Other(String),
}

/// Maximum length of a failure's text, in characters: compilers quote whole kernels.
const MAX_CHARS: usize = 300;

/// Classifies the texts of a run's panics, in the order of their occurrence. The worker's text comes first; threads that
/// wait for the worker panic after it without information.
pub fn device_failure(panics: &[String]) -> DeviceFailure {
    let find = |words: &[&str]| {
        let has = |text: &&String| words.iter().any(|word| text.to_lowercase().contains(word));
        panics.iter().find(has)
    };
    if let Some(text) = find(&[
        "out of device memory",
        "out-of-memory",
        "out_of_memory",
        "can't allocate",
        "out of memory",
    ]) {
        return DeviceFailure::OutOfMemory { requested: bytes_in(text) };
    }
    if let Some(text) =
        find(&["compilation error", "shader", "nvrtc", "cuda installation not found"])
    {
        return DeviceFailure::Compilation(shortened(text));
    }
    if let Some(text) = find(&["poisoned", "cuda_error", "illegal address", "drivererror"]) {
        return DeviceFailure::Fault(shortened(text));
    }
    DeviceFailure::Other(panics.first().map_or_else(String::new, |text| shortened(text)))
}

/// The number before "bytes" or after "size:".
fn bytes_in(text: &str) -> Option<u64> {
    let words: Vec<&str> = text.split_whitespace().collect();
    let number = |word: &str| word.trim_matches(|c: char| !c.is_ascii_digit()).parse().ok();
    words.windows(2).find_map(|pair| match pair {
        [before, after] if after.starts_with("bytes") => number(before),
        [before, after] if before.ends_with("size:") => number(after),
        _ => None,
    })
}

/// The text up to the backtrace, on one line.
fn shortened(text: &str) -> String {
    let said = |line: &&str| !matches!(line.trim(), "" | "Backtrace");
    let lines = text.lines().take_while(|line| line.trim() != "Backtrace").filter(said);
    let joined = lines.map(str::trim).collect::<Vec<_>>().join(" ");
    match joined.char_indices().nth(MAX_CHARS) {
        Some((end, _)) => format!("{}…", &joined[..end]),
        None => joined,
    }
}

#[cfg(test)]
mod tests {
    use super::{DeviceFailure, device_failure};

    fn judged(panics: &[&str]) -> DeviceFailure {
        device_failure(&panics.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn out_of_memory() {
        // Texts of cubecl-runtime 0.11.3, different for launches and reads.
        let requested = |text: &str| {
            let failure = judged(&[text, "called `Result::unwrap()` on an `Err` value: RecvError"]);
            let DeviceFailure::OutOfMemory { requested } = failure else { panic!("{failure:?}") };
            requested
        };
        assert_eq!(
            requested("out of device memory allocating 1610612736 bytes\n   0: frame"),
            Some(1_610_612_736)
        );
        assert_eq!(requested("can't allocate buffer of size: 99999\n"), Some(99_999));
        assert_eq!(
            requested(
                "Can't allocate 512 bytes: every page size the memory tracks still holds live allocations"
            ),
            Some(512)
        );
        assert_eq!(
            requested(
                "An out-of-memory error happened during launch\nCaused by:\n  no pages\nBacktrace\n"
            ),
            None
        );
        assert_eq!(requested("wgpu error: Out of Memory"), None);
        assert_eq!(requested("DriverError(CUDA_ERROR_OUT_OF_MEMORY, \"out of memory\")"), None);
    }

    #[test]
    fn the_workers_text_counts_at_any_position() {
        let late = judged(&["RecvError", "out of device memory allocating 7 bytes"]);
        assert_eq!(late, DeviceFailure::OutOfMemory { requested: Some(7) });
    }

    #[test]
    fn kernels_that_do_not_compile_and_faults() {
        let text = "A compilation error happened during launch\nCaused by:\n  default_program(3): error\nBacktrace\n 0: x";
        let DeviceFailure::Compilation(text) = judged(&[text]) else { panic!("{text}") };
        assert_eq!(
            text,
            "A compilation error happened during launch Caused by: default_program(3): error"
        );
        let fault = judged(&["The device is poisoned: cuStreamSynchronize failed with 700"]);
        assert!(matches!(fault, DeviceFailure::Fault(_)));
        let long = judged(&[&"é".repeat(1000)]);
        assert_eq!(long, DeviceFailure::Other(format!("{}…", "é".repeat(300))));
        assert_eq!(judged(&[]), DeviceFailure::Other(String::new()));
    }
}
