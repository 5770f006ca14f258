//! The `strongroom` command: a thin command line over the engine. Parse, one call, render, exit code.

mod args;
mod commands;
mod context;
mod drills;
mod evidence;
mod exceptions;
mod exit;
mod failure;
mod heads;
mod location;
mod monitor;
mod notices;
mod numbers;
mod output;
mod password;
mod plan;
mod records;
mod recoveries;
mod signals;
mod units;
mod vault;

use std::io::Write;
use std::process::ExitCode;

use clap::Parser;
use clap::error::ErrorKind;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::args::Cli;
use crate::context::Context;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::output::Output;

fn main() -> ExitCode {
    raise_open_files();
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return not_parsed(&error).into(),
    };
    let global = cli.global;
    let output = match Output::new(global.json, global.quiet, global.verbose, cli.command.has_array()) {
        Ok(output) => output,
        Err(error) => {
            output::report_text(&Failure::io("standard output cannot be used", &error));
            return Exit::Failed.into();
        }
    };
    let context = Context::new(global, output);
    let outcome = commands::run(cli.command, &context);
    context.remember_head();
    context.tell_parity_troubles();
    // Whoever reads the output may be gone: the exit code says all the same how it went.
    let outcome = outcome.and_then(|exit| match context.output.finish() {
        Err(failure) if failure.exit != Exit::Ok => Err(failure),
        _ => Ok(exit),
    });
    match outcome {
        Ok(exit) => exit,
        Err(failure) => {
            context.output.failure(&failure);
            failure.exit
        }
    }
    .into()
}

/// Prints help and versions that were asked for, or what is wrong with the command line.
fn not_parsed(error: &clap::Error) -> Exit {
    let asked_for = matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion);
    // Whether JSON was wanted cannot be known for sure of a line that does not parse.
    let json = std::env::args_os().any(|arg| arg == "--json");
    if asked_for || !json {
        let _ = error.print();
    } else {
        let text = error.to_string();
        let message = text.lines().next().unwrap_or_default().trim_start_matches("error: ");
        let failure = Failure::usage("usage", message);
        let line = output::with_schema(output::failure_object(&failure));
        let _ = writeln!(std::io::stdout(), "{line}");
    }
    if asked_for { Exit::Ok } else { Exit::Usage }
}

/// Every level of a walk holds a directory open: takes as many open files as the system allows.
fn raise_open_files() {
    let limit = getrlimit(Resource::Nofile);
    // The limit that is in force does as well, only for fewer levels.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum });
}
