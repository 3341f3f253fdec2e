//! Sessions over each client, on each runtime that matters for it.

use alloc::sync::Arc;
use core::any::Any;
use core::time::Duration;
use std::process::Command;
use std::sync::{LazyLock, Mutex};
use std::thread;
use std::time::Instant;
use tinkex_telemetry::http::{HttpClient, Surf};
use tinkex_telemetry::runtime::{AsyncStd, Runtime, Smol};
use tinkex_telemetry::session::SessionId;
use tinkex_telemetry::{
    Config, Drain, Handle, HttpTransport, Options, Reporter, Reqwest, Thread, Tokio, Ureq,
};

/// Longer than anything here takes, shorter than a person waits.
pub(crate) const BOUND: Duration = Duration::from_secs(20);

pub(crate) const KEY: &str = "sk-sentinel-0123456789";

/// A running session.
pub(crate) struct Session {
    pub(crate) handle: Handle,
    reports: Arc<Mutex<String>>,
    _reporter: Box<dyn Any>,
}

impl Session {
    pub(crate) fn drain(&self) -> Drain {
        self.handle
            .wait_until_drained_blocking(BOUND)
            .expect("no executor here")
    }

    /// What was reported, once it contains `text`.
    pub(crate) fn report_of(&self, text: &str) -> String {
        let end = Instant::now() + BOUND;
        loop {
            let reports = self.reports.lock().expect("no panic").clone();
            if reports.contains(text) {
                return reports;
            }
            assert!(Instant::now() < end, "no {text:?} in {reports:?}");
            thread::yield_now();
        }
    }

    /// How many events were rejected.
    pub(crate) fn rejected(&self) -> u64 {
        self.handle.stats().dropped.rejected
    }
}

pub(crate) type Start = fn(&str, Options) -> Session;

pub(crate) const UREQ: [(&str, Start); 3] = [
    ("ureq on a thread", |url, options| {
        start(url, options, Ureq::new(), Thread)
    }),
    ("ureq on tokio", |url, options| {
        start(url, options, Ureq::new(), on_tokio())
    }),
    ("ureq on smol", |url, options| {
        start(url, options, Ureq::new(), Smol)
    }),
];

pub(crate) const REQWEST: [(&str, Start); 4] = [
    ("reqwest on tokio", |url, options| {
        start(url, options, reqwest(), on_tokio())
    }),
    ("reqwest on a thread", |url, options| {
        start(url, options, reqwest(), Thread)
    }),
    ("reqwest on smol", |url, options| {
        start(url, options, reqwest(), Smol)
    }),
    ("reqwest on async-std", |url, options| {
        start(url, options, reqwest(), AsyncStd)
    }),
];

pub(crate) const SURF: [(&str, Start); 3] = [
    ("surf on tokio", |url, options| {
        start(url, options, surf(), on_tokio())
    }),
    ("surf on smol", |url, options| {
        start(url, options, surf(), Smol)
    }),
    ("surf on async-std", |url, options| {
        start(url, options, surf(), AsyncStd)
    }),
];

/// All of them.
pub(crate) fn ways() -> impl Iterator<Item = (&'static str, Start)> {
    UREQ.into_iter().chain(REQWEST).chain(SURF)
}

/// No flush interval, and next to no backoff.
pub(crate) fn options() -> Options {
    Options {
        flush_interval: Duration::ZERO,
        retry_base_delay: Duration::from_millis(1),
        ..Default::default()
    }
}

/// The runtime that outlives every session.
pub(crate) fn tokio() -> &'static tokio::runtime::Handle {
    static RUNTIME: LazyLock<tokio::runtime::Runtime> = LazyLock::new(|| {
        let mut builder = tokio::runtime::Builder::new_multi_thread();
        let runtime = builder.worker_threads(2).enable_all().build();
        runtime.expect("a runtime")
    });
    RUNTIME.handle()
}

fn on_tokio() -> Tokio {
    Tokio::on(tokio().clone())
}

pub(crate) fn reqwest() -> Reqwest {
    Reqwest::on(tokio().clone()).expect("a client")
}

pub(crate) fn surf() -> Surf {
    Surf::new(::surf::Client::new)
}

pub(crate) fn start(
    url: &str,
    options: Options,
    client: impl HttpClient,
    runtime: impl Runtime,
) -> Session {
    let config = Config::new(url, KEY).expect("a config");
    let reports = Arc::new(Mutex::new(String::new()));
    let sink = Arc::clone(&reports);
    let reporter = Reporter::builder(SessionId::random())
        .options(options)
        .enabled(true)
        .transport(HttpTransport::new(config, client))
        .runtime(runtime)
        .on_diagnostic(move |diagnostic| {
            *sink.lock().expect("no panic") += &format!("{diagnostic}\n");
        })
        .start()
        .expect("it starts");
    Session {
        handle: reporter.handle(),
        reports,
        _reporter: Box::new(reporter),
    }
}

const CHILD: &str = "TINKEX_TEST_CHILD";

/// Whether this process is the child that [`child`] has started.
pub(crate) fn is_child() -> bool {
    std::env::var_os(CHILD).is_some()
}

/// Runs this program's test `name` in a process of its own, after `wrapper` and its arguments, if any. Returns what it
/// printed, or fails.
pub(crate) fn child(wrapper: &[&str], name: &str, variables: &[(&str, &str)]) -> String {
    let this = std::env::current_exe().expect("a path");
    let mut command = match wrapper {
        [] => Command::new(&this),
        [program, arguments @ ..] => {
            let mut command = Command::new(program);
            command.args(arguments).arg(&this);
            command
        }
    };
    let output = command
        .args([name, "--exact", "--nocapture"])
        .env(CHILD, "1")
        .envs(variables.iter().copied())
        .output()
        .expect("it runs");
    let printed = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{printed}{errors}");
    printed
}

/// Whether processes can have a network of their own here; says why not.
pub(crate) fn has_namespaces() -> bool {
    let tried = Command::new("unshare")
        .args([
            "--map-root-user",
            "--net",
            "--mount",
            "ip",
            "link",
            "set",
            "lo",
            "up",
        ])
        .output();
    match tried {
        Ok(output) if output.status.success() => true,
        Ok(output) => {
            let why = String::from_utf8_lossy(&output.stderr);
            eprintln!("skipped: no network namespaces here: {why}");
            false
        }
        Err(error) => {
            eprintln!("skipped: no network namespaces here: unshare: {error}");
            false
        }
    }
}
