//! The journals of finished requests, of which a machine's part has several: `_requests`, `_requests.1` …
//!
//! Answers wait in them until their shard is whole. One that has become long takes no more, and goes once all
//! that lies in it is in finished shards; so what a run keeps, and what is read when it goes on, is about what its
//! unfinished shards have, however long it has run.

use std::collections::HashMap;

use crate::error::Result;
use crate::stage::StageContext;
use crate::stage::layout::{REQUESTS, of_part};
use crate::store::{Journal, Location, Place, SyncPolicy};

/// Bytes of a journal, and objects of one in an object store, beyond which another is begun.
const LONG: (u64, u64) = (64 << 20, 256);

/// Where an answer lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct At {
    journal: u32,
    place: Place,
}

impl At {
    /// Bytes of the record.
    pub fn bytes(&self) -> usize {
        self.place.bytes()
    }
}

/// The journals of this machine's part; the last takes answers.
pub struct Requests {
    folder: Location,
    name: String,
    /// The first record of each, which says what its answers are of.
    head: Vec<u8>,
    journals: Vec<Option<One>>,
    /// Of the next journal.
    number: u64,
    long: (u64, u64),
}

struct One {
    journal: Journal,
    /// Answers in it that are in no finished shard yet.
    waiting: u64,
}

impl Requests {
    /// Opens what an earlier run left. `wanted` tells of a record, the journal's first one included, the key of the
    /// answer, if that is still of use; `end` is called with each journal's place when it is read. Answers with where
    /// each wanted answer lies. Journals without any go.
    ///
    /// # Errors
    /// As [`Journal::open`], or `wanted` fails.
    pub fn open(
        cx: &StageContext<'_>,
        head: &[u8],
        mut wanted: impl FnMut(u64, &[u8]) -> Result<Option<u128>>,
    ) -> Result<(Requests, HashMap<u128, At>)> {
        let name = own_name(cx);
        let mut numbers: Vec<u64> =
            cx.folder.list()?.iter().filter_map(|entry| number_of(&entry.name, &name)).collect();
        numbers.sort_unstable();
        let number = numbers.last().map_or(0, |last| last + 1);
        let mut requests =
            Requests { folder: cx.folder.clone(), name, head: head.to_vec(), journals: Vec::new(), number, long: LONG };
        let mut found: HashMap<u128, At> = HashMap::new();
        for number in numbers {
            let at = requests.location(number);
            let index = requests.journals.len() as u32;
            let journal = Journal::open(&at, SyncPolicy::default(), |place, record| {
                found.extend(wanted(number, record)?.map(|key| (key, At { journal: index, place })));
                Ok(())
            })?;
            journal.lost().told(&at).iter().for_each(|line| cx.progress.say(line));
            requests.journals.push(Some(One { journal, waiting: 0 }));
        }
        for at in found.values() {
            requests.of(at.journal).waiting += 1;
        }
        requests.remove_spent(0..requests.journals.len())?;
        if requests.journals.last().is_none_or(Option::is_none) {
            requests.begin()?;
        }
        Ok((requests, found))
    }

    /// A journal of the part that is not open, to fill before the others are opened.
    ///
    /// # Errors
    /// As [`Journal::open`].
    pub fn fresh(cx: &StageContext<'_>, head: &[u8]) -> Result<Journal> {
        let name = own_name(cx);
        let last = cx.folder.list()?.iter().filter_map(|entry| number_of(&entry.name, &name)).max();
        begin(&location(cx.folder, &name, last.map_or(0, |last| last + 1)), head)
    }

    fn location(&self, number: u64) -> Location {
        location(&self.folder, &self.name, number)
    }

    fn of(&mut self, journal: u32) -> &mut One {
        self.journals[journal as usize].as_mut().expect("a journal stays while answers in it wait")
    }

    fn begin(&mut self) -> Result<()> {
        let journal = begin(&self.location(self.number), &self.head)?;
        self.number += 1;
        self.journals.push(Some(One { journal, waiting: 0 }));
        Ok(())
    }

    /// Adds an answer.
    ///
    /// # Errors
    /// The disk or store refuses.
    pub fn append(&mut self, record: &[u8]) -> Result<At> {
        let last = self.journals.last_mut().and_then(Option::as_mut).expect("the last one is open");
        let (bytes, objects) = last.journal.extent();
        if bytes >= self.long.0 || objects >= self.long.1 {
            last.journal.sync()?;
            self.begin()?;
        }
        let journal = (self.journals.len() - 1) as u32;
        let last = self.of(journal);
        last.waiting += 1;
        Ok(At { journal, place: last.journal.append(record)? })
    }

    /// An answer as it was added.
    ///
    /// # Errors
    /// The disk refuses.
    pub fn read(&self, at: At) -> Result<Vec<u8>> {
        let one = self.journals[at.journal as usize].as_ref().expect("a journal stays while answers in it wait");
        one.journal.read(at.place)
    }

    /// These answers are in a finished shard. `vouch` makes sure that this outlives a power cut, before anything goes.
    ///
    /// # Errors
    /// The disk or store refuses.
    pub fn release(&mut self, places: impl IntoIterator<Item = At>, vouch: impl FnOnce() -> Result<()>) -> Result<()> {
        for at in places {
            self.of(at.journal).waiting -= 1;
        }
        // The last one takes further answers.
        let full = 0..self.journals.len() - 1;
        if self.journals[full.clone()].iter().flatten().any(|one| one.waiting == 0) {
            vouch()?;
            self.remove_spent(full)?;
        }
        Ok(())
    }

    fn remove_spent(&mut self, among: std::ops::Range<usize>) -> Result<()> {
        for one in &mut self.journals[among] {
            if let Some(spent) = one.take_if(|one| one.waiting == 0) {
                spent.journal.remove()?;
            }
        }
        Ok(())
    }

    /// Makes all of them safe against a power cut.
    ///
    /// # Errors
    /// The disk or store refuses.
    pub fn sync(&mut self) -> Result<()> {
        self.journals.iter_mut().flatten().try_for_each(|one| one.journal.sync())
    }
}

/// Whether a file or folder of the stage is a journal of another part's requests.
pub(super) fn is_of_others(cx: &StageContext<'_>, entry: &str) -> bool {
    entry.starts_with(REQUESTS) && number_of(entry, &own_name(cx)).is_none()
}

fn own_name(cx: &StageContext<'_>) -> String {
    of_part(REQUESTS, cx.part)
}

/// Which of the journals called `name` an entry is.
fn number_of(entry: &str, name: &str) -> Option<u64> {
    match entry.strip_prefix(name)? {
        "" => Some(0),
        more => more.strip_prefix('.')?.parse().ok(),
    }
}

fn location(folder: &Location, name: &str, number: u64) -> Location {
    folder.join(&if number == 0 { name.to_owned() } else { format!("{name}.{number}") })
}

fn begin(at: &Location, head: &[u8]) -> Result<Journal> {
    let mut journal = Journal::open(at, SyncPolicy::default(), |_, _| Ok(()))?;
    journal.append(head)?;
    Ok(journal)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_journal_goes_once_all_in_it_is_in_finished_shards() {
        let folder = tempfile::tempdir().unwrap();
        let mut requests = Requests {
            folder: folder.path().into(),
            name: REQUESTS.to_owned(),
            head: b"head".to_vec(),
            journals: Vec::new(),
            number: 0,
            long: (1000, u64::MAX),
        };
        requests.begin().unwrap();
        let bytes = || -> u64 { folder.path().read_dir().unwrap().map(|e| e.unwrap().metadata().unwrap().len()).sum() };
        let mut vouched = 0;
        // Shards of ten answers each; the first answer of all comes last.
        let late = requests.append(&[0; 100]).unwrap();
        for shard in 0..50u8 {
            let places: Vec<At> = (0..10).map(|_| requests.append(&[shard; 100]).unwrap()).collect();
            assert!(places.iter().all(|&at| requests.read(at).unwrap() == [shard; 100]));
            requests
                .release(places, || {
                    vouched += 1;
                    Ok(())
                })
                .unwrap();
            assert!(bytes() < 5000, "{} bytes after shard {shard}", bytes());
        }
        assert!(vouched > 30, "{vouched}");
        assert_eq!(requests.read(late).unwrap(), [0; 100]);
        let names = || -> Vec<_> { folder.path().read_dir().unwrap().map(|e| e.unwrap().file_name()).collect() };
        assert!(names().contains(&REQUESTS.into()), "the first one has the late answer");
        requests.release([late], || Ok(())).unwrap();
        assert!(!names().contains(&REQUESTS.into()));
        assert_eq!(number_of("_requests-0-of-2.3", "_requests-0-of-2"), Some(3));
        assert_eq!(number_of("_requests-0-of-2", "_requests"), None);
    }
}
