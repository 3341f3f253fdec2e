//! Heartbeats in simulated time: their interval, what ends them, and when silence is reported.

use crate::sim_harness::run_simulated;
use std::time::Duration;
use tinkex_telemetry::collector::Reply;
use tinkex_telemetry::diagnostic::DiagnosticKind;

const fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

#[test]
fn heartbeats_come_every_ten_seconds_whatever_the_response() {
    run_simulated(5, |sim, spawner| async move {
        let name = "session_heartbeat";
        let service = sim.connect(&spawner).await.unwrap();
        sim.sleep(secs(35)).await;
        assert_eq!(sim.attempts(name), [10, 20, 30]);
        // A heartbeat without a response is abandoned when the next is due.
        sim.backend.script(name, [Reply::stall()]);
        sim.sleep(secs(30)).await;
        assert_eq!(sim.attempts(name), [10, 20, 30, 40, 50, 60]);
        assert!(sim.diagnostics(DiagnosticKind::HeartbeatLost).is_empty());
        let _ = service.close().await;
        sim.sleep(secs(100)).await;
        assert_eq!(
            sim.attempts(name).len(),
            6,
            "a closed session sends no heartbeats"
        );
    });
}

#[test]
fn each_silence_of_two_minutes_is_reported_once() {
    run_simulated(6, |sim, spawner| async move {
        let service = sim.connect(&spawner).await.unwrap();
        sim.sleep(secs(15)).await;
        sim.outage(secs(400));
        sim.sleep(secs(500)).await;
        let reported = sim.diagnostics(DiagnosticKind::HeartbeatLost);
        let silence = "the backend has not heard from the session for 120 s";
        assert_eq!(reported, [(130, silence.to_owned())]);
        sim.outage(secs(200));
        sim.sleep(secs(250)).await;
        assert_eq!(sim.diagnostics(DiagnosticKind::HeartbeatLost).len(), 2);
        assert!(service.close().await.all_delivered());
    });
}

#[test]
fn heartbeats_stop_once_the_backend_has_given_up_the_session() {
    run_simulated(7, |sim, spawner| async move {
        let name = "session_heartbeat";
        let service = sim.connect(&spawner).await.unwrap();
        sim.backend.script(name, [Reply::status(410)]);
        sim.sleep(secs(100)).await;
        assert_eq!(sim.attempts(name), [10]);
        assert_eq!(sim.diagnostics(DiagnosticKind::HeartbeatLost).len(), 1);
        // Everything else continues.
        assert!(service.get_server_capabilities().await.is_ok());
        assert!(service.close().await.all_delivered());
    });
}

#[test]
fn heartbeats_survive_a_panicking_http_client() {
    run_simulated(16, |sim, spawner| async move {
        let service = sim.connect(&spawner).await.unwrap();
        sim.panic_in("session_heartbeat");
        sim.sleep(secs(145)).await;
        assert_eq!(sim.attempts("session_heartbeat").len(), 14);
        assert_eq!(sim.diagnostics(DiagnosticKind::HeartbeatLost).len(), 1);
        sim.panic_in("finish");
        assert!(service.close().await.all_delivered());
    });
}
