//! Drills with repositories that are played, and commands of this system: which end each comes to.

use std::cell::{Cell, RefCell};
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

use strongroom::format::snapshot::Snapshot;
use strongroom::ids::SnapshotId;
use tempfile::TempDir;

use super::choose;
use super::place::Place;
use super::probe::NoAnswer;
use super::{Compared, DrillOutcome, DrillRecord, Driller, Part, Phase, Problem, Restored, Source, Wish};
use crate::plan::Plan;
use crate::plan::load::tests_support::plan;
use crate::plan::values::Name;
use crate::run::process::Processes;
use crate::run::system::SystemProcesses;
use crate::run::vault::VaultError;
use crate::testing::{id, name, now, record};

const CONTENT: &[u8] = b"some rows, and more rows";

static TOKENS: AtomicU64 = AtomicU64::new(0);

/// Every snapshot has one stream, `dump`.
#[derive(Default)]
pub(super) struct Played {
    down: bool,
    /// What it says then.
    code: &'static str,
    /// How often its content is in it, once more.
    more: usize,
    problem: Option<Problem>,
    /// Whether what it restores is not what it has.
    restores_rot: bool,
    /// Whether it takes everything for the same.
    is_blind: bool,
    snapshots: Vec<(SnapshotId, Snapshot)>,
    parts: RefCell<Vec<(Name, Part)>>,
    pub(super) notes: RefCell<Vec<(Name, DrillOutcome)>>,
    /// What was noted of the last one.
    noted: RefCell<Option<String>>,
    /// Whether notes can be written.
    keeps_nothing: bool,
}

impl Source for Played {
    fn snapshots(&self, _: &Name) -> Result<Vec<(SnapshotId, Snapshot)>, VaultError> {
        match self.down {
            true => Err(VaultError { code: self.code.into(), message: "it is down".into() }),
            false => Ok(self.snapshots.clone()),
        }
    }

    fn walk(&self, _: &Name, _: &SnapshotId) -> Result<Restored, VaultError> {
        Ok(Restored { files: 7, bytes: 70, problem: self.problem.clone() })
    }

    fn sample(&self, _: &Name, _: &SnapshotId, count: usize) -> Result<Vec<Vec<u8>>, VaultError> {
        Ok(vec![b"/dump".to_vec(); count.min(2)])
    }

    fn restore(
        &self,
        repo: &Name,
        _: &SnapshotId,
        part: &Part,
        target: &Path,
    ) -> Result<Restored, VaultError> {
        self.parts.borrow_mut().push((repo.clone(), part.clone()));
        fs::create_dir_all(target).expect("made");
        let content = CONTENT.repeat(self.more + 1);
        let content = if self.restores_rot { content.to_ascii_uppercase() } else { content };
        fs::write(target.join("dump"), content).expect("written");
        Ok(Restored { files: 1, bytes: CONTENT.len() as u64, problem: self.problem.clone() })
    }

    fn compare(&self, _: &Name, _: &SnapshotId, _: &Part, target: &Path) -> Result<Compared, VaultError> {
        let found = fs::read(target.join("dump")).expect("there");
        let same = u64::from(self.is_blind || found == CONTENT.repeat(self.more + 1));
        Ok(Compared { same, different: 1 - same })
    }

    fn note(&self, repo: &Name, record: &DrillRecord) -> Result<(), VaultError> {
        if self.keeps_nothing {
            return Err(VaultError { code: "storage".into(), message: "it is full".into() });
        }
        self.noted.replace(Some(record.note().reason));
        self.notes.borrow_mut().push((repo.clone(), record.outcome));
        Ok(())
    }
}

pub(super) struct Stage {
    pub(super) folder: TempDir,
    pub(super) plan: Plan,
    pub(super) source: Played,
    /// How often addresses are asked in vain.
    silent: usize,
    /// And what they say then.
    answer: Result<u16, NoAnswer>,
    cancelled: Arc<AtomicBool>,
    known: Vec<DrillRecord>,
    /// Whether something is left to be cleaned up.
    pub(super) leaves: bool,
}

const DOMAIN: &str = "[repo.b]\nurl = '/b'\n[class.c]\nrto = '1h'\n[[domain]]\nname = 'x'\nclass = 'c'\n\
                      stream = [{ name = 'dump', command = ['true'], restore = ['sh', '-c', 'cat > DIR/${target}'] }]\n";

impl Stage {
    pub(super) fn new(drill: &str) -> Self {
        let folder = TempDir::new().expect("a folder");
        fs::create_dir(folder.path().join("state")).expect("a folder");
        let text =
            format!("{DOMAIN}[[drill]]\nname = 'd'\ndomains = ['x']\nscratch = 'DIR/scratch'\n{drill}");
        let plan = plan(&text.replace("DIR", folder.path().to_str().expect("text")));
        let snapshots =
            vec![(id(1), record("x", 9 * 24)), (id(2), record("y", 24)), (id(3), record("x", 24))];
        let source = Played { snapshots, ..Played::default() };
        let (cancelled, known) = (Arc::default(), Vec::new());
        Self { folder, plan, source, silent: 2, answer: Ok(200), cancelled, known, leaves: false }
    }

    pub(super) fn place(&self) -> Place {
        Place::new(&self.folder.path().join("state"))
    }

    pub(super) fn run(&self) -> DrillRecord {
        self.run_as(&Wish::default())
    }

    fn run_as(&self, wish: &Wish) -> DrillRecord {
        let (place, began) = (self.place(), Instant::now());
        let asked = Cell::new(0);
        let driller = Driller {
            plan: &self.plan,
            host: "box".into(),
            processes: Arc::new(SystemProcesses::new(Arc::clone(&self.cancelled))),
            services: &|stop| Arc::new(SystemProcesses::new(stop)) as Arc<dyn Processes>,
            source: &self.source,
            place: &place,
            records: &|| Ok(self.known.iter().cloned().chain(place.records()?).collect()),
            get: &|_| {
                asked.set(asked.get() + 1);
                if asked.get() <= self.silent {
                    Err(NoAnswer::Nobody("nobody listens".into()))
                } else {
                    self.answer.clone()
                }
            },
            free_port: &|| Ok(4711),
            pause: &std::thread::sleep,
            now: &now,
            uptime: &|| began.elapsed(),
            random: &|below| match below {
                // Drills of other tests must not be taken for this one's.
                u64::MAX => TOKENS.fetch_add(1, Ordering::Relaxed),
                below => 4 % below,
            },
            is_cancelled: &|| self.cancelled.load(Ordering::Relaxed),
        };
        let lock = place.lock(&name("d")).expect("a lock").expect("free");
        assert_eq!(driller.run(&self.plan.drills[0], wish), None, "another run of it is at work");
        drop(lock);
        let record = driller.run(&self.plan.drills[0], wish).expect("nobody else is at work");
        assert!(!self.folder.path().join("scratch/d").exists(), "the scratch directory is gone: {record:?}");
        assert_eq!(place.journal(&name("d")).expect("readable").is_some(), self.leaves, "{record:?}");
        let records = place.records().expect("readable");
        let (last, kept) = (records.last().expect("recorded"), record.without_output());
        assert_eq!(
            (last.outcome, &last.reason, &last.restored),
            (record.outcome, &kept.reason, &kept.restored)
        );
        record
    }
}

/// A whole drill that loads what there is to be loaded.
pub(super) const FULL: &str = "tier = 'full'\nstep = [{ restore = 'x', target = 'loaded' }]\n";

fn phases(record: &DrillRecord) -> Vec<Phase> {
    record.phases.iter().map(|timed| timed.phase).collect()
}

const STEPS: &str = "tier = 'full'\nenv = { WHERE = '${scratch}/x' }\n\
    step = [{ restore = 'x', target = 'loaded' }, { start = ['sleep', '600'], ready = { http = 'http://127.0.0.1:${port}/' } }, \
    { run = ['sh', '-c', 'cat $WHERE/dump | wc -c'], expect = '> 23' }, { run = ['cat', 'DIR/loaded'], expect = 'some rows, and more rows' }]\n";

#[test]
fn a_full_drill_goes_through_all_its_phases() {
    let stage = Stage::new(STEPS);
    let record = stage.run();
    assert_eq!((record.outcome, &record.reason), (DrillOutcome::Pass, &None), "{record:?}");
    let all = [
        Phase::Locate,
        Phase::Fetch,
        Phase::Verify,
        Phase::Load,
        Phase::Start,
        Phase::Ready,
        Phase::Check,
        Phase::Cleanup,
    ];
    assert_eq!(phases(&record), all);
    assert!(record.is_measured() && record.rto == Some(3600) && record.seconds() > 0.0);
    assert_eq!((record.restored[0].snapshot, record.restored[0].bytes), (id(3), CONTENT.len() as u64));
    assert_eq!(stage.source.notes.borrow()[..], [(name("a"), DrillOutcome::Pass)]);
}

/// The first one needs no address: that it is up says nothing of who answers for the second.
#[test]
fn another_application_is_not_taken_for_the_second_one_of_a_drill() {
    let start = |ready: &str| format!("{{ start = ['sleep', '600'], ready = {{ {ready} }} }}");
    let drill = |steps: &[String]| FULL.replace(" }]", &format!(" }}, {}]", steps.join(", ")));
    let (command, http) = ("command = ['true']", "http = 'http://127.0.0.1:80/'");
    let mut stage = Stage::new(&drill(&[start(command), start(http)]));
    stage.silent = 0;
    let record = stage.run();
    let reason = record.reason.unwrap_or_default();
    assert!(reason.starts_with("step 3: http://127.0.0.1:80/ answers already, with 200"), "{reason}");
    // The same of what does not speak HTTP: the application cannot listen where it does.
    stage.answer = Err(NoAnswer::Other("it took too long".into()));
    let record = stage.run();
    assert_eq!(record.outcome, DrillOutcome::Unverified, "{record:?}");
    let reason = record.reason.unwrap_or_default();
    assert!(reason.starts_with("step 3: http://127.0.0.1:80/ is in use already"), "{reason}");
    assert_eq!(record.outcome, DrillOutcome::Unverified);
    // It is the first one of the drill that answers for the second.
    let stage = Stage::new(&drill(&[start(http), start("http = 'http://127.0.0.1:80/also'")]));
    assert_eq!(stage.run().outcome, DrillOutcome::Pass);
    let stage = Stage::new(&drill(&[start(http), start("http = 'http://127.0.0.1:81/'")]));
    assert_eq!(stage.run().outcome, DrillOutcome::Unverified);
}

#[test]
fn lesser_tiers_say_what_they_are_and_run_no_steps() {
    for (tier, part) in [("metadata", None), ("sample", Some(Part::Files(vec![b"/dump".to_vec(); 2])))] {
        let stage = Stage::new(&STEPS.replace("'full'", &format!("'{tier}'")));
        let record = stage.run();
        assert_eq!((record.outcome, record.tier.name()), (DrillOutcome::Pass, tier));
        assert!(!record.is_measured() && !phases(&record).contains(&Phase::Check));
        let parts = stage.source.parts.borrow();
        assert_eq!(parts.first().map(|(_, part)| part.clone()), part);
    }
}

#[test]
fn each_way_to_end_has_its_outcome() {
    let run = |step: &str| FULL.replace(" }]", &format!(" }}, {step}]"));
    let (fail, unverified) = (DrillOutcome::Fail, DrillOutcome::Unverified);
    for (drill, outcome, reason) in [
        (run("{ run = ['false'] }"), fail, "step 2: a command: false failed: exit code 1"),
        (run("{ run = ['no-such-program'] }"), unverified, "step 2: a command: cannot run no-such-program"),
        (run("{ run = ['echo', '5'], expect = '< 5' }"), fail, "step 2: echo: it printed 5, expected < 5"),
        (
            run("{ run = ['echo', 'a'], expect = 'b' }"),
            fail,
            "step 2: echo: it did not print \"b\", as expected; it said: a",
        ),
        (
            run("{ start = ['false'], ready = { command = ['false'] } }"),
            fail,
            "step 2: false ended before it was ready: false failed: exit code 1",
        ),
        (
            run("{ start = ['sleep', '600'], ready = { command = ['false'], timeout = '1s' } }"),
            fail,
            "step 2: sleep is not ready after 1 s: false failed",
        ),
        (
            run("{ start = ['no-such-program'], ready = { command = ['true'] } }"),
            unverified,
            "step 2: the application: cannot run",
        ),
    ] {
        let stage = Stage::new(&drill);
        let record = stage.run();
        let found = record.reason.clone().unwrap_or_default();
        assert!(record.outcome == outcome && found.starts_with(reason), "{drill}\n{record:?}");
        assert_eq!(stage.source.notes.borrow()[..], [(name("a"), outcome)]);
    }
    for (code, outcome) in [("storage", unverified), ("log-rolled-back", fail), ("no-keyslot", fail)] {
        let mut stage = Stage::new(FULL);
        (stage.source.down, stage.source.code) = (true, code);
        let record = stage.run();
        assert_eq!((record.outcome, record.reason.as_deref()), (outcome, Some("it is down")), "{code}");
    }
    for (is_damage, outcome) in [(true, fail), (false, unverified)] {
        let mut stage = Stage::new(FULL);
        stage.source.problem = Some(Problem { is_damage, message: "no".into() });
        assert_eq!(stage.run().outcome, outcome);
    }
    let record = Stage::new(&run("{ prepare = ['false'] }")).run();
    let why = record.reason.unwrap_or_default();
    assert!(record.outcome == unverified && why.starts_with("step 2: it cannot be prepared: "), "{why}");
    let mut stage = Stage::new(FULL);
    stage.source.snapshots.clear();
    let record = stage.run();
    assert_eq!((record.outcome, record.reason.as_deref()), (fail, Some("there is no snapshot of x in a")));
    let mut stage = Stage::new(&run("{ run = ['sleep', '1.2'] }"));
    stage.plan.classes.values_mut().for_each(|class| class.rto = "1s".parse().ok());
    let record = stage.run();
    assert!(record.outcome == fail && record.reason.is_some_and(|why| why.contains("has to be done in 1 s")));
}

/// What hangs is ended when the step's time is up, whatever kind of step it is, and a load when that of its stream is. By itself each
/// would end later, and otherwise.
#[test]
fn what_hangs_is_ended_by_the_time_of_its_step() {
    let step = |step: &str| FULL.replace(" }]", &format!(" }}, {{ {step}, timeout = '1s' }}]"));
    let command = |word: &str| {
        crate::plan::values::Argv::try_from(vec![word.to_owned(), "20".into(), "${target}".into()])
    };
    let of_stream = |timeout: Option<&str>, step: &str| {
        let mut stage = Stage::new(&FULL.replace("'loaded'", &format!("'0'{step}")));
        let stream = &mut stage.plan.domains[0].stream[0];
        stream.restore = Some(command("sleep").expect("a command"));
        stream.restore_timeout = timeout.map(|timeout| timeout.parse().expect("a time"));
        stage
    };
    let (fail, unverified) = (DrillOutcome::Fail, DrillOutcome::Unverified);
    let ended = "sleep took longer than 1 s and was ended";
    for (stage, outcome, reason) in [
        (Stage::new(&step("run = ['sleep', '20']")), fail, format!("step 2: a command: {ended}")),
        (
            Stage::new(&step("prepare = ['sleep', '20']")),
            unverified,
            format!("step 2: it cannot be prepared: {ended}"),
        ),
        (
            Stage::new(&step("start = ['sleep', '20'], ready = { command = ['false'] }")),
            fail,
            format!("step 2: sleep ended before it was ready: {ended}"),
        ),
        (of_stream(Some("1s"), ""), fail, format!("step 1: loading dump: {ended}")),
        (of_stream(None, ", timeout = '1s'"), fail, format!("step 1: loading dump: {ended}")),
        // The step knows its server.
        (of_stream(Some("1h"), ", timeout = '1s'"), fail, format!("step 1: loading dump: {ended}")),
    ] {
        let record = stage.run();
        assert_eq!((record.outcome, record.reason.as_deref()), (outcome, Some(reason.as_str())));
    }
}

/// Whoever looks at the drill may read it. The log of a repository keeps it for ever, and pages and messages go to others.
#[test]
fn what_commands_print_is_kept_nowhere() {
    let run = |step: &str| FULL.replace(" }]", &format!(" }}, {step}]"));
    for (step, kept) in [
        ("{ run = ['sh', '-c', 'echo hunter2; exit 1'] }", "step 2: a command: sh failed: exit code 1"),
        ("{ run = ['echo', 'hunter2'], expect = 'x' }", "step 2: echo: it did not print \"x\", as expected"),
        (
            "{ run = ['echo', 'hunter2'], expect = '< 5' }",
            "step 2: echo: it did not print a number < 5, as expected",
        ),
        (
            "{ start = ['sh', '-c', 'echo hunter2 >&2; exit 1'], ready = { command = ['false'] } }",
            "step 2: sh ended before it was ready: sh failed: exit code 1",
        ),
    ] {
        let stage = Stage::new(&run(step));
        let record = stage.run();
        assert_eq!(record.outcome, DrillOutcome::Fail);
        assert!(record.reason.as_ref().is_some_and(|reason| reason.contains("hunter2")), "{record:?}");
        assert_eq!(stage.source.noted.borrow().as_deref(), Some(kept));
        let lines = fs::read_to_string(stage.folder.path().join("state/drills.jsonl")).expect("text");
        assert!(!lines.contains("hunter2") && lines.contains("step 2: "), "{lines}");
    }
}

#[test]
fn a_drill_that_nobody_will_know_of_says_so() {
    let failing = FULL.replace(" }]", " }, { run = ['sh', '-c', 'echo hunter2; exit 1'] }]");
    let full = "the record cannot be written to the repository: it is full";
    for (drill, outcome, reason) in [
        (FULL, DrillOutcome::Unverified, full.to_owned()),
        (&failing, DrillOutcome::Fail, format!("{full}; step 2: a command: sh failed: exit code 1")),
    ] {
        let mut stage = Stage::new(drill);
        stage.source.keeps_nothing = true;
        let record = stage.run();
        assert_eq!((record.outcome, record.without_output().reason), (outcome, Some(reason)));
    }
    let mut record = Stage::new(&failing).run();
    record.went_unrecorded("the record cannot be written: no space");
    assert!(
        record.reason.is_some_and(|why| why.starts_with("the record cannot be written: no space; step 2"))
    );
}

#[test]
fn a_stream_that_nothing_loads_is_not_proved() {
    for (drill, is_loaded) in [
        ("tier = 'full'\n", false),
        ("tier = 'full'\nstep = [{ run = ['true'] }]\n", false),
        ("tier = 'full'\nstep = [{ run = ['test', '-s', '${scratch}/x/dump'] }]\n", true),
        ("tier = 'sample'\n", true),
        (FULL, true),
    ] {
        let record = Stage::new(drill).run();
        let outcome = if is_loaded { DrillOutcome::Pass } else { DrillOutcome::Unverified };
        let reason = (!is_loaded).then_some("all is as it has to be, but nothing loads dump of x");
        assert_eq!((record.outcome, record.reason.as_deref()), (outcome, reason), "{drill}");
    }
    let mut stage = Stage::new(FULL);
    stage.plan.domains[0].stream[0].restore = None;
    assert_eq!(stage.run().outcome, DrillOutcome::Unverified, "the step has nothing to do");
}

/// What is in use stays as it is, whatever the plan was checked with.
#[test]
fn a_stream_is_never_loaded_over_what_is_in_use() {
    let loaded = |restore: &str, target: &str| {
        let mut stage = Stage::new(&format!(
            "tier = 'full'\nstep = [{{ run = ['touch', 'DIR/ran'] }}, {{ restore = 'x'{target} }}]\n"
        ));
        let production = stage.folder.path().join("production");
        fs::write(&production, "rows of today").expect("written");
        let script = restore.replace("DIR", stage.folder.path().to_str().expect("text"));
        stage.plan.domains[0].stream[0].restore =
            Some(vec!["sh".to_owned(), "-c".into(), script].try_into().expect("a command"));
        let record = stage.run();
        assert_eq!(fs::read(&production).expect("there"), b"rows of today", "{record:?}");
        (record, stage)
    };
    let over = "nothing was begun: step 2: `restore` of the stream dump does not name ${target}: it would load over what is in use";
    let empty = "nothing was begun: step 2: the stream dump would be restored under an empty name";
    for (restore, target, reason) in [
        ("cat > DIR/production", ", target = 'drill'", over),
        ("cat > DIR/production", "", over),
        ("cat > DIR/production${target}", ", target = ''", empty),
    ] {
        let (record, stage) = loaded(restore, target);
        assert_eq!((record.outcome, record.reason.as_deref()), (DrillOutcome::Unverified, Some(reason)));
        assert!(
            record.restored.is_empty()
                && record.phases.is_empty()
                && !stage.folder.path().join("ran").exists()
        );
        assert!(stage.source.parts.borrow().is_empty(), "nothing is fetched for it either");
    }
    let (record, stage) = loaded("cat > DIR/${target}", ", target = 'loaded'");
    assert_eq!(record.outcome, DrillOutcome::Pass, "{record:?}");
    assert_eq!(fs::read(stage.folder.path().join("loaded")).expect("loaded"), CONTENT);
}

/// Whatever the plan was checked with.
#[test]
fn a_drill_that_cannot_be_done_is_not_begun() {
    for (drill, reason) in [
        (
            "tier = 'full'\nstep = [{ run = ['touch', 'DIR/ran'] }, { run = ['echo', '5'], expect = '>= x' }]\n",
            "nothing was begun: step 2 expects \">= x\", which is no comparison",
        ),
        (
            "tier = 'full'\nstep = [{ run = ['touch', 'DIR/ran'] }, { target = 'y' }]\n",
            "nothing was begun: step 2 needs one of prepare, restore, run and start",
        ),
        (
            "tier = 'full'\nsnapshot = 'oldest'\nstep = [{ run = ['touch', 'DIR/ran'] }]\n",
            "nothing was begun: the drill chooses the snapshot \"oldest\"",
        ),
    ] {
        let stage = Stage::new(drill);
        let record = stage.run();
        let told = record.reason.unwrap_or_default();
        assert_eq!(record.outcome, DrillOutcome::Unverified, "{told}");
        assert!(told.starts_with(reason), "{told}");
        assert!(!stage.folder.path().join("ran").exists() && stage.source.parts.borrow().is_empty());
    }
}

#[test]
fn a_drill_that_is_cancelled_says_nothing_of_the_data() {
    let mut stage = Stage::new(FULL);
    let begun = stage.folder.path().join("begun");
    // More than a pipe holds: the command is ended in the middle of it.
    stage.source.more = 10_000;
    let script = format!("touch {}; exec sleep 60 # ${{target}}", begun.display());
    stage.plan.domains[0].stream[0].restore =
        Some(vec!["sh".to_owned(), "-c".into(), script].try_into().expect("a command"));
    let cancelled = Arc::clone(&stage.cancelled);
    let canceller = std::thread::spawn(move || {
        while !begun.exists() {
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
        cancelled.store(true, Ordering::Relaxed);
    });
    let record = stage.run();
    canceller.join().expect("no panic");
    let reason = record.reason.unwrap_or_default();
    assert_eq!(record.outcome, DrillOutcome::Unverified, "{reason}");
    assert!(reason.starts_with("it was cancelled: step 1: loading dump"), "{reason}");
}

#[test]
fn a_damaged_byte_fails_the_self_test() {
    let wish = Wish { self_test: true, ..Wish::default() };
    let record = Stage::new(FULL).run_as(&wish);
    let reason = "1 file of x is not what the snapshot has, 0 are";
    assert_eq!((record.outcome, record.reason.as_deref()), (DrillOutcome::Fail, Some(reason)));
    assert!(record.self_test && !record.is_measured());
    let record = Stage::new("tier = 'metadata'\n").run_as(&wish);
    assert_eq!(record.outcome, DrillOutcome::Unverified, "there is nothing to damage");
    // The steps are not what is tested.
    let steps = FULL.replace("x', target", "x' }, { run = ['false'] }, { restore = 'x', target");
    assert_eq!(Stage::new(&steps).run_as(&wish).outcome, DrillOutcome::Fail);
}

/// What is done to a stage before its drill.
type Change<'c> = &'c dyn Fn(&mut Stage);

#[test]
fn a_self_test_succeeds_by_what_it_damaged_and_by_nothing_else() {
    let wish = Wish { self_test: true, ..Wish::default() };
    let of_none = |stage: &mut Stage| stage.source.snapshots.clear();
    let of_damaged = |stage: &mut Stage| {
        stage.source.problem = Some(Problem { is_damage: true, message: "a pack is gone".into() });
    };
    let of_rotten = |stage: &mut Stage| stage.source.restores_rot = true;
    let of_blind = |stage: &mut Stage| stage.source.is_blind = true;
    let of_lost = |stage: &mut Stage| (stage.source.down, stage.source.code) = (true, "log-rolled-back");
    let cases: [(Change<'_>, &str); 5] = [
        (&of_none, "the self-test has damaged nothing yet: there is no snapshot of x in a"),
        (&of_damaged, "the self-test has damaged nothing yet: x cannot be restored: a pack is gone"),
        (
            &of_rotten,
            "the self-test has damaged nothing yet: 1 file of x is not what the snapshot has, 0 are",
        ),
        (&of_blind, "the self-test: a damaged byte was not noticed, so no drill proves anything"),
        (&of_lost, "the self-test has damaged nothing yet: it is down"),
    ];
    for (change, reason) in cases {
        let mut stage = Stage::new(FULL);
        change(&mut stage);
        let record = stage.run_as(&wish);
        assert_eq!((record.outcome, record.reason.as_deref()), (DrillOutcome::Unverified, Some(reason)));
    }
}

#[test]
fn repositories_take_turns_and_snapshots_are_chosen() {
    let stage = Stage::new(&format!("{FULL}from = 'rotate'\nsnapshot = 'before:7d'\n"));
    let from = |record: &DrillRecord| record.repository.clone().expect("one").to_string();
    let records: Vec<_> = (0..3).map(|_| stage.run()).collect();
    assert_eq!(records.iter().map(from).collect::<Vec<_>>(), ["a", "b", "a"]);
    assert_eq!(records[0].restored[0].snapshot, id(1), "the one of nine days ago");
    let wish = Wish { from: Some("b".into()), ..Wish::default() };
    assert_eq!(from(&stage.run_as(&wish)), "b");
    // One that was run elsewhere counts, too.
    let mut rebuilt = Stage::new(&format!("{FULL}from = 'rotate'\n"));
    rebuilt.known = vec![records[0].clone()];
    assert_eq!(from(&rebuilt.run()), "b");
    let drill = &stage.plan.drills[0];
    assert!(choose::repository(&stage.plan, drill, Some("c"), &[]).is_err());
    let chosen = |choice: &str, random: u64| {
        choose::snapshot(&stage.source.snapshots, "box", &name("x"), choice, &now(), &|_| random)
            .map(|(id, _)| *id)
    };
    assert_eq!((chosen("random", 0), chosen("random", 1)), (Ok(id(1)), Ok(id(3))));
    assert!(chosen("before:30d", 0).is_err());
}

#[test]
fn a_drill_that_is_to_come_is_due_all_the_same() {
    let mut stage = Stage::new("tier = 'sample'\nschedule = 'daily'\n");
    let record = stage.run();
    let drill = stage.plan.drills.remove(0);
    let ahead = |hours| DrillRecord {
        began: record.began + jiff::SignedDuration::from_hours(hours),
        ..record.clone()
    };
    let is_due = |records: &[DrillRecord]| choose::is_due(&drill, records, &now());
    assert!(is_due(&[]) && !is_due(&[ahead(0)]));
    assert!(is_due(&[ahead(24 * 3650)]), "a clock was wrong");
}

/// One that can never be verified, as without a program that its steps need, would restore everything again and again.
#[test]
fn what_could_not_be_verified_is_due_again_after_a_rest() {
    let mut stage = Stage::new("tier = 'sample'\nschedule = '*-*-* 03:00'\n");
    let record = stage.run();
    let drill = stage.plan.drills.remove(0);
    let tried = |minutes_ago: i64, took: f64| {
        let began = now().timestamp() - jiff::SignedDuration::from_mins(minutes_ago);
        let phases = vec![super::Timed { phase: Phase::Fetch, seconds: took }];
        vec![DrillRecord { outcome: DrillOutcome::Unverified, began, phases, ..record.clone() }]
    };
    assert!(choose::is_due(&drill, &tried(60, 1.0), &now()));
    assert!(!choose::is_due(&drill, &tried(60, 600.0), &now()), "it took ten minutes");
    assert!(choose::is_due(&drill, &tried(101, 600.0), &now()));
    assert!(choose::is_due(&drill, &tried(24 * 60, 24.0 * 3600.0), &now()), "the schedule says so anyway");
}
