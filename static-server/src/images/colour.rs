//! Colour profiles. Whatever a picture was made in, its variants are in sRGB: every browser
//! takes that for granted, and AVIF as it is written here carries no profile. Colours that
//! sRGB does not reach (those of newer telephones, by a little) become the nearest it has.

use moxcms::{ColorProfile, DataColorSpace, Layout, TransformOptions};

use super::make::MakeError;
use super::pixels::Pixels;

/// Converts from the colours of an ICC profile.
///
/// # Errors
///
/// Where the profile cannot be read, or is for neither RGB nor grey. The browser may do better
/// with the original.
pub(super) fn to_srgb(pixels: &mut Pixels, profile: &[u8]) -> Result<(), MakeError> {
    let trouble = |error: moxcms::CmsError| MakeError::Profile(error.to_string());
    let from = ColorProfile::new_from_slice(profile).map_err(trouble)?;
    let layout = if pixels.alpha {
        Layout::Rgba
    } else {
        Layout::Rgb
    };
    let source = match from.color_space {
        DataColorSpace::Rgb => layout,
        DataColorSpace::Gray if pixels.grey && pixels.alpha => Layout::GrayAlpha,
        DataColorSpace::Gray if pixels.grey => Layout::Gray,
        other => return Err(MakeError::Profile(format!("it is for {other:?}"))),
    };
    let to = ColorProfile::new_srgb();
    let transform = from
        .create_transform_8bit(source, &to, layout, TransformOptions::default())
        .map_err(trouble)?;
    let before = match source {
        Layout::Gray => every(&pixels.bytes, 3, &[0]),
        Layout::GrayAlpha => every(&pixels.bytes, 4, &[0, 3]),
        _ => std::mem::take(&mut pixels.bytes),
    };
    let channels = if pixels.alpha { 4 } else { 3 };
    let mut after = vec![0_u8; pixels.width as usize * pixels.height as usize * channels];
    transform.transform(&before, &mut after).map_err(trouble)?;
    pixels.bytes = after;
    Ok(())
}

/// Of every `size` bytes those at `places`.
fn every(bytes: &[u8], size: usize, places: &[usize]) -> Vec<u8> {
    let pixels = bytes.chunks_exact(size);
    pixels
        .flat_map(|pixel| places.iter().filter_map(|place| pixel.get(*place).copied()))
        .collect()
}
