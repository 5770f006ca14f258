//! What the program itself puts where data may lie: the plan's repositories, what this host remembers of runs, and what drills and
//! recoveries are at work with. None of it is data that somebody would miss.
//!
//! Only what is known to be the program's counts: what somebody else has put into a repository, beside its own folders, is data.

use std::fs;
use std::path::{Component, Path, PathBuf};

use strongroom::backend::Folder;

use crate::drill::scratch;
use crate::plan::Plan;
use crate::plan::values::Name;
use crate::recover::BESIDE;

/// Names in a repository beside the folders of its objects.
const BESIDE_FOLDERS: [&str; 3] = ["config", "reserve", "tmp"];

/// What something is that the program has put where it is.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Own {
    /// This repository of the plan.
    Repository(Name),
    /// What this host remembers.
    State,
    /// What a drill or a recovery is at work with.
    Scratch,
}

impl Own {
    /// Why it is no data, in words.
    pub const fn reason(&self) -> &'static str {
        match self {
            Self::Repository(_) => "repository of the plan",
            Self::State => "state of this host's runs",
            Self::Scratch => "scratch directory of a drill or a recovery",
        }
    }
}

/// Where the program has put something.
pub(super) struct Belongings {
    repositories: Vec<(PathBuf, Name)>,
    state: Vec<PathBuf>,
    scratch: Vec<PathBuf>,
}

impl Belongings {
    /// Of a plan, with the folders in which this host remembers its runs.
    pub(super) fn of(plan: &Plan, state: &[PathBuf]) -> Self {
        let there = |folder: &Path| fs::canonicalize(folder).ok();
        let repositories = plan.repos.iter().filter_map(|(name, repo)| Some((repo.local()?, name)));
        let scratch = plan.drills.iter().filter_map(|drill| Some((drill.scratch.as_ref()?, &drill.name)));
        Self {
            repositories: repositories
                .filter(|(folder, _)| is_repository(folder))
                .filter_map(|(folder, name)| Some((there(folder)?, name.clone())))
                .collect(),
            state: state.iter().filter_map(|folder| there(folder)).collect(),
            scratch: scratch
                .map(|(above, name)| Path::new(above).join(name.as_str()))
                .filter(|folder| scratch::is_marked(folder))
                .filter_map(|folder| there(&folder))
                .collect(),
        }
    }

    /// The repository that has a path, which leads over no link, among what is its own.
    pub(super) fn repository(&self, path: &Path) -> Option<Own> {
        let of = |(folder, name): &(PathBuf, Name)| {
            let is_own = match path.strip_prefix(folder).ok()?.components().next() {
                None => true,
                Some(Component::Normal(first)) => {
                    Folder::ALL.map(Folder::name).into_iter().chain(BESIDE_FOLDERS).any(|own| first == own)
                }
                Some(_) => false,
            };
            is_own.then(|| Own::Repository(name.clone()))
        };
        self.repositories.iter().find_map(of)
    }

    /// What else of the program's a path is, which leads over no link.
    pub(super) fn working(&self, path: &Path) -> Option<Own> {
        let is_below = |folders: &[PathBuf]| folders.iter().any(|folder| path.starts_with(folder));
        let is_beside =
            |part: Component<'_>| part.as_os_str().as_encoded_bytes().starts_with(BESIDE.as_bytes());
        if is_below(&self.state) {
            return Some(Own::State);
        }
        (is_below(&self.scratch) || path.components().any(is_beside)).then_some(Own::Scratch)
    }
}

/// Whether there is a repository, and not only a place for one. It may be damaged.
fn is_repository(folder: &Path) -> bool {
    [Folder::Keys, Folder::Log, Folder::Packs].iter().all(|name| folder.join(name.name()).is_dir())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::coverage::{Cover, coverage};
    use crate::plan::load::tests_support::plan;

    fn write(folder: &Path, names: &[&str]) {
        for name in names {
            let path = folder.join(name);
            fs::create_dir_all(path.parent().expect("below")).expect("folders");
            fs::write(path, "12345").expect("a file");
        }
    }

    /// What becomes of everything in `dir`, by path.
    fn covers(dir: &Path, more: &str, root: &str) -> Vec<(String, Cover)> {
        let text = format!(
            "[repo.r]\nurl = 'file:DIR/srv/backup/r'\n[repo.none]\nurl = 'DIR/srv/none'\n{more}[inventory]\nroots = ['{root}']\n"
        );
        let plan = plan(&text.replace("DIR", dir.to_str().expect("text")));
        let found = coverage(&plan, &[dir.join("srv/state/plans")]).expect("patterns");
        let root = root.replace("DIR", dir.to_str().expect("text"));
        let below = |path: &Path| path.strip_prefix(&root).expect("below").to_str().expect("text").to_owned();
        found.items.into_iter().map(|item| (below(&item.path), item.cover)).collect()
    }

    #[test]
    fn what_the_program_has_put_there_is_no_data() {
        let folder = tempfile::tempdir().expect("a folder");
        let dir = folder.path().canonicalize().expect("there");
        let name = |text: &str| text.parse::<Name>().expect("a name");
        let repository = || Cover::Own(Own::Repository(name("r")));
        let files =
            ["config", "keys/a", "log/b", "packs/00/c", "tmp/d"].map(|file| format!("srv/backup/r/{file}"));
        write(&dir, &files.each_ref().map(String::as_str));
        assert_eq!(covers(&dir, "", "DIR/srv"), [("backup/r".to_owned(), repository())]);
        // Known also where a link leads to it, and where a domain has what it lies in: no backup has it then.
        std::os::unix::fs::symlink(dir.join("srv"), dir.join("link")).expect("a link");
        let domain = "[[domain]]\nname = 'x'\npaths = ['DIR/srv']\n";
        for more in ["", domain] {
            assert_eq!(covers(&dir, more, "DIR/link"), [("backup/r".to_owned(), repository())], "{more}");
        }
        // What somebody else put into it, or where there is no repository yet, is data.
        write(&dir, &["srv/backup/r/thesis.odt", "srv/none/config", "srv/none/a"]);
        let found = covers(&dir, "", "DIR/srv");
        let bad: Vec<_> = found.iter().filter(|(_, cover)| *cover == Cover::Unprotected).collect();
        let bad: Vec<_> = bad.into_iter().map(|(path, _)| path.as_str()).collect();
        assert_eq!(bad, ["backup/r/thesis.odt", "none"]);
        assert!(found.iter().all(|(_, cover)| matches!(cover, Cover::Unprotected) || *cover == repository()));
    }

    #[test]
    fn what_the_program_works_with_is_no_data_unless_a_domain_has_it() {
        let folder = tempfile::tempdir().expect("a folder");
        let dir = folder.path().canonicalize().expect("there");
        let drill = "[[drill]]\nname = 'd'\ndomains = ['x']\ntier = 'full'\nscratch = 'DIR/srv/tmp'\n";
        write(
            &dir,
            &[
                "srv/state/plans/p/attempts.jsonl",
                "srv/state/mine",
                "srv/tmp/d/a",
                "srv/tmp/mine",
                "srv/.strongroom-recover-1/b",
            ],
        );
        let own = |cover: Own| Cover::Own(cover);
        let expected = |scratch: Cover| {
            [
                (".strongroom-recover-1", own(Own::Scratch)),
                ("state/mine", Cover::Unprotected),
                ("state/plans", own(Own::State)),
                ("tmp/d", scratch),
                ("tmp/mine", Cover::Unprotected),
            ]
            .map(|(path, cover)| (path.to_owned(), cover))
        };
        // A directory in which no drill has left its mark is somebody else's.
        let mut unmarked = expected(Cover::Unprotected).to_vec();
        unmarked.truncate(3);
        unmarked.push(("tmp".to_owned(), Cover::Unprotected));
        assert_eq!(covers(&dir, drill, "DIR/srv"), unmarked);
        write(&dir, &["srv/tmp/d/.strongroom-drill"]);
        assert_eq!(covers(&dir, drill, "DIR/srv"), expected(own(Own::Scratch)));
        let domain = "[[domain]]\nname = 'x'\npaths = ['DIR/srv']\n";
        let all = covers(&dir, domain, "DIR/srv");
        assert!(all.len() == 1 && matches!(all[0].1, Cover::Protected(_)), "{all:?}");
    }
}
