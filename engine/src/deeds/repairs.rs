//! Repairs: what is damaged is in order when they come to their end.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use super::history::{Past, has_none_that_leave, require, shown};
use super::{Deed, next_seed};
use crate::backend::{Folder, ObjectKey};
use crate::crypto::Password;
use crate::forget;
use crate::monitor::Silent;
use crate::prune::test_support::noise;
use crate::rebuild::{self, RebuildOptions};
use crate::repair::test_support::{all_packs, all_snapshots, copy_of, flip, packs_of, repair, thorough};
use crate::repair::{self, PacksReport, SnapshotsOptions, Sources};
use crate::repo::Repository;
use crate::testing::{self, PASSWORD};

fn is_whole(report: &PacksReport) -> Result<(), String> {
    require(report.is_whole(), || format!("{report:?}"))
}

impl Past<'_> {
    pub fn repair(&mut self) {
        let deed = self.deed("repair index", |repository| {
            shown(rebuild::run(repository, &RebuildOptions::default(), &Silent)).map(drop)
        });
        self.go(&deed);

        let copy = copy_of(&self.world.storage);
        let deed = self.deed("repair packs --from", move |repository| {
            let sources = Sources { repository: Some(&copy), paths: Vec::new() };
            is_whole(&shown(repair::packs::run(repository, &thorough(), &sources, &Silent))?)
        });
        let packs = all_packs(&deed.storage);
        flip(&deed.storage, &packs[usize::try_from(self.random.below(packs.len() as u64)).expect("small")]);
        self.tell(&Deed { is_damaged: true, ..deed });

        self.change();
        self.world.write("d1/fresh", &noise(self.random.below(1 << 40), 3_000));
        let before = packs_of(&self.world.storage, true);
        self.world.back_up(&self.world.open());
        let sound = self.world.storage.snapshot();
        let fresh = packs_of(&sound, true).into_iter().find(|key| !before.contains(key)).expect("a new one");
        flip(&self.world.storage, &fresh);
        let root = self.root();
        let deed = self.deed("repair packs --from-source", move |repository| {
            let sources = Sources { repository: None, paths: vec![root.clone()] };
            is_whole(&shown(repair::packs::run(repository, &thorough(), &sources, &Silent))?)
        });
        self.tell(&Deed { is_damaged: true, ..deed });
        assert!(repair(&self.world.open(), &thorough()).lost_count > 0, "what was only in that pack");
        self.repair_snapshots();
        self.world.storage = sound;
        self.repair_log();
    }

    fn repair_snapshots(&mut self) {
        let options = SnapshotsOptions { forget: true, ..all_snapshots() };
        let dry = SnapshotsOptions { dry_run: true, ..options.clone() };
        let planned = repair::snapshots::run(&self.world.open(), &dry, &Silent).expect("planned").snapshots;
        let relative = |path: &[u8]| {
            let path = Path::new(OsStr::from_bytes(path));
            path.strip_prefix(self.root()).expect("below the source").to_str().expect("text").to_owned()
        };
        let lost = planned.iter().flat_map(|hit| &hit.lost).map(|entry| relative(&entry.path)).collect();
        let deed = self.deed("repair snapshots", move |repository| {
            let report = shown(repair::snapshots::run(repository, &options, &Silent))?;
            require(report.left() == 0, || format!("{report:?}"))
        });
        self.tell(&Deed {
            leaving: planned.iter().map(|hit| hit.original).collect(),
            originals: self.world.expected.clone(),
            lost,
            is_damaged: true,
            is_done: Box::new(has_none_that_leave),
            ..deed
        });
    }

    fn repair_log(&mut self) {
        let last = *self.world.expected.keys().next_back().expect("several");
        let seq = forget::hold(&self.world.open(), last, "about to be lost").expect("held");
        let deed = self
            .deed("repair log", move |repository| shown(repair::log::accept_loss(repository, seq)).map(drop));
        flip(&deed.storage, &ObjectKey::log(seq));
        let is_done = Box::new(move |_: &Deed, repository: &Repository| repository.fold().seq() > seq);
        self.tell(&Deed { is_damaged: true, is_done, ..deed });
    }

    pub fn repair_objects(&mut self) {
        let deed = self.deed_from("repair objects", |backend| {
            let password = Password::new(PASSWORD.to_vec());
            let environment = testing::environment(next_seed());
            let repository = shown(Repository::open_for_check(backend, &password, environment))?;
            let report = shown(repair::objects::run(&repository, false, &Silent))?;
            require(report.left() == 0, || format!("{report:?}"))
        });
        let keys: Vec<ObjectKey> = deed.storage.objects().into_iter().map(|(key, _)| key).collect();
        for folder in [Folder::Log, Folder::Index, Folder::Ledger] {
            let of_folder: Vec<_> = keys.iter().filter(|key| key.folder() == Some(folder)).collect();
            flip(&deed.storage, of_folder[of_folder.len() / 2]);
        }
        self.tell(&Deed { is_damaged: true, ..deed });
    }
}
