//! What a panic's text says about a device: burn reports most failures of a GPU by panicking on its worker's thread.
//!
//! It deliberately catches nothing: the boundary is where a stage is begun.

/// What went wrong on a device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DeviceFailure {
    /// The device's memory ran out.
    OutOfMemory {
        /// Bytes of the allocation that failed, where the text says.
        asked: Option<u64>,
    },
    /// A kernel could not be compiled.
    Compilation(String),
    /// The driver reported a fault after which the process cannot go on.
    Fault(String),
    /// Anything else; it may be a mistake in the program.
    Other(String),
}

/// Longest text of a failure that is shown, in characters: compilers quote whole kernels.
const MOST_CHARS: usize = 300;

/// Judges the texts of the panics of a run, in the order in which they came: the worker's own text comes first, and what
/// waits for the worker panics after it with nothing to say.
pub fn device_failure(panics: &[String]) -> DeviceFailure {
    let find = |words: &[&str]| {
        let has = |text: &&String| words.iter().any(|word| text.to_lowercase().contains(word));
        panics.iter().find(has)
    };
    if let Some(text) =
        find(&["out of device memory", "out-of-memory", "out_of_memory", "can't allocate"])
    {
        return DeviceFailure::OutOfMemory { asked: bytes_in(text) };
    }
    if let Some(text) = find(&["compilation error", "nvrtc", "cuda installation not found"]) {
        return DeviceFailure::Compilation(shortened(text));
    }
    if let Some(text) = find(&["poisoned", "cuda_error", "illegal address", "drivererror"]) {
        return DeviceFailure::Fault(shortened(text));
    }
    DeviceFailure::Other(panics.first().map_or_else(String::new, |text| shortened(text)))
}

/// The number before "bytes", or after "size:".
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
    match joined.char_indices().nth(MOST_CHARS) {
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
    fn memory_that_ran_out() {
        // As cubecl-runtime 0.11.3 words it, launches and reads each in their own way.
        let asked = |text: &str| match judged(&[
            text,
            "called `Result::unwrap()` on an `Err` value: RecvError",
        ]) {
            DeviceFailure::OutOfMemory { asked } => asked,
            other => panic!("{other:?}"),
        };
        assert_eq!(
            asked("out of device memory allocating 1610612736 bytes\n   0: frame"),
            Some(1_610_612_736)
        );
        assert_eq!(asked("can't allocate buffer of size: 99999\n"), Some(99_999));
        assert_eq!(
            asked(
                "Can't allocate 512 bytes: every page size the memory tracks still holds live allocations"
            ),
            Some(512)
        );
        assert_eq!(
            asked(
                "An out-of-memory error happened during launch\nCaused by:\n  no pages\nBacktrace\n"
            ),
            None
        );
        assert_eq!(asked("DriverError(CUDA_ERROR_OUT_OF_MEMORY, \"out of memory\")"), None);
    }

    #[test]
    fn the_workers_text_counts_wherever_it_stands() {
        let late = judged(&["RecvError", "out of device memory allocating 7 bytes"]);
        assert_eq!(late, DeviceFailure::OutOfMemory { asked: Some(7) });
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
