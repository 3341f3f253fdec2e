//! What a scenario has in its hands.

use super::executor::{SimSpawner, Tag};
use super::net::{Draw, SimHttp, World};
use super::rng::Rng;
use super::server::Reply;
use super::timers::{OnClock, Sleep, Timers};
use super::{Fault, Faults, SimClock};
use crate::bus::Bus;
use crate::clock::Clock;
use crate::features::http::{Config, HttpTransport};
use crate::local::LocalSpawner as _;
use crate::session::{Builder, Entropy, Handle, Options, Reporter, Uuid};
use crate::time::{Instant, Timestamp};
use alloc::format;
use alloc::rc::{Rc, Weak};
use alloc::string::{String, ToString};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::cell::{Cell, RefCell};
use core::fmt;
use core::future::Future;
use core::task::Waker;
use core::time::Duration;

/// The uuid of the simulated process.
const PROCESS: u128 = 0x4000_8000_0000_0000_0005;

/// A reporter of a simulation's. Dropping the last clone drops the reporter.
pub type SimReporter = Rc<Reporter<HttpTransport<SimHttp>, SimClock, SimSpawner>>;

/// What a [`SimReporter`] is built with.
pub type SimBuilder = Builder<HttpTransport<SimHttp>, SimClock, SimSpawner>;

/// The world of a scenario. Clones are the same world.
#[derive(Clone)]
pub struct Env(pub(super) Rc<Inner>);

pub(super) struct Inner {
    pub(super) world: Arc<World>,
    bus: Bus,
    pub(super) spawner: SimSpawner,
    /// Those of the scenario: it stays on one thread, so they need no lock.
    pub(super) timers: RefCell<Timers>,
    pub(super) local: super::SimLocalSpawner,
    pub(super) sessions: RefCell<Vec<Session>>,
    pub(super) commands: RefCell<Vec<Command>>,
    pub(super) seed: u64,
    pub(super) healed_at: Cell<Option<Instant>>,
    /// The turns that tasks took.
    pub(super) turns: Cell<u64>,
    /// [`World::looks`] at the last check.
    pub(super) checked: Cell<u64>,
    random: RefCell<Rng>,
}

/// What a scenario asks of the run.
pub(super) enum Command {
    DropDriver(Tag),
    EndRuntime(Tag),
    Crash,
}

/// A session that was opened.
pub(super) struct Session {
    pub(super) handle: Handle,
    pub(super) id: String,
    pub(super) options: Options,
    pub(super) reporter: Weak<Reporter<HttpTransport<SimHttp>, SimClock, SimSpawner>>,
    pub(super) tag: Tag,
    pub(super) life: Life,
    /// How many of its events the server has confirmed, as of the last check.
    pub(super) confirmed: Cell<u64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Life {
    Alive,
    /// Its runtime is gone for good.
    WithoutRuntime,
    /// Its process has crashed.
    Crashed,
}

impl Inner {
    /// The waker of the scenario's next timer, if it is due by then.
    pub(super) fn overdue(&self, by: Instant) -> Option<Waker> {
        let mut spare = None;
        let due = self.timers.borrow_mut().pop(by.as_micros(), &mut spare);
        due.map(|(_, waker)| waker)
    }
}

impl OnClock for Env {
    #[inline]
    fn clock(&self) -> &SimClock {
        &self.0.world.clock
    }

    #[inline]
    fn with_timers<R>(&self, work: impl FnOnce(&mut Timers) -> R) -> R {
        work(&mut self.0.timers.borrow_mut())
    }

    #[inline]
    fn last_off(&self) -> u64 {
        self.0.timers.borrow().last_off()
    }
}

impl Env {
    pub(super) fn new(
        world: Arc<World>,
        spawner: SimSpawner,
        local: super::SimLocalSpawner,
        seed: u64,
    ) -> Self {
        Self(Rc::new(Inner {
            world,
            bus: Bus::new(),
            spawner,
            timers: RefCell::default(),
            local,
            sessions: RefCell::default(),
            commands: RefCell::default(),
            seed,
            healed_at: Cell::new(None),
            turns: Cell::new(0),
            checked: Cell::new(0),
            random: RefCell::new(Rng::stream(seed, 3)),
        }))
    }

    /// Opens a session: `s0`, then `s1` and so on.
    ///
    /// # Panics
    /// When these options cannot work.
    #[must_use]
    pub fn reporter(&self, options: Options) -> SimReporter {
        self.reporter_with(options, |builder| builder)
    }

    /// [`reporter`](Self::reporter), of a builder that `change` may add to, but not to its options.
    ///
    /// # Panics
    /// As there.
    #[must_use]
    pub fn reporter_with(
        &self,
        options: Options,
        change: impl FnOnce(SimBuilder) -> SimBuilder,
    ) -> SimReporter {
        let number = self.0.sessions.borrow().len() as u64;
        let tag = number as Tag + 1;
        let id = format!("s{number}");
        let builder = Reporter::builder(id.as_str())
            .options(options.clone())
            .enabled(true)
            .platform("unix/linux")
            .without_stacks()
            .process_uuid(Some(Uuid::from_u128(PROCESS)))
            .entropy(Entropy::new(Rng::bytes(self.0.seed, 1_000 + number)))
            .on_diagnostic({
                let world = Arc::clone(&self.0.world);
                move |diagnostic| world.note(format_args!("diagnostic: {diagnostic}"))
            })
            .bus(self.bus())
            .transport(self.transport())
            .clock(self.clock())
            .spawner(self.0.spawner.tagged(tag));
        let reporter = match change(builder).start() {
            Ok(reporter) => Rc::new(reporter),
            Err(error) => {
                let reason = core::error::Error::source(&error).map(ToString::to_string);
                panic!("{error}: {}", reason.unwrap_or_default())
            }
        };
        self.0.world.note(format_args!("session {id} is opened"));
        self.0.sessions.borrow_mut().push(Session {
            handle: reporter.handle(),
            id,
            options,
            reporter: Rc::downgrade(&reporter),
            tag,
            life: Life::Alive,
            confirmed: Cell::new(0),
        });
        reporter
    }

    /// The bus of this world's sessions, which is not the process's: runs do not see each other.
    #[must_use]
    pub fn bus(&self) -> Bus {
        self.0.bus.clone()
    }

    /// A transport to the simulated server, through the simulated network.
    ///
    /// # Panics
    /// Never: the configuration is known to work.
    #[must_use]
    pub fn transport(&self) -> HttpTransport<SimHttp> {
        let config = Config::new("http://simulated.invalid", "simulated");
        HttpTransport::new(
            config.expect("it works"),
            SimHttp(Arc::clone(&self.0.world)),
        )
    }

    /// The server.
    #[must_use]
    pub fn server(&self) -> SimServer {
        SimServer(Arc::clone(&self.0.world))
    }

    /// The clock of everything here.
    #[must_use]
    pub fn clock(&self) -> SimClock {
        self.0.world.clock.clone()
    }

    /// Spawns tasks here; a [`Runtime`](crate::runtime::Runtime).
    #[must_use]
    pub fn spawner(&self) -> SimSpawner {
        self.0.spawner.clone()
    }

    /// The monotonic time.
    #[must_use]
    pub fn now(&self) -> Instant {
        self.0.world.clock.now()
    }

    /// The wall clock.
    #[must_use]
    pub fn utc(&self) -> Timestamp {
        self.0.world.clock.utc()
    }

    /// Lets simulated time pass.
    #[inline]
    pub fn advance(&self, duration: Duration) -> impl Future<Output = ()> + use<> {
        let until = self.0.world.clock.after(duration);
        Sleep::on(self.clone(), until)
    }

    /// Runs a task beside the scenario.
    pub fn spawn(&self, task: impl Future<Output = ()> + 'static) {
        let _ = self.0.local.spawn_local(task);
    }

    /// A number below `bound` that the seed decides; 0 when `bound` is 0.
    #[must_use]
    pub fn random(&self, bound: u64) -> u64 {
        self.0.random.borrow_mut().below(bound)
    }

    /// Whether a fault that the scenario itself carries out happens now; its rate is that of the run.
    #[must_use]
    pub fn strikes(&self, fault: Fault) -> bool {
        let mut state = self.0.world.state();
        let mut rng = state.draw(Draw::Scenario);
        state.strikes(&mut rng, fault)
    }

    /// No more faults, and no more scripted answers. From here everything must settle.
    pub fn heal(&self) {
        let mut state = self.0.world.state();
        state.faults = Faults::none();
        state.server.script.clear();
        state.server.always = None;
        drop(state);
        if self.0.healed_at.get().is_none() {
            self.0.healed_at.set(Some(self.now()));
        }
        self.0.world.note("all faults are healed");
    }

    /// Other faults from now on.
    pub fn set_faults(&self, faults: &Faults) {
        self.0.world.state().faults = faults.clone();
    }

    /// The process ends without a word: all tasks and all sessions are gone. The scenario goes on, as the next process.
    pub fn crash(&self) {
        self.0.commands.borrow_mut().push(Command::Crash);
    }

    /// Drops the driver of the session that was opened as the `number`th, where it waits; a new one takes over within
    /// five seconds.
    pub fn drop_driver(&self, number: usize) {
        let tag = number as Tag + 1;
        self.0.commands.borrow_mut().push(Command::DropDriver(tag));
    }

    /// Ends the runtime of the session that was opened as the `number`th, with all its tasks, for good.
    pub fn end_runtime(&self, number: usize) {
        let tag = number as Tag + 1;
        self.0.commands.borrow_mut().push(Command::EndRuntime(tag));
    }

    /// Puts a line of the scenario's own into the timeline.
    pub fn note(&self, what: impl fmt::Display) {
        self.0.world.note(what);
    }
}

impl fmt::Debug for Env {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Env")
            .field("seed", &self.0.seed)
            .field("now", &self.now())
            .finish_non_exhaustive()
    }
}

/// The simulated server, as a scenario sees it.
#[derive(Clone)]
pub struct SimServer(Arc<World>);

impl SimServer {
    /// The answer to the next request that has none yet; the faults of the network still apply.
    pub fn reply(&self, reply: Reply) {
        self.0.state().server.script.push_back(reply);
    }

    /// The answer to every request without one of its own; until [`Env::heal`].
    pub fn always(&self, reply: Reply) {
        self.0.state().server.always = Some(reply);
    }

    /// How many different events of a session are here.
    #[must_use]
    pub fn events(&self, session: &str) -> u64 {
        let state = self.0.state();
        state
            .server
            .sessions
            .get(session)
            .map_or(0, |record| record.distinct)
    }

    /// How many came again.
    #[must_use]
    pub fn duplicates(&self, session: &str) -> u64 {
        let state = self.0.state();
        state
            .server
            .sessions
            .get(session)
            .map_or(0, |record| record.duplicates)
    }

    /// How many requests have come.
    #[must_use]
    pub fn requests(&self, session: &str) -> u64 {
        let state = self.0.state();
        state
            .server
            .sessions
            .get(session)
            .map_or(0, |record| record.requests)
    }

    /// Whether the session's `SESSION_END` is here.
    #[must_use]
    pub fn has_ended(&self, session: &str) -> bool {
        let state = self.0.state();
        let record = state.server.sessions.get(session);
        record.is_some_and(|record| record.ended_at().is_some())
    }

    /// The client that leads here, to be wrapped by one of the test's own.
    #[must_use]
    pub fn http(&self) -> SimHttp {
        SimHttp(Arc::clone(&self.0))
    }
}

impl fmt::Debug for SimServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SimServer").finish_non_exhaustive()
    }
}
