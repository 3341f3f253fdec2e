//! The program `tinkex-telemetry`, as a process of its own.
#![cfg(all(feature = "cli", unix))]

extern crate alloc;

mod guarding;
mod load;
mod process;
mod reading;
mod receiving;
mod sending;
mod spooling;
mod wrapping;
