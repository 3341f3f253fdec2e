//! A running session on some runtime, and what cases do with one.

use crate::worlds::World;
use alloc::sync::Arc;
use core::any::Any;
use core::time::Duration;
use std::sync::Mutex;
use std::sync::mpsc::channel;
use tinkex_telemetry::collector::{Collector, SessionRecord};
use tinkex_telemetry::http::HttpClient;
use tinkex_telemetry::session::Builder;
use tinkex_telemetry::{Config, Drain, Handle, HttpTransport, Options, Reporter, fields};

/// Longer than anything here takes, shorter than a person waits.
pub(crate) const BOUND: Duration = Duration::from_secs(30);

pub(crate) const ID: &str = "s";

/// What a world has opened.
pub(crate) struct Opened {
    pub(crate) handle: Handle,
    pub(crate) reporter: Box<dyn Any + Send>,
}

impl Opened {
    pub(crate) fn new<T: 'static, C: Send + Sync + 'static, S: 'static>(
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

pub(crate) struct Session<W> {
    pub(crate) handle: Handle,
    pub(crate) reporter: Option<Box<dyn Any + Send>>,
    pub(crate) told: Arc<Mutex<String>>,
    pub(crate) collector: Collector,
    pub(crate) world: W,
}

/// No timer of its own, next to no backoff, and no timeout that a busy machine could meet.
pub(crate) fn options() -> Options {
    let mut options = Options::default();
    options.flush_interval = Duration::ZERO;
    options.retry_base_delay = Duration::from_millis(1);
    options.http_timeout = BOUND;
    options
}

/// Opens a session on a world of its own, with a collector of its own.
pub(crate) fn open<W: World, H: HttpClient>(client: fn() -> H, options: Options) -> Session<W> {
    let (world, collector) = (W::new(), Collector::start().expect("a collector"));
    let told = Arc::new(Mutex::new(String::new()));
    let ear = Arc::clone(&told);
    let start = builder(ID, options).on_diagnostic(move |diagnostic| {
        *ear.lock().expect("no panic") += &format!("{diagnostic}\n");
    });
    let Opened { handle, reporter } = world.open(start, transport(&collector, client));
    Session {
        handle,
        reporter: Some(reporter),
        told,
        collector,
        world,
    }
}

pub(crate) fn builder(id: &str, options: Options) -> Builder<(), (), ()> {
    Reporter::builder(id).options(options).enabled(true)
}

pub(crate) fn transport<H: HttpClient>(
    collector: &Collector,
    client: fn() -> H,
) -> HttpTransport<H> {
    let config = Config::new(&collector.url(), "sk-0123456789").expect("a config");
    HttpTransport::new(config, client())
}

impl<W: World> Session<W> {
    pub(crate) fn log(&self, events: usize) {
        for n in 0..events {
            assert!(self.handle.log("x", fields! { n: n }));
        }
    }

    /// From outside of the runtime.
    pub(crate) fn drain(&self) -> Drain {
        let drain = self.handle.wait_until_drained_blocking(BOUND);
        drain.expect("nobody runs an executor here")
    }

    /// Everything logged so far arrives.
    pub(crate) fn deliver(&self) {
        let drain = self.drain();
        assert!(drain.all_delivered(), "{drain:?} {:?}", self.told);
    }

    /// What has arrived; nothing was wrong with it.
    pub(crate) fn kept(&self) -> Arc<SessionRecord> {
        assert_eq!(self.collector.violations(), []);
        self.collector.session(ID).expect("something has come")
    }

    /// Runs `task` on the runtime.
    pub(crate) fn run<R: Send + 'static>(
        &self,
        task: impl Future<Output = R> + Send + 'static,
    ) -> R {
        let (tell, hear) = channel();
        self.world.spawn(Box::pin(async move {
            let _ = tell.send(task.await);
        }));
        hear.recv_timeout(BOUND).expect("the task ends")
    }
}
