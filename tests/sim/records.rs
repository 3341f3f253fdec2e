//! What events say, asserted in the simulator.

use core::time::Duration;
use tinkex_telemetry::sim::{Fault, Faults, Reply, Sim};
use tinkex_telemetry::wire::EventKind;
use tinkex_telemetry::{Severity, fields};

#[test]
fn the_server_keeps_what_events_say_if_it_is_asked_to() {
    let report = Sim::new(1).run(|env| async move {
        let server = env.server();
        server.keep_events();
        // The first attempt is lost after the server has the events: they are kept once.
        server.reply(Reply::status(503));
        let reporter = env.reporter(tinkex_telemetry::Options::default());
        reporter.log_with(
            "train.step",
            fields! { step: 1, loss: 0.5 },
            Severity::Warning,
        );
        reporter.log_exception("no data", Severity::Error);
        let drain = reporter.stop(Duration::from_secs(60)).await;
        assert!(drain.all_delivered());
        let id = reporter.session_id().expect("it is on");
        let records = server.records(id);
        let shown: Vec<_> = records
            .iter()
            .map(|event| (event.index(), event.kind(), event.severity()))
            .collect();
        assert_eq!(
            shown,
            [
                (0, EventKind::SessionStart, "INFO"),
                (1, EventKind::GenericEvent, "WARNING"),
                (2, EventKind::UnhandledException, "ERROR"),
                (3, EventKind::SessionEnd, "INFO"),
            ]
        );
        assert_eq!(records[1].name(), "train.step");
        assert_eq!(records[1].data(), Some(r#"{"step":1,"loss":0.5}"#));
        assert_eq!(records[1].value()["event_data"]["step"], 1);
        assert_eq!(records[2].message().as_deref(), Some("no data"));
        assert_eq!(server.events(id), 4);
        assert!(server.records("another").is_empty());
    });
    report.assert_ok();
}

#[test]
fn without_being_asked_it_keeps_none() {
    let report = Sim::new(1).run(|env| async move {
        let reporter = env.reporter(tinkex_telemetry::Options::default());
        assert!(reporter.stop(Duration::from_secs(60)).await.all_delivered());
        let id = reporter.session_id().expect("it is on");
        assert_eq!(env.server().events(id), 2);
        assert!(env.server().records(id).is_empty());
    });
    report.assert_ok();
}

#[test]
fn an_event_that_arrives_twice_is_kept_once() {
    for seed in 0..20 {
        let faults = Faults::none()
            .with(Fault::Duplicated, 500)
            .with(Fault::ResponseLost, 300);
        let report = Sim::new(seed).faults(faults).run(|env| async move {
            env.server().keep_events();
            let reporter = env.reporter(tinkex_telemetry::Options::default());
            for n in 0..250 {
                reporter.log("n", fields! { n: n });
                env.advance(Duration::from_millis(10)).await;
            }
            env.heal();
            let _ = reporter.stop(Duration::from_secs(600)).await;
            let id = reporter.session_id().expect("it is on");
            let records = env.server().records(id);
            assert_eq!(records.len() as u64, env.server().events(id));
            assert!(records.is_sorted_by(|one, next| one.index() < next.index()));
        });
        report.assert_ok();
    }
}
