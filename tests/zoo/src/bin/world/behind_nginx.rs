//! Sessions behind nginx: its limits, its buffers, its short connections and its restarts.

use crate::World;
use crate::report::{Checked, ensure};
use crate::servers::Logged;
use crate::sessions::{Clients, Outcome, PAIRS, Pair, Plan, log, on_each};
use core::time::Duration;
use std::thread;
use tinkex_telemetry::Handle;
use tinkex_telemetry::collector::Reply;

/// Several batches, one after another.
pub(crate) fn bursts(handle: &Handle) {
    for _ in 0..5 {
        log(handle, 6, 200);
        handle.flush();
        thread::sleep(Duration::from_millis(60));
    }
}

impl World {
    /// Runs a session on each pair under this path of nginx.
    fn sessions(&self, path: &str, work: fn(&Handle)) -> Vec<Outcome> {
        let clients = Clients::default();
        on_each(PAIRS, |pair| self.session(path, pair, &clients, work))
    }

    fn session(&self, path: &str, pair: &Pair, clients: &Clients, work: fn(&Handle)) -> Outcome {
        let url = format!("http://127.0.0.1:{}/{path}", self.ports.http);
        Plan::new(format!("{path}-{}", pair.name), url).run(pair, clients, work)
    }

    /// What nginx logged of these sessions.
    fn logged(&self, outcomes: &[Outcome]) -> Vec<Logged> {
        let mut requests = self.nginx.lock().expect("no panic").requests();
        requests.retain(|request| outcomes.iter().any(|it| it.id == request.session));
        requests
    }

    pub(crate) fn buffered(&self) -> Checked {
        self.each_delivers_once("buffered")
    }

    pub(crate) fn unbuffered(&self) -> Checked {
        self.each_delivers_once("unbuffered")
    }

    fn each_delivers_once(&self, path: &str) -> Checked {
        let outcomes = self.sessions(path, bursts);
        for outcome in &outcomes {
            outcome.delivered_once(&self.collector)?;
        }
        let refused = self.logged(&outcomes);
        let refused = refused.iter().filter(|it| it.status != 200).count();
        ensure(
            refused == 0,
            format_args!("{refused} requests were refused"),
        )?;
        Ok(summary(&outcomes))
    }

    /// 100 events, 99 of them of 9 kB, are one batch for the session and many for nginx.
    pub(crate) fn too_large(&self) -> Checked {
        self.each_survives("small", 413, |handle| log(handle, 99, 9000))
    }

    pub(crate) fn too_large_and_closed(&self) -> Checked {
        self.each_survives("abrupt", 413, |handle| log(handle, 99, 9000))
    }

    /// What is too large alone is lost alone.
    pub(crate) fn single_events_too_large(&self) -> Checked {
        let outcomes = self.sessions("tiny", |handle| {
            for _ in 0..3 {
                log(handle, 10, 100);
                log(handle, 1, 9000);
            }
        });
        for outcome in &outcomes {
            outcome.is_exact(&self.collector)?;
            let stats = &outcome.stats;
            ensure(
                stats.dropped.too_large == 3 && stats.dropped.total() == 3,
                format_args!("{}: {outcome}", outcome.pair),
            )?;
        }
        Ok(format!(
            "{}, each lost the 3 that are larger",
            summary(&outcomes)
        ))
    }

    /// nginx answers 504, but the collector has kept the events: the next attempt must be recognizable.
    pub(crate) fn impatient(&self) -> Checked {
        self.collector
            .always(Reply::accept().delay(Duration::from_millis(400)));
        let outcomes = thread::scope(|scope| {
            scope.spawn(|| {
                thread::sleep(Duration::from_millis(350));
                self.collector.always(Reply::accept());
            });
            self.sessions("impatient", bursts)
        });
        let mut duplicates = 0;
        for outcome in &outcomes {
            outcome.lost_nothing(&self.collector)?;
            let record = self.collector.session(&outcome.id).ok_or("nothing came")?;
            duplicates += record.duplicates();
        }
        ensure(duplicates > 0, "no response was lost")?;
        Ok(format!("{}, {duplicates} duplicates", summary(&outcomes)))
    }

    /// Nothing can be delivered, and the reason names the status.
    pub(crate) fn gone(&self) -> Checked {
        let outcomes = self.nothing_arrives("gone", "HTTP 502")?;
        for outcome in &outcomes {
            let dropped = &outcome.stats.dropped;
            ensure(
                dropped.retries_exhausted == dropped.total(),
                format_args!("{}: {outcome}", outcome.pair),
            )?;
        }
        Ok(format!("{} sessions said why", outcomes.len()))
    }

    /// No client follows a redirect: the key stays where it was meant for.
    pub(crate) fn moved(&self) -> Checked {
        let outcomes = self.nothing_arrives("moved", "HTTP 301")?;
        for outcome in &outcomes {
            let dropped = &outcome.stats.dropped;
            ensure(
                dropped.rejected == dropped.total(),
                format_args!("{}: {outcome}", outcome.pair),
            )?;
        }
        let followed = self.logged(&outcomes);
        let followed = followed.iter().filter(|it| it.status != 301).count();
        ensure(followed == 0, format_args!("{followed} requests followed"))?;
        Ok(format!("{} sessions did not follow", outcomes.len()))
    }

    fn nothing_arrives(&self, path: &str, reason: &str) -> Result<Vec<Outcome>, String> {
        let outcomes = self.sessions(path, |handle| log(handle, 5, 100));
        for outcome in &outcomes {
            outcome.is_exact(&self.collector)?;
            let says_why = outcome.reasons.iter().any(|it| it.contains(reason));
            ensure(
                outcome.stats.delivered == 0 && says_why,
                format_args!("{}: {outcome}", outcome.pair),
            )?;
        }
        Ok(outcomes)
    }

    pub(crate) fn down(&self) -> Checked {
        self.each_survives("down", 503, bursts)
    }

    fn each_survives(&self, path: &str, status: u16, work: fn(&Handle)) -> Checked {
        let outcomes = self.sessions(path, work);
        for outcome in &outcomes {
            outcome.lost_nothing(&self.collector)?;
        }
        let requests = self.logged(&outcomes);
        for outcome in &outcomes {
            let refused = |it: &&Logged| it.session == outcome.id && it.status == status;
            let count = requests.iter().filter(refused).count();
            ensure(
                count > 0,
                format_args!("{} never met a {status}", outcome.pair),
            )?;
        }
        let count = requests.iter().filter(|it| it.status == status).count();
        Ok(format!("{}, {count} times {status}", summary(&outcomes)))
    }

    /// After a 429 with `Retry-After: 1`, no session asks again within that second.
    pub(crate) fn busy(&self) -> Checked {
        let seen = self.each_survives("busy", 429, bursts)?;
        let requests = self.nginx.lock().expect("no panic").requests();
        for pair in PAIRS {
            let id = format!("busy-{}", pair.name);
            let own: Vec<_> = requests.iter().filter(|it| it.session == id).collect();
            for two in own.windows(2).filter(|two| two[0].status == 429) {
                // nginx logs a request some milliseconds after the client has its response.
                let gap = two[1].at - two[0].at;
                ensure(
                    gap >= 0.95,
                    format_args!("{}: asked again after {gap:.3} s", pair.name),
                )?;
            }
        }
        Ok(seen)
    }

    /// nginx closes each connection after two requests, or when it was idle for 40 ms.
    pub(crate) fn cut(&self) -> Checked {
        let outcomes = self.sessions("cut", |handle| {
            for pause in 0..12 {
                log(handle, 3, 100);
                handle.flush();
                // Around the 40 ms after which nginx closes.
                thread::sleep(Duration::from_millis(30 + 2 * pause));
            }
        });
        for outcome in &outcomes {
            outcome.lost_nothing(&self.collector)?;
        }
        let requests = self.logged(&outcomes);
        let longest = requests.iter().map(|it| it.on_connection).max();
        ensure(
            longest == Some(2),
            format_args!("a connection had {longest:?} requests"),
        )?;
        Ok(format!(
            "{}, {} requests",
            summary(&outcomes),
            requests.len()
        ))
    }

    /// Reloaded, stopped for a second and started again while every session is sending.
    pub(crate) fn restarts(&self) -> Checked {
        let clients = Clients::default();
        let outcomes = thread::scope(|scope| {
            let restarts = scope.spawn(|| -> Result<(), String> {
                for _ in 0..2 {
                    thread::sleep(Duration::from_millis(300));
                    self.nginx.lock().expect("no panic").reload()?;
                }
                thread::sleep(Duration::from_millis(300));
                let mut nginx = self.nginx.lock().expect("no panic");
                nginx.stop()?;
                thread::sleep(Duration::from_secs(1));
                nginx.resume()
            });
            let outcomes = on_each(PAIRS, |pair| {
                let url = format!("http://127.0.0.1:{}/buffered", self.ports.http);
                let mut plan = Plan::new(format!("restarts-{}", pair.name), url);
                // Attempts at 0, 0.6, 1.8 and 4.2 s.
                plan.options.retry_base_delay = Duration::from_millis(600);
                plan.run(pair, &clients, |handle| {
                    for _ in 0..60 {
                        log(handle, 2, 500);
                        handle.flush();
                        thread::sleep(Duration::from_millis(40));
                    }
                })
            });
            restarts.join().expect("no panic").map(|()| outcomes)
        })?;
        for outcome in &outcomes {
            outcome.lost_nothing(&self.collector)?;
        }
        let failed = |it: &&Outcome| {
            it.reasons
                .iter()
                .any(|reason| reason.contains("will retry"))
        };
        let met = outcomes.iter().filter(failed).count();
        ensure(met > 0, "no session noticed the restart")?;
        Ok(format!("{}, {met} had to retry", summary(&outcomes)))
    }

    /// All at once, so that they also compete for two processors.
    pub(crate) fn together(&self) -> Checked {
        const PATHS: [&str; 7] = [
            "buffered",
            "unbuffered",
            "small",
            "abrupt",
            "busy",
            "down",
            "cut",
        ];
        let clients = Clients::default();
        let each = PATHS
            .iter()
            .flat_map(|path| PAIRS.iter().map(move |pair| (*path, pair)));
        let outcomes = on_each(each, |(path, pair)| {
            let url = format!("http://127.0.0.1:{}/{path}", self.ports.http);
            let plan = Plan::new(format!("together-{path}-{}", pair.name), url);
            plan.run(pair, &clients, |handle| {
                bursts(handle);
                log(handle, 20, 9000);
            })
        });
        for outcome in &outcomes {
            outcome.lost_nothing(&self.collector)?;
        }
        Ok(summary(&outcomes))
    }
}

pub(crate) fn summary(outcomes: &[Outcome]) -> String {
    let delivered: u64 = outcomes.iter().map(|it| it.stats.delivered).sum();
    format!("{} sessions, {delivered} events", outcomes.len())
}
