//! Whose fault an error of an HTTP client was.

use crate::support::{Kept, thread};
use serde_json::json;
use tinkex_telemetry::event::StatusError;
use tinkex_telemetry::http::HttpClient;
use tinkex_telemetry::{Config, Handle, HttpTransport, Reporter, Reqwest, Thread, Ureq, capture};

fn reqwest_error(status: u16) -> reqwest::Error {
    let answer = http::Response::builder().status(status).body("");
    reqwest::Response::from(answer.expect("an answer"))
        .error_for_status()
        .expect_err("a status of failure")
}

/// What a session with this way to look at errors makes of one.
fn judged(
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
        .expect("it starts");
    work(&session);
    let _ = crate::support::finish(session, &kept);
    kept.logged().remove(0)
}

#[test]
fn the_statuses_of_each_client_tell_user_errors_from_exceptions() {
    for (status, is_users) in [(404, true), (429, false), (500, false)] {
        let reqwest = judged(Reqwest::blame, |session| {
            let _ = session
                .capture()
                .run(|| Err::<(), _>(reqwest_error(status)));
        });
        let ureq = judged(Ureq::blame, |session| {
            let _ = session
                .capture()
                .run(|| Err::<(), _>(ureq::Error::StatusCode(status)));
        });
        let surf = judged(
            |_| None,
            |session| {
                let status = surf::StatusCode::try_from(status).expect("a status");
                let error = surf::Error::from_str(status, "no");
                let _ = capture!(reporter = session, { Err::<(), _>(error) });
            },
        );
        let own = judged(
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
fn a_session_knows_the_errors_of_its_transports_client() {
    fn fault_of<T: tinkex_telemetry::Transport>(
        _: &T,
        error: &(dyn core::error::Error + 'static),
    ) -> Option<u16> {
        T::blame(error)?.status
    }
    let config = || Config::new("http://127.0.0.1:1", "key").expect("a config");
    let over_ureq = HttpTransport::new(config(), Ureq::new());
    assert_eq!(
        fault_of(&over_ureq, &ureq::Error::StatusCode(404)),
        Some(404)
    );
    assert_eq!(fault_of(&over_ureq, &reqwest_error(404)), None);
    let over_reqwest = HttpTransport::new(config(), Reqwest::new().expect("a client"));
    assert_eq!(fault_of(&over_reqwest, &reqwest_error(404)), Some(404));
}

#[test]
fn an_error_that_reqwest_hides_deep_inside_is_found() {
    let (session, kept) = thread();
    let deep = (0..20).fold(anyhow::Error::new(StatusError::new(403)), |error, _| {
        error.context("one more")
    });
    let _ = capture!(reporter = session, { Err::<(), _>(deep) });
    let _ = crate::support::finish(session, &kept);
    assert_eq!(kept.logged()[0]["event_name"], "user_error");
}
