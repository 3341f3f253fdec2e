//! Signals on Unix: flags and a socket that wakes a thread.

use super::stop_all;
use crate::sys::fork::PerProcess;
use crate::sys::lock::Lock;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::ffi::c_int;
use core::sync::atomic::{AtomicBool, Ordering};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::{flag, low_level};
use std::fs;
use std::io::{self, Read};
use std::os::unix::net::UnixStream;
use std::sync::OnceLock;
use std::thread;

const SIGNALS: [(c_int, &str); 2] = [(SIGTERM, "SIGTERM"), (SIGINT, "SIGINT")];

/// A signal that is watched.
struct Watched {
    number: c_int,
    name: &'static str,
    has_arrived: Arc<AtomicBool>,
    /// Nothing but this crate handles it.
    is_default: bool,
}

/// Installs the handlers and their thread, once per process.
pub(super) fn install() -> io::Result<()> {
    static IS_INSTALLED: PerProcess<Lock<bool>> = PerProcess::new();
    let is_installed = IS_INSTALLED.get_or_init(|| Lock::new(false));
    // Under the lock, so that a second call does not return before the handlers are there.
    is_installed.with(|is_installed| {
        if !*is_installed {
            start()?;
            *is_installed = true;
        }
        Ok(())
    })
}

fn start() -> io::Result<()> {
    let (mut woken, wake) = UnixStream::pair()?;
    let dispositions = Dispositions::at_first();
    let watched: Vec<_> = SIGNALS
        .into_iter()
        .filter(|(number, _)| !dispositions.ignores(*number))
        .map(|(number, name)| Watched {
            number,
            name,
            has_arrived: Arc::default(),
            is_default: !dispositions.handles(number),
        })
        .collect();
    let handlers: Vec<_> = watched
        .iter()
        .map(|signal| {
            let arrived = Arc::clone(&signal.has_arrived);
            (signal.number, arrived, signal.is_default)
        })
        .collect();
    let builder = thread::Builder::new().name("tinkex-signals".into());
    builder.spawn(move || {
        let mut byte = [0];
        loop {
            match woken.read(&mut byte) {
                Ok(1) => handle(&watched),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // The handlers could not be installed.
                _ => return,
            }
        }
    })?;
    // Set by the first signal; each later one then has its default action at once, in its handler.
    let is_ending = Arc::new(AtomicBool::new(false));
    for (number, has_arrived, is_default) in handlers {
        if is_default {
            // In this order, so that the first signal does not find its own mark.
            let second = Arc::clone(&is_ending);
            if is_init() {
                flag::register_conditional_shutdown(number, status_of(number), second)?;
            } else {
                flag::register_conditional_default(number, second)?;
            }
            flag::register(number, Arc::clone(&is_ending))?;
        }
        flag::register(number, has_arrived)?;
        low_level::pipe::register(number, wake.try_clone()?)?;
    }
    Ok(())
}

/// Handles the signals that have arrived. The child of a fork shares the socket, but not the flags: what it wakes finds
/// none.
fn handle(watched: &[Watched]) {
    for signal in watched {
        if signal.has_arrived.swap(false, Ordering::SeqCst) {
            stop_all(signal.name);
            if signal.is_default {
                end_process(signal.number);
            }
        }
    }
}

/// Ends the process as the signal does by default.
fn end_process(signal: c_int) {
    if is_init() {
        low_level::exit(status_of(signal));
    }
    let _ = low_level::emulate_default_handler(signal);
}

/// Whether this is the first process of its PID namespace, as in a container without an init. The kernel does not apply
/// a signal's default action to it.
fn is_init() -> bool {
    std::process::id() == 1
}

/// The status that a shell reports for a process that a signal has ended.
const fn status_of(signal: c_int) -> c_int {
    128 + signal
}

/// What the process does with each signal, as sets of bits.
#[derive(Clone, Copy)]
struct Dispositions {
    ignored: u64,
    handled: u64,
}

impl Dispositions {
    /// As they were before this crate handled any, in this process or, before a fork, in its parent.
    fn at_first() -> Self {
        static FIRST: OnceLock<Dispositions> = OnceLock::new();
        // Never waits, since a fork may have left it half initialized.
        if let Some(first) = FIRST.get() {
            return *first;
        }
        let first = Self::read();
        let _ = FIRST.set(first);
        first
    }

    /// As the kernel has it; all at their defaults where that cannot be read.
    fn read() -> Self {
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        Self {
            ignored: mask(&status, "SigIgn:"),
            handled: mask(&status, "SigCgt:"),
        }
    }

    const fn ignores(&self, signal: c_int) -> bool {
        self.ignored & bit(signal) != 0
    }

    const fn handles(&self, signal: c_int) -> bool {
        self.handled & bit(signal) != 0
    }
}

const fn bit(signal: c_int) -> u64 {
    1 << (signal - 1)
}

/// The set of signals in the line that begins with `name`, in hexadecimal.
fn mask(status: &str, name: &str) -> u64 {
    let line = status.lines().find_map(|line| line.strip_prefix(name));
    let mask = line.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    mask.unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dispositions_are_read_from_the_kernel_s_sets() {
        let status = "Name:\tx\nSigBlk:\t0000000000000000\nSigIgn:\t0000000000001002\nSigCgt:\t0000000000004000\n";
        let all = Dispositions {
            ignored: mask(status, "SigIgn:"),
            handled: mask(status, "SigCgt:"),
        };
        assert!(all.ignores(SIGINT) && !all.ignores(SIGTERM));
        assert!(all.handles(SIGTERM) && !all.handles(SIGINT));
        assert_eq!(mask("SigIgn:\tzz", "SigIgn:"), 0);
        assert_eq!(mask("", "SigIgn:"), 0);
    }
}
