//! TLS with a certificate authority of one's own.

use crate::World;
use crate::behind_nginx::{bursts, summary};
use crate::report::{Checked, ensure};
use crate::servers::run;
use crate::sessions::{Clients, Http, PAIRS, Pair, Plan, on_each};
use core::time::Duration;
use std::fs;
use std::path::Path;
use tinkex_telemetry::{Reqwest, Ureq};

/// Writes an authority, and nginx's certificate for 127.0.0.1 and `backend.test` signed by it, to the folder.
pub(crate) fn write_certificates(folder: &Path) -> Result<(), String> {
    let file = |name: &str| folder.join(name).to_string_lossy().into_owned();
    let (ca, ca_key, key) = (file("ca.pem"), file("ca.key"), file("server.key"));
    let (request, extensions) = (file("server.csr"), file("server.ext"));
    let names = "subjectAltName=IP:127.0.0.1,DNS:backend.test,DNS:twofold.test\n";
    fs::write(&extensions, names).map_err(|error| error.to_string())?;
    let new_key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"];
    let openssl = |arguments: &[&[&str]]| run("openssl", &arguments.concat()).map(drop);
    openssl(&[
        &[
            "req",
            "-x509",
            "-nodes",
            "-days",
            "2",
            "-subj",
            "/CN=world authority",
        ],
        &new_key,
        &["-keyout", &ca_key, "-out", &ca],
    ])?;
    openssl(&[
        &["req", "-nodes", "-subj", "/CN=world"],
        &new_key,
        &["-keyout", &key, "-out", &request],
    ])?;
    openssl(&[
        &[
            "x509",
            "-req",
            "-days",
            "2",
            "-in",
            &request,
            "-extfile",
            &extensions,
        ],
        &[
            "-CA",
            &ca,
            "-CAkey",
            &ca_key,
            "-CAcreateserial",
            "-out",
            &file("server.pem"),
        ],
    ])
}

/// Surf is left out: its TLS is that of the backend that an application chooses.
fn pairs() -> impl Iterator<Item = &'static Pair> {
    PAIRS.iter().filter(|pair| pair.http != Http::Surf)
}

/// Clients that trust the authority in the folder.
pub(crate) fn trusting(folder: &Path) -> Result<Clients, String> {
    let ca = fs::read(folder.join("ca.pem")).map_err(|error| error.to_string())?;
    let for_reqwest = ca.clone();
    Ok(Clients {
        ureq: Box::new(move || {
            let builder = Ureq::builder().root_certificates(&ca);
            builder.expect("an authority").build()
        }),
        reqwest: Box::new(move || {
            let builder = Reqwest::builder().root_certificates(&for_reqwest);
            builder.expect("an authority").build().expect("a client")
        }),
        ..Clients::default()
    })
}

impl World {
    pub(crate) fn https(&self) -> Checked {
        let clients = trusting(&self.folder)?;
        let outcomes = on_each(pairs(), |pair| {
            let url = format!("https://127.0.0.1:{}/buffered", self.ports.https);
            Plan::new(format!("https-{}", pair.name), url).run(pair, &clients, bursts)
        });
        for outcome in &outcomes {
            outcome.delivered_once(&self.collector)?;
        }
        Ok(summary(&outcomes))
    }

    /// Nothing is sent to a server that the client does not trust, and the reason says so.
    pub(crate) fn https_of_a_stranger(&self) -> Checked {
        let clients = Clients::default();
        let outcomes = on_each(pairs(), |pair| {
            let url = format!("https://127.0.0.1:{}/buffered", self.ports.https);
            let mut plan = Plan::new(format!("stranger-{}", pair.name), url);
            plan.options.retry_base_delay = Duration::from_millis(1);
            plan.run(pair, &clients, bursts)
        });
        for outcome in &outcomes {
            outcome.is_exact(&self.collector)?;
            ensure(
                outcome.stats.dropped.total() == outcome.stats.accepted,
                format_args!("{}: {:?}", outcome.pair, outcome.stats),
            )?;
            let says_why = |it: &String| it.to_lowercase().contains("certificate");
            ensure(
                outcome.reasons.iter().any(says_why),
                format_args!("{}: {:?}", outcome.pair, outcome.reasons),
            )?;
        }
        Ok(format!(
            "{} sessions sent nothing and said why",
            outcomes.len()
        ))
    }
}
