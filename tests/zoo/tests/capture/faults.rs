//! Errors of HTTP clients: the user's, or exceptions.

use crate::support::{Kept, thread};
use serde_json::json;
use tinkex_telemetry::event::StatusError;
use tinkex_telemetry::http::HttpClient;
use tinkex_telemetry::{Config, Handle, HttpTransport, Reporter, Reqwest, Thread, Ureq, capture};

fn reqwest_error(status: u16) -> reqwest::Error {
    let response = http::Response::builder().status(status).body("");
    reqwest::Response::from(response.expect("a response"))
        .error_for_status()
        .expect_err("an error status")
}

/// The event that a session with this classification logs for an error.
fn classified(
    classify: tinkex_telemetry::event::Classify,
    work: impl FnOnce(&Handle),
) -> serde_json::Value {
    let kept = Kept::default();
    let session = Reporter::builder("s")
        .transport(kept.clone())
        .runtime(Thread)
        .classify_errors(classify)
        .enabled(true)
        .start()
        .expect("the session starts");
    work(&session);
    let _ = crate::support::finish(session, &kept);
    kept.logged().remove(0)
}

#[test]
fn the_status_in_each_clients_error_separates_user_errors_from_exceptions() {
    for (status, is_users) in [(404, true), (429, false), (500, false)] {
        let reqwest = classified(Reqwest::blame, |session| {
            let _ = session
                .capture()
                .run(|| Err::<(), _>(reqwest_error(status)));
        });
        let ureq = classified(Ureq::blame, |session| {
            let _ = session
                .capture()
                .run(|| Err::<(), _>(ureq::Error::StatusCode(status)));
        });
        let surf = classified(
            |_| None,
            |session| {
                let status = surf::StatusCode::try_from(status).expect("a status");
                let error = surf::Error::from_str(status, "no");
                let _ = capture!(reporter = session, { Err::<(), _>(error) });
            },
        );
        let own = classified(
            |_| None,
            |session| {
                let error = anyhow::Error::new(StatusError::new(status)).context("while training");
                let _ = capture!(reporter = session, { Err::<(), _>(error) });
            },
        );
        for (client, event) in [
            ("reqwest", reqwest),
            ("ureq", ureq),
            ("surf", surf),
            ("own", own),
        ] {
            if is_users {
                assert_eq!(event["event_name"], "user_error", "{client}: {event}");
                assert_eq!(
                    event["event_data"]["status_code"],
                    json!(status),
                    "{client}"
                );
                assert_eq!(event["severity"], "WARNING");
            } else {
                assert_eq!(event["event"], "UNHANDLED_EXCEPTION", "{client}: {event}");
            }
        }
    }
}

#[test]
fn a_session_recognizes_the_errors_of_its_transports_client() {
    fn status_of<T: tinkex_telemetry::Transport>(
        _: &T,
        error: &(dyn core::error::Error + 'static),
    ) -> Option<u16> {
        T::blame(error)?.status
    }
    let config = || Config::new("http://127.0.0.1:1", "key").expect("a config");
    let over_ureq = HttpTransport::new(config(), Ureq::new());
    assert_eq!(
        status_of(&over_ureq, &ureq::Error::StatusCode(404)),
        Some(404)
    );
    assert_eq!(status_of(&over_ureq, &reqwest_error(404)), None);
    let over_reqwest = HttpTransport::new(config(), Reqwest::new().expect("a client"));
    assert_eq!(status_of(&over_reqwest, &reqwest_error(404)), Some(404));
}

#[test]
fn a_status_error_deep_in_the_source_chain_is_found() {
    let (session, kept) = thread();
    let deep = (0..20).fold(anyhow::Error::new(StatusError::new(403)), |error, _| {
        error.context("one more")
    });
    let _ = capture!(reporter = session, { Err::<(), _>(deep) });
    let _ = crate::support::finish(session, &kept);
    assert_eq!(kept.logged()[0]["event_name"], "user_error");
}
