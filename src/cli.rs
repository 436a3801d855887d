//! The command line: one file a subcommand, arguments to one library call to printing.

pub mod rows;
pub mod rules;
pub mod score;
pub mod serve_rewards;
