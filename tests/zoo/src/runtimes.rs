//! The runtimes under test: how each starts a session, spawns a task and shuts down. The conformance suite and the
//! program `world` run their sessions on them.

use crate::local::{LocalThread, NotSend, run_jobs};
use alloc::rc::Rc;
use alloc::sync::{Arc, Weak};
use core::any::Any;
use core::future::{Future, poll_fn};
use core::pin::{Pin, pin};
use embassy_executor::Executor as EmbassyExecutor;
use smol::channel::{Receiver, Sender, bounded};
use smol::{Executor, LocalExecutor};
use std::sync::mpsc::channel;
use std::thread::{self, JoinHandle};
use tinkex_telemetry::local::LocalSpawner;
use tinkex_telemetry::runtime::{
    AsyncStd, Clock, Embassy, EmbassyPool, Runtime, Smol, SpawnError, Spawner,
};
use tinkex_telemetry::session::Builder;
use tinkex_telemetry::time::{Instant, Timestamp};
use tinkex_telemetry::{Handle as Session, Reporter, Thread, Tokio, Transport};
use tokio::runtime::{Builder as TokioBuilder, Handle, Runtime as TokioRuntime};
use tokio::task::LocalSet;

/// A task that any of them can run.
pub type Task = Pin<Box<dyn Future<Output = ()> + Send>>;

/// A session without a transport and a runtime.
pub type Start = Builder<(), (), ()>;

/// A session that a runtime has started.
pub struct Opened {
    /// The session.
    pub handle: Session,
    /// Its reporter: dropping it ends the session.
    pub reporter: Box<dyn Any + Send>,
}

impl Opened {
    /// A session of any type.
    pub fn new<T: 'static, C: Send + Sync + 'static, S: 'static>(
        reporter: Reporter<T, C, S>,
    ) -> Self
    where
        Reporter<T, C, S>: Send,
    {
        Self {
            handle: reporter.handle(),
            reporter: Box::new(reporter),
        }
    }
}

/// A runtime with what its adapter in the crate cannot do: begin and end.
pub trait RuntimeUnderTest: Sized + 'static {
    /// Starts the runtime.
    fn new() -> Self;

    /// Starts a session on this runtime.
    fn open<T: Transport>(&self, start: Start, over: T) -> Opened;

    /// Runs a task on this runtime.
    fn spawn(&self, task: Task);

    /// Shuts the runtime down. Returns false if that is impossible.
    fn shut_down(&mut self) -> bool {
        false
    }
}

/// A runtime on which the backend's clients run, too: they start tasks from any thread.
pub trait ClientRuntime: RuntimeUnderTest {
    /// The value that a client is built with.
    type Runtime: Runtime;

    /// The value for this runtime. Called in one of its tasks.
    fn value(&self) -> Self::Runtime;
}

/// Implements [`ClientRuntime`].
macro_rules! runs_clients {
    ($($under_test:ty: $runtime:ty, |$this:ident| $value:expr;)*) => {
        $(
            impl ClientRuntime for $under_test {
                type Runtime = $runtime;

                fn value(&self) -> $runtime {
                    let $this = self;
                    $value
                }
            }
        )*
    };
}

runs_clients! {
    OnThreads: Thread, |_this| Thread;
    SmolGlobal: Smol, |_this| Smol;
    AsyncStdGlobal: AsyncStd, |_this| AsyncStd;
    TokioMultiThread: Tokio, |this| Tokio::on(this.0.as_ref().expect("not shut down").handle().clone());
    TokioCurrentThread: Tokio, |this| Tokio::on(this.handle.clone());
    SmolExecutor: OnExecutor, |this| OnExecutor(Arc::downgrade(this.executor.as_ref().expect("not shut down")));
    OnEmbassy: Embassy, |this| Embassy::on(this.pool);
}

/// An `Executor` of smol with smol's timers: a runtime of the application's own.
#[derive(Clone)]
pub struct OnExecutor(Weak<Executor<'static>>);

impl Clock for OnExecutor {
    fn now(&self) -> Instant {
        Smol.now()
    }

    fn utc(&self) -> Timestamp {
        Smol.utc()
    }

    async fn sleep_until(&self, at: Instant) {
        Smol.sleep_until(at).await;
    }
}

impl Spawner for OnExecutor {
    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) -> Result<(), SpawnError> {
        self.0.spawn(task)
    }
}

impl Runtime for OnExecutor {}

fn open_on(start: Builder<impl Transport, (), ()>, runtime: impl Runtime) -> Opened {
    Opened::new(start.runtime(runtime).start().expect("the session starts"))
}

// Runtimes that cannot be shut down.

/// `Thread`.
pub struct OnThreads;

impl RuntimeUnderTest for OnThreads {
    fn new() -> Self {
        Self
    }

    fn open<T: Transport>(&self, start: Start, over: T) -> Opened {
        open_on(start.transport(over), Thread)
    }

    fn spawn(&self, task: Task) {
        Thread.spawn(task).expect("a thread");
    }
}

/// smol's global executor.
pub struct SmolGlobal;

impl RuntimeUnderTest for SmolGlobal {
    fn new() -> Self {
        Self
    }

    fn open<T: Transport>(&self, start: Start, over: T) -> Opened {
        open_on(start.transport(over), Smol)
    }

    fn spawn(&self, task: Task) {
        smol::spawn(task).detach();
    }
}

/// async-std's executor.
pub struct AsyncStdGlobal;

impl RuntimeUnderTest for AsyncStdGlobal {
    fn new() -> Self {
        Self
    }

    fn open<T: Transport>(&self, start: Start, over: T) -> Opened {
        open_on(start.transport(over), AsyncStd)
    }

    fn spawn(&self, task: Task) {
        drop(async_std::task::spawn(task));
    }
}

// tokio.

/// `Tokio` with two worker threads.
pub struct TokioMultiThread(Option<TokioRuntime>);

impl RuntimeUnderTest for TokioMultiThread {
    fn new() -> Self {
        let mut builder = TokioBuilder::new_multi_thread();
        let runtime = builder.worker_threads(2).enable_all().build();
        Self(Some(runtime.expect("a runtime")))
    }

    fn open<T: Transport>(&self, start: Start, over: T) -> Opened {
        let runtime = self.0.as_ref().expect("not shut down");
        // For `Reqwest`.
        let _guard = runtime.enter();
        open_on(start.transport(over), Tokio::on(runtime.handle().clone()))
    }

    fn spawn(&self, task: Task) {
        let runtime = self.0.as_ref().expect("not shut down");
        drop(runtime.spawn(task));
    }

    fn shut_down(&mut self) -> bool {
        drop(self.0.take());
        true
    }
}

/// `Tokio` on one thread.
pub struct TokioCurrentThread {
    handle: Handle,
    thread: Ending,
}

impl RuntimeUnderTest for TokioCurrentThread {
    fn new() -> Self {
        let (sender, receiver) = channel();
        let thread = Ending::start(move |end| {
            let runtime = current_thread();
            sender
                .send(runtime.handle().clone())
                .expect("the caller is waiting");
            let _ = runtime.block_on(end.recv());
        });
        Self {
            handle: receiver.recv().expect("a runtime"),
            thread,
        }
    }

    fn open<T: Transport>(&self, start: Start, over: T) -> Opened {
        // For `Reqwest`.
        let _guard = self.handle.enter();
        open_on(start.transport(over), Tokio::on(self.handle.clone()))
    }

    fn spawn(&self, task: Task) {
        drop(self.handle.spawn(task));
    }

    fn shut_down(&mut self) -> bool {
        self.thread.end();
        true
    }
}

fn current_thread() -> TokioRuntime {
    let mut builder = TokioBuilder::new_current_thread();
    builder.enable_all().build().expect("a runtime")
}

// Executors on a thread that runs them until it is told to stop.

/// An `Executor` of smol.
pub struct SmolExecutor {
    executor: Option<Arc<Executor<'static>>>,
    thread: Ending,
}

impl RuntimeUnderTest for SmolExecutor {
    fn new() -> Self {
        let executor = Arc::new(Executor::new());
        let run = Arc::clone(&executor);
        Self {
            executor: Some(executor),
            thread: Ending::start(move |end| {
                let _ = smol::block_on(run.run(end.recv()));
            }),
        }
    }

    fn open<T: Transport>(&self, start: Start, over: T) -> Opened {
        let executor = self.executor.clone().expect("not shut down");
        let start = start
            .transport(over)
            .clock(Smol)
            .spawner(Arc::downgrade(&executor));
        Opened::new(start.start().expect("the session starts"))
    }

    fn spawn(&self, task: Task) {
        let executor = self.executor.as_ref().expect("not shut down");
        executor.spawn(task).detach();
    }

    fn shut_down(&mut self) -> bool {
        self.thread.end();
        drop(self.executor.take());
        true
    }
}

/// Embassy's executor never ends; the task that runs the pool does.
pub struct OnEmbassy {
    pool: &'static EmbassyPool,
    end: Option<Sender<()>>,
    ended: Receiver<()>,
}

#[embassy_executor::task(pool_size = 64)]
async fn run_pool(pool: &'static EmbassyPool, end: Receiver<()>, _ended: Sender<()>) {
    let (mut running, mut end) = (pin!(pool.run()), pin!(end.recv()));
    // Polled with this task's own waker, which embassy's timers require. The pool is dropped before `_ended`.
    let _ = poll_fn(|context| {
        let _ = running.as_mut().poll(context);
        end.as_mut().poll(context)
    })
    .await;
}

impl RuntimeUnderTest for OnEmbassy {
    fn new() -> Self {
        let pool: &'static EmbassyPool = Box::leak(Box::new(EmbassyPool::new()));
        let (end, ends) = bounded(1);
        let (sender, ended) = bounded(1);
        thread::spawn(move || {
            let executor: &'static mut EmbassyExecutor =
                Box::leak(Box::new(EmbassyExecutor::new()));
            executor.run(|spawner| {
                spawner.spawn(run_pool(pool, ends, sender).expect("the task pool has room"))
            })
        });
        Self {
            pool,
            end: Some(end),
            ended,
        }
    }

    fn open<T: Transport>(&self, start: Start, over: T) -> Opened {
        open_on(start.transport(over), Embassy::on(self.pool))
    }

    fn spawn(&self, task: Task) {
        Embassy::on(self.pool)
            .spawn(task)
            .expect("the pool accepts tasks");
    }

    fn shut_down(&mut self) -> bool {
        self.end = None;
        let _ = self.ended.recv_blocking();
        true
    }
}

impl Drop for OnEmbassy {
    fn drop(&mut self) {
        self.shut_down();
    }
}

/// The driver on one of the application's threads.
pub struct AnyBlockOn;

impl RuntimeUnderTest for AnyBlockOn {
    fn new() -> Self {
        Self
    }

    fn open<T: Transport>(&self, start: Start, over: T) -> Opened {
        let (reporter, driver) = start
            .transport(over)
            .clock(Thread)
            .build()
            .expect("the session builds");
        thread::spawn(move || smol::block_on(driver.run()));
        Opened::new(reporter)
    }

    fn spawn(&self, task: Task) {
        thread::spawn(move || smol::block_on(task));
    }
}

/// A thread that ends on request.
struct Ending {
    end: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Ending {
    /// `run` must return when its channel is closed.
    fn start(run: impl FnOnce(Receiver<()>) + Send + 'static) -> Self {
        let (end, ends) = bounded(1);
        Self {
            end: Some(end),
            thread: Some(thread::spawn(move || run(ends))),
        }
    }

    fn end(&mut self) {
        self.end = None;
        if let Some(thread) = self.thread.take() {
            let result = thread.join();
            assert!(result.is_ok() || thread::panicking(), "no panic");
        }
    }
}

impl Drop for Ending {
    fn drop(&mut self) {
        self.end();
    }
}

// Single-threaded executors, with a transport that is not `Send`.

/// A `LocalSet` of tokio.
pub struct TokioLocalSet(LocalThread<Rc<LocalSet>>);

impl RuntimeUnderTest for TokioLocalSet {
    fn new() -> Self {
        Self(LocalThread::start(|jobs| {
            let (runtime, set) = (current_thread(), Rc::new(LocalSet::new()));
            set.block_on(&runtime, run_jobs(jobs, Rc::clone(&set)));
        }))
    }

    fn open<T: Transport>(&self, start: Start, over: T) -> Opened {
        open_local(&self.0, start, over, || Tokio::on(Handle::current()))
    }

    fn spawn(&self, task: Task) {
        self.0.spawn(task);
    }

    fn shut_down(&mut self) -> bool {
        self.0.shut_down();
        true
    }
}

/// A `LocalExecutor` of smol.
pub struct SmolLocal(LocalThread<Rc<LocalExecutor<'static>>>);

impl RuntimeUnderTest for SmolLocal {
    fn new() -> Self {
        Self(LocalThread::start(|jobs| {
            let executor = Rc::new(LocalExecutor::new());
            smol::block_on(executor.run(run_jobs(jobs, Rc::clone(&executor))));
        }))
    }

    fn open<T: Transport>(&self, start: Start, over: T) -> Opened {
        open_local(&self.0, start, over, || Smol)
    }

    fn spawn(&self, task: Task) {
        self.0.spawn(task);
    }

    fn shut_down(&mut self) -> bool {
        self.0.shut_down();
        true
    }
}

fn open_local<S, T, C>(
    thread: &LocalThread<S>,
    start: Start,
    over: T,
    clock: impl FnOnce() -> C + Send + 'static,
) -> Opened
where
    S: LocalSpawner + Clone + 'static,
    T: Transport,
    C: Clock,
{
    let (sender, receiver) = channel();
    thread.submit(move |spawner| {
        let start = start.transport(NotSend::new(over)).clock(clock());
        let reporter = start.spawner(spawner.clone()).start_local();
        sender
            .send(Opened::new(reporter.expect("the session starts")))
            .expect("the caller is waiting");
    });
    receiver.recv().expect("the session starts")
}
