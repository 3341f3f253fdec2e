//! A forward proxy, named by the variables that programs read, where each session is a program of its own, or to a
//! client's builder.

use crate::World;
use crate::behind_nginx::bursts;
use crate::report::{Checked, ensure};
use crate::servers::Tinyproxy;
use crate::sessions::{Clients, Http, Plan, each_of, pair_of};
use crate::tls::trusting;
use std::path::Path;
use std::process::Command;
use tinkex_telemetry::{Reqwest, Ureq};

const CLIENTS: [Http; 2] = [Http::Ureq, Http::Reqwest];

/// The program's arguments: a session of its own, whose ledger it prints.
pub(crate) fn program(folder: &Path, arguments: &[String]) -> Result<String, String> {
    let [client, id, url] = arguments else {
        return Err("a session needs a client, an id and a URL".to_owned());
    };
    let named = CLIENTS.iter().find(|it| format!("{it:?}") == *client);
    let pair = pair_of(*named.ok_or("there is no such client")?);
    let clients = match url.starts_with("https:") {
        true => trusting(folder)?,
        false => Clients::default(),
    };
    let outcome = Plan::new(id.clone(), url.clone()).run(pair, &clients, bursts);
    let stats = outcome.stats;
    ensure(
        stats.is_balanced() && stats.queued == 0 && stats.delivered == stats.accepted,
        &outcome,
    )?;
    Ok(stats.delivered.to_string())
}

impl World {
    /// Runs a session in a program with these variables.
    fn program(&self, http: Http, id: &str, url: &str, variables: &[(&str, &str)]) -> Checked {
        let program = std::env::current_exe().map_err(|error| error.to_string())?;
        let output = Command::new(program)
            .arg(&self.folder)
            .args(["--session", &format!("{http:?}"), id, url])
            .envs(variables.iter().copied())
            .output()
            .map_err(|error| error.to_string())?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
        ensure(
            output.status.success(),
            format_args!("{}", text(&output.stderr)),
        )?;
        let kept = self.collector.session(id).map_or(0, |it| it.len());
        ensure(
            text(&output.stdout) == kept.to_string(),
            format_args!("the collector has {kept} events"),
        )?;
        Ok(format!("{kept} events"))
    }

    /// Runs each client's program and counts the proxy's requests, which must be some or none.
    fn through(&self, name: &str, url: &str, variables: &[(&str, &str)], is_used: bool) -> Checked {
        let tinyproxy = Tinyproxy::start(&self.folder, self.ports)?;
        each_of(&CLIENTS, |http| {
            let before = tinyproxy.requests();
            let id = format!("{name}-{http:?}");
            let seen = self.program(http, &id, url, variables)?;
            let count = tinyproxy.requests() - before;
            ensure(
                (count > 0) == is_used,
                format_args!("the proxy had {count} requests"),
            )?;
            Ok(seen)
        })
    }

    fn proxy_url(&self) -> String {
        format!("http://127.0.0.1:{}", self.ports.proxy)
    }

    pub(crate) fn http_proxy(&self) -> Checked {
        let url = format!("http://backend.test:{}/buffered", self.ports.http);
        self.through(
            "forwarded",
            &url,
            &[("http_proxy", &self.proxy_url())],
            true,
        )
    }

    pub(crate) fn https_proxy(&self) -> Checked {
        let url = format!("https://backend.test:{}/buffered", self.ports.https);
        self.through(
            "connected",
            &url,
            &[("HTTPS_PROXY", &self.proxy_url())],
            true,
        )
    }

    /// A proxy that is named to the client is used for every host.
    pub(crate) fn proxy_of_a_client(&self) -> Checked {
        let tinyproxy = Tinyproxy::start(&self.folder, self.ports)?;
        let proxy = self.proxy_url();
        let for_reqwest = proxy.clone();
        let clients = Clients {
            ureq: Box::new(move || Ureq::builder().proxy(&proxy).expect("a proxy").build()),
            reqwest: Box::new(move || {
                let builder = Reqwest::builder().proxy(&for_reqwest).expect("a proxy");
                builder.build().expect("a client")
            }),
            ..Clients::default()
        };
        each_of(&CLIENTS, |http| {
            let before = tinyproxy.requests();
            let url = format!("http://127.0.0.1:{}/buffered", self.ports.http);
            let plan = Plan::new(format!("proxied-{http:?}"), url);
            let outcome = plan.run(pair_of(http), &clients, bursts);
            outcome.delivered_once(&self.collector)?;
            let count = tinyproxy.requests() - before;
            ensure(count > 0, "the proxy was not used")?;
            Ok(format!("{} events", outcome.stats.delivered))
        })
    }

    pub(crate) fn no_proxy(&self) -> Checked {
        let url = format!("http://backend.test:{}/buffered", self.ports.http);
        let variables = [
            ("http_proxy", &*self.proxy_url()),
            ("no_proxy", "elsewhere.test, backend.test"),
        ];
        self.through("exempt", &url, &variables, false)
    }

    pub(crate) fn loopback_needs_no_proxy(&self) -> Checked {
        let url = format!("http://127.0.0.1:{}/buffered", self.ports.http);
        self.through(
            "loopback",
            &url,
            &[("http_proxy", &self.proxy_url())],
            false,
        )
    }
}
