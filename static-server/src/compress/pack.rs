//! The encoders, each at a level that suits what is done once and sent many times.
//!
//! What comes out depends on the content alone: no name and no time stand in it.

use std::io::{self, Read, Write};

use super::Level;
use crate::dictionary::{Delta, Hash};
use crate::encoding::Encoding;

/// Clients need not take a window of more than 8 MiB (RFC 9659), except with a large dictionary.
const ZSTD_WINDOW: u32 = 23;

/// The most that clients take with any dictionary (RFC 9842, 5): 128 MiB.
const ZSTD_LARGEST_WINDOW: u32 = 27;

/// The largest window of Brotli, 16 MiB (RFC 7932, 9.1); also the most with a dictionary
/// (RFC 9842, 4).
const BROTLI_WINDOW: i32 = 24;

/// Below 2^18 the encoder takes another way, which packs worse.
const BROTLI_LEAST_WINDOW: i32 = 18;

/// Dictionary and content of Brotli must fit into the window, less what the format reserves.
/// Then the distances that refer to a dictionary are the same whether it is taken for what came
/// before or for a thing of its own.
pub(super) const MOST_FOR_BROTLI: u64 = (1 << BROTLI_WINDOW) - 16;

/// Packs all that `source` gives, which is `length` bytes.
pub(super) fn plain(
    encoding: Encoding,
    level: Level,
    length: u64,
    source: &mut dyn Read,
    out: &mut dyn Write,
) -> io::Result<()> {
    match encoding {
        Encoding::Brotli => {
            let quality = level.choose(5, 11);
            brotli(&brotli_params(quality, length), source, out, &[])
        }
        Encoding::Zstd => {
            let mut encoder = zstd::Encoder::new(out, level.choose(9, 19))?;
            encoder.set_pledged_src_size(Some(length))?;
            encoder.window_log(window(length).min(ZSTD_WINDOW))?;
            io::copy(source, &mut encoder)?;
            encoder.finish().map(drop)
        }
        Encoding::Gzip => {
            let level = flate2::Compression::new(level.choose(6, 9));
            let mut encoder = flate2::write::GzEncoder::new(out, level);
            io::copy(source, &mut encoder)?;
            encoder.finish().map(drop)
        }
    }
}

/// Packs `source` as its difference from `dictionary`.
pub(super) fn delta(
    delta: Delta,
    level: Level,
    dictionary: &[u8],
    length: u64,
    source: &mut dyn Read,
    out: &mut dyn Write,
) -> io::Result<()> {
    out.write_all(delta.magic())?;
    out.write_all(Hash::of(dictionary).bytes())?;
    match delta {
        Delta::Brotli => {
            let both = length.saturating_add(dictionary.len() as u64);
            let mut params = brotli_params(level.choose(5, 11), both);
            params.size_hint = usize::try_from(length).unwrap_or(usize::MAX);
            brotli(&params, source, out, dictionary)
        }
        Delta::Zstd => {
            let level = level.choose(9, 19);
            let mut encoder = zstd::Encoder::with_ref_prefix(out, level, dictionary)?;
            encoder.set_pledged_src_size(Some(length))?;
            encoder.window_log(delta_window(dictionary.len() as u64, length))?;
            encoder.long_distance_matching(true)?;
            io::copy(source, &mut encoder)?;
            encoder.finish().map(drop)
        }
    }
}

/// The window that holds both, within what clients must take: 8 MiB, or one and a quarter
/// dictionaries (RFC 9842, 5).
fn delta_window(dictionary: u64, length: u64) -> u32 {
    let allowed = (dictionary.saturating_add(dictionary / 4)).max(1 << ZSTD_WINDOW);
    let allowed = allowed.ilog2().min(ZSTD_LARGEST_WINDOW);
    window(dictionary.saturating_add(length)).min(allowed)
}

/// The logarithm of the smallest window that holds `length` bytes.
fn window(length: u64) -> u32 {
    // The smallest that the library makes.
    const LEAST: u32 = 10;
    let log = length.checked_next_power_of_two().map_or(63, u64::ilog2);
    log.max(LEAST)
}

fn brotli_params(quality: i32, length: u64) -> brotli::enc::BrotliEncoderParams {
    // A larger window than the content needs costs memory alone.
    let needed = i32::try_from(window(length.saturating_add(16))).unwrap_or(BROTLI_WINDOW);
    brotli::enc::BrotliEncoderParams {
        quality,
        lgwin: needed.clamp(BROTLI_LEAST_WINDOW, BROTLI_WINDOW),
        size_hint: usize::try_from(length).unwrap_or(usize::MAX),
        ..Default::default()
    }
}

fn brotli(
    params: &brotli::enc::BrotliEncoderParams,
    mut source: &mut dyn Read,
    mut out: &mut dyn Write,
    dictionary: &[u8],
) -> io::Result<()> {
    let mut input = vec![0; 64 * 1_024];
    let mut output = vec![0; 64 * 1_024];
    brotli::enc::BrotliCompressCustomIoCustomDict(
        &mut brotli::IoReaderWrapper(&mut source),
        &mut brotli::IoWriterWrapper(&mut out),
        &mut input,
        &mut output,
        params,
        brotli::enc::StandardAlloc::default(),
        &mut |_, _, _, _| (),
        dictionary,
        io::Error::from(io::ErrorKind::UnexpectedEof),
    )
    .map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packed(encoding: Encoding, level: Level, content: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        plain(
            encoding,
            level,
            content.len() as u64,
            &mut &*content,
            &mut out,
        )
        .unwrap();
        out
    }

    fn unpacked(encoding: Encoding, mut packed: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        match encoding {
            Encoding::Brotli => brotli::BrotliDecompress(&mut packed, &mut out).unwrap(),
            Encoding::Zstd => zstd::stream::copy_decode(packed, &mut out).unwrap(),
            Encoding::Gzip => {
                flate2::read::GzDecoder::new(packed)
                    .read_to_end(&mut out)
                    .map(drop)
                    .unwrap();
            }
        }
        out
    }

    fn text(lines: usize, seed: usize) -> Vec<u8> {
        let line = |at: usize| format!("export const value{at} = {};\n", at * 7_919 % (seed + 97));
        (0..lines).map(line).collect::<String>().into_bytes()
    }

    #[test]
    fn every_coding_and_level_gives_the_content_back() {
        for content in [&b""[..], b"a", &text(3_000, 1)] {
            for encoding in Encoding::ALL {
                for level in [Level::Fast, Level::Best] {
                    let packed = packed(encoding, level, content);
                    assert_eq!(unpacked(encoding, &packed), content, "{encoding:?}");
                }
            }
        }
    }

    #[test]
    fn the_same_content_is_packed_the_same() {
        let content = text(1_000, 2);
        for encoding in Encoding::ALL {
            let once = packed(encoding, Level::Best, &content);
            assert_eq!(once, packed(encoding, Level::Best, &content));
        }
    }

    #[test]
    fn a_difference_names_its_dictionary_and_is_small() {
        let (old, new) = (text(3_000, 1), [text(3_000, 1), b"more".to_vec()].concat());
        for coding in Delta::ALL {
            let mut out = Vec::new();
            delta(
                coding,
                Level::Best,
                &old,
                new.len() as u64,
                &mut &*new,
                &mut out,
            )
            .unwrap();
            let rest = out.strip_prefix(coding.magic()).unwrap();
            let (hash, stream) = rest.split_at(32);
            assert_eq!(hash, Hash::of(&old).bytes());
            assert!(stream.len() < 200, "{coding:?}: {}", stream.len());
        }
    }

    #[test]
    fn a_difference_of_zstandard_is_read_back_with_the_dictionary() {
        let (old, new) = (text(3_000, 1), text(3_100, 5));
        let mut out = Vec::new();
        delta(
            Delta::Zstd,
            Level::Best,
            &old,
            new.len() as u64,
            &mut &*new,
            &mut out,
        )
        .unwrap();
        // The decoder takes the dictionary for its first frame, which is what stands before.
        let mut read = Vec::new();
        let mut decoder = zstd::Decoder::with_ref_prefix(&out[40..], &old).unwrap();
        decoder.read_to_end(&mut read).unwrap();
        assert_eq!(read, new);
    }

    #[test]
    fn windows_stay_within_what_clients_take() {
        const MIB: u64 = 1 << 20;
        assert_eq!(delta_window(1_000, 1_000), 11);
        assert_eq!(delta_window(4 * MIB, 4 * MIB), 23);
        assert_eq!(delta_window(20 * MIB, 20 * MIB), 24);
        assert_eq!(delta_window(60 * MIB, 60 * MIB), 26);
        assert_eq!(delta_window(500 * MIB, 500 * MIB), 27);
        assert_eq!(window(0), 10);
    }
}
