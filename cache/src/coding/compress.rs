//! Compressing a body, once, for many replies.
//!
//! The levels are fixed. They lie where the curve bends: an object is compressed once, so a few
//! milliseconds more than a proxy would spend on each reply come back with the first of them, but the
//! machine that serves hits is the one that compresses. `print_ratio_and_time` measures it; a page of
//! 100 KiB takes 2 to 6 ms and shrinks to a sixth.
//!
//! The result depends on the bytes alone, without time or name in it, so that a strong entity tag
//! made from the base's holds for an object that was evicted and compressed again. (Another version
//! of an encoder may write other bytes; they decode to the same.)

use std::io::{self, Read, Write};

use bytes::Bytes;

use super::Coding;

/// The largest piece of a compressed body, in bytes.
pub const PIECE: usize = 64 << 10;

/// Percent that a compressed body must save: less does not repay the client's decoding.
pub const LEAST_SAVING: u64 = 5;

/// Brotli's. 5 is a tenth faster and 1 to 5 percent larger, on some pages larger than gzip; 7 gains 1
/// to 4 percent, but takes up to three times as long.
const BROTLI_QUALITY: i32 = 6;
/// Brotli's window, 4 MiB: the largest that its own tools use unasked. One made to fit a smaller body
/// saves no time, and below 2^17 costs much, as the encoder then takes another way.
const BROTLI_WINDOW: i32 = 22;
/// Zstandard's. 6 is twice as fast and 2 to 9 percent larger; 12 gains 1 to 6 percent and takes three
/// times as long. The window is 4 MiB at most; clients need not take more than 8 (RFC 9659).
const ZSTD_LEVEL: i32 = 9;
/// Gzip's, the one that zlib means by default. 9 takes half as long again and gains nothing.
const GZIP_LEVEL: u32 = 6;

/// Compresses a body that lies in `segments`, into pieces of at most [`PIECE`] bytes.
///
/// `None` when it does not become smaller by [`LEAST_SAVING`] percent; then it ends as soon as that
/// is clear. Takes milliseconds for each 100 KiB, so it belongs on a thread that may be busy.
pub fn compress(coding: Coding, segments: &[Bytes]) -> Option<Vec<Bytes>> {
    let length: u64 = segments.iter().map(|segment| segment.len() as u64).sum();
    let budget = length
        - length
            .saturating_mul(LEAST_SAVING)
            .div_ceil(100)
            .min(length);
    let mut source = Source { segments, at: 0 };
    let mut pieces = Pieces::new(usize::try_from(budget).ok()?);
    let done = match coding {
        Coding::Brotli => brotli(&mut source, length, &mut pieces),
        Coding::Zstd => zstd(&mut source, length, &mut pieces),
        Coding::Gzip => gzip(&mut source, &mut pieces),
    };
    done.ok()?;
    pieces.finish()
}

fn brotli(source: &mut Source<'_>, length: u64, out: &mut Pieces) -> io::Result<()> {
    let params = brotli::enc::BrotliEncoderParams {
        quality: BROTLI_QUALITY,
        lgwin: BROTLI_WINDOW,
        size_hint: usize::try_from(length).unwrap_or(usize::MAX),
        ..Default::default()
    };
    brotli::BrotliCompress(source, out, &params).map(drop)
}

fn zstd(source: &mut Source<'_>, length: u64, out: &mut Pieces) -> io::Result<()> {
    let mut encoder = zstd::Encoder::new(out, ZSTD_LEVEL)?;
    // The window and the tables are then no larger than the body.
    encoder.set_pledged_src_size(Some(length))?;
    io::copy(source, &mut encoder)?;
    encoder.finish().map(drop)
}

fn gzip(source: &mut Source<'_>, out: &mut Pieces) -> io::Result<()> {
    let level = flate2::Compression::new(GZIP_LEVEL);
    let mut encoder = flate2::write::GzEncoder::new(out, level);
    io::copy(source, &mut encoder)?;
    encoder.finish().map(drop)
}

/// The body, read segment by segment.
struct Source<'a> {
    segments: &'a [Bytes],
    at: usize,
}

impl Read for Source<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while let Some((segment, rest)) = self.segments.split_first() {
            let left = segment.get(self.at..).unwrap_or_default();
            if !left.is_empty() {
                let taken = left.len().min(buffer.len());
                buffer[..taken].copy_from_slice(&left[..taken]);
                self.at += taken;
                return Ok(taken);
            }
            (self.segments, self.at) = (rest, 0);
        }
        Ok(0)
    }
}

/// The result, cut into pieces. Refuses to become larger than its budget.
struct Pieces {
    done: Vec<Bytes>,
    open: Vec<u8>,
    budget: usize,
    /// The budget was not enough. Kept, so that an encoder that swallows an error changes nothing.
    exceeded: bool,
}

impl Pieces {
    fn new(budget: usize) -> Self {
        Self {
            done: Vec::new(),
            open: Vec::with_capacity(budget.min(PIECE)),
            budget,
            exceeded: false,
        }
    }

    fn finish(mut self) -> Option<Vec<Bytes>> {
        self.close();
        (!self.exceeded && !self.done.is_empty()).then_some(self.done)
    }

    fn close(&mut self) {
        if !self.open.is_empty() {
            // In an allocation of its own length, since it is kept.
            self.done.push(Bytes::copy_from_slice(&self.open));
            self.open.clear();
        }
    }
}

impl Write for Pieces {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.exceeded |= bytes.len() > self.budget;
        if self.exceeded {
            return Err(io::Error::other("not smaller"));
        }
        let taken = bytes.len().min(PIECE - self.open.len());
        self.open.extend_from_slice(&bytes[..taken]);
        self.budget -= taken;
        if self.open.len() == PIECE {
            self.close();
        }
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn decompress(coding: Coding, pieces: &[Bytes]) -> Vec<u8> {
        let packed = pieces.concat();
        let mut plain = Vec::new();
        match coding {
            Coding::Brotli => {
                brotli::BrotliDecompress(&mut &packed[..], &mut plain).unwrap();
            }
            Coding::Zstd => plain = zstd::decode_all(&packed[..]).unwrap(),
            Coding::Gzip => {
                flate2::read::GzDecoder::new(&packed[..])
                    .read_to_end(&mut plain)
                    .unwrap();
            }
        }
        plain
    }

    /// Bytes that no encoder makes smaller: xorshift.
    fn noise(length: usize) -> Vec<u8> {
        let mut state = 0x2545_f491_4f6c_dd1d_u64;
        let mut next = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state.to_le_bytes()
        };
        let mut bytes: Vec<u8> = (0..length.div_ceil(8)).flat_map(|_| next()).collect();
        bytes.truncate(length);
        bytes
    }

    /// A shop's page of articles: much that repeats, and words, numbers and links that do not.
    fn page(length: usize) -> Vec<u8> {
        const WORDS: [&str; 24] = [
            "harbour", "lantern", "copper", "wide", "quiet", "river", "stone", "winter", "paper",
            "button", "garden", "silver", "window", "ladder", "orange", "velvet", "bridge",
            "candle", "market", "feather", "anchor", "basket", "thunder", "meadow",
        ];
        let noise = noise(length);
        let mut numbers = noise
            .chunks_exact(2)
            .map(|two| usize::from(two[0]) << 8 | usize::from(two[1]));
        let mut number = || numbers.next().unwrap();
        let mut page =
            String::from("<!doctype html><html lang=en><head><title>Shop</title></head><body>\n");
        while page.len() < length {
            let id = number();
            page.push_str(&format!(
                "<article class=\"card card--wide\" id=\"a{id}\"><a href=\"/articles/{id}?ref={:x}\">",
                number()
            ));
            page.push_str(&format!(
                "<img src=\"/i/{:04x}{:04x}.webp\" width=320 height=240 alt=\"\"></a><p>",
                number(),
                number()
            ));
            for _ in 0..20 + number() % 30 {
                page.push_str(WORDS[number() % WORDS.len()]);
                page.push(' ');
            }
            page.push_str(&format!(
                "</p><span class=\"price\">{}.{:02} EUR</span></article>\n",
                number() % 500,
                number() % 100
            ));
        }
        page.truncate(length);
        page.into_bytes()
    }

    fn cut(bytes: &[u8], size: usize) -> Vec<Bytes> {
        bytes.chunks(size).map(Bytes::copy_from_slice).collect()
    }

    #[test]
    fn what_is_compressed_decodes_to_the_same() {
        let page = page(300_000);
        for coding in Coding::ALL {
            let whole = compress(coding, &cut(&page, page.len())).unwrap();
            assert_eq!(decompress(coding, &whole), page, "{coding:?}");
            let cut = compress(coding, &cut(&page, 999)).unwrap();
            assert_eq!(decompress(coding, &cut), page, "{coding:?}");
            assert_eq!(
                whole.concat(),
                compress(coding, &[Bytes::from(page.clone())])
                    .unwrap()
                    .concat(),
                "the same each time"
            );
        }
    }

    #[test]
    fn a_large_result_is_cut_into_pieces() {
        // Hexadecimal digits of noise: half of it goes, the rest is long.
        let text: String = noise(200_000)
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        for coding in Coding::ALL {
            let pieces = compress(coding, &cut(text.as_bytes(), PIECE)).unwrap();
            assert!(pieces.len() >= 3, "{coding:?}");
            let (last, full) = pieces.split_last().unwrap();
            assert!(full.iter().all(|piece| piece.len() == PIECE));
            assert!(!last.is_empty() && last.len() <= PIECE);
            assert_eq!(decompress(coding, &pieces), text.as_bytes());
        }
    }

    #[test]
    fn what_does_not_become_smaller_stays_as_it_is() {
        for coding in Coding::ALL {
            assert_eq!(compress(coding, &[]), None);
            assert_eq!(compress(coding, &[Bytes::new(), Bytes::new()]), None);
            assert_eq!(compress(coding, &[Bytes::from_static(b"a")]), None);
            assert_eq!(compress(coding, &cut(&noise(300_000), PIECE)), None);
            // 3 percent of it could go.
            let mut nearly = noise(100_000);
            nearly.resize(103_000, 0);
            assert_eq!(compress(coding, &cut(&nearly, PIECE)), None, "{coding:?}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]
        #[test]
        fn compressing_is_total_and_loses_nothing(
            segments in prop::collection::vec(prop::collection::vec(0_u8..4, 0..400), 0..5),
        ) {
            let plain = segments.concat();
            let segments: Vec<Bytes> = segments.into_iter().map(Bytes::from).collect();
            for coding in Coding::ALL {
                if let Some(pieces) = compress(coding, &segments) {
                    let length: usize = pieces.iter().map(Bytes::len).sum();
                    prop_assert!(length * 100 <= plain.len() * 95);
                    prop_assert_eq!(decompress(coding, &pieces), plain.clone());
                }
            }
        }
    }

    #[test]
    #[ignore = "a measurement: cargo test --release -p cache -- --ignored --nocapture print_ratio"]
    #[expect(clippy::disallowed_methods, reason = "a measurement reads the clock")]
    fn print_ratio_and_time() {
        let segments = cut(&page(100 << 10), PIECE);
        for coding in Coding::ALL {
            let begun = std::time::Instant::now();
            let rounds = 50;
            let mut length = 0;
            for _ in 0..rounds {
                length = compress(coding, &segments)
                    .unwrap()
                    .iter()
                    .map(Bytes::len)
                    .sum();
            }
            let each = begun.elapsed() / rounds;
            println!("{coding:?}: {length} bytes, {each:?}");
        }
        if let Some(folder) = std::env::var_os("TIDEGATE_CODING_SAMPLES") {
            let folder = std::path::Path::new(&folder);
            std::fs::write(folder.join("page"), segments.concat()).unwrap();
            for coding in Coding::ALL {
                let packed = compress(coding, &segments).unwrap().concat();
                std::fs::write(folder.join(coding.as_str()), packed).unwrap();
            }
        }
    }
}
