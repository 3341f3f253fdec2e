//! The embedded collector, through its public API and a socket.
#![cfg(feature = "collector")]

extern crate alloc;

mod calls;
mod client;
mod guests;
mod losses;
mod replies;
mod storage;
mod versions;
mod violations;
