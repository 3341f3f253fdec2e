//! HTTP events: a start, and one end, whichever way a request is made and however it goes; and no secret in any of them.

extern crate alloc;

mod clients;
mod own;
mod secrets;
mod server;
mod services;
mod told;
