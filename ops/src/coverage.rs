//! What lies where data may lie, and which domain of the plan covers it.
//!
//! Directories that are alike below are told as one: what nobody covers, with its size, first of all.

mod own;

use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use strongroom::source::{Filter, FilterError};

use self::own::Belongings;
pub use self::own::Own;
use crate::plan::Plan;
use crate::plan::types::{Consistency, Domain, Ignored};
use crate::plan::values::Name;

/// Depth below a root to which is looked.
const DEPTH_MAX: usize = 256;

/// What becomes of a file or directory.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Cover {
    /// A domain has it.
    Protected(Name),
    /// A domain would have it, but leaves it out.
    Excluded(Name),
    /// It is no data: the program itself has put it there.
    Own(Own),
    /// The plan says why it need not be protected.
    Ignored(String),
    /// No domain has it.
    Unprotected,
    /// It cannot be read.
    Unreadable(String),
}

/// A file, or a directory with all that is below.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Item {
    /// Where it is.
    pub path: PathBuf,
    /// What becomes of it.
    pub cover: Cover,
    /// Files in it.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// A database that may be in use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Database {
    /// Its file or directory.
    pub path: PathBuf,
    /// What it is.
    pub kind: &'static str,
    /// The domain that copies its files while it may be in use, if there is one: the copy may be a mixture.
    pub copied_by: Option<Name>,
    /// Whether some domain has it in a way that is right.
    pub is_covered: bool,
}

/// What was found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Coverage {
    /// Files and directories, by path.
    pub items: Vec<Item>,
    /// Databases, by path.
    pub databases: Vec<Database>,
}

impl Coverage {
    /// Whether everything is covered in a way that is right.
    pub fn is_complete(&self) -> bool {
        let is_bad = |item: &Item| matches!(item.cover, Cover::Unprotected | Cover::Unreadable(_));
        !self.items.iter().any(is_bad) && !self.databases.iter().any(|found| found.copied_by.is_some())
    }
}

/// Looks through the inventory of a plan. `state` are the folders in which this host remembers its runs.
///
/// # Errors
/// [`FilterError`] where an exclude pattern of a domain cannot be used.
pub fn coverage(plan: &Plan, state: &[PathBuf]) -> Result<Coverage, FilterError> {
    let areas = plan.domains.iter().map(Area::of).collect::<Result<Vec<_>, _>>()?;
    let own = Belongings::of(plan, state);
    let ignored = plan.inventory.iter().flat_map(|inventory| &inventory.ignore).collect();
    let mut look = Look { areas, own, ignored, link: None, found: Coverage::default() };
    let mut roots: Vec<PathBuf> =
        plan.inventory.iter().flat_map(|inventory| &inventory.roots).map(PathBuf::from).collect();
    roots.sort();
    // A root in another one is looked at with that.
    roots.dedup_by(|inner, outer| inner.starts_with(outer));
    for root in roots {
        let items = look.root(&root);
        look.found.items.extend(items);
    }
    look.found.databases.sort_by(|one, other| one.path.cmp(&other.path));
    Ok(look.found)
}

/// What a domain has.
struct Area<'p> {
    domain: &'p Domain,
    filter: Filter,
    /// Its paths, with the file systems that they are on, where those can be looked at.
    roots: Vec<(&'p Path, Option<u64>)>,
}

impl<'p> Area<'p> {
    fn of(domain: &'p Domain) -> Result<Self, FilterError> {
        let device = |path: &Path| fs::metadata(path).ok().map(|meta| meta.dev());
        let roots = domain.paths.iter().map(Path::new).map(|path| (path, device(path))).collect();
        Ok(Self { domain, filter: Filter::new(domain.filter())?, roots })
    }

    /// Whether it has what is at a path on a file system.
    fn has(&self, path: &Path, device: u64) -> bool {
        let mut above = self.roots.iter().filter(|(root, _)| path.starts_with(root));
        let is_reached = match self.domain.one_file_system {
            true => above.any(|(_, own)| own.is_none_or(|own| own == device)),
            false => above.next().is_some(),
        };
        is_reached && !self.domain.leaves_out(&self.filter, path)
    }

    fn has_database(&self, path: &Path) -> bool {
        self.domain.sqlite.iter().any(|own| path == Path::new(own))
    }

    /// Whether one of its streams stands for what is at a path.
    fn dumps(&self, path: &Path) -> bool {
        self.domain.stream.iter().flat_map(|stream| &stream.data).any(|data| path.starts_with(data))
    }
}

struct Look<'p> {
    areas: Vec<Area<'p>>,
    own: Belongings,
    ignored: Vec<&'p Ignored>,
    /// The root that is looked at, and what it leads to, if it is a link.
    link: Option<(PathBuf, PathBuf)>,
    found: Coverage,
}

impl<'p> Look<'p> {
    /// A root stands for what it leads to, as it does in a backup.
    fn root(&mut self, root: &Path) -> Vec<Item> {
        let unreadable = |reason: String| {
            vec![Item { path: root.to_owned(), cover: Cover::Unreadable(reason), files: 0, bytes: 0 }]
        };
        let real = match fs::canonicalize(root) {
            Ok(real) => real,
            Err(error) => return unreadable(error.to_string()),
        };
        match fs::metadata(root) {
            Ok(meta) if meta.is_file() || meta.is_dir() => {}
            Ok(_) => return unreadable("it is neither a file nor a directory".into()),
            Err(error) => return unreadable(error.to_string()),
        }
        self.link = (real != root).then(|| (root.to_owned(), real));
        self.entry(root, 0)
    }

    /// What becomes of a path, which a domain may know by where a link leads to.
    fn cover(&self, path: &Path, device: u64) -> Cover {
        let real = self.link.as_ref().and_then(|(root, real)| Some(real.join(path.strip_prefix(root).ok()?)));
        let known_as = real.as_deref().unwrap_or(path);
        // A backup leaves the repository out, whichever domain has the directory that it lies in.
        if let Some(repository) = self.own.repository(known_as) {
            return Cover::Own(repository);
        }
        let cover = match self.cover_of(path, device) {
            Cover::Unprotected => self.cover_of(known_as, device),
            cover => cover,
        };
        let ignored = |path: &Path| self.ignored.iter().find(|ignored| path.starts_with(&ignored.path));
        if let Some(ignored) =
            ignored(path).or_else(|| ignored(known_as)).filter(|_| cover == Cover::Unprotected)
        {
            return Cover::Ignored(ignored.reason.clone());
        }
        match self.own.working(known_as) {
            Some(own) if cover == Cover::Unprotected => Cover::Own(own),
            _ => cover,
        }
    }

    fn cover_of(&self, path: &Path, device: u64) -> Cover {
        if let Some(area) = self.areas.iter().find(|area| area.has_database(path)) {
            return Cover::Protected(area.domain.name.clone());
        }
        let having: Vec<_> = self.areas.iter().filter(|area| area.domain.reaches(path)).collect();
        // Its files may be copied, too: that is told as what it is.
        let dumping = || self.areas.iter().find(|area| area.dumps(path));
        match having.iter().find(|area| area.has(path, device)).copied().or_else(dumping) {
            Some(area) => Cover::Protected(area.domain.name.clone()),
            None => {
                having.first().map_or(Cover::Unprotected, |area| Cover::Excluded(area.domain.name.clone()))
            }
        }
    }

    /// Whether a domain begins below the path.
    fn begins_below(&self, path: &Path) -> bool {
        let own = |area: &'_ Area<'p>| {
            let data = area.domain.stream.iter().flat_map(|stream| &stream.data);
            area.domain.paths.iter().chain(&area.domain.sqlite).chain(data).collect::<Vec<_>>()
        };
        let ignored = self.ignored.iter().map(|ignored| &ignored.path);
        let mut roots = self.areas.iter().flat_map(own).chain(ignored);
        let real = self.link.as_ref().and_then(|(root, real)| Some(real.join(path.strip_prefix(root).ok()?)));
        let is_below = |root: &Path, path: &Path| root.starts_with(path) && root != path;
        roots.any(|root| {
            let root = Path::new(root);
            is_below(root, path) || real.as_ref().is_some_and(|real| is_below(root, real))
        })
    }

    /// An entry as one item if all below is alike, else as several.
    fn entry(&mut self, path: &Path, depth: usize) -> Vec<Item> {
        let item = |cover, files, bytes| Item { path: path.to_owned(), cover, files, bytes };
        let meta = if depth == 0 { fs::metadata(path) } else { fs::symlink_metadata(path) };
        let meta = match meta {
            Ok(meta) => meta,
            Err(error) => return vec![item(Cover::Unreadable(error.to_string()), 0, 0)],
        };
        let cover = self.cover(path, meta.dev());
        if meta.is_file() {
            self.database(path, &meta, &cover);
            return vec![item(cover, 1, meta.len())];
        }
        if !meta.is_dir() {
            return Vec::new();
        }
        self.data_directory(path, &cover);
        let listed = fs::read_dir(path).and_then(|entries| {
            entries.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>, std::io::Error>>()
        });
        let mut names = match listed {
            Ok(names) if depth < DEPTH_MAX => names,
            Ok(_) => return vec![item(Cover::Unreadable("it lies too deep".into()), 0, 0)],
            // Nobody is to read it: servers keep others out of their data.
            Err(_)
                if matches!(cover, Cover::Ignored(_)) || self.areas.iter().any(|area| area.dumps(path)) =>
            {
                return vec![item(cover, 0, 0)];
            }
            Err(error) => return vec![item(Cover::Unreadable(error.to_string()), 0, 0)],
        };
        names.sort();
        let below: Vec<_> = names.iter().flat_map(|name| self.entry(name, depth + 1)).collect();
        let is_alike = below.iter().all(|entry| entry.cover == cover) && !self.begins_below(path);
        match is_alike {
            true if below.is_empty() => Vec::new(),
            true => {
                let sum = |count: fn(&Item) -> u64| below.iter().map(count).sum();
                vec![item(cover, sum(|entry| entry.files), sum(|entry| entry.bytes))]
            }
            false => below,
        }
    }

    fn add(&mut self, path: &Path, kind: &'static str, cover: &Cover, is_right: bool) {
        if matches!(cover, Cover::Own(_) | Cover::Ignored(_)) {
            return;
        }
        let copied_by = match cover {
            Cover::Protected(name) if !is_right => {
                let area = self.areas.iter().find(|area| area.domain.name == *name);
                let is_fuzzy = area.is_some_and(|area| area.domain.consistency() == Consistency::Fuzzy);
                let is_read = area.is_some_and(|area| area.domain.reaches(path));
                (is_fuzzy && is_read).then(|| name.clone())
            }
            _ => None,
        };
        let is_covered = matches!(cover, Cover::Protected(_)) && copied_by.is_none();
        self.found.databases.push(Database { path: path.to_owned(), kind, copied_by, is_covered });
    }

    fn database(&mut self, path: &Path, meta: &fs::Metadata, cover: &Cover) {
        let is_copied = self.areas.iter().any(|area| area.has_database(path));
        let mut head = [0; 16];
        let is_sqlite = meta.size() >= 512
            && File::open(path).and_then(|mut file| file.read_exact(&mut head)).is_ok()
            && head == *b"SQLite format 3\0";
        if is_sqlite {
            self.add(path, "SQLite", cover, is_copied);
        }
        // Redis puts a new dump in the place of the old one: a copy of it is whole.
        if path.extension().is_some_and(|end| end == "rdb") {
            self.add(path, "Redis dump", cover, true);
        }
    }

    fn data_directory(&mut self, path: &Path, cover: &Cover) {
        for (file, kind) in [("PG_VERSION", "PostgreSQL"), ("ibdata1", "MySQL or MariaDB")] {
            let is_top = !path.parent().is_some_and(|above| above.join("global/pg_control").exists())
                && !path.ancestors().skip(1).any(|above| above.join(file).exists());
            if is_top && path.join(file).is_file() {
                self.add(path, kind, cover, false);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::load::tests_support::plan;

    fn write(folder: &Path, name: &str, content: &[u8]) {
        let path = folder.join(name);
        fs::create_dir_all(path.parent().expect("below")).expect("folders");
        fs::write(path, content).expect("a file");
    }

    #[test]
    fn everything_in_the_inventory_is_told_once() {
        let folder = tempfile::tempdir().expect("a folder");
        let dir = folder.path();
        let mut sqlite = b"SQLite format 3\0".to_vec();
        sqlite.resize(4096, 0);
        for (name, content) in [
            ("shop/media/a", b"12345".as_slice()),
            ("shop/media/cache/b", b"123"),
            ("shop/media/live.db", &sqlite),
            ("shop/state/good.db", &sqlite),
            ("other/deep/c", b"1"),
            ("other/deep/er/d", b"12"),
            ("pg/PG_VERSION", b"15"),
            ("pg/base/1/PG_VERSION", b"15"),
            ("redis/dump.rdb", b"REDIS"),
        ] {
            write(dir, name, content);
        }
        let text = format!(
            "[[domain]]\nname = 'media'\npaths = ['{0}/shop/media']\nexclude = ['**/cache']\n[[domain]]\nname = 'state'\n\
             sqlite = ['{0}/shop/state/good.db']\n[inventory]\nroots = ['{0}', '{0}/other']\n",
            dir.display()
        );
        let found = coverage(&plan(&text), &[]).expect("patterns");
        let name = |text: &str| text.parse::<Name>().expect("a name");
        let items: Vec<_> = found
            .items
            .iter()
            .map(|item| {
                (
                    item.path.strip_prefix(dir).expect("below").to_str().expect("text"),
                    item.cover.clone(),
                    item.files,
                )
            })
            .collect();
        let expected = [
            ("other", Cover::Unprotected, 2),
            ("pg", Cover::Unprotected, 2),
            ("redis", Cover::Unprotected, 1),
            ("shop/media/a", Cover::Protected(name("media")), 1),
            ("shop/media/cache", Cover::Excluded(name("media")), 1),
            ("shop/media/live.db", Cover::Protected(name("media")), 1),
            ("shop/state/good.db", Cover::Protected(name("state")), 1),
        ];
        assert_eq!(items, expected);
        let databases: Vec<_> = found
            .databases
            .iter()
            .map(|found| {
                let path = found.path.strip_prefix(dir).expect("below").to_str().expect("text");
                (path, found.kind, found.copied_by.is_some(), found.is_covered)
            })
            .collect();
        let expected = [
            ("pg", "PostgreSQL", false, false),
            ("redis/dump.rdb", "Redis dump", false, false),
            ("shop/media/live.db", "SQLite", true, false),
            ("shop/state/good.db", "SQLite", false, true),
        ];
        assert_eq!(databases, expected);
        assert!(!found.is_complete());
        let all = format!(
            "[[domain]]\nname = 'o'\npaths = ['{0}/other']\n[inventory]\nroots = ['{0}/other']\n",
            dir.display()
        );
        let found = coverage(&plan(&all), &[]).expect("patterns");
        assert!(found.is_complete() && found.items.len() == 1 && found.items[0].bytes == 3, "{found:?}");
        let missing = coverage(&plan("[inventory]\nroots = ['/no/such/place']\n"), &[]).expect("patterns");
        assert!(matches!(missing.items[0].cover, Cover::Unreadable(_)) && !missing.is_complete());
    }

    #[test]
    fn what_a_stream_stands_for_or_nobody_wants_is_covered() {
        let folder = tempfile::tempdir().expect("a folder");
        let dir = folder.path();
        write(dir, "lib/pg/15/PG_VERSION", b"15");
        write(dir, "lib/pg/15/base/1", b"rows");
        write(dir, "lib/apt/lists/x", b"made anew");
        write(dir, "lib/apt/y.rdb", b"REDIS");
        write(dir, "lib/new", b"1");
        let look = |data: &str, paths: &str, ignore: &str| {
            let text = format!(
                "[[domain]]\nname = 'db'\n{paths}\nstream = [{{ name = 'dump', command = ['x'], data = [{data}] }}]\n\
                 [inventory]\nroots = ['DIR/lib']\nignore = [{ignore}]\n"
            );
            coverage(&plan(&text.replace("DIR", dir.to_str().expect("text"))), &[]).expect("patterns")
        };
        let db = Cover::Protected("db".parse().expect("a name"));
        let covers = |found: &Coverage| {
            let told = |item: &Item| {
                (
                    item.path.strip_prefix(dir).expect("below").to_str().expect("text").to_owned(),
                    item.cover.clone(),
                )
            };
            found.items.iter().map(told).collect::<Vec<_>>()
        };
        let why = || Cover::Ignored("made anew".into());
        let (data, ignore) = ("'DIR/lib/pg'", "{ path = 'DIR/lib/apt', reason = 'made anew' }");
        let found = look(data, "", ignore);
        let expected = [
            ("lib/apt".to_owned(), why()),
            ("lib/new".to_owned(), Cover::Unprotected),
            ("lib/pg".to_owned(), db),
        ];
        assert_eq!(covers(&found), expected);
        let databases: Vec<_> = found.databases.iter().map(|found| (found.kind, found.is_covered)).collect();
        assert_eq!((databases, found.is_complete()), (vec![("PostgreSQL", true)], false));
        let new = format!("{ignore}, {{ path = 'DIR/lib/new', reason = 'a test' }}");
        assert!(look(data, "", &new).is_complete());
        assert!(!look("", "", &new).is_complete(), "nobody has the server's data");
        // A part of it, and a server of which the files are copied as well.
        assert!(!look("'DIR/lib/pg/15/base'", "", &new).is_complete());
        let both = look(data, "paths = ['DIR/lib/pg']", &new);
        assert_eq!(both.databases[0].copied_by, Some("db".parse().expect("a name")));
        assert!(!both.is_complete());
    }

    #[test]
    fn a_root_that_is_a_link_is_what_it_leads_to() {
        let folder = tempfile::tempdir().expect("a folder");
        let dir = folder.path().canonicalize().expect("there");
        write(&dir, "data/srv/a", b"12345");
        write(&dir, "data/srv/sub/b", b"1");
        std::os::unix::fs::symlink(dir.join("data/srv"), dir.join("srv")).expect("a link");
        std::os::unix::fs::symlink(dir.join("gone"), dir.join("broken")).expect("a link");
        let look = |paths: &str, roots: &str| {
            let text = format!("[[domain]]\nname = 'x'\npaths = [{paths}]\n[inventory]\nroots = [{roots}]\n");
            coverage(&plan(&text.replace("DIR", dir.to_str().expect("text"))), &[]).expect("patterns")
        };
        let nobody = look("'/x'", "'DIR/srv'");
        assert_eq!((nobody.items.len(), nobody.items[0].files), (1, 2), "{nobody:?}");
        assert!(nobody.items[0].cover == Cover::Unprotected && !nobody.is_complete());
        for paths in ["'DIR/srv'", "'DIR/data/srv'"] {
            let found = look(paths, "'DIR/srv'");
            assert!(found.is_complete() && found.items.len() == 1, "{paths}: {found:?}");
        }
        let part = look("'DIR/data/srv/sub'", "'DIR/srv'");
        let covers: Vec<_> = part.items.iter().map(|item| item.cover == Cover::Unprotected).collect();
        assert_eq!(covers, [true, false], "{part:?}");
        for root in ["'DIR/broken'", "'/dev/null'"] {
            let found = look("'DIR/srv'", root);
            assert!(matches!(found.items[0].cover, Cover::Unreadable(_)), "{found:?}");
        }
    }

    #[test]
    fn another_file_system_is_left_out_where_only_one_is_wanted() {
        let folder = tempfile::tempdir().expect("a folder");
        let dir = folder.path();
        write(dir, "srv/media/a", b"12345");
        let own = fs::metadata(dir.join("srv")).expect("there").dev();
        let name = "x".parse::<Name>().expect("a name");
        for (keys, is_left_out) in
            [("paths = ['DIR/srv']\none_file_system = true", true), ("paths = ['DIR/srv']", false)]
        {
            let text = format!("[[domain]]\nname = 'x'\n{keys}\n");
            let plan = plan(&text.replace("DIR", dir.to_str().expect("text")));
            let areas = plan.domains.iter().map(Area::of).collect::<Result<Vec<_>, _>>().expect("patterns");
            let look = Look {
                areas,
                own: Belongings::of(&plan, &[]),
                ignored: Vec::new(),
                link: None,
                found: Coverage::default(),
            };
            let file = dir.join("srv/media/a");
            assert_eq!(look.cover(&file, own), Cover::Protected(name.clone()));
            let excluded = Cover::Excluded(name.clone());
            let expected = if is_left_out { excluded } else { Cover::Protected(name.clone()) };
            assert_eq!(look.cover(&file, own + 1), expected, "{keys}");
        }
    }
}
