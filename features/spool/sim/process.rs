//! A process with a spool: the real writer, keeper, forwarder and transports, each of which does one step when told to.

use super::backend::{NAMES, SimBackend};
use super::disk::ProcessDisk;
use super::session::Session;
use super::world::{Alive, SECOND, World};
use crate::features::spool::disk::Disk;
use crate::features::spool::error::SpoolError;
use crate::features::spool::folder::Directory;
use crate::features::spool::format::Destination;
use crate::features::spool::forwarder::{Forwarder, Timing};
use crate::features::spool::inner::{Boxed, Inner, Runtime};
use crate::features::spool::keeper::Keeper;
use crate::features::spool::queue::Queue;
use crate::features::spool::state::Shared;
use crate::features::spool::stats::Left;
use crate::features::spool::transport::SpoolTransport;
use crate::features::spool::worker::{Steps, Worker};
use crate::features::spool::writer::{Settings, Sync, Writer};
use crate::spawner::WouldDeadlock;
use crate::sys::fork::Fork;
use crate::time::Instant;
use alloc::boxed::Box;
use alloc::format;
use alloc::sync::Arc;
use alloc::task::Wake;
use alloc::vec::Vec;
use core::cell::{Cell, RefCell};
use core::future::Future;
use core::pin::Pin;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use core::task::{Context, Poll, Waker};
use core::time::Duration;

/// How a spool is set up.
#[derive(Clone, Copy, Debug)]
pub(super) struct Setup {
    pub(super) max_bytes: u64,
    pub(super) max_age: Duration,
    pub(super) sync: Sync,
}

pub(super) struct Process {
    pub(super) world: World,
    pub(super) pid: u32,
    pub(super) to: usize,
    pub(super) setup: Setup,
    pub(super) inner: Arc<Inner>,
    /// Each is taken out while it works: the others may run in the middle of that.
    writer: RefCell<Option<Writer>>,
    keeper: RefCell<Option<Steps<Keeper>>>,
    forwarder: RefCell<Option<Boxed>>,
    pub(super) sessions: RefCell<Vec<Option<Session>>>,
    flags: [Arc<Flag>; 3],
    session_flags: RefCell<Vec<Arc<Flag>>>,
    wait: RefCell<Option<Pin<Box<dyn Future<Output = Left>>>>>,
    pub(super) left: Cell<Option<Left>>,
    sync_at: Cell<Option<u64>>,
    has_left: Cell<bool>,
    /// How many of its actors are in the middle of a step.
    working: Cell<u32>,
}

/// A task's waker: it is due.
pub(super) struct Flag(AtomicBool);

impl Wake for Flag {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::SeqCst);
    }
}

impl Flag {
    fn new() -> Arc<Self> {
        Arc::new(Self(AtomicBool::new(true)))
    }

    fn is_set(&self) -> bool {
        self.0.load(Ordering::SeqCst)
    }

    fn take(&self) -> bool {
        self.0.swap(false, Ordering::SeqCst)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Actor {
    Writer,
    Keeper,
    Forwarder,
    Session(usize),
    Wait,
}

impl Process {
    /// Starts a process with a spool for one of the destinations.
    pub(super) fn start(
        world: &World,
        pid: u32,
        host: usize,
        to: usize,
        setup: Setup,
    ) -> Result<Self, SpoolError> {
        let mut core = world.lock();
        core.book.began_late |= core.wall > 0;
        let start = format!("{}", core.now);
        core.processes.insert(
            pid,
            Alive {
                host,
                start,
                is_dead: false,
                asleep_until: 0,
            },
        );
        let mut random = core.rng.seeded();
        let seeds = [core.rng.seeded(), core.rng.seeded(), core.rng.seeded()];
        let path = core.directory.clone();
        drop(core);
        let disk: Arc<dyn Disk> = Arc::new(ProcessDisk {
            simulation: world.clone(),
            pid,
            // Runs have directories of their own.
            holder: pid.into(),
        });
        let directory = Directory::open(&*disk, &path, &mut random)?;
        let shared = Arc::new(Shared::new(Box::new(world.clone())));
        shared.lock().users = 1;
        let name = NAMES[to];
        let [one, two, three] = seeds;
        let folders = Arc::default();
        let mut keeper = Keeper::new(
            Arc::clone(&disk),
            directory.clone(),
            Arc::clone(&shared),
            Destination::of(name),
            setup.max_bytes,
            setup.max_age,
            one,
            Arc::clone(&folders),
        );
        keeper.refused.must_sync = setup.sync != Sync::Never;
        let settings = Settings {
            to: Destination::of(name),
            sync: setup.sync,
            max_bytes: setup.max_bytes,
        };
        let writer = Writer::new(disk, directory, Arc::clone(&shared), settings, two, folders);
        let (worker, keeper) = Worker::by_hand(keeper);
        let teller = worker.teller();
        let timing = Timing {
            http_timeout: Duration::from_secs(30),
            retry_base_delay: Duration::from_secs(1),
            retry_max_delay: Duration::from_secs(60),
        };
        let backend = SimBackend {
            world: world.clone(),
            to,
            pid,
        };
        let forwarder = Forwarder::new(
            backend,
            world.clone(),
            worker,
            Arc::clone(&shared),
            timing,
            three,
        );
        let (now, sleeper) = (world.clone(), world.clone());
        let inner = Inner {
            shared,
            queue: Arc::new(Queue::default()),
            keeper: Some(teller),
            path,
            destination: Some(name.into()),
            warning: None,
            fork: Fork::here(),
            is_on: true,
            runtime: Runtime {
                now: Box::new(move || crate::clock::Clock::now(&now)),
                sleep: Box::new(move |at| {
                    let world = sleeper.clone();
                    Box::pin(async move { crate::clock::Clock::sleep_until(&world, at).await })
                }),
                block: Box::new(|_, _| Err(WouldDeadlock)),
            },
            transports: AtomicU64::new(0),
            witness: None,
            is_simulated: true,
            forwarder: Arc::default(),
        };
        let process = Self {
            world: world.clone(),
            pid,
            to,
            setup,
            inner: Arc::new(inner),
            writer: RefCell::new(Some(writer)),
            keeper: RefCell::new(Some(keeper)),
            forwarder: RefCell::new(Some(Box::pin(forwarder.run()))),
            sessions: RefCell::default(),
            flags: [Flag::new(), Flag::new(), Flag::new()],
            session_flags: RefCell::default(),
            wait: RefCell::default(),
            left: Cell::new(None),
            sync_at: Cell::new(None),
            has_left: Cell::new(false),
            working: Cell::new(0),
        };
        process.plan_sync();
        Ok(process)
    }

    fn plan_sync(&self) {
        if let Sync::Every(period) = self.setup.sync {
            let period = u64::try_from(period.as_micros()).unwrap_or(SECOND);
            self.sync_at.set(Some(self.world.lock().now + period));
        }
    }

    /// Opens a session.
    pub(super) fn open(&self, number: u64, id: alloc::string::String) {
        let transport = SpoolTransport::new(&self.inner);
        let session = Session::open(&self.world, number, id, self.to, self.setup.sync, transport);
        self.sessions.borrow_mut().push(Some(session));
        self.session_flags.borrow_mut().push(Flag::new());
    }

    /// Does something with a session that is open, if there is one.
    pub(super) fn with_session(&self, at: u64, work: impl FnOnce(&mut Session)) {
        let mut sessions = self.sessions.borrow_mut();
        let mut open: Vec<_> = sessions
            .iter_mut()
            .flatten()
            .filter(|session| !session.is_over && !session.is_stopping())
            .collect();
        if !open.is_empty() {
            let at = (at % open.len() as u64) as usize;
            work(open.swap_remove(at));
        }
    }

    pub(super) fn stop_sessions(&self, within: u64) {
        for session in self.sessions.borrow_mut().iter_mut().flatten() {
            session.stop(within);
        }
    }

    /// Waits until everything is delivered.
    pub(super) fn wait(&self, until: u64) {
        let wait = Arc::clone(&self.inner).wait(Some(Instant::from_micros(until)));
        *self.wait.borrow_mut() = Some(Box::pin(wait));
        self.left.set(None);
        self.flags[1].0.store(true, Ordering::SeqCst);
    }

    pub(super) fn is_waiting(&self) -> bool {
        self.wait.borrow().is_some()
    }

    /// Drops the spool's handle.
    pub(super) fn leave(&self) {
        if !self.has_left.replace(true) {
            self.inner.leave();
        }
    }

    /// One of its actors is in the middle of an operation.
    pub(super) fn is_working(&self) -> bool {
        self.working.get() > 0
    }

    pub(super) fn is_over(&self) -> bool {
        !self.is_working()
            && self.writer.borrow().is_none()
            && self.keeper.borrow().is_none()
            && self.forwarder.borrow().is_none()
    }

    /// The process is gone, with all that it had in memory.
    pub(super) fn bury(&self) {
        let stats = self.inner.shared.stats();
        for session in self.sessions.borrow_mut().iter_mut().flatten() {
            session.abandon();
        }
        let mut core = self.world.lock();
        core.book.evicted += stats.evicted;
        core.book.late += stats.late;
        core.book.straight += stats.straight;
        core.kill(self.pid);
        drop(core);
        self.wait.borrow_mut().take();
        self.forwarder.borrow_mut().take();
        self.writer.borrow_mut().take();
        self.keeper.borrow_mut().take();
    }

    /// What could do something now.
    pub(super) fn runnable(&self, now: u64) -> Vec<Actor> {
        let mut found = Vec::new();
        let sync_is_due = self.sync_at.get().is_some_and(|at| at <= now);
        let queue = &self.inner.queue;
        if self.writer.borrow().is_some() && (sync_is_due || !queue.is_empty() || queue.is_over()) {
            found.push(Actor::Writer);
        }
        if let Some(keeper) = &*self.keeper.borrow()
            && (!keeper.is_empty() || keeper.is_over())
        {
            found.push(Actor::Keeper);
        }
        if self.flags[0].is_set() && self.forwarder.borrow().is_some() {
            found.push(Actor::Forwarder);
        }
        if self.flags[1].is_set() && self.wait.borrow().is_some() {
            found.push(Actor::Wait);
        }
        let flags = self.session_flags.borrow();
        for (at, session) in self.sessions.borrow().iter().enumerate() {
            if let Some(session) = session
                && !session.is_over
                && (flags[at].is_set() || session.due().is_some_and(|at| at <= now))
            {
                found.push(Actor::Session(at));
            }
        }
        found
    }

    /// When something is due although no one wakes it.
    pub(super) fn due(&self) -> Option<u64> {
        let sessions = self.sessions.borrow();
        let sessions = sessions.iter().flatten().filter_map(Session::due);
        let sync = self
            .sync_at
            .get()
            .filter(|_| self.writer.borrow().is_some());
        sessions.chain(sync).min()
    }

    pub(super) fn step(&self, actor: Actor) {
        self.working.set(self.working.get() + 1);
        self.work(actor);
        self.working.set(self.working.get() - 1);
    }

    fn work(&self, actor: Actor) {
        match actor {
            Actor::Writer => self.step_writer(),
            Actor::Keeper => self.step_keeper(),
            Actor::Forwarder => {
                self.flags[0].take();
                let forwarder = self.forwarder.borrow_mut().take();
                let Some(mut forwarder) = forwarder else {
                    return;
                };
                let waker = Waker::from(Arc::clone(&self.flags[0]));
                let polled = forwarder.as_mut().poll(&mut Context::from_waker(&waker));
                if polled.is_pending() {
                    *self.forwarder.borrow_mut() = Some(forwarder);
                }
            }
            Actor::Wait => {
                self.flags[1].take();
                let Some(mut wait) = self.wait.borrow_mut().take() else {
                    return;
                };
                let waker = Waker::from(Arc::clone(&self.flags[1]));
                match wait.as_mut().poll(&mut Context::from_waker(&waker)) {
                    Poll::Ready(left) => self.left.set(Some(left)),
                    Poll::Pending => *self.wait.borrow_mut() = Some(wait),
                }
            }
            Actor::Session(at) => {
                let flag = Arc::clone(&self.session_flags.borrow()[at]);
                flag.take();
                let session = self.sessions.borrow_mut()[at].take();
                if let Some(mut session) = session {
                    session.step(&Waker::from(flag));
                    self.sessions.borrow_mut()[at] = Some(session);
                }
            }
        }
    }

    fn step_writer(&self) {
        let Some(mut writer) = self.writer.borrow_mut().take() else {
            return;
        };
        let now = self.world.lock().now;
        let queue = &self.inner.queue;
        if self.sync_at.get().is_some_and(|at| at <= now) {
            writer.sync_all();
            self.plan_sync();
        } else if let Some(task) = queue.take() {
            let before = self.inner.shared.stats().stored;
            writer.perform(&task);
            // Done: it may be given up no more.
            queue.rest();
            self.check_bytes(before);
        } else if queue.is_over() {
            writer.finish();
            return;
        }
        *self.writer.borrow_mut() = Some(writer);
    }

    fn step_keeper(&self) {
        let Some(mut keeper) = self.keeper.borrow_mut().take() else {
            return;
        };
        if !keeper.step() && keeper.is_over() {
            return;
        }
        *self.keeper.borrow_mut() = Some(keeper);
    }

    /// Behind a write there is no more on disk than may be, and a segment.
    fn check_bytes(&self, before: u64) {
        let stats = self.inner.shared.stats();
        let allowed = self.setup.max_bytes + self.setup.max_bytes / 8;
        // What is claimed meanwhile comes on top.
        if stats.recovered == 0 && stats.stored > before && stats.bytes > allowed {
            let fail = || format!("process {} has {} bytes on disk", self.pid, stats.bytes);
            self.world.lock().fail(fail);
        }
    }
}
