//! What a spool needs of the machine that it runs on, so that another one can stand in for it: a disk, the time, random
//! numbers, and threads.

use super::disk::Disk;
use super::error::SpoolError;
use super::inner::Inner;
use super::keeper::Keeper;
use super::queue::Queue;
use super::time::{StdTime, Time};
use super::worker::Worker;
use super::writer::{Sync as WhenToSync, Writer};
use crate::spawner::SpawnError;
use crate::sys::entropy::{Entropy, Random};
use alloc::boxed::Box;
use alloc::sync::Arc;
use std::io;
use std::thread;

pub(super) trait Host: Send + Sync {
    fn disk(&self) -> Arc<dyn Disk>;

    fn time(&self) -> Box<dyn Time>;

    fn random(&self) -> io::Result<Random>;

    /// Starts what does the tasks of the queue.
    fn start_writer(&self, writer: Writer, queue: &Arc<Queue>) -> Result<(), SpoolError>;

    /// Starts what does as the forwarder says.
    fn start_keeper(&self, keeper: Keeper) -> Result<Worker<Keeper>, SpoolError>;

    /// Who is to see what sessions hand in, if anyone.
    fn witness(&self, sync: WhenToSync, destination: &str) -> Option<Arc<dyn Witness>> {
        let _ = (sync, destination);
        None
    }

    /// Whether it exists in a simulation only: then what remains there tells no one anything.
    fn is_simulated(&self) -> bool {
        false
    }

    /// The spool is complete.
    fn begin(&self, spool: &Arc<Inner>) {
        let _ = spool;
    }
}

/// Sees what sessions hand to a spool, and what they are told.
pub(crate) trait Witness: Send + Sync {
    /// A session hands in these events.
    fn takes(&self, session: &str, events: &[u8]);

    /// It is told that they are on disk. `is_urgent`: no further ones will come, or one of them is an error.
    fn confirms(&self, events: &[u8], is_urgent: bool);
}

/// The machine that the program runs on.
pub(super) struct ThisMachine(pub(super) Arc<dyn Disk>);

impl Host for ThisMachine {
    fn disk(&self) -> Arc<dyn Disk> {
        Arc::clone(&self.0)
    }

    fn time(&self) -> Box<dyn Time> {
        Box::new(StdTime)
    }

    fn random(&self) -> io::Result<Random> {
        let entropy = Entropy::from_os().map_err(|_| io::Error::other("no random source"))?;
        Ok(Random::new(entropy))
    }

    fn start_writer(&self, writer: Writer, queue: &Arc<Queue>) -> Result<(), SpoolError> {
        let queue = Arc::clone(queue);
        let started = thread::Builder::new()
            .name("tinkex-spool".into())
            .spawn(move || writer.run(&queue));
        started.map(drop).map_err(|_| no_thread())
    }

    fn start_keeper(&self, keeper: Keeper) -> Result<Worker<Keeper>, SpoolError> {
        Worker::start("tinkex-spool-disk", keeper).map_err(|_| no_thread())
    }
}

fn no_thread() -> SpoolError {
    SpoolError::Spawn(SpawnError::new(
        "the operating system cannot start another thread",
    ))
}
