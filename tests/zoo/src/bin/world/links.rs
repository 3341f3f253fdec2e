//! Networks that lose packets, take their time, and go away for a while.

use crate::World;
use crate::behind_nginx::{bursts, summary};
use crate::relay::Relay;
use crate::report::{Checked, ensure};
use crate::servers::run;
use crate::sessions::{Clients, Outcome, PAIRS, Plan, log, on_each};
use core::time::Duration;
use std::thread;
use tinkex_telemetry::{Handle, Options};

/// How long a link is away.
const AWAY: Duration = Duration::from_secs(3);

/// Packets that arrive at this network's sockets and are dropped, until this is dropped.
pub(crate) struct Dropping(());

impl Dropping {
    /// Each rule is a match of nft's, such as `tcp dport 80`.
    pub(crate) fn start(rules: &[&str]) -> Result<Self, String> {
        let mut script = String::from(
            "table inet world {\nchain arriving {\ntype filter hook input priority 0; policy accept;\n",
        );
        for rule in rules {
            script += &format!("{rule} counter drop\n");
        }
        script += "}\n}\n";
        run("nft", &[&script]).map(|_| Self(()))
    }

    /// How many packets it has dropped.
    pub(crate) fn count(&self) -> Result<u64, String> {
        let rules = run("nft", &["list table inet world"])?;
        let words: Vec<_> = rules.split_whitespace().collect();
        let counts = words.windows(2).filter(|two| two[0] == "packets");
        Ok(counts.filter_map(|two| two[1].parse::<u64>().ok()).sum())
    }
}

impl Drop for Dropping {
    fn drop(&mut self) {
        let _ = run("nft", &["delete table inet world"]);
    }
}

impl World {
    /// 3 % of all packets are lost and each takes 20 ms, by netem where the kernel has it.
    pub(crate) fn slow_and_lossy(&self) -> Checked {
        let netem = "qdisc add dev lo root netem delay 20ms 5ms loss 3%";
        let netem: Vec<_> = netem.split(' ').collect();
        let (outcomes, by) = match run("tc", &netem) {
            Ok(_) => {
                let outcomes = self.bursts_over("slow", self.ports.http);
                run("tc", &["qdisc", "del", "dev", "lo", "root"])?;
                (outcomes, "netem")
            }
            Err(_) => {
                let (to, from) = (
                    format!("tcp dport {} numgen random mod 100 < 3", self.ports.http),
                    format!("tcp sport {} numgen random mod 100 < 3", self.ports.http),
                );
                let lossy = Dropping::start(&[&to, &from])?;
                let relay = Relay::start(self.ports.http, Duration::from_millis(20));
                let relay = relay.map_err(|error| error.to_string())?;
                let outcomes = self.bursts_over("slow", relay.port);
                ensure(lossy.count()? > 0, "no packet was lost")?;
                (outcomes, "nftables and a relay: this kernel has no netem")
            }
        };
        for outcome in &outcomes {
            outcome.lost_nothing(&self.collector)?;
        }
        Ok(format!("{}, by {by}", summary(&outcomes)))
    }

    fn bursts_over(&self, name: &str, port: u16) -> Vec<Outcome> {
        let clients = Clients::default();
        on_each(PAIRS, |pair| {
            let url = format!("http://127.0.0.1:{port}/unbuffered");
            Plan::new(format!("{name}-{}", pair.name), url).run(pair, &clients, bursts)
        })
    }

    /// Packets vanish for three seconds, in both directions.
    pub(crate) fn packets_vanish(&self) -> Checked {
        self.outlives("vanish", || {
            let (to, from) = (
                format!("tcp dport {}", self.ports.http),
                format!("tcp sport {}", self.ports.http),
            );
            let dropping = Dropping::start(&[&to, &from])?;
            thread::sleep(AWAY);
            ensure(dropping.count()? > 0, "no packet was lost")
        })
    }

    /// The interface itself goes down, and with it every route.
    pub(crate) fn interface_goes_down(&self) -> Checked {
        self.outlives("interface", || {
            run("ip", &["link", "set", "lo", "down"])?;
            thread::sleep(AWAY);
            run("ip", &["link", "set", "lo", "up"]).map(drop)
        })
    }

    /// Runs a session with default options on each pair while the network fails.
    fn outlives(&self, name: &str, fail: impl FnOnce() -> Result<(), String> + Send) -> Checked {
        let clients = Clients::default();
        let work = |handle: &Handle| {
            for _ in 0..40 {
                log(handle, 2, 500);
                handle.flush();
                thread::sleep(Duration::from_millis(100));
            }
        };
        let outcomes = thread::scope(|scope| {
            let failure = scope.spawn(|| {
                thread::sleep(Duration::from_millis(500));
                fail()
            });
            let outcomes = on_each(PAIRS, |pair| {
                let url = format!("http://127.0.0.1:{}/buffered", self.ports.http);
                let mut plan = Plan::new(format!("{name}-{}", pair.name), url);
                plan.options = Options::default();
                plan.run(pair, &clients, work)
            });
            failure.join().expect("no panic").map(|()| outcomes)
        })?;
        let mut longest = 0.0_f64;
        for outcome in &outcomes {
            outcome.lost_nothing(&self.collector)?;
            longest = longest.max(self.longest_silence(&outcome.id));
        }
        ensure(
            longest >= 2.5,
            format_args!("the longest silence of a session was {longest:.1} s"),
        )?;
        Ok(format!(
            "{}, the longest silence {longest:.1} s",
            summary(&outcomes)
        ))
    }

    /// The longest time without a request of this session, in seconds.
    fn longest_silence(&self, id: &str) -> f64 {
        let requests = self.collector.requests();
        let own = requests.iter().filter(|it| it.session() == Some(id));
        let times: Vec<_> = own.map(|it| it.arrived()).collect();
        let gaps = times.windows(2).map(|two| (two[1] - two[0]).as_secs_f64());
        gaps.fold(0.0, f64::max)
    }
}
