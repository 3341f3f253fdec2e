//! One of two transports, chosen when the program runs.

use super::{Batch, Receipt, SendError, SetupError, Transport};
use crate::event::exception::{Blame, Classify};
use core::error::Error;

/// One of two transports, or of two HTTP clients, chosen when the program runs. It costs nothing beyond a match.
///
/// ```
/// use tinkex_telemetry::transport::Either;
/// use tinkex_telemetry::{Batch, Receipt, SendError, Transport};
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
/// struct Nowhere;
///
/// impl Transport for Nowhere {
///     async fn send(&mut self, _: Batch<'_>) -> Result<Receipt, SendError> {
///         Ok(Receipt::delivered())
///     }
/// }
///
/// fn transport(is_quiet: bool) -> impl Transport {
///     if is_quiet { Either::Left(Nowhere) } else { Either::Right(Stdout) }
/// }
/// # drop(transport(true));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Either<A, B> {
    /// The first.
    Left(A),
    /// The second.
    Right(B),
}

impl<A: Transport, B: Transport> Transport for Either<A, B> {
    async fn send(&mut self, batch: Batch<'_>) -> Result<Receipt, SendError> {
        match self {
            Self::Left(transport) => transport.send(batch).await,
            Self::Right(transport) => transport.send(batch).await,
        }
    }

    fn check(&self) -> Result<(), SetupError> {
        match self {
            Self::Left(transport) => transport.check(),
            Self::Right(transport) => transport.check(),
        }
    }

    fn destination(&self) -> Option<&str> {
        match self {
            Self::Left(transport) => transport.destination(),
            Self::Right(transport) => transport.destination(),
        }
    }

    fn warning(&self) -> Option<SetupError> {
        match self {
            Self::Left(transport) => transport.warning(),
            Self::Right(transport) => transport.warning(),
        }
    }

    fn blame<'a>(error: &'a (dyn Error + 'static)) -> Option<Blame<'a>> {
        A::blame(error).or_else(|| B::blame(error))
    }

    fn classifier(&self) -> Classify {
        match self {
            Self::Left(transport) => transport.classifier(),
            Self::Right(transport) => transport.classifier(),
        }
    }
}
