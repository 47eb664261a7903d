//! The disk log from outside: what goes in comes out, and nothing else ever does.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test stops at the first thing that is not as it should be"
)]

use std::fs;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use cache::disk::{Address, Appended, Log, Object, OpenError, ReadError, Recovered};

mod basics;
mod damage;
mod faults;
mod races;

/// An object that is known by its number: whoever has read it can say whether it is right.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Sample {
    number: u64,
    length: usize,
}

/// What a log reported, with objects as what they claim to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Seen {
    Object(Sample, Address),
    Note(u64),
    Gap,
}

impl Sample {
    fn key(self) -> Vec<u8> {
        format!("key of {}", self.number).into_bytes()
    }

    fn meta(self) -> Vec<u8> {
        format!("{} {}", self.number, self.length).into_bytes()
    }

    fn body(self) -> Vec<u8> {
        let mut state = self.number.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        let mut next = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state.to_le_bytes()
        };
        let words = self.length.div_ceil(8);
        let mut body: Vec<u8> = (0..words).flat_map(|_| next()).collect();
        body.truncate(self.length);
        body
    }

    /// Reads back what a meta block claims, and insists that the key belongs to it.
    #[track_caller]
    fn claimed(key: &[u8], meta: &[u8]) -> Self {
        let text = std::str::from_utf8(meta).unwrap();
        let (number, length) = text.split_once(' ').unwrap();
        let sample = Self {
            number: number.parse().unwrap(),
            length: length.parse().unwrap(),
        };
        assert_eq!(key, sample.key(), "key and meta block belong together");
        sample
    }

    fn append(self, log: &Log) -> Appended {
        self.try_append(log).unwrap()
    }

    fn try_append(self, log: &Log) -> Result<Appended, cache::disk::AppendError> {
        let body = self.body();
        // In pieces of no particular size, as they come from a peer.
        let pieces: Vec<Bytes> = body
            .chunks(1 + body.len() / 3)
            .map(Bytes::copy_from_slice)
            .collect();
        log.append(&self.key(), &self.meta(), &pieces)
    }

    #[track_caller]
    fn assert_is(self, object: &Object) {
        assert_eq!(Self::claimed(&object.key, &object.meta), self);
        assert!(object.body.concat() == self.body(), "the body of {self:?}");
    }

    /// It is there and right, or there is an error; which one is returned.
    #[track_caller]
    fn right_or_error(self, log: &Log, address: Address) -> Result<(), ReadError> {
        log.read(address).map(|object| self.assert_is(&object))
    }
}

fn sample(number: u64, length: usize) -> Sample {
    Sample { number, length }
}

fn note(log: &Log, number: u64) {
    log.note(number.to_string().as_bytes()).unwrap();
}

/// Opens a log and tells what it reported.
fn open(folder: &Path, limit: u64) -> (Log, Vec<Seen>) {
    try_open(folder, limit).unwrap()
}

fn try_open(folder: &Path, limit: u64) -> Result<(Log, Vec<Seen>), OpenError> {
    let mut seen = Vec::new();
    let log = Log::open(folder, limit, &mut |recovered| {
        seen.push(match recovered {
            Recovered::Gap => Seen::Gap,
            Recovered::Note(note) => {
                Seen::Note(std::str::from_utf8(note).unwrap().parse().unwrap())
            }
            Recovered::Object {
                address,
                key,
                meta,
                body_len,
            } => {
                let sample = Sample::claimed(key, meta);
                assert_eq!(body_len, sample.length as u64);
                Seen::Object(sample, address)
            }
        });
    })?;
    Ok((log, seen))
}

/// The segment files, the oldest first.
fn segments(folder: &Path) -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|e| e == "tglog"))
        .collect();
    found.sort();
    found
}

fn bytes_on_disk(folder: &Path) -> u64 {
    let files = segments(folder).into_iter();
    files.map(|path| fs::metadata(path).unwrap().len()).sum()
}
