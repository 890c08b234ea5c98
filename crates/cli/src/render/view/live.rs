//! The thread beside a run: keeps the state of the run, writes it to `status.json`, and shows it on the whole terminal until
//! the user closes the view.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use train::signals::{self, SuspendFlag};
use train::{RunDirGuard, StopFlag};
use watch::{Owner, Page, RunReader, RunState, RunView, StageSteps, Update};

use super::super::stderr;
use super::full_screen::{Action, FullScreen};
use super::tty;

/// Time between two looks at events, keys and signals.
const TICK: Duration = Duration::from_millis(100);
/// Least time between two frames.
const FRAME: Duration = Duration::from_millis(250);
/// Time between two writings of the status file.
const STATUS: Duration = Duration::from_secs(1);
/// Updates that wait for the thread. Beyond them the oldest metrics are dropped.
const MAX_WAITING: usize = 16_384;
/// How long the end of a run waits for the thread.
const PATIENCE: Duration = Duration::from_secs(5);

/// Inputs of the thread.
pub(crate) struct LiveSettings {
    /// The run's directory.
    pub(crate) run_dir: PathBuf,
    /// The run's name.
    pub(crate) name: String,
    /// Tells whether the directory is still the run's.
    pub(crate) guard: RunDirGuard,
    /// The stages, in order.
    pub(crate) stages: Vec<StageSteps>,
    /// Whether the view opens when a stage starts.
    pub(crate) opens: bool,
    /// Set by signals, and by ctrl-C in the view.
    pub(crate) stop: StopFlag,
}

/// The thread of a run.
pub(crate) struct Live {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    queue: Mutex<Queue>,
    changed: Condvar,
}

#[derive(Default)]
struct Queue {
    updates: VecDeque<Update>,
    /// State of the run at its end.
    end: Option<RunState>,
    has_ended: bool,
}

impl Live {
    /// Starts the thread. Without one, the run goes on without status and view.
    pub(crate) fn start(settings: LiveSettings) -> Self {
        if settings.opens {
            tty::restore_on_panic();
        }
        let shared = Arc::new(Shared::default());
        let of_thread = Arc::clone(&shared);
        let run = move || Watcher::new(settings, of_thread).run();
        let thread = std::thread::Builder::new().name("view".into()).spawn(run).ok();
        Self { shared, thread }
    }

    /// Queues an update.
    pub(crate) fn push(&self, update: Update) {
        self.shared.lock().push(update);
    }

    /// Closes the view, writes the last status, and ends the thread.
    pub(crate) fn end(&mut self, state: RunState) {
        let Some(thread) = self.thread.take() else { return };
        self.shared.lock().end = Some(state);
        self.shared.changed.notify_all();
        let queue = self.shared.lock();
        let is_waiting = |queue: &mut Queue| !queue.has_ended;
        let waited = self.shared.changed.wait_timeout_while(queue, PATIENCE, is_waiting);
        let waited = waited.map(|(queue, _)| queue.has_ended);
        // A thread that does not end, as while a file system hangs, is left alone.
        if waited.unwrap_or(false) {
            let _ = thread.join();
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        // Every change of the queue is complete before its lock is released.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Queue {
    fn push(&mut self, update: Update) {
        if self.updates.len() >= MAX_WAITING {
            let oldest = self.updates.iter().position(|update| matches!(update, Update::Row(_)));
            self.updates.remove(oldest.unwrap_or(0));
        }
        self.updates.push_back(update);
    }
}

/// The state of the thread.
struct Watcher {
    settings: LiveSettings,
    shared: Arc<Shared>,
    view: RunView,
    origin: Instant,
    screen: Option<FullScreen>,
    page: Page,
    /// Whether the user wants the view.
    is_wanted: bool,
    suspend: Option<SuspendFlag>,
    drawn: Option<Instant>,
    written: Option<Instant>,
}

impl Watcher {
    fn new(settings: LiveSettings, shared: Arc<Shared>) -> Self {
        let mut view = RunView::starting(&settings.name, &settings.stages);
        if settings.opens {
            // Curves of finished stages, and of those that will be resumed.
            RunReader::new(&settings.run_dir).poll(&mut view);
            view.forget_process();
        }
        Self {
            is_wanted: false,
            settings,
            shared,
            view,
            origin: Instant::now(),
            screen: None,
            page: Page::default(),
            suspend: None,
            drawn: None,
            written: None,
        }
    }

    fn run(mut self) {
        loop {
            let (updates, end) = self.take();
            let is_new = !updates.is_empty();
            let now = self.origin.elapsed().as_secs_f64();
            for update in updates {
                self.is_wanted |= self.settings.opens && matches!(update, Update::StageStarted(_));
                self.settings.opens &= !self.is_wanted;
                self.view.apply(update, now);
            }
            self.view.tick(now);
            if let Some(state) = end {
                self.view.apply(Update::Ended(state), now);
                self.screen = None;
                self.write_status();
                self.shared.lock().has_ended = true;
                self.shared.changed.notify_all();
                return;
            }
            self.show(is_new);
            if self.written.is_none_or(|written| written.elapsed() >= STATUS) {
                self.write_status();
            }
        }
    }

    /// Waiting updates and the end of the run. While the view is closed, it waits here.
    fn take(&self) -> (Vec<Update>, Option<RunState>) {
        let mut queue = self.shared.lock();
        if self.screen.is_none() && queue.end.is_none() {
            let waited = self.shared.changed.wait_timeout(queue, TICK);
            queue = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        (queue.updates.drain(..).collect(), queue.end)
    }

    /// Opens the view where it is wanted, draws it and reads keys.
    fn show(&mut self, is_new: bool) {
        let is_asked_to_suspend = self.suspend.as_ref().is_some_and(SuspendFlag::take);
        if is_asked_to_suspend {
            self.suspend();
        }
        let is_foreground = tty::is_foreground();
        if self.screen.is_some() && (self.settings.stop.is_requested() || !is_foreground) {
            self.close();
        }
        if self.settings.stop.is_requested() {
            self.is_wanted = false;
        }
        if self.is_wanted && self.screen.is_none() && is_foreground {
            self.screen = FullScreen::open(Owner::Run, self.page);
            self.is_wanted = self.screen.is_some();
            self.drawn = None;
            if self.suspend.is_none() {
                self.suspend = signals::on_suspend().ok();
            }
        }
        let Some(screen) = &mut self.screen else { return };
        // Clocks move without an event.
        let pause = if is_new { FRAME } else { STATUS };
        if self.drawn.is_none_or(|drawn| drawn.elapsed() >= pause) {
            screen.draw(&self.view);
            self.drawn = Some(Instant::now());
        }
        match screen.keys(&self.view, TICK) {
            Action::None => {}
            Action::Redraw => self.drawn = None,
            Action::Interrupt => self.settings.stop.request(),
            Action::Suspend => self.suspend(),
            Action::Lost => {
                self.is_wanted = false;
                self.screen = None;
            }
            Action::Close => {
                self.is_wanted = false;
                self.close();
                let name = &self.settings.name;
                let text = format!(
                    "the view is closed, training goes on; to open it again: temper watch {name}\n"
                );
                stderr::write(&text, stderr::Importance::Once);
            }
        }
    }

    /// Closes the view for now.
    fn close(&mut self) {
        if let Some(screen) = self.screen.take() {
            self.page = screen.page();
        }
    }

    /// Stops the process as ctrl-Z does, and returns when it continues.
    fn suspend(&mut self) {
        self.close();
        stderr::flush();
        signals::suspend();
    }

    fn write_status(&mut self) {
        self.written = Some(Instant::now());
        if self.settings.guard.check().is_err() {
            return;
        }
        self.view.set_memory(resident_bytes());
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        // Without the file, only `temper watch` knows less. A full disk is reported by what must be saved.
        let _ = self.view.status(now.as_secs_f64()).write(&self.settings.run_dir);
    }
}

/// Memory of this process in bytes; `None` where the system does not say.
fn resident_bytes() -> Option<u64> {
    let text = fsio::read_text_capped("/proc/self/status", 64 << 10).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kilobytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kilobytes * 1024)
}

#[cfg(test)]
mod tests {
    use watch::{MessageKind, Row, Update};

    use super::{MAX_WAITING, Queue};

    #[test]
    fn metrics_are_dropped_before_anything_else() {
        let mut queue = Queue::default();
        queue.push(Update::Message(MessageKind::Warning, "hot".into()));
        for step in 0..MAX_WAITING as u64 + 10 {
            queue.push(Update::Row(Row { step, ..Row::default() }));
        }
        assert_eq!(queue.updates.len(), MAX_WAITING);
        assert!(matches!(queue.updates[0], Update::Message(..)));
        assert!(matches!(queue.updates[1], Update::Row(Row { step: 11, .. })));
    }
}
