//! Models that were trained to their end, and checkpoints on the way: they are not lost unasked, and not used when
//! they are damaged.

use super::digests::Digests;
use super::foresee::foresee;
use super::plan::{Plan, Planned};
use super::run::Options;
use super::state::State;
use crate::error::{Error, Result};
use crate::recipe::Recipe;
use crate::stage::layout::{CHECKPOINTS, MODEL};
use crate::stage::{Wants, trained_steps};
use crate::store::{Location, Manifest};

/// Fails, before anything runs, if the run would come to a model that is not to be given up unasked.
///
/// # Errors
/// That, naming the first such stage.
pub(super) fn refuse_losses(plan: &Plan, recipe: &Recipe, options: &Options, digests: &Digests<'_>) -> Result<()> {
    // Most runs have nothing to lose, or nothing to look at yet.
    for planned in &plan.stages {
        if !matches!(planned.loses(String::new), Ok(None)) {
            let foreseen = foresee(plan, recipe, options, digests)?;
            return foreseen.iter().try_for_each(|f| {
                let refused = f.planned.refuse_loss(&f.state);
                refused.map_err(|error| error.context(format!("stage `{}`", f.planned.name)))
            });
        }
    }
    Ok(())
}

impl Planned {
    /// What would be lost if the stage ran from its beginning with another of what `changed` says: a finished model,
    /// or steps on the way to one; `None` of any other stage.
    pub(super) fn loses(&self, changed: impl FnOnce() -> String) -> Result<Option<State>> {
        if !self.stage.writes_model() {
            return Ok(None);
        }
        if Manifest::load(&self.folder)?.is_some() {
            return Ok(Some(State::Replaces { changed: changed() }));
        }
        Ok(trained_steps(&self.folder)?.map(|steps| State::Discards { steps }))
    }

    /// Hours of training are not to go because a key was tried out.
    ///
    /// # Errors
    /// The stage would lose a model, or steps on the way to one.
    pub(super) fn refuse_loss(&self, state: &State) -> Result<()> {
        let keep = "take back what has changed, or give another folder with `--out`, and what is here stays";
        let anew = |what: &str| format!("to lose {what} and train anew: `--from {}`, or delete that folder", self.name);
        match state {
            State::Replaces { changed } => Err(Error::new(format!(
                "the finished model here was trained with another {changed}: it would be trained anew"
            ))
            .in_file(&self.folder)
            .hint(keep)
            .hint(anew("it"))),
            State::Discards { steps } => {
                Err(Error::new(format!("{steps} steps were trained here with another configuration, input or file"))
                    .in_file(self.folder.join(CHECKPOINTS))
                    .hint("take back what has changed, and they are gone on from")
                    .hint(anew("them")))
            }
            State::Broken { .. } => {
                // What it looked at on its way is not worth training anew.
                let manifest = Manifest::load(&self.folder)?;
                let lost = manifest.as_ref().map(|manifest| manifest.damaged(&self.folder)).transpose()?;
                let lost = lost.and_then(|lost| lost.into_keys().next());
                Err(Error::new("a file that the stage's manifest lists is gone, or was cut")
                    .in_file(lost.map_or_else(|| self.folder.clone(), |file| self.folder.join(file)))
                    .hint(format!("bring it back; or train anew with `--from {}`", self.name)))
            }
            _ => Ok(()),
        }
    }

    /// Reads the models that other stages made for this one, since weights that changed on the disk still load.
    ///
    /// # Errors
    /// One of them is not as its stage wrote it.
    pub(super) fn check_models(&self, plan: &Plan) -> Result<()> {
        for input in self.inputs.iter().filter(|input| input.wants == Wants::Model) {
            let Some(stage) = plan.find(&input.of) else { continue };
            let Some(manifest) = Manifest::load(&stage.folder)? else { continue };
            let altered = manifest.altered_within(&stage.folder, &format!("{MODEL}/"))?;
            if let Some(altered) = altered.into_iter().next() {
                let error = damaged_model(&input.of, &stage.folder.join(&altered.file), &altered.what);
                return Err(error.context(format!("the input `{}` of `{}`", input.key, self.name)));
            }
        }
        Ok(())
    }
}

/// A file of a stage's model that is not as the stage wrote it.
pub(super) fn damaged_model(stage: &str, file: &Location, what: &str) -> Error {
    Error::new(format!("a file of the model that the stage `{stage}` trained {what}"))
        .in_file(file)
        .hint(format!("bring it back; or train anew with `--from {stage}`"))
}
