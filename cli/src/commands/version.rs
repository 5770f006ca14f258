//! `version`: which program this is.

use serde_json::json;
use strongroom::chunk::Scanner;
use strongroom::crypto::cipher_instructions;

use crate::context::{Context, PROGRAM};
use crate::exit::Exit;
use crate::failure::Outcome;
use crate::output::object;

/// The version of the repository format that this program reads and writes.
const FORMAT_VERSION: u32 = 1;

/// Arguments of `version`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  strongroom version --json")]
pub struct Args {}

/// Shows the version, and which code of the cipher and the chunker this processor gets.
pub fn run(_args: &Args, context: &Context) -> Outcome {
    if context.output.json() {
        context.output.object(object(json!({
            "type": "version",
            "version": env!("CARGO_PKG_VERSION"),
            "format_version": FORMAT_VERSION,
            "os": std::env::consts::OS,
            "arch": std::env::consts::ARCH,
            "cipher": cipher_instructions(),
            "chunker": Scanner::best().name(),
        })))?;
    } else {
        context.output.line(format!("{PROGRAM} (repository format {FORMAT_VERSION})"))?;
        let (cipher, chunker) = (cipher_instructions(), Scanner::best().name());
        context.output.line(format!("on this processor: cipher {cipher}, chunker {chunker}"))?;
    }
    Ok(Exit::Ok)
}
