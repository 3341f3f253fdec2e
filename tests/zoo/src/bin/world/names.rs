//! A name with two addresses, of which the first swallows packets.

use crate::World;
use crate::behind_nginx::summary;
use crate::links::Dropping;
use crate::report::{Checked, ensure};
use crate::sessions::{Clients, Http, PAIRS, Plan, log, on_each};
use core::net::SocketAddr;
use std::net::ToSocketAddrs as _;
use tinkex_telemetry::Options;

impl World {
    /// The second address must be reached within one attempt, whose limit is `http_timeout`.
    pub(crate) fn first_address_is_dead(&self) -> Checked {
        let name = "twofold.test";
        let addresses: Vec<_> = (name, self.ports.http)
            .to_socket_addrs()
            .map_err(|error| error.to_string())?
            .collect();
        let is_twofold = addresses.first().is_some_and(SocketAddr::is_ipv6)
            && addresses.last().is_some_and(SocketAddr::is_ipv4);
        ensure(is_twofold, format_args!("{name} is {addresses:?}"))?;
        let dead = format!("ip6 daddr ::1 tcp dport {}", self.ports.http);
        let dropping = Dropping::start(&[&dead])?;
        let clients = Clients::default();
        // Surf is left out: its own backend waits for the first address, as its documentation says.
        let pairs = PAIRS.iter().filter(|pair| pair.http != Http::Surf);
        let outcomes = on_each(pairs, |pair| {
            let url = format!("http://{name}:{}/buffered", self.ports.http);
            let mut plan = Plan::new(format!("twofold-{}", pair.name), url);
            plan.options = Options::default();
            plan.run(pair, &clients, |handle| {
                log(handle, 3, 100);
                // Not longer than the one attempt that is to succeed.
                let _ = handle.wait_until_drained_blocking(Options::default().http_timeout);
            })
        });
        let mut problems = Vec::new();
        for outcome in &outcomes {
            problems.extend(outcome.lost_nothing(&self.collector).err());
            // That the key goes to a host over plain http is reported, too.
            let failed = |reason: &&String| reason.contains("send failed");
            if let Some(reason) = outcome.reasons.iter().find(failed) {
                problems.push(format!("{}: {reason}", outcome.pair));
            }
        }
        ensure(problems.is_empty(), problems.join("; "))?;
        ensure(dropping.count()? > 0, "no client tried the first address")?;
        Ok(summary(&outcomes))
    }
}
