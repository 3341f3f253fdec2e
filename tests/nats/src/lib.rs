//! Real NATS servers, for tests and the example, and what is in their streams.

#![allow(clippy::std_instead_of_alloc, reason = "tests, not a library")]

use async_nats::{Client, ConnectOptions};
use core::fmt::Write as _;
use core::time::Duration;
use serde_json::{Value, json};
use std::fs;
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Instant;

/// Longer than anything here takes on a busy machine.
pub const BOUND: Duration = Duration::from_secs(60);

/// Results of programs.
pub type Result<T, E = Box<dyn core::error::Error + Send + Sync>> = core::result::Result<T, E>;

/// A `nats-server` with JetStream, ended with this value.
pub struct Server {
    child: Option<Child>,
    config: PathBuf,
    port: u16,
    folder: PathBuf,
}

/// What a server is told besides where it is.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// The largest message, in bytes; 0 is the server's own default.
    pub max_payload: usize,
    /// In a cluster: its name, the port of its routes, and the routes to all.
    pub cluster: Option<(String, u16, Vec<u16>)>,
}

/// A port that is free now.
///
/// # Errors
///
/// There is none.
pub fn free_port() -> Result<u16> {
    Ok(TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port())
}

/// An empty folder for this process.
///
/// # Errors
///
/// It cannot be made.
pub fn folder(name: &str) -> Result<PathBuf> {
    let name = format!("tinkex-nats-{}-{name}", std::process::id());
    let folder = std::env::temp_dir().join(name);
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder)?;
    Ok(folder)
}

impl Server {
    /// Starts a server on a free port, whose files are in a new folder.
    ///
    /// # Errors
    ///
    /// There is no program `nats-server`, or it does not start.
    pub fn start(name: &str, settings: &Settings) -> Result<Self> {
        let folder = folder(name)?;
        let port = free_port()?;
        let mut text = format!(
            "server_name: {name}\nlisten: 127.0.0.1:{port}\njetstream {{ store_dir: {:?} }}\n",
            folder.join("store")
        );
        if settings.max_payload > 0 {
            writeln!(text, "max_payload: {}", settings.max_payload)?;
        }
        if let Some((cluster, own, all)) = &settings.cluster {
            let routes: Vec<_> = all
                .iter()
                .map(|port| format!("nats://127.0.0.1:{port}"))
                .collect();
            let routes = routes.join(", ");
            writeln!(
                text,
                "cluster {{ name: {cluster}, listen: \"127.0.0.1:{own}\", routes: [{routes}] }}"
            )?;
        }
        let config = folder.join("server.conf");
        fs::write(&config, text)?;
        let mut server = Self {
            child: None,
            config,
            port,
            folder,
        };
        server.restart()?;
        Ok(server)
    }

    /// Its URL.
    #[must_use]
    pub fn url(&self) -> String {
        format!("nats://127.0.0.1:{}", self.port)
    }

    /// Kills it, as the system does that runs out of memory.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Starts it again, and waits until it accepts connections.
    ///
    /// # Errors
    ///
    /// It ends, or does not accept connections in time.
    pub fn restart(&mut self) -> Result<()> {
        self.kill();
        let log = fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.folder.join("log"))?;
        let child = Command::new("nats-server")
            .arg("-c")
            .arg(&self.config)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .map_err(|error| format!("nats-server (Debian's package of this name): {error}"))?;
        self.child = Some(child);
        let begun = Instant::now();
        while TcpStream::connect(("127.0.0.1", self.port)).is_err() {
            let ended = self.child.as_mut().map_or(Ok(None), Child::try_wait)?;
            if ended.is_some() || begun.elapsed() > BOUND {
                let log = fs::read_to_string(self.folder.join("log"))?;
                return Err(format!("nats-server does not start: {log}").into());
            }
            thread::sleep(Duration::from_millis(10));
        }
        Ok(())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// A connection of the test's own, which comes back after a restart.
///
/// # Errors
///
/// No server can be reached.
pub async fn client(url: &str) -> Result<Client> {
    let servers: Vec<async_nats::ServerAddr> =
        url.split(',').map(str::parse).collect::<Result<_, _>>()?;
    let options = ConnectOptions::new().request_timeout(Some(Duration::from_secs(5)));
    Ok(options.connect(servers).await?)
}

/// Calls JetStream's API until it answers without an error.
///
/// # Errors
///
/// It answers only with errors.
pub async fn api(client: &Client, subject: &str, body: &Value) -> Result<Value> {
    let begun = Instant::now();
    loop {
        let reply = client
            .request(format!("$JS.API.{subject}"), body.to_string().into())
            .await;
        let answer = match reply {
            Ok(message) => serde_json::from_slice::<Value>(&message.payload)?,
            Err(error) => json!({ "error": error.to_string() }),
        };
        match answer.get("error") {
            None => return Ok(answer),
            Some(error) if begun.elapsed() > BOUND => {
                return Err(format!("{subject}: {error}").into());
            }
            Some(_) => tokio::time::sleep(Duration::from_millis(100)).await,
        }
    }
}

/// Makes a stream that takes every event.
///
/// # Errors
///
/// The server does not.
pub async fn create_stream(client: &Client, name: &str, more: Value) -> Result<()> {
    let mut config = json!({
        "name": name,
        "subjects": ["tinkex.v1.>"],
        "storage": "file",
        "retention": "limits",
        "discard": "new",
        "num_replicas": 1,
        "max_msgs": -1,
        "max_bytes": -1,
        "max_age": 0,
        "duplicate_window": 120_000_000_000_u64,
    });
    if let (Value::Object(config), Value::Object(more)) = (&mut config, more) {
        config.extend(more);
    }
    api(client, &format!("STREAM.CREATE.{name}"), &config).await?;
    Ok(())
}

/// The number of messages in a stream.
///
/// # Errors
///
/// The server does not say.
pub async fn stored(client: &Client, stream: &str) -> Result<u64> {
    let info = api(client, &format!("STREAM.INFO.{stream}"), &json!({})).await?;
    Ok(info["state"]["messages"].as_u64().unwrap_or_default())
}

/// The payloads of all messages of a stream, in order.
///
/// # Errors
///
/// The server does not have them.
pub async fn payloads(client: &Client, stream: &str) -> Result<Vec<Value>> {
    let info = api(client, &format!("STREAM.INFO.{stream}"), &json!({})).await?;
    let number = |name: &str| info["state"][name].as_u64().unwrap_or_default();
    let mut all = Vec::new();
    let (mut next, last) = (number("first_seq").max(1), number("last_seq"));
    let mut waiting = tokio::task::JoinSet::new();
    let mut found = std::collections::BTreeMap::new();
    while next <= last || !waiting.is_empty() {
        while next <= last && waiting.len() < 64 {
            let (client, subject) = (client.clone(), format!("STREAM.MSG.GET.{stream}"));
            let seq = next;
            waiting
                .spawn(async move { (seq, api(&client, &subject, &json!({ "seq": seq })).await) });
            next += 1;
        }
        if let Some(done) = waiting.join_next().await {
            let (seq, answer) = done?;
            found.insert(
                seq,
                answer?["message"]["data"]
                    .as_str()
                    .unwrap_or_default()
                    .to_owned(),
            );
        }
    }
    for (_, data) in found {
        all.push(serde_json::from_slice(&decoded(&data))?);
    }
    Ok(all)
}

/// Base64.
fn decoded(text: &str) -> Vec<u8> {
    let (mut bits, mut count, mut out) = (0_u32, 0, Vec::new());
    for byte in text.bytes() {
        let six = match byte {
            b'A'..=b'Z' => byte - b'A',
            b'a'..=b'z' => byte - b'a' + 26,
            b'0'..=b'9' => byte - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => continue,
        };
        bits = bits << 6 | u32::from(six);
        count += 6;
        if count >= 8 {
            count -= 8;
            out.push((bits >> count) as u8);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    #[test]
    fn base64_is_decoded_whatever_its_length() {
        for (text, bytes) in [
            ("", ""),
            ("Zg==", "f"),
            ("Zm8=", "fo"),
            ("Zm9v", "foo"),
            ("Zm9vYg==", "foob"),
        ] {
            assert_eq!(super::decoded(text), bytes.as_bytes());
        }
        assert_eq!(super::decoded("+/8="), [0xfb, 0xff]);
    }
}
