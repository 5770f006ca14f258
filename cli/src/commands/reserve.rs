//! `reserve`: room on the storage that is kept free for the day on which it is full.

use serde_json::json;
use strongroom::reserve::{self, Spent};

use crate::context::Context;
use crate::exit::Exit;
use crate::failure::Outcome;
use crate::output::{Output, object};
use crate::units;

const AFTER_HELP: &str = "\
A reserve is a file in the repository that takes room and holds nothing. When the storage is full,
`forget` and `prune` delete it, do their work in the room that this makes, and make it again. No
backup uses that room, and nothing is lost without it. A new repository has one of 4 MiB, and it
grows with the index.

Example:
  strongroom -r /backup/repo reserve set 64MiB";

const SET_HELP: &str = "\
At least 1 MiB. Before a prune can delete anything, it may have to write as much as the folder
`index` of the repository takes, and a little more. So a reserve that is to be shorter becomes twice
as long as that; later backups, copies and prunes make it longer as the index grows. Where there is
no room for all of it, a half, a quarter and so on is kept free, and the next `prune` makes it whole
if there is room then.

Example:
  strongroom -r /backup/repo reserve set 64MiB";

/// Arguments of `reserve`.
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub struct Args {
    /// What to do.
    #[command(subcommand)]
    what: What,
}

/// What to do with the reserve.
#[derive(Debug, clap::Subcommand)]
enum What {
    /// Keep so much room free from now on
    #[command(after_help = SET_HELP)]
    Set(SetArgs),
    /// Give the room back, and keep none from now on
    #[command(after_help = "Example:\n  strongroom -r /backup/repo reserve drop")]
    Drop,
    /// Show how much room is kept free
    #[command(after_help = "Example:\n  strongroom -r /backup/repo reserve status --json")]
    Status,
}

/// Arguments of `reserve set`.
#[derive(Debug, clap::Args)]
struct SetArgs {
    /// How much, as 64MiB or 1GiB
    #[arg(value_name = "SIZE", value_parser = units::parse_size)]
    size: u64,
}

/// Sets, drops or shows it.
pub fn run(args: &Args, context: &Context) -> Outcome {
    let (repository, out) = (context.open()?, &context.output);
    let size = |bytes: Option<u64>| units::size(bytes.unwrap_or(0));
    let status = match &args.what {
        What::Set(args) => {
            let status = reserve::set(&repository, args.size)?;
            out.text(format!("Kept free: {}", size(status.stored)));
            status
        }
        What::Drop => {
            let before = reserve::drop_it(&repository)?;
            out.text(format!("Given back: {}", size(before.stored)));
            reserve::Status::default()
        }
        What::Status => {
            let status = reserve::status(&repository)?;
            if !out.json() {
                let wanted = status.wanted.map_or_else(|| "none".to_owned(), units::size);
                out.line(format!("Wanted:    {wanted}"))?;
                out.line(format!("Kept free: {}", size(status.stored)))?;
            }
            status
        }
    };
    if out.json() {
        let kept = status.stored.unwrap_or(0);
        out.object(object(json!({"type": "summary", "wanted": status.wanted, "kept_free": kept})))?;
    }
    Ok(Exit::Ok)
}

/// Says what became of the reserve while something else was done, where that is news.
pub fn tell_spent(out: &Output, spent: &Spent) {
    let (given_back, lacking) = (units::size(spent.given_back), units::size(spent.lacking));
    if spent.given_back > 0 {
        out.text(format!("Reserve:   {given_back} were given back, since the storage was full"));
    }
    if spent.lacking > 0 {
        out.warn(&format!(
            "warning: the reserve lacks {lacking}: there is no room for more; the next `strongroom prune` makes it whole if there is then"
        ));
    }
}
