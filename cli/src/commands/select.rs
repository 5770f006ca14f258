//! Which snapshots a command looks at: the options that `forget`, `copy`, `snapshots` and `find` share.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;

use strongroom::forget::Selection;

/// Selection.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Selection")]
#[group(id = "selection", multiple = true)]
pub struct Select {
    /// Look only at snapshots of this host
    #[arg(long, value_name = "NAME")]
    host: Vec<String>,
    /// Look only at snapshots that have all of these tags
    #[arg(long, value_name = "TAG[,TAG]")]
    tag: Vec<String>,
    /// Look only at snapshots of this domain of a plan
    #[arg(long, value_name = "NAME")]
    domain: Vec<String>,
    /// Look only at snapshots of this path
    #[arg(long, value_name = "PATH")]
    path: Vec<OsString>,
}

/// What is said where the options choose no snapshot.
pub const NONE_CHOSEN: &str = "no snapshot has what --host, --tag, --domain and --path ask for";

impl Select {
    /// The snapshots to look at.
    pub fn selection(&self) -> Selection {
        Selection {
            hosts: self.host.clone(),
            tags: split_tags(&self.tag),
            paths: self.path.iter().map(|path| path.clone().into_vec()).collect(),
            domains: self.domain.clone(),
        }
    }

    /// Whether any option was given.
    pub fn is_selective(&self) -> bool {
        self.selection() != Selection::default()
    }
}

/// Tags as they are given: each list with commas is of tags that belong together.
pub fn split_tags(lists: &[String]) -> Vec<Vec<String>> {
    lists.iter().map(|list| list.split(',').map(|tag| tag.trim().to_owned()).collect()).collect()
}
