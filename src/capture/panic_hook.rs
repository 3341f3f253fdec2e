//! The panic hook: panics that nobody captures reach the session, too.

use super::panicked::{Panicked, message};
use super::unclaimed;
use crate::event::severity::Severity;
use crate::session::AsHandle;
use crate::session::handle::Handle;
use crate::sys::fork::PerProcess;
use crate::sys::lock::Lock;
use crate::sys::origin::{self, OwnWork};
use alloc::boxed::Box;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::cell::Cell;
use core::time::Duration;
use std::backtrace::{Backtrace, BacktraceStatus};
use std::panic::{self, PanicHookInfo};
use std::sync::mpsc;
use std::thread;
use std::time::Instant;

/// Logs every panic of the process to `reporter`'s session, from now on: [`PanicHook`] with its defaults.
///
/// ```
/// # fn example(telemetry: &tinkex_telemetry::Handle) {
/// let hook = tinkex_telemetry::install_panic_hook(telemetry);
/// // …
/// hook.remove();
/// # }
/// # example(&tinkex_telemetry::Handle::off());
/// ```
pub fn install_panic_hook(reporter: &(impl AsHandle + ?Sized)) -> PanicHook {
    PanicHook::new(reporter).install()
}

/// Logs the panics of a process: message, place, thread, and the stack of the failing code if `RUST_BACKTRACE` asks for
/// one, as an exception of type `panic`.
///
/// It works beside other hooks: the one that was set before is called afterwards, with everything as it was. A program
/// that sets a hook later calls the one it takes, or no panic is seen here any more. Several sessions may have theirs.
///
/// The panicking thread waits until the event is delivered, at most for [`timeout`](Self::timeout), so that it is not
/// lost when the panic ends the process. It does not wait where that could not end well: on the thread that the driver
/// was last polled on, as in a runtime of one thread. There, and when the timeout is over, the flush has been asked for.
///
/// A panic that a [`Capture`](crate::Capture) sees as well is logged once, by the hook. Not logged are panics of the
/// session's own driver, as in a transport (they cost an attempt), those of a scrub hook that looks at a panic, and what
/// never comes to a hook: stack overflows, aborts, and payloads given to `resume_unwind`.
///
/// What it costs: nothing, until there is a panic. Then a thread, so that nothing that runs for the event (a clock, a
/// hook of the application's) can panic in the panicking thread, which would abort the process.
#[derive(Debug)]
#[must_use = "it sees nothing until it is installed"]
pub struct PanicHook(Entry);

#[derive(Clone, Debug)]
struct Entry {
    id: Option<u64>,
    handle: Handle,
    severity: Severity,
    timeout: Option<Duration>,
}

/// The sessions that want to know. In the child of a fork, where its parent's sessions do not live on, there are none.
static INSTALLED: PerProcess<Lock<Installed>> = PerProcess::new();

#[derive(Default)]
struct Installed {
    next_id: u64,
    entries: Vec<Entry>,
}

fn with_installed<R>(work: impl FnOnce(&mut Installed) -> R) -> R {
    INSTALLED
        .get_or_init(|| Lock::new(Installed::default()))
        .with(work)
}

/// Whether the process's hook is ours. There is one for all sessions, set once: hooks cannot be taken out of a chain.
static IS_SET: Lock<bool> = Lock::new(false);

impl PanicHook {
    /// A hook for `reporter`'s session, to be [installed](Self::install).
    pub fn new(reporter: &(impl AsHandle + ?Sized)) -> Self {
        Self(Entry {
            id: None,
            handle: reporter.as_handle().cloned().unwrap_or(Handle::off()),
            severity: Severity::Error,
            timeout: None,
        })
    }

    /// The severity of what is logged. Default: [`Severity::Error`].
    pub fn severity(mut self, severity: Severity) -> Self {
        self.0.severity = severity;
        self
    }

    /// How long a panicking thread waits for its event at most. Zero: not at all. Default: the session's
    /// `drop_timeout`.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.0.timeout = Some(timeout);
        self
    }

    /// Installs it, until it is [removed](Self::remove) or its session has been stopped; dropping the value changes
    /// nothing. Installing it again is as good as once.
    ///
    /// On a thread that is panicking the process's first hook cannot be set; the next one that is installed then brings
    /// this one into effect.
    #[must_use = "it can be removed; `let _` where it stays"]
    pub fn install(mut self) -> Self {
        if !self.0.handle.is_enabled() || self.0.id.is_some() {
            return self;
        }
        with_installed(|installed| {
            installed.entries.retain(|entry| !entry.handle.is_over());
            self.0.id = Some(installed.next_id);
            installed.next_id += 1;
            installed.entries.push(self.0.clone());
        });
        set_hook();
        self
    }

    /// Takes it out. The process's hook stays, and does nothing for this session any more.
    pub fn remove(self) {
        let was_last = with_installed(|installed| {
            installed.entries.retain(|entry| entry.id != self.0.id);
            installed.entries.is_empty()
        });
        if was_last {
            unclaimed::clear();
        }
    }
}

fn set_hook() {
    IS_SET.with(|is_set| {
        if *is_set || thread::panicking() {
            return;
        }
        *is_set = true;
        let previous = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            panicked(info);
            previous(info);
        }));
    });
}

/// What is known of a panic.
struct Panic {
    message: String,
    place: String,
}

impl Panic {
    fn new(info: &PanicHookInfo<'_>) -> Self {
        let stack = Backtrace::capture();
        let current = thread::current();
        let name = current.name().unwrap_or("<unnamed>");
        let place = info.location().map_or_else(
            || format!("thread '{name}'"),
            |location| format!("{location}, thread '{name}'"),
        );
        let place = match stack.status() {
            BacktraceStatus::Captured => format!("{place}\n{stack}"),
            _ => place,
        };
        Self {
            message: message(info.payload()).into(),
            place,
        }
    }

    /// Logs it to a session. Says whether that took it.
    fn log(&self, entry: &Entry) -> bool {
        let panicked = Panicked::new(&self.message, Some(&self.place));
        let is_accepted = entry.handle.log_exception(&panicked, entry.severity);
        if is_accepted && let Some(session) = entry.handle.session_id() {
            unclaimed::add(session, &self.message);
        }
        is_accepted
    }
}

impl Entry {
    /// How long the calling thread, which panics, may wait for it.
    fn patience(&self) -> Duration {
        match self.handle.sink() {
            Some(sink) if !sink.shared().is_driven_here() => {
                self.timeout.unwrap_or(sink.shared().drop_timeout())
            }
            _ => Duration::ZERO,
        }
    }
}

/// Logs a panic of this thread's, and waits for it as far as that is wanted and possible.
fn panicked(info: &PanicHookInfo<'_>) {
    std::thread_local! {
        static IS_BUSY: Cell<bool> = const { Cell::new(false) };
    }
    if origin::is_own() || IS_BUSY.get() {
        return;
    }
    let entries = with_installed(|installed| installed.entries.clone());
    let entries: Vec<_> = entries
        .into_iter()
        .map(|entry| (entry.patience(), entry))
        .collect();
    let Some(patience) = entries.iter().map(|(patience, _)| *patience).max() else {
        return;
    };
    IS_BUSY.set(true);
    let panic = Panic::new(info);
    let (done, is_done) = mpsc::channel();
    let started = thread::Builder::new().spawn(move || {
        // What panics here, as a scrub hook may, would come here again.
        let _own = OwnWork::enter();
        let until = Instant::now() + patience;
        let logged = entries
            .iter()
            .filter(|(_, entry)| panic.log(entry))
            .collect::<Vec<_>>();
        let _ = done.send(());
        for (patience, entry) in logged {
            let left = until.saturating_duration_since(Instant::now());
            let left = left.min(*patience);
            // Nobody has to see what it comes to: the ledger has it.
            let _ = entry.handle.wait_until_drained_blocking(left);
        }
        let _ = done.send(());
    });
    if started.is_ok() {
        let until = Instant::now() + patience;
        // Logging takes microseconds, but it may meet a hook of the application's.
        let is_logged = is_done.recv_timeout(patience.max(LEAST_PATIENCE)).is_ok();
        if is_logged && !patience.is_zero() {
            let _ = is_done.recv_timeout(until.saturating_duration_since(Instant::now()));
        }
    }
    IS_BUSY.set(false);
}

/// How long a thread that must not wait for the network waits for the event to be queued.
const LEAST_PATIENCE: Duration = Duration::from_secs(1);
