use super::super::{LossInputs, Objective, Preference, PreferenceConfig, PreferenceLoss};
use super::*;
use crate::seed::Rng;

fn robust(estimate: Estimate, step_size: f64, sizes: &[u64]) -> GroupRobust {
    let config = GroupRobustConfig { reweighting: Reweighting::Robust, estimate, step_size, adjustment: 0.0 };
    GroupRobust::new(config, sizes).unwrap()
}

const FEATURES: usize = 3;

/// A log-linear policy over `actions[x]`, π(y|x) ∝ exp(θ·φ(x, y)), with one pair (0 over 1) a prompt.
struct LogLinear {
    actions: Vec<Vec<[f64; FEATURES]>>,
    groups: Vec<usize>,
}

impl LogLinear {
    fn random(groups: &[usize]) -> Self {
        let mut rng = Rng::new(31);
        let mut features = |centre: f64| std::array::from_fn(|_| centre + rng.normal());
        // The groups prefer along different directions, so that one θ cannot please both.
        let actions = groups.iter().map(|&g| (0..4).map(|_| features(g as f64)).collect()).collect();
        LogLinear { actions, groups: groups.to_vec() }
    }

    /// log π(y|x) of the pair's two actions and E_π[φ].
    fn logprobs(&self, x: usize, theta: &[f64; FEATURES]) -> ([f64; 2], [f64; FEATURES]) {
        let score = |phi: &[f64; FEATURES]| phi.iter().zip(theta).map(|(a, b)| a * b).sum::<f64>();
        let scores: Vec<f64> = self.actions[x].iter().map(score).collect();
        let norm = log_sum_exp(scores.iter().copied());
        let mut mean = [0.0; FEATURES];
        for (phi, score) in self.actions[x].iter().zip(&scores) {
            for (m, f) in mean.iter_mut().zip(phi) {
                *m += (score - norm).exp() * f;
            }
        }
        ([scores[0] - norm, scores[1] - norm], mean)
    }

    /// θ = (1/2β)(SᵀWS)⁻¹SᵀW1 with rows s = φ(y_w) − φ(y_l) and W = diag(α_g/N_g).
    fn closed_form(&self, beta: f64, weight: &dyn Fn(usize) -> f64) -> [f64; FEATURES] {
        let mut system = [[0.0; FEATURES + 1]; FEATURES];
        for (actions, &g) in self.actions.iter().zip(&self.groups) {
            let s: [f64; FEATURES] = std::array::from_fn(|k| actions[0][k] - actions[1][k]);
            for i in 0..FEATURES {
                for j in 0..FEATURES {
                    system[i][j] += weight(g) * s[i] * s[j];
                }
                system[i][FEATURES] += weight(g) * s[i] / (2.0 * beta);
            }
        }
        for i in 0..FEATURES {
            let pivot = system[i][i];
            system[i].iter_mut().for_each(|v| *v /= pivot);
            let row = system[i];
            for (j, other) in system.iter_mut().enumerate().filter(|(j, _)| *j != i) {
                let _ = j;
                let factor = other[i];
                other.iter_mut().zip(row).for_each(|(v, r)| *v -= factor * r);
            }
        }
        std::array::from_fn(|i| system[i][FEATURES])
    }
}

#[test]
fn gr_ipo_finds_the_closed_form_of_log_linear_policies_at_its_own_weights() {
    let groups: Vec<usize> = (0..40).map(|i| usize::from(i % 5 == 0)).collect();
    let sizes = [32u64, 8];
    let (beta, rate) = (0.5, 0.05);
    let data = LogLinear::random(&groups);
    let ipo = Preference::new(PreferenceConfig { loss: PreferenceLoss::Ipo, beta }).unwrap();
    let mut weigher = robust(Estimate::Unbiased, 0.02, &sizes);
    let mut theta = [0.0; FEATURES];
    let offsets: Vec<usize> = (0..=80).collect();
    let reference: Vec<f32> = (0..40).flat_map(|x| data.logprobs(x, &theta).0.map(|l| l as f32)).collect();
    let mut losses = Vec::new();
    for _ in 0..6000 {
        let (logprobs, means): (Vec<[f64; 2]>, Vec<_>) = (0..40).map(|x| data.logprobs(x, &theta)).unzip();
        let logprobs: Vec<f32> = logprobs.iter().flatten().map(|&l| l as f32).collect();
        let unweighted = vec![1.0; 80];
        let inputs = LossInputs {
            offsets: &offsets,
            weights: &unweighted,
            logprobs: &logprobs,
            reference_logprobs: Some(&reference),
            ..Default::default()
        };
        losses = ipo.pairs(&inputs).unwrap().iter().map(|p| p.loss).collect();
        let weights: Vec<f32> = weigher.step(&groups, &losses).iter().flat_map(|&w| [w, w]).collect();
        let gradient = ipo.loss(&LossInputs { weights: &weights, ..inputs }).unwrap().logprob_gradient;
        for x in 0..40 {
            for y in 0..2 {
                for k in 0..FEATURES {
                    let slope = data.actions[x][y][k] - means[x][k];
                    theta[k] -= rate * f64::from(gradient[2 * x + y]) * slope;
                }
            }
        }
    }
    let alpha = weigher.weights();
    let exact = data.closed_form(beta, &|g| alpha[g] / sizes[g] as f64);
    for k in 0..FEATURES {
        assert!((theta[k] - exact[k]).abs() < 2e-3, "θ {theta:?}, closed form {exact:?}, α {alpha:?}");
    }
    // At the saddle either the groups lose the same or all the weight is on the worse one.
    let mean = |g: usize| {
        let of_group: Vec<f64> = losses.iter().zip(&groups).filter(|(_, h)| **h == g).map(|(l, _)| *l).collect();
        of_group.iter().sum::<f64>() / of_group.len() as f64
    };
    let (large, small) = (mean(0), mean(1));
    let worse = if large > small { alpha[0] } else { alpha[1] };
    assert!((large - small).abs() < 0.02 || worse > 0.99, "losses {large}, {small}; α {alpha:?}");
    // The plain objective leaves the worst group worse off.
    let plain = data.closed_form(beta, &|_| 1.0 / 40.0);
    let worst_of = |theta: &[f64; FEATURES]| {
        let mut worst = [0.0f64; 2];
        for (x, &g) in groups.iter().enumerate() {
            let ([w, l], _) = data.logprobs(x, theta);
            worst[g] += ipo.margin_loss(w - l).0 / sizes[g] as f64;
        }
        worst[0].max(worst[1])
    };
    assert!(worst_of(&theta) < worst_of(&plain) - 1e-3, "{} against {}", worst_of(&theta), worst_of(&plain));
}

#[test]
fn weights_stay_on_the_simplex_and_follow_the_losses() {
    for estimate in [Estimate::GroupMean, Estimate::Unbiased] {
        let mut weigher = robust(estimate, 0.5, &[10, 10, 20]);
        for _ in 0..200 {
            weigher.step(&[0, 1, 2, 2], &[1.0, 0.2, 0.2, 0.2]);
            let alpha = weigher.weights();
            assert!((alpha.iter().sum::<f64>() - 1.0).abs() < 1e-9 && alpha.iter().all(|&a| a >= 0.0));
        }
        assert!(weigher.weights()[0] > 0.99, "{estimate:?}");
    }
}

#[test]
fn one_step_is_the_papers_formula() {
    // One pair of group 1 (N_1 = 10 of 40): α_1 ← α_1 exp(η N l / N_1), renormalised.
    let mut weigher = robust(Estimate::Unbiased, 0.1, &[30, 10]);
    let weights = weigher.step(&[1], &[0.7]);
    let raised = (0.1f64 * 4.0 * 0.7).exp();
    let alpha = raised / (1.0 + raised);
    assert!((weigher.weights()[1] - alpha).abs() < 1e-12);
    assert!((f64::from(weights[0]) - 4.0 * alpha).abs() < 1e-6, "N α_g / N_g");
}

#[test]
fn a_group_absent_from_the_batch_keeps_its_weight() {
    let mut weigher = robust(Estimate::GroupMean, 1.0, &[10, 10, 10]);
    weigher.step(&[0, 1], &[2.0, 0.0]);
    let alpha = weigher.weights();
    assert!((alpha[2] - 1.0 / 3.0).abs() < 1e-12 && alpha[0] > alpha[1]);
}

#[test]
fn the_adjustment_favours_small_groups() {
    let config = GroupRobustConfig { reweighting: Reweighting::Robust, adjustment: 2.0, ..Default::default() };
    let mut weigher = GroupRobust::new(config, &[100, 4]).unwrap();
    weigher.step(&[0, 1], &[0.5, 0.5]);
    assert!(weigher.weights()[1] > weigher.weights()[0]);
}

#[test]
fn baselines_have_fixed_weights() {
    let with = |reweighting| {
        let config = GroupRobustConfig { reweighting, ..Default::default() };
        GroupRobust::new(config, &[30, 10]).unwrap().step(&[0, 0, 0, 1], &[f64::NAN; 4])
    };
    assert_eq!(with(Reweighting::Uniform), vec![0.25; 4]);
    let sampled = with(Reweighting::ImportanceSampling);
    assert!((3.0 * sampled[0] - sampled[3]).abs() < 1e-6 && (sampled[3] - 0.5).abs() < 1e-6);
}

#[test]
fn a_loss_that_is_not_finite_leaves_the_weights() {
    let mut weigher = robust(Estimate::GroupMean, 1.0, &[10, 10]);
    let before = weigher.clone();
    weigher.step(&[0, 1], &[f64::NAN, 1.0]);
    assert_eq!(weigher, before);
    assert!(weigher.step(&[], &[]).is_empty());
    assert!((weigher.weights()[0] - 0.5).abs() < 1e-12);
}

#[test]
fn bad_sizes_and_stored_weights_are_refused() {
    assert!(GroupRobust::new(GroupRobustConfig::default(), &[]).is_err());
    assert!(GroupRobust::new(GroupRobustConfig::default(), &[3, 0]).is_err());
    let mut weigher = robust(Estimate::GroupMean, 1.0, &[10, 10]);
    assert!(weigher.restore(&[-0.5]).is_err());
    assert!(weigher.restore(&[-0.5, f64::NEG_INFINITY]).is_err());
    let log = weigher.log_weights().to_vec();
    assert!(weigher.restore(&log).is_ok());
}
