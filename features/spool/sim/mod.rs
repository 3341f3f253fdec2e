//! The spool in simulation: a disk with faults, which the module `sim` uses as well, and in tests the real writer,
//! keeper, forwarder and transports of several processes, over that disk, a clock and a backend. A seed decides everything.

mod backend;
mod book;
pub(crate) mod damage;
mod discarding;
pub(crate) mod disk;
mod faults;
pub(crate) mod files;
pub(crate) mod machine;
mod outage;
mod plan;
mod process;
pub(crate) mod rng;
mod run;
mod session;
mod stage;
mod sweep;
mod tests;
mod world;
