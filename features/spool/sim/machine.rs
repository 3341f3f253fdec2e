//! What a simulated disk asks of the simulation that it is part of: the crate's own sweep of the spool, or the module
//! `sim`, which has a simulated clock, executor and server as well.

use super::files::Files;
use super::rng::Rng;
use crate::features::spool::owner::Owner;
use crate::time::Timestamp;
use alloc::string::String;
use alloc::vec::Vec;
use std::path::Path;
use std::sync::MutexGuard;

/// What may go wrong in an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum DiskFault {
    TornWrite,
    LostSync,
    FailingSync,
    ReadError,
    Slow,
    Stalled,
    OwnerSleeps,
    Preempted,
    Killed,
}

/// A simulation. Clones share it.
pub(crate) trait Simulation: Clone + Send + Sync + 'static {
    type Machine: Machine;

    /// What is simulated.
    fn machine(&self) -> MutexGuard<'_, Self::Machine>;

    /// Lets others run in the middle of an operation: until a time, or for some steps.
    fn meanwhile(&self, until: u64, steps: u64);
}

/// A machine with a disk, and the processes on it.
pub(crate) trait Machine {
    /// Microseconds, of a clock that never jumps.
    fn now(&self) -> u64;

    fn utc(&self) -> Timestamp;

    fn files(&mut self) -> &mut Files;

    fn rng(&mut self) -> &mut Rng;

    fn rate(&self, fault: DiskFault) -> u16;

    /// Whether the fault happens now. If so, it is counted.
    fn happens(&mut self, fault: DiskFault) -> bool;

    fn is_full(&self) -> bool;

    /// Whether it is so full that a write takes no byte at all.
    fn takes_nothing(&self) -> bool {
        false
    }

    fn is_read_only(&self) -> bool;

    /// The number of the next handle.
    fn next_handle(&mut self) -> u64;

    fn is_dead(&self, pid: u32) -> bool;

    fn kill(&mut self, pid: u32);

    /// A process does nothing until then.
    fn sleep(&mut self, pid: u32, until: u64);

    /// A process as a lock names it.
    fn owner(&self, pid: u32) -> Owner;

    /// When another process that lives on the same host has started.
    fn started(&self, pid: u32, of: u32) -> Option<String>;

    /// Mixes a step into the trace.
    fn mix(&mut self, what: u64, value: u64);

    fn note(&mut self, line: impl FnOnce() -> String);

    /// A process has renamed a folder to this path.
    fn claims(&mut self, pid: u32, folder: u64, path: &Path) {
        let _ = (pid, folder, path);
    }

    /// A file is about to be removed.
    fn removes(&mut self, path: &Path) {
        let _ = path;
    }

    /// Events were written to a file, from which they are sent or not.
    fn writes(&mut self, file: u64, is_rejected: bool, events: Vec<u64>) {
        let _ = (file, is_rejected, events);
    }

    /// Events were written where no one can read them, because of earlier damage.
    fn writes_in_vain(&mut self, events: Vec<u64>);
}
