//! Where drills load streams: never over what is in use, as far as a plan tells. A drill refuses by itself to do so, and nothing
//! else loads by its steps: a finding here keeps nobody from backing up.

use crate::plan::lint::{Lint, Severity};
use crate::plan::types::Drill;
use crate::plan::values::Argv;

impl Lint<'_> {
    /// The streams that the steps of a drill load.
    pub(super) fn loads(&mut self, drill: &Drill) {
        let plan = self.plan;
        for (number, step) in drill.step.iter().enumerate() {
            let domain = step.restore.as_ref().and_then(|name| plan.domain(name.as_str()));
            let (of, target) =
                (format!("step {} of the drill {}", number + 1, drill.name), step.target_name());
            let key = format!("drill.{}.step.{}.restore", drill.name, number + 1);
            for stream in domain.into_iter().flat_map(|domain| &domain.stream) {
                match stream.restore_into(target) {
                    Ok(Some(_)) if has_word(&stream.command, target) => {
                        let message = format!(
                            "{of} loads the stream {:?} into {target:?}, which the command that it comes from names, too",
                            stream.name
                        );
                        self.add(Severity::Warning, "drill-target", &key, message).hint =
                            Some("give the step a `target` that nothing in use has for its name".into());
                    }
                    Ok(_) => {}
                    Err(reason) => {
                        let message = format!("{of}: {reason}");
                        self.add(Severity::Violation, "loads-over", &key, message).hint = Some(
                            "a drill loads under the name ${target}: have `restore` name it, as in \"service=server dbname=${target}\", \
                             and give the step a `target`"
                                .into(),
                        );
                    }
                }
            }
        }
    }
}

/// Whether a name stands in a command, by itself or as a part that is set off, as in `service=shop`.
fn has_word(argv: &Argv, name: &str) -> bool {
    let is_part = |c: char| c.is_alphanumeric() || matches!(c, '_' | '-' | '.');
    argv.words().iter().any(|word| word == name || word.split(|c| !is_part(c)).any(|part| part == name))
}
