//! The environment of a scenario: its sessions, time, server and host.

use super::losses::LossLog;
use super::net::SimHttp;
use super::reply::Reply;
use super::rng::Rng;
use super::spawner::{SendTask, SimLocalSpawner, SimSpawner, Tag};
use super::timers::{Sleep, TimerSource, Timers};
use super::world::{Draw, World};
use super::{Fault, Faults, SimClock};
use crate::bus::Bus;
use crate::clock::Clock;
use crate::features::http::{Config, HttpTransport};
use crate::local::LocalSpawner as _;
use crate::session::{Builder, Entropy, Handle, Options, Reporter, Uuid};
use crate::time::{Instant, Timestamp};
use crate::transport::Transport;
use crate::wire::EventRecord;
use alloc::boxed::Box;
use alloc::format;
use alloc::rc::Rc;
use alloc::string::{String, ToString};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::cell::{Cell, RefCell};
use core::fmt;
use core::future::Future;
use core::task::Waker;
use core::time::Duration;

/// The UUID of the simulated process.
const PROCESS_UUID: u128 = 0x4000_8000_0000_0000_0005;

/// A reporter in a simulation. Dropping the last clone drops the reporter.
pub type SimReporter = Rc<Reporter<HttpTransport<SimHttp>, SimClock, SimSpawner>>;

/// The builder of a [`SimReporter`].
pub type SimBuilder = Builder<HttpTransport<SimHttp>, SimClock, SimSpawner>;

/// The environment of a scenario. Clones share it.
#[derive(Clone)]
pub struct Env(pub(super) Rc<Inner>);

pub(super) struct Inner {
    pub(super) world: Arc<World>,
    bus: Bus,
    pub(super) spawner: SimSpawner,
    /// The scenario's own timers: it stays on one thread, so they need no lock.
    pub(super) timers: RefCell<Timers>,
    local: SimLocalSpawner,
    pub(super) sessions: RefCell<Vec<OpenedSession>>,
    pub(super) commands: RefCell<Vec<Command>>,
    pub(super) seed: u64,
    pub(super) is_healed: Cell<bool>,
    /// The number of times that a task was polled.
    pub(super) turns: Cell<u64>,
    /// [`World::accesses`] at the last check.
    pub(super) accesses_checked: Cell<u64>,
    random: RefCell<Rng>,
}

/// What the run must do to the process after this turn.
pub(super) enum Command {
    DropDriver(Tag),
    EndRuntime(Tag),
    /// The process ends: the sessions that were opened until now, and the tasks with this tag.
    Crash {
        sessions: usize,
        process: Option<Tag>,
    },
}

type NewDriver = Box<dyn Fn(&Env) -> Option<SendTask>>;

/// A session that the scenario has opened.
pub(super) struct OpenedSession {
    pub(super) handle: Handle,
    pub(super) id: String,
    pub(super) options: Options,
    /// Makes another driver, while the reporter is there.
    pub(super) new_driver: NewDriver,
    /// Its events go through a spool.
    pub(super) is_spooled: bool,
    pub(super) tag: Tag,
    pub(super) life: Life,
    /// The events that the server had confirmed at the last check.
    pub(super) confirmed: Cell<u64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Life {
    Alive,
    /// Its runtime has ended.
    RuntimeGone,
    /// Its process has crashed.
    Crashed,
}

impl Inner {
    /// The process crashes.
    pub(super) fn crash(&self) {
        let process = self.world.end_process();
        let sessions = self.sessions.borrow().len();
        let command = Command::Crash { sessions, process };
        self.commands.borrow_mut().push(command);
    }

    /// The waker of the scenario's next timer, if it is due at `by`.
    pub(super) fn overdue(&self, by: Instant) -> Option<Waker> {
        let mut spare = None;
        let due = self.timers.borrow_mut().pop(by.as_micros(), &mut spare);
        due.map(|(_, waker)| waker)
    }
}

impl TimerSource for Env {
    #[inline]
    fn clock(&self) -> &SimClock {
        &self.0.world.clock
    }

    #[inline]
    fn with_timers<R>(&self, work: impl FnOnce(&mut Timers) -> R) -> R {
        work(&mut self.0.timers.borrow_mut())
    }

    #[inline]
    fn last_fired(&self) -> u64 {
        self.0.timers.borrow().last_fired()
    }
}

impl Env {
    pub(super) fn new(
        world: Arc<World>,
        spawner: SimSpawner,
        local: SimLocalSpawner,
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
            is_healed: Cell::new(false),
            turns: Cell::new(0),
            accesses_checked: Cell::new(0),
            random: RefCell::new(Rng::stream(seed, 3)),
        }))
    }

    /// Opens a session with the id `s0`, the next with `s1` and so on.
    ///
    /// # Panics
    /// When the options are invalid.
    #[must_use]
    pub fn reporter(&self, options: Options) -> SimReporter {
        self.reporter_with(options, |builder| builder)
    }

    /// [`reporter`](Self::reporter), with a builder that `change` may modify, except for its options.
    ///
    /// # Panics
    /// When the options are invalid.
    #[must_use]
    pub fn reporter_with(
        &self,
        options: Options,
        change: impl FnOnce(SimBuilder) -> SimBuilder,
    ) -> SimReporter {
        let again = |env: &Self| Some(env.transport());
        self.open(options, self.transport(), again, false, change)
    }

    /// Opens a session with this transport, and others for drivers that replace its own.
    pub(super) fn open<T: Transport + 'static>(
        &self,
        options: Options,
        transport: T,
        again: impl Fn(&Self) -> Option<T> + 'static,
        is_spooled: bool,
        change: impl FnOnce(Builder<T, SimClock, SimSpawner>) -> Builder<T, SimClock, SimSpawner>,
    ) -> Rc<Reporter<T, SimClock, SimSpawner>> {
        let number = self.0.sessions.borrow().len() as u64;
        let tag = number as Tag + 1;
        let id = format!("s{number}");
        let mut builder = Reporter::builder(id.as_str())
            .options(options.clone())
            .enabled(true)
            .platform("unix/linux")
            .process_uuid(Some(Uuid::from_u128(PROCESS_UUID)))
            .entropy(Entropy::new(Rng::bytes(self.0.seed, 1_000 + number)))
            .on_diagnostic({
                let world = Arc::clone(&self.0.world);
                move |diagnostic| world.note(format_args!("diagnostic: {diagnostic}"))
            })
            .bus(self.bus())
            .transport(transport)
            .clock(self.clock())
            .spawner(self.0.spawner.tagged(tag));
        // Stacks differ from build to build; a simulation must not.
        builder.errors.without_stacks = true;
        // Half of the sessions queue events the way bare metal does: the seed decides, by a stream of its own.
        builder.host.pushes_in_pieces = Rng::bytes(self.0.seed, 2_000 + number)[0] & 1 == 1;
        let reporter = match change(builder).start() {
            Ok(reporter) => Rc::new(reporter),
            Err(error) => {
                let reason = core::error::Error::source(&error).map(ToString::to_string);
                panic!("{error}: {}", reason.unwrap_or_default())
            }
        };
        self.0.world.note(format_args!("session {id} is opened"));
        if !is_spooled {
            let cap = options.retry_max_delay;
            let log = LossLog::new(options.loss_report);
            let server = &mut self.0.world.state().server;
            server.retry_caps.insert(id.clone(), cap);
            server.losses.insert(id.clone(), log);
        }
        let weak = Rc::downgrade(&reporter);
        self.0.sessions.borrow_mut().push(OpenedSession {
            handle: reporter.handle(),
            id,
            options,
            new_driver: Box::new(move |env| {
                let driver = weak.upgrade()?.new_driver(again(env)?).ok()?;
                Some(Box::pin(driver.run()) as SendTask)
            }),
            is_spooled,
            tag,
            life: Life::Alive,
            confirmed: Cell::new(0),
        });
        reporter
    }

    /// The bus of the simulated sessions. It is not the process's bus, so runs are isolated from each other.
    #[must_use]
    pub fn bus(&self) -> Bus {
        self.0.bus.clone()
    }

    /// A transport to the simulated server, over the simulated network.
    ///
    /// # Panics
    /// Never: the configuration is valid.
    #[must_use]
    pub fn transport(&self) -> HttpTransport<SimHttp> {
        let config = Config::new("http://simulated.invalid", "simulated");
        HttpTransport::new(
            config.expect("the configuration is valid"),
            SimHttp(Arc::clone(&self.0.world)),
        )
    }

    /// The simulated server.
    #[must_use]
    pub fn server(&self) -> SimServer {
        SimServer(Arc::clone(&self.0.world))
    }

    /// The simulated clock.
    #[must_use]
    pub fn clock(&self) -> SimClock {
        self.0.world.clock.clone()
    }

    /// The spawner of the simulated executor: a [`Runtime`](crate::runtime::Runtime).
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

    /// Waits until `duration` of simulated time has passed.
    #[inline]
    pub fn advance(&self, duration: Duration) -> impl Future<Output = ()> + use<> {
        let until = self.0.world.clock.after(duration);
        Sleep::on(self.clone(), until)
    }

    /// Spawns a task that runs concurrently with the scenario.
    pub fn spawn(&self, task: impl Future<Output = ()> + 'static) {
        let _ = self.0.local.spawn_local(task);
    }

    /// A random number below `bound`, drawn from the seed; 0 if `bound` is 0.
    #[must_use]
    pub fn random(&self, bound: u64) -> u64 {
        self.0.random.borrow_mut().below(bound)
    }

    /// Whether a fault that the scenario itself carries out occurs now, by its rate in this run.
    #[must_use]
    pub fn occurs(&self, fault: Fault) -> bool {
        let mut state = self.0.world.state();
        let mut rng = state.draw(Draw::Scenario);
        state.occurs(&mut rng, fault)
    }

    /// Ends faults and scripted replies; damage stays. From here on all must settle.
    pub fn heal(&self) {
        let mut state = self.0.world.state();
        state.faults = Faults::none();
        state.server.script.clear();
        state.server.always = None;
        state.server.invalid.clear();
        #[cfg(feature = "spool")]
        let waiting = state.drive.as_mut().map(|drive| drive.heal());
        drop(state);
        #[cfg(feature = "spool")]
        waiting.into_iter().flatten().for_each(Waker::wake);
        self.0.is_healed.set(true);
        self.0.world.note("all faults are healed");
    }

    /// From now on no request of this session may have an event with a lower index: they have been discarded.
    pub(super) fn withdraw_below(&self, session: &str, index: u64) {
        let mut state = self.0.world.state();
        let record = state.server.sessions.entry(session.to_string());
        record.or_default().withdrawn_below = index;
    }

    /// Replaces the faults from now on.
    pub fn set_faults(&self, faults: &Faults) {
        self.0.world.state().faults = faults.clone();
    }

    /// Crashes the process: all its sessions and spools are gone, and their tasks when the scenario next waits.
    /// The scenario continues as the next process. What is on disk stays.
    pub fn crash(&self) {
        self.0.crash();
    }

    /// Drops the driver of session `number`, counted from 0 in the order of opening, at its current await. A new one
    /// takes over within five seconds.
    pub fn drop_driver(&self, number: usize) {
        let tag = number as Tag + 1;
        self.0.commands.borrow_mut().push(Command::DropDriver(tag));
    }

    /// Permanently ends the runtime of session `number`, counted from 0 in the order of opening, with all its tasks.
    pub fn end_runtime(&self, number: usize) {
        let tag = number as Tag + 1;
        self.0.commands.borrow_mut().push(Command::EndRuntime(tag));
    }

    /// Adds a line to the timeline.
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

/// The simulated server.
#[derive(Clone)]
pub struct SimServer(Arc<World>);

impl SimServer {
    /// Adds the response to the next request without a scripted one. The faults of the network still apply.
    pub fn reply(&self, reply: Reply) {
        self.0.state().server.script.push_back(reply);
    }

    /// Sets the response to every request without a scripted one, until [`Env::heal`].
    pub fn always(&self, reply: Reply) {
        self.0.state().server.always = Some(reply);
    }

    /// Declares an event invalid: until [`Env::heal`], the server refuses each request that has it, with 422. Scripted
    /// responses come first.
    pub fn refuse_event(&self, session: &str, index: u64) {
        let event = (session.to_string(), index);
        self.0.state().server.invalid.insert(event);
    }

    /// How many distinct events of a session the server has.
    #[must_use]
    pub fn events(&self, session: &str) -> u64 {
        let state = self.0.state();
        state
            .server
            .sessions
            .get(session)
            .map_or(0, |record| record.distinct)
    }

    /// Keeps the events that arrive from now on, for [`records`](Self::records): the first 100 000. Without it the server
    /// keeps only what its checks need, and is faster.
    pub fn keep_events(&self) {
        let mut state = self.0.state();
        state.server.kept.get_or_insert_default();
    }

    /// The events of a session that were [kept](Self::keep_events), each once, in the order of their indices: their
    /// names, data, severities and messages.
    #[must_use]
    pub fn records(&self, session: &str) -> Vec<EventRecord> {
        let state = self.0.state();
        let kept = state.server.kept.as_ref();
        kept.map(|kept| kept.of(session)).unwrap_or_default()
    }

    /// How many events of a session arrived again.
    #[must_use]
    pub fn duplicates(&self, session: &str) -> u64 {
        let state = self.0.state();
        state
            .server
            .sessions
            .get(session)
            .map_or(0, |record| record.duplicates)
    }

    /// How many requests of a session arrived.
    #[must_use]
    pub fn requests(&self, session: &str) -> u64 {
        let state = self.0.state();
        state
            .server
            .sessions
            .get(session)
            .map_or(0, |record| record.requests)
    }

    /// Whether the server has the session's `SESSION_END`.
    #[must_use]
    pub fn has_ended(&self, session: &str) -> bool {
        let state = self.0.state();
        let record = state.server.sessions.get(session);
        record.is_some_and(|record| record.ended_at().is_some())
    }

    /// An HTTP client for this server, for a client of the test's own to wrap.
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
