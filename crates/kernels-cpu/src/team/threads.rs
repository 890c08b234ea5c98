//! The team: rayon's threads, which stay awake for the next loop and run rayon's jobs meanwhile.
//!
//! One word holds the state of the team: whether a loop is open to be joined, the loop's number, and how many threads are
//! inside. A thread joins by raising the count of an open loop, so a loop that has closed is never joined late, and its
//! caller returns once the count is zero.
//!
//! A member of the team is a job of rayon's that ends when there was no work for a while; the next loop then starts another
//! one. Nothing waits for a member: without one, its share of the tasks is done by the others.

use std::any::Any;
use std::cell::{Cell, UnsafeCell};
use std::num::NonZero;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError, TryLockError};
use std::time::{Duration, Instant};

/// How long a member looks for work before it ends: longer than the pauses within a training step or a decoded token, and
/// short enough that a waiting program uses no measurable time.
const AWAKE: Duration = Duration::from_millis(2);
/// Looks between two looks at the clock and at rayon's jobs.
const LOOKS: u32 = 16;

const OPEN: u64 = 1 << 63;
const INSIDE: u64 = 0xffff;
const NEXT_LOOP: u64 = 1 << 16;

/// A loop's body, whose lifetime [`for_each`] ensures.
type Body = &'static (dyn Fn(usize) + Sync);

struct Team {
    /// [`OPEN`], the number of the loop, and [`INSIDE`] the threads that have joined it.
    state: AtomicU64,
    /// The open loop; written while no thread is inside.
    body: UnsafeCell<Option<Body>>,
    n: AtomicUsize,
    next: AtomicUsize,
    /// The first panic of a loop.
    panic: Mutex<Option<Box<dyn Any + Send>>>,
    /// Held by the caller of a loop.
    caller: Mutex<()>,
    /// Members that have been started and have not ended.
    n_members: AtomicUsize,
}

static TEAM: Team = Team {
    state: AtomicU64::new(0),
    body: UnsafeCell::new(None),
    n: AtomicUsize::new(0),
    next: AtomicUsize::new(0),
    panic: Mutex::new(None),
    caller: Mutex::new(()),
    n_members: AtomicUsize::new(0),
};

#[allow(unsafe_code)]
// SAFETY: `body` is written by the holder of `caller` while no thread is inside, and read by threads that joined after that.
unsafe impl Sync for Team {}

thread_local! {
    /// Whether this thread runs a task of a loop.
    static IS_INSIDE: Cell<bool> = const { Cell::new(false) };
    /// Whether a member of the team lives on this thread. It may have been given a job of rayon's that calls loops itself.
    static IS_MEMBER: Cell<bool> = const { Cell::new(false) };
    /// Whether this thread is within [`as_caller`].
    static IS_CALLER: Cell<bool> = const { Cell::new(false) };
}

/// Calls `run` on a thread of rayon's whose loops are to be shared: it will not become a member of the team while it waits for
/// other jobs.
pub(super) fn as_caller<R>(run: impl FnOnce() -> R) -> R {
    struct Reset(bool);
    impl Drop for Reset {
        fn drop(&mut self) {
            IS_CALLER.set(self.0);
        }
    }
    let _reset = Reset(IS_CALLER.replace(true));
    run()
}

/// Calls `run` with each number below `n` on the team's threads and this one. False if the team is busy with the loop of
/// another caller: nothing ran.
pub(super) fn for_each(n: usize, run: &(dyn Fn(usize) + Sync)) -> bool {
    let n_others = rayon::current_num_threads().min(n_processors()) - 1;
    if IS_INSIDE.get() || n_others == 0 {
        // All threads have tasks, of which this loop is a part, or there is one thread.
        (0..n).for_each(run);
        return true;
    }
    let guard = match TEAM.caller.try_lock() {
        Ok(guard) => guard,
        Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
        Err(TryLockError::WouldBlock) => return false,
    };
    TEAM.run(n, run, n_others);
    let panic = TEAM.panic.lock().unwrap_or_else(PoisonError::into_inner).take();
    drop(guard);
    if let Some(panic) = panic {
        resume_unwind(panic);
    }
    true
}

/// The processors of this process. A thread that stays awake without one is in the way of the others.
fn n_processors() -> usize {
    static FOUND: OnceLock<usize> = OnceLock::new();
    *FOUND.get_or_init(|| std::thread::available_parallelism().map_or(1, NonZero::get))
}

impl Team {
    /// Runs a loop. The caller holds the lock of callers.
    fn run(&'static self, n: usize, run: &(dyn Fn(usize) + Sync), n_others: usize) {
        // SAFETY: the reference is used by threads inside the loop only, and this function returns when there are none.
        #[allow(unsafe_code)]
        let body = unsafe {
            std::mem::transmute::<&(dyn Fn(usize) + Sync), &'static (dyn Fn(usize) + Sync)>(run)
        };
        // SAFETY: this is the one caller, no loop is open and no thread is inside.
        #[allow(unsafe_code)]
        unsafe {
            *self.body.get() = Some(body);
        }
        self.n.store(n, Ordering::Relaxed);
        self.next.store(0, Ordering::Relaxed);
        let number = self.state.load(Ordering::Relaxed) & !(OPEN | INSIDE);
        self.state.store(OPEN | (number.wrapping_add(NEXT_LOOP) & !OPEN), Ordering::Release);
        let n_wanted = n_others + usize::from(IS_MEMBER.get());
        while self.n_members.load(Ordering::Relaxed) < n_wanted {
            self.n_members.fetch_add(1, Ordering::Relaxed);
            rayon::spawn(|| self.live());
        }
        self.take_tasks(body);
        self.state.fetch_and(!OPEN, Ordering::AcqRel);
        while self.state.load(Ordering::Acquire) & INSIDE != 0 {
            std::hint::spin_loop();
        }
    }

    /// Runs tasks until none is left. Panics are kept for the caller, and end the loop early.
    fn take_tasks(&self, body: Body) {
        let n = self.n.load(Ordering::Relaxed);
        let was_inside = IS_INSIDE.replace(true);
        let caught = catch_unwind(AssertUnwindSafe(|| {
            loop {
                let task = self.next.fetch_add(1, Ordering::Relaxed);
                if task >= n {
                    break;
                }
                body(task);
            }
        }));
        IS_INSIDE.set(was_inside);
        if let Err(panic) = caught {
            self.next.store(n, Ordering::Relaxed);
            let mut first = self.panic.lock().unwrap_or_else(PoisonError::into_inner);
            first.get_or_insert(panic);
        }
    }

    /// A member's life. It ends at once on a thread that has a member, or that calls loops: rayon gives jobs to a thread that
    /// waits for others, and that thread is not to be kept.
    fn live(&self) {
        if !IS_CALLER.get() && !IS_MEMBER.replace(true) {
            self.serve();
            IS_MEMBER.set(false);
        }
        self.n_members.fetch_sub(1, Ordering::Relaxed);
    }

    /// Joins each loop that opens, until there was no work for a while.
    fn serve(&self) {
        let mut last = 0;
        let mut since = Instant::now();
        while since.elapsed() < AWAKE {
            for _ in 0..LOOKS {
                if is_open_after(self.state.load(Ordering::Relaxed), last)
                    && self.has_tasks()
                    && let Some(number) = self.join()
                {
                    last = number;
                    // SAFETY: this thread is inside the loop, so its caller is still in `run`, after it wrote the body.
                    #[allow(unsafe_code)]
                    if let Some(body) = unsafe { *self.body.get() } {
                        self.take_tasks(body);
                    }
                    self.state.fetch_sub(1, Ordering::AcqRel);
                    since = Instant::now();
                }
                std::hint::spin_loop();
            }
            if rayon::yield_now() == Some(rayon::Yield::Executed) {
                since = Instant::now();
            }
        }
    }

    /// Whether tasks of the loop are left; a guess, which spares the caller the wait for a thread that comes too late.
    fn has_tasks(&self) -> bool {
        self.next.load(Ordering::Relaxed) < self.n.load(Ordering::Relaxed)
    }

    /// Joins the open loop and returns its number; `None` if it has closed.
    fn join(&self) -> Option<u64> {
        let joined = self.state.fetch_update(Ordering::AcqRel, Ordering::Acquire, |state| {
            (state & OPEN != 0).then_some(state + 1)
        });
        joined.ok().map(|state| state & !(OPEN | INSIDE))
    }
}

/// Whether a state is of an open loop other than the one with number `last`.
fn is_open_after(state: u64, last: u64) -> bool {
    state & OPEN != 0 && state & !(OPEN | INSIDE) != last
}
