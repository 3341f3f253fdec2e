//! A simulated collector: what it answers, and whether that arrives, is drawn from a seed.

use alloc::sync::Arc;
use core::future::pending;
use core::time::Duration;
use opentelemetry_proto::tonic::collector::logs::v1::{
    ExportLogsPartialSuccess, ExportLogsServiceRequest, ExportLogsServiceResponse,
};
use opentelemetry_proto::tonic::common::v1::{KeyValue, any_value::Value as Any};
use opentelemetry_proto::tonic::logs::v1::LogRecord;
use otlp::lock;
use prost::Message as _;
use std::sync::Mutex;
use tinkex_telemetry::http::bytes::Bytes;
use tinkex_telemetry::http::http::{Request, Response};
use tinkex_telemetry::http::{HttpClient, HttpError};
use tinkex_telemetry::otlp::Protocol;
use tinkex_telemetry::runtime::Clock as _;
use tinkex_telemetry::sim::SimClock;
use tinkex_telemetry::time::Instant;
use tinkex_telemetry::transport::SendError;
use tinkex_telemetry::{Batch, Receipt, Transport};

/// The default: no pause that a response asks for is longer.
const RETRY_MAX_DELAY: Duration = Duration::from_secs(60);

/// SplitMix64.
#[derive(Clone)]
pub(crate) struct Rng(u64);

impl Rng {
    pub(crate) const fn new(seed: u64) -> Self {
        Self(seed)
    }

    const fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut value = self.0;
        value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        value ^ (value >> 31)
    }

    pub(crate) fn below(&mut self, bound: usize) -> usize {
        let bound = bound as u64;
        usize::try_from(self.next() % bound).expect("less than the bound")
    }

    pub(crate) fn bytes(&mut self) -> [u8; 32] {
        let mut bytes = [0; 32];
        for part in bytes.chunks_exact_mut(8) {
            part.copy_from_slice(&self.next().to_le_bytes());
        }
        bytes
    }
}

/// What the client was told of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// It has the records, but for so many.
    Taken {
        rejected: usize,
    },
    /// A status that the protocol forbids to retry.
    Forbidden,
    /// A record is invalid.
    Invalid,
    TooLarge,
    /// A status that the protocol retries.
    Retryable,
    /// No response has arrived.
    Silent,
}

impl Outcome {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Taken { rejected: 0 } => "taken",
            Self::Taken { .. } => "taken in part",
            Self::Forbidden => "forbidden",
            Self::Invalid => "invalid",
            Self::TooLarge => "too large",
            Self::Retryable => "retryable",
            Self::Silent => "no response",
        }
    }
}

/// A run of indices in a loss report.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Lost {
    pub(crate) first: u64,
    pub(crate) last: u64,
    pub(crate) count: Option<u64>,
}

#[derive(Clone, Debug)]
pub(crate) struct Record {
    pub(crate) id: String,
    pub(crate) index: u64,
    pub(crate) name: String,
    /// What a loss report lists.
    pub(crate) lost: Option<Vec<Lost>>,
    word: String,
}

impl Record {
    /// Whether the collector finds it invalid.
    pub(crate) fn is_poison(&self) -> bool {
        self.word.starts_with("poison")
    }

    /// Whether the collector takes it in no request.
    pub(crate) fn is_large(&self) -> bool {
        self.word.starts_with("large")
    }

    fn of(record: &LogRecord) -> Self {
        let text = |name| match value(&record.attributes, name) {
            Some(Any::StringValue(text)) => text.clone(),
            _ => String::new(),
        };
        let is_report = record.event_name == "tinkex.telemetry.report";
        Self {
            id: text("log.record.uid"),
            index: integer(&record.attributes, "tinkex.session.index").expect("an index"),
            name: record.event_name.clone(),
            lost: is_report.then(|| lost(&record.attributes)),
            word: text("word"),
        }
    }
}

fn value<'a>(entries: &'a [KeyValue], name: &str) -> Option<&'a Any> {
    let entry = entries.iter().find(|entry| entry.key == name)?;
    entry.value.as_ref()?.value.as_ref()
}

fn integer(entries: &[KeyValue], name: &str) -> Option<u64> {
    match value(entries, name)? {
        Any::IntValue(value) => u64::try_from(*value).ok(),
        _ => None,
    }
}

fn lost(report: &[KeyValue]) -> Vec<Lost> {
    let Some(Any::ArrayValue(list)) = value(report, "lost") else {
        panic!("a report without a list: {report:?}");
    };
    let runs = list.values.iter().map(|run| match &run.value {
        Some(Any::KvlistValue(run)) => Lost {
            first: integer(&run.values, "first").expect("the first index"),
            last: integer(&run.values, "last").expect("the last index"),
            count: integer(&run.values, "count"),
        },
        _ => panic!("not a run: {run:?}"),
    });
    runs.collect()
}

/// One request, and what became of it.
#[derive(Clone, Debug)]
pub(crate) struct Exchange {
    pub(crate) at: Instant,
    /// Until when the response asks to wait.
    pub(crate) not_before: Option<Instant>,
    pub(crate) body: Bytes,
    pub(crate) records: Vec<Record>,
    pub(crate) outcome: Outcome,
}

/// The collector, and the network before it.
#[derive(Clone)]
pub(crate) struct Collector {
    clock: SimClock,
    protocol: Protocol,
    state: Arc<Mutex<State>>,
}

struct State {
    rng: Rng,
    is_healed: bool,
    /// The most records in a request.
    limit: usize,
    /// One request in so many is answered as it should be.
    calm: usize,
    exchanges: Vec<Exchange>,
}

/// How a request will go.
struct Plan {
    outcome: Outcome,
    status: u16,
    body: Bytes,
    retry_after: Option<u64>,
}

impl Collector {
    pub(crate) fn new(rng: &mut Rng, clock: SimClock, protocol: Protocol) -> Self {
        let state = State {
            rng: Rng::new(rng.next()),
            is_healed: false,
            limit: [1, 3, 10, 1_000, 1_000][rng.below(5)],
            calm: 8 + rng.below(40),
            exchanges: Vec::new(),
        };
        Self {
            clock,
            protocol,
            state: Arc::new(Mutex::new(state)),
        }
    }

    /// From now on it takes whatever it can take, and the network works.
    pub(crate) fn heal(&self) {
        lock(&self.state).is_healed = true;
    }

    pub(crate) fn exchanges(&self) -> Vec<Exchange> {
        lock(&self.state).exchanges.clone()
    }

    /// A word to log.
    pub(crate) fn word(&self, rng: &mut Rng) -> String {
        match rng.below(300) {
            0 => "poison".to_owned(),
            1 => format!("large {}", "x".repeat(1_000)),
            word => format!("word {word}"),
        }
    }

    fn records(&self, body: &[u8]) -> Vec<Record> {
        let request = match self.protocol {
            Protocol::HttpJson => serde_json::from_slice(body).expect("JSON of a request"),
            _ => ExportLogsServiceRequest::decode(body).expect("a request"),
        };
        let logs = request.resource_logs.iter().flat_map(|it| &it.scope_logs);
        logs.flat_map(|it| &it.log_records)
            .map(Record::of)
            .collect()
    }

    /// What the body of a response says of records that were rejected.
    fn partial(&self, rejected: i64) -> Bytes {
        let response = ExportLogsServiceResponse {
            partial_success: Some(ExportLogsPartialSuccess {
                rejected_log_records: rejected,
                error_message: "too old".to_owned(),
            }),
        };
        match self.protocol {
            Protocol::HttpJson => {
                let text = format!(r#"{{"partialSuccess":{{"rejectedLogRecords":"{rejected}"}}}}"#);
                text.into()
            }
            _ => response.encode_to_vec().into(),
        }
    }

    fn plan(&self, state: &mut State, records: &[Record]) -> Plan {
        let plan = |outcome, status, body: Bytes| Plan {
            outcome,
            status,
            body,
            retry_after: None,
        };
        let none = Bytes::new();
        let rng = &mut state.rng;
        let is_healed = state.is_healed;
        let draw = if is_healed {
            usize::MAX
        } else {
            rng.below(state.calm)
        };
        match draw {
            // The connection fails, before or after the collector has the request.
            0 => return plan(Outcome::Silent, 0, none),
            1 => return plan(Outcome::Silent, 1, none),
            2 => {
                let statuses = [500, 501, 401, 403, 404, 408, 301];
                return plan(Outcome::Forbidden, statuses[rng.below(7)], none);
            }
            3 | 4 => {
                let mut plan = plan(Outcome::Retryable, [429, 502, 503, 504][rng.below(4)], none);
                plan.retry_after = (rng.below(2) == 0).then(|| rng.below(120) as u64);
                return plan;
            }
            _ => {}
        }
        let is_too_large = records.len() > state.limit || records.iter().any(Record::is_large);
        if is_too_large || (draw == 5 && records.len() > 1) {
            return match rng.below(3) {
                0 => plan(Outcome::TooLarge, 413, none),
                1 => plan(Outcome::TooLarge, 400, "Request body too large".into()),
                _ => plan(
                    Outcome::TooLarge,
                    400,
                    Bytes::from_static(b"\x12\x11message too large"),
                ),
            };
        }
        if records.iter().any(Record::is_poison) {
            return plan(Outcome::Invalid, [400, 422][rng.below(2)], none);
        }
        if let 6 | 7 = draw {
            let claimed = rng.below(records.len() + 3);
            let rejected = claimed.min(records.len());
            let body = self.partial(i64::try_from(claimed).expect("few"));
            return plan(Outcome::Taken { rejected }, 200, body);
        }
        let body = match rng.below(4) {
            0 => self.partial(0),
            1 => self.partial(-7),
            2 => "not a response".into(),
            _ => none,
        };
        plan(
            Outcome::Taken { rejected: 0 },
            [200, 202, 204][rng.below(3)],
            body,
        )
    }

    async fn wait(&self, millis: usize) {
        let at = self
            .clock
            .now()
            .checked_add(Duration::from_millis(millis as u64));
        self.clock.sleep_until(at.expect("soon")).await;
    }
}

impl HttpClient for Collector {
    async fn send(&mut self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let body = request.into_body();
        let records = self.records(&body);
        let (plan, at, latency, stalls) = {
            let mut state = lock(&self.state);
            let plan = self.plan(&mut state, &records);
            let latency = state.rng.below(500);
            let stalls = state.rng.below(2) == 0;
            let at = state.exchanges.len();
            state.exchanges.push(Exchange {
                at: self.clock.now(),
                not_before: None,
                body,
                records,
                outcome: Outcome::Silent,
            });
            (plan, at, latency, stalls)
        };
        self.wait(latency).await;
        if plan.outcome == Outcome::Silent {
            if stalls {
                return pending().await;
            }
            return Err(HttpError::new("connection reset"));
        }
        let now = self.clock.now();
        let mut response = Response::builder().status(plan.status);
        let exchange = &mut lock(&self.state).exchanges[at];
        exchange.outcome = plan.outcome;
        if let Some(seconds) = plan.retry_after {
            response = response.header("retry-after", seconds);
            let pause = Duration::from_secs(seconds).min(RETRY_MAX_DELAY);
            exchange.not_before = now.checked_add(pause);
        }
        response.body(plan.body).map_err(HttpError::new)
    }
}

/// A transport that keeps the indices of the batches that it passes on.
pub(crate) struct Watch<T> {
    pub(crate) inner: T,
    pub(crate) batches: Arc<Mutex<Vec<Vec<u64>>>>,
}

impl<T: Transport> Transport for Watch<T> {
    async fn send(&mut self, batch: Batch<'_>) -> Result<Receipt, SendError> {
        lock(&self.batches).push(batch.indices().collect());
        self.inner.send(batch).await
    }
}
