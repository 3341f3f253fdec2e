//! Connections of our own agents: ureq's chain, with another socket at its end.

use super::socket::Socket;
use alloc::sync::{Arc, Weak};
use core::fmt;
use core::net::SocketAddr;
use core::time::Duration;
use std::io;
use std::net::TcpStream;
use std::time::Instant;
use ureq::config::Config;
use ureq::unversioned::resolver::DefaultResolver;
use ureq::unversioned::transport::{
    ConnectProxyConnector, ConnectionDetails, Connector, Either, RustlsConnector, ShutdownHandle,
    Transport,
};
use ureq::{Agent, Error, Timeout};

/// For each address, at least.
const LEAST: Duration = Duration::from_millis(10);

/// An agent whose requests make no system call that they do not need: proxies, TLS and pool are ureq's.
pub(super) fn agent(config: Config) -> Agent {
    let connector =
        ().chain(ConnectProxyConnector::default())
            .chain(Sockets)
            .chain(RustlsConnector::default());
    Agent::with_parts(config, connector, DefaultResolver::default())
}

struct Sockets;

impl<In: Transport> Connector<In> for Sockets {
    type Out = Either<In, Socket>;

    fn connect(
        &self,
        details: &ConnectionDetails<'_>,
        chained: Option<In>,
    ) -> Result<Option<Self::Out>, Error> {
        // The tunnel through a proxy.
        if let Some(tunnel) = chained {
            return Ok(Some(Either::A(tunnel)));
        }
        let timeout = details.timeout;
        let budget = timeout.not_zero().map(|budget| *budget);
        let stream = first(&details.addrs, budget, timeout.reason, connect)?;
        if details.config.no_delay() {
            stream.set_nodelay(true)?;
        }
        let stream = Arc::new(stream);
        let handle: Weak<TcpStream> = Arc::downgrade(&stream);
        (details.register_shutdown)(handle as Weak<dyn ShutdownHandle>)?;
        let max_input = details.config.input_buffer_size();
        Ok(Some(Either::B(Socket::new(stream, max_input))))
    }
}

fn connect(address: &SocketAddr, limit: Option<Duration>) -> io::Result<TcpStream> {
    match limit {
        Some(limit) => TcpStream::connect_timeout(address, limit),
        None => TcpStream::connect(address),
    }
}

/// Connects to the first address that accepts. The first may take half of the budget or more, each of the others half
/// as long as the one before, so that all have their turn.
fn first<T>(
    addresses: &[SocketAddr],
    budget: Option<Duration>,
    reason: Timeout,
    mut connect: impl FnMut(&SocketAddr, Option<Duration>) -> io::Result<T>,
) -> Result<T, Error> {
    let started = Instant::now();
    let mut last = Error::Io(io::ErrorKind::ConnectionRefused.into());
    for (n, address) in addresses.iter().enumerate() {
        let limit = budget.map(|budget| budget.mul_f64(share(n, addresses.len())).max(LEAST));
        last = match connect(address, limit) {
            Ok(connected) => return Ok(connected),
            Err(error) if is_timeout(&error) => {
                if budget.is_some_and(|budget| started.elapsed() > budget) {
                    return Err(Error::Timeout(reason));
                }
                Error::Timeout(Timeout::Connect)
            }
            Err(error) if is_of_the_address(&error) => error.into(),
            Err(error) => return Err(error.into()),
        };
    }
    Err(last)
}

/// The part of the budget that belongs to the `n`th of so many addresses.
fn share(n: usize, addresses: usize) -> f64 {
    let halves = |n: usize| 0.5_f64.powi(i32::try_from(n).unwrap_or(i32::MAX));
    halves(n) / (2.0 * (1.0 - halves(addresses)))
}

fn is_timeout(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock
    )
}

/// Whether another address may do.
fn is_of_the_address(error: &io::Error) -> bool {
    /// What a firewall makes of an address family that it blocks on Windows.
    const WSAEACCES: i32 = 10013;
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionRefused
            | io::ErrorKind::HostUnreachable
            | io::ErrorKind::NetworkUnreachable
            | io::ErrorKind::NetworkDown
            | io::ErrorKind::AddrNotAvailable
    ) || (cfg!(windows) && error.raw_os_error() == Some(WSAEACCES))
}

impl fmt::Debug for Sockets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Sockets")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec::Vec;
    use core::net::{IpAddr, Ipv4Addr};

    const BUDGET: Duration = Duration::from_secs(9);

    fn addresses(count: u16) -> Vec<SocketAddr> {
        let ip = IpAddr::V4(Ipv4Addr::LOCALHOST);
        (1..=count).map(|port| SocketAddr::new(ip, port)).collect()
    }

    /// The limits that were given, and the result of attempts with these outcomes.
    fn attempts(outcomes: &[Option<io::ErrorKind>]) -> (Vec<Duration>, Result<u16, Error>) {
        let mut limits = Vec::new();
        let addresses = addresses(u16::try_from(outcomes.len()).expect("a few"));
        let result = first(
            &addresses,
            Some(BUDGET),
            Timeout::Connect,
            |address, limit| {
                let outcome = outcomes[limits.len()];
                limits.extend(limit);
                outcome.map_or(Ok(address.port()), |kind| Err(kind.into()))
            },
        );
        (limits, result)
    }

    #[test]
    fn of_two_addresses_the_first_has_two_thirds_of_the_time() {
        let (limits, result) = attempts(&[Some(io::ErrorKind::TimedOut), None]);
        assert_eq!(limits.len(), 2);
        assert!(limits[0].abs_diff(Duration::from_secs(6)) < LEAST);
        assert!(limits[1].abs_diff(Duration::from_secs(3)) < LEAST);
        assert!(matches!(result, Ok(2)));
        let (limits, _) = attempts(&[None]);
        assert_eq!(limits, [BUDGET]);
    }

    #[test]
    fn the_shares_of_many_addresses_are_the_whole_budget() {
        for addresses in 1..=16 {
            let sum: f64 = (0..addresses).map(|n| share(n, addresses)).sum();
            assert!((sum - 1.0).abs() < 1e-9, "{addresses}: {sum}");
        }
    }

    #[test]
    fn an_address_that_cannot_be_reached_leaves_its_turn_to_the_next() {
        for kind in [
            io::ErrorKind::ConnectionRefused,
            io::ErrorKind::HostUnreachable,
            io::ErrorKind::NetworkUnreachable,
            io::ErrorKind::NetworkDown,
            io::ErrorKind::AddrNotAvailable,
            io::ErrorKind::WouldBlock,
        ] {
            let (limits, result) = attempts(&[Some(kind), None]);
            assert!(matches!(result, Ok(2)), "{kind}");
            assert_eq!(limits.len(), 2);
        }
    }

    #[test]
    fn any_other_error_ends_the_attempt_and_the_last_one_is_reported() {
        let denied = io::ErrorKind::PermissionDenied;
        let (limits, result) = attempts(&[Some(denied), None]);
        assert!(matches!(result, Err(Error::Io(error)) if error.kind() == denied));
        assert_eq!(limits.len(), 1);
        let unreachable = io::ErrorKind::HostUnreachable;
        let (_, result) = attempts(&[Some(io::ErrorKind::TimedOut), Some(unreachable)]);
        assert!(matches!(result, Err(Error::Io(error)) if error.kind() == unreachable));
        let (_, result) = attempts(&[Some(unreachable), Some(io::ErrorKind::TimedOut)]);
        assert!(matches!(result, Err(Error::Timeout(Timeout::Connect))));
    }
}
