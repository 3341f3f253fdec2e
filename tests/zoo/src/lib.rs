//! The crate with other people's runtimes, clients and tools. The tests are in `tests/`; here are the pages whose
//! snippets need those crates, compiled as documentation tests.

/// A page, by its path from this file.
macro_rules! pages {
    ($($name:ident: $path:literal,)*) => {
        $(
            #[cfg(doctest)]
            #[doc = include_str!($path)]
            mod $name {}
        )*
    };
}

// features/ includes its pages for readers only; they are compiled here.
pages! {
    readme: "../../../README.md",
    architecture: "../../../docs/architecture.md",
    capture: "../../../docs/capture.md",
    delivery: "../../../docs/delivery.md",
    options: "../../../docs/options.md",
    runtimes: "../../../docs/runtimes.md",
    testing: "../../../docs/testing.md",
    embassy: "../../../features/embassy/example.md",
    embassy_pool: "../../../features/embassy/pool.md",
    embassy_utc: "../../../features/embassy/utc.md",
    sim: "../../../features/sim/guide.md",
    surf: "../../../features/surf.md",
}
