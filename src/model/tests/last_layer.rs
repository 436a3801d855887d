//! What follows the last layer's attention is done for scored rows alone: the gradients are those of all rows.

use super::*;

#[test]
fn rows_that_are_not_scored_are_left_out_of_the_last_layer_without_changing_a_bit() {
    // The same sequences with every row scored, and nothing asked of those that are not scored in `some`.
    let (mut some, mut every) = (Batch::new(), Batch::new());
    for i in 0..6u32 {
        let tokens: Vec<u32> = (0..20 + i * 7).map(|t| (t * t * (i + 3) + i) % 110).collect();
        some.push(&tokens, |t| t > 11 && t % 3 > 0);
        every.push(&tokens, |_| true);
    }
    let spread = |values: &[f32]| {
        let mut spread = vec![0.0; every.scored()];
        values.iter().zip(&some.scored).for_each(|(&x, row)| spread[every.scored.binary_search(row).unwrap()] = x);
        spread
    };
    let raw = |family: &str| {
        let mut raw = mini(1).config().raw().clone();
        raw.insert("architectures".into(), serde_json::json!([family]));
        Config::from_json(raw).unwrap()
    };
    let adapted = mini(2).with_lora(LoraConfig { rank: 2, alpha: 4.0 }, 1).unwrap();
    let others = ["Qwen2ForCausalLM", "Qwen3ForCausalLM"].map(|family| Model::init(raw(family), 5));
    for model in [mini(2), adapted].iter().chain(&others) {
        let mut tables = Vec::new();
        for (recompute, batch) in [(false, &every), (false, &some), (true, &some)] {
            let mut work = if recompute { model.recomputing_workspace() } else { model.workspace() };
            let mut grads = model.grads();
            let scores = model.forward(&mut work, batch).unwrap();
            let kept = |values: &[f32]| -> Vec<f32> {
                some.scored.iter().map(|row| values[batch.scored.binary_search(row).unwrap()]).collect()
            };
            let (logprobs, entropies) = (kept(&scores.logprobs), kept(&scores.entropies));
            let seeds = [&logprobs, &entropies].map(|x| if batch == &some { x.clone() } else { spread(x) });
            model.backward(&mut work, batch, &seeds[0], Some(&seeds[1]), &mut grads).unwrap();
            let all = model.trained().iter().flat_map(|info| grads.get(info));
            tables.push(all.chain(logprobs).chain(entropies).map(f32::to_bits).collect::<Vec<_>>());
        }
        assert!(tables[0] == tables[1], "leaving rows out changed a gradient or a score");
        assert!(tables[0] == tables[2], "and so with recomputed activations");
        let live = tables[0].iter().filter(|&&bits| bits << 1 != 0).count();
        assert!(live > tables[0].len() / 2, "{live} of {} are not 0", tables[0].len());
    }
}
