//! What a plan starts: all its commands, and what these do not learn, or do not do.

use crate::plan::load::Plan;
use crate::plan::types::{Domain, Drill, DrillStep, Stream, StreamRecover, Tier};
use crate::plan::values::{Argv, Name, Variable};

impl Plan {
    /// Names of variables with addresses of those who are told, which are secrets: no command of the plan is to learn them.
    pub fn addresses(&self) -> impl Iterator<Item = &str> {
        let names = self.notify.iter().flat_map(|notify| [&notify.webhook_env, &notify.heartbeat_env]);
        names.flatten().map(Variable::as_str)
    }

    /// Streams of a whole drill's domains that nothing loads: neither a step that restores the domain, with the `restore` of the
    /// stream, nor one that names the stream's file in the scratch directory.
    pub fn unloaded<'p>(&'p self, drill: &'p Drill) -> Vec<(&'p Name, &'p str)> {
        if drill.tier != Tier::Full {
            return Vec::new();
        }
        let commands = drill.step.iter().flat_map(|step| {
            let ready = step.ready.as_ref().and_then(|ready| ready.command.as_ref());
            step.run.iter().chain(&step.start).chain(ready)
        });
        let words: Vec<&String> = commands.flat_map(Argv::words).chain(drill.env.values()).collect();
        let domains = drill.domains.iter().filter_map(|name| self.domain(name.as_str()));
        let streams = domains.flat_map(|domain| domain.stream.iter().map(move |stream| (domain, stream)));
        let is_unloaded = |(domain, stream): &(&Domain, &Stream)| {
            let is_restored = stream.restore.is_some()
                && drill.step.iter().any(|step| step.restore.as_ref() == Some(&domain.name));
            let file = format!("${{scratch}}/{}/{}", domain.name, stream.name);
            !(is_restored || words.iter().any(|word| word.contains(&file)))
        };
        streams.filter(is_unloaded).map(|(domain, stream)| (&domain.name, stream.name.as_str())).collect()
    }

    /// All commands that runs, drills and recoveries of the plan start, with their keys.
    pub fn commands(&self) -> Vec<(String, &Argv)> {
        let mut found = Vec::new();
        for (name, repo) in &self.repos {
            found.extend(
                repo.password_command.iter().map(|argv| (format!("repo.{name}.password_command"), argv)),
            );
        }
        for domain in &self.domains {
            let key = |rest: &str| format!("domain.{}.{rest}", domain.name);
            for stream in &domain.stream {
                let stream_key = |field: &str| key(&format!("stream.{}.{field}", stream.name));
                found.push((stream_key("command"), &stream.command));
                found.extend(stream.tee_check.iter().map(|argv| (stream_key("tee_check"), argv)));
                for (field, argv) in stream.recover.iter().flat_map(StreamRecover::commands) {
                    found.push((stream_key(&format!("recover.{field}")), argv));
                }
            }
            if let Some(snapshot) = &domain.snapshot {
                found
                    .extend([(key("snapshot.begin"), &snapshot.begin), (key("snapshot.end"), &snapshot.end)]);
            }
            if let Some(hooks) = &domain.hooks {
                for (name, list) in [
                    ("before", &hooks.before),
                    ("after", &hooks.after),
                    ("failed", &hooks.failed),
                    ("finally", &hooks.finally),
                ] {
                    found.extend(list.iter().map(|argv| (key(&format!("hooks.{name}")), argv)));
                }
            }
            found.extend(domain.facts.iter().map(|(name, argv)| (key(&format!("facts.{name}")), argv)));
            if let Some(recover) = &domain.recover {
                for (name, list) in
                    [("stop", &recover.stop), ("start", &recover.start), ("health", &recover.health)]
                {
                    found.extend(list.iter().map(|argv| (key(&format!("recover.{name}")), argv)));
                }
                let ready = recover.ready.as_ref().and_then(|ready| ready.command.as_ref());
                found.extend(ready.map(|argv| (key("recover.ready.command"), argv)));
            }
        }
        for drill in &self.drills {
            found.extend(drill.cleanup.iter().map(|argv| (format!("drill.{}.cleanup", drill.name), argv)));
            for (number, step) in drill.step.iter().enumerate() {
                let key = |field: &str| format!("drill.{}.step.{}.{field}", drill.name, number + 1);
                found.extend(step.prepare.iter().map(|argv| (key("prepare"), argv)));
                found.extend(step.run.iter().map(|argv| (key("run"), argv)));
                found.extend(step.start.iter().map(|argv| (key("start"), argv)));
                let ready = step.ready.as_ref().and_then(|ready| ready.command.as_ref());
                found.extend(ready.map(|argv| (key("ready.command"), argv)));
            }
        }
        let notified = self.notify.iter().enumerate();
        found.extend(notified.filter_map(|(number, notify)| {
            Some((format!("notify.{}.command", number + 1), notify.command.as_ref()?))
        }));
        found
    }
}

impl Stream {
    /// Its command `restore` for a place of this name; none where it has no such command.
    ///
    /// # Errors
    /// Why it would be loaded somewhere else, where it may be in use.
    pub fn restore_into(&self, target: &str) -> Result<Option<Argv>, String> {
        let Some(argv) = &self.restore else { return Ok(None) };
        if !argv.names("target") {
            return Err(format!(
                "`restore` of the stream {} does not name ${{target}}: it would load over what is in use",
                self.name
            ));
        }
        // Many programs take an empty name for the one that they use without any.
        if target.trim().is_empty() {
            return Err(format!("the stream {} would be restored under an empty name", self.name));
        }
        Ok(Some(argv.with("target", target)))
    }
}

impl DrillStep {
    /// What streams are restored into, by name.
    pub fn target_name(&self) -> &str {
        self.target.as_deref().unwrap_or("drill")
    }
}

impl StreamRecover {
    /// Its commands, by key.
    pub fn commands(&self) -> impl Iterator<Item = (&'static str, &Argv)> {
        let all = [
            ("create", &self.create),
            ("swap", &self.swap),
            ("swapped", &self.swapped),
            ("undo", &self.undo),
            ("drop", &self.drop),
        ];
        all.into_iter().filter_map(|(name, argv)| Some((name, argv.as_ref()?)))
    }
}
