//! Which file has which content, so that nothing is read to find its variants.
//!
//! Variants are kept by the hash of the original's content: a deploy that copies every file
//! anew makes none of them anew. To hash a file it must be read, so the hash is remembered by
//! what is cheap to know: path, inode, times and length. The memory is bounded, and
//! a file beside the variants carries it over a restart. Losing it costs a read of each file.

use std::collections::HashMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use sha2::{Digest, Sha256};

use crate::files::Facts;
use crate::hash::Hash;

/// How many files one of the two halves remembers.
const HALF: usize = 32_768;

/// A record: what is known of the file, the hash of its content, a check over both.
const RECORD: usize = 36;

/// How many records the file holds at most.
const MAX_RECORDS: u64 = 4 * HALF as u64;

/// A file in one state, as the hash of what is cheap to know of it.
pub(super) fn identity(path: &str, facts: &Facts) -> Hash {
    let nanoseconds = |time: SystemTime| {
        let since = time.duration_since(UNIX_EPOCH);
        since.unwrap_or(Duration::ZERO).as_nanos().to_be_bytes()
    };
    let mut hasher = Sha256::new();
    hasher.update(facts.len.to_be_bytes());
    hasher.update(facts.inode.to_be_bytes());
    hasher.update(nanoseconds(facts.modified));
    hasher.update(nanoseconds(facts.changed));
    hasher.update(path);
    Hash::finish(hasher)
}

/// See the module.
#[derive(Default)]
pub(super) struct Names {
    young: HashMap<Hash, Hash>,
    old: HashMap<Hash, Hash>,
}

impl Names {
    /// The content of a file, if it was read in this state.
    pub(super) fn content(&mut self, identity: &Hash) -> Option<Hash> {
        if let Some(content) = self.young.get(identity) {
            return Some(*content);
        }
        let content = *self.old.get(identity)?;
        self.remember(*identity, content);
        Some(content)
    }

    /// Notes the content of a file. Of two full halves the one that nobody asked for goes.
    pub(super) fn remember(&mut self, identity: Hash, content: Hash) {
        if self.young.len() >= HALF {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(identity, content);
    }

    fn len(&self) -> u64 {
        (self.young.len() + self.old.len()) as u64
    }
}

/// The file that carries names over a restart.
pub(super) struct Log {
    path: PathBuf,
    records: u64,
}

impl Log {
    /// Takes up what an earlier run wrote to the file at `path`. A record that is damaged is
    /// passed over.
    pub(super) fn load(path: PathBuf) -> (Names, Self) {
        let mut names = Names::default();
        let mut log = Self { path, records: 0 };
        let bytes = match read_last(&log.path) {
            Ok(bytes) => bytes,
            Err(error) => {
                if error.kind() != io::ErrorKind::NotFound {
                    tracing::warn!(%error, "what is known of pictures cannot be read");
                }
                return (names, log);
            }
        };
        let (records, torn) = bytes.as_chunks::<RECORD>();
        let mut bad = !torn.is_empty();
        for record in records {
            match decode(record) {
                Some((identity, content)) => names.remember(identity, content),
                None => bad = true,
            }
        }
        log.records = records.len() as u64;
        if bad || log.records > 2 * names.len() {
            log.rewrite(&names);
        }
        (names, log)
    }

    /// Adds a name. What cannot be written, or has no more room until the next start, is known
    /// until the end of this run.
    pub(super) fn append(&mut self, identity: &Hash, content: &Hash) {
        if self.records >= MAX_RECORDS {
            return;
        }
        let mut options = OpenOptions::new();
        let file = options.append(true).create(true).open(&self.path);
        match file.and_then(|mut file| file.write_all(&encode(identity, content))) {
            Ok(()) => self.records += 1,
            Err(error) => tracing::debug!(%error, "what is known of pictures cannot be written"),
        }
    }

    /// Writes what is still known into a new file.
    fn rewrite(&mut self, names: &Names) {
        let known = names.old.iter().chain(&names.young);
        let bytes: Vec<u8> = known
            .flat_map(|(identity, content)| encode(identity, content))
            .collect();
        let unfinished = self.path.with_extension("new");
        let written =
            fs::write(&unfinished, &bytes).and_then(|()| fs::rename(&unfinished, &self.path));
        match written {
            Ok(()) => self.records = (bytes.len() / RECORD) as u64,
            Err(error) => tracing::debug!(%error, "what is known of pictures cannot be written"),
        }
    }
}

/// The end of the file, whole records and no more of them than are of use.
fn read_last(path: &Path) -> io::Result<Vec<u8>> {
    let mut file = File::open(path)?;
    let record = RECORD as u64;
    let records = file.metadata()?.len() / record;
    let from = records.saturating_sub(MAX_RECORDS) * record;
    file.seek(SeekFrom::Start(from))?;
    let mut bytes = Vec::new();
    file.take((MAX_RECORDS + 1) * record)
        .read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn encode(identity: &Hash, content: &Hash) -> [u8; RECORD] {
    let mut record = [0; RECORD];
    let check = check(identity, content);
    let bytes = identity.0.iter().chain(&content.0).chain(&check);
    for (to, from) in record.iter_mut().zip(bytes) {
        *to = *from;
    }
    record
}

fn decode(record: &[u8; RECORD]) -> Option<(Hash, Hash)> {
    let (identity, rest) = record.split_first_chunk::<16>()?;
    let (content, rest) = rest.split_first_chunk::<16>()?;
    let (identity, content) = (Hash(*identity), Hash(*content));
    (rest == check(&identity, &content)).then_some((identity, content))
}

fn check(identity: &Hash, content: &Hash) -> [u8; 4] {
    let Hash([a, b, c, d, ..]) = Hash::of(&[identity.0, content.0].concat());
    [a, b, c, d]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hash(number: u64) -> Hash {
        Hash(u128::from(number).to_be_bytes())
    }

    #[test]
    fn a_restart_finds_the_names_again() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("names");
        let (_, mut log) = Log::load(path.clone());
        log.append(&hash(1), &hash(11));
        log.append(&hash(2), &hash(12));
        log.append(&hash(1), &hash(13));
        let (mut again, _) = Log::load(path);
        assert_eq!(again.content(&hash(1)), Some(hash(13)), "the last holds");
        assert_eq!(again.content(&hash(2)), Some(hash(12)));
        assert_eq!(again.content(&hash(3)), None);
    }

    #[test]
    fn damaged_records_are_passed_over_and_cleaned() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("names");
        let (_, mut log) = Log::load(path.clone());
        log.append(&hash(1), &hash(11));
        log.append(&hash(2), &hash(12));
        let mut bytes = fs::read(&path).unwrap();
        bytes[20] ^= 1;
        bytes.extend_from_slice(b"torn");
        fs::write(&path, &bytes).unwrap();
        let (mut again, _) = Log::load(path.clone());
        assert_eq!(again.content(&hash(1)), None);
        assert_eq!(again.content(&hash(2)), Some(hash(12)));
        assert_eq!(fs::read(&path).unwrap().len(), RECORD);
    }

    #[test]
    fn what_is_asked_for_stays_and_the_number_is_bounded() {
        let mut names = Names::default();
        for number in 0..3 * HALF as u64 {
            names.remember(hash(number), hash(0));
            assert!(names.content(&hash(0)).is_some(), "{number}");
        }
        assert!(names.len() <= 2 * HALF as u64);
        assert_eq!(names.content(&hash(1)), None, "not asked for since");
    }

    #[test]
    fn another_state_is_another_identity() {
        let facts = Facts {
            len: 1,
            modified: UNIX_EPOCH,
            changed: UNIX_EPOCH,
            inode: 1,
            linked: false,
            age: crate::files::Age::Settled,
        };
        let same = identity("a", &facts);
        assert_ne!(same, identity("b", &facts));
        for other in [
            Facts { len: 2, ..facts },
            Facts { inode: 2, ..facts },
            Facts {
                changed: UNIX_EPOCH + Duration::from_nanos(1),
                ..facts
            },
            Facts {
                modified: UNIX_EPOCH + Duration::from_nanos(1),
                ..facts
            },
        ] {
            assert_ne!(same, identity("a", &other), "{other:?}");
        }
    }
}
