//! `gristmill inspect`.

use crate::error::Result;
use crate::inspect;
use crate::store::Location;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// A Parquet file, a stage's folder, a run's folder, or a URL of one
    dataset: String,
    /// Read every file of a stage or run, and compare it with the digest in its stage's manifest
    #[arg(long)]
    verify: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub fn run(args: Args) -> Result<()> {
    let location = Location::parse(&args.dataset)?;
    if args.verify {
        let verified = inspect::verify(&location)?;
        if args.json {
            outln!("{}", serde_json::to_string_pretty(&verified).expect("plain data"));
        } else {
            outln!("{verified}");
        }
        return verified.result();
    }
    let inspection = inspect::inspect(&location).map_err(|e| match location.join("config.json").exists() {
        Ok(true) => e.hint("a model's folder? `gristmill chat` talks to models"),
        _ => e,
    })?;
    if args.json {
        outln!("{}", serde_json::to_string_pretty(&inspection).expect("an inspection is plain data"));
    } else {
        outln!("{inspection}");
    }
    Ok(())
}
