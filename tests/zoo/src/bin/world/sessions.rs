//! Sessions of every runtime with every client, and whether the ledger of each is exact.

use crate::report::{Checked, ensure};
use alloc::sync::Arc;
use core::any::Any;
use core::fmt;
use core::time::Duration;
use std::collections::HashSet;
use std::sync::{Mutex, PoisonError};
use tinkex_telemetry::collector::Collector;
use tinkex_telemetry::http::{HttpClient, Surf};
use tinkex_telemetry::{
    Config, Handle, HttpTransport, Options, Reporter, Reqwest, Stats, Ureq, fields,
};
use zoo::runtimes::{
    AnyBlockOn, AsyncStdGlobal, OnEmbassy, OnThreads, Opened, RuntimeUnderTest, SmolGlobal,
    SmolLocal, Start, TokioCurrentThread, TokioLocalSet, TokioMultiThread,
};

/// Longer than any session takes here.
const BOUND: Duration = Duration::from_secs(40);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Http {
    Ureq,
    Reqwest,
    Surf,
}

/// How the clients are made.
pub(crate) struct Clients {
    pub(crate) ureq: Box<dyn Fn() -> Ureq + Sync>,
    pub(crate) reqwest: Box<dyn Fn() -> Reqwest + Sync>,
    pub(crate) surf: Box<dyn Fn() -> Surf + Sync>,
}

impl Default for Clients {
    fn default() -> Self {
        Self {
            ureq: Box::new(Ureq::new),
            reqwest: Box::new(|| Reqwest::new().expect("a client")),
            surf: Box::new(|| Surf::new(surf::Client::new)),
        }
    }
}

/// A runtime with a client.
pub(crate) struct Pair {
    pub(crate) name: &'static str,
    pub(crate) http: Http,
    open: fn(&Clients, Start, Config) -> Running,
}

macro_rules! pairs {
    ($($name:literal: $runtime:ident, $http:ident, $client:ident;)*) => {
        &[$(Pair {
            name: $name,
            http: Http::$http,
            open: |clients, start, config| {
                open::<$runtime, _>(start, HttpTransport::new(config, (clients.$client)()))
            },
        }),*]
    };
}

pub(crate) const PAIRS: &[Pair] = pairs! {
    "thread-ureq": OnThreads, Ureq, ureq;
    "tokio-reqwest": TokioMultiThread, Reqwest, reqwest;
    "tokio-surf": TokioMultiThread, Surf, surf;
    "tokio-ureq": TokioMultiThread, Ureq, ureq;
    "tokio-current-reqwest": TokioCurrentThread, Reqwest, reqwest;
    "tokio-current-ureq": TokioCurrentThread, Ureq, ureq;
    "tokio-local-reqwest": TokioLocalSet, Reqwest, reqwest;
    "smol-surf": SmolGlobal, Surf, surf;
    "smol-ureq": SmolGlobal, Ureq, ureq;
    "smol-local-surf": SmolLocal, Surf, surf;
    "async-std-surf": AsyncStdGlobal, Surf, surf;
    "async-std-ureq": AsyncStdGlobal, Ureq, ureq;
    "embassy-surf": OnEmbassy, Surf, surf;
    "embassy-ureq": OnEmbassy, Ureq, ureq;
    "block-on-ureq": AnyBlockOn, Ureq, ureq;
};

/// The pair with which a client is tried where the runtime does not matter.
pub(crate) fn pair_of(http: Http) -> &'static Pair {
    let pair = PAIRS.iter().find(|pair| pair.http == http);
    pair.expect("each client has a pair")
}

fn open<W: RuntimeUnderTest, H: HttpClient>(start: Start, over: HttpTransport<H>) -> Running {
    let runtime = W::new();
    let Opened { handle, reporter } = runtime.open(start, over);
    Running {
        handle,
        _reporter: reporter,
        _runtime: Box::new(runtime),
    }
}

struct Running {
    handle: Handle,
    _reporter: Box<dyn Any + Send>,
    // Ends after the session.
    _runtime: Box<dyn Any>,
}

/// A session that is to be run.
pub(crate) struct Plan {
    pub(crate) id: String,
    pub(crate) url: String,
    pub(crate) options: Options,
}

impl Plan {
    /// Short delays: some sessions here must fail a few times.
    pub(crate) fn new(id: String, url: String) -> Self {
        let options = Options {
            retry_base_delay: Duration::from_millis(300),
            ..Default::default()
        };
        Self { id, url, options }
    }

    /// Runs the session: `work` logs, then everything is waited for and the session ends.
    pub(crate) fn run(self, pair: &Pair, clients: &Clients, work: impl FnOnce(&Handle)) -> Outcome {
        let reasons = Arc::new(Mutex::new(Vec::new()));
        let sink = Arc::clone(&reasons);
        let start = Reporter::builder(self.id.as_str())
            .options(self.options)
            .enabled(true)
            .on_diagnostic(move |diagnostic| {
                let mut reasons = sink.lock().unwrap_or_else(PoisonError::into_inner);
                reasons.push(diagnostic.to_string());
            });
        let config = Config::new(&self.url, "sk-world-0123456789")
            .and_then(|config| config.header("x-session", &self.id))
            .expect("a config");
        let running = (pair.open)(clients, start, config);
        work(&running.handle);
        let drain = running.handle.wait_until_drained_blocking(BOUND);
        let _ = drain.expect("not an executor's thread");
        let stop = running.handle.stop_blocking(BOUND);
        let _ = stop.expect("not an executor's thread");
        let stats = running.handle.stats();
        drop(running);
        let reasons = core::mem::take(&mut *reasons.lock().unwrap_or_else(PoisonError::into_inner));
        Outcome {
            id: self.id,
            pair: pair.name,
            stats,
            reasons,
        }
    }
}

/// A session that has ended.
pub(crate) struct Outcome {
    pub(crate) id: String,
    pub(crate) pair: &'static str,
    pub(crate) stats: Stats,
    /// Its diagnostics.
    pub(crate) reasons: Vec<String>,
}

impl Outcome {
    /// Checks the ledger: it balances, nothing is queued, and the collector has what was delivered.
    pub(crate) fn is_exact(&self, collector: &Collector) -> Result<(), String> {
        let stats = &self.stats;
        let settled = stats.delivered + stats.handed_over + stats.dropped.total();
        ensure(
            stats.accepted == settled && stats.queued == 0,
            format_args!("{}: the ledger does not balance: {stats:?}", self.pair),
        )?;
        let record = collector.session(&self.id);
        let events = record.as_ref().map_or(&[][..], |record| record.events());
        let kept = events.len() as u64;
        // A batch whose every response was lost counts as dropped, though the backend has it.
        let most = stats.delivered + stats.dropped.retries_exhausted + stats.dropped.shutdown;
        ensure(
            (stats.delivered..=most).contains(&kept),
            format_args!("{}: the collector has {kept} events, {self}", self.pair),
        )?;
        let ids: HashSet<_> = events.iter().map(|event| event.id()).collect();
        ensure(
            ids.len() as u64 == kept,
            format_args!("{}: two events have one id", self.pair),
        )
    }

    /// Checks that the ledger is exact and that everything was delivered, in order and without gaps.
    pub(crate) fn lost_nothing(&self, collector: &Collector) -> Result<(), String> {
        self.is_exact(collector)?;
        let stats = &self.stats;
        ensure(
            stats.delivered == stats.accepted && stats.refused.total() == 0,
            format_args!("{}: lost events, {self}", self.pair),
        )?;
        let record = collector.session(&self.id).ok_or("nothing came")?;
        ensure(
            record.gaps().is_empty() && record.has_ended(),
            format_args!("{}: gaps {:?}", self.pair, record.gaps()),
        )
    }

    /// Checks that, besides, nothing was sent twice.
    pub(crate) fn delivered_once(&self, collector: &Collector) -> Result<(), String> {
        self.lost_nothing(collector)?;
        let record = collector.session(&self.id).ok_or("nothing came")?;
        ensure(
            record.duplicates() == 0,
            format_args!("{}: {} duplicates", self.pair, record.duplicates()),
        )
    }
}

/// What became of its events, and why.
impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Stats {
            accepted,
            delivered,
            dropped,
            ..
        } = self.stats;
        let reasons = &self.reasons;
        write!(
            f,
            "{accepted} accepted, {delivered} delivered, {dropped:?}: {reasons:?}"
        )
    }
}

/// Logs `count` events with a text of `bytes` each.
pub(crate) fn log(handle: &Handle, count: usize, bytes: usize) {
    let text = "x".repeat(bytes);
    for n in 0..count {
        // Whether it was accepted is in the ledger.
        let _ = handle.log("world.event", fields! { n: n, text: text.as_str() });
    }
}

/// Checks each of these clients; the problem of one does not hide that of another.
pub(crate) fn each_of(clients: &[Http], check: impl Fn(Http) -> Checked) -> Checked {
    let (mut seen, mut problems) = (Vec::new(), Vec::new());
    for http in clients {
        match check(*http) {
            Ok(text) => seen.push(format!("{http:?} {text}")),
            Err(text) => problems.push(format!("{http:?}: {text}")),
        }
    }
    ensure(problems.is_empty(), problems.join("; "))?;
    Ok(seen.join(", "))
}

/// Runs a session for each of these, all at once.
pub(crate) fn on_each<T: Send>(
    each: impl IntoIterator<Item = T>,
    run: impl Fn(T) -> Outcome + Sync,
) -> Vec<Outcome> {
    std::thread::scope(|scope| {
        let run = &run;
        let threads: Vec<_> = each
            .into_iter()
            .map(|one| scope.spawn(move || run(one)))
            .collect();
        let outcomes = threads.into_iter().map(|thread| thread.join());
        outcomes.map(|outcome| outcome.expect("no panic")).collect()
    })
}
