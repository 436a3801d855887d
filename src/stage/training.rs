//! What the training stages share: the policy they start from, checkpoints, metrics, held-out
//! evaluation, and the folder they leave.
//!
//! ```text
//! N_name/model/             the trained model in Hugging Face form, tokenizer included
//! N_name/adapter/           with `lora`: what was trained, as PEFT writes it; the model has it folded in
//! N_name/metrics.parquet    a row an optimizer step: from the first checkpoint, or minute, on as far as the run is
//! N_name/times.parquet      seconds and tokens a second of each step: what differs between equal runs
//! N_name/checkpoints/       see `train::Checkpoints`; a killed stage resumes from the newest
//! N_name/rollouts/          grpo: every group it sampled, as a groups dataset
//! ```

mod drops;
mod held_out;
mod keys;
mod metrics;
mod new_model;
mod policy;
mod session;
mod tokens;
mod told;

pub(super) use drops::Drops;
pub(super) use held_out::HeldOut;
pub use held_out::HeldOutConfig;
pub(super) use keys::{TRAINING_KEYS, in_training, training_materials, training_seed};
pub(super) use metrics::write_table;
pub use new_model::NewModel;
pub(super) use policy::Policy;
pub use policy::PolicyConfig;
pub use session::CheckpointConfig;
pub(super) use session::{RolloutLog, Session, Trained};
pub(crate) use session::{pending_rollouts, trained_steps};
pub(super) use tokens::{Reply, TokenStore, completion_tokens, in_order, longest_row, reply_tokens, tell_closed};
