//! What each prompt asks, as a key: two prompts with one key ask the same, whatever their ids, their
//! tracks and their gold answers are.

use rayon::prelude::*;

use crate::error::{Error, Result};
use crate::prompts::normal::Normal;
use crate::schema::{BatchExt, DatasetKind};
use crate::stage::messages_at;
use crate::store::{Dataset, hash_id};

/// The questions of one prompts dataset, by prompt id: 24 bytes each.
pub struct Questions {
    /// (the id's hash, the question's key), sorted.
    keys: Vec<((u64, u64), u64)>,
    name: String,
}

impl Questions {
    /// Reads a prompts dataset.
    ///
    /// # Errors
    /// It cannot be read, or a turn has an unknown role.
    pub fn of(prompts: &Dataset) -> Result<Questions> {
        // As in a lookup: a footer that is damaged may say anything.
        let mut keys = Vec::with_capacity(prompts.rows()?.min(prompts.bytes()) as usize);
        for shard in prompts.shards() {
            let mut first = 0;
            for batch in shard.batches(Some(DatasetKind::Prompts), Some(&["prompt_id", "messages"]))? {
                let batch = batch?;
                let ids = batch.text("prompt_id")?;
                let key = |row: usize| {
                    let messages = messages_at(&batch, "messages", row);
                    let messages = messages.map_err(|e| e.in_file(shard).at_row(first + row as u64))?;
                    Ok((hash_id(ids.value(row)), Normal::of_turns(&messages).key() as u64))
                };
                keys.par_extend((0..batch.num_rows()).into_par_iter().map(key).collect::<Result<Vec<_>>>()?);
                first += batch.num_rows() as u64;
            }
        }
        keys.par_sort_unstable();
        Ok(Questions { keys, name: prompts.location().to_string() })
    }

    /// What the prompt of this id asks.
    ///
    /// # Errors
    /// There is no such prompt.
    pub fn key(&self, prompt_id: &str) -> Result<u64> {
        let hash = hash_id(prompt_id);
        let found = self.keys.binary_search_by_key(&hash, |(id, _)| *id);
        found.map(|index| self.keys[index].1).map_err(|_| {
            Error::new(format!("there is no row with the id `{prompt_id}`"))
                .in_file(&self.name)
                .hint("give the track the prompts its completions were made from")
        })
    }
}
