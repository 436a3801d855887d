//! Log-probabilities of many tokens: how fast, and with how much memory beyond the model's own.
//!
//! Memory is what was allocated, by two accounts: the backend's allocations while the pass ran, and what the driver says
//! is in use after it and was not before (with what cuBLASLt takes and what allocations are rounded up to).

use gristmill::Result;
use gristmill::backend::{Backend, Cuda};
use gristmill::model::Model;

use super::figure::time;
use super::noise::Noise;
use super::shapes::{packed, tokens};
use super::{Card, Figure, Scale, Shape, Unit};

pub fn scoring(
    card: &Card,
    model: &Model<Cuda>,
    shape: &Shape,
    scale: &Scale,
    print: &mut dyn FnMut(Figure),
) -> Result<()> {
    let gpu = card.gpu();
    // The whole pass, in micro-batches, keeping no activations but those at hand: nothing is differentiated.
    let before = Before::now(card)?;
    let mut work = model.recomputing_workspace();
    let batches: Vec<_> =
        (0..scale.rows / scale.scored).map(|_| packed(scale.scored, scale.length, shape.vocab)).collect();
    let scored: usize = batches.iter().map(|batch| batch.scored()).sum();
    let mut pass = || batches.iter().try_for_each(|batch| model.forward(&mut work, batch).map(drop));
    pass()?;
    gpu.finish()?;
    let memory = before.since(card)?;
    let seconds = time(gpu, scale, pass)?;
    let whole = Figure::new("scoring", &shape.name, Unit::Tokens, scored as f64, seconds);
    print(memory.told(whole.with("micro_batch", scale.scored)));
    drop(work);

    // The head over all of the rows at once: what takes 10 GB with whole logits. cuBLASLt has its memory already.
    let n = scale.rows;
    let card = &card.again();
    let gpu = card.gpu();
    let noise = Noise::new(gpu);
    let (x, w) = (noise.act(n * shape.hidden), noise.matrix(shape.vocab, shape.hidden));
    let targets = tokens(n, shape.vocab);
    gpu.finish()?;
    let before = Before::now(card)?;
    let [mut logprob, mut entropy, mut lse] = [0; 3].map(|_| gpu.f32(n));
    let mut kept = gpu.f32(0);
    let mut pass = || {
        gpu.head(&x, &w, &targets, &mut logprob, &mut entropy, &mut lse, &mut kept);
        gpu.finish()
    };
    pass()?;
    let memory = before.since(card)?;
    let seconds = time(gpu, scale, pass)?;
    print(memory.told(Figure::new("scoring, head alone", &shape.name, Unit::Tokens, n as f64, seconds)));
    Ok(())
}

/// Memory in use at a moment.
struct Before {
    allocated: u64,
    used: u64,
}

/// What was taken since.
struct Taken {
    peak: u64,
    used: u64,
}

impl Before {
    fn now(card: &Card) -> Result<Self> {
        card.peak();
        Ok(Before { allocated: card.allocated(), used: card.used()? })
    }

    /// Nothing that a pass takes is given back before its end, so what is in use then is the most there was.
    fn since(&self, card: &Card) -> Result<Taken> {
        Ok(Taken { peak: card.peak().saturating_sub(self.allocated), used: card.used()?.saturating_sub(self.used) })
    }
}

impl Taken {
    fn told(&self, figure: Figure) -> Figure {
        figure.with("allocated_bytes", self.peak).with("device_bytes", self.used)
    }
}
