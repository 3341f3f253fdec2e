//! A spool in a simulation: tasks of the simulated executor stand in for its threads.

use super::disk::Disk;
use super::error::SpoolError;
use super::host::{Host, Witness};
use super::inner::{Boxed, Inner};
use super::keeper::Keeper;
use super::queue::{Queue, Task};
use super::stats::{Left, SpoolStats};
use super::time::{self, Time};
use super::transport::SpoolTransport;
use super::worker::{Steps, Worker};
use super::writer::{Sync as WhenToSync, Writer};
use super::{Spool, SpoolBuilder};
use crate::spawner::SpawnError;
use crate::sys::entropy::{Entropy, Random};
use crate::time::Instant;
use alloc::boxed::Box;
use alloc::sync::{Arc, Weak};
use core::fmt;
use core::future::{Future, poll_fn};
use core::task::{Context, Poll};
use core::time::Duration;
use std::io;
use std::path::{Path, PathBuf};

/// The simulation that a spool is part of.
pub(crate) trait Surroundings: Send + Sync + 'static {
    fn disk(&self) -> Arc<dyn Disk>;

    fn time(&self) -> Box<dyn Time>;

    fn entropy(&self) -> Entropy;

    /// Runs a task for as long as the process lives.
    fn spawn(&self, task: Boxed) -> Result<(), SpawnError>;

    fn sleep_until(&self, at: Instant) -> Boxed;

    /// Waits for as long as the disk hangs.
    fn disk_answers(&self) -> Boxed;

    fn witness(&self, sync: WhenToSync, destination: &str) -> Arc<dyn Witness>;

    fn begin(&self, spool: Watched);
}

impl SpoolBuilder {
    /// A builder of a spool that is part of a simulation.
    pub(crate) fn simulated(directory: PathBuf, surroundings: Arc<dyn Surroundings>) -> Self {
        Self::new(directory).host(Arc::new(ByHand(surroundings)))
    }
}

impl Spool {
    /// What a driver needs that replaces one of a session.
    pub(crate) fn more_transports(&self) -> MoreTransports {
        MoreTransports(Arc::downgrade(&self.inner))
    }
}

/// Makes transports, for as long as the spool is there.
pub(crate) struct MoreTransports(Weak<Inner>);

impl MoreTransports {
    pub(crate) fn next(&self) -> Option<SpoolTransport> {
        self.0.upgrade().map(|inner| SpoolTransport::new(&inner))
    }
}

/// A spool as its simulation sees it, also after its process has ended.
#[derive(Clone)]
pub(crate) struct Watched(Arc<Inner>);

impl Watched {
    pub(crate) fn stats(&self) -> SpoolStats {
        self.0.shared.stats()
    }

    pub(crate) fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0.path
    }

    pub(crate) fn destination(&self) -> &str {
        self.0.destination.as_deref().unwrap_or_default()
    }

    /// Whether it is used, and its forwarder runs.
    pub(crate) fn is_running(&self) -> bool {
        let has_begun = self.0.forwarder.lock().is_ok_and(|it| it.is_some());
        has_begun && self.0.shared.lock().users > 0
    }

    /// Waits until everything is delivered.
    pub(crate) fn wait_until_delivered(
        &self,
        timeout: Duration,
    ) -> impl Future<Output = Left> + Send + use<> {
        let inner = Arc::clone(&self.0);
        let deadline = time::after((inner.runtime.now)(), timeout);
        inner.wait(deadline)
    }
}

impl fmt::Debug for Watched {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Watched").field(&self.0.path).finish()
    }
}

struct ByHand(Arc<dyn Surroundings>);

impl Host for ByHand {
    fn disk(&self) -> Arc<dyn Disk> {
        self.0.disk()
    }

    fn time(&self) -> Box<dyn Time> {
        self.0.time()
    }

    fn random(&self) -> io::Result<Random> {
        Ok(Random::new(self.0.entropy()))
    }

    fn start_writer(&self, writer: Writer, queue: &Arc<Queue>) -> Result<(), SpoolError> {
        let surroundings = Arc::clone(&self.0);
        let task = write(writer, Arc::clone(queue), surroundings);
        self.0.spawn(Box::pin(task)).map_err(SpoolError::Spawn)
    }

    fn start_keeper(&self, keeper: Keeper) -> Result<Worker<Keeper>, SpoolError> {
        let (worker, steps) = Worker::by_hand(keeper);
        let task = keep(steps, Arc::clone(&self.0));
        self.0.spawn(Box::pin(task)).map_err(SpoolError::Spawn)?;
        Ok(worker)
    }

    fn witness(&self, sync: WhenToSync, destination: &str) -> Option<Arc<dyn Witness>> {
        Some(self.0.witness(sync, destination))
    }

    fn begin(&self, spool: &Arc<Inner>) {
        self.0.begin(Watched(Arc::clone(spool)));
    }

    fn is_simulated(&self) -> bool {
        true
    }
}

/// What the writer does next.
enum Turn {
    Perform(Task),
    Sync,
    Finish,
}

/// Does what the writer's thread does.
async fn write(mut writer: Writer, queue: Arc<Queue>, surroundings: Arc<dyn Surroundings>) {
    let time = surroundings.time();
    let period = writer_period(&writer);
    let next_sync = || {
        let at = time.now().checked_add(period?)?;
        Some(surroundings.sleep_until(at))
    };
    let mut timer = next_sync();
    loop {
        let turn = poll_fn(|context| next_turn(&queue, timer.as_mut(), context)).await;
        surroundings.disk_answers().await;
        match turn {
            Turn::Perform(task) => writer.perform(&task),
            Turn::Sync => {
                writer.sync_all();
                timer = next_sync();
            }
            Turn::Finish => return writer.finish(),
        }
        // Done: it may be given up no more.
        queue.rest();
    }
}

fn writer_period(writer: &Writer) -> Option<Duration> {
    match writer.settings.sync {
        WhenToSync::Every(period) => Some(period.max(Duration::from_millis(1))),
        WhenToSync::Never | WhenToSync::OnStop => None,
    }
}

fn next_turn(queue: &Queue, timer: Option<&mut Boxed>, context: &mut Context<'_>) -> Poll<Turn> {
    queue.register(context.waker());
    if let Some(timer) = timer
        && timer.as_mut().poll(context).is_ready()
    {
        return Poll::Ready(Turn::Sync);
    }
    match queue.take() {
        Some(task) => Poll::Ready(Turn::Perform(task)),
        None if queue.is_over() => Poll::Ready(Turn::Finish),
        None => Poll::Pending,
    }
}

/// Does what the keeper's thread does.
async fn keep(mut steps: Steps<Keeper>, surroundings: Arc<dyn Surroundings>) {
    loop {
        let is_over = poll_fn(|context| {
            steps.register(context.waker());
            match (steps.is_empty(), steps.is_over()) {
                (false, _) => Poll::Ready(false),
                (true, true) => Poll::Ready(true),
                (true, false) => Poll::Pending,
            }
        });
        if is_over.await {
            return;
        }
        surroundings.disk_answers().await;
        steps.step();
    }
}
