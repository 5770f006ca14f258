//! Reading a plan: the main file and those it includes, joined, each value with its place.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::path::{Component, Path, PathBuf};

use globset::Glob;
use toml::de::{DeTable, DeValue};

use crate::plan::mistake::{Mistake, line_of};
use crate::plan::secrets;
use crate::plan::source::{FILE_LEN_MAX, FILES_MAX, PlanFiles, SourceFile};
use crate::plan::types::{Class, Domain, Drill, Exception, Inventory, Metrics, Notify, PlanFile, Repo};
use crate::plan::values::Name;

/// The version of the plan's language that this program reads.
pub const VERSION: u32 = 1;
/// Most domains of a plan.
pub const DOMAINS_MAX: usize = 1000;

/// A plan as it was read from all its files.
#[derive(Debug, Clone, PartialEq)]
pub struct Plan {
    /// The host that snapshots say they are from.
    pub host_id: Option<String>,
    /// Repositories.
    pub repos: BTreeMap<Name, Repo>,
    /// Classes.
    pub classes: BTreeMap<Name, Class>,
    /// Domains, as they stand in the files.
    pub domains: Vec<Domain>,
    /// Drills.
    pub drills: Vec<Drill>,
    /// Where data may lie.
    pub inventory: Option<Inventory>,
    /// Numbers for a monitoring system.
    pub metrics: Option<Metrics>,
    /// Who is told of what.
    pub notify: Vec<Notify>,
    /// Targets that may be missed.
    pub exceptions: Vec<Exception>,
    /// The files, the main one first.
    pub sources: Vec<SourceFile>,
    /// Patterns of `include` that name no file.
    pub idle_includes: Vec<String>,
    /// All values that were given, by key: `domain.orders-db.schedule`.
    pub places: BTreeMap<String, Place>,
}

/// Where a value stands, and what it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The file.
    pub file: PathBuf,
    /// The line, from 1.
    pub line: usize,
    /// The value as TOML; empty for a table.
    pub value: String,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.file.display(), self.line)
    }
}

impl Plan {
    /// The domain of this name.
    pub fn domain(&self, name: &str) -> Option<&Domain> {
        self.domains.iter().find(|domain| domain.name.as_str() == name)
    }

    /// BLAKE3 of all files with their lengths, in order: which plan this is.
    pub fn hash(&self) -> [u8; 32] {
        hash(self.sources.iter().map(|source| source.text.as_bytes()))
    }
}

/// BLAKE3 of the contents of a plan's files, each behind its length in eight bytes, little end first.
pub fn hash<'a>(files: impl IntoIterator<Item = &'a [u8]>) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new();
    for bytes in files {
        hasher.update(&(bytes.len() as u64).to_le_bytes()).update(bytes);
    }
    *hasher.finalize().as_bytes()
}

/// Reads a plan.
///
/// # Errors
/// [`Mistake`]: the first thing that is wrong.
pub fn load(main: &Path, files: &dyn PlanFiles) -> Result<Plan, Mistake> {
    let plain = plain(main, files)
        .map_err(|error| Mistake::of_file(main, format!("cannot read the plan: {error}")))?;
    let main = plain.as_path();
    let (source, file) = read(main, files)?;
    let version = file.version;
    let mut plan = Plan {
        host_id: file.host_id.clone(),
        repos: BTreeMap::new(),
        classes: BTreeMap::new(),
        domains: Vec::new(),
        drills: Vec::new(),
        inventory: None,
        metrics: None,
        notify: Vec::new(),
        exceptions: Vec::new(),
        sources: Vec::new(),
        idle_includes: Vec::new(),
        places: BTreeMap::new(),
    };
    match version {
        Some(VERSION) => {}
        Some(other) => {
            let message =
                format!("this is version {other} of the plan's language; this program reads {VERSION}");
            let span = at(&source.text, "version");
            return Err(Mistake::at(main, &source.text, &span, message).hint("install a newer strongroom"));
        }
        None => {
            let message = "the plan does not say its version";
            return Err(Mistake::of_file(main, message).hint(format!("begin it with: version = {VERSION}")));
        }
    }
    if let Some(host) = &file.host_id
        && (host.is_empty() || host.len() > 255 || host.contains(char::is_control))
    {
        let message = "host_id has to be 1 to 255 bytes without control characters";
        return Err(Mistake::at(main, &source.text, &at(&source.text, "host_id"), message));
    }
    let mut included = Vec::new();
    for pattern in &file.include {
        let found = matching(main, pattern, files)
            .map_err(|message| Mistake::at(main, &source.text, &at(&source.text, "include"), message))?;
        if found.is_empty() {
            plan.idle_includes.push(pattern.clone());
        }
        included.extend(found);
    }
    join(&mut plan, source, file)?;
    for path in included {
        if plan.sources.iter().any(|source| source.path == path) {
            continue;
        }
        if plan.sources.len() == FILES_MAX {
            return Err(Mistake::of_file(main, format!("the plan has more than {FILES_MAX} files")));
        }
        let (source, file) = read(&path, files)?;
        for (key, is_there) in [
            ("include", !file.include.is_empty()),
            ("host_id", file.host_id.is_some()),
            ("version", file.version.is_some_and(|version| version != VERSION)),
        ] {
            if is_there {
                let message = format!("`{key}` may stand in the main file only, and this one is included");
                return Err(Mistake::at(&path, &source.text, &at(&source.text, key), message));
            }
        }
        join(&mut plan, source, file)?;
    }
    inherit_schedules(&mut plan);
    Ok(plan)
}

/// Gives domains without a schedule that of the first domain with one that they come after.
fn inherit_schedules(plan: &mut Plan) {
    let inherited = |plan: &Plan| {
        plan.domains.iter().enumerate().filter(|(_, domain)| domain.schedule.is_none()).find_map(
            |(at, domain)| {
                let before = domain.after.iter().filter_map(|name| plan.domain(name.as_str()));
                before
                    .into_iter()
                    .find_map(|before| Some((at, before.name.clone(), before.schedule.clone()?)))
            },
        )
    };
    // Each turn gives one domain its schedule.
    while let Some((at, before, schedule)) = inherited(plan) {
        let domain = &mut plan.domains[at];
        domain.schedule = Some(schedule);
        let key = format!("domain.{}.schedule", domain.name);
        if let Some(place) = plan.places.get(&format!("domain.{before}.schedule")).cloned() {
            plan.places.insert(key, place);
        }
    }
}

/// Where a key of the first level stands.
fn at(text: &str, key: &str) -> std::ops::Range<usize> {
    let table = DeTable::parse(text).ok();
    let found = table.as_ref().and_then(|table| table.get_ref().get_key_value(key));
    found.map_or(0..0, |(key, _)| key.span())
}

fn read(path: &Path, files: &dyn PlanFiles) -> Result<(SourceFile, PlanFile), Mistake> {
    let bytes = files
        .read(path, FILE_LEN_MAX)
        .map_err(|error| Mistake::of_file(path, format!("cannot read the plan: {error}")))?;
    let text = String::from_utf8(bytes).map_err(|error| {
        let valid = error.utf8_error().valid_up_to();
        let text = String::from_utf8_lossy(error.as_bytes()).into_owned();
        Mistake::at(path, &text, &(valid..valid), "this is no UTF-8 text")
    })?;
    let table = DeTable::parse(&text).map_err(|error| Mistake::from_toml(path, &text, &error))?;
    // Before unknown keys are named: what is no key may be a secret all the same.
    if let Some(secret) = secrets::find(table.get_ref()) {
        return Err(Mistake::at(path, &text, &secret.span, secret.message));
    }
    let file = toml::from_str(&text).map_err(|error| Mistake::from_toml(path, &text, &error))?;
    Ok((SourceFile { path: path.to_owned(), text }, file))
}

/// A file's path without `.` and `..`, as a snapshot can name it.
fn plain(path: &Path, files: &dyn PlanFiles) -> io::Result<PathBuf> {
    match (path.parent(), path.file_name()) {
        // What is above a link is not what stands before its name.
        (Some(folder), Some(name)) if folder.components().any(|part| part == Component::ParentDir) => {
            Ok(files.canonical(folder)?.join(name))
        }
        _ => Ok(path.components().collect()),
    }
}

/// Files that an include pattern names, by name.
fn matching(main: &Path, pattern: &str, files: &dyn PlanFiles) -> Result<Vec<PathBuf>, String> {
    let folder = main.parent().unwrap_or(Path::new(""));
    let path = folder.join(pattern);
    let (Some(directory), Some(name)) = (path.parent(), path.file_name().and_then(|name| name.to_str()))
    else {
        return Err(format!("the pattern {pattern:?} of include names no file"));
    };
    if directory.to_str().is_some_and(|directory| directory.contains(['*', '?', '['])) {
        return Err(format!("the pattern {pattern:?} of include may have `*` in the file's name only"));
    }
    let is_pattern = name.contains(['*', '?', '[']);
    // As one without files: neither a snapshot nor version control has a folder in which there are none.
    let is_idle = |error: &io::Error| is_pattern && error.kind() == io::ErrorKind::NotFound;
    let plain = match plain(&path, files) {
        Ok(plain) => plain,
        Err(error) if is_idle(&error) => return Ok(Vec::new()),
        Err(error) => return Err(format!("cannot find {}: {error}", path.display())),
    };
    if !is_pattern {
        return Ok(vec![plain]);
    }
    let directory = plain.parent().unwrap_or(directory);
    let glob = Glob::new(name).map_err(|error| error.to_string())?.compile_matcher();
    let listed = files.list(if directory.as_os_str().is_empty() { Path::new(".") } else { directory });
    let names = match listed {
        Ok(names) => names,
        Err(error) if is_idle(&error) => return Ok(Vec::new()),
        Err(error) => return Err(format!("cannot list {}: {error}", directory.display())),
    };
    let mut found: Vec<_> = names
        .into_iter()
        .filter(|name| glob.is_match(name) && !name.to_string_lossy().starts_with('.'))
        .map(|name| directory.join(name))
        .collect();
    found.sort();
    Ok(found)
}

/// Adds a file to the plan.
fn join(plan: &mut Plan, source: SourceFile, file: PlanFile) -> Result<(), Mistake> {
    // Tables without a name are numbered through all files.
    let before = plan.notify.len();
    let places: BTreeMap<String, Place> =
        places(&source)?.into_iter().map(|(key, place)| (numbered_on(key, before), place)).collect();
    for key in entries(&file) {
        if let (Some(place), Some(other)) = (places.get(&key), plan.places.get(&key)) {
            let message = format!("`{key}` is given twice: it stands at {other}, too");
            return Err(Mistake { line: Some(place.line), ..Mistake::of_file(&source.path, message) });
        }
    }
    plan.places.extend(places);
    plan.repos.extend(file.repo);
    plan.classes.extend(file.class);
    plan.domains.extend(file.domain);
    plan.drills.extend(file.drill);
    plan.inventory = file.inventory.or(plan.inventory.take());
    plan.metrics = file.metrics.or(plan.metrics.take());
    plan.notify.extend(file.notify);
    plan.exceptions.extend(file.exception);
    if plan.domains.len() > DOMAINS_MAX {
        return Err(Mistake::of_file(&source.path, format!("the plan has more than {DOMAINS_MAX} domains")));
    }
    plan.sources.push(source);
    Ok(())
}

/// The key of a table `[[notify]]`, or of something in one, that comes after so many of other files.
fn numbered_on(key: String, before: usize) -> String {
    let Some(rest) = key.strip_prefix("notify.") else { return key };
    let (number, field) = rest.find('.').map_or((rest, ""), |at| rest.split_at(at));
    number.parse::<usize>().map_or(key.clone(), |number| format!("notify.{}{field}", number + before))
}

/// Keys of what can stand in one file of a plan only.
fn entries(file: &PlanFile) -> Vec<String> {
    let mut keys = Vec::new();
    keys.extend(file.repo.keys().map(|name| format!("repo.{name}")));
    keys.extend(file.class.keys().map(|name| format!("class.{name}")));
    keys.extend(file.domain.iter().map(|domain| format!("domain.{}", domain.name)));
    keys.extend(file.drill.iter().map(|drill| format!("drill.{}", drill.name)));
    keys.extend(file.exception.iter().map(|exception| format!("exception.{}", exception.id)));
    keys.extend(file.inventory.is_some().then(|| "inventory".to_owned()));
    keys.extend(file.metrics.is_some().then(|| "metrics".to_owned()));
    keys
}

/// All values of a file with their places.
fn places(source: &SourceFile) -> Result<BTreeMap<String, Place>, Mistake> {
    let table = DeTable::parse(&source.text)
        .map_err(|error| Mistake::from_toml(&source.path, &source.text, &error))?;
    let mut flat = Flat { source, places: BTreeMap::new() };
    flat.table("", table.get_ref())?;
    Ok(flat.places)
}

struct Flat<'s> {
    source: &'s SourceFile,
    places: BTreeMap<String, Place>,
}

impl Flat<'_> {
    fn table(&mut self, prefix: &str, table: &DeTable<'_>) -> Result<(), Mistake> {
        for (key, value) in table {
            let path = match prefix {
                "" => key.get_ref().to_string(),
                prefix => format!("{prefix}.{}", key.get_ref()),
            };
            match value.get_ref() {
                DeValue::Table(table) => {
                    self.put(&path, key.span().start, String::new())?;
                    self.table(&path, table)?;
                }
                DeValue::Array(values) if values.iter().any(|value| value.get_ref().is_table()) => {
                    for (number, value) in values.iter().enumerate() {
                        let DeValue::Table(table) = value.get_ref() else { continue };
                        let name = table.get("name").or_else(|| table.get("id"));
                        let name = name.and_then(|name| name.get_ref().as_str()).map(str::to_owned);
                        let path = format!("{path}.{}", name.unwrap_or_else(|| (number + 1).to_string()));
                        self.put(&path, value.span().start, String::new())?;
                        self.table(&path, table)?;
                    }
                }
                other => self.put(&path, key.span().start, rendered(other))?,
            }
        }
        Ok(())
    }

    fn put(&mut self, key: &str, position: usize, value: String) -> Result<(), Mistake> {
        let line = line_of(&self.source.text, position);
        let place = Place { file: self.source.path.clone(), line, value };
        match self.places.insert(key.to_owned(), place) {
            None => Ok(()),
            Some(other) => {
                let message = format!("`{key}` is given twice: it stands at {other}, too");
                Err(Mistake { line: Some(line), ..Mistake::of_file(&self.source.path, message) })
            }
        }
    }
}

/// A value as TOML, on one line.
fn rendered(value: &DeValue<'_>) -> String {
    let pairs = |table: &DeTable<'_>| {
        let pair =
            table.iter().map(|(key, value)| format!("{} = {}", key.get_ref(), rendered(value.get_ref())));
        pair.collect::<Vec<_>>().join(", ")
    };
    match value {
        DeValue::String(text) => toml::Value::String(text.to_string()).to_string(),
        DeValue::Integer(number) => number.to_string(),
        DeValue::Float(number) => number.to_string(),
        DeValue::Boolean(truth) => truth.to_string(),
        DeValue::Datetime(time) => time.to_string(),
        DeValue::Array(values) => {
            let values: Vec<_> = values.iter().map(|value| rendered(value.get_ref())).collect();
            format!("[{}]", values.join(", "))
        }
        DeValue::Table(table) => format!("{{ {} }}", pairs(table)),
    }
}

#[cfg(test)]
pub(crate) mod tests_support {
    use std::ffi::OsString;
    use std::io;

    use super::{Path, PathBuf, Plan, PlanFiles, load};

    /// The same text whatever file is asked for.
    struct One(String);

    impl PlanFiles for One {
        fn read(&self, _path: &Path, _len_max: u64) -> io::Result<Vec<u8>> {
            Ok(self.0.clone().into_bytes())
        }

        fn list(&self, _directory: &Path) -> io::Result<Vec<OsString>> {
            Ok(Vec::new())
        }

        fn canonical(&self, directory: &Path) -> io::Result<PathBuf> {
            Ok(directory.to_owned())
        }
    }

    /// A plan with a repository `a` and more text behind it.
    pub fn plan(more: &str) -> Plan {
        let text = format!("version = 1\n[repo.a]\nurl = '/backup'\n{more}");
        load(Path::new("p.toml"), &One(text)).unwrap_or_else(|mistake| panic!("{mistake} {:?}", mistake.hint))
    }
}
