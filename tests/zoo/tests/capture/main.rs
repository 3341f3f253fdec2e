//! Capture logs an application's failures without changing what it does, on the thread, tokio and smol runtimes.

extern crate alloc;

mod blocks;
mod faults;
mod futures;
mod nested;
mod support;
mod tasks;
