//! The panic hook, which logs panics that no capture sees.

use super::panicked::{Panicked, message};
use super::{process_hook, unclaimed};
use crate::event::severity::Severity;
use crate::session::AsHandle;
use crate::session::handle::Handle;
use crate::session::wait::Wait;
use crate::sys::fork::PerProcess;
use crate::sys::lock::Lock;
use crate::sys::{backtrace, origin, panics};
use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU64, Ordering};
use core::time::Duration;
use std::panic::PanicHookInfo;
use std::sync::mpsc;
use std::thread;
use std::time::Instant;

/// Installs a [`PanicHook`] with its defaults: from now on, every panic of the process is logged to `reporter`'s
/// session.
///
/// ```
/// # fn example(telemetry: &tinkex_telemetry::Handle) {
/// let hook = tinkex_telemetry::install_panic_hook(telemetry);
/// // With other settings:
/// let hook = hook.timeout(core::time::Duration::from_secs(2)).install();
/// // …
/// hook.remove();
/// # }
/// # example(&tinkex_telemetry::Handle::off());
/// ```
pub fn install_panic_hook(reporter: &(impl AsHandle + ?Sized)) -> PanicHook {
    PanicHook::new(reporter).install()
}

/// A panic hook that logs every panic of the process as an exception of type `panic`: message, location, thread and, if
/// `RUST_BACKTRACE` asks for one, the stack of the code that panicked.
///
/// It chains to the hook that was set before. A hook that is set later must chain to this one, or panics no longer
/// reach it until a hook is [installed](Self::install) again. Several sessions can each have a hook; each panic is
/// logged once to each.
///
/// # How long a panic takes
///
/// The event is queued on the panicking thread, in microseconds; `RUST_BACKTRACE` adds the milliseconds in which the
/// stack is resolved. Then the hook requests a flush, and waits only
///
/// | where | how long |
/// |---|---|
/// | on the thread that `main` runs on, since a panic there usually ends the process | at most the session's `drop_timeout` |
/// | anywhere, if the program is built with `panic = "abort"` | the same |
/// | anywhere, if [`timeout`](Self::timeout) asks for it | at most the timeout |
///
/// It waits as [`Spawner::block_in_place`](crate::runtime::Spawner::block_in_place) of the session's runtime does: on a
/// worker of tokio's multi-thread runtime another thread takes over the worker's tasks, and on a thread where waiting
/// would deadlock it does not wait. After a wait in which nothing was delivered no panic of the session waits again
/// until something is, so that a panic that is caught again and again costs at most one timeout.
///
/// A thread counts as that of `main` if its name is `main`, which the standard library gives to it alone: a program
/// should not give it to another. A program that Rust did not start, such as one in C with a Rust library, has none.
///
/// # What is not logged
///
/// A panic that also passes through a [`Capture`](crate::capture::Capture) is logged once, by the hook. Panics that
/// this crate catches and accounts for itself are not logged, and nothing waits for them: those of a session's driver,
/// such as a transport's (they cost an attempt), and those of a value, an error or a scrub hook while an event is
/// encoded (they cost the event). Nor is anything that bypasses panic hooks: stack overflows, aborts, and
/// `resume_unwind`.
///
/// Whether a panic will be caught, and whether it is the second one of its thread, which aborts the process, cannot be
/// known in a hook: `std::thread::panicking` is true in each. So a panic of another thread that ends the process, as
/// where `main` unwraps its `join`, is delivered by the reporter's drop or a wait, not by the hook.
///
/// # What runs on the panicking thread
///
/// A panic inside a hook aborts the process, which includes those of the session's clock and of the waker of its
/// driver's task: they must not panic. A [scrub hook](crate::session::Builder::scrub) may: for a session that has one
/// the event is logged by a thread of its own, for which the panicking thread waits at most a second. Where no thread
/// can be started it is called on the panicking thread.
///
/// It costs nothing until there is a panic.
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
    entries: Vec<Entry>,
}

/// A forked child goes on counting, so that removing its parent's hook does not remove its own.
static NEXT_ID: AtomicU64 = AtomicU64::new(0);

fn with_installed<R>(work: impl FnOnce(&mut Installed) -> R) -> R {
    INSTALLED
        .get_or_init(|| Lock::new(Installed::default()))
        .with(work)
}

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

    /// Makes every panicking thread wait until its event is delivered, at most this long; zero makes none wait, and
    /// [`Duration::MAX`] sets no limit. Default: [only where the process is about to end](Self#how-long-a-panic-takes).
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.0.timeout = Some(timeout);
        self
    }

    /// Installs the hook until it is [removed](Self::remove) or its session stops; dropping the value changes nothing.
    ///
    /// A session has at most one: installing another replaces it, and installing the same one again makes its new settings
    /// effective. Where another library has replaced the process's
    /// hook, installing makes all sessions' hooks effective again, each panic being logged once all the same. While the
    /// process's hook is being set, for less than a microsecond, a panic of another thread may meet the default one.
    ///
    /// A panicking thread cannot set the process's hook. If that is necessary, and this is called on one, it takes
    /// effect once a hook is installed elsewhere.
    #[must_use = "needed to remove the hook; use `let _` to keep it installed"]
    pub fn install(mut self) -> Self {
        if !self.0.handle.has_session() {
            return self;
        }
        with_installed(|installed| {
            let entries = &mut installed.entries;
            entries.retain(|entry| {
                !entry.handle.has_ended() && !entry.handle.is_same_session(&self.0.handle)
            });
            if self.0.id.is_none() {
                self.0.id = Some(NEXT_ID.fetch_add(1, Ordering::Relaxed));
            }
            // Also where it is installed already: its settings may be new.
            installed.entries.push(self.0.clone());
        });
        process_hook::set(log_panic);
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

/// What the hook knows about a panic.
struct Panic {
    message: String,
    location: String,
}

impl Panic {
    fn new(info: &PanicHookInfo<'_>) -> Self {
        let current = thread::current();
        let name = current.name().unwrap_or("<unnamed>");
        let mut location = info.location().map_or_else(
            || format!("thread '{name}'"),
            |location| format!("{location}, thread '{name}'"),
        );
        if let Some(stack) = backtrace::of_panic() {
            location.push('\n');
            location.push_str(&stack);
        }
        Self {
            message: message(info.payload()).into(),
            location,
        }
    }

    /// Logs it to a session. Returns whether the event was accepted.
    fn log(&self, entry: &Entry) -> bool {
        // Before it is logged, so that no capture that the panic reaches meanwhile logs it as well.
        let session = entry.handle.session_id().unwrap_or_default();
        unclaimed::add(session, &self.message);
        let panicked = Panicked::new(&self.message, Some(&self.location));
        let is_accepted = entry.handle.log_exception(&panicked, entry.severity);
        if !is_accepted {
            unclaimed::claim(session, &self.message);
        }
        is_accepted
    }
}

impl Entry {
    fn has_scrub(&self) -> bool {
        let session = self.handle.session();
        session.is_some_and(|session| session.shared().host().has_scrub())
    }

    /// How long the panicking thread may wait for delivery.
    fn max_wait(&self) -> Duration {
        let by_default = || match self.handle.session() {
            Some(session) if ends_the_process() => session.shared().drop_timeout(),
            _ => Duration::ZERO,
        };
        self.timeout.unwrap_or_else(by_default)
    }

    /// Begins the wait for delivery, unless the last one was in vain and so this one would be.
    fn begin_wait(&self) -> Option<Wait> {
        let session = self.handle.session()?;
        let max_wait = self.max_wait();
        let is_vain = || session.shared().host().is_vain(self.sent());
        (!max_wait.is_zero() && !is_vain()).then(|| Wait::for_flush(session, max_wait))
    }

    fn wait(&self, wait: Wait) {
        // Where waiting would deadlock, the flush has been requested all the same.
        if let Ok(drain) = self.handle.block(Some(wait))
            && drain.delivered + drain.handed_over == 0
            && !drain.all_safe()
            && let Some(session) = self.handle.session()
        {
            session.shared().host().note_vain_wait(self.sent());
        }
    }

    /// How many events the session has sent.
    fn sent(&self) -> u64 {
        let stats = self.handle.stats();
        stats.delivered + stats.handed_over
    }
}

/// Whether a panic of this thread usually ends the process.
fn ends_the_process() -> bool {
    cfg!(panic = "abort") || thread::current().name() == Some("main")
}

/// Logs a panic of this thread, and waits for its delivery where that is due.
fn log_panic(info: &PanicHookInfo<'_>) {
    if panics::is_ours() || origin::is_own() {
        return;
    }
    let entries = with_installed(|installed| installed.entries.clone());
    if entries.is_empty() {
        return;
    }
    let panic = Arc::new(Panic::new(info));
    let (scrubbed, plain): (Vec<_>, Vec<_>) = entries.into_iter().partition(Entry::has_scrub);
    let mut logged: Vec<_> = plain.into_iter().filter(|entry| panic.log(entry)).collect();
    logged.extend(log_elsewhere(&panic, scrubbed));
    // All waits begin before the first one is waited for, so that together they take no longer than the longest.
    let waits: Vec<_> = logged
        .iter()
        .filter_map(|entry| Some((entry, entry.begin_wait()?)))
        .collect();
    for (entry, wait) in waits {
        entry.wait(wait);
    }
}

/// Logs a panic on a thread of its own, where a panic of a scrub hook does not abort the process. Returns where it was
/// accepted.
fn log_elsewhere(panic: &Arc<Panic>, entries: Vec<Entry>) -> Vec<Entry> {
    if entries.is_empty() {
        return entries;
    }
    let (done, logged) = mpsc::channel();
    let (panic_there, entries_there) = (Arc::clone(panic), entries.clone());
    let log_there = move || {
        for entry in entries_there {
            let is_logged = panics::catch(|| panic_there.log(&entry)).unwrap_or(false);
            let _ = done.send(is_logged.then_some(entry));
        }
    };
    if thread::Builder::new().spawn(log_there).is_err() {
        return entries
            .into_iter()
            .filter(|entry| panic.log(entry))
            .collect();
    }
    // Logging takes microseconds, unless the hook is slow or needs a lock that the panicking thread holds.
    let until = Instant::now() + PATIENCE;
    let next = || logged.recv_timeout(until.saturating_duration_since(Instant::now()));
    core::iter::repeat_with(next)
        .map_while(Result::ok)
        .flatten()
        .collect()
}

/// The maximum wait for a scrub hook.
const PATIENCE: Duration = Duration::from_secs(1);
