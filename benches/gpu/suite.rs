//! What is measured on a card. The tests run all of it over a device that is the host, at sizes of a few tokens, so
//! that no time on a card is lost on a slip here.

mod attention;
mod card;
pub mod copy;
mod figure;
mod grpo;
mod head;
mod memory_bound;
mod model;
mod noise;
mod products;
mod scoring;
pub mod shapes;

pub use card::Card;
pub use figure::{Figure, Unit};
pub use shapes::{Scale, Shape};

use gristmill::backend::{Backend, Cuda};
use gristmill::model::{Model, SharedModel};
use gristmill::{Error, Result};

/// Every work by name, in the order in which they are done: what scoring takes is counted before others have taken memory.
pub const WORKS: [&str; 6] = ["scoring", "kernels", "train", "decode", "prefill", "grpo"];

/// Refuses a name that is none of [`WORKS`].
pub fn check(works: &[&str]) -> Result<()> {
    match works.iter().find(|work| !WORKS.contains(work)) {
        Some(other) => Err(Error::usage(format!("no bench or size `{other}`"))
            .hint(format!("the benches: {}; the sizes: 0.5B, 1.5B, 3B", WORKS.join(", ")))),
        None => Ok(()),
    }
}

/// Runs works on one model, in the order of [`WORKS`]; `print` gets each figure as soon as it is there.
pub fn run(card: &Card, works: &[&str], shape: &Shape, scale: &Scale, print: &mut dyn FnMut(Figure)) -> Result<()> {
    check(works)?;
    let mut model = None;
    for work in WORKS.into_iter().filter(|work| works.contains(work)) {
        if work == "kernels" {
            kernels(card, shape, scale, print)?;
            continue;
        }
        let model = match &mut model {
            Some(model) => model,
            none => none.insert(fresh(card, shape, scale)?),
        };
        match work {
            "train" => model::train(card, &mut model.write(), shape, scale, print)?,
            "scoring" => scoring::scoring(card, &model.read(), shape, scale, print)?,
            "decode" => model::decode(card, &model.read(), shape, scale, print)?,
            "prefill" => model::prefill(card, &model.read(), shape, scale, print)?,
            _ => grpo::grpo(card, model, shape, scale, print)?,
        }
    }
    Ok(())
}

/// A model, as an engine and a trainer share it.
type Shared = SharedModel<Cuda>;

fn fresh(card: &Card, shape: &Shape, scale: &Scale) -> Result<Shared> {
    let model = Model::init_on(card.gpu().clone(), shape.config(scale.context)?, 1);
    card.gpu().finish()?;
    Ok(SharedModel::new(model))
}

/// Every kernel and product of a training step by itself.
fn kernels(card: &Card, shape: &Shape, scale: &Scale, print: &mut dyn FnMut(Figure)) -> Result<()> {
    let noise = noise::Noise::new(card.gpu());
    memory_bound::memory_bound(card, &noise, shape, scale, print)?;
    head::head(card, &noise, shape, scale, print)?;
    attention::attention(card, &noise, scale, print)?;
    products::products(card, &noise, shape, scale, print)
}
