//! The command, story by story, as its users run it: a built binary, folders, exit codes.
//!
//! One binary, so that one link pays for all of them. What takes more than seconds, or needs
//! the network, runs with `GRISTMILL_SLOW_TESTS=1`; without it, it is smaller or skipped, and says so.

#[macro_use]
mod support;

mod adaptive;
mod authors;
mod bad_input;
mod chat;
mod corpus_readers;
mod eval;
mod foreign;
mod fuzz_package;
mod gsm8k;
mod inspect;
mod kill;
mod memory;
mod own_data;
mod pages;
mod papers_scale;
mod plan;
mod policy;
mod prompts;
mod quickstart;
mod repair;
mod report;
mod retry;
mod reward_servers;
mod rewards;
mod rooms;
mod s3;
mod served;
mod servers;
mod stages;
mod trainers;
mod training;
mod vllm;
