//! Which state folder a plan has, and those of its copies on the same host.
//!
//! A folder is named after the place of the plan, and holds that in `plan.json`. The same file by another path, as with `..` or
//! through a link, has the same folder. A copy of the plan has a folder of its own; what is unfinished in the other one is
//! seen from there, and what is at work there holds it up: both lock the same file for each repository of a domain.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::plan::Plan;
use crate::plan::load::hash;
use crate::plan::types::Repo;
use crate::plan::values::Name;
use crate::recover::stored;
use crate::run::state::{State, write_whole};

const FILE: &str = "plan.json";

/// Whose a state folder is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Owner {
    /// The plan's path when the folder was made.
    #[serde(with = "stored")]
    path: PathBuf,
    /// The host that its snapshots say they are from.
    host: String,
}

impl Owner {
    /// None where a program that did not write it has made the folder, or it cannot be read.
    fn of(folder: &Path) -> Option<Self> {
        serde_json::from_slice(&fs::read(folder.join(FILE)).ok()?).ok()
    }
}

/// The state folder of another plan for the same host, or of a copy of this one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Other {
    /// The folder.
    pub folder: PathBuf,
    /// Where that plan is, or was; unknown of old folders.
    pub plan: Option<PathBuf>,
}

impl State {
    /// The state of the plan at `path`, in one of the folders in `base`.
    ///
    /// # Errors
    /// Where they cannot be listed, or its folder cannot be written.
    pub fn of_plan(base: &Path, path: &Path, host: &str) -> io::Result<Self> {
        let state = Self::look(base, path, host)?;
        let folder = &state.folder;
        Self::new(folder)?;
        let place = Owner::of(folder).map_or_else(|| path.to_owned(), |owner| owner.path);
        let owner = Owner { path: place, host: host.to_owned() };
        if Owner::of(folder).as_ref() != Some(&owner) {
            write_whole(&state.path(FILE), &serde_json::to_vec(&owner)?)?;
        }
        Ok(state)
    }

    /// The same to look at only: nothing is written, and there may be nothing.
    ///
    /// # Errors
    /// Where the folders cannot be listed.
    pub fn look(base: &Path, path: &Path, host: &str) -> io::Result<Self> {
        let named = base.join(&hex([path.as_os_str().as_encoded_bytes()])[..16]);
        let mut known = folders(base)?;
        // Where there are several, as of times before they were told apart, it is always the same one.
        let is_own = |(folder, owner): &&(PathBuf, Option<Owner>)| match owner {
            Some(owner) => is_same(&owner.path, path),
            None => *folder == named,
        };
        let folder = known.iter().find(is_own).map_or(named, |(folder, _)| folder.clone());
        known.retain(|(other, _)| *other != folder);
        let is_of_host = |owner: &Option<Owner>| owner.as_ref().is_none_or(|owner| owner.host == host);
        known.retain(|(_, owner)| is_of_host(owner));
        let other =
            |(folder, owner): (PathBuf, Option<Owner>)| Other { folder, plan: owner.map(|owner| owner.path) };
        Ok(Self { others: known.into_iter().map(other).collect(), ..Self::at(&folder) })
    }

    /// With locks in `folder`, which is made, that every plan takes which runs a domain of the same name for the same host into
    /// the same repository: it is the same series of snapshots, and mostly the same data and the same hooks.
    ///
    /// # Errors
    /// Where the folder cannot be made.
    pub fn sharing(self, folder: &Path, plan: &Plan, host: &str) -> io::Result<Self> {
        DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
        let places = plan.domains.iter().map(|domain| {
            let repos = plan.repositories(domain).into_iter().filter_map(|repo| plan.repos.get(repo));
            let place = |repo: &Repo| repo.local().unwrap_or(Path::new(&repo.url)).to_owned();
            (domain.name.clone(), repos.map(place).collect())
        });
        let shared =
            Shared { folder: folder.to_owned(), host: host.to_owned(), repositories: places.collect() };
        Ok(Self { shared: Some(shared), ..self })
    }
}

/// Locks that every plan takes which makes the same snapshots.
#[derive(Debug, Clone)]
pub(super) struct Shared {
    folder: PathBuf,
    host: String,
    /// Where those of each domain are, as the plan names them.
    repositories: BTreeMap<Name, Vec<PathBuf>>,
}

impl Shared {
    /// The files that are locked together with a domain. Its repositories are looked for only now, and no other domain's: one on a
    /// dead network mount holds up whoever asks for it.
    pub(super) fn files(&self, domain: &Name) -> BTreeSet<PathBuf> {
        let repositories = self.repositories.get(domain).into_iter().flatten();
        repositories.map(|repo| self.folder.join(series(&self.host, domain, repo))).collect()
    }
}

/// The name of the lock of a domain's snapshots in a repository.
fn series(host: &str, domain: &Name, repo: &Path) -> String {
    // By whatever path it is named, if it is there.
    let place = fs::canonicalize(repo).unwrap_or_else(|_| repo.to_owned());
    hex([host.as_bytes(), domain.as_str().as_bytes(), place.as_os_str().as_encoded_bytes()])
}

/// The folder of the plan at `path`, if it has one in `base`.
pub(super) fn folder_of(base: &Path, path: &Path) -> io::Result<Option<PathBuf>> {
    let is_own = |owner: &Option<Owner>| owner.as_ref().is_some_and(|owner| is_same(&owner.path, path));
    Ok(folders(base)?.into_iter().find_map(|(folder, owner)| is_own(&owner).then_some(folder)))
}

/// All folders, in the order of their names.
fn folders(base: &Path) -> io::Result<Vec<(PathBuf, Option<Owner>)>> {
    let entries = match fs::read_dir(base) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut paths = entries.map(|entry| Ok(entry?.path())).collect::<io::Result<Vec<_>>>()?;
    paths.retain(|path| path.is_dir());
    paths.sort();
    Ok(paths.into_iter().map(|path| (path.clone(), Owner::of(&path))).collect())
}

fn hex<'a>(parts: impl IntoIterator<Item = &'a [u8]>) -> String {
    strongroom::ids::PlanHash::from_bytes(hash(parts)).to_string()
}

/// Whether two paths lead to one file, or are one path.
fn is_same(one: &Path, other: &Path) -> bool {
    let file = |path: &Path| fs::metadata(path).ok().map(|meta| (meta.dev(), meta.ino()));
    one == other || file(one).is_some_and(|found| file(other) == Some(found))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn one_plan_has_one_state_by_whatever_path() {
        let dir = tempfile::tempdir().expect("a folder");
        let base = dir.path().join("state/plans");
        let plan = dir.path().join("etc/plan.toml");
        fs::create_dir_all(dir.path().join("etc/conf.d")).expect("made");
        fs::write(&plan, "version = 1").expect("written");
        symlink(&plan, dir.path().join("link.toml")).expect("a link");
        let folder = |path: &str, host: &str| {
            State::of_plan(&base, &dir.path().join(path), host).expect("a folder").folder().to_owned()
        };
        // Of a version that did not say whose it is.
        let old = base.join(&hex([plan.as_os_str().as_encoded_bytes()])[..16]);
        fs::create_dir_all(&old).expect("made");
        let first = folder("etc/plan.toml", "box");
        assert_eq!(first, old);
        for path in ["etc/conf.d/../plan.toml", "link.toml", "etc/plan.toml"] {
            assert_eq!(folder(path, "box"), first, "{path}");
        }
        // A link that leads elsewhere from now on, as one to the newest release does, is the same plan's place still.
        let link = dir.path().join("current.toml");
        symlink(dir.path().join("release-1"), &link).expect("a link");
        fs::write(dir.path().join("release-1"), "").expect("written");
        let released = folder("current.toml", "box");
        fs::write(dir.path().join("release-2"), "").expect("written");
        fs::remove_file(&link).expect("removed");
        symlink(dir.path().join("release-2"), &link).expect("a link");
        assert_eq!(folder("current.toml", "box"), released);
        assert_ne!(released, first);
    }

    #[test]
    fn folders_of_copies_are_known_and_those_of_other_hosts_are_not() {
        let dir = tempfile::tempdir().expect("a folder");
        let base = dir.path().join("plans");
        let state = |path: &str, host: &str| {
            let path = dir.path().join(path);
            fs::write(&path, "version = 1").expect("written");
            State::of_plan(&base, &path, host).expect("a folder")
        };
        let one = state("one.toml", "box");
        assert_eq!(one.others, []);
        state("elsewhere.toml", "other");
        let two = state("two.toml", "box");
        let expected = Other { folder: one.folder().to_owned(), plan: Some(dir.path().join("one.toml")) };
        assert_eq!(two.others, [expected]);
    }

    #[test]
    fn what_one_plan_runs_no_copy_runs_into_the_same_repository() {
        let dir = tempfile::tempdir().expect("a folder");
        let text = |url: &str, more: &str| {
            let url = dir.path().join(url);
            format!(
                "version = 1\n[repo.main]\nurl = '{}'\n{more}[[domain]]\nname = 'shop'\npaths = ['/shop']\n[[domain]]\nname = 'wiki'\n\
                 paths = ['/wiki']\n",
                url.display()
            )
        };
        fs::create_dir(dir.path().join("repo")).expect("made");
        symlink(dir.path().join("repo"), dir.path().join("link")).expect("a link");
        let state = |name: &str, text: &str, host: &str| {
            let path = dir.path().join(name);
            fs::write(&path, text).expect("written");
            let plan = crate::plan::load(&path, &crate::plan::SystemFiles).expect("a plan");
            let state = State::of_plan(&dir.path().join("plans"), &path, host).expect("a folder");
            state.sharing(&dir.path().join("series"), &plan, host).expect("a folder")
        };
        let (shop, wiki): (Name, Name) = ("shop".parse().expect("a name"), "wiki".parse().expect("a name"));
        // One repository by two names is locked once.
        let again = format!("[repo.again]\nurl = '{}'\n", dir.path().join("link").display());
        let one = state("one.toml", &text("repo", &again), "box");
        let is_free =
            |state: &State, domain: &Name| state.lock(domain).expect("the folder can be written").is_some();
        let lock = one.lock(&shop).expect("a lock").expect("nobody has it");
        for (name, url, host, expected) in [
            ("copy.toml", "repo", "box", false),
            ("linked.toml", "link", "box", false),
            ("other-host.toml", "repo", "other", true),
            ("other-repository.toml", "elsewhere", "box", true),
        ] {
            let other = state(name, &text(url, ""), host);
            assert_eq!(is_free(&other, &shop), expected, "{name}");
            assert!(is_free(&other, &wiki), "{name}");
            assert!(other.lock_own(&shop).expect("a lock").is_some(), "{name}: what it tried is given back");
        }
        drop(lock);
        assert!(is_free(&state("copy.toml", &text("repo", ""), "box"), &shop));
    }

    /// On a dead network mount that takes for ever, and most commands lock nothing.
    #[test]
    fn repositories_are_looked_for_when_their_domain_is_locked_and_not_before() {
        let dir = tempfile::tempdir().expect("a folder");
        let (place, link) = (dir.path().join("repo"), dir.path().join("link"));
        let state = |file: &str, repo: &Path| {
            let path = dir.path().join(file);
            let text = format!(
                "version = 1\n[repo.main]\nurl = '{}'\n[[domain]]\nname = 'shop'\npaths = ['/shop']\n",
                repo.display()
            );
            fs::write(&path, text).expect("written");
            let plan = crate::plan::load(&path, &crate::plan::SystemFiles).expect("a plan");
            let state = State::of_plan(&dir.path().join("plans"), &path, "box").expect("a folder");
            state.sharing(&dir.path().join("series"), &plan, "box").expect("a folder")
        };
        let (direct, linked) = (state("one.toml", &place), state("copy.toml", &link));
        // Nobody has asked where that leads to, or it would not be known that this is the same repository.
        fs::create_dir(&place).expect("made");
        symlink(&place, &link).expect("a link");
        let shop: Name = "shop".parse().expect("a name");
        let _lock = direct.lock(&shop).expect("a lock").expect("nobody has it");
        assert!(linked.lock(&shop).expect("a lock").is_none());
    }
}
