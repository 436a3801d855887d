//! `gristmill report`.

use std::path::PathBuf;

use crate::error::Result;
use crate::report;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// The run's folder; it need not be finished
    run: PathBuf,
    /// Where to write [default: report.html in the run's folder]
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Another run, such as the same recipe under another seed, whose learning curves are drawn
    /// into the same plots; repeatable
    #[arg(long, value_name = "RUN")]
    compare: Vec<PathBuf>,
}

pub fn run(args: Args) -> Result<()> {
    let written = report::write(&args.run, &report::Options { out: args.out, compare: args.compare })?;
    outln!("{}", written.display());
    Ok(())
}
