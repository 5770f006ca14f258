//! `ls`: what is in a snapshot.

use std::ffi::OsString;
use std::ops::ControlFlow;

use serde_json::json;
use strongroom::browse::{self, Found};
use strongroom::format::tree::{Node, NodeKind};

use crate::context::Context;
use crate::exit::Exit;
use crate::failure::{Failure, Outcome};
use crate::output::{Object, insert_bytes, object};
use crate::{records, units};

/// Arguments of `ls`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  strongroom -r /backup/repo ls latest\n  strongroom -r /backup/repo ls --long --recursive latest:/etc"
)]
pub struct Args {
    /// An id or its first digits, or `latest`, with an optional path in it
    #[arg(value_name = "SNAPSHOT[:PATH]")]
    snapshot: OsString,
    /// Mode, owner, group, size and time as well
    #[arg(short, long)]
    long: bool,
    /// What is in subdirectories as well
    #[arg(short = 'R', long)]
    recursive: bool,
}

/// Lists a directory of a snapshot, or one entry.
pub fn run(args: &Args, context: &Context) -> Outcome {
    let (name, path) = split_snapshot(&args.snapshot)?;
    let repository = context.open_for_snapshots()?;
    let (id, snapshot) = repository.find_snapshot(&name)?;
    let reader = repository.reader();
    let found = browse::find(reader, &snapshot.tree, &path)?;
    if context.output.json() {
        let mut line = object(json!({"struct_type": "snapshot"}));
        line.extend(records::snapshot(&id, &snapshot));
        context.output.object(line)?;
    }
    let prefix = normal(&path);
    let mut shown = Ok(());
    let mut show = |path: &[u8], node: &Node| {
        shown = show(path, node, args, context);
        if shown.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    };
    match (&found, found.tree()) {
        (_, Some(tree)) => browse::list(reader, &tree, &prefix, args.recursive, &mut show)?,
        (Found::Node(node), None) => {
            let _ = show(&prefix, node);
        }
        (Found::Root(_), None) => {}
    }
    shown.map(|()| Exit::Ok)
}

/// Splits `SNAPSHOT:PATH`; the path is empty where there is none.
pub fn split_snapshot(argument: &OsString) -> Result<(String, Vec<u8>), Failure> {
    let bytes = argument.as_encoded_bytes();
    let (name, path) = match bytes.iter().position(|byte| *byte == b':') {
        Some(colon) => (&bytes[..colon], &bytes[colon + 1..]),
        None => (bytes, &[][..]),
    };
    match std::str::from_utf8(name) {
        Ok(name) if !name.is_empty() => Ok((name.to_owned(), path.to_vec())),
        _ => Err(Failure::usage("usage", "a snapshot is named by `latest` or the first digits of its id")),
    }
}

/// The path with one slash before each name and none at the end.
pub fn normal(path: &[u8]) -> Vec<u8> {
    let names = path.split(|byte| *byte == b'/').filter(|name| !name.is_empty() && *name != b".");
    names.flat_map(|name| [b"/", name].concat()).collect()
}

fn show(path: &[u8], node: &Node, args: &Args, context: &Context) -> Result<(), Failure> {
    if context.output.json() {
        let mut line: Object = object(json!({"struct_type": "node"}));
        insert_bytes(&mut line, "path", path);
        line.extend(records::node(node));
        return context.output.object(line);
    }
    let mut line = if args.long { long(node).into_bytes() } else { Vec::new() };
    line.extend(context.output.name(path));
    if args.long
        && let NodeKind::Symlink { target } = &node.kind
    {
        line.extend(b" -> ");
        line.extend(context.output.name(target));
    }
    context.output.line(line)
}

fn long(node: &Node) -> String {
    let metadata = &node.metadata;
    let name = |name: &str, id: u32| if name.is_empty() { id.to_string() } else { name.to_owned() };
    let size = match &node.kind {
        NodeKind::File(content) => content.size.to_string(),
        NodeKind::CharDevice { major, minor } | NodeKind::BlockDevice { major, minor } => {
            format!("{major}, {minor}")
        }
        NodeKind::Symlink { target } => target.len().to_string(),
        _ => "0".into(),
    };
    format!(
        "{} {:<8} {:<8} {:>12} {} ",
        mode_string(node),
        name(&metadata.user, metadata.uid),
        name(&metadata.group, metadata.gid),
        size,
        units::local_time(metadata.mtime)
    )
}

/// Kind and permissions as `ls -l` shows them.
pub fn mode_string(node: &Node) -> String {
    let mode = node.metadata.mode;
    let mut text = String::from(match node.kind {
        NodeKind::File(_) => "-",
        NodeKind::Directory { .. } => "d",
        NodeKind::Symlink { .. } => "l",
        NodeKind::CharDevice { .. } => "c",
        NodeKind::BlockDevice { .. } => "b",
        NodeKind::Fifo => "p",
        NodeKind::Socket => "s",
    });
    for (shift, special, letter) in [(6, 0o4000, 's'), (3, 0o2000, 's'), (0, 0o1000, 't')] {
        let bits = mode >> shift;
        text.push(if bits & 4 != 0 { 'r' } else { '-' });
        text.push(if bits & 2 != 0 { 'w' } else { '-' });
        text.push(match (mode & special != 0, bits & 1 != 0) {
            (true, true) => letter,
            (true, false) => letter.to_ascii_uppercase(),
            (false, true) => 'x',
            (false, false) => '-',
        });
    }
    text
}

#[cfg(test)]
mod tests {
    use strongroom::format::tree::Metadata;

    use super::*;

    #[test]
    fn modes_read_as_ls_shows_them() {
        let node = |kind, mode| Node {
            name: b"n".to_vec().into(),
            kind,
            metadata: Metadata { mode, ..Metadata::default() },
        };
        assert_eq!(mode_string(&node(NodeKind::Fifo, 0o644)), "prw-r--r--");
        assert_eq!(mode_string(&node(NodeKind::Socket, 0o7777)), "srwsrwsrwt");
        assert_eq!(mode_string(&node(NodeKind::File(Default::default()), 0o7000)), "---S--S--T");
    }

    #[test]
    fn snapshots_and_paths() {
        let split = |text: &str| split_snapshot(&OsString::from(text)).ok();
        assert_eq!(split("latest"), Some(("latest".into(), Vec::new())));
        assert_eq!(split("ab:/x:y"), Some(("ab".into(), b"/x:y".to_vec())));
        assert_eq!(split(":/x"), None);
        assert_eq!(normal(b"a//b/./"), b"/a/b");
        assert_eq!(normal(b"/"), b"");
    }
}
