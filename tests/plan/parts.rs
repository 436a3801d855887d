//! Parts of one run (`--shard`) that do things at the same moment.

use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::sync::{Barrier, mpsc};

use gristmill::pipeline::{self, Options, Reporter, RunSummary, StageSummary, State};
use gristmill::recipe::Recipe;
use gristmill::stage::{Part, Progress};
use gristmill::store::Location;

use super::{recordings, run};
use crate::support::{command, digests, leftovers};

/// Holds a part where it has begun a stage, and has looked at what other parts made, until `gate` returns.
struct Held<G>(G);

impl<G: Fn() + Send + Sync> Progress for Held<&G> {
    fn start(&self, _total: u64, _unit: &'static str) {
        (self.0)();
    }
    fn advance(&self, _n: u64) {}
    fn say(&self, _line: &str) {}
    fn latest(&self, _figures: String) {}
}

impl<G: Fn() + Send + Sync> Reporter for Held<G> {
    fn stage(&self, _number: usize, _of: usize, _name: &str, _state: &State) -> Box<dyn Progress + '_> {
        Box::new(Held(&self.0))
    }
    fn finished(&self, _summary: &StageSummary) {}
}

/// Runs one stage as one part of two.
fn part(folder: &Path, index: usize, stage: &str, gate: impl Fn() + Send + Sync) -> RunSummary {
    let recipe = Recipe::load(&folder.join("recipe.toml"), &[]).unwrap();
    let options = Options { from: None, only: Some(stage.to_owned()), part: Part::new(index, 2), threads: 1 };
    let out = Location::from(folder.join("out"));
    pipeline::run(&recipe, &out, &options, &Held(gate), &AtomicBool::new(false)).unwrap()
}

#[test]
fn of_parts_that_find_a_stage_whole_at_once_the_first_commits_it() {
    let folder = recordings(1000);
    run(folder.path(), "whole", &[]).succeeded();
    run(folder.path(), "out", &["--only", "prompts"]).succeeded();
    for stage in ["generate", "verify"] {
        // Both begin before either has made anything, so each misses the other's shards.
        let both = Barrier::new(2);
        let meet = || {
            both.wait();
        };
        let waits = |index: usize| part(folder.path(), index, stage, meet).waits_for.is_some();
        std::thread::scope(|scope| {
            let parts = [0, 1].map(|index| scope.spawn(move || waits(index)));
            assert!(parts.into_iter().all(|part| part.join().unwrap()), "{stage}");
        });
        // Both find everything there; one has committed it when the other comes to that.
        let (committed, is_committed) = mpsc::channel();
        let is_committed = std::sync::Mutex::new(is_committed);
        std::thread::scope(|scope| {
            // Dropped if the early one fails: then the late one does not wait for ever.
            let committed = committed;
            let late = scope.spawn(|| {
                part(folder.path(), 1, stage, || {
                    meet();
                    is_committed.lock().unwrap().recv().unwrap();
                })
            });
            let early = part(folder.path(), 0, stage, meet);
            committed.send(()).unwrap();
            let late = late.join().unwrap();
            assert_eq!((early.waits_for, late.waits_for), (None, None), "{stage}");
        });
    }
    run(folder.path(), "out", &[]).succeeded();
    assert_eq!(digests(&folder.path().join("out")), digests(&folder.path().join("whole")));
    assert_eq!(leftovers(&folder.path().join("out")), [""; 0]);
}

#[test]
fn of_runs_that_begin_in_a_new_folder_at_once_one_goes_on_and_the_others_say_why_not() {
    let folder = recordings(200);
    // Runs meet in the first instants of a folder only, so they get several to meet in.
    for out in ["a", "b", "c", "d", "e"] {
        let said = std::thread::scope(|scope| {
            let whole = || command(folder.path()).args(["run", "recipe.toml", "--out", out]).output().unwrap();
            let runs: Vec<_> = (0..6).map(|_| scope.spawn(whole)).collect();
            runs.into_iter().map(|run| run.join().unwrap()).collect::<Vec<_>>()
        });
        let failed: Vec<_> = said.iter().filter(|run| !run.status.success()).collect();
        for run in &failed {
            let told = String::from_utf8_lossy(&run.stderr);
            assert!(told.contains("another process is running in this folder"), "{told}");
        }
        assert!(failed.len() < said.len());
    }
}
