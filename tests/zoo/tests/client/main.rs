//! The clients of the backend: each row of its interface on three runtimes, and bad weather in simulated time.
#![allow(
    clippy::std_instead_of_alloc,
    clippy::std_instead_of_core,
    reason = "a program, not a library"
)]

mod calls;
mod ends;
#[cfg(unix)]
mod forks;
mod order;
mod polls;
mod reports;
mod sky;
mod table;
mod weather;
mod worlds;

/// Runs cases that are generic in their world in each of the worlds.
macro_rules! in_each_world {
    ($($case:ident),* $(,)?) => {
        mod on_tokio_with_reqwest {
            $(#[test] fn $case() { super::$case::<crate::worlds::TokioReqwest>(); })*
        }
        mod on_threads_with_ureq {
            $(#[test] fn $case() { super::$case::<crate::worlds::ThreadUreq>(); })*
        }
        mod on_smol_with_surf {
            $(#[test] fn $case() { super::$case::<crate::worlds::SmolSurf>(); })*
        }
    };
}
pub(crate) use in_each_world;
