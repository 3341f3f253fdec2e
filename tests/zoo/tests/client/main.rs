//! The clients of the backend: every call on three runtimes, and outages in simulated time.
#![allow(
    clippy::std_instead_of_alloc,
    clippy::std_instead_of_core,
    reason = "a program, not a library"
)]

mod calls;
mod connect;
mod ends;
#[cfg(unix)]
mod forks;
mod heartbeats;
mod matrix;
mod memory;
mod order;
mod outages;
mod polls;
mod reports;
mod runtimes;
mod sim_harness;
mod stalls;
mod storms;
mod sweep;
mod table;
mod usage;

/// Runs generic cases on each combination of runtime and HTTP client.
macro_rules! on_each_stack {
    ($($case:ident),* $(,)?) => {
        mod on_tokio_with_reqwest {
            $(#[test] fn $case() { super::$case::<crate::runtimes::TokioReqwest>(); })*
        }
        mod on_threads_with_ureq {
            $(#[test] fn $case() { super::$case::<crate::runtimes::ThreadUreq>(); })*
        }
        mod on_smol_with_surf {
            $(#[test] fn $case() { super::$case::<crate::runtimes::SmolSurf>(); })*
        }
    };
}
pub(crate) use on_each_stack;
