//! Those that are compared: each logs the same event, and sends it as a log record in protobuf, not compressed.
//!
//! A record of this crate has the session's id, an id and an index of its own, by which a consumer finds duplicates and
//! gaps. So have those of the others, with an id that costs little; and once they have not.

use benches::ours::{BOUND, Session};
use core::error::Error;
use core::hint::black_box;
use emit_otlp::logs_http_proto;
use opentelemetry::logs::{AnyValue, LogRecord as _, Logger as _, LoggerProvider as _, Severity};
use opentelemetry_otlp::{LogExporter, Protocol, WithExportConfig as _};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::logs::{
    BatchConfigBuilder, BatchLogProcessor, SdkLogger, SdkLoggerProvider,
};
use std::time::SystemTime;
use tinkex_telemetry::http::HttpClient;
use tinkex_telemetry::otlp::{OtlpConfig, OtlpTransport};
use tinkex_telemetry::{Reporter, Thread, Ureq, fields};

pub(crate) type Outcome<T> = Result<T, Box<dyn Error>>;

/// The event's data; its name is `sampling.done`.
#[inline]
fn data() -> (i64, bool, &'static str) {
    black_box((1_234_567, true, "a model with 25 letters.."))
}

const SESSION: &str = "otlp-bench-session";

/// An id in the form of a UUID, cheaper than a random one.
fn cheap_id(index: u64) -> String {
    format!("4c9e6f3a-0000-4000-8000-{index:012x}")
}

/// A client that logs and sends.
pub(crate) trait Contestant {
    /// Logs this many events as fast as it can.
    fn log(&mut self, events: u64);

    /// Returns when all are sent.
    fn flush(&mut self) -> Outcome<()>;

    /// What it sends besides.
    fn extra_records(&self) -> u64 {
        0
    }
}

/// This crate.
pub(crate) struct Ours<H: HttpClient>(Session<OtlpTransport<H>>);

impl Ours<Ureq> {
    pub(crate) fn start(url: &str, batch: usize) -> Outcome<Self> {
        Self::over(Ureq::new(), url, batch)
    }
}

impl<H: HttpClient> Ours<H> {
    pub(crate) fn over(client: H, url: &str, batch: usize) -> Outcome<Self> {
        let config = OtlpConfig::new(url)?.service_name("bench");
        let session = Reporter::builder(format!("{SESSION}-{batch}"))
            .transport(OtlpTransport::new(config, client))
            .runtime(Thread)
            .enabled(true)
            .max_batch_size(batch)
            .flush_threshold(batch)
            .start()?;
        Ok(Self(session))
    }
}

impl<H: HttpClient> Contestant for Ours<H> {
    fn log(&mut self, events: u64) {
        for _ in 0..events {
            let (tokens, cached, model) = data();
            let data = fields! { tokens: tokens, cached: cached, model: model };
            assert!(self.0.log("sampling.done", data));
        }
    }

    fn flush(&mut self) -> Outcome<()> {
        let drain = self.0.wait_until_drained_blocking(BOUND)?;
        let is_safe = drain.all_safe();
        is_safe.then_some(()).ok_or("events are missing".into())
    }

    fn extra_records(&self) -> u64 {
        // `SESSION_START`.
        1
    }
}

/// `opentelemetry-otlp`, over `opentelemetry_sdk`.
pub(crate) struct OpenTelemetry {
    provider: SdkLoggerProvider,
    logger: SdkLogger,
    /// Of the next event; `None` if events have neither ids nor indices.
    next: Option<u64>,
}

impl OpenTelemetry {
    /// In batches of the default size, unless another one is given.
    pub(crate) fn start(url: &str, batch: Option<usize>, has_ids: bool) -> Outcome<Self> {
        let exporter = LogExporter::builder()
            .with_http()
            .with_protocol(Protocol::HttpBinary)
            .with_endpoint(format!("{url}/v1/logs"))
            .build()?;
        let config = BatchConfigBuilder::default();
        let config = match batch {
            Some(batch) => config.with_max_export_batch_size(batch),
            None => config,
        };
        let processor = BatchLogProcessor::builder(exporter).with_batch_config(config.build());
        let provider = SdkLoggerProvider::builder()
            .with_resource(Resource::builder().with_service_name("bench").build())
            .with_log_processor(processor.build())
            .build();
        let logger = provider.logger("bench");
        Ok(Self {
            provider,
            logger,
            next: has_ids.then_some(0),
        })
    }
}

impl Contestant for OpenTelemetry {
    fn log(&mut self, events: u64) {
        for _ in 0..events {
            let (tokens, cached, model) = data();
            let mut record = self.logger.create_log_record();
            record.set_event_name("sampling.done");
            record.set_timestamp(SystemTime::now());
            record.set_severity_number(Severity::Info);
            record.set_severity_text("INFO");
            record.set_body(AnyValue::from("sampling.done"));
            record.add_attribute("tokens", tokens);
            record.add_attribute("cached", cached);
            record.add_attribute("model", model);
            if let Some(next) = &mut self.next {
                record.add_attribute("session.id", SESSION);
                record.add_attribute("log.record.uid", cheap_id(*next));
                record.add_attribute("tinkex.session.index", *next as i64);
                *next += 1;
            }
            self.logger.emit(record);
        }
    }

    fn flush(&mut self) -> Outcome<()> {
        Ok(self.provider.force_flush()?)
    }
}

/// `emit_otlp`. It sends what has gathered in one request, and knows no other size of a batch. There is one in a process.
pub(crate) struct Emit {
    next: u64,
}

impl Emit {
    pub(crate) fn start(url: &str) -> Self {
        let logs = logs_http_proto(format!("{url}/v1/logs"));
        let otlp = emit_otlp::new()
            .resource(emit::props! { #[emit::key("service.name")] service_name: "bench" })
            .logs(logs);
        let _ = emit::setup().emit_to(otlp.spawn()).init();
        Self { next: 0 }
    }
}

impl Contestant for Emit {
    fn log(&mut self, events: u64) {
        for _ in 0..events {
            let (tokens, cached, model) = data();
            let (index, uid) = (self.next, cheap_id(self.next));
            emit::info!(
                "sampling.done",
                tokens,
                cached,
                model,
                #[emit::key("session.id")] session: SESSION,
                #[emit::key("log.record.uid")] uid: &*uid,
                #[emit::key("tinkex.session.index")] index,
            );
            self.next += 1;
        }
    }

    fn flush(&mut self) -> Outcome<()> {
        let is_complete = emit::blocking_flush(BOUND);
        is_complete.then_some(()).ok_or("events are missing".into())
    }
}
