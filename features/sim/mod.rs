//! A deterministic simulation: a clock, an executor, a network, a server and a host whose whole behaviour a seed
//! decides. The engine and the driver in it are the ones that run in production; hours pass in milliseconds.
//!
//! # Testing your app with the simulator
//!
//! A test says what the application does and what must be true. Faults come from the seed:
//!
//! ```
//! use std::time::Duration;
//! use tinkex_telemetry::sim::{Faults, Reply, Sim, seed_from_env};
//! use tinkex_telemetry::{Options, fields, sometimes};
//!
//! # fn main() {
//! Sim::new(seed_from_env())
//!     .faults(Faults::swarm())
//!     .run(|env| async move {
//!         let reporter = env.reporter(Options::default());
//!         reporter.log("a", fields! { n: 1 });
//!         env.advance(Duration::from_secs(30)).await;
//!         env.server().reply(Reply::status(429).retry_after("120"));
//!         env.heal(); // no more faults: from here everything must settle
//!         let drain = reporter.stop(Duration::from_secs(5)).await;
//!         sometimes!(drain.remaining > 0, "a stop meets its deadline");
//!     })
//!     .assert_ok();
//! # }
//! ```
//!
//! After every step the simulation checks what must always hold (see [`Invariants`]); a test adds what must hold for it
//! with [`Sim::check`]. When something does not, the message says how to run the same again:
//! `TINKEX_SIM_SEED=… cargo test …`. A [`Sweep`] runs many seeds, compares two runs of each when asked, says which
//! [`sometimes!`](crate::sometimes) points were never reached, and reduces a failure to the faults and operations that
//! it needs.
//!
//! # The parts by themselves
//!
//! * [`SimClock`], moved by hand, wherever a [`Clock`](crate::Clock) is wanted.
//! * [`SimExecutor`] and [`SimSpawner`], a runtime in a plain `#[test]`.
//! * [`ManualTransport`], which lets the test answer each send.
//! * [`SimServer`] with any [`Transport`](crate::Transport) or [`HttpClient`](crate::HttpClient) in front of it:
//!   [`SimServer::http`] is a client to wrap.
//!
//! Under tokio's paused time or embassy's mock driver, [`ManualTransport`] works as well: it needs no clock.
//!
//! # What is simulated, and what is not
//!
//! One thread: nothing of a data race shows. The executor's order of tasks, the timers, the network, the wall clock and
//! the ids come from the seed; nothing reads the machine's clock or randomness. The simulated server holds small
//! requests, and one in 256 of the others, to the strict check of [`wire`](crate::wire); of the rest it reads ids and
//! indices alone. A `Serialize` that depends on a hash map's order, or a scenario that reads the real clock, makes runs differ:
//! [`Sweep::check_determinism`] finds it.

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
pub use manual::{ManualTransport, Pending};
pub use net::SimHttp;
pub use run::{Failure, Report, Sim, seed_from_env};
pub use server::Reply;
pub use sweep::{Sweep, SweepReport};
pub use workload::{Op, Workload};
