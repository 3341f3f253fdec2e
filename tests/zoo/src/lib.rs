//! What the tests with third-party runtimes, clients and tools share: the runtimes, the HTTP clients, and the documentation tests of the
//! pages whose snippets need those crates.

extern crate alloc;

pub mod clients;
mod local;
pub mod runtimes;

/// Pages, by their paths from this file.
macro_rules! pages {
    ($($name:ident: $path:literal,)*) => {
        /// Apart, so that a page may have the name of a module.
        #[cfg(doctest)]
        mod pages {
            $(
                #[doc = include_str!($path)]
                mod $name {}
            )*
        }
    };
}

// In features/, these pages are only included for readers; they are compiled here.
pages! {
    readme: "../../../README.md",
    architecture: "../../../docs/architecture.md",
    capture: "../../../docs/capture.md",
    delivery: "../../../docs/delivery.md",
    options: "../../../docs/options.md",
    runtimes: "../../../docs/runtimes.md",
    spool: "../../../docs/spool.md",
    testing: "../../../docs/testing.md",
    embassy: "../../../features/embassy/example.md",
    embassy_pool: "../../../features/embassy/pool.md",
    embassy_utc: "../../../features/embassy/utc.md",
    sim: "../../../features/sim/guide.md",
    surf: "../../../features/surf.md",
}
