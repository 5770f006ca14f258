//! `completions`: a script that teaches a shell the commands and options.

use clap::CommandFactory;
use clap_complete::Shell;

use crate::args::Cli;
use crate::context::Context;
use crate::exit::Exit;
use crate::failure::Outcome;

/// Arguments of `completions`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Example:\n  strongroom completions bash > ~/.local/share/bash-completion/completions/strongroom"
)]
pub struct Args {
    /// The shell
    shell: Shell,
}

/// Writes the script.
pub fn run(args: &Args, context: &Context) -> Outcome {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "strongroom", &mut script);
    context.output.line(script.trim_ascii_end())?;
    Ok(Exit::Ok)
}
