//! Whatever a program logs becomes what an independent mapping of the event's JSON says, in both encodings, as
//! OpenTelemetry's own types read them.

extern crate alloc;

use alloc::sync::Arc;
use arbtest::arbitrary::{Result, Unstructured};
use arbtest::arbtest;
use core::time::Duration;
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::common::v1::{
    AnyValue, ArrayValue, InstrumentationScope, KeyValue, KeyValueList, any_value::Value as Any,
};
use opentelemetry_proto::tonic::logs::v1::LogRecord;
use opentelemetry_proto::tonic::resource::v1::Resource;
use otlp::{Collector, Tee, lock};
use prost::Message as _;
use serde_json::{Map, Value, json};
use tinkex_telemetry::otlp::{OtlpConfig, OtlpTransport, Protocol};
use tinkex_telemetry::{Reporter, Severity, Thread};

/// What was sent in a session: the events' JSON, and the requests.
struct Sent {
    bodies: Vec<Value>,
    requests: Vec<Vec<u8>>,
}

fn send(protocol: Protocol, log: impl FnOnce(&tinkex_telemetry::Handle)) -> Sent {
    let collector = Collector::default();
    let config = OtlpConfig::new("http://127.0.0.1:4318").expect("a valid URL");
    let config = config.service_name("the tests").protocol(protocol);
    let bodies = Arc::default();
    let transport = Tee {
        inner: OtlpTransport::new(config, collector.clone()),
        bodies: Arc::clone(&bodies),
    };
    let builder = Reporter::builder("session-\"1\"").transport(transport);
    let reporter = builder.enabled(true).runtime(Thread).start();
    let reporter = reporter.expect("the session starts");
    log(&reporter);
    let drain = reporter.stop_blocking(Duration::from_secs(60));
    let drain = drain.expect("no executor waits here");
    assert_eq!(drain.dropped, 0, "{drain:?}");
    let bodies = lock(&bodies);
    Sent {
        bodies: bodies
            .iter()
            .map(|body| serde_json::from_slice(body).expect("JSON"))
            .collect(),
        requests: collector
            .requests()
            .iter()
            .map(|request| request.body().to_vec())
            .collect(),
    }
}

// The independent mapping: from a tree, and into the types.

fn key_value(key: &str, value: Any) -> KeyValue {
    let value = Some(AnyValue { value: Some(value) });
    KeyValue {
        key: key.to_owned(),
        value,
        ..KeyValue::default()
    }
}

fn text(value: &Value) -> Any {
    Any::StringValue(value.as_str().expect("a text").to_owned())
}

/// `level` counts the objects and arrays around it.
fn any(value: &Value, level: usize, has_null: bool) -> Option<Any> {
    Some(match value {
        Value::Null => return None,
        Value::Bool(value) => Any::BoolValue(*value),
        Value::Number(number) => match (number.as_i64(), number.as_u64()) {
            (Some(value), _) => Any::IntValue(value),
            (None, Some(value)) => Any::StringValue(value.to_string()),
            _ => Any::DoubleValue(number.as_f64().expect("a number")),
        },
        Value::String(value) => Any::StringValue(value.clone()),
        Value::Array(_) | Value::Object(_) if level == 24 => Any::StringValue(value.to_string()),
        Value::Array(values) => {
            let values = values
                .iter()
                .filter(|value| has_null || !value.is_null())
                .map(|value| AnyValue {
                    value: any(value, level + 1, has_null),
                });
            Any::ArrayValue(ArrayValue {
                values: values.collect(),
            })
        }
        Value::Object(members) => Any::KvlistValue(KeyValueList {
            values: attributes(members, level + 1, has_null),
        }),
    })
}

fn attributes(members: &Map<String, Value>, level: usize, has_null: bool) -> Vec<KeyValue> {
    let members = members
        .iter()
        .filter(|(_, value)| has_null || !value.is_null());
    let attribute = |(key, value): (&String, &Value)| {
        let value = Some(AnyValue {
            value: any(value, level, has_null),
        });
        KeyValue {
            key: key.clone(),
            value,
            ..KeyValue::default()
        }
    };
    members.map(attribute).collect()
}

fn record(event: &Value, session: &str, has_null: bool) -> LogRecord {
    let severity = event["severity"].as_str().expect("a severity");
    let number = match severity {
        "DEBUG" => 5,
        "INFO" => 9,
        "WARNING" => 13,
        "ERROR" => 17,
        "CRITICAL" => 21,
        other => panic!("no severity: {other}"),
    };
    let kind = event["event"].as_str().expect("a kind");
    let name = match kind {
        "SESSION_START" => "session.start",
        "SESSION_END" => "session.end",
        "UNHANDLED_EXCEPTION" => "exception",
        _ => event["event_name"].as_str().expect("a name"),
    };
    let mut all = vec![
        key_value("session.id", Any::StringValue(session.to_owned())),
        key_value("log.record.uid", text(&event["event_id"])),
        key_value(
            "tinkex.session.index",
            Any::IntValue(event["event_session_index"].as_i64().expect("an index")),
        ),
    ];
    if let Some(duration) = event.get("duration") {
        let parts = duration
            .as_str()
            .expect("a duration")
            .rsplit(':')
            .zip([1.0, 60.0, 3600.0]);
        let seconds = parts
            .map(|(part, unit)| part.parse::<f64>().expect("a number") * unit)
            .sum();
        all.push(key_value(
            "tinkex.session.duration",
            Any::DoubleValue(seconds),
        ));
    }
    for (member, name) in [
        ("error_type", "exception.type"),
        ("error_message", "exception.message"),
        ("traceback", "exception.stacktrace"),
    ] {
        if let Some(value) = event.get(member) {
            all.push(key_value(name, text(value)));
        }
    }
    if let Some(Value::Object(data)) = event.get("event_data") {
        for mut attribute in attributes(data, 1, has_null) {
            let own = [
                "session.",
                "log.record.",
                "exception.",
                "tinkex.",
                "http.",
                "url.",
                "error.",
                "event.",
            ];
            if own.iter().any(|own| attribute.key.starts_with(own)) {
                attribute.key.insert_str(0, "tinkex.data.");
            }
            all.push(attribute);
        }
    }
    let time = nanos(event["timestamp"].as_str().expect("a timestamp"));
    LogRecord {
        time_unix_nano: time,
        observed_time_unix_nano: time,
        severity_number: number,
        severity_text: severity.to_owned(),
        body: Some(AnyValue {
            value: Some(Any::StringValue(name.to_owned())),
        }),
        attributes: all,
        event_name: name.to_owned(),
        ..LogRecord::default()
    }
}

/// By counting days.
fn nanos(timestamp: &str) -> u64 {
    let number = |range| {
        timestamp
            .get(range)
            .and_then(|digits: &str| digits.parse::<u64>().ok())
            .expect("digits")
    };
    let is_leap = |year: u64| {
        year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400))
    };
    let (year, month) = (number(0..4), number(5..7));
    let years: u64 = (1970..year)
        .map(|year| if is_leap(year) { 366 } else { 365 })
        .sum();
    let february = if is_leap(year) { 29 } else { 28 };
    let months = [31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    let months: u64 = months.iter().take(month as usize - 1).sum();
    let days = years + months + number(8..10) - 1;
    let seconds = ((days * 24 + number(11..13)) * 60 + number(14..16)) * 60 + number(17..19);
    (seconds * 1_000_000 + number(20..26)) * 1_000
}

fn resource(body: &Value, context: Option<&Value>, has_null: bool) -> Resource {
    let os = match body["platform"].as_str().expect("a platform") {
        "unix/linux" => "linux",
        "unix/macos" => "darwin",
        "windows/nt" => "windows",
        other => panic!("a platform that this test does not know: {other}"),
    };
    let plain = |key: &str, value: &str| key_value(key, Any::StringValue(value.to_owned()));
    let mut all = vec![
        plain("service.name", "the tests"),
        plain("telemetry.sdk.name", "tinkex-telemetry"),
        plain("telemetry.sdk.language", "rust"),
        key_value("telemetry.sdk.version", text(&body["sdk_version"])),
        key_value("service.instance.id", text(&body["process_uuid"])),
        plain("os.type", os),
    ];
    if let Some(Value::Object(context)) = context {
        all.extend(attributes(context, 1, has_null));
    }
    Resource {
        attributes: all,
        ..Resource::default()
    }
}

fn sorted(mut request: ExportLogsServiceRequest) -> ExportLogsServiceRequest {
    for logs in &mut request.resource_logs {
        if let Some(resource) = &mut logs.resource {
            sort(&mut resource.attributes);
        }
        for record in logs
            .scope_logs
            .iter_mut()
            .flat_map(|scope| &mut scope.log_records)
        {
            sort(&mut record.attributes);
        }
    }
    request
}

fn sort(attributes: &mut [KeyValue]) {
    attributes.sort_by(|one, other| one.key.cmp(&other.key));
    for attribute in attributes {
        sort_inside(attribute.value.as_mut());
    }
}

fn sort_inside(value: Option<&mut AnyValue>) {
    match value.and_then(|value| value.value.as_mut()) {
        Some(Any::KvlistValue(list)) => sort(&mut list.values),
        Some(Any::ArrayValue(array)) => {
            array
                .values
                .iter_mut()
                .for_each(|value| sort_inside(Some(value)));
        }
        _ => {}
    }
}

/// The requests are what the independent mapping makes of the events.
fn check(sent: &Sent, protocol: Protocol) {
    let has_null = protocol == Protocol::HttpProtobuf;
    assert_eq!(sent.bodies.len(), sent.requests.len());
    for (body, request) in sent.bodies.iter().zip(&sent.requests) {
        let request = match protocol {
            Protocol::HttpJson => serde_json::from_slice(request).expect("JSON of a request"),
            _ => ExportLogsServiceRequest::decode(&**request).expect("a request"),
        };
        let session = body["session_id"].as_str().expect("a session");
        let events = body["events"].as_array().expect("events");
        let scope = request
            .resource_logs
            .first()
            .and_then(|logs| logs.scope_logs.first());
        let scope = scope
            .and_then(|scope| scope.scope.clone())
            .expect("a scope");
        assert_eq!(
            scope,
            InstrumentationScope {
                name: "tinkex-telemetry".to_owned(),
                version: scope.version.clone(),
                ..InstrumentationScope::default()
            }
        );
        let mut expected = request.clone();
        let logs = expected
            .resource_logs
            .first_mut()
            .expect("logs of a resource");
        logs.resource = Some(resource(body, None, has_null));
        let records = &mut logs
            .scope_logs
            .first_mut()
            .expect("logs of a scope")
            .log_records;
        *records = events
            .iter()
            .map(|event| record(event, session, has_null))
            .collect();
        assert_eq!(sorted(request), sorted(expected));
    }
}

fn value(u: &mut Unstructured<'_>, depth: usize) -> Result<Value> {
    Ok(match u.int_in_range(0..=if depth == 0 { 7 } else { 9 })? {
        0 => Value::Null,
        1 => u.arbitrary::<bool>()?.into(),
        2 => u.arbitrary::<i64>()?.into(),
        3 => u.arbitrary::<u64>()?.into(),
        // `serde_json` reads longer ones with an error in the last bit.
        4 => (f64::from(u.arbitrary::<i32>()?) / 8.0).into(),
        5 => u.int_in_range(-3..=300)?.into(),
        6 => u.arbitrary::<char>()?.to_string().into(),
        7 => u.arbitrary::<&str>()?.into(),
        8 => {
            let len = u.int_in_range(0..=4)?;
            (0..len)
                .map(|_| value(u, depth - 1))
                .collect::<Result<_>>()?
        }
        _ => Value::Object(object(u, depth - 1)?),
    })
}

fn object(u: &mut Unstructured<'_>, depth: usize) -> Result<Map<String, Value>> {
    let len = u.int_in_range(0..=20)?;
    let names = [
        "session.id",
        "http.x",
        "error.type",
        "event.name",
        "tinkex.data.a",
        "a",
        "é\0\"\\",
    ];
    let key = |u: &mut Unstructured<'_>| {
        let is_known = u.ratio(1, 3)?;
        Ok(if is_known {
            (*u.choose(&names)?).to_owned()
        } else {
            u.arbitrary::<&str>()?.to_owned()
        })
    };
    (0..len).map(|_| Ok((key(u)?, value(u, depth)?))).collect()
}

#[test]
fn whatever_is_logged_is_what_an_independent_mapping_makes_of_it() {
    for protocol in [Protocol::HttpProtobuf, Protocol::HttpJson] {
        arbtest(|u| {
            let severities = [
                Severity::Debug,
                Severity::Info,
                Severity::Warning,
                Severity::Error,
                Severity::Critical,
            ];
            let count = u.int_in_range(1..=4)?;
            let events = (0..count).map(|_| {
                let name = u.arbitrary::<&str>()?;
                Ok((name, object(u, 4)?, *u.choose(&severities)?))
            });
            let events = events.collect::<Result<Vec<_>>>()?;
            let message = u.arbitrary::<&str>()?;
            let sent = send(protocol, |telemetry| {
                for (name, data, severity) in &events {
                    let data = Value::Object(data.clone());
                    assert!(telemetry.log_with(name, data, *severity));
                }
                assert!(telemetry.log_exception(message, Severity::Error));
            });
            check(&sent, protocol);
            Ok(())
        })
        .budget_ms(4_000);
    }
}

#[test]
fn values_that_others_stumble_over_arrive_whole() {
    let nested = |levels: usize, is_array: bool| {
        (0..levels).fold(json!(1), |value, _| {
            if is_array {
                json!([value])
            } else {
                json!({ "a": value })
            }
        })
    };
    let data = json!({
        "null": null, "nulls": [null, 1, null], "largest": u64::MAX, "smallest": i64::MIN, "zero": -0.0,
        "small": 5e-324, "nul": "a\u{0}b", "long": "x".repeat(60_000), "empty": {}, "none": [], "": "no name",
        "deep": nested(64, false), "deeper": nested(90, true), "just": nested(23, false), "beyond": nested(24, false),
    });
    for protocol in [Protocol::HttpProtobuf, Protocol::HttpJson] {
        let sent = send(protocol, |telemetry| {
            assert!(telemetry.log("poison", &data))
        });
        check(&sent, protocol);
    }
}
