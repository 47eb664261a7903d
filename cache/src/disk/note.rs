//! What stands in the log: the meta block of an object, and the notes of purges.

use std::time::SystemTime;

use crate::head::Head;
use crate::head::codec::{VERSION, get, get_time, get_u64, put, put_time, put_u64};
use crate::stored::Stored;
use crate::tags::Mode;

/// What the meta block of an object says.
pub(super) struct ReadBack<'a> {
    pub(super) head: Head,
    /// The purge before which its fetch began.
    pub(super) since: u64,
    pub(super) soft_at: Option<SystemTime>,
    /// All of them, the cache's own included.
    pub(super) tags: Vec<&'a [u8]>,
}

/// The meta block of an object.
pub(super) fn write_object(stored: &Stored) -> Vec<u8> {
    let mut out = vec![VERSION];
    let life = stored.life();
    put_u64(&mut out, life.since());
    put_time(&mut out, life.soft_at());
    put_u64(&mut out, life.names().count() as u64);
    for name in life.names() {
        put(&mut out, name);
    }
    stored.head().write_to(&mut out);
    out
}

/// Reads a meta block; `None`: another version's, or damaged.
pub(super) fn read_object(meta: &[u8]) -> Option<ReadBack<'_>> {
    let (version, mut rest) = meta.split_first()?;
    if *version != VERSION {
        return None;
    }
    let since = get_u64(&mut rest)?;
    let soft_at = get_time(&mut rest)?;
    let count = get_u64(&mut rest)?;
    let mut tags = Vec::new();
    for _ in 0..count {
        tags.push(get(&mut rest)?);
    }
    let head = Head::read_from(&mut rest)?;
    rest.is_empty().then_some(ReadBack {
        head,
        since,
        soft_at,
        tags,
    })
}

/// A purge, or an object that was taken out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Note<'a> {
    /// A key with all its variants.
    Key { key: &'a [u8], mode: Mode },
    /// One variant, by what its requests say.
    Variant { key: &'a [u8], variant: &'a [u8] },
    /// All of a host whose path begins so.
    Prefix {
        host: &'a [u8],
        path: &'a [u8],
        mode: Mode,
    },
    /// All with a tag, as purge number `number`.
    Tag {
        name: &'a [u8],
        mode: Mode,
        number: u64,
    },
}

const KEY: u8 = b'k';
const VARIANT: u8 = b'v';
const PREFIX: u8 = b'p';
const TAG: u8 = b't';

impl<'a> Note<'a> {
    /// The bytes of the note.
    pub(super) fn to_bytes(self) -> Vec<u8> {
        let mut out = vec![VERSION];
        match self {
            Self::Key { key, mode } => {
                out.push(KEY);
                put_mode(&mut out, mode);
                put(&mut out, key);
            }
            Self::Variant { key, variant } => {
                out.push(VARIANT);
                put(&mut out, key);
                put(&mut out, variant);
            }
            Self::Prefix { host, path, mode } => {
                out.push(PREFIX);
                put_mode(&mut out, mode);
                put(&mut out, host);
                put(&mut out, path);
            }
            Self::Tag { name, mode, number } => {
                out.push(TAG);
                put_mode(&mut out, mode);
                put(&mut out, name);
                put_u64(&mut out, number);
            }
        }
        out
    }

    /// Reads a note; `None`: another version's, or damaged.
    pub(super) fn read(bytes: &'a [u8]) -> Option<Self> {
        let (&[version, kind], mut rest) = bytes.split_first_chunk::<2>()?;
        if version != VERSION {
            return None;
        }
        let rest = &mut rest;
        let note = match kind {
            KEY => Self::Key {
                mode: get_mode(rest)?,
                key: get(rest)?,
            },
            VARIANT => Self::Variant {
                key: get(rest)?,
                variant: get(rest)?,
            },
            PREFIX => Self::Prefix {
                mode: get_mode(rest)?,
                host: get(rest)?,
                path: get(rest)?,
            },
            TAG => Self::Tag {
                mode: get_mode(rest)?,
                name: get(rest)?,
                number: get_u64(rest)?,
            },
            _ => return None,
        };
        rest.is_empty().then_some(note)
    }
}

/// A soft purge has a time.
fn put_mode(out: &mut Vec<u8>, mode: Mode) {
    put_time(
        out,
        match mode {
            Mode::Hard => None,
            Mode::Soft(time) => Some(time),
        },
    );
}

fn get_mode(rest: &mut &[u8]) -> Option<Mode> {
    Some(get_time(rest)?.map_or(Mode::Hard, Mode::Soft))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::at;

    #[test]
    fn a_note_comes_back_as_it_was() {
        let notes = [
            Note::Key {
                key: b"k",
                mode: Mode::Hard,
            },
            Note::Variant {
                key: b"k",
                variant: b"de",
            },
            Note::Prefix {
                host: b"shop.example",
                path: b"/a/",
                mode: Mode::Soft(at(7)),
            },
            Note::Tag {
                name: b"p1",
                mode: Mode::Soft(at(7)),
                number: 42,
            },
        ];
        for note in notes {
            let bytes = note.to_bytes();
            assert_eq!(Note::read(&bytes), Some(note));
            for length in 0..bytes.len() {
                assert_eq!(
                    Note::read(&bytes[..length]),
                    None,
                    "{note:?} cut at {length}"
                );
            }
        }
    }

    proptest::proptest! {
        #[test]
        fn reading_is_total(bytes: Vec<u8>) {
            let _ = Note::read(&bytes);
            let _ = read_object(&bytes).is_some();
        }
    }
}
