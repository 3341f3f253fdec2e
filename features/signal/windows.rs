//! Ctrl-C and Ctrl-Break on Windows.

use super::stop_all;
use crate::sys::lock::Lock;
use core::sync::atomic::{AtomicBool, Ordering};
use std::io;
use std::process::exit;
use std::thread;

/// The status with which the default handler ends a process.
const STATUS_CONTROL_C_EXIT: i32 = 0xC000_013A_u32 as i32;

/// Installs the handler, once per process.
pub(super) fn install() -> io::Result<()> {
    static IS_INSTALLED: Lock<bool> = Lock::new(false);
    IS_INSTALLED.with(|is_installed| {
        if !*is_installed {
            ctrlc::try_set_handler(handle).map_err(io::Error::other)?;
            *is_installed = true;
        }
        Ok(())
    })
}

/// Runs on a thread of its own for each event, one after the other; so it must not wait, or a second one would.
fn handle() {
    static IS_ENDING: AtomicBool = AtomicBool::new(false);
    if IS_ENDING.swap(true, Ordering::SeqCst) {
        exit(STATUS_CONTROL_C_EXIT);
    }
    let stop = || {
        stop_all("CTRL_C");
        exit(STATUS_CONTROL_C_EXIT)
    };
    let builder = thread::Builder::new().name("tinkex-signals".into());
    if builder.spawn(stop).is_err() {
        stop();
    }
}
