//! A machine's part of a run that several work on.

use std::fmt;
use std::str::FromStr;

/// The shards that one of `of` machines makes: every `of`-th from `index` on, as `--shard INDEX/OF` says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part {
    index: usize,
    of: usize,
}

impl Part {
    /// That part, from 0, of so many; `None` if there is none such.
    pub fn new(index: usize, of: usize) -> Option<Part> {
        (index < of).then_some(Part { index, of })
    }

    /// Whether this part makes the shard.
    pub fn owns(self, shard: usize) -> bool {
        shard % self.of == self.index
    }

    /// What the names of its journals end in, since each part has its own.
    pub(crate) fn suffix(self) -> String {
        format!("-{}-of-{}", self.index, self.of)
    }
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.index, self.of)
    }
}

impl FromStr for Part {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Part, &'static str> {
        let numbers = text.split_once('/').and_then(|(index, of)| Some((index.parse().ok()?, of.parse().ok()?)));
        numbers.and_then(|(index, of)| Part::new(index, of)).ok_or("write I/N with I from 0 to N−1, such as 0/4")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_shard_is_one_parts() {
        let parts: Vec<Part> = (0..3).map(|index| format!("{index}/3").parse().unwrap()).collect();
        for shard in 0..10 {
            assert_eq!(parts.iter().filter(|part| part.owns(shard)).count(), 1);
        }
        assert!(parts[1].owns(4) && !parts[1].owns(3));
        assert_eq!((parts[1].to_string(), parts[1].suffix()), ("1/3".to_owned(), "-1-of-3".to_owned()));
    }

    #[test]
    fn what_is_no_part_is_refused() {
        for text in ["", "1", "1/", "/2", "2/2", "0/0", "-1/2", "1/2/3", "a/b"] {
            assert!(text.parse::<Part>().is_err(), "{text}");
        }
    }
}
