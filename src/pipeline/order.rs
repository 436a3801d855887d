//! The running order: each stage after those that it reads.

use std::collections::HashMap;

use crate::error::{Error, Result};
use crate::recipe::Recipe;
use crate::stage::Input;

/// Indices of the stages so that inputs come first; of several that could be next, the one
/// written first.
pub(super) fn running_order(recipe: &Recipe, inputs: &[&[Input]]) -> Result<Vec<usize>> {
    let index: HashMap<&str, usize> = recipe.stages.iter().enumerate().map(|(i, s)| (s.name.as_str(), i)).collect();
    let needs: Vec<Vec<usize>> = inputs
        .iter()
        .map(|inputs| inputs.iter().filter_map(|input| index.get(input.of.as_str()).copied()).collect())
        .collect();
    let mut order = Vec::new();
    let mut placed = vec![false; needs.len()];
    while order.len() < needs.len() {
        let next = (0..needs.len()).find(|&i| !placed[i] && needs[i].iter().all(|&j| placed[j]));
        match next {
            Some(i) => {
                placed[i] = true;
                order.push(i);
            }
            None => return Err(cycle(recipe, &needs, &placed)),
        }
    }
    Ok(order)
}

fn cycle(recipe: &Recipe, needs: &[Vec<usize>], placed: &[bool]) -> Error {
    let mut path: Vec<usize> = Vec::new();
    let mut at = (0..needs.len()).find(|&i| !placed[i]).expect("called when some stage is not placed");
    while !path.contains(&at) {
        path.push(at);
        at = *needs[at].iter().find(|&&j| !placed[j]).expect("an unplaced stage waits for an unplaced one");
    }
    let start = path.iter().position(|&i| i == at).expect("the loop ended on it");
    let mut names: Vec<&str> = path[start..].iter().map(|&i| recipe.stages[i].name.as_str()).collect();
    names.push(names[0]);
    recipe.stages[at].origin.locate(Error::usage(format!("the stages form a cycle: {}", names.join(" ← "))))
}
