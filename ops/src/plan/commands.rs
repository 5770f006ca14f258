//! All commands of a plan.

use crate::plan::load::Plan;
use crate::plan::values::Argv;

impl Plan {
    /// All commands that runs and drills of the plan start, with their keys.
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
