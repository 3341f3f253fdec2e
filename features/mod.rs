//! The adapters: everything that touches a runtime, a socket or a disk. One file or folder for each Cargo feature.

#[cfg(feature = "client")]
#[cfg_attr(docsrs, doc(cfg(feature = "client")))]
pub mod client;
#[cfg(feature = "collector")]
#[cfg_attr(docsrs, doc(cfg(feature = "collector")))]
pub mod collector;

#[cfg(feature = "anyhow")]
mod anyhow;
#[cfg(feature = "async-std")]
mod async_std;
#[cfg(any(
    feature = "async-std",
    feature = "smol",
    feature = "thread",
    feature = "tokio"
))]
mod common;
#[cfg(feature = "embassy")]
mod embassy;
#[cfg(feature = "eyre")]
mod eyre;
#[cfg(feature = "http")]
mod http;
#[cfg(all(feature = "thread", feature = "ureq"))]
mod init;
#[cfg(feature = "reqwest")]
mod reqwest;
#[cfg(feature = "reqwest-middleware")]
mod reqwest_middleware;
#[cfg(feature = "smol")]
mod smol;
#[cfg(feature = "surf")]
mod surf;
#[cfg(feature = "thread")]
mod thread;
#[cfg(feature = "tokio")]
mod tokio;
#[cfg(feature = "tower")]
mod tower;
#[cfg(feature = "tracing")]
mod tracing;
#[cfg(feature = "ureq")]
mod ureq;

#[cfg(feature = "async-std")]
#[cfg_attr(docsrs, doc(cfg(feature = "async-std")))]
pub use self::async_std::AsyncStd;
#[cfg(feature = "embassy")]
#[cfg_attr(docsrs, doc(cfg(feature = "embassy")))]
pub use self::embassy::Embassy;
#[cfg(all(feature = "alloc", feature = "embassy"))]
#[cfg_attr(docsrs, doc(cfg(all(feature = "alloc", feature = "embassy"))))]
pub use self::embassy::EmbassyPool;
#[cfg(feature = "sim")]
#[cfg_attr(docsrs, doc(cfg(feature = "sim")))]
pub mod sim;

#[cfg(any(feature = "collector", feature = "sim"))]
#[cfg_attr(docsrs, doc(cfg(any(feature = "collector", feature = "sim"))))]
pub mod wire;

#[cfg(feature = "http")]
#[cfg_attr(docsrs, doc(cfg(feature = "http")))]
pub use self::http::{
    AnswerBounds, Config, ConfigError, ConfigProblem, HttpCall, HttpClient, HttpError, HttpEvents,
    HttpTransport, MAX_ANSWER_BYTES, Observed, RetryCount,
};
#[cfg(all(feature = "thread", feature = "ureq"))]
#[cfg_attr(docsrs, doc(cfg(all(feature = "thread", feature = "ureq"))))]
pub use self::init::{InitError, Telemetry, init};
#[cfg(feature = "reqwest")]
#[cfg_attr(docsrs, doc(cfg(feature = "reqwest")))]
pub use self::reqwest::Reqwest;
#[cfg(feature = "smol")]
#[cfg_attr(docsrs, doc(cfg(feature = "smol")))]
pub use self::smol::Smol;
#[cfg(feature = "surf")]
#[cfg_attr(docsrs, doc(cfg(feature = "surf")))]
pub use self::surf::Surf;
#[cfg(feature = "thread")]
#[cfg_attr(docsrs, doc(cfg(feature = "thread")))]
pub use self::thread::Thread;
#[cfg(feature = "tokio")]
#[cfg_attr(docsrs, doc(cfg(feature = "tokio")))]
pub use self::tokio::Tokio;
#[cfg(feature = "tower")]
#[cfg_attr(docsrs, doc(cfg(feature = "tower")))]
pub use self::tower::{ObservedBody, ObservedFuture};
#[cfg(feature = "tracing")]
#[cfg_attr(docsrs, doc(cfg(feature = "tracing")))]
pub use self::tracing::{TelemetryFilter, TelemetryLayer};
#[cfg(feature = "ureq")]
#[cfg_attr(docsrs, doc(cfg(feature = "ureq")))]
pub use self::ureq::Ureq;

/// The README's snippets, compiled as tests of the documentation.
#[cfg(all(
    doctest,
    feature = "thread",
    feature = "tokio",
    feature = "ureq",
    feature = "reqwest",
    feature = "tracing",
    feature = "collector"
))]
#[doc = include_str!("../README.md")]
mod readme {}
