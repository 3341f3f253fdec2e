//! What the benchmarks of the send path share. A library, because none of them needs all of it.

#![allow(clippy::std_instead_of_alloc, reason = "for programs")]

pub mod buffer;
pub mod by_hand;
pub mod channel;
pub mod collector;
pub mod cpu;
pub mod event;
pub mod figures;
pub mod file;
pub mod ours;
pub mod sink;
