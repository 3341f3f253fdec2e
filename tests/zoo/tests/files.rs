//! Options and the configuration in TOML, which has no null, no number above `i64` and quotes what is wrong.
#![allow(clippy::std_instead_of_alloc, reason = "a program, not a library")]

use core::time::Duration;
use tinkex_telemetry::{Config, GiveUp, Options};

#[derive(serde::Deserialize, serde::Serialize)]
#[serde(deny_unknown_fields)]
struct File {
    backend: Config,
    #[serde(default)]
    options: Options,
}

#[test]
fn a_file_survives_toml_but_for_the_key() {
    let file = r#"
        [backend]
        base_url = "https://telemetry.example/base"
        api_key = "sk-sentinel-0123456789"
        headers = { x-tenant = "7", accept-language = "en" }

        [options]
        flush_interval = "1m30s"
        max_retries = 5
        max_queue_bytes = "16 MiB"
        events = ["app.started"]
        enabled = true
    "#;
    let file: File = toml::from_str(file).expect("it is valid");
    let expected = Options {
        flush_interval: Duration::from_secs(90),
        max_retries: 5,
        max_queue_bytes: 16 << 20,
        events: ["app.started"].into_iter().collect(),
        enabled: Some(true),
        ..Default::default()
    };
    assert_eq!(file.options, expected);
    let written = toml::to_string(&file).expect("it serializes");
    assert!(!written.contains("sentinel"), "{written}");
    assert!(written.contains("accept-language = \"en\""), "{written}");
    assert!(!written.contains("x-tenant"), "{written}");
    let with_key = written.replace("[backend]", "[backend]\napi_key = \"another\"");
    let read: File = toml::from_str(&with_key).expect("it is valid");
    assert_eq!(read.options, expected);
}

#[test]
fn the_defaults_and_the_extremes_survive_toml() {
    let extreme = Options {
        http_timeout: Duration::MAX,
        drop_timeout: Duration::from_nanos(1),
        give_up: GiveUp::WhenFull,
        max_data_depth: usize::MAX,
        max_queue_size: usize::MAX,
        reserve: Some(0),
        handler_id: Some("\"".into()),
        ..Default::default()
    };
    for options in [Options::default(), extreme] {
        let written = toml::to_string(&options).expect("it serializes");
        assert_eq!(toml::from_str(&written), Ok(options), "{written}");
    }
}

#[test]
fn an_error_in_a_file_names_the_option_and_the_line() {
    for (line, expected) in [
        (
            "flush_intervall = \"10s\"",
            "there is no option \"flush_intervall\": the nearest is flush_interval",
        ),
        (
            "flush_interval = 10",
            "the option flush_interval is 10, which has no unit; it must be a duration",
        ),
        ("max_retries = 1979-05-27", "max_retries"),
        (
            "max_fields = nan",
            "the option max_fields is NaN; it must be a whole number",
        ),
        (
            "[max_fields]\nx = 1",
            "for the option max_fields a whole number",
        ),
    ] {
        let error = toml::from_str::<Options>(line).expect_err(line).to_string();
        assert!(error.contains(expected), "{error}");
        assert!(error.contains("line 1"), "{error}");
    }
}
