//! The command line.

use core::time::Duration;
use std::{ffi::OsString, io::Write, path::PathBuf};

use clap::{Args, CommandFactory, Parser, Subcommand, ValueEnum};

use super::prelude::*;
use super::script::{self, Script};
use super::{Failure, Outcome};

#[derive(Parser)]
#[command(
    name = "tinkex-telemetry",
    version,
    about = "See, break, keep and play back the telemetry of programs on this machine",
    after_help = "Without a command: serve. `tinkex-telemetry help COMMAND` has an example of each.",
    args_conflicts_with_subcommands = true,
    max_term_width = 100
)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    serve: ServeArgs,
}

#[derive(Subcommand)]
pub(super) enum Command {
    /// Receive telemetry on a local port, print it and show it in a browser
    #[command(
        after_help = "Example: receive, keep what comes, and refuse the first three requests:\n  \
        tinkex-telemetry serve --keep telemetry --fail 503x3"
    )]
    Serve(ServeArgs),
    /// Run a program with a collector of its own
    #[command(
        after_help = "Example: see what a program sends, while its other calls go where they went before:\n  \
        tinkex-telemetry run -- python train.py"
    )]
    Run(RunArgs),
    /// Print what a running collector receives
    #[command(after_help = "Example: the errors of one session, as JSON:\n  \
        tinkex-telemetry tail --session run-7 --min-severity ERROR --json")]
    Tail(TailArgs),
    /// Show what the directory of a spool holds, and what of it is damaged
    #[command(
        after_help = "Prints a line for each process and session. The exit code is 1 if something is damaged, or is none \
        of a spool's. Example:\n  tinkex-telemetry ls telemetry"
    )]
    Ls(LsArgs),
    /// Print the events in the directory of a spool
    #[command(after_help = "Example: the losses of one session:\n  \
        tinkex-telemetry cat telemetry --session run-7 --json | jq '.event.event_data.loss'")]
    Cat(CatArgs),
    /// Send events from a file, from standard input, or from the directory of a spool
    #[command(
        after_help = "Of a directory it sends what ended processes have left, and removes it. Living processes send theirs \
        themselves, unless they have no network: then --follow sends it as it is written, until they end. What a server has \
        refused before is sent by naming its folder:\n  \
        tinkex-telemetry send telemetry\n  \
        tinkex-telemetry send telemetry/rejected --to http://127.0.0.1:8787\n\n\
        Each line is a JSON object. A whole event of the wire format is sent as it is, and needs \
        --session. Any other line is an event of a new session:\n  \
        echo '{\"name\":\"step\",\"data\":{\"loss\":0.25}}' | tinkex-telemetry send - --to http://127.0.0.1:8787"
    )]
    Send(SendArgs),
    /// Receive telemetry as serve does, and record each request with its response
    #[command(
        after_help = "Example: record what a program sends to a backend, and the backend's answers:\n  \
        tinkex-telemetry record bug.ndjson --forward https://backend.example"
    )]
    Record(RecordArgs),
    /// Send recorded requests again, or answer as recorded
    #[command(after_help = "Example: ten times as fast as they came:\n  \
        tinkex-telemetry replay bug.ndjson --to http://127.0.0.1:8787 --speed 10")]
    Replay(ReplayArgs),
    /// Write a session as a trace for ui.perfetto.dev
    #[command(after_help = "Example:\n  tinkex-telemetry trace run-7 --output run-7.json")]
    Trace(TraceArgs),
    /// Print a script that completes this program's arguments in a shell
    #[command(after_help = "Example:\n  tinkex-telemetry completions bash > \
        ~/.local/share/bash-completion/completions/tinkex-telemetry")]
    Completions(CompletionsArgs),
    /// Print the manual page
    #[command(after_help = "Example:\n  tinkex-telemetry man > tinkex-telemetry.1")]
    Man,
}

#[derive(Args, Clone)]
pub(super) struct ServeArgs {
    /// Listen on this port of 127.0.0.1; 0 picks a free one
    #[arg(long, default_value_t = 8787)]
    pub(super) port: u16,
    /// Accept only the exact wire format: 422 to anything else
    #[arg(long)]
    pub(super) strict: bool,
    /// Answer 401 to requests with another key. Other users of this machine can see the argument, not the variable
    #[arg(long, env = "TINKEX_COLLECTOR_KEY", hide_env_values = true)]
    pub(super) key: Option<String>,
    /// Forget the oldest sessions beyond this much memory
    #[arg(long, value_name = "MIB", default_value_t = 256, value_parser = clap::value_parser!(u32).range(1..=1 << 20))]
    pub(super) memory: u32,
    /// Write the events to this directory, as lines of JSON, and read what is there at the start
    #[arg(long, value_name = "DIR")]
    pub(super) keep: Option<PathBuf>,
    /// Pass each request on to this server, with the credentials that it came with, and give its response back
    #[arg(long, value_name = "URL")]
    pub(super) forward: Option<String>,
    /// Answer the first requests like this: 503x3,429:2,stall
    #[arg(long, value_name = "SCRIPT", value_parser = script::parse, long_help = script::HELP)]
    pub(super) fail: Option<Script>,
    #[command(flatten)]
    pub(super) print: PrintArgs,
}

impl ServeArgs {
    /// Whether it only shows what comes.
    pub(super) fn is_plain(&self) -> bool {
        !self.strict && self.keep.is_none() && self.forward.is_none() && self.fail.is_none()
    }
}

#[derive(Args, Clone, Copy)]
pub(super) struct PrintArgs {
    /// Print one JSON object a line
    #[arg(long)]
    pub(super) json: bool,
    /// Print long values whole
    #[arg(long)]
    pub(super) full: bool,
}

#[derive(Args)]
pub(super) struct RunArgs {
    /// Answer the calls that are not telemetry here: nothing is trained or sampled
    #[arg(long)]
    pub(super) offline: bool,
    /// Write the events to this directory, as lines of JSON
    #[arg(long, value_name = "DIR")]
    pub(super) keep: Option<PathBuf>,
    /// Answer the first requests with telemetry like this: 503x3,429:2,stall
    #[arg(long, value_name = "SCRIPT", value_parser = script::parse, long_help = script::HELP)]
    pub(super) fail: Option<Script>,
    /// Listen on this port; 0 picks a free one
    #[arg(long, default_value_t = 0)]
    pub(super) port: u16,
    /// Print the events as well, to standard error
    #[arg(long, short)]
    pub(super) verbose: bool,
    /// The program and its arguments
    #[arg(
        required = true,
        trailing_var_arg = true,
        allow_hyphen_values = true,
        value_name = "CMD"
    )]
    pub(super) command: Vec<OsString>,
}

#[derive(Args)]
pub(super) struct TailArgs {
    /// The collector, as it printed its address: with its token, or without where its token's file is readable
    #[arg(default_value = "http://127.0.0.1:8787")]
    pub(super) url: String,
    /// Only this session
    #[arg(long)]
    pub(super) session: Option<String>,
    /// Only events of this kind or name
    #[arg(long, value_name = "KIND|NAME")]
    pub(super) kind: Option<String>,
    /// Only events at least this severe
    #[arg(long, value_name = "SEVERITY", ignore_case = true, value_parser = ["DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"])]
    pub(super) min_severity: Option<String>,
    /// End when everything received so far is printed
    #[arg(long)]
    pub(super) once: bool,
    #[command(flatten)]
    pub(super) print: PrintArgs,
}

#[derive(Args)]
pub(super) struct LsArgs {
    /// The directory of a spool, or one of the folders in it
    pub(super) directory: PathBuf,
    /// Print one JSON object a line
    #[arg(long)]
    pub(super) json: bool,
}

#[derive(Args)]
pub(super) struct CatArgs {
    /// The directory of a spool, or one of the folders in it
    pub(super) directory: PathBuf,
    /// Only this session
    #[arg(long)]
    pub(super) session: Option<String>,
    #[command(flatten)]
    pub(super) print: PrintArgs,
}

#[derive(Args)]
pub(super) struct SendArgs {
    /// A file of lines of JSON, the directory of a spool, or - for standard input
    pub(super) source: PathBuf,
    /// The server, without /api/v1/telemetry. The key comes from TINKER_API_KEY. For a directory by default the one that
    /// the library sends to
    #[arg(long, value_name = "URL", env = "TINKER_BASE_URL")]
    pub(super) to: Option<String>,
    /// Also send what living processes write to the directory, as they write it, until they have ended
    #[arg(long)]
    pub(super) follow: bool,
    /// Also send files that belong to another user, or that others can have written
    #[arg(long)]
    pub(super) trust: bool,
    /// The session's id: by default a new one
    #[arg(long, value_name = "ID")]
    pub(super) session: Option<String>,
    /// Read and check everything, and send nothing
    #[arg(long)]
    pub(super) dry_run: bool,
    /// Give a batch up after this many attempts
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    pub(super) attempts: u32,
}

#[derive(Args)]
pub(super) struct RecordArgs {
    /// The file to write: it must not exist
    pub(super) file: PathBuf,
    #[command(flatten)]
    pub(super) serve: ServeArgs,
}

#[derive(Args)]
pub(super) struct ReplayArgs {
    /// A file that `record` wrote
    pub(super) file: PathBuf,
    /// Send the requests to this server. The key comes from TINKER_API_KEY
    #[arg(
        long,
        value_name = "URL",
        required_unless_present = "responses",
        conflicts_with_all = ["responses", "port", "strict", "memory", "keep", "forward", "fail", "json", "full"]
    )]
    pub(super) to: Option<String>,
    /// How many times as fast as they came; 0: without waiting
    #[arg(long, default_value_t = 1.0, value_parser = speed, conflicts_with = "responses")]
    pub(super) speed: f64,
    /// Be a collector that answers as recorded
    #[arg(long)]
    pub(super) responses: bool,
    #[command(flatten)]
    pub(super) serve: ServeArgs,
}

#[derive(Args)]
pub(super) struct TraceArgs {
    /// The session
    pub(super) session: String,
    /// The running collector that has it
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:8787")]
    pub(super) from: String,
    /// Read what `serve --keep` wrote to this directory, without a collector
    #[arg(long, value_name = "DIR", conflicts_with = "from")]
    pub(super) keep: Option<PathBuf>,
    /// The file to write; otherwise standard output
    #[arg(long, short, value_name = "FILE")]
    pub(super) output: Option<PathBuf>,
}

#[derive(Args)]
pub(super) struct CompletionsArgs {
    /// The shell
    pub(super) shell: Shell,
}

#[derive(Clone, Copy, ValueEnum)]
pub(super) enum Shell {
    /// bash
    Bash,
    /// elvish
    Elvish,
    /// fish
    Fish,
    /// PowerShell
    Powershell,
    /// zsh
    Zsh,
}

/// Exits with 2 and says what is wrong, or with 0 after help.
pub(super) fn parse() -> Command {
    let cli = Cli::parse();
    cli.command.unwrap_or(Command::Serve(cli.serve))
}

fn speed(text: &str) -> Result<f64, String> {
    let speed: f64 = text.parse().map_err(|_| "must be a number".to_owned())?;
    match speed.is_finite() && speed >= 0.0 {
        true => Ok(speed),
        false => Err("must be a number from 0".to_owned()),
    }
}

/// How long after the first request one that came `offset` after it is sent.
pub(super) fn scaled(offset: Duration, speed: f64) -> Duration {
    if speed == 0.0 {
        return Duration::ZERO;
    }
    Duration::try_from_secs_f64(offset.as_secs_f64() / speed).unwrap_or(Duration::MAX)
}

pub(super) fn completions(options: CompletionsArgs) -> Outcome {
    use clap_complete::shells;
    let (mut script, mut command) = (Vec::new(), Cli::command());
    let name = "tinkex-telemetry";
    match options.shell {
        Shell::Bash => clap_complete::generate(shells::Bash, &mut command, name, &mut script),
        Shell::Elvish => clap_complete::generate(shells::Elvish, &mut command, name, &mut script),
        Shell::Fish => clap_complete::generate(shells::Fish, &mut command, name, &mut script),
        Shell::Powershell => {
            clap_complete::generate(shells::PowerShell, &mut command, name, &mut script);
        }
        Shell::Zsh => clap_complete::generate(shells::Zsh, &mut command, name, &mut script),
    }
    write(&script)
}

/// One page for all commands, each with its own options below it.
pub(super) fn man() -> Outcome {
    let mut page = Vec::new();
    let mut command = Cli::command();
    command.build();
    let broken = |error| Failure::Failed(format!("cannot write the page: {error}"));
    clap_mangen::Man::new(command.clone())
        .render(&mut page)
        .map_err(broken)?;
    for command in command.get_subcommands() {
        let man = clap_mangen::Man::new(command.clone());
        let _ = writeln!(page, ".SH {}", command.get_name().to_uppercase());
        man.render_description_section(&mut page).map_err(broken)?;
        man.render_options_section(&mut page).map_err(broken)?;
        man.render_extra_section(&mut page).map_err(broken)?;
    }
    write(&page)
}

/// A reader that goes away has read enough.
fn write(bytes: &[u8]) -> Outcome {
    let _ = std::io::stdout().lock().write_all(bytes);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn a_recording_can_be_stretched_and_squeezed() {
        let offset = Duration::from_secs(10);
        assert_eq!(scaled(offset, 2.0), Duration::from_secs(5));
        assert_eq!(scaled(offset, 0.0), Duration::ZERO);
        assert_eq!(scaled(offset, 1e-300), Duration::MAX);
        assert!(speed("-1").is_err() && speed("nan").is_err());
    }
}
