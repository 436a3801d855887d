//! The recipe: the TOML that users write for one run.
//!
//! ```toml
//! name = "gsm8k"
//! seed = 7
//! include = ["common.toml"]
//!
//! [vars]
//! data = "../data"
//!
//! [stages.prompts]
//! sources = [{ path = "${data}/gsm8k_test.jsonl", domain = "math" }]
//!
//! [stages.verify]            # the stage's kind is its name unless `kind` says otherwise
//! completions = "generate"   # an input is another stage's name or the path of a dataset
//! rules = "r1"
//! ```
//!
//! This room reads the text, merges includes and `--set` overrides, substitutes
//! variables, and keeps for every value where it was written ([`Node`]), so that a
//! stage which reads its own table points at the faulty line. It does not know
//! what stages there are.

mod base;
mod de;
mod foreign;
mod load;
mod node;

pub use base::Base;
pub(crate) use de::suggest;
pub use load::{Recipe, StageTable};
pub use node::{Node, Origin, Source, Value};
