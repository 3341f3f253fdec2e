//! A session on the runtime under test, and what cases do with it.

use alloc::sync::Arc;
use core::any::Any;
use core::time::Duration;
use std::sync::Mutex;
use std::sync::mpsc::channel;
use tinkex_telemetry::collector::{Collector, SessionRecord};
use tinkex_telemetry::http::HttpClient;
use tinkex_telemetry::session::Builder;
use tinkex_telemetry::{Config, Drain, Handle, HttpTransport, Options, Reporter, fields};
use zoo::runtimes::{Opened, RuntimeUnderTest};

/// Longer than any wait here takes, yet short enough for a person to wait.
pub(crate) const BOUND: Duration = Duration::from_secs(30);

pub(crate) const ID: &str = "s";

pub(crate) struct Session<W> {
    pub(crate) handle: Handle,
    pub(crate) reporter: Option<Box<dyn Any + Send>>,
    pub(crate) diagnostics: Arc<Mutex<String>>,
    pub(crate) collector: Collector,
    pub(crate) runtime: W,
}

/// No flush interval, almost no backoff, and a timeout that even a busy machine does not reach.
pub(crate) fn options() -> Options {
    Options {
        flush_interval: Duration::ZERO,
        retry_base_delay: Duration::from_millis(1),
        http_timeout: BOUND,
        ..Default::default()
    }
}

/// Opens a session on a new runtime, with a new collector.
pub(crate) fn open<W: RuntimeUnderTest, H: HttpClient>(
    client: fn() -> H,
    options: Options,
) -> Session<W> {
    let (runtime, collector) = (W::new(), Collector::start().expect("a collector"));
    let diagnostics = Arc::new(Mutex::new(String::new()));
    let sink = Arc::clone(&diagnostics);
    let start = builder(ID, options).on_diagnostic(move |diagnostic| {
        *sink.lock().expect("no panic") += &format!("{diagnostic}\n");
    });
    let Opened { handle, reporter } = runtime.open(start, transport(&collector, client));
    Session {
        handle,
        reporter: Some(reporter),
        diagnostics,
        collector,
        runtime,
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

impl<W: RuntimeUnderTest> Session<W> {
    pub(crate) fn log(&self, events: usize) {
        for n in 0..events {
            assert!(self.handle.log("x", fields! { n: n }));
        }
    }

    /// Waits outside the runtime.
    pub(crate) fn drain(&self) -> Drain {
        let drain = self.handle.wait_until_drained_blocking(BOUND);
        drain.expect("no executor on this thread")
    }

    /// Checks that everything logged so far arrives.
    pub(crate) fn deliver(&self) {
        let drain = self.drain();
        assert!(drain.all_delivered(), "{drain:?} {:?}", self.diagnostics);
    }

    /// The received session, after checking that the collector saw no violation.
    pub(crate) fn kept(&self) -> Arc<SessionRecord> {
        assert_eq!(self.collector.violations(), []);
        self.collector.session(ID).expect("events have arrived")
    }

    /// Runs `task` on the runtime.
    pub(crate) fn run<R: Send + 'static>(
        &self,
        task: impl Future<Output = R> + Send + 'static,
    ) -> R {
        let (sender, receiver) = channel();
        self.runtime.spawn(Box::pin(async move {
            let _ = sender.send(task.await);
        }));
        receiver.recv_timeout(BOUND).expect("the task ends")
    }
}
