//! What the builder refuses, and sessions that are switched off.

use crate::host::{ManualClock, Reply, Task, Wire, session};
use crate::support::{DAY, Failure};
use core::error::Error;
use core::future::{Future, pending};
use core::task::Poll;
use core::time::Duration;
use tinkex_telemetry::runtime::{Clock, Runtime, SpawnError, Spawner, WouldDeadlock};
use tinkex_telemetry::session::{BuildError, Builder, IdentityError, SessionId};
use tinkex_telemetry::time::{Instant, Timestamp};
use tinkex_telemetry::transport::SetupError;
use tinkex_telemetry::{Batch, Drain, Handle, Options, Receipt, Reporter, SendError, Transport};

type Host = Builder<Wire, ManualClock, ()>;

type Change = fn(Host) -> Host;

fn host() -> Host {
    session(&ManualClock::default(), Wire::new([], Reply::Accept))
}

/// The error, and its texts from the outside in.
fn refusal(builder: Host) -> (BuildError, String) {
    let error = builder.build().expect_err("an invalid configuration");
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text += &format!(": {error}");
        source = error.source();
    }
    (error, text)
}

#[test]
fn every_invalid_option_is_named() {
    let cases: [(&str, Change); 13] = [
        ("flush_threshold", |b| b.flush_threshold(0)),
        ("flush_threshold", |b| b.flush_threshold(10_001)),
        ("flush_threshold", |b| b.max_queue_size(99)),
        ("http_timeout", |b| b.http_timeout(Duration::ZERO)),
        ("max_queue_size", |b| b.max_queue_size(0)),
        ("max_batch_size", |b| b.max_batch_size(0)),
        ("max_batch_bytes", |b| b.max_batch_bytes(0)),
        ("max_batch_bytes", |b| b.max_batch_bytes(64 << 10)),
        ("max_event_bytes", |b| b.max_event_bytes(0)),
        ("max_event_bytes", |b| {
            b.max_event_bytes(Options::MIN_EVENT_BYTES - 1)
        }),
        ("max_queue_bytes", |b| b.max_queue_bytes(64 << 10)),
        ("max_queue_bytes", |b| b.max_queue_bytes(usize::MAX)),
        ("retry_base_delay", |b| {
            b.retry_max_delay(Duration::from_millis(999))
        }),
    ];
    for (option, change) in cases {
        let (error, text) = refusal(change(host()));
        let BuildError::Option(inner) = &error else {
            panic!("{error:?}");
        };
        assert_eq!(inner.option(), option);
        let start =
            format!("telemetry cannot work with these options: the option {option} must be");
        assert!(text.starts_with(&start), "{text}");
    }
}

#[test]
fn options_may_be_disabled_or_set_to_their_limits() {
    let cases: [Change; 8] = [
        |b| {
            b.flush_interval(Duration::ZERO)
                .flush_timeout(Duration::ZERO)
        },
        |b| b.drop_timeout(Duration::ZERO),
        |b| b.max_retries(0).retry_base_delay(Duration::ZERO),
        |b| b.max_retries(u32::MAX).retry_max_delay(Duration::MAX),
        |b| b.flush_interval(Duration::MAX).http_timeout(Duration::MAX),
        |b| b.max_queue_size(1).flush_threshold(1).max_batch_size(1),
        |b| b.max_queue_size(usize::MAX).max_batch_size(usize::MAX),
        |b| {
            b.max_event_bytes(Options::MIN_EVENT_BYTES)
                .max_batch_bytes(usize::MAX)
        },
    ];
    for (case, change) in cases.into_iter().enumerate() {
        let clock = ManualClock::default();
        let wire = Wire::new([Reply::Fail], Reply::AcceptSlowly);
        let builder = change(session(&clock, wire.clone()).max_retries(1));
        let (reporter, driver) = builder.build().expect("a valid configuration");
        let mut driver = Task::new(driver.run());
        reporter.log("x", ());
        drop(reporter.stop(Duration::MAX));
        driver.run(&clock);
        let stats = reporter.stats();
        assert!(
            stats.is_balanced() && stats.queued == 0,
            "{case}: {stats:?}"
        );
    }
}

#[test]
fn an_invalid_identity_is_refused_with_the_reason() {
    let named = |id: &str| {
        Reporter::builder(id)
            .transport(Wire::new([], Reply::Accept))
            .clock(ManualClock::default())
            .enabled(true)
    };
    let cases = [
        (named(""), IdentityError::Empty("session id")),
        (named("a\rb"), IdentityError::Control("session id", "CR")),
        (named("a\n"), IdentityError::Control("session id", "LF")),
        (named("\0"), IdentityError::Control("session id", "NUL")),
        (named("s").platform(""), IdentityError::Empty("platform")),
        (
            named("s").platform("unix\r\nx: y"),
            IdentityError::Control("platform", "CR"),
        ),
        (
            named("s").sdk_version(""),
            IdentityError::Empty("sdk_version"),
        ),
        (
            named("s").sdk_version("1\0"),
            IdentityError::Control("sdk_version", "NUL"),
        ),
        (named(&"s".repeat(8 << 10)), IdentityError::TooLong),
        (named("."), IdentityError::Dots("session id")),
        (named(".."), IdentityError::Dots("session id")),
        (named(" "), IdentityError::OuterSpace("session id")),
        (named("a "), IdentityError::OuterSpace("session id")),
        (named("a\tb"), IdentityError::Character("session id", '\t')),
        (
            named("a\u{85}"),
            IdentityError::Character("session id", '\u{85}'),
        ),
        (
            named("a\u{200b}"),
            IdentityError::Character("session id", '\u{200b}'),
        ),
        (
            named("\u{202e}a"),
            IdentityError::Character("session id", '\u{202e}'),
        ),
        (
            named("s").sdk_version("1 2"),
            IdentityError::Character("sdk_version", ' '),
        ),
        (
            named("s").sdk_version("1.0\u{e9}"),
            IdentityError::Character("sdk_version", '\u{e9}'),
        ),
    ];
    for (builder, expected) in cases {
        let (error, text) = refusal(builder);
        assert_eq!(error, BuildError::Identity(expected.clone()));
        assert!(text.ends_with(&expected.to_string()), "{text}");
    }
}

#[test]
fn a_platform_that_is_not_family_and_os_is_refused_and_shown() {
    let on = |platform: &'static str| {
        Reporter::builder("s")
            .transport(Wire::new([], Reply::Accept))
            .clock(ManualClock::default())
            .enabled(true)
            .platform(platform)
    };
    for platform in [
        "what",
        "/linux",
        "unix/",
        "/",
        "a/b/c",
        "unix /linux",
        "unix/Mac OS",
    ] {
        let (error, text) = refusal(on(platform));
        let expected = BuildError::Identity(IdentityError::Platform(platform.into()));
        assert_eq!(error, expected);
        assert!(text.contains(&format!("\"{platform}\"")), "{text}");
    }
    for platform in [
        "bare/metal",
        "unknown/unknown",
        "windows/nt",
        "unix/linux-x86_64",
    ] {
        assert!(on(platform).build().is_ok(), "{platform}");
    }
}

#[test]
fn any_other_session_id_and_none_are_allowed() {
    let names = ["a b", "\"\\", "...", "../x", "é😀", &"s".repeat(4 << 10)];
    for name in names {
        let wire = Wire::new([], Reply::Accept);
        let built = Reporter::builder(name)
            .transport(wire)
            .clock(ManualClock::default())
            .enabled(true)
            .build();
        let (reporter, _driver) = built.expect("a valid configuration");
        assert_eq!(reporter.session_id(), Some(name));
    }
    let (reporter, _driver) = Reporter::builder(SessionId::sessionless())
        .transport(Wire::new([], Reply::Accept))
        .clock(ManualClock::default())
        .enabled(true)
        .build()
        .expect("a valid configuration");
    let id = reporter.session_id().expect("it has one");
    let uuid = id.strip_prefix("sessionless-").expect(id);
    assert_eq!(
        uuid.parse::<tinkex_telemetry::session::Uuid>()
            .map(|id| id.get_version_num()),
        Ok(4)
    );
}

/// A disabled session must touch none of this.
#[derive(Clone)]
struct Untouchable;

impl Transport for Untouchable {
    async fn send(&mut self, _: Batch<'_>) -> Result<Receipt, SendError> {
        panic!("nothing may be sent")
    }

    fn check(&self) -> Result<(), SetupError> {
        panic!("nothing may be checked")
    }
}

impl Clock for Untouchable {
    fn now(&self) -> Instant {
        panic!("the clock may not be read")
    }

    fn utc(&self) -> Timestamp {
        panic!("the clock may not be read")
    }

    fn sleep_until(&self, _: Instant) -> impl Future<Output = ()> + Send {
        pending()
    }
}

impl Spawner for Untouchable {
    fn spawn(&self, _: impl Future<Output = ()> + Send + 'static) -> Result<(), SpawnError> {
        panic!("no task may be spawned")
    }
}

impl Runtime for Untouchable {
    fn bind(&mut self) -> Result<(), SpawnError> {
        Err(SpawnError::new("there is no executor, and none is needed"))
    }
}

fn exercise(handle: &Handle) {
    let nothing = Drain::default();
    let error = Failure("an error", None);
    let severity = tinkex_telemetry::Severity::Error;
    assert!(!handle.is_enabled());
    assert_eq!(handle.session_id(), None);
    assert!(!handle.log("x", ()));
    assert!(!handle.log_with("x", (), severity));
    assert!(!handle.log_exception(&error, severity));
    handle.flush();
    assert_eq!(
        Task::new(handle.wait_until_drained(DAY)).poll(),
        Poll::Ready(nothing)
    );
    assert_eq!(
        Task::new(handle.log_fatal_exception(&error, severity)).poll(),
        Poll::Ready(nothing)
    );
    assert_eq!(Task::new(handle.stop(DAY)).poll(), Poll::Ready(nothing));
    let blocking: [Result<Drain, WouldDeadlock>; 3] = [
        handle.wait_until_drained_blocking(DAY),
        handle.log_fatal_exception_blocking(&error, severity),
        handle.stop_blocking(DAY),
    ];
    assert_eq!(blocking, [Ok(nothing); 3]);
    assert!(handle.spawn(async {}).is_err());
    let stats = handle.stats();
    assert_eq!((stats.accepted, stats.queued), (0, 0));
    assert_eq!(stats.refused.total(), stats.refused.disabled);
    assert!(!stats.driver_alive && !stats.session_ended);
}

#[test]
fn a_disabled_session_does_nothing_and_touches_nothing() {
    // Not even invalid options are looked at.
    let reporter = Reporter::builder("\r\n")
        .transport(Untouchable)
        .runtime(Untouchable)
        .max_batch_size(0)
        .enabled(false)
        .start()
        .expect("nothing is needed");
    exercise(&reporter);
    assert_eq!(reporter.stats().refused.disabled, 5);
    let handle = reporter.handle();
    drop(reporter);
    exercise(&handle);
    assert_eq!(handle.stats().refused.disabled, 10);
    exercise(&Handle::off());
}

#[test]
fn a_disabled_sessions_driver_finishes_at_its_first_poll() {
    let (reporter, driver) = Reporter::builder("")
        .transport(Untouchable)
        .clock(Untouchable)
        .enabled(false)
        .build()
        .expect("nothing is needed");
    assert!(Task::new(driver.run()).poll().is_ready());
    exercise(&reporter);
    let another = reporter
        .new_driver(Untouchable)
        .expect("any number is allowed");
    assert!(Task::new(another.run_local()).poll().is_ready());
}

#[test]
fn a_handle_outlives_its_reporter() {
    let clock = ManualClock::default();
    let wire = Wire::new([], Reply::Accept);
    let (reporter, driver) = session(&clock, wire.clone())
        .build()
        .expect("a valid configuration");
    let handle = reporter.handle();
    assert!(handle.log("x", ()));
    drop(reporter);
    assert!(
        !handle.log("late", ()),
        "the session has been asked to stop"
    );
    Task::new(driver.run()).run(&clock);
    assert_eq!(wire.received(), ["SESSION_START", "x", "SESSION_END"]);
    assert!(!handle.log("late", ()));
    handle.flush();
    for _ in 0..2 {
        assert!(Task::new(handle.wait_until_drained(DAY)).poll().is_ready());
        assert!(Task::new(handle.stop(DAY)).poll().is_ready());
        assert!(
            handle
                .stop_blocking(DAY)
                .is_ok_and(|drain| drain.is_drained())
        );
    }
    let stats = handle.stats();
    assert_eq!((stats.accepted, stats.delivered), (3, 3));
    assert_eq!(stats.refused.session_ended, 2);
    assert!(handle.is_enabled() && stats.session_ended && !stats.driver_alive);
    assert_eq!(wire.sent().len(), 1);
}
