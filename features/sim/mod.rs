//! Deterministic simulation: a clock, an executor, a network, a server and a host whose entire behavior follows from a
//! seed. The engine and the driver are the production ones; simulated hours pass in milliseconds.
#![doc = ""]
// Its snippets are compiled, and run, by `tests/zoo`, which has the macros of tokio.
#![cfg_attr(not(doctest), doc = include_str!("guide.md"))]

mod app;
#[cfg(feature = "spool")]
mod book;
mod clock;
mod consent;
mod contexts;
mod coverage;
#[cfg(feature = "spool")]
mod disk;
#[cfg(feature = "spool")]
mod drive;
mod env;
mod executor;
mod faults;
mod hash;
mod host;
mod invariants;
mod kept;
mod losses;
mod manual;
mod net;
mod op;
mod promises;
mod reply;
mod report;
mod rng;
mod run;
mod scan;
mod server;
mod settling;
mod shrink;
mod spawner;
#[cfg(feature = "spool")]
mod spools;
mod sweep;
mod timers;
mod workload;
mod world;

pub use clock::SimClock;
pub use coverage::{Point, coverage};
#[cfg(feature = "spool")]
#[cfg_attr(docsrs, doc(cfg(feature = "spool")))]
pub use disk::SimDisk;
pub use env::{Env, SimBuilder, SimReporter, SimServer};
pub use executor::SimExecutor;
pub use faults::{Fault, Faults};
pub use invariants::{Invariants, SessionView, View};
pub use manual::{ManualTransport, PendingSend};
pub use net::SimHttp;
pub use op::Op;
pub use reply::Reply;
pub use report::{Failure, Report};
pub use run::{Sim, seed_from_env};
pub use spawner::{SimLocalSpawner, SimSpawner};
#[cfg(feature = "spool")]
#[cfg_attr(docsrs, doc(cfg(feature = "spool")))]
pub use spools::{SimSpoolBuilder, SimSpoolReporter};
pub use sweep::{Sweep, SweepReport};
pub use workload::Workload;
