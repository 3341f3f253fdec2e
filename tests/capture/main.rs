//! What capture logs of what an application does, and that the application does not notice: on the thread, tokio and
//! smol runtimes.
#![cfg(all(
    feature = "anyhow",
    feature = "eyre",
    feature = "reqwest",
    feature = "smol",
    feature = "surf",
    feature = "thread",
    feature = "tokio",
    feature = "ureq"
))]

extern crate alloc;

mod blocks;
mod faults;
mod futures;
mod nested;
mod support;
mod tasks;
