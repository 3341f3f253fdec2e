//! The HTTP clients against servers, proxies and networks that misbehave, over real sockets.

extern crate alloc;

mod addresses;
mod bodies;
mod contract;
mod early;
mod kept;
mod proxies;
mod runtimes;
mod servers;
mod sessions;
mod tls;
