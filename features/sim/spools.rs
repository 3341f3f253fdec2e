//! Spools in a scenario: the production ones, on the simulated disk, with tasks in place of threads.

use super::disk::SimDisk;
use super::drive::Drive;
use super::env::{Command, Env};
use super::net::SimHttp;
use super::rng::Rng;
use super::spawner::SimSpawner;
use super::world::World;
use super::{Fault, SimClock};
use crate::clock::Clock as _;
use crate::features::http::HttpTransport;
use crate::features::spool::by_hand::{Surroundings, Watched};
use crate::features::spool::disk::Disk;
use crate::features::spool::host::Witness;
use crate::features::spool::sim::disk::ProcessDisk;
use crate::features::spool::time::Time;
use crate::features::spool::{Left, Spool, SpoolBuilder, SpoolTransport, Sync};
use crate::session::{Entropy, Options, Reporter};
use crate::spawner::{SpawnError, Spawner as _};
use crate::time::{Instant, Timestamp};
use crate::transport::{Objects, Transport as _};
use alloc::boxed::Box;
use alloc::format;
use alloc::rc::Rc;
use alloc::string::{String, ToString};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::future::{Future, poll_fn};
use core::pin::Pin;
use core::sync::atomic::{AtomicU64, Ordering};
use core::task::Poll;
use core::time::Duration;
use std::path::PathBuf;

/// The builder of a spool in a simulation.
pub type SimSpoolBuilder = SpoolBuilder<HttpTransport<SimHttp>, SimSpawner>;

/// A reporter in a simulation whose transport is a spool's. Dropping the last clone drops the reporter.
pub type SimSpoolReporter = Rc<Reporter<SpoolTransport, SimClock, SimSpawner>>;

/// In microseconds.
const SECOND: u64 = 1_000_000;

/// The faults of the disk that are drawn every few turns.
pub(super) const DISK_FAULTS: [Fault; 7] = [
    Fault::BitFlip,
    Fault::ZeroedSector,
    Fault::BadSector,
    Fault::DiskFull,
    Fault::DiskReadOnly,
    Fault::DirectoryRemoved,
    Fault::PowerCut,
];

impl Env {
    /// Builds a spool in a directory of the simulated disk, which sends to the simulated server. The builder takes the
    /// options; it is the production spool that [`start`](SpoolBuilder::start) then starts. It belongs to the
    /// current process, and ends with it.
    pub fn spool(&self, directory: impl Into<PathBuf>) -> SimSpoolBuilder {
        let world = &self.0.world;
        let (pid, holder, tag) = {
            let mut state = world.state();
            let Drive { pid, .. } = *state.drive();
            (pid, state.drive().holder(), state.drive().tag())
        };
        let spawner = self.0.spawner.tagged(tag);
        let surroundings = Simulated {
            world: Arc::clone(world),
            spawner: spawner.clone(),
            seed: self.0.seed,
            number: AtomicU64::new(u64::from(pid) << 16),
            pid,
            holder,
            destination: self.transport().destination().map(ToString::to_string),
        };
        SpoolBuilder::simulated(directory.into(), Arc::new(surroundings))
            .transport(self.transport())
            .runtime(spawner)
            .enabled(true)
    }

    /// Like [`reporter`](Self::reporter), but through a spool.
    ///
    /// # Panics
    /// When the options are invalid.
    #[must_use]
    pub fn reporter_in(&self, spool: &Spool, options: Options) -> SimSpoolReporter {
        let more = spool.more_transports();
        let transport = spool.transport();
        self.open(
            options,
            transport,
            move |_| more.next(),
            true,
            |builder| builder,
        )
    }

    /// The simulated disk.
    #[must_use]
    pub fn disk(&self) -> SimDisk {
        SimDisk(Arc::clone(&self.0.world))
    }

    /// The power fails: the process is gone, as after [`crash`](Self::crash), and part of what was not synced is gone
    /// from the disk: the ends of files, and the entries of files that were created, removed or renamed. The seed decides
    /// which: half the entries, unless [`Fault::EntryLost`] or [`Fault::UnlinkUndone`] has a rate.
    pub fn power_cut(&self) {
        let process = self.0.world.cut_power();
        self.0.end_process(process);
    }
}

impl super::env::Inner {
    /// Ends the tasks of a process and its sessions after this turn.
    pub(super) fn end_process(&self, process: Option<u32>) {
        let sessions = self.sessions.borrow().len();
        let command = Command::Crash { sessions, process };
        self.commands.borrow_mut().push(command);
    }
}

/// What a spool takes for its machine.
struct Simulated {
    world: Arc<World>,
    spawner: SimSpawner,
    seed: u64,
    /// The number of the next generator of random numbers.
    number: AtomicU64,
    pid: u32,
    holder: u64,
    /// Where the simulated server is.
    destination: Option<String>,
}

struct SpoolTime(SimClock);

impl Time for SpoolTime {
    fn now(&self) -> Instant {
        self.0.now()
    }

    fn utc(&self) -> Timestamp {
        self.0.utc()
    }
}

type Boxed = Pin<Box<dyn Future<Output = ()> + Send>>;

impl Surroundings for Simulated {
    fn disk(&self) -> Arc<dyn Disk> {
        Arc::new(ProcessDisk {
            simulation: Arc::clone(&self.world),
            pid: self.pid,
            holder: self.holder,
        })
    }

    fn time(&self) -> Box<dyn Time> {
        Box::new(SpoolTime(self.world.clock.clone()))
    }

    fn entropy(&self) -> Entropy {
        let spools = self.world.state().drive().spools.len() as u64;
        let number = self.number.fetch_add(1, Ordering::Relaxed);
        Entropy::new(Rng::bytes(
            self.seed,
            (3_000_000 + spools) << 24 | number & 0xff_ffff,
        ))
    }

    fn spawn(&self, task: Boxed) -> Result<(), SpawnError> {
        self.spawner.spawn(task)
    }

    fn sleep_until(&self, at: Instant) -> Boxed {
        let clock = self.world.clock.clone();
        Box::pin(async move { clock.sleep_until(at).await })
    }

    fn disk_answers(&self) -> Boxed {
        Box::pin(disk_answers(Arc::clone(&self.world)))
    }

    fn witness(&self, sync: Sync, destination: &str) -> Arc<dyn Witness> {
        Arc::new(Watching {
            world: Arc::clone(&self.world),
            must_sync: sync != Sync::Never,
            is_checked: self.destination.as_deref() == Some(destination),
        })
    }

    fn begin(&self, spool: Watched) {
        self.world.state().drive().spools.push(spool);
    }
}

/// Waits for as long as the disk hangs, or until everything is healed.
async fn disk_answers(world: Arc<World>) {
    let (delay, heals) = {
        let mut state = world.state();
        (state.delay_of_disk(), state.drive().heals)
    };
    let own = world.clock.after(delay);
    loop {
        let until = {
            let mut state = world.state();
            let drive = state.drive();
            let hangs_until = Instant::from_micros(drive.hangs_until);
            if drive.heals == heals {
                own.max(hangs_until)
            } else {
                hangs_until
            }
        };
        if until <= world.clock.now() {
            return;
        }
        let mut timer = Box::pin(world.clock.sleep_until(until));
        let mut has_waited = false;
        poll_fn(|context| {
            if timer.as_mut().poll(context).is_ready() || has_waited {
                return Poll::Ready(());
            }
            has_waited = true;
            let waker = context.waker().clone();
            world.state().drive().waiting.push(waker);
            Poll::Pending
        })
        .await;
    }
}

/// Enters what sessions hand in and are told into the book.
struct Watching {
    world: Arc<World>,
    must_sync: bool,
    /// The spool sends to the simulated server.
    is_checked: bool,
}

impl Witness for Watching {
    fn takes(&self, session: &str, events: &[u8]) {
        let mut state = self.world.state();
        let record = state.server.sessions.entry(session.to_string());
        record.or_default().is_spooled = true;
        let session = Arc::from(session);
        let book = &mut state.drive().book;
        Objects(events).for_each(|event| book.log(&session, event));
    }

    fn confirms(&self, events: &[u8], is_urgent: bool) {
        if self.is_checked {
            let is_synced = self.must_sync && is_urgent;
            let mut state = self.world.state();
            let book = &mut state.drive().book;
            Objects(events).for_each(|event| book.confirm(event, is_synced));
        }
    }
}

/// Checks that every spool delivers what it has once faults are healed, and that nothing is lost.
pub(super) async fn settle(env: &Env) {
    let spools: Vec<_> = {
        let mut state = env.0.world.state();
        match &mut state.drive {
            Some(drive) => drive.spools.clone(),
            None => return,
        }
    };
    // Beyond the clock's maximum nothing is waited for.
    let is_near_end = env.now().as_micros() > u64::MAX / 2;
    let destination = env.transport().destination().map(ToString::to_string);
    for spool in spools {
        let is_ours = destination.as_deref() == Some(spool.destination());
        if is_ours && !is_near_end && is_alive(env, &spool) {
            let left = deliver(env, &spool).await;
            let stats = spool.stats();
            assert!(
                left.is_empty() || !is_alive(env, &spool),
                "the spool {:?} has not delivered everything after the faults were healed: {stats:?}",
                spool.path(),
            );
        }
    }
    let mut state = env.0.world.state();
    if let Some(fault) = state.drive().fault_in_keeping() {
        state.server.violations.push(fault);
    }
}

/// Whether its process lives, and it is used.
fn is_alive(env: &Env, spool: &Watched) -> bool {
    let is_dead = |other: &Watched| other.is_same(spool);
    spool.is_running() && !env.0.world.state().drive().ended.iter().any(is_dead)
}

async fn deliver(env: &Env, spool: &Watched) -> Left {
    const TWO_HOURS: Duration = Duration::from_secs(7_200);
    let until = env.clock().after(TWO_HOURS);
    loop {
        let time_left = until.saturating_duration_since(env.now());
        let left = spool.wait_until_delivered(time_left).await;
        // What the dead have left is claimed when their locks are old; one that is refused tries again in a while.
        let is_over = left.is_empty() && left.others == 0;
        if is_over || env.now() >= until || !is_alive(env, spool) {
            return left;
        }
        env.advance(Duration::from_micros(30 * SECOND)).await;
    }
}

/// What is wrong with a spool's ledger.
pub(super) fn ledger_violation(drive: &Drive) -> Option<String> {
    let unbalanced = drive.spools.iter().find(|it| !it.stats().is_balanced())?;
    let (path, stats) = (unbalanced.path(), unbalanced.stats());
    Some(format!(
        "the ledger of the spool {path:?} does not balance: {stats:?}"
    ))
}
