//! What has appeared in a mounted directory since its entries were listed. Such a directory is taken apart, and its entries are swapped one by
//! one: what nobody has looked at would stay among those of another state.

use std::collections::BTreeSet;
use std::fs;
use std::io::{self, ErrorKind};
use std::path::Path;

use strongroom::source::Filter;

use crate::plan::types::Domain;
use crate::recover::journal::Journal;
use crate::recover::targets::{Target, is_left_alone};

/// Targets for what is in mounted directories of a recovery and is none of its targets.
///
/// # Errors
/// Where a directory cannot be listed.
pub(super) fn find(domain: &Domain, journal: &Journal) -> io::Result<Vec<Target>> {
    let invalid = |error| io::Error::new(ErrorKind::InvalidInput, error);
    let filter = Filter::new(domain.filter()).map_err(invalid)?;
    let is_named = |target: &Target| {
        domain.paths.iter().chain(&domain.sqlite).any(|path| target.named == Path::new(path))
    };
    let entries = journal.targets.iter().filter(|one| one.beside_database.is_none() && !is_named(one));
    let folders: BTreeSet<(&Path, &Path)> =
        entries.filter_map(|entry| Some((entry.named.parent()?, entry.place.parent()?))).collect();
    let mut found = Vec::new();
    for (named, place) in folders {
        for entry in fs::read_dir(place)? {
            let name = entry?.file_name();
            let (named, place) = (named.join(&name), place.join(&name));
            let is_known = journal.targets.iter().any(|target| target.place == place);
            if !is_known && !is_left_alone(&name) && !domain.leaves_out(&filter, &named) {
                let number = journal.targets.len() + found.len() + 1;
                found.push(Target::new(&journal.id, &named, &place, None).numbered(number));
            }
        }
    }
    Ok(found)
}
