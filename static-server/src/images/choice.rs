//! Which variant of a picture a request gets.
//!
//! Pure: the type of the original, `Accept`, the query and the settings in, a [`Variant`] or
//! the original out. Whether the variant exists, or is worth anything, is not known here.
//!
//! A format is sent only to a client that names it. `*/*` and `image/*` say nothing: clients
//! that cannot show AVIF send them too. What is named with `q=0` is refused, and a client that
//! weighs the original's own type higher gets the original's format.

use http::header::ACCEPT;

use crate::fields::{Fields, trim};

/// A format that pictures are made in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Format {
    /// AV1 image file format: the smallest, and slow to make.
    Avif,
    /// WebP, lossy: larger than AVIF, and made in a small part of the time.
    WebP,
}

impl Format {
    /// All formats, the smallest first.
    pub const ALL: [Self; 2] = [Self::Avif, Self::WebP];

    /// Its name in the configuration.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Avif => "avif",
            Self::WebP => "webp",
        }
    }

    /// Its media type.
    pub fn media_type(self) -> &'static str {
        match self {
            Self::Avif => "image/avif",
            Self::WebP => "image/webp",
        }
    }

    fn index(self) -> usize {
        match self {
            Self::Avif => 0,
            Self::WebP => 1,
        }
    }
}

/// A type that variants can be made from. GIF, SVG and AVIF are left alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Original {
    /// JPEG.
    Jpeg,
    /// PNG that does not move.
    Png,
    /// WebP that does not move.
    WebP,
}

impl Original {
    /// Reads a media type.
    pub fn of(media_type: &str) -> Option<Self> {
        match media_type {
            "image/jpeg" => Some(Self::Jpeg),
            "image/png" => Some(Self::Png),
            "image/webp" => Some(Self::WebP),
            _ => None,
        }
    }

    /// Its media type.
    pub fn media_type(self) -> &'static str {
        match self {
            Self::Jpeg => "image/jpeg",
            Self::Png => "image/png",
            Self::WebP => "image/webp",
        }
    }

    fn is(self, format: Format) -> bool {
        self == Self::WebP && format == Format::WebP
    }
}

/// One form of a picture other than the original.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Variant {
    /// `None` keeps the format of the original.
    pub format: Option<Format>,
    /// Width in pixels; `None` keeps that of the original. The height follows.
    pub width: Option<u32>,
}

impl Variant {
    /// What is left of the wish for a picture of this width: nothing is made larger than it is.
    pub fn within(self, own_width: u32) -> Self {
        let width = self.width.filter(|width| *width < own_width);
        Self { width, ..self }
    }

    /// Whether nothing is to be changed.
    pub fn is_original(self) -> bool {
        self.format.is_none() && self.width.is_none()
    }

    /// The media type of the variant of a picture of type `original`.
    pub fn media_type(self, original: Original) -> &'static str {
        self.format
            .map_or_else(|| original.media_type(), Format::media_type)
    }
}

/// Picks the variant of a picture of type `original`, or `None` for the original itself.
///
/// `formats` stand in the server's order of preference, `widths` rise.
pub fn choose(
    original: Original,
    fields: &dyn Fields,
    query: Option<&str>,
    formats: &[Format],
    widths: &[u32],
) -> Option<Variant> {
    let variant = Variant {
        format: negotiate(original, fields, formats),
        width: query.and_then(wish).and_then(|wish| nearest(wish, widths)),
    };
    Some(variant).filter(|variant| !variant.is_original())
}

/// The format that the client weighs highest, the server's order deciding between equals.
fn negotiate(original: Original, fields: &dyn Fields, formats: &[Format]) -> Option<Format> {
    fields.first(&ACCEPT)?;
    let mut weights = Weights::default();
    fields.each(&ACCEPT, &mut |line| weights.read(line, original));
    let mut best: Option<(Format, u16)> = None;
    for &format in formats {
        let weight = weights.of(format);
        if weight > best.map_or(0, |(_, weight)| weight) {
            best = Some((format, weight));
        }
    }
    best.filter(|(format, weight)| {
        !original.is(*format) && *weight >= weights.original.unwrap_or(0)
    })
    .map(|(format, _)| format)
}

/// The weights that a client gave by name, in thousandths.
#[derive(Default)]
struct Weights {
    named: [Option<u16>; 2],
    original: Option<u16>,
}

impl Weights {
    fn read(&mut self, line: &[u8], original: Original) {
        for member in line.split(|&byte| byte == b',').map(trim) {
            let Some((name, weight)) = weighted(member) else {
                continue;
            };
            let is = |media_type: &str| name.eq_ignore_ascii_case(media_type.as_bytes());
            if is(original.media_type()) {
                lower(&mut self.original, weight);
            }
            for format in Format::ALL {
                if let Some(slot) = self.named.get_mut(format.index())
                    && is(format.media_type())
                {
                    lower(slot, weight);
                }
            }
        }
    }

    fn of(&self, format: Format) -> u16 {
        let named = self.named.get(format.index()).copied().flatten();
        named.unwrap_or(0)
    }
}

/// Said twice: the lower holds, for a refusal must not be overheard.
fn lower(slot: &mut Option<u16>, weight: u16) {
    *slot = Some(slot.map_or(weight, |before| before.min(weight)));
}

/// Reads `type/subtype *( ; name=value )` (RFC 9110, 12.5.1). A weight that is malformed makes
/// the member unheard; other parameters are passed over.
fn weighted(member: &[u8]) -> Option<(&[u8], u16)> {
    let mut parts = member.split(|&byte| byte == b';').map(trim);
    let name = parts.next().filter(|name| !name.is_empty())?;
    let mut weight = 1_000;
    for parameter in parts {
        if let Some((b"q=" | b"Q=", value)) = parameter.split_at_checked(2) {
            weight = thousandths(value)?;
        }
    }
    Some((name, weight))
}

/// Reads `0`, `1`, `0.123` or `1.000` (RFC 9110, 12.4.2).
fn thousandths(text: &[u8]) -> Option<u16> {
    let (whole, fraction) = match text {
        [whole] => (whole, &[][..]),
        [whole, b'.', fraction @ ..] if fraction.len() <= 3 => (whole, fraction),
        _ => return None,
    };
    let mut weight = match whole {
        b'0' => 0,
        b'1' => 1_000,
        _ => return None,
    };
    let mut unit = 100;
    for digit in fraction {
        if !digit.is_ascii_digit() {
            return None;
        }
        weight += u16::from(digit - b'0') * unit;
        unit /= 10;
    }
    (weight <= 1_000).then_some(weight)
}

/// The width that the query asks for. Said twice, empty, zero or with anything but digits in
/// it, it is no wish: the answer is then the one without a query.
fn wish(query: &str) -> Option<u32> {
    let mut values = query
        .split('&')
        .filter_map(|pair| match pair.split_once('=') {
            Some(("w", value)) => Some(value),
            None if pair == "w" => Some(""),
            _ => None,
        });
    let value = values.next()?;
    if values.next().is_some() || value.is_empty() || !value.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    // Digits alone fail only by being too many.
    Some(value.parse().unwrap_or(u32::MAX)).filter(|width| *width > 0)
}

/// The smallest of `widths` that is not below `wish`, or the largest of all.
fn nearest(wish: u32, widths: &[u32]) -> Option<u32> {
    let enough = widths.iter().find(|width| **width >= wish);
    enough.or(widths.last()).copied()
}

#[cfg(test)]
mod tests {
    use http::{HeaderMap, HeaderValue};
    use proptest::prelude::*;

    use super::*;

    const WIDTHS: [u32; 3] = [320, 640, 1_280];

    fn accept(lines: &[&str]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for line in lines {
            map.append(ACCEPT, HeaderValue::from_str(line).unwrap());
        }
        map
    }

    fn format(original: Original, lines: &[&str]) -> Option<Format> {
        let chosen = choose(original, &accept(lines), None, &Format::ALL, &WIDTHS);
        chosen.and_then(|variant| variant.format)
    }

    fn width(query: &str) -> Option<u32> {
        let map = HeaderMap::new();
        let chosen = choose(Original::Png, &map, Some(query), &Format::ALL, &WIDTHS);
        chosen.and_then(|variant| variant.width)
    }

    #[test]
    fn browsers_get_the_best_format_that_they_name() {
        let chrome = "image/avif,image/webp,image/apng,image/svg+xml,image/*,*/*;q=0.8";
        let before_avif = "image/webp,image/apng,image/*,*/*;q=0.8";
        let old = "image/png,image/svg+xml,image/*;q=0.8,video/*;q=0.8,*/*;q=0.5";
        assert_eq!(format(Original::Jpeg, &[chrome]), Some(Format::Avif));
        assert_eq!(format(Original::Jpeg, &[before_avif]), Some(Format::WebP));
        assert_eq!(format(Original::Jpeg, &[old]), None);
        assert_eq!(format(Original::Jpeg, &["*/*"]), None);
        assert_eq!(format(Original::Jpeg, &["image/*"]), None);
        assert_eq!(format(Original::Jpeg, &[]), None);
    }

    #[test]
    fn weights_decide_and_zero_refuses() {
        let cases: &[(&[&str], Option<Format>)] = &[
            (&["image/avif;q=0, image/webp"], Some(Format::WebP)),
            (&["image/avif;q=0.5, image/webp;q=0.6"], Some(Format::WebP)),
            (&["image/avif;q=0.5, image/webp;q=0.5"], Some(Format::Avif)),
            (&["IMAGE/AVIF ; Q=0.001"], Some(Format::Avif)),
            (&["text/html", "image/webp"], Some(Format::WebP)),
            (&["image/avif", "image/avif;q=0"], None),
            (&["image/avif;q=0.000"], None),
            (&["image/avif;q=2"], None),
            (&["image/avif;q="], None),
            (&["image/avif;v=1;q=0.3"], Some(Format::Avif)),
            (&["image/jpeg, image/avif;q=0.9"], None),
            (&["image/png, image/avif;q=0.9"], Some(Format::Avif)),
        ];
        for (lines, expected) in cases {
            assert_eq!(format(Original::Jpeg, lines), *expected, "{lines:?}");
        }
    }

    #[test]
    fn a_webp_is_not_made_into_webp() {
        assert_eq!(format(Original::WebP, &["image/webp"]), None);
        let both = "image/avif,image/webp";
        assert_eq!(format(Original::WebP, &[both]), Some(Format::Avif));
        let map = accept(&["image/webp"]);
        let narrow = choose(Original::WebP, &map, Some("w=1"), &Format::ALL, &WIDTHS);
        let expected = Variant {
            format: None,
            width: Some(320),
        };
        assert_eq!(narrow, Some(expected));
    }

    #[test]
    fn the_next_larger_width_is_taken() {
        let cases = [
            ("w=320", Some(320)),
            ("w=321", Some(640)),
            ("w=1", Some(320)),
            ("w=1280", Some(1_280)),
            ("w=9999", Some(1_280)),
            ("w=99999999999999999999", Some(1_280)),
            ("w=0640", Some(640)),
            ("v=3&w=640&x", Some(640)),
        ];
        for (query, expected) in cases {
            assert_eq!(width(query), expected, "{query}");
        }
    }

    #[test]
    fn what_is_no_width_is_no_wish() {
        for query in [
            "",
            "w",
            "w=",
            "w=0",
            "w=-1",
            "w=+640",
            "w=6e2",
            "w=640px",
            "w=%36",
            "W=640",
            "w=640&w=640",
            "w&w=640",
            "width=640",
            "w=640=",
            "v=w",
        ] {
            assert_eq!(width(query), None, "{query}");
        }
    }

    #[test]
    fn nothing_is_made_larger_than_it_is() {
        let wish = Variant {
            format: Some(Format::WebP),
            width: Some(640),
        };
        assert_eq!(wish.within(641).width, Some(640));
        assert_eq!(wish.within(640).width, None);
        assert_eq!(wish.within(10).format, Some(Format::WebP));
    }

    proptest! {
        #[test]
        fn only_what_is_configured_is_ever_chosen(
            accept_line in "[ -~]{0,60}",
            query in "[ -~]{0,30}",
            formats in proptest::sample::subsequence(Format::ALL.to_vec(), 0..=2),
            widths in proptest::sample::subsequence(WIDTHS.to_vec(), 0..=3),
        ) {
            let map = accept(&[&accept_line]);
            let chosen = choose(Original::Png, &map, Some(&query), &formats, &widths);
            if let Some(chosen) = chosen {
                prop_assert!(!chosen.is_original());
                prop_assert!(chosen.format.is_none_or(|format| formats.contains(&format)));
                prop_assert!(chosen.width.is_none_or(|width| widths.contains(&width)));
            }
        }

        #[test]
        fn a_format_that_is_not_named_is_never_sent(
            members in proptest::collection::vec(
                proptest::sample::select(vec![
                    "*/*", "image/*", "image/png", "image/avif;q=0", "text/html;q=0.1", "image/apng",
                ]),
                0..6,
            ),
        ) {
            let map = accept(&[&members.join(", ")]);
            prop_assert_eq!(choose(Original::Jpeg, &map, None, &Format::ALL, &WIDTHS), None);
        }

        #[test]
        fn any_number_takes_the_next_width_or_the_last(number in 1_u32..5_000) {
            let taken = width(&format!("w={number}")).unwrap();
            prop_assert!(taken >= number || taken == 1_280);
            let smaller = WIDTHS.iter().filter(|width| **width < taken);
            prop_assert!(smaller.into_iter().all(|width| *width < number));
        }
    }
}
