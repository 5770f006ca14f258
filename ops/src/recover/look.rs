//! What a recovery would do is looked for: snapshots, facts, targets, streams, room. Nothing is changed.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use strongroom::source::Filter;

use crate::plan::types::{Domain, Excluded, Stream};
use crate::plan::values::{Lapse, Name};
use crate::recover::carry::{self, CARRIED_MAX};
use crate::recover::facts;
use crate::recover::guard;
use crate::recover::journal::{Load, Progress};
use crate::recover::machine::Recoverer;
use crate::recover::mistake::mistakes;
use crate::recover::preview::{Measurements, Preview, Refusal, Space, StreamPreview, Wish};
use crate::recover::targets::{Look, existing_above, topmost};
use crate::recover::{BESIDE, OLD, choose};
use crate::run::vault::VaultError;
use crate::status::timestamp;
use crate::words::count;

impl Recoverer<'_> {
    /// What would be done, domain by domain. What stands in the way of one is among its blockers.
    ///
    /// # Errors
    /// [`Refusal`] where it cannot be told.
    pub fn preview(
        &self,
        id: &str,
        wish: &Wish,
        measured: &Measurements<'_>,
    ) -> Result<Vec<Preview>, Refusal> {
        let domains = choose::domains(self.plan, &wish.names)?;
        choose::check(self.plan, &domains, wish)?;
        let mounts = self.disk.mounts().map_err(|error| {
            let hint = "without it, what can be swapped is not known".to_owned();
            Refusal::failed("io", format!("the list of mounts cannot be read: {error}"), hint)
        })?;
        let mut previews = Vec::new();
        for (number, domain) in domains.iter().enumerate() {
            let own = format!("{id}-{}", number + 1);
            let mut preview = self.begin(&own, domain, wish, measured)?;
            for before in &domain.after {
                if !domains.iter().any(|one| one.name == *before) {
                    preview.notes.push(format!("it comes after {before}, which is not recovered with it"));
                }
            }
            self.find_targets(&own, domain, &mounts, &mut preview)?;
            self.find_streams(&own, domain, &mut preview)?;
            previews.push(preview);
        }
        self.find_space(&mut previews);
        Ok(previews)
    }

    fn begin(
        &self,
        id: &str,
        domain: &Domain,
        wish: &Wish,
        measured: &Measurements<'_>,
    ) -> Result<Preview, Refusal> {
        let now = (self.now)();
        let ask = |repo: &Name| self.source.snapshots(repo);
        let chosen = choose::snapshot(self.plan, &self.host, domain, wish, &now, &ask)?;
        // An older one must not pass for it; which one is meant is clear where its id was given.
        if !wish.is_id() {
            let (repo, id) = (&chosen.repository, &chosen.id);
            let known = self.source.require_latest(repo, id);
            known.map_err(|error| Refusal::of_vault(domain, repo, &error))?;
        }
        let time = timestamp(&chosen.snapshot).unwrap_or(Timestamp::UNIX_EPOCH);
        let age = u64::try_from(now.timestamp().duration_since(time).as_secs()).unwrap_or(0);
        let objectives = self.plan.objectives(domain);
        let recover = domain.recover.clone().unwrap_or_default();
        let above = recover.scratch.as_ref().map_or_else(|| self.state.folder().to_owned(), PathBuf::from);
        let env = self.env(&domain.name, id);
        let mut preview = Preview {
            domain: domain.name.clone(),
            repository: chosen.repository,
            snapshot: chosen.id,
            time,
            age: Lapse::seconds(age),
            rpo: objectives.rpo,
            rto: objectives.rto,
            measured: measured.of(self.plan, &domain.name),
            targets: Vec::new(),
            streams: Vec::new(),
            scratch: above.join(format!("{BESIDE}{id}")),
            space: Vec::new(),
            facts: facts::compare(domain, &chosen.snapshot, &env, &self.processes, &wish.allow_drift),
            left_out: 0,
            carries: recover.excluded.unwrap_or_default() == Excluded::Carry,
            notes: Vec::new(),
            left: Vec::new(),
            blockers: Vec::new(),
        };
        for mistake in mistakes(domain) {
            let advice = mistake.advice();
            preview.block("plan", mistake.message, advice);
        }
        for (repo, error) in chosen.unasked {
            preview.notes.push(format!("the repository {repo} cannot be asked: {error}"));
        }
        if chosen.snapshot.hostname != self.host {
            preview.notes.push(format!("the snapshot is of the host {}", chosen.snapshot.hostname));
        }
        let lost = chosen.snapshot.summary.errors.saturating_add(chosen.snapshot.summary.unstable);
        if lost > 0 {
            preview.left.push(format!(
                "of {} the snapshot has nothing, or a mixture of two states, and what is there now is replaced all the same: \
                 look at the runs that made it, or take an earlier one with --snapshot before:AGE",
                count(lost, "entry")
            ));
        }
        let drifted: Vec<_> = preview.facts.iter().filter(|fact| fact.has_drifted()).cloned().collect();
        for fact in drifted {
            let now = match &fact.now {
                Some(Ok(now)) => format!("is {now:?} now"),
                Some(Err(error)) => format!("cannot be found out now ({error})"),
                None => continue,
            };
            let then = fact.then.unwrap_or_default();
            let message =
                format!("the fact {} was {then:?} when the snapshot was made, and {now}", fact.name);
            match fact.is_allowed {
                true => preview.notes.push(format!("{message}: that was allowed")),
                false => {
                    let hint = format!(
                        "bring back what the data belongs to, or allow it: --allow-drift {}",
                        fact.name
                    );
                    preview.block("drift", message, &hint);
                }
            }
        }
        Ok(preview)
    }

    fn find_targets(
        &self,
        id: &str,
        domain: &Domain,
        mounts: &[PathBuf],
        preview: &mut Preview,
    ) -> Result<(), Refusal> {
        let (repo, snapshot) = (preview.repository.clone(), preview.snapshot);
        let of_vault = |error: &VaultError| Refusal::of_vault(domain, &repo, error);
        let filter = Filter::new(domain.filter()).map_err(|error| {
            Refusal::usage(
                format!("{}: {error}", domain.name),
                "`strongroom config check` says more".to_owned(),
            )
        })?;
        let list = |path: &Path| self.source.entries(&repo, &snapshot, path).map_err(|error| error.message);
        let is_left_out = |path: &Path| domain.leaves_out(&filter, path);
        let look = Look { id, mounts, list: &list, is_left_out: &is_left_out };
        let paths = topmost(&domain.paths).into_iter().map(|path| (path, false));
        // What lies in one of the paths is replaced with that, and what is beside it with it.
        let databases = domain.sqlite.iter().map(Path::new).filter(|path| !domain.reaches(path));
        let databases = databases.map(|path| (path, true));
        for (path, is_database) in paths.chain(databases) {
            let held = self.source.look(&repo, &snapshot, path).map_err(|error| of_vault(&error))?;
            let Some(held) = held else {
                preview.left.push(format!("{} is not in the snapshot: it is left as it is", path.display()));
                continue;
            };
            if path.parent().is_none() {
                preview.block(
                    "not-swappable",
                    "/ cannot be swapped".into(),
                    "restore it with `strongroom restore` from another system",
                );
                continue;
            }
            let found = match is_database {
                true => look.database(path, held),
                false => look.path(path, held),
            };
            match found {
                Ok(found) => preview.targets.extend(found),
                Err(refused) => {
                    preview.block("not-swappable", refused, "see docs/recovering.md, What cannot be swapped");
                }
            }
        }
        for (number, found) in preview.targets.iter_mut().enumerate() {
            found.target = found.target.clone().numbered(number + 1);
        }
        if let Some((one, other)) = guard::nested(&preview.targets) {
            preview.block(
                "not-swappable",
                format!("{one} and {other} lead to one place, or one of them into the other"),
                "name one of them in the plan",
            );
        }
        self.find_needed(domain, &filter, preview)?;
        if let Err(refusal) = self.others(preview) {
            preview.blockers.push(refusal);
        }
        if !domain.exclude.is_empty() {
            for found in
                preview.targets.iter_mut().filter(|found| found.is_there && found.target.is_directory)
            {
                if !found.target.place.is_dir() {
                    continue;
                }
                let left_out = carry::left_out(&filter, &found.target.named, &found.target.place);
                // What cannot be looked at now is looked at again before anything is swapped.
                preview.left_out += left_out.map_or(0, |entries| entries.len());
            }
        }
        if preview.carries && preview.left_out > CARRIED_MAX {
            let message = format!(
                "more than {CARRIED_MAX} entries of the targets are left out of backups, and would have to be moved one by one"
            );
            preview.block("limit", message, "exclude directories instead of single files, or say excluded = \"leave\" in [domain.recover]");
        }
        let is_idle = domain.recover.as_ref().is_none_or(|recover| recover.stop.is_empty());
        if is_idle && preview.targets.iter().any(|found| found.is_there) {
            preview.notes.push("nothing says how to stop what uses the data ([domain.recover] stop): make sure that nothing does".into());
        }
        Ok(())
    }

    fn find_streams(&self, id: &str, domain: &Domain, preview: &mut Preview) -> Result<(), Refusal> {
        let (repo, snapshot) = (preview.repository.clone(), preview.snapshot);
        for (number, stream) in domain.stream.iter().enumerate() {
            let path = Path::new("/").join(&stream.name);
            let held = self.source.look(&repo, &snapshot, &path);
            let Some(held) = held.map_err(|error| Refusal::of_vault(domain, &repo, &error))? else {
                preview.left.push(format!("the stream {} is not in the snapshot", stream.name));
                continue;
            };
            let load = load(id, number + 1, stream);
            let is_swapped = stream.recover.as_ref().is_some_and(|recover| recover.swap.is_some());
            match (&stream.restore, is_swapped) {
                (None, _) => preview.left.push(format!(
                    "nothing says how the stream {0} is loaded: get it with `strongroom restore {1} --include /{0} --target DIR`",
                    stream.name,
                    snapshot.short()
                )),
                (Some(argv), _) if !argv.names("target") && stream.recover.is_none() => preview.block(
                    "not-undoable",
                    format!("`restore` of the stream {} does not name ${{target}}: it would load over what is in use, which cannot be undone", stream.name),
                    "restore it under the name ${target} (see docs/recovering.md)",
                ),
                (Some(_), true) => {}
                (Some(_), false) => preview.left.push(format!(
                    "the stream {} is restored under the name {}; nothing says how that takes the place of what is in use",
                    stream.name, load.target
                )),
            }
            let command = stream.restore.as_ref().map(|argv| argv.with("target", &load.target));
            let load = Some(load).filter(|_| stream.restore.is_some());
            preview.streams.push(StreamPreview {
                name: stream.name.clone(),
                command,
                load,
                is_swapped,
                bytes: held.bytes,
            });
        }
        Ok(())
    }

    /// What is needed of each file system by all domains together.
    fn find_space(&self, previews: &mut [Preview]) {
        let mut all: BTreeMap<u64, Space> = BTreeMap::new();
        for preview in previews.iter_mut() {
            let targets = preview.targets.iter().map(|found| (found.target.place.clone(), found.held.bytes));
            let streams = preview.streams.iter().filter(|stream| stream.load.is_some());
            let streams = streams.map(|stream| (preview.scratch.clone(), stream.bytes));
            let mut own: Vec<u64> = Vec::new();
            for (path, bytes) in targets.chain(streams) {
                let folder = existing_above(&path);
                let Ok(device) = folder.metadata().map(|found| found.dev()) else { continue };
                let free = all.get(&device).map_or_else(|| self.disk.free(folder), |space| Ok(space.free));
                let Ok(free) = free else {
                    preview
                        .notes
                        .push(format!("how much can be written to {} is not known", folder.display()));
                    continue;
                };
                let space =
                    all.entry(device).or_insert_with(|| Space { folder: folder.to_owned(), needed: 0, free });
                space.needed = space.needed.saturating_add(bytes);
                if !own.contains(&device) {
                    own.push(device);
                }
            }
            preview.space = own.iter().filter_map(|device| all.get(device).cloned()).collect();
            for Space { folder, needed, free } in
                preview.space.clone().into_iter().filter(|space| space.needed > space.free)
            {
                let message = format!(
                    "{needed} bytes are needed beside what is in the file system of {}, and {free} can be written",
                    folder.display()
                );
                preview.block("no-space", message, "make room; what is there now is only removed by --commit. Dumps can be put elsewhere: [domain.recover] scratch");
            }
        }
    }
}

/// Under which names a stream is loaded.
fn load(id: &str, number: usize, stream: &Stream) -> Load {
    let short = id.split('-').next().unwrap_or(id);
    let named = stream.recover.as_ref().and_then(|recover| recover.target.clone());
    let target = named.map_or_else(
        || format!("strongroom_{}_{number}", id.replace('-', "_")),
        |named| named.replace("${id}", short),
    );
    Load {
        stream: stream.name.clone(),
        old: format!("{target}{OLD}"),
        target,
        loaded: Progress::No,
        swapped: Progress::No,
    }
}
