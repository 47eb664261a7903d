//! Decoded pixels on their way from one codec to another: three or four bytes each.

use fast_image_resize::images::Image;
use fast_image_resize::{PixelType, Resizer};
use image::metadata::Orientation;
use image::{DynamicImage, RgbImage, RgbaImage};

use super::make::MakeError;

/// See the module. Rows lie one after the other without gaps.
pub(super) struct Pixels {
    pub(super) bytes: Vec<u8>,
    pub(super) width: u32,
    pub(super) height: u32,
    /// Whether a fourth byte says how opaque a pixel is.
    pub(super) alpha: bool,
    /// Whether it was decoded as shades of grey.
    pub(super) grey: bool,
}

impl Pixels {
    pub(super) fn of(decoded: DynamicImage) -> Self {
        let (width, height) = (decoded.width(), decoded.height());
        let color = decoded.color();
        let alpha = color.has_alpha();
        let bytes = if alpha {
            decoded.into_rgba8().into_raw()
        } else {
            decoded.into_rgb8().into_raw()
        };
        Self {
            bytes,
            width,
            height,
            alpha,
            grey: !color.has_color(),
        }
    }

    /// Scaled so that it is `width` wide when it is shown, which for a picture that lies
    /// `sideways` is the height of what is here. Alpha is taken into account.
    pub(super) fn narrowed(self, width: u32, sideways: bool) -> Result<Self, MakeError> {
        let own = if sideways { self.height } else { self.width };
        let scaled = |other: u32| {
            let exact =
                (u64::from(other) * u64::from(width) + u64::from(own) / 2) / u64::from(own.max(1));
            u32::try_from(exact).unwrap_or(u32::MAX).max(1)
        };
        let (new_width, new_height) = if sideways {
            (scaled(self.width), width)
        } else {
            (width, scaled(self.height))
        };
        let kind = if self.alpha {
            PixelType::U8x4
        } else {
            PixelType::U8x3
        };
        let trouble = |error: &dyn std::fmt::Display| MakeError::Encode(error.to_string());
        let from = Image::from_vec_u8(self.width, self.height, self.bytes, kind)
            .map_err(|error| trouble(&error))?;
        let mut to = Image::new(new_width, new_height, kind);
        // Lanczos with three lobes is what it does unless told otherwise.
        Resizer::new()
            .resize(&from, &mut to, None)
            .map_err(|error| trouble(&error))?;
        Ok(Self {
            bytes: to.into_vec(),
            width: new_width,
            height: new_height,
            ..self
        })
    }

    /// Turned and mirrored as the camera says.
    pub(super) fn upright(self, orientation: Orientation) -> Result<Self, MakeError> {
        if orientation == Orientation::NoTransforms {
            return Ok(self);
        }
        let grey = self.grey;
        let (width, height) = (self.width, self.height);
        let picture = if self.alpha {
            RgbaImage::from_raw(width, height, self.bytes).map(DynamicImage::ImageRgba8)
        } else {
            RgbImage::from_raw(width, height, self.bytes).map(DynamicImage::ImageRgb8)
        };
        let mut picture =
            picture.ok_or_else(|| MakeError::Encode("fewer bytes than pixels".to_owned()))?;
        picture.apply_orientation(orientation);
        Ok(Self {
            grey,
            ..Self::of(picture)
        })
    }
}
