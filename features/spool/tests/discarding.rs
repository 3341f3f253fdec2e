//! A consent that is withdrawn: what is on disk goes, also what the backend has refused.

use super::*;
use crate::sys::park::Parker;
use alloc::string::ToString as _;
use core::future::Future as _;
use core::pin::pin;
use core::task::{Context, Poll};

#[test]
fn what_is_discarded_is_gone_from_disk_and_no_later_spool_sends_it() {
    let place = Place::new();
    let backend = Backend::always(Answer::Busy);
    let spool = spool(&place, &backend);
    let drain = log_all(&spool, "s", 0..250);
    let reporter = Reporter::builder("open")
        .transport(spool.transport())
        .runtime(Thread)
        .enabled(true)
        .start()
        .expect("a session");
    assert!(reporter.log("step", fields! { n: 1_000 }));
    let written = reporter.wait_until_drained_blocking(LONG);
    assert!(written.is_ok_and(|drain| drain.all_safe()));
    let handle = reporter.handle();
    handle.set_enabled(false);
    handle.discard();
    let left = spool.discard_blocking(LONG).expect("it may wait here");
    assert!(left.is_empty(), "{left:?}");
    let stats = spool.stats();
    assert!(stats.is_balanced() && stats.bytes == 0, "{stats:?}");
    assert_eq!(stats.discarded, drain.handed_over + 2);
    assert!(segments(&place).is_empty());
    backend.answer(None);
    // The session that was off goes on, and its events are written and sent.
    handle.set_enabled(true);
    assert!(handle.log("step", fields! { n: 2_000 }));
    let written = reporter.stop_blocking(LONG).expect("it may wait here");
    assert!(written.all_safe(), "{written:?}");
    assert!(wait(&spool).is_empty());
    assert_eq!(backend.numbers(), [2_000]);
    drop(reporter);
    end(spool);
    let spool = self::spool(&place, &backend);
    assert!(wait(&spool).is_empty());
    assert_eq!((spool.stats().recovered, backend.numbers().len()), (0, 1));
}

#[test]
fn events_that_were_refused_are_discarded_as_well() {
    let place = Place::new();
    let backend = Backend::always(Answer::Invalid("\"n\":57}"));
    let spool = spool(&place, &backend);
    let _ = log_all(&spool, "s", 0..100);
    assert!(wait(&spool).is_empty());
    let rejected = place.path().join("spool/rejected");
    assert_eq!(files(&rejected).len(), 1);
    let mut discarding = pin!(spool.discard(LONG));
    let (parker, waker) = Parker::current();
    let mut context = Context::from_waker(&waker);
    let left = loop {
        match discarding.as_mut().poll(&mut context) {
            Poll::Ready(left) => break left,
            Poll::Pending => parker.park(None),
        }
    };
    assert!(left.is_empty(), "{left:?}");
    let left: Vec<_> = files(place.path());
    let names: Vec<_> = left
        .iter()
        .filter_map(|path| path.file_name())
        .map(|name| name.to_string_lossy().to_string())
        .filter(|name| !name.starts_with("lock"))
        .collect();
    assert_eq!(names, ["README"]);
}
