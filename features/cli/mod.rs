//! The program `tinkex-telemetry`, as a function.

mod args;
mod cassette;
mod client;
mod feed;
mod hub;
mod item;
mod keep;
mod kept;
mod line;
mod ls;
mod output;
mod page;
mod prelude;
mod replay;
mod run;
mod script;
mod send;
mod send_body;
mod send_spool;
mod serve;
mod signals;
mod table;
mod tail;
mod text;
mod token;
mod trace;
mod upstream;

use std::process::ExitCode;

use args::Command;
use prelude::*;

/// Why a command fails: exit code 1, or 2 for what the user must change on the command line.
enum Failure {
    Failed(String),
    Usage(String),
    /// The code of a child.
    Code(u8),
}

impl From<String> for Failure {
    fn from(problem: String) -> Self {
        Self::Failed(problem)
    }
}

type Outcome = Result<(), Failure>;

/// Runs the program with the arguments of this process.
pub fn main() -> ExitCode {
    let outcome = match args::parse() {
        Command::Serve(options) => serve::serve(options),
        Command::Run(options) => run::run(options),
        Command::Tail(options) => tail::tail(&options),
        Command::Ls(options) => ls::ls(&options),
        Command::Cat(options) => ls::cat(&options),
        Command::Send(options) => send::send(&options),
        Command::Record(options) => serve::record(options),
        Command::Replay(options) => replay::replay(options),
        Command::Trace(options) => trace::trace(&options),
        Command::Completions(options) => args::completions(options),
        Command::Man => args::man(),
    };
    let (problem, code) = match outcome {
        Ok(()) => return ExitCode::SUCCESS,
        Err(Failure::Code(code)) => return ExitCode::from(code),
        Err(Failure::Failed(problem)) => (problem, 1),
        Err(Failure::Usage(problem)) => (problem, 2),
    };
    output::say(&text::visible(&problem));
    ExitCode::from(code)
}
