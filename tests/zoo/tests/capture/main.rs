//! What capture logs of what an application does, and that the application does not notice: on the thread, tokio and
//! smol runtimes.

extern crate alloc;

mod blocks;
mod faults;
mod futures;
mod nested;
mod support;
mod tasks;
