//! Servers and networks that fail.

use crate::session::{BOUND, Session, open, options};
use crate::table::Verdict::{self, Passed};
use crate::worlds::World;
use core::time::Duration;
use std::collections::HashSet;
use tinkex_telemetry::HttpClient;
use tinkex_telemetry::collector::{Answer, AnswerKind};

fn keys<W: World>(session: &Session<W>) -> Vec<String> {
    let requests = session.collector.requests();
    let keys = requests.iter().map(|request| request.idempotency_key());
    keys.map(|key| key.expect("it has one").to_owned())
        .collect()
}

pub(crate) fn a_retry_keeps_the_idempotency_key<W: World, H: HttpClient>(
    client: fn() -> H,
) -> Verdict {
    let session = open::<W, H>(client, options());
    session
        .collector
        .script([500, 429, 408].map(Answer::status));
    session.log(1);
    session.deliver();
    session.log(1);
    session.deliver();
    let keys = keys(&session);
    assert_eq!(keys.len(), 5);
    assert!(keys[..4].iter().all(|key| *key == keys[0]));
    assert_ne!(keys[4], keys[0]);
    assert_eq!(session.kept().len(), 3);
    Passed
}

/// Real time passes, as much as the cap allows.
pub(crate) fn a_retry_after_is_honoured<W: World, H: HttpClient>(client: fn() -> H) -> Verdict {
    let cap = Duration::from_millis(50);
    let mut options = options();
    options.retry_max_delay = cap;
    let session = open::<W, H>(client, options);
    session.collector.script([
        Answer::status(503).retry_after("3600"),
        Answer::status(429).retry_after("Thu, 31 Dec 2099 23:59:59 GMT"),
        Answer::status(503).retry_after("soon"),
    ]);
    session.deliver();
    let requests = session.collector.requests();
    assert_eq!(requests.len(), 4);
    for n in 0..2 {
        let gap = requests[n + 1].arrived() - requests[n].arrived();
        assert!(gap >= cap, "{gap:?}");
    }
    Passed
}

pub(crate) fn a_batch_that_is_too_large_is_split<W: World, H: HttpClient>(
    client: fn() -> H,
) -> Verdict {
    let session = open::<W, H>(client, options());
    session.deliver();
    session.collector.script([413, 413].map(Answer::status));
    session.log(4);
    session.deliver();
    assert_eq!(session.kept().len(), 5);
    let keys = keys(&session);
    assert_eq!(keys.iter().collect::<HashSet<_>>().len(), keys.len());
    session.collector.script([Answer::status(413)]);
    session.log(1);
    assert_eq!(session.drain().dropped, 1);
    assert_eq!(session.handle.stats().dropped.too_large, 1);
    Passed
}

pub(crate) fn a_permanent_refusal_drops_the_batch_and_nothing_behind_it<W: World, H: HttpClient>(
    client: fn() -> H,
) -> Verdict {
    let session = open::<W, H>(client, options());
    session.deliver();
    for status in [400, 401, 403, 404, 307] {
        let before = session.collector.requests().len();
        let answer = Answer::status(status).header("location", &session.collector.url());
        session.collector.script([answer]);
        session.log(2);
        assert_eq!(session.drain().dropped, 2, "{status}");
        session.log(1);
        session.deliver();
        assert_eq!(session.collector.requests().len(), before + 2);
    }
    let stats = session.handle.stats();
    assert_eq!(stats.dropped.rejected, 10);
    assert!(stats.is_balanced());
    assert_eq!(session.kept().len(), 6);
    Passed
}

/// The clients have no timeouts of their own here that would pass before the bound of the wait.
pub(crate) fn a_stalled_server_costs_one_attempt_after_the_timeout<W: World, H: HttpClient>(
    client: fn() -> H,
) -> Verdict {
    let mut options = options();
    options.http_timeout = Duration::from_millis(100);
    // A slow machine may need a third one for what is meant to succeed.
    options.max_retries = 20;
    let session = open::<W, H>(client, options);
    session.collector.script([Answer::stall(), Answer::stall()]);
    session.log(1);
    session.deliver();
    let requests = session.collector.requests();
    let answers: Vec<_> = requests.iter().map(|request| request.answer()).collect();
    assert_eq!(answers[..2], [AnswerKind::Stall, AnswerKind::Stall]);
    assert_eq!(session.kept().len(), 2);
    assert!(keys(&session).windows(2).all(|two| two[0] == two[1]));
    Passed
}

/// Real time passes, since the answer comes when nobody waits for it any more.
pub(crate) fn a_late_answer_is_not_taken_for_that_of_the_next_attempt<W: World, H: HttpClient>(
    client: fn() -> H,
) -> Verdict {
    let mut options = options();
    options.http_timeout = Duration::from_millis(100);
    options.max_retries = 20;
    let session = open::<W, H>(client, options.clone());
    session.deliver();
    let late = Answer::status(400).delay(2 * options.http_timeout);
    session
        .collector
        .script([late, Answer::accept().delay(options.http_timeout / 2)]);
    session.log(1);
    session.deliver();
    assert_eq!(session.kept().len(), 2);
    Passed
}

pub(crate) fn a_connection_that_breaks_off_anywhere_costs_one_attempt<W: World, H: HttpClient>(
    client: fn() -> H,
) -> Verdict {
    let session = open::<W, H>(client, options());
    let broken = [
        Answer::close_before_body(),
        Answer::close_after_body(),
        Answer::garbage(),
        Answer::truncated(),
    ];
    for broken in broken {
        session.collector.script([broken]);
        session.log(2);
        session.deliver();
    }
    let kept = session.kept();
    assert_eq!((kept.len(), kept.duplicates()), (9, 0));
    let requests = session.collector.requests();
    let broken = requests.iter().filter(|request| !request.is_kept());
    assert_eq!(broken.count(), 4);
    Passed
}

pub(crate) fn an_answer_that_is_lost_leaves_duplicates_that_can_be_told<W: World, H: HttpClient>(
    client: fn() -> H,
) -> Verdict {
    let session = open::<W, H>(client, options());
    session.collector.script([Answer::lost()]);
    session.log(3);
    session.deliver();
    let kept = session.kept();
    assert_eq!((kept.len(), kept.duplicates()), (4, 4));
    let keys = keys(&session);
    assert_eq!(keys[0], keys[1]);
    let stats = session.handle.stats();
    assert_eq!((stats.accepted, stats.delivered), (4, 4));
    let drain = session.run(session.handle.wait_until_drained(BOUND));
    assert!(drain.is_drained());
    Passed
}
