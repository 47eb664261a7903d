//! From the bytes of a picture to the bytes of a variant.
//!
//! What can be known before decoding is looked at before decoding: the number of pixels, the
//! colour space, whether it moves. So a file of some kilobytes that claims to be as large as a
//! house costs a header. Metadata (EXIF, XMP) does not reach the variant; its orientation is
//! applied, its colour profile is converted to sRGB.

use std::io::Cursor;

use image::codecs::jpeg::JpegDecoder;
use image::codecs::png::PngDecoder;
use image::codecs::webp::WebPDecoder;
use image::metadata::Orientation;
use image::{DynamicImage, ImageDecoder, ImageError, Limits};

use super::choice::{Format, Original, Variant};
use super::colour;
use super::encode::{self, Target};
use super::pixels::Pixels;

/// The largest file that is read: 64 MiB.
pub(super) const MAX_FILE: u64 = 64 * 1_024 * 1_024;

/// How much memory what is beside the pixels of a picture may take.
const MAX_METADATA: u64 = 16 * 1_024 * 1_024;

/// The most bytes that a decoder gives for a pixel: four channels of 16 bits.
const BYTES_OF_PIXEL: u64 = 8;

/// Why no variant can be made. None of these passes by itself: the file has to change.
#[derive(Debug, thiserror::Error)]
pub(super) enum MakeError {
    #[error("{width} x {height} pixels are more than the {limit} that are allowed")]
    Pixels { width: u32, height: u32, limit: u64 },
    #[error("it is animated")]
    Moves,
    #[error("it is in CMYK")]
    Cmyk,
    #[error("its colour profile cannot be used: {0}")]
    Profile(String),
    #[error("it cannot be read: {0}")]
    Decode(#[from] ImageError),
    #[error("the variant cannot be written: {0}")]
    Encode(String),
    #[error("a codec panicked")]
    Panicked,
}

/// A picture whose header was read and found bearable.
pub(super) struct Opened<'a> {
    original: Original,
    decoder: Box<dyn ImageDecoder + 'a>,
    orientation: Orientation,
    max_pixels: u64,
}

impl<'a> Opened<'a> {
    /// Reads the header of a picture that its name says to be `original`.
    pub(super) fn read(
        bytes: &'a [u8],
        original: Original,
        max_pixels: u64,
    ) -> Result<Self, MakeError> {
        let mut decoder = decoder(bytes, original)?;
        let (width, height) = decoder.dimensions();
        if u64::from(width) * u64::from(height) > max_pixels {
            let limit = max_pixels;
            return Err(MakeError::Pixels {
                width,
                height,
                limit,
            });
        }
        let orientation = decoder.orientation().unwrap_or(Orientation::NoTransforms);
        Ok(Self {
            original,
            decoder,
            orientation,
            max_pixels,
        })
    }

    /// How many pixels will be decoded.
    pub(super) fn pixels(&self) -> u64 {
        let (width, height) = self.decoder.dimensions();
        u64::from(width) * u64::from(height)
    }

    /// The width as it is shown, which for a picture on its side is the height of what is stored.
    pub(super) fn width(&self) -> u32 {
        let (width, height) = self.decoder.dimensions();
        if sideways(self.orientation) {
            height
        } else {
            width
        }
    }

    /// Decodes, narrows and encodes.
    pub(super) fn make(mut self, variant: Variant, quality: u8) -> Result<Vec<u8>, MakeError> {
        let profile = self.decoder.icc_profile().unwrap_or(None);
        let mut limits = Limits::no_limits();
        limits.max_alloc = Some(self.max_pixels * BYTES_OF_PIXEL + MAX_METADATA);
        self.decoder.set_limits(limits)?;
        let (width, target) = (self.width(), self.target(variant.format));
        let decoded = DynamicImage::from_decoder(self.decoder)?;
        let mut pixels = Pixels::of(decoded);
        if let Some(wanted) = variant.within(width).width {
            pixels = pixels.narrowed(wanted, sideways(self.orientation))?;
        }
        if let Some(profile) = profile {
            colour::to_srgb(&mut pixels, &profile)?;
        }
        encode::encode(pixels.upright(self.orientation)?, target, quality)
    }

    fn target(&self, format: Option<Format>) -> Target {
        match (format, self.original) {
            (Some(Format::Avif), _) => Target::Avif,
            (Some(Format::WebP), _) | (None, Original::WebP) => Target::WebP,
            (None, Original::Jpeg) => Target::Jpeg,
            (None, Original::Png) => Target::Png,
        }
    }
}

fn decoder(bytes: &[u8], original: Original) -> Result<Box<dyn ImageDecoder + '_>, MakeError> {
    let reader = Cursor::new(bytes);
    Ok(match original {
        Original::Jpeg => {
            if is_cmyk(bytes) {
                return Err(MakeError::Cmyk);
            }
            Box::new(JpegDecoder::new(reader)?)
        }
        Original::Png => {
            // These limits hold for compressed texts and profiles, which are read with the header.
            let mut limits = Limits::no_limits();
            limits.max_alloc = Some(MAX_METADATA);
            let decoder = PngDecoder::with_limits(reader, limits)?;
            if decoder.is_apng()? {
                return Err(MakeError::Moves);
            }
            Box::new(decoder)
        }
        Original::WebP => {
            let decoder = WebPDecoder::new(reader)?;
            if decoder.has_animation() {
                return Err(MakeError::Moves);
            }
            Box::new(decoder)
        }
    })
}

fn sideways(orientation: Orientation) -> bool {
    matches!(
        orientation,
        Orientation::Rotate90
            | Orientation::Rotate270
            | Orientation::Rotate90FlipH
            | Orientation::Rotate270FlipH
    )
}

/// Whether a JPEG has four components (ITU T.81, B.2.2): its colours mean nothing without the
/// press they were made for.
fn is_cmyk(jpeg: &[u8]) -> bool {
    let mut rest = jpeg.get(2..).unwrap_or_default();
    while let [0xFF, marker, high, low, segment @ ..] = rest {
        match marker {
            // A byte of padding.
            0xFF => {
                rest = rest.get(1..).unwrap_or_default();
                continue;
            }
            // Start of frame; C4, C8 and CC are something else.
            0xC0..=0xC3 | 0xC5..=0xC7 | 0xC9..=0xCB | 0xCD..=0xCF => {
                return segment.get(5) == Some(&4);
            }
            // Start of scan: the frame stands before it.
            0xDA => return false,
            _ => {}
        }
        let len = usize::from(u16::from_be_bytes([*high, *low])).saturating_sub(2);
        rest = segment.get(len..).unwrap_or_default();
    }
    false
}

#[cfg(test)]
mod tests {
    use image::{ExtendedColorType, ImageEncoder};
    use proptest::prelude::*;
    use rustix::time::{ClockId, clock_gettime};

    use super::super::sample;
    use super::*;

    const MAX_PIXELS: u64 = 40_000_000;

    fn make(bytes: &[u8], original: Original, variant: Variant) -> Result<Vec<u8>, MakeError> {
        Opened::read(bytes, original, MAX_PIXELS)?.make(variant, 70)
    }

    fn into(format: Option<Format>, width: Option<u32>) -> Variant {
        Variant { format, width }
    }

    #[test]
    fn every_original_becomes_every_format_in_any_width() {
        let originals = [
            (Original::Jpeg, sample::jpeg(200, 100)),
            (Original::Png, sample::png(200, 100)),
            (Original::WebP, sample::webp(200, 100)),
        ];
        for (original, bytes) in originals {
            for format in [None, Some(Format::Avif), Some(Format::WebP)] {
                for (width, expected) in [(None, (200, 100)), (Some(50), (50, 25))] {
                    let made = make(&bytes, original, into(format, width)).unwrap();
                    let media_type = into(format, width).media_type(original);
                    assert_eq!(sample::kind(&made), media_type, "{original:?} {format:?}");
                    assert_eq!(sample::size(&made), expected, "{original:?} {format:?}");
                }
            }
        }
    }

    #[test]
    fn tiny_and_odd_pictures_are_made() {
        for (width, height) in [(1, 1), (1, 50), (17, 3), (333, 1)] {
            let png = sample::png(width, height);
            for format in Format::ALL {
                let made = make(&png, Original::Png, into(Some(format), None)).unwrap();
                assert_eq!(sample::size(&made), (width, height), "{format:?}");
            }
        }
        let wide = sample::png(1_000, 1);
        let made = make(&wide, Original::Png, into(None, Some(10))).unwrap();
        assert_eq!(sample::size(&made), (10, 1), "never less than a row");
    }

    #[test]
    fn a_picture_on_its_side_is_put_upright_and_measured_as_it_is_shown() {
        // 100 x 40 as stored; orientation 6 says to turn it by 90 degrees.
        let jpeg = sample::with_orientation(&sample::jpeg(100, 40), 6);
        let opened = Opened::read(&jpeg, Original::Jpeg, MAX_PIXELS).unwrap();
        assert_eq!(opened.width(), 40);
        let whole = make(&jpeg, Original::Jpeg, into(Some(Format::WebP), None)).unwrap();
        assert_eq!(sample::size(&whole), (40, 100));
        let narrow = make(&jpeg, Original::Jpeg, into(None, Some(20))).unwrap();
        assert_eq!(sample::size(&narrow), (20, 50));
    }

    #[test]
    fn turning_moves_the_pixels_too() {
        // Dark on the left; turned clockwise the left side comes to the top.
        let dark_left = sample::encoded_jpeg(64, 32, |x, _| if x < 32 { [0; 3] } else { [255; 3] });
        let turned = sample::with_orientation(&dark_left, 6);
        let made = make(&turned, Original::Jpeg, into(Some(Format::WebP), None)).unwrap();
        let shown = image::load_from_memory(&made).unwrap().into_rgb8();
        assert_eq!(shown.dimensions(), (32, 64));
        assert!(shown.get_pixel(16, 8).0[0] < 40, "the top is dark");
        assert!(shown.get_pixel(16, 56).0[0] > 215, "the bottom is light");
    }

    #[test]
    fn transparency_is_kept() {
        let clear_left = sample::encoded_png_rgba(64, 64, |x, _| {
            if x < 32 {
                [255, 0, 0, 0]
            } else {
                [0, 0, 255, 255]
            }
        });
        for format in [None, Some(Format::WebP)] {
            let made = make(&clear_left, Original::Png, into(format, Some(32))).unwrap();
            let shown = image::load_from_memory(&made).unwrap().into_rgba8();
            assert!(shown.get_pixel(4, 16).0[3] < 16, "{format:?}: clear");
            let [red, _, blue, alpha] = shown.get_pixel(28, 16).0;
            assert!(
                alpha > 240 && blue > 230 && red < 25,
                "{format:?}: {red} {blue}"
            );
        }
        let avif = make(&clear_left, Original::Png, into(Some(Format::Avif), None)).unwrap();
        assert!(
            avif.windows(4).any(|bytes| bytes == b"auxC"),
            "a second plane for alpha"
        );
    }

    #[test]
    fn colours_of_a_profile_are_converted() {
        let profile = moxcms::ColorProfile::new_display_p3().encode().unwrap();
        let red = [200, 60, 60];
        let pixels: Vec<u8> = std::iter::repeat_n(red, 32 * 32).flatten().collect();
        let mut png = Vec::new();
        let mut encoder = image::codecs::png::PngEncoder::new(&mut png);
        encoder.set_icc_profile(profile).unwrap();
        encoder
            .write_image(&pixels, 32, 32, ExtendedColorType::Rgb8)
            .unwrap();
        let made = make(&png, Original::Png, into(Some(Format::WebP), None)).unwrap();
        let shown = image::load_from_memory(&made).unwrap().into_rgb8();
        let [r, g, _] = shown.get_pixel(16, 16).0;
        assert!(r > 208, "the same red needs a higher number in sRGB: {r}");
        assert!(g < 55, "and less of the others: {g}");
    }

    #[test]
    fn a_profile_that_cannot_be_used_is_refused() {
        let mut png = Vec::new();
        let mut encoder = image::codecs::png::PngEncoder::new(&mut png);
        encoder.set_icc_profile(b"no profile".to_vec()).unwrap();
        encoder
            .write_image(&[0; 12], 2, 2, ExtendedColorType::Rgb8)
            .unwrap();
        let error = make(&png, Original::Png, into(Some(Format::WebP), None)).unwrap_err();
        assert!(matches!(error, MakeError::Profile(_)), "{error}");
    }

    #[test]
    fn grey_and_deep_pictures_are_made() {
        let shallow = sample::raw_png(16, 16, 8, 0, &[&[0_u8][..], &[90; 16]].concat().repeat(16));
        let deep = sample::raw_png(16, 16, 16, 2, &[&[0_u8][..], &[90; 96]].concat().repeat(16));
        for png in [shallow, deep] {
            for format in [None, Some(Format::Avif), Some(Format::WebP)] {
                let made = make(&png, Original::Png, into(format, None)).unwrap();
                assert_eq!(sample::size(&made), (16, 16));
            }
        }
    }

    #[test]
    fn what_moves_is_left_alone() {
        let error = make(
            &sample::apng(),
            Original::Png,
            into(Some(Format::WebP), None),
        );
        assert!(matches!(error, Err(MakeError::Moves)), "{error:?}");
        let config = webp::WebPConfig::new().unwrap();
        let mut frames = webp::AnimEncoder::new(8, 8, &config);
        let pixels = [7; 8 * 8 * 3];
        frames.add_frame(webp::AnimFrame::from_rgb(&pixels, 8, 8, 0));
        frames.add_frame(webp::AnimFrame::from_rgb(&[200; 8 * 8 * 3], 8, 8, 100));
        let moving = frames.encode().to_vec();
        let error = make(&moving, Original::WebP, into(Some(Format::Avif), None));
        assert!(matches!(error, Err(MakeError::Moves)), "{error:?}");
    }

    #[test]
    fn more_pixels_than_allowed_are_refused_by_the_header() {
        // 41 million pixels; none of these files has more than a few rows of them.
        let liars = [
            (
                Original::Png,
                sample::raw_png(8_200, 5_000, 8, 2, &[0; 100]),
            ),
            (
                Original::Png,
                sample::raw_png(50_000, 50_000, 8, 6, &[0; 100]),
            ),
            (
                Original::Jpeg,
                sample::with_size(&sample::jpeg(64, 64), 65_000, 65_000),
            ),
        ];
        for (original, bytes) in liars {
            assert!(bytes.len() < 10_000);
            let error = make(&bytes, original, into(Some(Format::Avif), None)).unwrap_err();
            assert!(matches!(error, MakeError::Pixels { .. }), "{error}");
        }
        let just = sample::raw_png(8_000, 5_000, 8, 2, &[0; 100]);
        assert!(
            Opened::read(&just, Original::Png, MAX_PIXELS).is_ok(),
            "40 million are allowed"
        );
    }

    #[test]
    fn headers_that_lie_and_files_that_end_are_refused() {
        let lying = sample::raw_png(4_000, 4_000, 8, 2, &[0; 100]);
        let error = make(&lying, Original::Png, into(None, Some(10))).unwrap_err();
        assert!(matches!(error, MakeError::Decode(_)), "{error}");
        let huge = sample::raw_png(0x7FFF_FFFF, 1, 16, 6, &[0; 100]);
        assert!(make(&huge, Original::Png, into(None, Some(10))).is_err());
        for (original, bytes) in [
            (Original::Png, sample::png(200, 100)),
            (Original::WebP, sample::webp(200, 100)),
        ] {
            for len in [0, 1, 10, 40, bytes.len() / 2] {
                let cut = &bytes[..len];
                assert!(make(cut, original, into(None, Some(10))).is_err(), "{len}");
            }
        }
        let other = make(&sample::png(8, 8), Original::Jpeg, into(None, Some(4)));
        assert!(other.is_err(), "not what its name says");
    }

    #[test]
    fn a_text_or_profile_that_unpacks_to_gigabytes_is_not_unpacked() {
        // 128 million zeros in 800 KB.
        for (kind, head) in [
            (b"iCCP", &b"p\0\0"[..]),
            (b"zTXt", &b"Comment\0\0"[..]),
            (b"iTXt", &b"XML:com.adobe.xmp\0\x01\0\0\0"[..]),
        ] {
            let bomb = [head, &sample::zeros(128)].concat();
            let png = sample::png_with(64, 64, kind, &bomb);
            assert!(png.len() < 1_000_000, "{}", png.len());
            let before = sample::peak_memory();
            let result = make(&png, Original::Png, into(Some(Format::WebP), None));
            let grown = sample::peak_memory() - before;
            assert!(
                grown < 64 * 1_024 * 1_024,
                "{kind:?}: {grown} bytes, {result:?}"
            );
        }
    }

    #[test]
    fn four_components_are_a_press_and_no_screen() {
        let mut jpeg = sample::jpeg(16, 16);
        assert!(!is_cmyk(&jpeg));
        let frame = jpeg.windows(2).position(|at| at == [0xFF, 0xC0]).unwrap();
        jpeg[frame + 9] = 4;
        assert!(is_cmyk(&jpeg));
        let error = make(&jpeg, Original::Jpeg, into(None, Some(4)));
        assert!(matches!(error, Err(MakeError::Cmyk)), "{error:?}");
        assert!(!is_cmyk(b"\xFF\xD8\xFF\xE0"), "and no end is no frame");
    }

    #[test]
    #[ignore = "a measurement, of use only in a release build"]
    fn what_a_photo_of_twelve_megapixels_costs() {
        let jpeg = sample::encoded_jpeg(4_000, 3_000, sample::photo);
        println!("original: {} KB", jpeg.len() / 1_024);
        for format in [Some(Format::Avif), Some(Format::WebP), None] {
            for width in [Some(320), Some(640), Some(1_280), Some(1_920), None] {
                // Of the processor: other things may run beside.
                let used = || {
                    let now = clock_gettime(ClockId::ProcessCPUTime);
                    (now.tv_sec * 1_000) + (now.tv_nsec / 1_000_000) as i64
                };
                let begun = used();
                let made = make(&jpeg, Original::Jpeg, into(format, width)).unwrap();
                let took = used() - begun;
                let size = made.len() / 1_024;
                println!("{format:?} {width:?}: {took} ms, {size} KB");
            }
        }
        println!("memory: {} MB at most", sample::peak_memory() >> 20);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(200))]

        #[test]
        fn damage_anywhere_is_an_error_or_a_picture_and_never_a_crash(
            which in 0_usize..3,
            damage in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
        ) {
            let (original, mut bytes) = match which {
                0 => (Original::Jpeg, sample::jpeg(40, 30)),
                1 => (Original::Png, sample::png(40, 30)),
                _ => (Original::WebP, sample::webp(40, 30)),
            };
            for (place, value) in damage {
                let place = place.index(bytes.len());
                bytes[place] = value;
            }
            let opened = Opened::read(&bytes, original, 1_000_000);
            let _ = opened.and_then(|opened| opened.make(into(None, Some(10)), 70));
        }
    }
}
