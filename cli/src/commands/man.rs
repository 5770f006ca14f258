//! `man`: manual pages, one for each command.

use std::path::PathBuf;

use clap::CommandFactory;

use crate::args::Cli;
use crate::context::Context;
use crate::exit::Exit;
use crate::failure::{Failure, Outcome};

/// Arguments of `man`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  strongroom man ~/.local/share/man/man1")]
pub struct Args {
    /// The folder to write them to; it is made where it is missing
    directory: PathBuf,
}

/// Writes the pages.
pub fn run(args: &Args, context: &Context) -> Outcome {
    let failed = |error| {
        Failure::io(format_args!("cannot write manual pages to {}", args.directory.display()), &error)
    };
    std::fs::create_dir_all(&args.directory).map_err(failed)?;
    clap_mangen::generate_to(Cli::command(), &args.directory).map_err(failed)?;
    context.output.text(format!("wrote the manual pages to {}", args.directory.display()));
    Ok(Exit::Ok)
}
