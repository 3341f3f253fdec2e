//! The spool in simulation: a disk with faults, which the module `sim` uses as well, and in tests the real writer,
//! keeper, forwarder and transports of several processes, over that disk, a clock and a backend. A seed decides everything.

#[cfg(test)]
mod backend;
#[cfg(test)]
mod book;
pub(crate) mod damage;
#[cfg(test)]
mod discarding;
pub(crate) mod disk;
#[cfg(test)]
mod faults;
pub(crate) mod files;
pub(crate) mod machine;
#[cfg(test)]
mod outage;
#[cfg(test)]
mod plan;
#[cfg(test)]
mod process;
pub(crate) mod rng;
#[cfg(test)]
mod run;
#[cfg(test)]
mod session;
#[cfg(test)]
mod stage;
#[cfg(test)]
mod sweep;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod world;
