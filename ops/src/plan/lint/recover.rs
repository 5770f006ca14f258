//! What a plan says of recoveries that cannot be.

use crate::drill::mistake::ready_mistake;
use crate::plan::lint::{Lint, Severity};
use crate::plan::types::{Domain, Stream, StreamRecover};
use crate::recover::OLD;

impl Lint<'_> {
    /// How a domain is recovered.
    pub(super) fn recovery(&mut self, domain: &Domain) {
        let key = |field: &str| format!("domain.{}.recover.{field}", domain.name);
        if let Some(recover) = &domain.recover {
            if let Some(wrong) = recover.ready.as_ref().and_then(ready_mistake) {
                let message = format!("the recovery of the domain {} {wrong}", domain.name);
                self.error("bad-recover", &key("ready"), message);
            }
            if recover.stop.is_empty() != recover.start.is_empty() {
                let (has, lacks) =
                    if recover.start.is_empty() { ("stop", "start") } else { ("start", "stop") };
                let message = format!("the recovery of the domain {} has {has}, and no {lacks}", domain.name);
                self.add(Severity::Warning, "half-recover", &key(has), message).hint = Some(
                    "what uses the data has to be stopped before it is swapped, and started after that"
                        .into(),
                );
            }
            if let Some(scratch) = &recover.scratch {
                let of = format!("the scratch directory for the recovery of the domain {}", domain.name);
                self.whole_path(&key("scratch"), &of, scratch);
            }
        }
        for stream in &domain.stream {
            if let Some(recover) = &stream.recover {
                self.stream_recovery(domain, stream, recover);
            }
        }
    }

    fn stream_recovery(&mut self, domain: &Domain, stream: &Stream, recover: &StreamRecover) {
        let key = format!("domain.{}.stream.{}.recover", domain.name, stream.name);
        let of = format!("the stream {:?} of the domain {}", stream.name, domain.name);
        let together = [recover.swap.is_some(), recover.swapped.is_some(), recover.undo.is_some()];
        if together.contains(&true) && together.contains(&false) {
            let message = format!("the recovery of {of} needs swap, swapped and undo together");
            self.error("bad-recover", &key, message).hint = Some(
                "what was swapped has to be put back after a failure, and after a kill it has to be asked what was done"
                    .into(),
            );
        }
        let Some(restore) = &stream.restore else {
            let message = format!("{of} says how it is recovered, and has no command `restore`");
            self.error("bad-recover", &key, message);
            return;
        };
        if !restore.names("target") {
            let message = format!("`restore` of {of} does not name ${{target}}");
            self.error(
                "bad-recover",
                &format!("domain.{}.stream.{}.restore", domain.name, stream.name),
                message,
            )
            .hint = Some(
                "what is loaded over the data in use cannot be undone: restore it under the name ${target}"
                    .into(),
            );
        }
        for (field, argv) in [("swap", &recover.swap), ("undo", &recover.undo)] {
            let Some(argv) = argv else { continue };
            if !argv.names("target") || !argv.names("old") {
                let message =
                    format!("`recover.{field}` of {of} does not name both ${{target}} and ${{old}}");
                self.error("bad-recover", &format!("{key}.{field}"), message);
            }
        }
        if let Some(target) =
            recover.target.as_ref().filter(|target| target.is_empty() || target.ends_with(OLD))
        {
            let message = format!("{of} is restored under the name {target:?}");
            self.error("bad-recover", &format!("{key}.target"), message).hint =
                Some(format!("give it a name that does not end in {OLD}: what was in use before gets that"));
        } else if let Some(target) = recover.taken_target() {
            let message = format!("{of} is restored under the name {target:?}, which somebody else may have");
            self.error("bad-recover", &format!("{key}.target"), message).hint = Some(
                "put ${id} into it, or say how it is made: `create` has to fail where it is there".into(),
            );
        }
    }
}
