//! The simulator: it finds faults reproducibly, and finds none in the crate.
#![cfg(feature = "sim")]

extern crate alloc;

mod capture;
mod http_events;
mod parts;
mod records;
mod runs;
mod scrub;
#[cfg(feature = "spool")]
mod spools;
mod sweeps;
