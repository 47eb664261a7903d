//! The encoders, behind one function.

use image::codecs::jpeg::JpegEncoder;
use image::codecs::png::{CompressionType, FilterType, PngEncoder};
use image::{ExtendedColorType, ImageEncoder};
use ravif::{Img, RGB8, RGBA8};

use super::make::MakeError;
use super::pixels::Pixels;

/// What is written.
#[derive(Clone, Copy, Debug)]
pub(super) enum Target {
    Avif,
    WebP,
    Jpeg,
    Png,
}

/// How much time AVIF gets, from 1 (all) to 10: the more pixels there are, the less each, for
/// nobody waits a minute for a picture.
fn speed(pixels: u64) -> u8 {
    match pixels {
        0..=500_000 => 7,
        500_001..=2_000_000 => 8,
        _ => 10,
    }
}

/// Encodes in `quality`, 1 to 100. PNG is lossless and knows none.
pub(super) fn encode(pixels: Pixels, target: Target, quality: u8) -> Result<Vec<u8>, MakeError> {
    match target {
        Target::Avif => avif(pixels, quality),
        Target::WebP => webp(&pixels, quality),
        Target::Jpeg => jpeg(&pixels, quality),
        Target::Png => png(&pixels),
    }
}

fn avif(pixels: Pixels, quality: u8) -> Result<Vec<u8>, MakeError> {
    let (width, height) = (pixels.width as usize, pixels.height as usize);
    let speed = speed(u64::from(pixels.width) * u64::from(pixels.height));
    let quality = f32::from(quality.clamp(1, 100));
    let encoder = ravif::Encoder::new()
        .with_quality(quality)
        .with_alpha_quality(quality)
        .with_speed(speed)
        .with_num_threads(Some(1));
    let encoded = if pixels.alpha {
        let (whole, _) = pixels.bytes.as_chunks();
        let typed: Vec<RGBA8> = whole
            .iter()
            .map(|&[r, g, b, a]| RGBA8 { r, g, b, a })
            .collect();
        drop(pixels);
        encoder.encode_rgba(Img::new(typed.as_slice(), width, height))
    } else {
        let (whole, _) = pixels.bytes.as_chunks();
        let typed: Vec<RGB8> = whole.iter().map(|&[r, g, b]| RGB8 { r, g, b }).collect();
        drop(pixels);
        encoder.encode_rgb(Img::new(typed.as_slice(), width, height))
    };
    encoded
        .map(|encoded| encoded.avif_file)
        .map_err(|error| MakeError::Encode(error.to_string()))
}

fn webp(pixels: &Pixels, quality: u8) -> Result<Vec<u8>, MakeError> {
    let (bytes, width, height) = (&pixels.bytes, pixels.width, pixels.height);
    let encoder = if pixels.alpha {
        webp::Encoder::from_rgba(bytes, width, height)
    } else {
        webp::Encoder::from_rgb(bytes, width, height)
    };
    let encoded = encoder.encode_simple(false, f32::from(quality.clamp(1, 100)));
    encoded
        .map(|memory| memory.to_vec())
        .map_err(|error| MakeError::Encode(format!("{error:?}")))
}

fn jpeg(pixels: &Pixels, quality: u8) -> Result<Vec<u8>, MakeError> {
    let mut encoded = Vec::new();
    JpegEncoder::new_with_quality(&mut encoded, quality.clamp(1, 100))
        .write_image(&pixels.bytes, pixels.width, pixels.height, kind(pixels))
        .map_err(|error| MakeError::Encode(error.to_string()))?;
    Ok(encoded)
}

fn png(pixels: &Pixels) -> Result<Vec<u8>, MakeError> {
    let mut encoded = Vec::new();
    PngEncoder::new_with_quality(&mut encoded, CompressionType::Default, FilterType::Adaptive)
        .write_image(&pixels.bytes, pixels.width, pixels.height, kind(pixels))
        .map_err(|error| MakeError::Encode(error.to_string()))?;
    Ok(encoded)
}

fn kind(pixels: &Pixels) -> ExtendedColorType {
    if pixels.alpha {
        ExtendedColorType::Rgba8
    } else {
        ExtendedColorType::Rgb8
    }
}
