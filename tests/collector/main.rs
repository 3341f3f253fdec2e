//! The embedded collector, through its public API and a socket.
#![cfg(feature = "collector")]

mod answers;
mod binary;
mod client;
mod keeping;
mod violations;
