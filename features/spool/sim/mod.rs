//! The spool in simulation: the real writer, keeper, forwarder and transports of several processes, over a simulated
//! disk, clock and backend. A seed decides everything.

mod backend;
mod book;
mod discarding;
mod disk;
mod faults;
mod files;
mod outage;
mod plan;
mod process;
mod rng;
mod run;
mod session;
mod stage;
mod sweep;
mod tests;
mod world;
