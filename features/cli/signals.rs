//! Why a command ends before its work is done: signals, and output without a reader.

use std::io;

use tokio::{runtime::Runtime, sync::mpsc};

use super::prelude::*;

/// Why the program ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// By SIGINT.
    Interrupted,
    /// By SIGTERM or SIGHUP.
    Terminated,
    /// The output has no reader any more.
    Unread,
}

/// A runtime for what a command waits for.
pub(super) fn runtime() -> Result<Runtime, String> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| format!("cannot start: {error}"))
}

/// Sends to `end` what ends the program. Must be called in a runtime; misses no signal after it returns.
#[cfg(unix)]
pub(super) fn watch(end: &mpsc::Sender<End>, watches_stdout: bool) -> io::Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    for (kind, reason) in [
        (SignalKind::interrupt(), End::Interrupted),
        (SignalKind::terminate(), End::Terminated),
        (SignalKind::hangup(), End::Terminated),
    ] {
        let (mut signal, end) = (signal(kind)?, end.clone());
        tokio::spawn(async move {
            while signal.recv().await.is_some() {
                let _ = end.send(reason).await;
            }
        });
    }
    if watches_stdout {
        let end = end.clone();
        tokio::spawn(async move {
            reader_gone().await;
            let _ = end.send(End::Unread).await;
        });
    }
    Ok(())
}

/// Completes when the other end of the pipe is closed, even while there is nothing to print.
#[cfg(unix)]
async fn reader_gone() {
    use tokio::io::{Interest, unix::AsyncFd};
    // A file cannot be watched, and has no reader that could go.
    #[allow(
        deprecated,
        reason = "its successor is newer than the oldest tokio; the standard output stays open"
    )]
    let Ok(stdout) = AsyncFd::with_interest(io::stdout(), Interest::WRITABLE) else {
        return core::future::pending().await;
    };
    loop {
        let Ok(mut guard) = stdout.ready(Interest::WRITABLE).await else {
            return core::future::pending().await;
        };
        if guard.ready().is_write_closed() {
            return;
        }
        guard.clear_ready();
    }
}

/// Ends the process when nothing reads its output any more, for a command that waits elsewhere and holds nothing back.
#[cfg(unix)]
pub(super) fn end_unread() {
    std::thread::spawn(|| {
        if let Ok(runtime) = runtime() {
            runtime.block_on(reader_gone());
            std::process::exit(0);
        }
    });
}

#[cfg(not(unix))]
pub(super) fn end_unread() {}

#[cfg(not(unix))]
pub(super) fn watch(end: &mpsc::Sender<End>, _: bool) -> io::Result<()> {
    let end = end.clone();
    tokio::spawn(async move {
        while tokio::signal::ctrl_c().await.is_ok() {
            let _ = end.send(End::Interrupted).await;
        }
    });
    Ok(())
}
