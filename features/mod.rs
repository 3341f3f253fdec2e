//! The adapters: everything that touches a runtime, a thread or a socket. One file or folder for each Cargo feature;
//! `common`, `init`, `origins` and `wire` serve several.

#[cfg(feature = "anyhow")]
mod anyhow;
#[cfg(feature = "async-std")]
pub(crate) mod async_std;
#[cfg(feature = "cli")]
pub mod cli;
#[cfg(feature = "client")]
pub mod client;
#[cfg(feature = "collector")]
pub mod collector;
#[cfg(any(
    feature = "async-std",
    feature = "reqwest",
    feature = "smol",
    feature = "surf",
    feature = "thread",
    feature = "tokio"
))]
mod common;
#[cfg(feature = "embassy")]
pub(crate) mod embassy;
#[cfg(feature = "eyre")]
mod eyre;
#[cfg(feature = "http")]
pub(crate) mod http;
#[cfg(all(feature = "thread", feature = "ureq"))]
pub(crate) mod init;
#[cfg(feature = "nats")]
pub mod nats;
pub(crate) mod origins;
#[cfg(feature = "otlp")]
pub mod otlp;
#[cfg(feature = "reqwest")]
pub(crate) mod reqwest;
#[cfg(feature = "reqwest-middleware")]
mod reqwest_middleware;
#[cfg(feature = "signal")]
pub mod signal;
#[cfg(feature = "sim")]
pub mod sim;
#[cfg(feature = "smol")]
pub(crate) mod smol;
#[cfg(feature = "spool")]
pub mod spool;
#[cfg(feature = "surf")]
pub(crate) mod surf;
#[cfg(feature = "thread")]
pub(crate) mod thread;
#[cfg(feature = "tokio")]
pub(crate) mod tokio;
#[cfg(feature = "tower")]
pub(crate) mod tower;
#[cfg(feature = "tracing")]
pub mod tracing;
#[cfg(feature = "ureq")]
pub(crate) mod ureq;
#[cfg(any(feature = "collector", feature = "sim"))]
pub mod wire;
