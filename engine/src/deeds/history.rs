//! One history with every deed in it; repairs are in [`super::repairs`].

use std::collections::BTreeSet;
use std::fmt::Display;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::{APPENDER, Deed, Passwords, SECOND, Snapshots, back_up, next_seed, open_by, open_with};
use crate::backend::{Backend, MemoryBackend};
use crate::backup::BackupOptions;
use crate::check::{self, CheckOptions, ReadData};
use crate::copy::{self, CopiedSnapshot, CopyOptions, Fate};
use crate::crypto::Password;
use crate::forget::policy::GroupBy;
use crate::forget::{self, ForgetOptions, Guards, Selection, Wish};
use crate::format::parity::Overhead;
use crate::ids::SnapshotId;
use crate::monitor::Silent;
use crate::parity::{self, AddOptions};
use crate::prune::test_support::{Random, World, at_once, files_of, later, noise, options};
use crate::prune::{self, PruneOptions};
use crate::repo::{InitOptions, Repository};
use crate::reserve;
use crate::testing::{self, CHEAP, NoCalendar, PASSWORD};

/// What a deed does to an open repository.
type Result<T = ()> = std::result::Result<T, String>;

/// A repository with a past, to which one thing after the other is done.
pub(super) struct Past<'t> {
    pub world: World,
    hand: Arc<Repository>,
    pub random: Random,
    /// Told of every deed before it is done, while what it reads is there.
    tell: &'t mut dyn FnMut(&Deed),
}

/// Does everything that changes a repository, and tells of each deed before it is done.
pub fn history(seed: u64, tell: &mut dyn FnMut(&Deed)) {
    let world = World::new();
    let hand = Arc::new(world.open());
    let mut past = Past { world, hand, random: Random::new(seed), tell };
    past.init();
    past.change();
    past.back_up("first backup", options());
    for _ in 0..1 + past.random.below(2) {
        past.change();
        past.world.back_up(&past.world.open());
    }
    past.change();
    past.back_up("backup", options());
    past.change();
    (0..4).for_each(|n| past.world.write(&format!("p{n}/part"), &noise(50 + n, 700)));
    past.back_up(
        "backup with partial snapshots",
        BackupOptions { partial_every: Duration::ZERO, ..options() },
    );
    past.copy();
    past.forget();
    past.verify();
    past.prune("condemn", later());
    past.prune("prune", at_once());
    past.hold();
    past.parity();
    past.reserve();
    past.keys();
    past.repair();
}

/// An error as it would be shown.
pub(super) fn shown<T, E: Display>(result: std::result::Result<T, E>) -> Result<T> {
    result.map_err(|error| error.to_string())
}

pub(super) fn require(is_so: bool, what: impl FnOnce() -> String) -> Result {
    if is_so { Ok(()) } else { Err(what()) }
}

impl Past<'_> {
    /// Something done to this repository as it is now.
    pub fn deed(
        &self,
        name: &'static str,
        act: impl Fn(&Repository) -> Result + Send + Sync + 'static,
    ) -> Deed {
        let hand = Arc::clone(&self.hand);
        self.deed_from(name, move |backend| act(&shown(open_by(&hand, backend))?))
    }

    /// The same, opened in a way of its own.
    pub fn deed_from(
        &self,
        name: &'static str,
        act: impl Fn(Arc<dyn Backend>) -> Result + Send + Sync + 'static,
    ) -> Deed {
        Deed {
            name,
            storage: self.world.storage.snapshot(),
            before: self.world.expected.clone(),
            leaving: BTreeSet::new(),
            files: files_of(self.world.source.path()),
            originals: Snapshots::new(),
            lost: BTreeSet::new(),
            root: self.world.source.path().as_os_str().as_bytes().to_vec(),
            passwords: Passwords { before: vec![PASSWORD], after: vec![PASSWORD] },
            is_init: false,
            is_damaged: false,
            is_once: false,
            hand: Arc::clone(&self.hand),
            act: Box::new(act),
            is_done: Box::new(|_, _| true),
        }
    }

    pub fn tell(&mut self, deed: &Deed) {
        (self.tell)(deed);
    }

    /// Tells of a deed and does it.
    pub fn go(&mut self, deed: &Deed) {
        self.tell(deed);
        let backend: Arc<dyn Backend> = Arc::new(self.world.storage.clone());
        deed.act(Arc::clone(&backend)).unwrap_or_else(|error| panic!("{}: {error}", deed.name));
        let repository = deed.open(&backend).expect("it opens");
        assert!(deed.is_done(&repository), "{}", deed.name);
        let live = repository.snapshots().expect("readable");
        self.world.expected =
            live.into_iter().map(|(id, snapshot)| (id, deed.files_of(id, &snapshot))).collect();
    }

    pub fn root(&self) -> PathBuf {
        self.world.source.path().to_owned()
    }

    pub fn change(&mut self) {
        let (world, random) = (&self.world, &mut self.random);
        for _ in 0..1 + random.below(3) {
            let name = format!("d{}/f{}", random.below(3), random.below(4));
            let (seed, len) = (random.below(40), usize::try_from(random.below(6_000)).expect("small"));
            match random.below(4) {
                0 => world.remove(&name),
                1 => world.write(&name, format!("{seed} ").repeat(len / 4).as_bytes()),
                _ => world.write(&name, &noise(seed, len)),
            }
        }
        world.write("always", &random.below(u64::MAX).to_le_bytes());
    }

    fn init(&mut self) {
        let deed = self.deed_from("init", |backend| {
            let options = InitOptions {
                kdf: CHEAP,
                label: "test".into(),
                parity: Overhead::from_tenths(30),
                reserve: None,
            };
            let password = Password::new(PASSWORD.to_vec());
            shown(Repository::init(backend, &password, &options, testing::environment(next_seed()))).map(drop)
        });
        let storage = MemoryBackend::new();
        self.tell(&Deed { storage, before: Snapshots::new(), is_init: true, is_once: true, ..deed });
    }

    fn back_up(&mut self, name: &'static str, options: BackupOptions) {
        let root = self.root();
        let deed = self.deed(name, move |repository| back_up(repository, &root, &options).map(drop));
        self.go(&Deed { is_done: Box::new(has_new_snapshot), ..deed });
    }

    fn copy(&mut self) {
        let source = self.world.open();
        let deed = self.deed_from("copy", |_| Ok(()));
        let target = World::new();
        let hand = Arc::new(target.open());
        let opened = Arc::clone(&hand);
        self.tell(&Deed {
            storage: target.storage,
            before: Snapshots::new(),
            originals: self.world.expected.clone(),
            hand,
            act: Box::new(move |backend| {
                let target = shown(open_by(&opened, backend))?;
                let options = CopyOptions { threads: 1, ..CopyOptions::default() };
                let report = shown(copy::run(&source, &target, &options, &Silent))?;
                let is_there = |one: &CopiedSnapshot| matches!(one.fate, Fate::Copied | Fate::Present);
                require(report.snapshots.iter().all(is_there), || format!("{report:?}"))
            }),
            is_done: Box::new(|deed, repository| {
                repository.snapshots().expect("readable").len() == deed.originals.len()
            }),
            ..deed
        });
    }

    fn forget(&mut self) {
        let first = *self.world.expected.keys().next().expect("several");
        let deed = self.deed("forget", move |repository| {
            let options = ForgetOptions {
                wish: Wish::Named(vec![first]),
                selection: Selection::default(),
                group_by: GroupBy::default(),
                guards: Guards { trust_times: true, ..Guards::default() },
                dry_run: false,
                reason: "a deed".into(),
            };
            shown(forget::run(repository, &options, &NoCalendar)).map(drop)
        });
        let is_done = Box::new(has_none_that_leave);
        self.go(&Deed { leaving: [first].into(), is_once: true, is_done, ..deed });
    }

    fn verify(&mut self) {
        let deed = self.deed("verification", |repository| {
            let options =
                CheckOptions { read_data: ReadData::All, record: true, threads: 1, ..Default::default() };
            let report = shown(check::run(repository, &options, &Silent))?;
            require(!report.is_damaged() && report.ledger_error.is_none(), || format!("{report:?}"))
        });
        let is_done = Box::new(|_: &Deed, repository: &Repository| repository.fold().ledger().is_some());
        self.go(&Deed { is_done, ..deed });
    }

    fn prune(&mut self, name: &'static str, options: PruneOptions) {
        let act = move |repository: &_| shown(prune::run(repository, &options, &Silent)).map(drop);
        self.go(&self.deed(name, act));
    }

    fn hold(&mut self) {
        let last = *self.world.expected.keys().next_back().expect("several");
        let is_held = move |repository: &Repository| {
            repository.fold().snapshot(&last).is_some_and(|entry| entry.hold.is_some())
        };
        let deed =
            self.deed("hold", move |repository| shown(forget::hold(repository, last, "a deed")).map(drop));
        self.go(&Deed { is_done: Box::new(move |_, repository| is_held(repository)), ..deed });
        let deed =
            self.deed("release", move |repository| shown(forget::release(repository, last, "")).map(drop));
        self.go(&Deed { is_done: Box::new(move |_, repository| !is_held(repository)), ..deed });
    }

    fn parity(&mut self) {
        let deed = self.deed("parity add", |repository| {
            let report = shown(parity::add(
                repository,
                &AddOptions { overhead: None, threads: 1, ..AddOptions::default() },
                &Silent,
            ))?;
            let troubles = repository.parity_troubles();
            require(report.damaged.is_empty() && troubles.is_empty(), || format!("{report:?} {troubles:?}"))
        });
        let is_done = Box::new(|_: &Deed, repository: &Repository| {
            let status = parity::status(repository).expect("readable");
            status.overhead.is_some() && status.coverage.iter().all(|one| one.uncovered == 0)
        });
        self.go(&Deed { is_done, ..deed });
        self.change();
        self.back_up("backup with parity", options());
        self.repair_objects();
        let last = *self.world.expected.keys().next_back().expect("several");
        self.world.forget(&self.world.open(), last);
        self.prune("prune with parity", at_once());
        let deed =
            self.deed("parity drop", |repository| shown(parity::drop_all(repository, &Silent)).map(drop));
        let is_done = |_: &Deed, repository: &Repository| repository.fold().parity().is_none();
        self.go(&Deed { is_done: Box::new(is_done), ..deed });
    }

    fn reserve(&mut self) {
        let status = |repository: &Repository| reserve::status(repository).expect("read");
        let deed = self
            .deed("reserve set", |repository| shown(reserve::set(repository, reserve::LEN_MIN)).map(drop));
        let is_done = move |_: &Deed, repository: &Repository| {
            status(repository).wanted.is_some() && reserve::lacking(repository).expect("read") == 0
        };
        self.go(&Deed { is_done: Box::new(is_done), ..deed });
        let deed = self.deed("reserve drop", |repository| shown(reserve::drop_it(repository)).map(drop));
        let is_done = move |_: &Deed, repository: &Repository| status(repository).wanted.is_none();
        self.go(&Deed { is_done: Box::new(is_done), ..deed });
    }

    fn keys(&mut self) {
        let opens = |password: &'static [u8]| {
            move |repository: &Repository| open_with(Arc::clone(repository.backend()), password).is_ok()
        };
        let (by_second, by_appender) = (opens(SECOND), opens(APPENDER));
        let passwords = |before: &[&'static [u8]], after: &[&'static [u8]]| Passwords {
            before: before.to_vec(),
            after: after.to_vec(),
        };
        let deed = self.deed("key add", |repository| {
            shown(repository.add_keyslot(&Password::new(SECOND.to_vec()), "second", CHEAP)).map(drop)
        });
        self.go(&Deed {
            passwords: passwords(&[PASSWORD], &[PASSWORD, SECOND]),
            is_done: Box::new(move |_, repository| by_second(repository)),
            ..deed
        });
        let deed = self.deed("key add --append-only", |repository| {
            let password = Password::new(APPENDER.to_vec());
            shown(repository.add_append_only_keyslot(&password, "appender", CHEAP)).map(drop)
        });
        self.go(&Deed {
            passwords: passwords(&[PASSWORD, SECOND], &[PASSWORD, SECOND, APPENDER]),
            is_done: Box::new(move |_, repository| by_appender(repository)),
            ..deed
        });
        self.append();
        let deed = self.deed("key remove", |repository| {
            let slots = repository.keyslots();
            let slot = slots.iter().find(|slot| slot.entry.label == "second").ok_or("it is not there")?;
            shown(repository.remove_keyslot(&slot.entry.keyslot.to_string())).map(drop)
        });
        self.go(&Deed {
            passwords: passwords(&[PASSWORD, SECOND, APPENDER], &[PASSWORD, APPENDER]),
            is_once: true,
            is_done: Box::new(move |_, repository| !by_second(repository)),
            ..deed
        });
        let original = self.world.storage.snapshot();
        let deed = self.deed("key passwd", |repository| {
            shown(repository.change_password(&Password::new(SECOND.to_vec()), CHEAP)).map(drop)
        });
        self.go(&Deed {
            passwords: passwords(&[PASSWORD, APPENDER], &[SECOND, APPENDER]),
            is_once: true,
            is_done: Box::new(move |_, repository| by_second(repository)),
            ..deed
        });
        self.world.storage = original;
    }

    /// A backup with an append-only password.
    fn append(&mut self) {
        self.change();
        let root = self.root();
        let hand = open_with(Arc::new(self.world.storage.clone()), APPENDER).expect("it opens");
        let deed = self.deed_from("append-only backup", move |backend| {
            let repository = shown(open_by(&hand, backend))?;
            back_up(&repository, &root, &options()).map(drop)
        });
        let all = vec![PASSWORD, SECOND, APPENDER];
        let passwords = Passwords { before: all.clone(), after: all };
        self.go(&Deed { passwords, is_done: Box::new(has_new_snapshot), ..deed });
    }
}

fn has_new_snapshot(deed: &Deed, repository: &Repository) -> bool {
    let snapshots = repository.snapshots().expect("readable");
    snapshots.iter().any(|(id, snapshot)| !deed.before.contains_key(id) && !snapshot.partial)
}

pub(super) fn has_none_that_leave(deed: &Deed, repository: &Repository) -> bool {
    let fold = repository.fold();
    deed.leaving.iter().all(|id: &SnapshotId| fold.snapshot(id).is_none())
}
