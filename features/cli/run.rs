//! `run`: a program with a collector of its own, which takes its telemetry and passes its other calls on.

use core::time::Duration;
use std::{
    env, io,
    process::{Child, ExitStatus},
};

use http::HeaderValue;
use tokio::sync::mpsc;

use super::args::RunArgs;
use super::hub::Parts;
use super::keep::Keep;
use super::line::{Format, Style};
use super::output::{self, Printer, Stream};
use super::prelude::*;
use super::serve::{Running, Settings};
use super::signals::{self, End};
use super::upstream::Upstream;
use super::{Failure, Outcome, serve, token};

const KEY: &str = "TINKER_API_KEY";
const URL: &str = "TINKER_BASE_URL";
/// Of the clients, where `TINKER_BASE_URL` is not set.
const DEFAULT_URL: &str = crate::features::http::DEFAULT_URL;
const MEMORY: usize = 256 << 20;
const OFFLINE: &str = "offline: nothing is trained or sampled, and every result is made up";

pub(super) fn run(options: RunArgs) -> Outcome {
    let upstream = match options.offline {
        true => None,
        false => Some(upstream()?),
    };
    let (end, mut ended) = mpsc::channel(4);
    let printer = match options.verbose {
        true => Some(Printer::start(Stream::Err, end.clone()).map_err(|error| error.to_string())?),
        false => None,
    };
    let printer = printer.map(Arc::new);
    let format = Format::Lines(Style {
        full: false,
        colours: output::has_colours(&io::stderr()),
    });
    // First: what cannot listen makes no folder.
    let listener =
        serve::bind(options.port).map_err(|error| serve::unbound(options.port, &error))?;
    let keep = options.keep.as_deref().map(Keep::open).transpose()?;
    let parts = Parts {
        printer: printer.clone().map(|printer| (printer, format)),
        keep,
        upstream,
        ..Parts::default()
    };
    // Clients of the backend check that a key begins like one.
    let key = format!("tml-{}", token::random(16)?);
    let settings = Settings {
        port: options.port,
        strict: false,
        key: Some(key.clone()),
        memory: MEMORY,
        script: options.fail.map_or_else(Vec::new, |script| script.0),
    };
    let problem = |error| format!("cannot start the collector: {error}");
    let running = Running::on(listener, settings, parts).map_err(problem)?;
    running.collector.open().map_err(problem)?;
    if options.offline {
        output::say(OFFLINE);
    }
    output::say(&format!("page at {}", running.page()));
    let runtime = signals::runtime()?;
    let status = runtime.block_on(async {
        // Before the child starts: an interrupt reaches both, and this process still has the table to print.
        signals::watch(&end, false).map_err(|error| format!("cannot wait for signals: {error}"))?;
        let child = start(&options.command, &running, &key)?;
        wait(child, &mut ended).await
    })?;
    let (table, problem) = running.stop();
    if let Some(printer) = printer {
        printer.finish(None);
    }
    output::say_all(&table);
    if let Some(problem) = problem {
        output::say(&problem);
    }
    if options.offline {
        output::say(OFFLINE);
    }
    match code(status) {
        0 => Ok(()),
        code => Err(Failure::Code(code)),
    }
}

/// Where the calls go that are not telemetry: where they went before.
fn upstream() -> Result<Upstream, Failure> {
    let of = |name| env::var(name).ok().filter(|value| !value.trim().is_empty());
    let Some(key) = of(KEY) else {
        return Err(Failure::Usage(format!(
            "{KEY} is not set, so the program's calls cannot be passed on: set it, or answer them here with --offline"
        )));
    };
    let mut key = HeaderValue::from_str(key.trim())
        .map_err(|_| Failure::Usage(format!("{KEY} has characters that no header may have")))?;
    key.set_sensitive(true);
    let base = of(URL).unwrap_or_else(|| DEFAULT_URL.to_owned());
    Upstream::new(&base, Some(key), false)
        .map_err(|problem| Failure::Usage(format!("{URL}: {problem}")))
}

fn start(command: &[std::ffi::OsString], running: &Running, key: &str) -> Result<Child, String> {
    let (program, arguments) = command.split_first().ok_or("no program is given")?;
    let url = running.collector.url();
    std::process::Command::new(program)
        .args(arguments)
        .env(URL, &url)
        .env(KEY, key)
        .env("TINKEX_COLLECTOR_URL", &url)
        .env("TINKEX_COLLECTOR_TOKEN", running.hub.token.as_str())
        .spawn()
        .map_err(|error| format!("cannot run {}: {error}", program.display()))
}

/// Waits for the child, to which it passes on what would end this process.
async fn wait(child: Child, ended: &mut mpsc::Receiver<End>) -> Result<ExitStatus, String> {
    let id = child.id();
    let waiting = tokio::task::spawn_blocking(move || {
        let mut child = child;
        child.wait()
    });
    let mut waiting = core::pin::pin!(waiting);
    loop {
        // `select!` needs another feature of tokio's.
        let event = core::future::poll_fn(|context| {
            use core::{future::Future, task::Poll};
            if let Poll::Ready(status) = waiting.as_mut().poll(context) {
                return Poll::Ready(Ok(status));
            }
            ended.poll_recv(context).map(Err)
        });
        match event.await {
            Ok(status) => {
                let status = status.map_err(|error| error.to_string())?;
                return status.map_err(|error| format!("cannot wait for the program: {error}"));
            }
            // A terminal sends an interrupt to both.
            Err(Some(End::Interrupted)) if is_foreground() => {}
            Err(Some(End::Interrupted)) => pass_on("-INT", id),
            Err(Some(End::Terminated)) => pass_on("-TERM", id),
            Err(Some(End::Unread) | None) => {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

/// Whether a terminal's interrupt reaches the child as well: if a terminal controls both, wherever their input comes
/// from.
fn is_foreground() -> bool {
    std::fs::File::open("/dev/tty").is_ok()
}

/// Sends a signal to the child, without unsafe code. Every shell can; a program for it is not everywhere.
fn pass_on(signal: &str, id: u32) {
    let sent = std::process::Command::new("/bin/sh")
        .args(["-c", "kill \"$0\" \"$1\"", signal, &id.to_string()])
        .status();
    let problem = match sent {
        Ok(status) if status.success() => return,
        Ok(status) => status.to_string(),
        Err(error) => error.to_string(),
    };
    output::say(&format!(
        "cannot pass the signal on to the program: {problem}"
    ));
}

/// As a shell has it.
fn code(status: ExitStatus) -> u8 {
    #[cfg(unix)]
    let signal = std::os::unix::process::ExitStatusExt::signal(&status).map(|signal| 128 + signal);
    #[cfg(not(unix))]
    let signal = None::<i32>;
    let code = status.code().or(signal).unwrap_or(1);
    // What does not fit is a failure all the same.
    u8::try_from(code).unwrap_or(1)
}
