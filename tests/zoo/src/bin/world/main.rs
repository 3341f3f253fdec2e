//! A world that is not ours: sessions of every runtime and client through nginx, forward proxies and networks that fail.
//!
//! `ci/world` runs this program in a network namespace of its own, with a folder for its files as the first argument.

extern crate alloc;

mod behind_nginx;
mod early;
mod links;
mod names;
mod proxies;
mod refused_early;
mod relay;
mod report;
mod servers;
mod sessions;
mod tls;

use report::{Checked, Report};
use servers::{Nginx, Ports};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Mutex;
use tinkex_telemetry::collector::Collector;

/// What all checks use.
pub(crate) struct World {
    folder: PathBuf,
    ports: Ports,
    collector: Collector,
    nginx: Mutex<Nginx>,
}

impl World {
    fn start(folder: &Path) -> Result<Self, String> {
        let collector = Collector::start().map_err(|error| error.to_string())?;
        let ports = Ports::free(collector.addr().port()).map_err(|error| error.to_string())?;
        tls::write_certificates(folder)?;
        let nginx = Nginx::start(folder, ports)?;
        Ok(Self {
            folder: folder.to_owned(),
            ports,
            collector,
            nginx: Mutex::new(nginx),
        })
    }
}

/// A check that needs nothing but loopback.
type Check = (&'static str, fn(&World) -> Checked);

const CHECKS: &[Check] = &[
    ("nginx, buffering on", World::buffered),
    ("nginx, buffering off", World::unbuffered),
    ("nginx, client_max_body_size 64k", World::too_large),
    (
        "nginx, client_max_body_size 64k, lingering_close off",
        World::too_large_and_closed,
    ),
    (
        "nginx, client_max_body_size 4k",
        World::single_events_too_large,
    ),
    ("nginx, proxy_read_timeout 100ms", World::impatient),
    ("nginx, 502", World::gone),
    ("nginx, 301", World::moved),
    ("nginx, limit_req with 429 and Retry-After", World::busy),
    ("nginx, limit_req with 503", World::down),
    (
        "nginx, keepalive_requests 2, keepalive_timeout 40ms",
        World::cut,
    ),
    ("nginx, reloaded, stopped and started", World::restarts),
    ("nginx, a hundred sessions at once", World::together),
    (
        "413 before the body is sent, connection closed",
        World::early_413,
    ),
    (
        "429 before the body is sent, connection closed",
        World::early_429,
    ),
    (
        "401 before the body is sent, connection closed",
        World::early_401,
    ),
    ("TLS, by an authority that the client trusts", World::https),
    ("TLS, by an unknown authority", World::https_of_a_stranger),
    ("a proxy that the client is given", World::proxy_of_a_client),
];

/// Checks that change the network, so it must be one's own.
const NETWORK_CHECKS: &[Check] = &[
    ("http_proxy", World::http_proxy),
    ("HTTPS_PROXY", World::https_proxy),
    ("no_proxy", World::no_proxy),
    ("http_proxy and loopback", World::loopback_needs_no_proxy),
    (
        "a name whose first address swallows packets",
        World::first_address_is_dead,
    ),
    ("packets that take 20 ms or are lost", World::slow_and_lossy),
    ("packets that vanish for 3 s", World::packets_vanish),
    (
        "an interface that is down for 3 s",
        World::interface_goes_down,
    ),
];

fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    let Some(folder) = arguments.first() else {
        eprintln!("usage: world FOLDER [--namespace] [--optional] [--only TEXT]; ci/world runs it");
        return ExitCode::FAILURE;
    };
    if let [_, option, session @ ..] = &*arguments
        && option == "--session"
    {
        return match proxies::program(Path::new(folder), session) {
            Ok(delivered) => {
                println!("{delivered}");
                ExitCode::SUCCESS
            }
            Err(problem) => {
                eprintln!("{problem}");
                ExitCode::FAILURE
            }
        };
    }
    let is_given = |option| arguments.iter().any(|argument| argument == option);
    let only = arguments.iter().skip_while(|it| *it != "--only").nth(1);
    let world = match World::start(Path::new(folder)) {
        Ok(world) => world,
        Err(problem) => {
            eprintln!("world: {problem}");
            return ExitCode::FAILURE;
        }
    };
    let report = Report::default();
    let is_meant = |name: &str| only.is_none_or(|only| name.contains(only));
    for (name, check) in CHECKS.iter().filter(|(name, _)| is_meant(name)) {
        report.check(name, || check(&world));
    }
    for (name, check) in NETWORK_CHECKS.iter().filter(|(name, _)| is_meant(name)) {
        if is_given("--namespace") {
            report.check(name, || check(&world));
        } else {
            report.skip(name, "there is no network namespace");
        }
    }
    report.end(is_given("--optional"))
}
