//! The crate among other people's runtimes, clients and tools: the tests are in `tests/`, and here the pages whose
//! snippets need them, compiled as tests of the documentation.

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

// What is compiled here is no doctest of the crate's own: features/ includes it for readers alone.
pages! {
    readme: "../../../README.md",
    embassy: "../../../features/embassy/example.md",
    embassy_pool: "../../../features/embassy/pool.md",
    embassy_utc: "../../../features/embassy/utc.md",
    sim: "../../../features/sim/guide.md",
    surf: "../../../features/surf.md",
}
