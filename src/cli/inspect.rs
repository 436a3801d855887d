//! `gristmill inspect`.

use crate::error::Result;
use crate::inspect;
use crate::store::Location;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// A Parquet file, a stage's folder, a run's folder, or a URL of one
    dataset: String,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub fn run(args: Args) -> Result<()> {
    let inspection = inspect::inspect(&Location::parse(&args.dataset)?)?;
    if args.json {
        println!("{}", serde_json::to_string_pretty(&inspection).expect("an inspection is plain data"));
    } else {
        println!("{inspection}");
    }
    Ok(())
}
