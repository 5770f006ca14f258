//! The steps of a drill: streams loaded, commands run, applications started and asked.

use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::Duration;

use crate::drill::expect::expected;
use crate::drill::machine::{Driller, Stop, Work};
use crate::drill::mistake::{Mistake, mistakes};
use crate::drill::place::TOKEN;
use crate::drill::probe::{self, NoAnswer};
use crate::drill::record::Phase;
use crate::plan::effective::{SERVICE_TIMEOUT, STEP_TIMEOUT};
use crate::plan::types::{Drill, DrillStep, Ready};
use crate::plan::values::{Argv, Name};
use crate::run::process::{Order, ProcessError, Processes};
use crate::run::stream::timeout;

/// How long an application may take to be ready, where the plan does not say.
pub(crate) const READY: Duration = Duration::from_secs(60);
/// Time between two questions.
pub(crate) const PAUSE: Duration = Duration::from_millis(100);

/// Applications that were started: all are ended when this is dropped.
#[derive(Default)]
pub(super) struct Services {
    running: Vec<Service>,
}

struct Service {
    program: String,
    /// Where it listens, if it is asked there.
    listens: Option<String>,
    stop: Arc<AtomicBool>,
    ended: mpsc::Receiver<String>,
    watcher: Option<JoinHandle<()>>,
}

impl Services {
    /// Ends them all, the last one first.
    pub fn end(&mut self) {
        while let Some(service) = self.running.pop() {
            drop(service);
        }
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(watcher) = self.watcher.take() {
            let _ = watcher.join();
        }
    }
}

impl Service {
    fn start(
        processes: &dyn Processes,
        stop: Arc<AtomicBool>,
        order: &Order<'_>,
        listens: Option<String>,
    ) -> Result<Self, ProcessError> {
        let mut source = processes.source(order)?;
        let (tell, ended) = mpsc::channel();
        let watcher = std::thread::spawn(move || {
            // What it prints is nobody's, but it has to be taken from it.
            let said = match io::copy(&mut source, &mut io::sink()) {
                Ok(_) => source.finish().map_or_else(|error| error.to_string(), |()| "it ended".into()),
                // Dropping it ends it.
                Err(error) => error.to_string(),
            };
            let _ = tell.send(said);
        });
        let program = order.argv.program().to_owned();
        Ok(Self { program, listens, stop, ended, watcher: Some(watcher) })
    }
}

/// A command that fails says something about the data; one that cannot be started does not.
fn failed(what: &str, error: &ProcessError) -> Stop {
    match error {
        ProcessError::Start { .. } | ProcessError::Cancelled { .. } => {
            Stop::Unverified(format!("{what}: {error}"))
        }
        ProcessError::Failed { .. } | ProcessError::TimedOut { .. } => Stop::Fail(format!("{what}: {error}")),
    }
}

/// What stands for itself in the commands of a drill.
struct Words {
    scratch: String,
    port: String,
    env: Vec<(String, String)>,
}

impl Words {
    fn fill(&self, argv: &Argv) -> Argv {
        argv.with("scratch", &self.scratch).with("port", &self.port)
    }
}

impl Driller<'_> {
    /// Refuses a drill that says something that cannot be done.
    pub(super) fn refuse_mistakes(&self, drill: &Drill) -> Result<(), Stop> {
        if let Some(unknown) = drill.domains.iter().find(|name| self.plan.domain(name.as_str()).is_none()) {
            let reason =
                format!("nothing was begun: the drill names the domain {unknown}, which is not in the plan");
            return Err(Stop::Unverified(reason));
        }
        let Some(Mistake { part, wrong, .. }) = mistakes(drill).into_iter().next() else { return Ok(()) };
        let part = part.unwrap_or_else(|| "the drill".into());
        Err(Stop::Unverified(format!("nothing was begun: {part} {wrong}")))
    }

    /// Refuses a drill of which a step would load a stream somewhere else than where the step says: that may be in use.
    pub(super) fn refuse_to_load_over(&self, drill: &Drill) -> Result<(), Stop> {
        for (number, step) in drill.step.iter().enumerate() {
            let domain = step.restore.as_ref().and_then(|name| self.plan.domain(name.as_str()));
            for stream in domain.into_iter().flat_map(|domain| &domain.stream) {
                stream.restore_into(step.target_name()).map_err(|reason| {
                    Stop::Unverified(format!("nothing was begun: step {}: {reason}", number + 1))
                })?;
            }
        }
        Ok(())
    }

    /// All steps, in their order.
    pub(super) fn steps(&self, work: &mut Work<'_>) -> Result<(), Stop> {
        let no_port = |error| Stop::Unverified(format!("there is no free port: {error}"));
        let port = (self.free_port)().map_err(no_port)?.to_string();
        let scratch = work.scratch.display().to_string();
        let own = [
            ("STRONGROOM_DRILL", work.drill.name.to_string()),
            ("STRONGROOM_SCRATCH", scratch.clone()),
            ("STRONGROOM_PORT", port.clone()),
            (TOKEN, work.journal.token.clone()),
        ];
        let filled = |value: &String| value.replace("${scratch}", &scratch).replace("${port}", &port);
        let given = work.drill.env.iter().map(|(name, value)| (name.clone(), filled(value)));
        let env = given.chain(own.map(|(name, value)| (name.to_owned(), value))).collect();
        let words = Words { scratch: scratch.clone(), port: port.clone(), env };
        self.promise_cleanup(work, work.drill.cleanup.iter().map(|argv| words.fill(argv)).collect(), &words)?;
        for (number, step) in work.drill.step.iter().enumerate() {
            let result = self.step(work, &words, step);
            // Nothing was made yet: what is in the way is somebody else's, and not to be removed.
            if result.is_err() && number == 0 && step.prepare.is_some() && !(self.is_cancelled)() {
                self.promise_cleanup(work, Vec::new(), &words)?;
            }
            result.map_err(|stop| {
                let of = |reason| format!("step {}: {reason}", number + 1);
                match stop {
                    // What was ended says nothing about the data.
                    Stop::Fail(reason) if (self.is_cancelled)() => {
                        Stop::Unverified(format!("it was cancelled: {}", of(reason)))
                    }
                    Stop::Fail(reason) => Stop::Fail(of(reason)),
                    Stop::Unverified(reason) => Stop::Unverified(of(reason)),
                }
            })?;
        }
        // An application that is gone by now was not ready for anything.
        for service in &work.services.running {
            if let Ok(said) = service.ended.try_recv() {
                return Err(Stop::Fail(format!("{} did not stay up: {said}", service.program)));
            }
        }
        Ok(())
    }

    /// Notes what is to be run when all is over, whatever happens: before anything is made that has to be removed.
    fn promise_cleanup(&self, work: &mut Work<'_>, cleanup: Vec<Argv>, words: &Words) -> Result<(), Stop> {
        (work.journal.cleanup, work.journal.env) = (cleanup, words.env.clone());
        let noted = self.place.note(&work.drill.name, &work.journal);
        noted.map_err(|error| Stop::Unverified(format!("what is to be cleaned up cannot be noted: {error}")))
    }

    fn step(&self, work: &mut Work<'_>, words: &Words, step: &DrillStep) -> Result<(), Stop> {
        let limit = timeout(step.timeout, STEP_TIMEOUT);
        if let Some(argv) = &step.prepare {
            let argv = words.fill(argv);
            return self.timed(work, Phase::Load, |driller, _| {
                let ended = driller.processes.run(&order(&argv, words, limit));
                ended.map(|_| ()).map_err(|error| Stop::Unverified(format!("it cannot be prepared: {error}")))
            });
        }
        if let Some(domain) = &step.restore {
            return self.timed(work, Phase::Load, |driller, work| {
                driller.load(words, step, domain, &work.folder(domain))
            });
        }
        if let Some(argv) = &step.run {
            let argv = words.fill(argv);
            return self.timed(work, Phase::Check, |driller, _| {
                let ended = driller
                    .processes
                    .run(&order(&argv, words, limit))
                    .map_err(|error| failed("a command", &error))?;
                let Some(expect) = &step.expect else { return Ok(()) };
                expected(expect, &String::from_utf8_lossy(&ended.stdout))
                    .map_err(|wrong| Stop::Fail(format!("{}: {wrong}", argv.program())))
            });
        }
        let (Some(argv), Some(ready)) = (&step.start, &step.ready) else { return Ok(()) };
        let argv = words.fill(argv);
        let url = ready.http.as_ref().map(|url| url.replace("${port}", &words.port));
        let listens = url.as_deref().map(|url| probe::authority(url).to_owned());
        let service = self.timed(work, Phase::Start, |driller, work| {
            // What an application of this drill listens on may answer already.
            let is_own = work.services.running.iter().any(|service| service.listens == listens);
            if let Some(url) = url.as_ref().filter(|_| !is_own) {
                driller.nobody_answers(url)?;
            }
            let stop = Arc::new(AtomicBool::new(false));
            let processes = (driller.services)(Arc::clone(&stop));
            let limit = timeout(step.timeout, SERVICE_TIMEOUT);
            Service::start(&*processes, stop, &order(&argv, words, limit), listens)
                .map_err(|error| failed("the application", &error))
        })?;
        work.services.running.push(service);
        self.timed(work, Phase::Ready, |driller, work| driller.wait(work, words, ready))
    }

    /// Gives each stream of a domain to the command that restores it.
    fn load(&self, words: &Words, step: &DrillStep, domain: &Name, folder: &Path) -> Result<(), Stop> {
        let streams = self.plan.domain(domain.as_str()).map(|domain| &domain.stream);
        for stream in streams.into_iter().flatten() {
            let Some(argv) = stream.restore_into(step.target_name()).map_err(Stop::Unverified)? else {
                continue;
            };
            let argv = words.fill(&argv);
            let what = format!("loading {}", stream.name);
            let unreadable = |error: io::Error| Stop::Unverified(format!("{what}: {error}"));
            let mut file = File::open(folder.join(&stream.name)).map_err(unreadable)?;
            let limit = timeout(step.timeout.or(stream.restore_timeout), STEP_TIMEOUT);
            let mut sink =
                self.processes.sink(&order(&argv, words, limit)).map_err(|error| failed(&what, &error))?;
            io::copy(&mut file, &mut sink).map_err(|error| Stop::Fail(format!("{what}: {error}")))?;
            sink.finish().map_err(|error| failed(&what, &error))?;
        }
        Ok(())
    }

    /// Another application that is up already would be asked in place of the one that is rehearsed.
    fn nobody_answers(&self, url: &str) -> Result<(), Stop> {
        let early = "and the application is not started yet: have it listen on ${port}";
        match (self.get)(url) {
            Err(NoAnswer::Nobody(_)) => Ok(()),
            Ok(code) => Err(Stop::Unverified(format!("{url} answers already, with {code}, {early}"))),
            // The application could not listen there, either.
            Err(NoAnswer::Other(why)) => {
                Err(Stop::Unverified(format!("{url} is in use already, {early}; a call there: {why}")))
            }
        }
    }

    /// Waits until the application that was started last is ready.
    fn wait(&self, work: &mut Work<'_>, words: &Words, ready: &Ready) -> Result<(), Stop> {
        let limit = ready.timeout.map_or(READY, |limit| Duration::from_secs(limit.as_secs()));
        let until = (self.uptime)() + limit;
        let Some(service) = work.services.running.last() else { return Ok(()) };
        loop {
            if (self.is_cancelled)() {
                return Err(Stop::Unverified("it was cancelled".into()));
            }
            if let Ok(said) = service.ended.try_recv() {
                return Err(Stop::Fail(format!("{} ended before it was ready: {said}", service.program)));
            }
            let not_yet = match self.ask(words, ready, until.saturating_sub((self.uptime)())) {
                Ok(()) => return Ok(()),
                Err(not_yet) => not_yet,
            };
            if (self.uptime)() >= until {
                let (program, limit) = (&service.program, limit.as_secs());
                return Err(Stop::Fail(format!("{program} is not ready after {limit} s: {not_yet}")));
            }
            (self.pause)(PAUSE);
        }
    }

    fn ask(&self, words: &Words, ready: &Ready, left: Duration) -> Result<(), String> {
        if let Some(url) = &ready.http {
            let url = url.replace("${port}", &words.port);
            return probe::ready(&url, self.get);
        }
        let Some(argv) = &ready.command else { return Ok(()) };
        let argv = words.fill(argv);
        let limit = left.max(Duration::from_secs(1));
        self.processes.run(&order(&argv, words, limit)).map(|_| ()).map_err(|error| error.to_string())
    }
}

fn order<'a>(argv: &'a Argv, words: &'a Words, timeout: Duration) -> Order<'a> {
    Order { argv, env: &words.env, timeout, heeds_cancel: true }
}
