//! All commands of a plan.

use crate::plan::load::Plan;
use crate::plan::types::StreamRecover;
use crate::plan::values::Argv;

impl Plan {
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
            for (number, step) in drill.step.iter().enumerate() {
                let key = |field: &str| format!("drill.{}.step.{}.{field}", drill.name, number + 1);
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
