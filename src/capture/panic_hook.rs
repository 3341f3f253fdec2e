//! The panic hook, which logs panics that no capture sees.

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

/// Installs a [`PanicHook`] with its defaults: from now on, every panic of the process is logged to `reporter`'s
/// session.
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

/// A panic hook that logs every panic of the process as an exception of type `panic`: message, location, thread and, if
/// `RUST_BACKTRACE` asks for one, the stack.
///
/// It chains to the hook that was set before. A hook that is set later must chain to this one, or panics no longer
/// reach it. Several sessions can each have a hook.
///
/// The panicking thread waits until the event is delivered, at most for [`timeout`](Self::timeout), so that the event
/// is not lost if the panic ends the process. It does not wait on the thread that last polled the driver, as in a
/// single-threaded runtime, where that would deadlock. There, and after the timeout, the flush is merely requested. In
/// any case it waits until the event is queued, which takes microseconds unless the application's code is slow, and at
/// most a second or the timeout if that is longer.
///
/// A panic that also passes through a [`Capture`](crate::capture::Capture) is logged once, by the hook. The hook does
/// not log panics in a session's driver, such as a transport's (they cost an attempt), panics of a scrub hook that
/// inspects a panic, or anything that bypasses panic hooks: stack overflows, aborts, and `resume_unwind`.
///
/// It costs nothing until there is a panic. Then it starts a thread, so that no code that runs for the event (a clock,
/// an application's hook) can panic on the panicking thread, which would abort the process.
#[derive(Debug)]
#[must_use = "a panic hook does nothing until it is installed"]
pub struct PanicHook(Entry);

#[derive(Clone, Debug)]
struct Entry {
    id: Option<u64>,
    handle: Handle,
    severity: Severity,
    timeout: Option<Duration>,
}

/// The installed hooks. None in the child of a fork, where the parent's sessions do not continue.
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

/// Whether the process's hook is set. It is set once, for all sessions: hooks cannot be removed from a chain.
static IS_SET: Lock<bool> = Lock::new(false);

impl PanicHook {
    /// Creates a hook for `reporter`'s session; see [`install`](Self::install).
    pub fn new(reporter: &(impl AsHandle + ?Sized)) -> Self {
        Self(Entry {
            id: None,
            handle: reporter.as_handle().cloned().unwrap_or(Handle::off()),
            severity: Severity::Error,
            timeout: None,
        })
    }

    /// Sets the severity of panics. Default: [`Severity::Error`].
    pub fn severity(mut self, severity: Severity) -> Self {
        self.0.severity = severity;
        self
    }

    /// Sets how long a panicking thread waits for its event to be delivered; zero disables that wait. Default: the
    /// session's `drop_timeout`.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.0.timeout = Some(timeout);
        self
    }

    /// Installs the hook until it is [removed](Self::remove) or its session stops; dropping the value changes nothing.
    /// Idempotent.
    ///
    /// A panicking thread cannot set the process's hook. If this is the first hook and is installed on one, it takes
    /// effect once another is installed elsewhere.
    #[must_use = "needed to remove the hook; use `let _` to keep it installed"]
    pub fn install(mut self) -> Self {
        if !self.0.handle.is_enabled() || self.0.id.is_some() {
            return self;
        }
        with_installed(|installed| {
            installed.entries.retain(|entry| !entry.handle.has_ended());
            self.0.id = Some(installed.next_id);
            installed.next_id += 1;
            installed.entries.push(self.0.clone());
        });
        set_hook();
        self
    }

    /// Uninstalls the hook. The process's hook stays set, and ignores this session.
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
            log_panic(info);
            previous(info);
        }));
    });
}

/// What the hook knows about a panic.
struct Panic {
    message: String,
    location: String,
}

impl Panic {
    fn new(info: &PanicHookInfo<'_>) -> Self {
        let stack = Backtrace::capture();
        let current = thread::current();
        let name = current.name().unwrap_or("<unnamed>");
        let location = info.location().map_or_else(
            || format!("thread '{name}'"),
            |location| format!("{location}, thread '{name}'"),
        );
        let location = match stack.status() {
            BacktraceStatus::Captured => format!("{location}\n{stack}"),
            _ => location,
        };
        Self {
            message: message(info.payload()).into(),
            location,
        }
    }

    /// Logs it to a session. Returns whether the event was accepted.
    fn log(&self, entry: &Entry) -> bool {
        let panicked = Panicked::new(&self.message, Some(&self.location));
        let is_accepted = entry.handle.log_exception(&panicked, entry.severity);
        if is_accepted && let Some(session) = entry.handle.session_id() {
            unclaimed::add(session, &self.message);
        }
        is_accepted
    }
}

impl Entry {
    /// How long the calling, panicking thread may wait for delivery.
    fn max_wait(&self) -> Duration {
        match self.handle.session() {
            Some(session) if !session.shared().is_driven_here() => {
                self.timeout.unwrap_or(session.shared().drop_timeout())
            }
            _ => Duration::ZERO,
        }
    }
}

/// Logs a panic of this thread, and waits for its delivery as long as its hooks allow.
fn log_panic(info: &PanicHookInfo<'_>) {
    std::thread_local! {
        static IS_LOGGING: Cell<bool> = const { Cell::new(false) };
    }
    if origin::is_own() || IS_LOGGING.get() {
        return;
    }
    let entries = with_installed(|installed| installed.entries.clone());
    let entries: Vec<_> = entries
        .into_iter()
        .map(|entry| (entry.max_wait(), entry))
        .collect();
    let Some(max_wait) = entries.iter().map(|(max_wait, _)| *max_wait).max() else {
        return;
    };
    IS_LOGGING.set(true);
    let panic = Panic::new(info);
    let (done, progress) = mpsc::channel();
    let started = thread::Builder::new().spawn(move || {
        // A panic in here, as in a scrub hook, must not call this hook again.
        let _own = OwnWork::enter();
        let until = Instant::now() + max_wait;
        let logged = entries
            .iter()
            .filter(|(_, entry)| panic.log(entry))
            .collect::<Vec<_>>();
        let _ = done.send(());
        for (max_wait, entry) in logged {
            let left = until.saturating_duration_since(Instant::now());
            let left = left.min(*max_wait);
            // The result is in the ledger.
            let _ = entry.handle.wait_until_drained_blocking(left);
        }
        let _ = done.send(());
    });
    if started.is_ok() {
        let until = Instant::now() + max_wait;
        // Logging takes microseconds, but an application's hook may take longer.
        let is_logged = progress.recv_timeout(max_wait.max(MIN_WAIT)).is_ok();
        if is_logged && !max_wait.is_zero() {
            let _ = progress.recv_timeout(until.saturating_duration_since(Instant::now()));
        }
    }
    IS_LOGGING.set(false);
}

/// The minimum timeout for a panicking thread's wait until the event is queued.
const MIN_WAIT: Duration = Duration::from_secs(1);
