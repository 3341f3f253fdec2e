//! Signals: a session that is stopped before the signal takes its usual effect.
//!
//! A program that is ended by SIGTERM, by SIGINT or, on Windows, by Ctrl-C or Ctrl-Break runs no destructor: what is
//! queued is lost. With [`stop_on_signals`] its session logs `session.interrupted` and stops first.
//!
//! ```no_run
//! # fn example(telemetry: &tinkex_telemetry::Handle) -> std::io::Result<()> {
//! use core::time::Duration;
//! use tinkex_telemetry::signal::stop_on_signals;
//!
//! // Until the guard is dropped.
//! let _guard = stop_on_signals(telemetry, Duration::from_secs(5))?;
//! # Ok(())
//! # }
//! ```
//!
//! | a signal that the program | then |
//! |---|---|
//! | leaves at its default | sessions stop, within their grace; then it ends the process as if it had not been caught, also to a parent that waits for its status; as PID 1 of a container it exits with 128 and the signal's number. A second signal meanwhile does so at once |
//! | handles itself | its handler runs as ever, and decides whether the program ends. Sessions stop meanwhile |
//! | ignores, as below `nohup` or in the background of a shell | it is left ignored |
//!
//! What a program does with its signals is looked up when the first guard of the process is made, so install other
//! handlers before: one that comes later runs, but the signal ends the process once the sessions have stopped, even in
//! the middle of a graceful shutdown. tokio's `ctrl_c()` installs its handler when it is first polled. A server that
//! handles signals itself needs no guard: it stops its session after its own shutdown. It is known on Linux and Android; elsewhere every signal counts as left at its default. On Windows
//! handlers that were installed before do not run, and closing the console ends the process as ever.
//!
//! No work is done in a signal's handler: it sets flags and wakes a thread. After a `fork()` without `exec`, the first
//! signal to the child does nothing and the second one ends it, unless the child makes a guard of its own.

#[cfg(not(any(unix, windows)))]
use elsewhere as system;
#[cfg(unix)]
mod unix;
#[cfg(unix)]
use unix as system;
#[cfg(windows)]
mod windows;
#[cfg(windows)]
use windows as system;

use crate::event::Severity;
use crate::fields;
use crate::session::{AsHandle, Handle};
use crate::sys::fork::PerProcess;
use crate::sys::lock::Lock;
use crate::sys::panics;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU64, Ordering};
use core::time::Duration;
use std::io;
use std::thread;

/// Stops the session on a signal; see the [module](self).
///
/// The session logs a `session.interrupted`, with the name of the signal as `signal`, and stops, for at most `grace`.
/// Several sessions of a process stop at the same time, each within its own grace. The guard does not keep the session
/// alive. A backend's session has a method of its own with the feature `client`, `ServiceClient::stop_on_signals`.
/// Without a session, where telemetry is switched off, nothing is installed.
///
/// # Errors
/// When the handlers or their thread cannot be installed.
pub fn stop_on_signals(
    session: &(impl AsHandle + ?Sized),
    grace: Duration,
) -> io::Result<SignalGuard> {
    let handle = session.as_handle().cloned().unwrap_or_default();
    if !handle.has_session() {
        return Ok(SignalGuard { id: 0 });
    }
    on_signals(move |signal| {
        interrupt(&handle, signal);
        // Nothing runs on this thread that the wait could block.
        let _ = handle.stop_blocking(grace);
    })
}

/// Logs that a signal has arrived.
pub(crate) fn interrupt(handle: &Handle, signal: &str) {
    handle.log_with(
        "session.interrupted",
        fields! { signal: signal },
        Severity::Warning,
    );
}

/// Runs `stop` on a thread of its own when a signal arrives, before the signal takes effect.
pub(crate) fn on_signals(stop: impl Fn(&str) + Send + Sync + 'static) -> io::Result<SignalGuard> {
    /// A forked child goes on counting, so that its guards are never taken for its parent's.
    static NEXT_ID: AtomicU64 = AtomicU64::new(1);
    let id = NEXT_ID.fetch_add(1, Ordering::Relaxed);
    let stop: Stop = Arc::new(stop);
    watch().with(|stops| stops.push((id, stop)));
    let guard = SignalGuard { id };
    system::install()?;
    Ok(guard)
}

/// While it lives, a session stops on signals. Once the last one is dropped, signals have the effect again, at once, that
/// they had when the first one was made: a handler that the program has installed since then runs, but a signal that was
/// at its default then ends the process all the same.
#[derive(Debug)]
#[must_use = "signals are no longer waited for once the guard is dropped"]
pub struct SignalGuard {
    id: u64,
}

impl Drop for SignalGuard {
    fn drop(&mut self) {
        let removed = watch().with(|stops| {
            let at = stops.iter().position(|(id, _)| *id == self.id)?;
            Some(stops.remove(at))
        });
        // Outside the lock: it may hold the last handle.
        drop(removed);
    }
}

type Stop = Arc<dyn Fn(&str) + Send + Sync>;

/// What is to be stopped, each with the id of its guard. The child of a fork has nothing of its parent's.
fn watch() -> &'static Lock<Vec<(u64, Stop)>> {
    static WATCH: PerProcess<Lock<Vec<(u64, Stop)>>> = PerProcess::new();
    WATCH.get_or_init(|| Lock::new(Vec::new()))
}

/// Stops everything at once, and returns when all of it is done.
fn stop_all(signal: &'static str) {
    let stops = watch().with(|stops| stops.clone());
    let begin = |(_, stop): (u64, Stop)| {
        let work = {
            let stop = Arc::clone(&stop);
            move || panics::catch(|| stop(signal))
        };
        let builder = thread::Builder::new().name("tinkex-signal".into());
        // Without a thread, one after the other.
        builder.spawn(work).map_err(|_| stop)
    };
    let threads: Vec<_> = stops.into_iter().map(begin).collect();
    for thread in threads {
        // A session whose stop panics must not keep the others, or the signal, from what they do.
        let _ = match thread {
            Ok(thread) => thread.join().ok().flatten(),
            Err(stop) => panics::catch(|| stop(signal)),
        };
    }
}

#[cfg(not(any(unix, windows)))]
mod elsewhere {
    pub(super) fn install() -> std::io::Result<()> {
        let reason = "this platform has no signals";
        Err(std::io::Error::new(std::io::ErrorKind::Unsupported, reason))
    }
}
