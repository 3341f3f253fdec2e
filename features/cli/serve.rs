//! `serve` and `record`: the collector, with all that surrounds it.

use std::{io, path::Path};

use tokio::sync::mpsc;

use crate::features::collector::{Collector, Reply};

use super::args::{RecordArgs, ServeArgs};
use super::cassette::{Answers, Recorder};
use super::client::Remote;
use super::feed::Feed;
use super::hub::{Format, Hub, Parts};
use super::keep::Keep;
use super::line::Style;
use super::output::{self, Printer, Stream};
use super::prelude::*;
use super::signals::{self, End};
use super::table::table;
use super::token::{self, Token, TokenFile};
use super::upstream::Upstream;
use super::{Failure, Outcome, kept, tail};

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
    pub(super) port: u16,
    pub(super) strict: bool,
    pub(super) key: Option<String>,
    /// In bytes.
    pub(super) memory: usize,
    pub(super) script: Vec<Reply>,
}

impl Running {
    /// Starts a collector. An error of the kind `AddrInUse` is about the port.
    pub(super) fn start(settings: Settings, parts: Parts) -> io::Result<Self> {
        let token = Token::for_port(settings.port).map_err(io::Error::other)?;
        let epoch = token::random(4).map_err(io::Error::other)?;
        let hub = Hub::new(Feed::new(epoch, settings.memory / 3), token, parts);
        let mut builder = Collector::builder()
            .port(settings.port)
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
            .start()?;
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
        let file = match hub.token.save(collector.addr().port()) {
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

    /// Reads what was kept before this process.
    fn restore(&self, folder: &Path) -> Result<(), String> {
        let (mut refused, mut first) = (0, None);
        let tally = self.hub.while_not_live(|| {
            kept::read(folder, |portion| {
                if self
                    .collector
                    .restore(portion.body(None).as_bytes())
                    .is_ok()
                {
                    return;
                }
                // One that does not fit must not cost the others.
                for at in 0..portion.events.len() {
                    if let Err(problem) = self.collector.restore(portion.body(Some(at)).as_bytes())
                    {
                        refused += 1;
                        first.get_or_insert(problem);
                    }
                }
            })
        })?;
        if tally.events + tally.damaged > 0 {
            let mut text = format!("read {} events from {}", tally.events, folder.display());
            if tally.damaged > 0 {
                text.push_str(&format!(", and {} lines that are damaged", tally.damaged));
            }
            if let Some(problem) = first {
                text.push_str(&format!("; {refused} do not fit: {problem}"));
            }
            self.hub.say("keep", text);
        }
        Ok(())
    }

    /// Stops, and returns the table and what went wrong.
    pub(super) fn stop(self) -> (String, Option<String>) {
        self.collector.stop();
        drop(self.file);
        let table = table(&self.collector.sessions());
        let parts = &self.hub.parts;
        let unkept = parts.keep.as_ref().and_then(Keep::finish);
        let unkept =
            unkept.map(|(events, reason)| format!("{events} events were not kept: {reason}"));
        let unrecorded = parts.recorder.as_ref().and_then(Recorder::problem);
        (table, unkept.or(unrecorded))
    }
}

pub(super) fn serve(options: ServeArgs) -> Outcome {
    run(options, None, None)
}

pub(super) fn record(options: RecordArgs) -> Outcome {
    let recorder = Recorder::create(&options.file)?;
    run(options.serve, Some(recorder), None)
}

/// A collector that answers as it is recorded.
pub(super) fn answer(options: ServeArgs, answers: Answers) -> Outcome {
    run(options, None, Some(answers))
}

fn run(options: ServeArgs, recorder: Option<Recorder>, answers: Option<Answers>) -> Outcome {
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
    let running = match Running::start(settings, parts) {
        Ok(running) => running,
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => return beside(&options),
        Err(error) => return Err(format!("cannot listen on port {}: {error}", options.port).into()),
    };
    let runtime = signals::runtime()?;
    let reason = runtime.block_on(async {
        signals::watch(&end, true).map_err(|error| format!("cannot wait for signals: {error}"))?;
        greet(&running, options.print.json, &printer);
        if let Some(folder) = &options.keep {
            running.restore(folder)?;
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
