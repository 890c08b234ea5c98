//! Ends the process when an operation on foreign bytes takes too long.
//!
//! Most operations check their own limits between steps. A C library's call cannot be interrupted from outside, so the
//! last resort is to end the process with an error. Nothing that has been saved is lost: all writes are atomic.

use std::cell::{Cell, RefCell};
use std::sync::{Arc, Mutex, MutexGuard, Once, OnceLock, PoisonError};
use std::time::Duration;

/// Time between two looks at the operations.
const TICK: Duration = Duration::from_millis(100);

/// Called once, with a description of the operation.
type Handler = fn(&str);

static HANDLER: OnceLock<Handler> = OnceLock::new();
static OPERATIONS: Mutex<Vec<Option<Operation>>> = Mutex::new(Vec::new());

thread_local! {
    /// Location of what this thread works on, for descriptions.
    static LOCATION: RefCell<Option<String>> = const { RefCell::new(None) };
    /// Index of this thread's innermost operation.
    static CURRENT: Cell<Option<usize>> = const { Cell::new(None) };
}

struct Operation {
    description: String,
    /// The part of the operation that runs, if it was noted.
    step: Option<Arc<str>>,
    /// Looks until the time is over. A stopped process looks at nothing, so its operations do not age.
    ticks_left: u32,
}

/// Calls `handler` if a watched operation takes too long. The handler must end the process. Without a handler, nothing is
/// watched. Further calls have no effect.
pub fn watch_with(handler: Handler) {
    let _ = HANDLER.set(handler);
}

/// Starts the thread that looks at the operations, when the first one begins.
fn start(handler: Handler) {
    static STARTED: Once = Once::new();
    STARTED.call_once(|| {
        // Without a thread, the operations check their limits between steps only.
        let thread = std::thread::Builder::new().name("watchdog".to_owned());
        let _ = thread.spawn(move || {
            let mut before = None;
            loop {
                std::thread::sleep(TICK);
                if operations().iter().all(Option::is_none) {
                    before = None;
                    continue;
                }
                // On a busy machine, an operation may get no time between two looks. Such a look does not count.
                let now = processor_time();
                let since = |before: Duration| now.map(|now| now.saturating_sub(before));
                if before.and_then(since).is_none_or(|worked| worked >= TICK / 2) {
                    before = now;
                    if let Some(description) = late() {
                        handler(&description);
                    }
                }
            }
        });
    });
}

/// Runs `f`, which may take `limit`; `description` says what it works on.
pub fn watched<T>(
    limit: Duration,
    description: impl FnOnce() -> String,
    f: impl FnOnce() -> T,
) -> T {
    let Some(handler) = HANDLER.get() else { return f() };
    start(*handler);
    let ticks = limit.as_millis() / TICK.as_millis() + 1;
    let ticks_left = u32::try_from(ticks).unwrap_or(u32::MAX);
    let location = LOCATION
        .with_borrow(|place| place.as_ref().map(|place| format!("{place}: ")).unwrap_or_default());
    let description = format!("{location}{}", description());
    let _entry = Entry::of(Operation { description, step: None, ticks_left });
    f()
}

/// Runs `f`, whose watched operations work on what is at `location`, such as a row.
pub fn located<T>(location: impl FnOnce() -> String, f: impl FnOnce() -> T) -> T {
    if HANDLER.get().is_none() {
        return f();
    }
    let outer = LOCATION.replace(Some(location()));
    let result = f();
    LOCATION.set(outer);
    result
}

/// Notes which part of this thread's watched operation runs, for its description.
pub fn note_step(step: &Arc<str>) {
    if let Some(idx) = CURRENT.get()
        && let Some(Some(operation)) = operations().get_mut(idx)
    {
        operation.step = Some(Arc::clone(step));
    }
}

/// A watched operation; it is over when this is dropped.
struct Entry {
    idx: usize,
    outer: Option<usize>,
}

impl Entry {
    fn of(operation: Operation) -> Self {
        let mut operations = operations();
        let free = operations.iter().position(Option::is_none);
        let idx = free.unwrap_or_else(|| {
            operations.push(None);
            operations.len() - 1
        });
        if let Some(slot) = operations.get_mut(idx) {
            *slot = Some(operation);
        }
        Self { idx, outer: CURRENT.replace(Some(idx)) }
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        CURRENT.set(self.outer);
        if let Some(slot) = operations().get_mut(self.idx) {
            *slot = None;
        }
    }
}

fn operations() -> MutexGuard<'static, Vec<Option<Operation>>> {
    OPERATIONS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Processor time of this process so far; None where the system does not say.
fn processor_time() -> Option<Duration> {
    let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
    // The name of the program, in parentheses, may contain spaces. User and system time follow in hundredths of a second.
    let (_, fields) = stat.rsplit_once(')')?;
    let mut times = fields.split_whitespace().skip(11).take(2).map(str::parse::<u64>);
    let (user, system) = (times.next()?.ok()?, times.next()?.ok()?);
    Some(Duration::from_millis(10 * (user + system)))
}

/// Counts one look; the description of an operation whose time is over.
fn late() -> Option<String> {
    let mut operations = operations();
    let mut late = None;
    for operation in operations.iter_mut().flatten() {
        operation.ticks_left = operation.ticks_left.saturating_sub(1);
        if operation.ticks_left == 0 {
            let step = operation.step.iter().map(|step| format!(": {step}"));
            late = Some(format!("{}{}", operation.description, step.collect::<String>()));
        }
    }
    late
}

#[cfg(test)]
mod tests {
    use super::{Entry, Operation, late, note_step, processor_time};

    #[cfg(target_os = "linux")]
    #[test]
    fn processor_time_grows_with_work() {
        let before = processor_time().expect("a time");
        let started = std::time::Instant::now();
        let mut sum = 0u64;
        while processor_time().expect("a time") == before {
            sum = (0..100_000u64).fold(sum, u64::wrapping_add);
            assert!(started.elapsed().as_secs() < 60, "{sum}");
        }
    }

    #[test]
    fn an_operation_is_late_after_its_looks_until_it_ends() {
        let description = "row 3 takes too long".to_owned();
        let entry = Entry::of(Operation { description, step: None, ticks_left: 2 });
        assert_eq!(late(), None);
        assert_eq!(late().as_deref(), Some("row 3 takes too long"));
        note_step(&"pattern `a*`".into());
        assert_eq!(late().as_deref(), Some("row 3 takes too long: pattern `a*`"));
        drop(entry);
        assert_eq!(late(), None);
        note_step(&"no operation".into());
    }
}
