//! On-policy training with rollouts by vLLM: the servers load each step's weights.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use gristmill::engine::vllm::{PolicyServers, PolicyWeights, Template};
use gristmill::engine::{Request, SampleSeed, Sampling};
use gristmill::error::Result;
use gristmill::model::{Dtype, Model, SharedModel, Tokenizer};
use gristmill::schema::{FinishReason, Message, Role};
use gristmill::train::objective::{Correction, GrpoConfig};
use gristmill::train::{GrpoTrainer, GrpoTrainerConfig, Rollout, Schedule, ScoredCompletion, ScoredGroup, Trainer};

use super::{Models, config, distance, our_logprobs, question};

const STEPS: u64 = 12;
const GROUP: u32 = 8;
const TOKENS: u32 = 8;

/// Rollouts by the servers. A completion's reward is its share of lower-case letters.
struct Served {
    servers: PolicyServers,
    model: SharedModel,
    tokenizer: Arc<Tokenizer>,
    folder: PathBuf,
}

impl Rollout for Served {
    fn prompts(&self) -> usize {
        16
    }

    fn rollout(&mut self, step: u64, prompts: &[usize]) -> Result<Vec<ScoredGroup>> {
        let dir = self.folder.join(format!("policy-{step}"));
        let since = Instant::now();
        let model = self.model.read();
        model.save(&dir, Dtype::F32)?;
        self.servers.load(step, &PolicyWeights::Checkpoint(dir), None)?;
        let loaded = since.elapsed();
        let sampling = Arc::new(Sampling { temperature: 1.0, top_p: 1.0, max_tokens: TOKENS, ..Sampling::default() });
        let ask = |&i: &usize| Request {
            prompt_id: format!("p{i}").into(),
            messages: [Message { role: Role::User, content: question(i) }].into(),
            samples: (0..GROUP).map(|k| SampleSeed::new(3, &format!("p{i}"), k, step)).collect(),
            sampling: sampling.clone(),
            policy_step: step,
        };
        let rollouts = self.servers.rollout(prompts.iter().map(ask).collect())?;
        let mut gap = 0f32;
        let mut groups = Vec::new();
        for rollout in rollouts {
            assert_eq!((rollout.policy_step, rollout.samples.len()), (step, GROUP as usize));
            let mut completions = Vec::new();
            for sample in rollout.samples {
                let tokens = sample.token_ids.unwrap_or_else(|| panic!("{:?}", sample.error));
                let logprobs = sample.logprobs.unwrap();
                gap = gap.max(distance(&logprobs, &our_logprobs(&model, &rollout.prompt, &tokens)));
                let lower = |id: &&u32| {
                    self.tokenizer
                        .decode(&[**id])
                        .is_ok_and(|t| t.chars().all(|c| c.is_ascii_lowercase()) && !t.is_empty())
                };
                let reward = tokens.iter().filter(lower).count() as f64 / f64::from(TOKENS);
                completions.push(ScoredCompletion {
                    tokens,
                    logprobs: Some(logprobs),
                    reward: Some(reward),
                    scores: Vec::new(),
                    truncated: sample.finish_reason == FinishReason::Length,
                });
            }
            groups.push(ScoredGroup {
                prompt_id: rollout.prompt_id.to_string(),
                policy_step: rollout.policy_step,
                prompt: rollout.prompt,
                completions,
            });
        }
        if step < 3 {
            println!(
                "  step {step}: weights saved and loaded in {:.0} ms, logprobs within {gap:e} of ours",
                loaded.as_secs_f64() * 1e3
            );
        }
        assert!(gap < 1e-3, "step {step}: the servers' logprobs are {gap} from the policy's");
        Ok(groups)
    }
}

pub fn servers_follow_a_policy_in_training(address: &str, models: &Models, folder: &Path) {
    let tokenizer = Arc::new(Tokenizer::load(&models.base).unwrap());
    let model = SharedModel::new(Model::load(&models.base).unwrap());
    let mut plain = config(&[address]);
    plain.template = Template::Ours;
    let servers = PolicyServers::connect(plain, tokenizer.clone()).unwrap();
    let served = Served { servers, model: model.clone(), tokenizer: tokenizer.clone(), folder: folder.to_owned() };
    let config = GrpoTrainerConfig {
        steps: STEPS,
        prompts_per_rollout: 8,
        minibatches: 1,
        objective: GrpoConfig { kl_coefficient: 0.0, correction: Some(Correction::default()), ..GrpoConfig::default() },
        schedule: Schedule::constant(1e-2),
        ..GrpoTrainerConfig::default()
    };
    let mut trainer = GrpoTrainer::new(model, None, served, config).unwrap();
    let mut rewards = Vec::new();
    while trainer.step() < trainer.total_steps() {
        for metrics in trainer.advance().unwrap() {
            // Once every completion earns all there is, nothing is scored and no gap measured.
            let (reward, gap) = (metrics.reward_mean.unwrap(), metrics.rollout_gap_max.unwrap_or(0.0));
            if metrics.step % 4 == 0 {
                println!("  step {:>2}: reward {reward:.3}, gap of logprobs at most {gap:.1e}", metrics.step);
            }
            assert!(gap < 1e-3);
            rewards.push(reward);
        }
    }
    let mean = |part: &[f64]| part.iter().sum::<f64>() / part.len() as f64;
    let (first, last) = (mean(&rewards[..4]), mean(&rewards[rewards.len() - 4..]));
    assert!(last > first + 0.2, "the reward rose from {first:.3} to {last:.3} only");

    // The weights the server began with, for the stories that follow.
    let tokenizer = Arc::new(Tokenizer::load(&models.trained).unwrap());
    let mut back = PolicyServers::connect(super::config(&[address]), tokenizer).unwrap();
    back.load(0, &PolicyWeights::Checkpoint(models.trained.clone()), None).unwrap();
}
