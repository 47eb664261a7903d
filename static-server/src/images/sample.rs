//! Pictures for tests: drawn, damaged, and lying.

use image::codecs::jpeg::JpegEncoder;
use image::codecs::png::PngEncoder;
use image::{ExtendedColorType, ImageEncoder, RgbImage, RgbaImage};

/// A picture with some detail, as a photo has.
fn scene(x: u32, y: u32) -> [u8; 3] {
    let wave = |number: u32| u8::try_from(number % 256).unwrap();
    [wave(x * 3 + y), wave(y * 2 + x * x / 64), wave(x ^ y)]
}

/// Smooth surfaces, some edges and the noise of a sensor.
pub(super) fn photo(x: u32, y: u32) -> [u8; 3] {
    let (fx, fy) = (f64::from(x), f64::from(y));
    let mut noise =
        (x.wrapping_mul(0x9E37_79B1) ^ y.wrapping_mul(0x85EB_CA77)).wrapping_mul(0xC2B2_AE3D);
    noise ^= noise >> 15;
    let surface = 90.0
        + 50.0 * (fx / 410.0).sin() * (fy / 330.0).cos()
        + 20.0 * (fx / 37.0 + fy / 53.0).sin();
    let edge = if (x / 160 + y / 200).is_multiple_of(3) {
        30.0
    } else {
        0.0
    };
    [1.0, 0.9, 0.7].map(|tint| {
        noise = noise.wrapping_mul(0x2545_F491).wrapping_add(0x9E37);
        let grain = f64::from(noise >> 28) - 8.0;
        let value = ((surface + edge) * tint + grain * 0.7).clamp(0.0, 255.0);
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "clamped"
        )]
        let value = value as u8;
        value
    })
}

pub(super) fn jpeg(width: u32, height: u32) -> Vec<u8> {
    encoded_jpeg(width, height, scene)
}

pub(super) fn encoded_jpeg(width: u32, height: u32, draw: fn(u32, u32) -> [u8; 3]) -> Vec<u8> {
    let picture = RgbImage::from_fn(width, height, |x, y| image::Rgb(draw(x, y)));
    let mut bytes = Vec::new();
    JpegEncoder::new_with_quality(&mut bytes, 95)
        .write_image(&picture, width, height, ExtendedColorType::Rgb8)
        .unwrap();
    bytes
}

pub(super) fn png(width: u32, height: u32) -> Vec<u8> {
    let picture = RgbImage::from_fn(width, height, |x, y| image::Rgb(scene(x, y)));
    let mut bytes = Vec::new();
    PngEncoder::new(&mut bytes)
        .write_image(&picture, width, height, ExtendedColorType::Rgb8)
        .unwrap();
    bytes
}

pub(super) fn encoded_png_rgba(width: u32, height: u32, draw: fn(u32, u32) -> [u8; 4]) -> Vec<u8> {
    let picture = RgbaImage::from_fn(width, height, |x, y| image::Rgba(draw(x, y)));
    let mut bytes = Vec::new();
    PngEncoder::new(&mut bytes)
        .write_image(&picture, width, height, ExtendedColorType::Rgba8)
        .unwrap();
    bytes
}

pub(super) fn webp(width: u32, height: u32) -> Vec<u8> {
    let picture = RgbImage::from_fn(width, height, |x, y| image::Rgb(scene(x, y)));
    let encoder = webp::Encoder::from_rgb(&picture, width, height);
    encoder.encode_simple(false, 95.0).unwrap().to_vec()
}

/// The media type that the first bytes speak of.
pub(super) fn kind(bytes: &[u8]) -> &'static str {
    match bytes {
        [0xFF, 0xD8, 0xFF, ..] => "image/jpeg",
        [0x89, b'P', b'N', b'G', ..] => "image/png",
        [
            b'R',
            b'I',
            b'F',
            b'F',
            _,
            _,
            _,
            _,
            b'W',
            b'E',
            b'B',
            b'P',
            ..,
        ] => "image/webp",
        [
            _,
            _,
            _,
            _,
            b'f',
            b't',
            b'y',
            b'p',
            b'a',
            b'v',
            b'i',
            b'f',
            ..,
        ] => "image/avif",
        _ => "something else",
    }
}

/// Width and height; of an AVIF those of its `ispe` box.
pub(super) fn size(bytes: &[u8]) -> (u32, u32) {
    if kind(bytes) != "image/avif" {
        let picture = image::load_from_memory(bytes).unwrap();
        return (picture.width(), picture.height());
    }
    let at = bytes.windows(4).position(|name| name == b"ispe").unwrap();
    let number = |at: usize| u32::from_be_bytes(bytes[at..at + 4].try_into().unwrap());
    (number(at + 8), number(at + 12))
}

/// A JPEG with an EXIF segment that holds an orientation and nothing else.
pub(super) fn with_orientation(jpeg: &[u8], orientation: u8) -> Vec<u8> {
    let mut exif =
        b"\xFF\xE1\0\x22Exif\0\0MM\0\x2A\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0".to_vec();
    exif.extend([orientation, 0, 0, 0, 0, 0, 0]);
    assert_eq!(exif.len(), 2 + 0x22);
    [&jpeg[..2], &exif, &jpeg[2..]].concat()
}

/// A JPEG whose header claims another size.
pub(super) fn with_size(jpeg: &[u8], width: u16, height: u16) -> Vec<u8> {
    let mut jpeg = jpeg.to_vec();
    let frame = jpeg.windows(2).position(|at| at == [0xFF, 0xC0]).unwrap();
    jpeg[frame + 5..frame + 7].copy_from_slice(&height.to_be_bytes());
    jpeg[frame + 7..frame + 9].copy_from_slice(&width.to_be_bytes());
    jpeg
}

/// A PNG with any header, and `rows` as what its data unpack to.
pub(super) fn raw_png(width: u32, height: u32, depth: u8, colour: u8, rows: &[u8]) -> Vec<u8> {
    let mut png = b"\x89PNG\r\n\x1a\n".to_vec();
    let mut header = [width.to_be_bytes(), height.to_be_bytes()].concat();
    header.extend([depth, colour, 0, 0, 0]);
    chunk(&mut png, b"IHDR", &header);
    chunk(&mut png, b"IDAT", &stored(rows));
    chunk(&mut png, b"IEND", &[]);
    png
}

/// A PNG with one more chunk behind its header.
pub(super) fn png_with(width: u32, height: u32, kind: &[u8; 4], data: &[u8]) -> Vec<u8> {
    let plain = png(width, height);
    let mut bytes = plain[..33].to_vec();
    chunk(&mut bytes, kind, data);
    bytes.extend_from_slice(&plain[33..]);
    bytes
}

/// A PNG that says it has two frames.
pub(super) fn apng() -> Vec<u8> {
    png_with(8, 8, b"acTL", &[0, 0, 0, 2, 0, 0, 0, 0])
}

fn chunk(png: &mut Vec<u8>, kind: &[u8; 4], data: &[u8]) {
    png.extend(u32::try_from(data.len()).unwrap().to_be_bytes());
    png.extend(kind);
    png.extend(data);
    let mut sum = u32::MAX;
    for byte in kind.iter().chain(data) {
        sum ^= u32::from(*byte);
        for _ in 0..8 {
            sum = (sum >> 1) ^ (0xEDB8_8320 & (sum & 1).wrapping_neg());
        }
    }
    png.extend((!sum).to_be_bytes());
}

/// A zlib stream that stores `bytes` as they are.
fn stored(bytes: &[u8]) -> Vec<u8> {
    let mut stream = vec![0x78, 0x01];
    let len = u16::try_from(bytes.len()).unwrap();
    stream.push(1);
    stream.extend(len.to_le_bytes());
    stream.extend((!len).to_le_bytes());
    stream.extend(bytes);
    let (mut a, mut b) = (1_u32, 0_u32);
    for byte in bytes {
        a = (a + u32::from(*byte)) % 65_521;
        b = (b + a) % 65_521;
    }
    stream.extend((b << 16 | a).to_be_bytes());
    stream
}

/// A zlib stream of about so many million zeros, which end without a sum.
pub(super) fn zeros(millions: usize) -> Vec<u8> {
    // One block of fixed codes: a literal zero, then copies of 258 bytes from one byte before.
    // The literal is 00110000, a copy 11000101 and 00000, thirteen bits.
    let mut bits = vec![1_u8, 1, 0, 0, 0, 1, 1, 0, 0, 0, 0];
    for _ in 0..millions * 1_000_000 / 258 {
        bits.extend([1, 1, 0, 0, 0, 1, 0, 1, 0, 0, 0, 0, 0]);
    }
    bits.extend([0; 7]);
    let bytes = bits.chunks(8);
    let packed = bytes.map(|eight| eight.iter().rev().fold(0, |byte, bit| byte << 1 | bit));
    [0x78, 0x01].into_iter().chain(packed).collect()
}

/// The most memory that this process ever held, in bytes.
pub(super) fn peak_memory() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:"));
    let kilobytes = line.and_then(|line| line.split_whitespace().nth(1));
    kilobytes.unwrap().parse::<usize>().unwrap() * 1_024
}
