//! A transport of any type, chosen when the program runs.

use super::{Batch, Receipt, SendError, SetupError, Transport};
use crate::event::exception::Classify;
use alloc::boxed::Box;
use core::fmt;
use core::future::Future;
use core::pin::Pin;

/// A transport of any type, chosen when the program runs: a configuration names it, or a test replaces it.
///
/// Each attempt allocates its future. Everything else is that of the transport inside, cancel safety included: dropping
/// the future drops the other.
///
/// ```
/// # #[cfg(feature = "thread")] {
/// use std::time::Duration;
/// use tinkex_telemetry::transport::BoxTransport;
/// use tinkex_telemetry::{Batch, Receipt, Reporter, SendError, Thread, Transport, fields};
///
/// struct Stdout;
///
/// impl Transport for Stdout {
///     async fn send(&mut self, batch: Batch<'_>) -> Result<Receipt, SendError> {
///         println!("{}", String::from_utf8_lossy(batch.body()));
///         Ok(Receipt::delivered())
///     }
/// }
///
/// fn transport(name: &str) -> Option<BoxTransport> {
///     match name {
///         "stdout" => Some(BoxTransport::new(Stdout)),
///         _ => None,
///     }
/// }
///
/// let transport = transport("stdout").ok_or("there is no such transport")?;
/// let builder = Reporter::builder("session-123").transport(transport).runtime(Thread);
/// let telemetry = builder.enabled(true).start()?;
/// telemetry.log("app.started", fields! { version: "1.0.0" });
/// assert!(telemetry.stop_blocking(Duration::from_secs(5))?.all_delivered());
/// # }
/// # Ok::<_, Box<dyn core::error::Error>>(())
/// ```
pub struct BoxTransport(Box<dyn AnyTransport>);

impl BoxTransport {
    /// Boxes a transport.
    pub fn new(transport: impl Transport) -> Self {
        Self(Box::new(transport))
    }
}

type Sending<'a> = Pin<Box<dyn Future<Output = Result<Receipt, SendError>> + Send + 'a>>;

/// A [`Transport`] without its type.
trait AnyTransport: Send {
    fn send<'a>(&'a mut self, batch: Batch<'a>) -> Sending<'a>;
    fn check(&self) -> Result<(), SetupError>;
    fn destination(&self) -> Option<&str>;
    fn warning(&self) -> Option<SetupError>;
    fn classifier(&self) -> Classify;
}

impl<T: Transport> AnyTransport for T {
    fn send<'a>(&'a mut self, batch: Batch<'a>) -> Sending<'a> {
        Box::pin(Transport::send(self, batch))
    }

    fn check(&self) -> Result<(), SetupError> {
        Transport::check(self)
    }

    fn destination(&self) -> Option<&str> {
        Transport::destination(self)
    }

    fn warning(&self) -> Option<SetupError> {
        Transport::warning(self)
    }

    fn classifier(&self) -> Classify {
        Transport::classifier(self)
    }
}

impl Transport for BoxTransport {
    async fn send(&mut self, batch: Batch<'_>) -> Result<Receipt, SendError> {
        self.0.send(batch).await
    }

    fn check(&self) -> Result<(), SetupError> {
        self.0.check()
    }

    fn destination(&self) -> Option<&str> {
        self.0.destination()
    }

    fn warning(&self) -> Option<SetupError> {
        self.0.warning()
    }

    fn classifier(&self) -> Classify {
        self.0.classifier()
    }
}

impl fmt::Debug for BoxTransport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BoxTransport")
            .field("destination", &self.0.destination())
            .finish_non_exhaustive()
    }
}

#[cfg(all(test, has_arc))]
mod tests {
    use super::*;
    use crate::event::exception::Blame;
    use crate::local::LocalTransport;
    use crate::transport::{Either, SampleBatch};
    use alloc::string::{String, ToString as _};
    use core::error::Error;
    use core::pin::pin;
    use core::task::{Context, Poll, Waker};

    /// Counts what begins and what ends; its first attempt never does.
    #[derive(Default)]
    struct Slow {
        begun: usize,
        ended: usize,
    }

    impl Transport for Slow {
        async fn send(&mut self, batch: Batch<'_>) -> Result<Receipt, SendError> {
            self.begun += 1;
            if self.begun == 1 {
                core::future::pending::<()>().await;
            }
            self.ended += batch.event_count();
            let said = String::from_utf8_lossy(batch.body()).into_owned();
            Err(SendError::rejected(alloc::format!(
                "{} {} {}",
                self.begun,
                self.ended,
                said.len()
            )))
        }

        fn check(&self) -> Result<(), SetupError> {
            Err(SetupError::new("checked"))
        }

        fn destination(&self) -> Option<&str> {
            Some("there")
        }

        fn warning(&self) -> Option<SetupError> {
            Some(SetupError::new("warned"))
        }

        fn blame<'a>(error: &'a (dyn Error + 'static)) -> Option<Blame<'a>> {
            error.is::<core::fmt::Error>().then(|| Blame::status(404))
        }
    }

    /// Everything else is as the trait has it.
    struct Plain;

    impl Transport for Plain {
        async fn send(&mut self, _: Batch<'_>) -> Result<Receipt, SendError> {
            Ok(Receipt::handed_over())
        }
    }

    fn behaves_as_slow(mut transport: impl Transport) {
        assert_eq!(Transport::destination(&transport), Some("there"));
        let shown = |error: SetupError| error.to_string();
        let checked = Transport::check(&transport).map_err(shown);
        assert_eq!(checked, Err("checked".into()));
        let warned = LocalTransport::warning(&transport).map(shown);
        assert_eq!(warned, Some("warned".into()));
        for classify in [
            Transport::classifier(&transport),
            LocalTransport::classifier(&transport),
        ] {
            let blamed = |error: &(dyn Error + 'static)| {
                classify(error).is_some_and(|blame| blame.is_callers())
            };
            assert!(blamed(&core::fmt::Error));
            assert!(!blamed(&SetupError::new("x")));
        }

        let mut sample = SampleBatch::new("s", ["{}", "{}"]);
        let len = sample.batch().body().len();
        let mut context = Context::from_waker(Waker::noop());
        // The first future is dropped unfinished, and the next is of a transport that can be called again.
        let first = pin!(Transport::send(&mut transport, sample.batch())).poll(&mut context);
        assert!(first.is_pending());
        let second = pin!(Transport::send(&mut transport, sample.batch())).poll(&mut context);
        let Poll::Ready(Err(error)) = second else {
            panic!("{second:?}");
        };
        assert_eq!(error.to_string(), alloc::format!("2 2 {len}"));
    }

    #[test]
    fn a_box_and_either_behave_as_what_is_in_them() {
        behaves_as_slow(Slow::default());
        behaves_as_slow(BoxTransport::new(Slow::default()));
        behaves_as_slow(BoxTransport::new(BoxTransport::new(Slow::default())));
        behaves_as_slow(Either::<Slow, Plain>::Left(Slow::default()));
        behaves_as_slow(Either::<Plain, BoxTransport>::Right(BoxTransport::new(
            Slow::default(),
        )));
    }

    #[test]
    fn the_other_of_two_is_not_asked() {
        let plain = Either::<Slow, Plain>::Right(Plain);
        assert_eq!(Transport::destination(&plain), None);
        assert_eq!(Transport::check(&plain), Ok(()));
        assert!(Transport::classifier(&plain)(&core::fmt::Error).is_none());
        let mut boxed = BoxTransport::new(plain);
        assert_eq!(
            alloc::format!("{boxed:?}"),
            "BoxTransport { destination: None, .. }"
        );
        let mut sample = SampleBatch::new("s", ["{}"]);
        let sent = pin!(Transport::send(&mut boxed, sample.batch()))
            .poll(&mut Context::from_waker(Waker::noop()));
        assert_eq!(sent, Poll::Ready(Ok(Receipt::handed_over())));
    }
}
