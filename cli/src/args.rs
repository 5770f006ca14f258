//! The command line: what holds for every command. What one command takes stands in its own file.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::builder::FalseyValueParser;
use clap::builder::styling::Styles;
use clap::{ArgAction, Parser};
use strongroom::backup::BackupOptions;
use strongroom::log::Head;

use crate::commands::Command;
use crate::units;

const AFTER_HELP: &str = "\
The password comes from --password-file or --password-command, else from STRONGROOM_PASSWORD,
STRONGROOM_PASSWORD_FILE or STRONGROOM_PASSWORD_COMMAND, else from a prompt.

Exit codes: 0 all is well, 1 failed, 2 wrong usage, 3 completed but something is missing or
unstable, 4 damage found, 5 could not verify, 10 no repository, 12 wrong password.

Sizes: 1048576, 10M or 10MiB (powers of 1024), 20MB (powers of 1000).
Durations: 90s, 3m, 2h, 1d.

Example:
  strongroom -r /backup/repo init
  strongroom -r /backup/repo backup /home /etc
  strongroom -r /backup/repo restore latest --target /restored";

/// Deduplicating, encrypted backups that are never blocked and can be proved.
#[derive(Debug, Parser)]
#[command(
    name = "strongroom",
    version,
    after_help = AFTER_HELP,
    term_width = 100,
    disable_help_subcommand = true,
    styles = Styles::plain()
)]
pub struct Cli {
    /// What holds for every command.
    #[command(flatten)]
    pub global: Global,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// Options that every command takes.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Global options")]
pub struct Global {
    /// The repository: PATH, file:PATH or local:PATH
    #[arg(
        short,
        long,
        global = true,
        env = "STRONGROOM_REPOSITORY",
        hide_env_values = true,
        value_name = "REPO"
    )]
    pub repo: Option<OsString>,
    /// Read the password from this file; a line feed at its end is dropped
    #[arg(long, global = true, value_name = "FILE", conflicts_with = "password_command")]
    pub password_file: Option<PathBuf>,
    /// Run this through the shell and take its output as the password
    #[arg(long, global = true, value_name = "COMMAND")]
    pub password_command: Option<OsString>,
    /// Write JSON lines to standard output
    #[arg(long, global = true)]
    pub json: bool,
    /// Show only errors, and why the exit code is not 0
    #[arg(short, long, global = true, conflicts_with = "verbose")]
    pub quiet: bool,
    /// Show what is done with entries: twice for all of them
    #[arg(short, long, global = true, action = ArgAction::Count)]
    pub verbose: u8,
    /// Where to remember the last entry of each repository's log [default:
    /// $XDG_STATE_HOME/strongroom or ~/.local/state/strongroom]
    #[arg(long, global = true, env = "STRONGROOM_STATE_DIR", hide_env_values = true, value_name = "DIR")]
    pub state_dir: Option<PathBuf>,
    /// Neither compare the repository's log with what is remembered of it nor remember anything
    #[arg(
        long,
        global = true,
        env = "STRONGROOM_NO_STATE",
        hide_env_values = true,
        value_parser = FalseyValueParser::new()
    )]
    pub no_state: bool,
    /// Refuse a repository whose log does not contain this entry, as `log head` printed it
    #[arg(long, global = true, value_name = "HEAD")]
    pub expect_head: Option<Head>,
    /// Memory to live in: 80MiB or more, of which trying a password takes 64MiB [default: 160MiB]
    #[arg(long, global = true, value_name = "SIZE", value_parser = parse_memory)]
    pub memory: Option<u64>,
    /// Read a repository whose commit log is damaged as far as that goes; nothing can be written
    #[arg(long, global = true)]
    pub ignore_log_damage: bool,
    /// Threads that do the work, or fewer where --memory has no room for all [default: one per processor]
    #[arg(long, global = true, value_name = "N", value_parser = parse_threads)]
    pub threads: Option<usize>,
}

fn parse_memory(text: &str) -> Result<u64, String> {
    let memory = units::parse_size(text)?;
    let min = BackupOptions::MEMORY_MIN;
    if memory < min {
        let least = units::size(min);
        return Err(format!(
            "that is less than {least} ({min} bytes), the least that works: trying a password takes 64 MiB of it"
        ));
    }
    Ok(memory)
}

fn parse_threads(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(threads @ 1..=1024) => Ok(threads),
        _ => Err("a number of threads is 1 to 1024".into()),
    }
}
