//! What `backup` takes, and what that means for the engine.

use std::ffi::OsString;
use std::io::Read;
use std::path::PathBuf;
use std::time::Duration;

use clap::builder::NonEmptyStringValueParser;
use strongroom::backup::{BackupOptions, GrainRule, ParentChoice, SnapshotLabels};
use strongroom::format::tree::Timestamp;
use strongroom::repo::Repository;
use strongroom::source::{FilterOptions, Separator, files_from};

use crate::context::{self, Context};
use crate::failure::Failure;
use crate::units;

const AFTER_HELP: &str = "\
Exit code 3: the snapshot exists and can be used, but entries could not be read or were unstable.

Examples:
  strongroom -r /backup/repo backup /home /etc --exclude '*.o' --exclude-caches
  strongroom -r /backup/repo backup --command db.sql -- pg_dump --format=custom app";

/// Arguments of `backup`.
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub struct Args {
    /// Files and directories to back up
    #[arg(value_name = "PATH", conflicts_with_all = ["stdin_filename", "command"])]
    paths: Vec<PathBuf>,
    /// The command of --command with its arguments; without --command further paths
    #[arg(last = true, value_name = "ARGV", conflicts_with = "stdin_filename")]
    pub(super) argv: Vec<OsString>,
    /// Back up the paths in this file, one a line; `-` is standard input
    #[arg(long, value_name = "FILE", conflicts_with_all = ["stdin_filename", "command"])]
    files_from: Vec<PathBuf>,
    /// The same with paths that end in a NUL byte
    #[arg(long, value_name = "FILE", conflicts_with_all = ["stdin_filename", "command"])]
    files_from0: Vec<PathBuf>,
    /// Back standard input up as a file of this name
    #[arg(long, value_name = "NAME", conflicts_with = "command")]
    pub(super) stdin_filename: Option<OsString>,
    /// Run the command after `--` and back its output up as a file of this name, if it ends with 0
    #[arg(long, value_name = "NAME", requires = "argv")]
    pub(super) command: Option<OsString>,
    /// What to leave out.
    #[command(flatten)]
    exclude: Exclude,
    /// What the snapshot says of itself.
    #[command(flatten)]
    labels: Labels,
    /// How it is done.
    #[command(flatten)]
    manner: Manner,
}

/// What to leave out.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "What to leave out")]
struct Exclude {
    /// Leave out what matches; later patterns have precedence, `!` takes back
    #[arg(short, long, value_name = "PATTERN")]
    exclude: Vec<String>,
    /// The same, upper and lower case being equal
    #[arg(long, value_name = "PATTERN")]
    iexclude: Vec<String>,
    /// Read patterns from this file, one a line
    #[arg(long, value_name = "FILE")]
    exclude_file: Vec<PathBuf>,
    /// Obey files of this name in the source as git obeys `.gitignore`
    #[arg(long, value_name = "NAME")]
    ignore_file: Vec<String>,
    /// Leave out the contents of directories with a CACHEDIR.TAG
    #[arg(long)]
    exclude_caches: bool,
    /// Leave out the contents of directories that hold this file, if given beginning with HEADER
    #[arg(long, value_name = "NAME[:HEADER]")]
    exclude_if_present: Vec<String>,
    /// Leave out files of more bytes
    #[arg(long, value_name = "SIZE", value_parser = units::parse_size)]
    exclude_larger_than: Option<u64>,
    /// Leave out what is mounted below the paths given
    #[arg(short = 'x', long)]
    one_file_system: bool,
}

/// What the snapshot says of itself.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "What the snapshot says of itself")]
struct Labels {
    /// A label; several can be given, also separated by commas
    #[arg(long, value_name = "TAG", value_delimiter = ',', value_parser = NonEmptyStringValueParser::new())]
    tag: Vec<String>,
    /// The host the data is from [default: this one]
    #[arg(long, value_name = "NAME")]
    host: Option<String>,
    /// The time of the data [default: now]
    #[arg(long, value_name = "TIME", value_parser = units::parse_time, allow_hyphen_values = true)]
    time: Option<Timestamp>,
}

/// How it is done.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "How it is done")]
struct Manner {
    /// Read and count everything, write nothing
    #[arg(short = 'n', long)]
    dry_run: bool,
    /// Read every file, also those that seem unchanged
    #[arg(short, long, conflicts_with = "parent")]
    force: bool,
    /// Make no snapshot if nothing has changed
    #[arg(long, conflicts_with_all = ["stdin_filename", "command"])]
    skip_if_unchanged: bool,
    /// Compare with this snapshot [default: the last one of the same host and paths]
    #[arg(long, value_name = "SNAPSHOT")]
    parent: Option<String>,
    /// Do not decode and compare each block before it is written
    #[arg(long)]
    no_verify_blocks: bool,
    /// zstd level [default: 3]
    #[arg(long, value_name = "LEVEL", value_parser = clap::value_parser!(i32).range(1..=22))]
    compression: Option<i32>,
    /// Cut files that match, and are longer than 256KiB, in pieces of about this size: page, fine, medium or coarse, or
    /// 16KiB, 64KiB or 1MiB
    #[arg(long, value_name = "PATTERN=SIZE", value_parser = units::parse_grain)]
    grain: Vec<GrainRule>,
    /// Time between partial snapshots [default: 3m]
    #[arg(long, value_name = "DURATION", value_parser = units::parse_duration)]
    partial_every: Option<Duration>,
}

impl Args {
    /// Refuses what cannot be meant.
    pub(super) fn check(&self) -> Result<(), Failure> {
        let streams = self.command.is_some() || self.stdin_filename.is_some();
        let lists = !self.files_from.is_empty() || !self.files_from0.is_empty();
        if !streams && !lists && self.paths.is_empty() && self.argv.is_empty() {
            return Err(Failure::usage("usage", "nothing to back up: no path was given")
                .hint("name files or directories, or use --files-from, --stdin-filename or --command"));
        }
        Ok(())
    }

    /// The paths given and listed.
    pub(super) fn paths(&self) -> Result<Vec<PathBuf>, Failure> {
        let mut paths = self.paths.clone();
        if self.command.is_none() {
            paths.extend(self.argv.iter().map(PathBuf::from));
        }
        let lists = self.files_from.iter().map(|file| (file, Separator::Line));
        for (file, separator) in lists.chain(self.files_from0.iter().map(|file| (file, Separator::Nul))) {
            let name = file.display().to_string();
            let mut bytes = Vec::new();
            let read = if name == "-" {
                std::io::stdin().read_to_end(&mut bytes).map(|_| ())
            } else {
                std::fs::read(file).map(|read| bytes = read)
            };
            read.map_err(|error| Failure::io(format_args!("cannot read {name}"), &error))?;
            paths.extend(files_from::parse(&bytes, separator, &name)?);
        }
        Ok(paths)
    }

    /// What to leave out.
    pub(super) fn filter(&self) -> FilterOptions {
        let exclude = &self.exclude;
        FilterOptions {
            exclude: exclude.exclude.clone(),
            iexclude: exclude.iexclude.clone(),
            exclude_files: exclude.exclude_file.clone(),
            ignore_file_names: exclude.ignore_file.clone(),
            exclude_caches: exclude.exclude_caches,
            exclude_if_present: exclude.exclude_if_present.clone(),
            exclude_larger_than: exclude.exclude_larger_than,
            one_file_system: exclude.one_file_system,
        }
    }

    /// Everything else.
    pub(super) fn options(
        &self,
        repository: &Repository,
        context: &Context,
    ) -> Result<BackupOptions, Failure> {
        let default = BackupOptions::default();
        let parent = match &self.manner.parent {
            Some(name) => ParentChoice::Snapshot(repository.find_snapshot(name)?.0),
            None if self.manner.force => ParentChoice::None,
            None => ParentChoice::Automatic,
        };
        Ok(BackupOptions {
            parent,
            labels: SnapshotLabels {
                host: self.labels.host.clone().unwrap_or_default(),
                tags: self.labels.tag.clone(),
                time: self.labels.time,
                provenance: None,
            },
            dry_run: self.manner.dry_run,
            skip_if_unchanged: self.manner.skip_if_unchanged,
            verify_blocks: !self.manner.no_verify_blocks,
            level: self.manner.compression.unwrap_or(default.level),
            partial_every: self.manner.partial_every.unwrap_or(default.partial_every),
            excludes: self.exclude.as_given(),
            grains: self.manner.grain.clone(),
            threads: context.threads(default.threads),
            memory: context.memory(default.memory),
            spill: Some(context::temporary_place()),
            ..default
        })
    }
}

impl Exclude {
    /// The rules for the record: patterns as they are, the others as the options that they came from.
    fn as_given(&self) -> Vec<String> {
        let option = |name: &'static str| move |value: String| format!("{name}={value}");
        let path = |path: &PathBuf| path.display().to_string();
        let mut given = self.exclude.clone();
        given.extend(self.iexclude.iter().cloned().map(option("--iexclude")));
        given.extend(self.exclude_file.iter().map(path).map(option("--exclude-file")));
        given.extend(self.ignore_file.iter().cloned().map(option("--ignore-file")));
        given.extend(self.exclude_if_present.iter().cloned().map(option("--exclude-if-present")));
        given
            .extend(self.exclude_larger_than.iter().map(u64::to_string).map(option("--exclude-larger-than")));
        given.extend(self.exclude_caches.then(|| "--exclude-caches".to_owned()));
        given.extend(self.one_file_system.then(|| "--one-file-system".to_owned()));
        given
    }
}
