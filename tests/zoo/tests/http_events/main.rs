//! HTTP events: a start and exactly one end for every request, and no secret in any of them.

extern crate alloc;

mod clients;
mod events;
mod secrets;
mod self_suppression;
mod server;
mod services;
