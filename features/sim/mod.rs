//! A deterministic simulation: a clock, an executor, a network, a server and a host whose whole behaviour a seed
//! decides. The engine and the driver in it are the ones that run in production; hours pass in milliseconds.
#![doc = ""]
// Its snippets are compiled, and run, by `tests/zoo`, which has the macros of tokio.
#![cfg_attr(not(doctest), doc = include_str!("guide.md"))]

mod calm;
mod clock;
mod coverage;
mod env;
mod executor;
mod faults;
mod invariants;
mod manual;
mod net;
mod rng;
mod run;
mod server;
mod shrink;
mod sweep;
mod timers;
mod workload;

pub use clock::SimClock;
pub use coverage::{Point, coverage};
pub use env::{Env, SimBuilder, SimReporter, SimServer};
pub use executor::{SimExecutor, SimLocalSpawner, SimSpawner};
pub use faults::{Fault, Faults};
pub use invariants::{Invariants, SessionView, View};
pub use manual::{ManualTransport, PendingSend};
pub use net::SimHttp;
pub use run::{Failure, Report, Sim, seed_from_env};
pub use server::Reply;
pub use sweep::{Sweep, SweepReport};
pub use workload::{Op, Workload};
