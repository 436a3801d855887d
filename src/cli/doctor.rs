//! `gristmill doctor`.

use crate::doctor;
use crate::error::Result;

#[derive(Debug, clap::Args)]
pub struct Args {}

pub fn run(_: Args) -> Result<()> {
    outln!("{}", doctor::examine().to_string().trim_end());
    Ok(())
}
