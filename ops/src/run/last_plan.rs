//! The plan as it was when a run with it last began: whose failure it is, and who is told, when it cannot be read any more.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::plan::{Plan, PlanFiles, SystemFiles, load};
use crate::recover::stored;
use crate::run::plans::folder_of;
use crate::run::state::{State, write_whole};

const FILE: &str = "last-plan.json";

/// One file of the plan.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Kept {
    #[serde(with = "stored")]
    path: PathBuf,
    text: String,
}

impl State {
    /// Keeps the files of a plan that can be run.
    ///
    /// # Errors
    /// Where they cannot be written.
    pub fn keep_plan(&self, plan: &Plan) -> io::Result<()> {
        let kept =
            |source: &crate::plan::SourceFile| Kept { path: source.path.clone(), text: source.text.clone() };
        let files: Vec<_> = plan.sources.iter().map(kept).collect();
        match read(self.folder()) {
            Ok(Some(known)) if known.0 == files => Ok(()),
            _ => write_whole(&self.path(FILE), &serde_json::to_vec(&files)?),
        }
    }
}

/// The plan at `path` as [`State::keep_plan`] has kept it last, in one of the folders in `base`; `None` if there was no run with it.
///
/// # Errors
/// Where it is there and cannot be read.
pub fn last_plan(base: &Path, path: &Path) -> io::Result<Option<Plan>> {
    let Some(folder) = folder_of(base, path)? else { return Ok(None) };
    let Some(files) = read(&folder)? else { return Ok(None) };
    let Some(main) = files.0.first() else { return Ok(None) };
    load(&main.path, &files).map(Some).map_err(io::Error::other)
}

fn read(folder: &Path) -> io::Result<Option<Files>> {
    match fs::read(folder.join(FILE)) {
        Ok(bytes) => Ok(Some(Files(serde_json::from_slice(&bytes)?))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Files where they were.
struct Files(Vec<Kept>);

impl PlanFiles for Files {
    fn read(&self, path: &Path, _len_max: u64) -> io::Result<Vec<u8>> {
        let found = self.0.iter().find(|kept| kept.path == path);
        found.map(|kept| kept.text.clone().into_bytes()).ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn list(&self, directory: &Path) -> io::Result<Vec<OsString>> {
        let here = self.0.iter().filter(|kept| kept.path.parent() == Some(directory));
        Ok(here.filter_map(|kept| kept.path.file_name()).map(OsString::from).collect())
    }

    fn canonical(&self, directory: &Path) -> io::Result<PathBuf> {
        SystemFiles.canonical(directory)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plan_is_known_as_it_was_last_with_all_its_files() {
        let dir = tempfile::tempdir().expect("a folder");
        let (base, main) = (dir.path().join("plans"), dir.path().join("etc/plan.toml"));
        fs::create_dir_all(dir.path().join("etc/conf.d")).expect("made");
        let write =
            |name: &str, text: &str| fs::write(dir.path().join("etc").join(name), text).expect("written");
        write(
            "plan.toml",
            "version = 1\ninclude = ['conf.d/*.toml', '../etc/more.toml']\n[repo.a]\nurl = '/backup'\n",
        );
        write("conf.d/x.toml", "[[domain]]\nname = 'x'\npaths = ['/x']\n");
        write("more.toml", "[metrics]\ntextfile = '/metrics'\n");
        assert_eq!(last_plan(&base, &main).expect("nothing is there"), None);
        let state = State::of_plan(&base, &main, "box").expect("a folder");
        assert_eq!(last_plan(&base, &main).expect("no run has begun"), None);
        let plan = load(&main, &SystemFiles).expect("a plan");
        assert_eq!(plan.sources.len(), 3);
        state.keep_plan(&plan).expect("kept");
        let modified = || fs::metadata(state.path(FILE)).and_then(|meta| meta.modified()).expect("there");
        let before = modified();
        state.keep_plan(&plan).expect("kept already");
        assert_eq!(modified(), before, "what is there already is not written again");
        write("conf.d/x.toml", "[[domain]]\nnmae = 'x'\n");
        fs::remove_file(dir.path().join("etc/more.toml")).expect("removed");
        assert_eq!(last_plan(&base, &main).expect("kept"), Some(plan.clone()));
        fs::remove_file(&main).expect("removed");
        assert_eq!(last_plan(&base, &main).expect("kept"), Some(plan));
        assert_eq!(last_plan(&base, &dir.path().join("other.toml")).expect("nothing of it"), None);
        fs::write(state.path(FILE), "[{").expect("written");
        assert!(last_plan(&base, &main).is_err(), "half a plan is no plan");
    }
}
