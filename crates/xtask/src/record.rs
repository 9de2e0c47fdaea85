//! `cargo xtask record`: the golden vectors of the wire protocol, recorded again from stock peers.

use std::process::Command;

use anyhow::Result;

use crate::envs;
use crate::releases::Release;
use crate::workspace;

/// What `cargo xtask record` takes.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Only this release
    #[arg(long, value_enum)]
    release: Option<Release>,
}

/// Runs `protocol/record.py` for each release; it starts stock peers of that release and writes what they send.
pub(crate) fn run(options: &Options) -> Result<()> {
    let script = workspace::root().join("protocol/record.py");
    for release in Release::ALL {
        if options.release.is_some_and(|only| only != release) {
            continue;
        }
        let python = envs::ensure(release.environment())?;
        let out = workspace::root()
            .join("protocol/vectors")
            .join(release.version());
        let mut command = Command::new(&python);
        command
            .arg(&script)
            .arg("--python")
            .arg(&python)
            .arg("--out")
            .arg(&out);
        workspace::run(&mut command)?;
        println!("{}: recorded in {}", release.version(), out.display());
    }
    Ok(())
}
