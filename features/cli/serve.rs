//! `serve` and `record`: the collector, with all that surrounds it.

use core::{
    future::{Future, poll_fn},
    net::Ipv4Addr,
    pin::pin,
    task::Poll,
};
use std::{io, net::TcpListener, path::Path, thread};

use tokio::sync::{mpsc, oneshot};

use crate::features::collector::{Collector, Reply};

use super::args::{RecordArgs, ServeArgs};
use super::cassette::{Answers, Recorder};
use super::client::Remote;
use super::feed::Feed;
use super::hub::{Hub, Parts};
use super::keep::Keep;
use super::line::{Format, Style};
use super::output::{self, Printer, Stream};
use super::prelude::*;
use super::signals::{self, End};
use super::table::table;
use super::token::{self, Token, TokenFile};
use super::upstream::Upstream;
use super::{Failure, Outcome, kept, tail, text};

/// More only hold descriptors that the rest of the machine may need.
const MAX_CONNECTIONS: usize = 256;

/// A collector that runs.
pub(super) struct Running {
    pub(super) collector: Arc<Collector>,
    pub(super) hub: Arc<Hub>,
    file: Option<TokenFile>,
}

/// What a collector needs besides its parts.
pub(super) struct Settings {
    /// The port that was asked for; 0: any.
    pub(super) port: u16,
    pub(super) strict: bool,
    pub(super) key: Option<String>,
    /// In bytes.
    pub(super) memory: usize,
    pub(super) script: Vec<Reply>,
}

impl Running {
    /// A collector on this listener, which does not serve yet.
    pub(super) fn on(listener: TcpListener, settings: Settings, parts: Parts) -> io::Result<Self> {
        let token = Token::for_port(settings.port).map_err(io::Error::other)?;
        let epoch = token::random(4).map_err(io::Error::other)?;
        let hub = Hub::new(Feed::new(epoch, settings.memory / 3), token, parts);
        let mut builder = Collector::builder()
            .max_memory(settings.memory / 3 * 2)
            .max_connections(MAX_CONNECTIONS)
            .tap(Arc::clone(&hub) as _);
        if !settings.strict {
            builder = builder.lenient();
        }
        if let Some(key) = settings.key {
            builder = builder.api_key(key);
        }
        let notices = Arc::clone(&hub);
        let collector = builder
            .on_notice(move |notice| notices.notice(notice))
            .on(listener)?;
        collector.script(settings.script);
        let collector = Arc::new(collector);
        hub.set_collector(&collector);
        if let Some(keep) = &hub.parts.keep {
            let hub = Arc::downgrade(&hub);
            keep.on_trouble(move |text| {
                if let Some(hub) = hub.upgrade() {
                    hub.say("keep", text);
                }
            });
        }
        let file = match hub.token.save(collector.addr().port(), settings.port != 0) {
            Ok(file) => Some(file),
            Err(error) => {
                let problem = format!(
                    "`tail` needs the page's URL, since the token cannot be saved: {error}"
                );
                output::say(&problem);
                None
            }
        };
        Ok(Self {
            collector,
            hub,
            file,
        })
    }

    /// The URL that opens the page.
    pub(super) fn page(&self) -> String {
        format!("{}/ui?t={}", self.collector.url(), self.hub.token.as_str())
    }

    /// Reads what was kept before this process, on a thread of its own: a signal is obeyed meanwhile.
    fn restore(&self, folder: &Path) -> oneshot::Receiver<Result<Option<String>, String>> {
        let (done, restored) = oneshot::channel();
        let (collector, hub) = (Arc::clone(&self.collector), Arc::clone(&self.hub));
        let folder = folder.to_owned();
        let work = move || drop(done.send(restore(&collector, &hub, &folder)));
        // Without a thread the receiver says so.
        drop(thread::Builder::new().name("restore".into()).spawn(work));
        restored
    }

    /// Stops, and returns the table and what went wrong.
    pub(super) fn stop(self) -> (String, Option<String>) {
        self.collector.stop();
        drop(self.file);
        let table = table(&self.collector.sessions());
        let parts = &self.hub.parts;
        let unkept = parts.keep.as_ref().and_then(Keep::finish);
        let unkept = unkept.map(|(events, reason)| {
            let (count, verb) = (text::count(events, "event"), text::was_or_were(events));
            format!("{count} {verb} not kept: {reason}")
        });
        let unrecorded = parts.recorder.as_ref().and_then(Recorder::problem);
        (table, unkept.or(unrecorded))
    }
}

/// Reads what was kept, and returns what is to be said of that.
fn restore(collector: &Collector, hub: &Hub, folder: &Path) -> Result<Option<String>, String> {
    let (mut refused, mut first) = (0, None);
    let tally = hub.while_not_live(|| {
        kept::read(folder, |portion| {
            if collector.restore(portion.body(None).as_bytes()).is_ok() {
                return;
            }
            // One that does not fit must not cost the others.
            for at in 0..portion.events.len() {
                if let Err(problem) = collector.restore(portion.body(Some(at)).as_bytes()) {
                    refused += 1;
                    first.get_or_insert(problem);
                }
            }
        })
    })?;
    if tally.events + tally.damaged == 0 {
        return Ok(None);
    }
    let count = text::count(tally.events, "event");
    let mut text = format!("read {count} from {}", folder.display());
    if tally.damaged > 0 {
        let count = text::count(tally.damaged, "damaged line");
        text.push_str(&format!(", and {count}"));
    }
    if let Some(problem) = first {
        text.push_str(&format!("; {refused} do not fit: {problem}"));
    }
    Ok(Some(text))
}

/// Listens on a port of loopback.
pub(super) fn bind(port: u16) -> io::Result<TcpListener> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, port))
}

pub(super) fn serve(options: ServeArgs) -> Outcome {
    run(options, None, None)
}

pub(super) fn record(options: RecordArgs) -> Outcome {
    run(options.serve, Some(&options.file), None)
}

/// A collector that answers as it is recorded.
pub(super) fn answer(options: ServeArgs, answers: Answers) -> Outcome {
    run(options, None, Some(answers))
}

fn run(options: ServeArgs, recording: Option<&Path>, answers: Option<Answers>) -> Outcome {
    let is_plain = recording.is_none() && answers.is_none() && options.is_plain();
    // First: what cannot listen makes no file.
    let listener = match bind(options.port) {
        Ok(listener) => listener,
        Err(error) if error.kind() == io::ErrorKind::AddrInUse && is_plain => {
            return beside(&options);
        }
        Err(error) => return Err(unbound(options.port, &error).into()),
    };
    let (end, mut ended) = mpsc::channel(1);
    let printer = Printer::start(Stream::Out, end.clone())
        .map_err(|error| format!("cannot start a thread for the output: {error}"))?;
    let printer = Arc::new(printer);
    let format = match options.print.json {
        true => Format::Json { full: true },
        false => Format::Lines(Style {
            full: options.print.full,
            colours: output::has_colours(&io::stdout()),
        }),
    };
    let upstream = options.forward.as_deref();
    let upstream = upstream.map(|base| Upstream::new(base, None, true));
    let upstream = upstream
        .transpose()
        .map_err(|problem| Failure::Usage(format!("--forward {problem}")))?;
    let recorder = recording.map(Recorder::create).transpose()?;
    let keep = options.keep.as_deref().map(Keep::open).transpose()?;
    let parts = Parts {
        printer: Some((Arc::clone(&printer), format)),
        keep,
        upstream,
        recorder,
        answers,
    };
    let settings = Settings {
        port: options.port,
        strict: options.strict,
        key: options.key.clone().filter(|key| !key.is_empty()),
        memory: (options.memory as usize) << 20,
        script: options
            .fail
            .clone()
            .map_or_else(Vec::new, |script| script.0),
    };
    let running = Running::on(listener, settings, parts)
        .map_err(|error| format!("cannot start the collector: {error}"))?;
    let runtime = signals::runtime()?;
    let reason = runtime.block_on(async {
        signals::watch(&end, true).map_err(|error| format!("cannot wait for signals: {error}"))?;
        let mut said = None;
        if let Some(folder) = &options.keep {
            let mut restored = pin!(running.restore(folder));
            let first = poll_fn(|context| match restored.as_mut().poll(context) {
                Poll::Ready(result) => Poll::Ready(Ok(result)),
                Poll::Pending => ended.poll_recv(context).map(Err),
            });
            said = match first.await {
                Ok(result) => result.map_err(|_| "the thread that reads what was kept died")??,
                Err(reason) => return Ok(reason.unwrap_or(End::Unread)),
            };
        }
        // What comes now follows what was kept.
        let problem = |error| format!("cannot start the collector: {error}");
        running.collector.open().map_err(problem)?;
        greet(&running, options.print.json, &printer);
        if let Some(text) = said {
            running.hub.say("keep", text);
        }
        Ok::<_, String>(ended.recv().await.unwrap_or(End::Unread))
    })?;
    let (table, problem) = running.stop();
    // With --json the output is for a program, and the table for a person.
    match (reason, options.print.json) {
        (End::Unread, _) => {}
        (_, true) => {
            printer.finish(None);
            output::say_all(&table);
        }
        (_, false) => printer.finish(Some(table)),
    }
    match problem {
        Some(problem) => Err(problem.into()),
        None => Ok(()),
    }
}

/// Says where the collector is, on standard error if the output is for a program.
fn greet(running: &Running, json: bool, printer: &Printer) {
    let lines = [
        format!("listening on {}", running.collector.url()),
        format!("page at {}", running.page()),
    ];
    for line in lines {
        if json {
            output::say(&line);
        } else {
            printer.print(line);
        }
    }
}

/// Why there is no listener.
pub(super) fn unbound(port: u16, error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::AddrInUse => {
            format!("port {port} is in use: give another with --port, or 0 for any free one")
        }
        _ => format!("cannot listen on port {port}: {error}"),
    }
}

/// The port is taken: if by another collector of this user's, shows what that receives.
fn beside(options: &ServeArgs) -> Outcome {
    let port = options.port;
    let taken = format!("port {port} is in use");
    let remote = Remote::new(&format!("http://127.0.0.1:{port}"))?;
    if remote.stream("&once=1", None).is_err() {
        return Err(format!("{taken}: give another with --port, or 0 for any free one").into());
    }
    output::say(&format!(
        "{taken} by another collector; this is what that one receives"
    ));
    tail::beside(&remote, options.print)
}
