//! Single runs: what a scenario sees, how a failure is reported, and how it is shrunk.

use alloc::rc::Rc;
use core::cell::Cell;
use core::time::Duration;
use tinkex_telemetry::runtime::Clock as _;
use tinkex_telemetry::sim::{Failure, Fault, Faults, Invariants, Reply, Sim};
use tinkex_telemetry::{Options, fields, sometimes};

const fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

#[test]
fn a_day_passes_in_no_time() {
    let report = Sim::new(7).run(|env| async move {
        let reporter = env.reporter(Options::default());
        for hour in 0..23_u32 {
            assert!(reporter.log("hour", fields! { hour: hour }));
            env.advance(secs(3_600)).await;
        }
        assert_eq!(env.server().events("s0"), 24);
        assert!(reporter.stop(secs(5)).await.all_delivered());
        assert!(env.server().has_ended("s0"));
    });
    report.assert_ok();
    assert!(report.simulated >= secs(23 * 3_600));
}

#[test]
fn a_session_receives_the_scripted_replies() {
    Sim::new(7)
        .run(|env| async move {
            let reporter = env.reporter(Options::default());
            env.server().reply(Reply::status(429).retry_after("20"));
            env.server().reply(Reply::lost());
            env.server().reply(Reply::status(401));
            reporter.flush();
            env.advance(secs(19)).await;
            assert_eq!(
                (env.server().requests("s0"), env.server().events("s0")),
                (1, 0)
            );
            env.advance(secs(3)).await;
            assert_eq!(env.server().events("s0"), 1);
            assert_eq!(reporter.stats().delivered, 0);
            let drain = reporter.wait_until_drained(secs(60)).await;
            assert_eq!((drain.delivered, drain.dropped), (0, 1));
        })
        .assert_ok();
}

#[test]
fn nothing_is_lost_in_an_outage_that_heals() {
    let report = Sim::new(3)
        .faults(Faults::none().with(Fault::Refused, 900))
        .run(|env| async move {
            let options = Options {
                max_retries: 1_000,
                ..Default::default()
            };
            let reporter = env.reporter(options);
            for _ in 0..50 {
                assert!(reporter.log("x", ()));
                env.advance(secs(60)).await;
            }
            env.heal();
            let drain = reporter.stop(secs(600)).await;
            assert!(drain.is_drained() && reporter.stats().dropped.total() == 0);
        });
    report.assert_ok();
    assert!(
        report
            .happened
            .iter()
            .any(|(fault, _)| *fault == Fault::Refused)
    );
}

#[test]
fn a_custom_invariant_is_checked_after_every_step() {
    let steps = Rc::new(Cell::new(0));
    let seen = Rc::clone(&steps);
    let invariants = Invariants::none().and(move |view| {
        seen.set(seen.get() + 1);
        match view.sessions.first() {
            Some(session) if session.stats.accepted > 3 => Err("more than three".into()),
            _ => Ok(()),
        }
    });
    let report = Sim::new(1).check(invariants).run(|env| async move {
        let reporter = env.reporter(Options::default());
        loop {
            reporter.log("x", ());
            env.advance(secs(1)).await;
        }
    });
    assert_eq!(
        report.failure,
        Some(Failure::Invariant("more than three".into()))
    );
    assert_eq!(report.steps, steps.get());
}

#[test]
fn a_failure_says_how_to_reproduce_it() {
    let report = Sim::new(42).run(|_| async { panic!("no") });
    assert_eq!(report.failure, Some(Failure::Panicked("no".into())));
    let text = report.to_string();
    assert!(text.contains("TINKEX_SIM_SEED=42 cargo test"), "{text}");
}

#[test]
fn a_scenario_that_is_stuck_or_exceeds_its_time_limit_is_a_failure() {
    let stuck = Sim::new(1).run(|_| core::future::pending());
    assert_eq!(stuck.failure, Some(Failure::Stuck));
    let endless = Sim::new(1).limit(secs(60)).run(|env| async move {
        env.advance(secs(61)).await;
    });
    assert_eq!(endless.failure, Some(Failure::TimeLimit));
}

#[test]
fn a_run_that_depends_on_the_real_world_is_not_deterministic() {
    use core::sync::atomic::{AtomicU64, Ordering};
    static RUNS: AtomicU64 = AtomicU64::new(0);
    let report = Sim::sweep(0..10).check_determinism().run(|env| async move {
        let real = RUNS.fetch_add(1, Ordering::Relaxed);
        env.advance(Duration::from_millis(real)).await;
    });
    let failure = report.failure.expect("it is found");
    assert_eq!(failure.failure, Some(Failure::NotDeterministic));
}

#[test]
fn a_failure_shrinks_to_the_faults_it_needs() {
    let report = Sim::sweep(0..1_000).shrink().run(|env| async move {
        let reporter = env.reporter(Options::default());
        reporter.log("x", ());
        let drain = reporter.stop(secs(5)).await;
        assert!(
            drain.dropped == 0 || env.server().events("s0") > 0,
            "rejected"
        );
    });
    let failure = report.failure.expect("some response is permanent");
    let script = failure.script.expect("it was shrunk");
    // The permanent rejection, and at most two faults that keep earlier attempts from succeeding.
    assert!(
        (1..=3).contains(&script.matches("Fault::").count()),
        "{script}"
    );
    assert!(report.runs < 1_000);
}

#[test]
fn a_timeline_says_what_happened_when() {
    let report = Sim::new(1).timeline(true).run(|env| async move {
        let reporter = env.reporter(Options::default());
        env.server().reply(Reply::status(503));
        env.note("the scenario begins");
        let _ = reporter.stop(secs(5)).await;
    });
    report.assert_ok();
    let lines: Vec<_> = report.timeline.iter().map(|(_, what)| &**what).collect();
    for expected in [
        "session s0 is opened",
        "the scenario begins",
        "response 503",
    ] {
        assert!(lines.contains(&expected), "{expected}: {lines:?}");
    }
    assert!(report.timeline.is_sorted_by_key(|(at, _)| *at));
}

#[test]
fn a_new_process_works_after_a_crash() {
    Sim::new(5)
        .run(|env| async move {
            let first = env.reporter(Options::default());
            first.log("lost", ());
            env.crash();
            env.advance(secs(1)).await;
            assert!(!first.stats().driver_alive);
            let second = env.reporter(Options::default());
            let drain = second.stop(secs(5)).await;
            sometimes!(drain.all_delivered(), "a session after a crash works");
            assert!(drain.all_delivered());
            assert_eq!(
                (env.server().events("s0"), env.server().events("s1")),
                (0, 2)
            );
        })
        .assert_ok();
}

#[test]
fn the_seed_decides_which_of_two_simultaneous_timers_fires_first() {
    let is_scenario_first = |seed| {
        let first = Rc::new(Cell::new(false));
        let result = Rc::clone(&first);
        let report = Sim::new(seed).run(|env| async move {
            let clock = env.clock();
            let other_is_done = Rc::new(Cell::new(false));
            let done = Rc::clone(&other_is_done);
            let at = clock.now().checked_add(secs(1)).expect("in time");
            env.spawn(async move {
                clock.sleep_until(at).await;
                done.set(true);
            });
            env.advance(secs(1)).await;
            result.set(!other_is_done.get());
        });
        report.assert_ok();
        first.get()
    };
    let first: Vec<_> = (0..20).map(is_scenario_first).collect();
    assert!(first.contains(&true) && first.contains(&false), "{first:?}");
}

#[test]
fn a_dropped_driver_is_replaced_but_a_runtime_is_not() {
    Sim::new(5)
        .run(|env| async move {
            let options = Options::default();
            let (first, second) = (env.reporter(options.clone()), env.reporter(options));
            first.log("x", ());
            second.log("x", ());
            env.drop_driver(0);
            env.end_runtime(1);
            env.advance(secs(6)).await;
            assert!(first.stop(secs(5)).await.all_delivered());
            let drain = second.stop(secs(5)).await;
            assert_eq!((drain.delivered, drain.is_drained()), (0, false));
        })
        .assert_ok();
}
