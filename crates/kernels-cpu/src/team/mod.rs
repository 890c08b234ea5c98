//! The threads that share the work of an operation, and parallel loops over them.
//!
//! A training step is thousands of short parallel loops, microseconds apart. A thread that sleeps in between is woken by the
//! system, which takes as long as a short loop, and milliseconds if another program runs on its core. So the threads of the
//! team, which are rayon's, look for the next loop for a while before they sleep; in rayon's own loops they yield their core
//! within microseconds.
//!
//! Rayon divides slices ([`AllThreads`]), and runs a loop while the team is busy with another caller's.

mod record;
#[cfg(not(feature = "portable"))]
mod threads;

use std::sync::{Mutex, PoisonError};

use rayon::iter::plumbing::{Producer, ProducerCallback};
use rayon::prelude::*;

pub use record::{LoopTimes, recorded};

/// Pieces of a loop for each thread: enough that a thread that is interrupted leaves work to the others.
const PIECES: usize = 8;

/// Calls `run` with each number below `n`, on all threads. The calls are in no order.
///
/// # Panics
/// If a call panics, when all threads are done.
pub(crate) fn for_each(n: usize, run: impl Fn(usize) + Sync) {
    if n <= 1 {
        (0..n).for_each(run);
        return;
    }
    if record::for_each(n, &run) {
        return;
    }
    #[cfg(not(feature = "portable"))]
    if threads::for_each(n, &run) {
        return;
    }
    (0..n).into_par_iter().for_each(&run);
}

/// Calls `run` on a thread of rayon's, which then shares its loops and takes part in no others.
pub fn as_caller<R: Send>(run: impl FnOnce() -> R + Send) -> R {
    rayon::scope(|_| {
        #[cfg(not(feature = "portable"))]
        let run = || threads::as_caller(run);
        run()
    })
}

/// Loops on all threads over what rayon can divide: like `for_each` and `map` with `collect`, without threads that sleep between
/// loops.
pub trait AllThreads: IndexedParallelIterator {
    /// Calls `run` with each item.
    fn on_all_threads(self, run: impl Fn(Self::Item) + Sync) {
        let n_items = self.len();
        self.with_producer(Pieces {
            n_items,
            run: &|_: usize, items: Items<'_, Self::Item>| {
                items.for_each(&run);
            },
        });
    }

    /// The results of `run` for all items, in order.
    fn map_on_all_threads<R: Send>(self, run: impl Fn(Self::Item) -> R + Sync) -> Vec<R> {
        let n_items = self.len();
        let results: Vec<Mutex<Vec<R>>> =
            (0..n_pieces(n_items)).map(|_| Mutex::default()).collect();
        self.with_producer(Pieces {
            n_items,
            run: &|piece: usize, items: Items<'_, Self::Item>| {
                let found = items.map(&run).collect();
                *results[piece].lock().unwrap_or_else(PoisonError::into_inner) = found;
            },
        });
        let results = results.into_iter();
        results
            .flat_map(|found| found.into_inner().unwrap_or_else(PoisonError::into_inner))
            .collect()
    }
}

impl<I: IndexedParallelIterator> AllThreads for I {}

/// The items of a piece, in order.
type Items<'a, T> = &'a mut dyn Iterator<Item = T>;

/// The number of pieces of a loop over `n` items. Results do not depend on it: each item is a task of its own.
fn n_pieces(n: usize) -> usize {
    n.clamp(1, PIECES * rayon::current_num_threads())
}

/// Divides a loop over items into a loop over pieces.
struct Pieces<'a, T> {
    n_items: usize,
    /// Gets the number of a piece and its items.
    run: &'a (dyn Fn(usize, Items<'_, T>) + Sync),
}

impl<T> ProducerCallback<T> for Pieces<'_, T> {
    type Output = ();

    fn callback<P: Producer<Item = T>>(self, producer: P) {
        let n = n_pieces(self.n_items);
        let mut pieces = Vec::with_capacity(n);
        let mut rest = producer;
        for piece in 1..n {
            let n_items = self.n_items * piece / n - self.n_items * (piece - 1) / n;
            let (first, others) = rest.split_at(n_items);
            pieces.push(Mutex::new(Some(first)));
            rest = others;
        }
        pieces.push(Mutex::new(Some(rest)));
        for_each(pieces.len(), |piece| {
            // Each number is called once, so nobody else holds this lock.
            let items = pieces[piece].lock().unwrap_or_else(PoisonError::into_inner).take();
            if let Some(items) = items {
                (self.run)(piece, &mut items.into_iter());
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use rayon::prelude::*;

    use super::{AllThreads as _, for_each};

    #[test]
    fn each_number_is_called_once() {
        for n in [0, 1, 2, 3, 7, 64, 1000] {
            let calls: Vec<AtomicUsize> = (0..n).map(|_| AtomicUsize::new(0)).collect();
            for_each(n, |idx| {
                calls[idx].fetch_add(1, Ordering::Relaxed);
            });
            assert!(calls.iter().all(|calls| calls.load(Ordering::Relaxed) == 1), "{n}");
        }
    }

    #[test]
    fn items_are_divided_without_loss_and_results_are_in_order() {
        for n in [0_usize, 1, 5, 16, 17, 333] {
            let mut values = vec![0; n];
            values.par_chunks_mut(3).enumerate().on_all_threads(|(chunk, values)| {
                values.iter_mut().enumerate().for_each(|(idx, value)| *value += 3 * chunk + idx);
            });
            assert_eq!(values, (0..n).collect::<Vec<_>>());
            let doubled = values.par_iter().map_on_all_threads(|value| 2 * value);
            assert_eq!(doubled, (0..n).map(|value| 2 * value).collect::<Vec<_>>());
        }
    }

    #[test]
    fn loops_may_be_nested_and_have_several_callers() {
        let n_calls = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..50 {
                        for_each(5, |_| {
                            for_each(3, |_| {
                                n_calls.fetch_add(1, Ordering::Relaxed);
                            });
                        });
                    }
                });
            }
        });
        assert_eq!(n_calls.into_inner(), 4 * 50 * 5 * 3);
    }

    #[test]
    fn a_panic_reaches_the_caller_and_the_team_goes_on() {
        for _ in 0..20 {
            let n_calls = AtomicUsize::new(0);
            let caught = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                for_each(32, |idx| {
                    n_calls.fetch_add(1, Ordering::Relaxed);
                    assert!(idx != 7, "the seventh");
                });
            }));
            let payload = caught.expect_err("a panic");
            assert_eq!(payload.downcast_ref::<&str>(), Some(&"the seventh"));
            assert!(n_calls.into_inner() <= 32);
            for_each(8, |_| ());
        }
    }

    /// The threads sleep after a while; a loop wakes them.
    #[test]
    fn loops_far_apart_are_run_too() {
        for pause in [0, 1, 5, 20] {
            std::thread::sleep(std::time::Duration::from_millis(pause));
            let n_calls = AtomicUsize::new(0);
            for_each(16, |_| {
                n_calls.fetch_add(1, Ordering::Relaxed);
            });
            assert_eq!(n_calls.into_inner(), 16);
        }
    }
}
