//! HTTP events: a start, and one end, whichever way a request is made and however it goes; and no secret in any of them.
#![cfg(all(
    feature = "collector",
    feature = "reqwest",
    feature = "reqwest-middleware",
    feature = "smol",
    feature = "surf",
    feature = "thread",
    feature = "tokio",
    feature = "tower",
    feature = "ureq"
))]

extern crate alloc;

mod clients;
mod own;
mod secrets;
mod server;
mod services;
mod told;
