//! OTLP: sends events as OpenTelemetry log records, to any collector.
//!
//! The engine and its promises stay the same; only what is on the wire differs. A batch is one `POST` of an
//! `ExportLogsServiceRequest`, and each event is one log record:
//!
//! | event | log record |
//! |---|---|
//! | all | `time_unix_nano` and `observed_time_unix_nano`; severity number 5, 9, 13, 17 or 21, and its name as text; body: the event's name; attributes `session.id`, `log.record.uid` (the event's id, by which duplicates are recognized), `tinkex.session.index` |
//! | `SESSION_START`, `SESSION_END` | `event_name` `session.start`, `session.end`; `tinkex.session.duration` in seconds |
//! | `UNHANDLED_EXCEPTION` | `event_name` `exception`; `exception.type`, `exception.message`, `exception.stacktrace` |
//! | `GENERIC_EVENT` | `event_name` is its name; each member of its data is an attribute, nested values included. One that begins with `session.`, `log.record.`, `exception.`, `tinkex.`, `http.`, `url.`, `error.` or `event.` becomes `tinkex.data.…` |
//! | an HTTP request's | also `http.request.method`, `url.path`, `http.response.status_code`, `http.request.resend_count`, `error.type` |
//!
//! Members `trace_id` and `span_id` of the data, in hexadecimal, also become those of the record. Integers beyond
//! `i64` are text, null is an empty value (in JSON it is left out, in arrays, too), a key that an object has twice counts as its last,
//! and what nests deeper than 24 levels is JSON in a text: collectors refuse a whole request for less.
//!
//! The resource has `service.name`, `service.instance.id` (the id of the process), `telemetry.sdk.*`, `os.type`, what
//! [`OtlpConfig`] adds, and the fields of the whole session, once it has sent them.
//!
//! Sources of the format: [the protocol], [its data model of logs], [the names of attributes].
//!
//! [the protocol]: https://opentelemetry.io/docs/specs/otlp/
//! [its data model of logs]: https://opentelemetry.io/docs/specs/otel/logs/data-model/
//! [the names of attributes]: https://opentelemetry.io/docs/specs/semconv/

mod config;
mod event;
mod form;
mod http_request;
mod json;
mod members;
mod protobuf;
mod record;
mod request;
mod response;
mod text;
mod transport;
mod variables;

pub use config::{OtlpConfig, Protocol};
pub use transport::OtlpTransport;
