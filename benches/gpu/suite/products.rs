//! The bare products of a training step: what the step's time falls short of, it loses elsewhere.

use gristmill::Result;
use gristmill::backend::Backend;

use super::figure::time_sets;
use super::noise::Noise;
use super::{Card, Figure, Scale, Shape, Unit};

pub fn products(card: &Card, noise: &Noise, shape: &Shape, scale: &Scale, print: &mut dyn FnMut(Figure)) -> Result<()> {
    let (gpu, n) = (card.gpu(), scale.rows);
    let side = scale.square;
    let flops = |rows: usize, out: usize, input: usize| 2.0 * (rows * out * input) as f64;

    // What the card multiplies where nothing is in the way.
    let square = noise.matrix(side, side);
    let seconds = time_sets(gpu, scale, &mut [(noise.act(side * side), gpu.act(side * side))], |(x, y)| {
        gpu.linear(x, &square, None, side, y);
    })?;
    print(Figure::new("product", format!("{side} cubed"), Unit::Flops, flops(side, side, side), seconds));
    drop(square);

    let (mut amount, mut seconds) = (0.0, vec![0.0; scale.runs]);
    for (name, out, input) in shape.matrices() {
        let w = noise.matrix(out, input);
        let mut sets = [(noise.act(n * input), noise.act(n * out), gpu.act(n * out.max(input)), gpu.f32(out * input))];
        let one = flops(n, out, input);
        let passes = [
            ("forward", time_sets(gpu, scale, &mut sets, |(x, _, to, _)| gpu.linear(x, &w, None, n, to))?),
            ("dx", time_sets(gpu, scale, &mut sets, |(_, dy, to, _)| gpu.linear_dx(dy, &w, n, to))?),
            ("dw", time_sets(gpu, scale, &mut sets, |(x, dy, _, dw)| gpu.linear_dw(dy, x, &w, n, dw, None))?),
        ];
        for (pass, times) in passes {
            let layers = shape.layers as f64;
            amount += layers * one;
            seconds.iter_mut().zip(&times).for_each(|(sum, time)| *sum += layers * time);
            print(Figure::new(
                format!("product {name}, {pass}"),
                format!("{n} x {out} x {input}"),
                Unit::Flops,
                one,
                times,
            ));
        }
    }
    let size = format!("{}, {n} tokens, without the head", shape.name);
    print(Figure::new("products of a step", size, Unit::Flops, amount, seconds));
    Ok(())
}
