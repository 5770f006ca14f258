//! Which plan a command works with.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use strongroom_ops::plan::{self, Host, Mistake, Plan, Severity, SystemFiles};
use strongroom_ops::run::state::State;
use strongroom_ops::run::system::SystemProcesses;

use crate::context::{Context, environment};
use crate::failure::Failure;

/// Where a plan is looked for if none is named.
const PLACES: [&str; 2] = ["./strongroom.toml", "/etc/strongroom/strongroom.toml"];
/// The folder of the state directory in which each plan has its own.
pub const FOLDER: &str = "plans";
/// The one with what plans lock that back the same up into the same repository.
pub const SERIES: &str = "series";

/// The plan to use.
#[derive(Debug, clap::Args)]
pub struct PlanArgs {
    /// The plan [default: ./strongroom.toml or /etc/strongroom/strongroom.toml]
    #[arg(long, env = "STRONGROOM_CONFIG", hide_env_values = true, value_name = "FILE")]
    pub config: Option<PathBuf>,
}

impl PlanArgs {
    /// The plan's main file, as an absolute path.
    pub fn path(&self) -> Result<PathBuf, Failure> {
        let path = match &self.config {
            Some(path) => path.clone(),
            None => {
                let found = PLACES.iter().map(Path::new).find(|path| path.exists());
                let missing = || {
                    Failure::usage(
                        "no-plan",
                        format!("there is no plan: neither {} nor {} exists", PLACES[0], PLACES[1]),
                    )
                    .hint("write one (see docs/plan.md), or name it with --config FILE or STRONGROOM_CONFIG")
                };
                let found = found.ok_or_else(missing)?;
                refuse_strangers(found)?;
                found.to_owned()
            }
        };
        let absolute = std::path::absolute(&path);
        absolute.map_err(|error| Failure::io(format_args!("cannot use the plan {}", path.display()), &error))
    }

    /// Reads the plan.
    pub fn load(&self) -> Result<Plan, Failure> {
        plan::load(&self.path()?, &SystemFiles).map_err(Failure::from)
    }
}

/// Refuses a plan that nobody named and that somebody else can write: a plan has commands, and whoever happens to be in its directory would
/// run them.
fn refuse_strangers(path: &Path) -> Result<(), Failure> {
    // One that cannot be looked at cannot be read either, and says why.
    let Ok(meta) = std::fs::metadata(path) else { return Ok(()) };
    let is_own = [0, rustix::process::geteuid().as_raw()].contains(&meta.uid());
    let why = match (is_own, meta.mode() & 0o002) {
        (true, 0) => return Ok(()),
        (true, _) => "everybody may write to it",
        (false, _) => "it belongs to somebody else",
    };
    let message =
        format!("the plan {} is not used: {why}, and its commands would be run by this user", path.display());
    Err(Failure::usage("foreign-plan", message).hint("name it with --config FILE if it is meant"))
}

/// Keeps the plan for the day on which it cannot be read any more.
pub fn keep(plan: &Plan, state: &State, context: &Context) {
    if let Err(error) = state.keep_plan(plan) {
        context.output.warn(&format!(
            "warning: the plan cannot be kept in the state directory, so that nobody is told when it cannot be read: {error}"
        ));
    }
}

/// The plan as it was when a run with it last began on this host.
pub fn last(args: &PlanArgs, context: &Context) -> Option<Plan> {
    let (folder, path) = (context.state_dir()?, args.path().ok()?);
    strongroom_ops::run::last_plan(&folder.join(FOLDER), &path).unwrap_or_else(|error| {
        context.output.warn(&format!(
            "warning: the run is not on record, and nobody is told: what the plan was cannot be read either: {error}"
        ));
        None
    })
}

/// The host that snapshots of the plan say they are from.
pub fn host(plan: &Plan) -> String {
    plan.host_id.clone().unwrap_or_else(|| environment().host)
}

/// Starts commands of a plan: they get neither passwords of repositories nor addresses of those who are told.
pub fn processes(plan: &Plan, cancelled: Arc<AtomicBool>) -> SystemProcesses {
    SystemProcesses::new(cancelled).hiding(plan.addresses())
}

/// Reads the plan and makes sure that it can be run.
pub fn runnable(args: &PlanArgs) -> Result<Plan, Failure> {
    let plan = args.load()?;
    refuse_errors(&plan)?;
    Ok(plan)
}

/// Makes sure that a plan can be run.
pub fn refuse_errors(plan: &Plan) -> Result<(), Failure> {
    let today = jiff::Zoned::now().date();
    let errors = plan::lint(plan, today, &Host::COMPLETE);
    let mut errors = errors.into_iter().filter(|finding| finding.severity == Severity::Error);
    let Some(first) = errors.next() else { return Ok(()) };
    let place = first.place.map_or(String::new(), |place| format!("{place}: "));
    let more = match errors.count() {
        0 => String::new(),
        more => format!(" (and {more} more)"),
    };
    Err(Failure::usage("plan", format!("{place}{}{more}", first.message))
        .hint("`strongroom config check` shows everything that is wrong with the plan"))
}

/// Warns of patterns of `include` that name no file: what was in such files is not in the plan any more.
pub fn warn_of_includes(plan: &Plan, context: &Context) {
    for pattern in &plan.idle_includes {
        let main = plan.sources[0].path.display();
        context.output.warn(&format!("warning: {main}: the pattern {pattern:?} of include names no file"));
    }
}

/// Refuses `--expect-head` where it could be of any of several repositories.
pub fn refuse_head(plan: &Plan, context: &Context) -> Result<(), Failure> {
    if context.global.expect_head.is_none() || plan.repos.len() < 2 {
        return Ok(());
    }
    let message = format!("--expect-head is of one repository, and the plan has {}", plan.repos.len());
    Err(Failure::usage("usage", message)
        .hint("compare heads with `strongroom -r REPO log --verify --expect-head HEAD`"))
}

/// What this host remembers of the plan's runs.
pub fn state(plan: &Plan, context: &Context) -> Result<State, Failure> {
    let missing = || {
        Failure::usage("no-state", "a plan is run with a state directory, and there is none")
            .hint("leave --no-state out, or name a directory with --state-dir or STRONGROOM_STATE_DIR")
    };
    let (folder, host) = (context.state_dir().ok_or_else(missing)?, host(plan));
    State::of_plan(&folder.join(FOLDER), &plan.sources[0].path, &host)
        .and_then(|state| state.sharing(&folder.join(SERIES), plan, &host))
        .map_err(|error| {
            Failure::io(format_args!("cannot write to the state directory {}", folder.display()), &error)
        })
}

/// The same, to look at without writing anything; none where there is no state directory.
pub fn known_state(plan: &Plan, context: &Context) -> Result<Option<State>, Failure> {
    let Some(folder) = context.state_dir() else { return Ok(None) };
    let state = State::look(&folder.join("plans"), &plan.sources[0].path, &host(plan));
    state.map(Some).map_err(|error| {
        Failure::io(format_args!("cannot read the state directory {}", folder.display()), &error)
    })
}

impl From<Mistake> for Failure {
    fn from(mistake: Mistake) -> Self {
        let failure = Self::usage("plan", &mistake);
        match &mistake.hint {
            Some(hint) => failure.hint(hint),
            None => failure,
        }
    }
}

/// Whether a program can be run: a path, or a name that is found in `PATH`.
pub fn is_program(name: &str) -> bool {
    let can_run =
        |path: &Path| path.is_file() && rustix::fs::access(path, rustix::fs::Access::EXEC_OK).is_ok();
    if name.contains('/') {
        return can_run(Path::new(name));
    }
    let search = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&search).any(|folder| can_run(&folder.join(name)))
}
