//! Prompt sets: from files of any layout of the field to clean, distinct, uncontaminated [`Prompt`] rows.
//!
//! One idea a file, in the order a row meets them: [`source`] says what to
//! read, [`files`] where it lies, [`read`] turns bytes into rows, [`layout`] turns rows into prompts,
//! [`import`] joins the two; then [`filter`], [`dedup`], [`decontam`] and
//! [`sample`] decide what stays, and [`prepare`] runs them in that order with
//! bounded memory. A row that does not stay leaves a [`drops::Dropped`] behind.
//!
//! This room writes no Parquet: the prompts stage feeds it and stores what it yields.
//!
//! [`Prompt`]: crate::schema::Prompt

pub mod ask;
pub mod column_ref;
pub mod decontam;
pub mod dedup;
pub mod difficulty;
pub mod drops;
pub mod files;
pub mod filter;
pub mod gold;
pub(crate) mod hash;
pub mod identity;
pub mod import;
pub mod layout;
pub mod messages;
pub mod minhash;
pub mod normal;
pub mod prepare;
pub mod read;
pub mod sample;
pub mod source;
mod spill;

pub use ask::Ask;
pub use column_ref::ColumnRef;
pub use decontam::{DecontamConfig, Decontaminator, EvalRow, EvalSet, Hit, SetReport};
pub use dedup::{DedupConfig, Deduplicator, NearConfig};
pub use difficulty::{PassRates, PassWindow};
pub use drops::{DropCounts, Dropped, GoldConflict};
pub use filter::FilterConfig;
pub use identity::{mint, prompt_id};
pub use import::{FaultPlace, ImportReport, Imported, Importer, Step};
pub use layout::Layout;
pub use prepare::{Preparation, PrepareConfig, Summary};
pub use sample::SampleConfig;
pub use source::{Extra, Format, Mapping, OnError, SourceConfig};
