//! Capture during an outage: how long it delays the application, and what arrives in the end.

use core::fmt;
use core::future::{Future as _, poll_fn};
use core::pin::pin;
use core::time::Duration;
use tinkex_telemetry::sim::{Env, Fault, Faults, Reply, Sim};
use tinkex_telemetry::{Options, capture};

const fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

#[derive(Debug, PartialEq)]
struct Failed(&'static str);

impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl core::error::Error for Failed {}

fn options() -> Options {
    Options {
        flush_timeout: secs(30),
        max_retries: 1_000,
        ..Default::default()
    }
}

#[test]
fn in_an_outage_an_error_returns_at_once_and_a_fatal_one_within_the_flush_timeout() {
    let report = Sim::new(11).run(|env| async move {
        let reporter = env.reporter(options());
        env.server().always(Reply::stall());
        let begun = env.now();
        let result = capture!(reporter = reporter, async { Err::<(), _>(Failed("soon")) }).await;
        assert_eq!(result, Err(Failed("soon")));
        assert_eq!(env.now(), begun);
        let fatal = capture!(reporter = reporter, fatal = true, async {
            Err::<(), _>(Failed("late"))
        });
        assert_eq!(fatal.await, Err(Failed("late")));
        assert_eq!(env.now().saturating_duration_since(begun), secs(30));
        // Giving up the wait loses nothing, and the session keeps working.
        env.server().always(Reply::accept());
        assert!(reporter.log("still.here", ()));
        assert!(reporter.stop(secs(60)).await.all_delivered());
        assert!(env.server().has_ended("s0"));
        assert_eq!(env.server().events("s0"), 5);
    });
    report.assert_ok();
}

#[test]
fn a_fatal_capture_dropped_while_it_waits_still_ends_the_session() {
    let report = Sim::new(12).run(|env| async move {
        let reporter = env.reporter(options());
        env.server().always(Reply::stall());
        let handle = reporter.handle();
        let given_up = async {
            let failing = async { Err::<(), _>(Failed("last")) };
            handle.capture().fatal(true).future(failing).await
        };
        let patience = env.advance(secs(1));
        let mut given_up = Box::pin(given_up);
        let mut patience = pin!(patience);
        poll_fn(|context| {
            assert!(given_up.as_mut().poll(context).is_pending());
            patience.as_mut().poll(context)
        })
        .await;
        drop(given_up);
        env.server().always(Reply::accept());
        assert!(reporter.wait_until_drained(secs(60)).await.all_delivered());
        assert!(env.server().has_ended("s0"));
    });
    report.assert_ok();
}

async fn failing_application(env: Env) {
    let reporter = env.reporter(options());
    let begun = env.now();
    let mut failures = 0;
    for n in 0..40_u32 {
        let result = capture!(reporter = reporter, async {
            env.advance(Duration::from_millis(100)).await;
            if n % 3 == 0 {
                Err(Failed("again"))
            } else {
                Ok(n)
            }
        })
        .await;
        failures += u64::from(result.is_err());
    }
    assert_eq!(failures, 14);
    assert_eq!(env.now().saturating_duration_since(begun), secs(4));
    env.heal();
    let drain = reporter.stop(secs(600)).await;
    let stats = reporter.stats();
    assert!(drain.is_drained() && stats.is_balanced());
    assert_eq!(stats.accepted, failures + 2);
}

#[test]
fn no_outage_delays_an_application_that_captures_its_errors() {
    let outages = [
        Fault::Refused,
        Fault::Stalled,
        Fault::ResetAfterBody,
        Fault::ResponseLost,
        Fault::Status503,
    ];
    for seed in 0..200 {
        let faults = outages
            .into_iter()
            .fold(Faults::none(), |faults, fault| faults.with(fault, 150));
        Sim::new(seed)
            .faults(faults)
            .run(failing_application)
            .assert_ok();
    }
}
