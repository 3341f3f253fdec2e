//! Futures captured where they are awaited.

use crate::support::{Failed, finish, pair, payload, smol, thread, tokio};
use alloc::rc::Rc;
use core::future::{Future, pending};
use core::pin::pin;
use core::task::{Context, Waker};
use tinkex_telemetry::capture;

#[test]
fn a_future_keeps_its_output_and_its_failure_is_logged() {
    let (session, kept) = thread();
    let value = smol::block_on(capture!(reporter = session, async {
        smol::future::yield_now().await;
        5
    }));
    assert_eq!(value, 5);
    let error = smol::block_on(
        session
            .capture()
            .future(async { Err::<(), _>(Failed("late")) }),
    );
    assert_eq!(error, Err(Failed("late")));
    let text = payload(|| smol::block_on(capture!(reporter = session, async { panic!("loud") })));
    assert_eq!(text.downcast_ref(), Some(&"loud"));
    assert_eq!(
        finish(session, &kept),
        [pair("Failed", "late"), pair("panic", "loud")]
    );
}

#[test]
fn a_future_dropped_half_way_is_no_exception() {
    let (session, kept) = thread();
    {
        let mut future = pin!(capture!(reporter = session, fatal = true, async {
            smol::future::yield_now().await;
            pending::<()>().await;
        }));
        let mut context = Context::from_waker(Waker::noop());
        assert!(future.as_mut().poll(&mut context).is_pending());
        assert!(future.as_mut().poll(&mut context).is_pending());
    }
    assert_eq!(finish(session, &kept), []);
    assert_eq!(kept.events().len(), 2);
}

#[test]
fn a_future_that_is_not_send_can_be_captured_and_one_that_is_send_stays_send() {
    fn is_send<F: Future + Send>(future: F) -> F {
        future
    }
    let (session, kept) = thread();
    let shared = Rc::new(3);
    let value = smol::block_on(capture!(reporter = session, async {
        let shared = Rc::clone(&shared);
        smol::future::yield_now().await;
        *shared
    }));
    assert_eq!(value, 3);
    let value = smol::block_on(is_send(
        session.capture().future(async { Ok::<_, Failed>(4) }),
    ));
    assert_eq!(value, Ok(4));
    assert_eq!(finish(session, &kept), []);
}

#[test]
fn a_fatal_failure_is_sent_before_the_future_ends_on_tokio_in_both_flavours() {
    for mut runtime in [
        tokio::runtime::Builder::new_current_thread(),
        tokio::runtime::Builder::new_multi_thread(),
    ] {
        let runtime = runtime.enable_time().build().expect("a runtime");
        runtime.block_on(async {
            let (session, kept) = tokio();
            let failing = async { Err::<(), _>(Failed("last")) };
            let result = session.capture().fatal(true).future(failing).await;
            assert_eq!(result, Err(Failed("last")));
            assert_eq!(kept.exceptions(), [pair("Failed", "last")]);
            assert_eq!(kept.events()[2]["event"], "SESSION_END");
        });
    }
}

#[test]
fn a_fatal_panic_on_smol_is_sent_before_it_continues() {
    let (session, kept) = smol();
    let text = payload(|| {
        smol::block_on(capture!(reporter = session, fatal = true, async {
            panic!("last")
        }))
    });
    assert_eq!(text.downcast_ref(), Some(&"last"));
    assert_eq!(kept.exceptions(), [pair("panic", "last")]);
    assert_eq!(kept.events()[2]["event"], "SESSION_END");
}
