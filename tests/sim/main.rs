//! The simulator finds what is wrong, the same every time, and finds nothing wrong with the crate.
#![cfg(feature = "sim")]

extern crate alloc;

mod capture;
mod http_events;
mod parts;
mod runs;
mod scrub;
mod sweeps;
