//! Pictures of a site over a real tree: which form is answered, until when the file itself is, and
//! what a restart finds again.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs::{self, File};
use std::num::NonZeroUsize;
use std::path::Path;
use std::time::{Duration, SystemTime};

use http::header::{
    ACCEPT, CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE, ETAG, IF_NONE_MATCH, RANGE, VARY,
};
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use image::codecs::jpeg::JpegEncoder;
use image::codecs::png::PngEncoder;
use image::{ExtendedColorType, ImageEncoder, RgbImage};
use static_server::images::choice::Format;
use static_server::images::{Counts, ImageSettings};
use static_server::{Answer, Body, Part, Request, Sending, Site, SiteSettings};

const BOTH: &str = "image/avif,image/webp,*/*;q=0.8";
const FOR_NOW: &str = "public, max-age=0, must-revalidate";

/// A picture with the smoothness and the noise of a photo.
fn picture(width: u32, height: u32) -> RgbImage {
    let mut noise = 1_u32;
    RgbImage::from_fn(width, height, |x, y| {
        noise = noise.wrapping_mul(0x0019_660D).wrapping_add(0x3C6E_F35F);
        let grain = (noise >> 28) as u8;
        image::Rgb([
            (x / 2 % 200) as u8 + grain,
            (y / 2 % 200) as u8 + grain,
            90 + grain,
        ])
    })
}

fn jpeg(width: u32, height: u32) -> Vec<u8> {
    let mut bytes = Vec::new();
    JpegEncoder::new_with_quality(&mut bytes, 95)
        .write_image(
            &picture(width, height),
            width,
            height,
            ExtendedColorType::Rgb8,
        )
        .unwrap();
    bytes
}

fn png(width: u32, height: u32) -> Vec<u8> {
    let mut bytes = Vec::new();
    PngEncoder::new(&mut bytes)
        .write_image(
            &picture(width, height),
            width,
            height,
            ExtendedColorType::Rgb8,
        )
        .unwrap();
    bytes
}

/// Writes a file that is old enough for its time to be trusted.
fn write(path: &Path, bytes: &[u8]) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, bytes).unwrap();
    let hour = Duration::from_secs(3_600);
    let old = SystemTime::UNIX_EPOCH + hour * 400_000;
    File::options()
        .append(true)
        .open(path)
        .unwrap()
        .set_modified(old)
        .unwrap();
}

struct World {
    dir: tempfile::TempDir,
    site: Site,
}

fn site(dir: &Path, change: impl FnOnce(&mut ImageSettings)) -> Site {
    let mut images = ImageSettings {
        formats: Format::ALL.to_vec(),
        widths: vec![32, 64],
        cache: dir.join("variants"),
        size: 1 << 30,
        quality: 70,
        workers: NonZeroUsize::new(2).unwrap(),
        max_pixels: 1_000_000,
    };
    change(&mut images);
    let mut settings = SiteSettings::new(dir.join("root"));
    settings.images = Some(images);
    Site::new(settings).unwrap()
}

impl World {
    fn new(change: impl FnOnce(&mut ImageSettings)) -> Self {
        let dir = tempfile::tempdir().unwrap();
        write(&dir.path().join("root/photo.jpg"), &jpeg(100, 80));
        write(&dir.path().join("root/photo-3f9a1c2b.jpg"), &jpeg(100, 80));
        write(&dir.path().join("root/drawing.png"), &png(48, 48));
        write(&dir.path().join("root/page.html"), b"<h1>page</h1>");
        let site = site(dir.path(), change);
        Self { dir, site }
    }

    fn ask(&self, target: &str, fields: &[(HeaderName, &str)]) -> Answer {
        let (path, query) = match target.split_once('?') {
            Some((path, query)) => (path, Some(query)),
            None => (target, None),
        };
        let mut map = HeaderMap::new();
        for (name, value) in fields {
            map.insert(name.clone(), HeaderValue::from_str(value).unwrap());
        }
        let request = Request {
            method: &Method::GET,
            path,
            query,
            fields: &map,
            sending: Sending::Copied,
        };
        self.site
            .answer(&request, tokio::time::Instant::now().into_std())
    }

    fn get(&self, target: &str, accept: &str) -> Answer {
        self.ask(target, &[(ACCEPT, accept)])
    }

    /// Asks until what waits is made.
    #[track_caller]
    fn made(&self, target: &str, accept: &str) -> Answer {
        self.get(target, accept);
        self.until("nothing waits", |counts| counts.wanted == 0);
        self.get(target, accept)
    }

    #[track_caller]
    fn until(&self, what: &str, right: impl Fn(&Counts) -> bool) {
        let start = tokio::time::Instant::now();
        while !right(&self.counts()) {
            assert!(
                start.elapsed() < Duration::from_secs(60),
                "{what}: {:?}",
                self.counts()
            );
            std::thread::yield_now();
        }
    }

    fn counts(&self) -> Counts {
        self.site.images().unwrap()
    }
}

fn value<'a>(answer: &'a Answer, name: &HeaderName) -> &'a str {
    answer
        .headers
        .value(name)
        .map_or("", |value| value.to_str().unwrap())
}

fn content(answer: Answer) -> Vec<u8> {
    let parts = match answer.body {
        Body::Empty => Vec::new(),
        Body::Memory(bytes) => vec![Part::Memory(bytes)],
        Body::File(part) => vec![Part::File(part)],
        Body::Parts(parts) => parts,
    };
    let mut all = Vec::new();
    for part in parts {
        match part {
            Part::Memory(bytes) => all.extend_from_slice(&bytes),
            Part::File(mut part) => {
                while let Some(bytes) = part.read_next(1_000).unwrap() {
                    all.extend_from_slice(&bytes);
                }
            }
        }
    }
    all
}

#[test]
fn the_file_itself_is_served_until_the_variant_is_made() {
    let world = World::new(|_| {});
    let first = world.get("/photo.jpg", BOTH);
    assert_eq!(value(&first, &CONTENT_TYPE), "image/jpeg");
    assert_eq!(value(&first, &CACHE_CONTROL), FOR_NOW);
    assert_eq!(value(&first, &VARY), "accept");
    let later = world.made("/photo.jpg", BOTH);
    assert_eq!(value(&later, &CONTENT_TYPE), "image/avif");
    assert_eq!(value(&later, &CACHE_CONTROL), "public, max-age=60");
    assert_eq!(value(&later, &VARY), "accept");
    assert_ne!(value(&later, &ETAG), value(&first, &ETAG));
    let bytes = content(later);
    assert_eq!(&bytes[4..12], b"ftypavif");
    assert!(bytes.len() < jpeg(100, 80).len());
    let webp = world.made("/photo.jpg", "image/webp");
    assert_eq!(value(&webp, &CONTENT_TYPE), "image/webp");
    let decoded = image::load_from_memory(&content(webp)).unwrap();
    assert_eq!((decoded.width(), decoded.height()), (100, 80));
}

#[test]
fn who_names_no_format_gets_the_file_with_its_usual_life() {
    let world = World::new(|_| {});
    for accept in ["*/*", "image/*", "", "image/avif;q=0"] {
        let answer = world.get("/photo.jpg", accept);
        assert_eq!(value(&answer, &CONTENT_TYPE), "image/jpeg", "{accept}");
        assert_eq!(
            value(&answer, &CACHE_CONTROL),
            "public, max-age=60",
            "{accept}"
        );
        assert_eq!(value(&answer, &VARY), "accept", "{accept}");
    }
    assert_eq!(world.counts().wanted, 0);
    assert_eq!(value(&world.get("/page.html", BOTH), &VARY), "");
}

#[test]
fn widths_narrow_and_never_widen() {
    let world = World::new(|_| {});
    let cases = [
        ("/photo.jpg?w=10", "image/jpeg", (32, 26)),
        ("/photo.jpg?w=33", "image/jpeg", (64, 51)),
        ("/drawing.png?w=32&v=2", "image/png", (32, 32)),
    ];
    for (target, kind, size) in cases {
        let answer = world.made(target, "*/*");
        assert_eq!(value(&answer, &CONTENT_TYPE), kind, "{target}");
        let decoded = image::load_from_memory(&content(answer)).unwrap();
        assert_eq!((decoded.width(), decoded.height()), size, "{target}");
    }
    // 48 pixels are less than 64: the file itself, and with a format all of it in that.
    let same = world.made("/drawing.png?w=64", "*/*");
    assert_eq!(
        value(&same, &CACHE_CONTROL),
        "public, max-age=60",
        "for good"
    );
    assert_eq!(content(same), png(48, 48));
    let webp = world.made("/drawing.png?w=64", "image/webp");
    assert_eq!(value(&webp, &CONTENT_TYPE), "image/webp");
    assert_eq!(image::load_from_memory(&content(webp)).unwrap().width(), 48);
    let before = world.counts().made;
    let whole = world.get("/drawing.png", "image/webp");
    assert_eq!(
        value(&whole, &CONTENT_TYPE),
        "image/webp",
        "made once for both"
    );
    assert_eq!(world.counts().made, before);
    for query in ["w=", "w=0", "w=64&w=32", "w=abc", "width=32"] {
        let answer = world.get(&format!("/photo.jpg?{query}"), "*/*");
        assert_eq!(content(answer), jpeg(100, 80), "{query}");
    }
}

#[test]
fn conditions_and_ranges_work_on_variants() {
    for max_memory_file in [1 << 20, 0] {
        let dir = tempfile::tempdir().unwrap();
        write(&dir.path().join("root/photo.jpg"), &jpeg(100, 80));
        let images = ImageSettings {
            formats: vec![Format::WebP],
            widths: Vec::new(),
            cache: dir.path().join("variants"),
            size: 1 << 30,
            quality: 70,
            workers: NonZeroUsize::MIN,
            max_pixels: 1_000_000,
        };
        let mut settings = SiteSettings::new(dir.path().join("root"));
        settings.images = Some(images);
        settings.max_memory_file = max_memory_file;
        let site = Site::new(settings).unwrap();
        let world = World { dir, site };
        let whole = world.made("/photo.jpg", "image/webp");
        let etag = value(&whole, &ETAG).to_owned();
        let len = value(&whole, &CONTENT_LENGTH).to_owned();
        let bytes = content(whole);
        assert_eq!(len, bytes.len().to_string());
        let again = world.ask(
            "/photo.jpg",
            &[(ACCEPT, "image/webp"), (IF_NONE_MATCH, &etag)],
        );
        assert_eq!(again.status, 304);
        assert_eq!(value(&again, &VARY), "accept");
        let part = world.ask(
            "/photo.jpg",
            &[(ACCEPT, "image/webp"), (RANGE, "bytes=5-9")],
        );
        assert_eq!(part.status, 206);
        assert_eq!(content(part), bytes[5..10]);
        assert!(world.dir.path().exists());
    }
}

#[test]
fn a_fingerprinted_name_lives_long_once_its_variant_is_there() {
    let world = World::new(|_| {});
    let first = world.get("/photo-3f9a1c2b.jpg", "image/webp");
    assert_eq!(value(&first, &CACHE_CONTROL), FOR_NOW);
    let later = world.made("/photo-3f9a1c2b.jpg", "image/webp");
    assert_eq!(
        value(&later, &CACHE_CONTROL),
        "public, max-age=31536000, immutable"
    );
}

#[test]
fn what_cannot_be_made_is_tried_once_and_the_file_is_served_for_good() {
    let world = World::new(|images| images.max_pixels = 5_000);
    let root = world.dir.path().join("root");
    write(&root.join("broken.png"), &png(40, 40)[..200]);
    write(&root.join("text.jpg"), b"no picture at all");
    for name in ["/photo.jpg", "/broken.png", "/text.jpg"] {
        let answer = world.made(name, "image/webp");
        assert_eq!(
            value(&answer, &CACHE_CONTROL),
            "public, max-age=60",
            "{name}"
        );
        assert!(!value(&answer, &CONTENT_TYPE).contains("webp"), "{name}");
    }
    assert_eq!(world.counts().failed, 3);
    for name in ["/photo.jpg", "/broken.png", "/text.jpg"] {
        world.made(name, "image/webp");
    }
    assert_eq!(world.counts().failed, 3, "not tried again");
    // Mended, it is looked at anew.
    write(&root.join("broken.png"), &png(40, 40));
    let start = tokio::time::Instant::now();
    while value(&world.made("/broken.png", "image/webp"), &CONTENT_TYPE) != "image/webp" {
        assert!(
            start.elapsed() < Duration::from_secs(60),
            "the change is not seen"
        );
    }
}

#[test]
fn a_variant_that_is_no_smaller_is_not_sent() {
    let world = World::new(|_| {});
    // Of one colour: the head of an AVIF alone is longer than this file.
    let mut bytes = Vec::new();
    PngEncoder::new(&mut bytes)
        .write_image(&[90; 8 * 8 * 3], 8, 8, ExtendedColorType::Rgb8)
        .unwrap();
    write(&world.dir.path().join("root/dot.png"), &bytes);
    let answer = world.made("/dot.png", BOTH);
    assert_eq!(value(&answer, &CONTENT_TYPE), "image/png");
    assert_eq!(value(&answer, &CACHE_CONTROL), "public, max-age=60");
    assert_eq!(world.counts().useless, 1);
    world.made("/dot.png", BOTH);
    assert_eq!(world.counts().useless, 1, "remembered");
}

#[test]
fn a_restart_finds_everything_and_makes_what_was_damaged_anew() {
    let mut world = World::new(|_| {});
    let sent = content(world.made("/photo.jpg", "image/webp"));
    world.made("/drawing.png?w=32", "*/*");
    world.site = site(world.dir.path(), |_| {});
    let again = world.get("/photo.jpg", "image/webp");
    assert_eq!(value(&again, &CONTENT_TYPE), "image/webp", "at once");
    assert_eq!(content(again), sent);
    let narrow = world.get("/drawing.png?w=32", "*/*");
    assert_eq!(
        image::load_from_memory(&content(narrow)).unwrap().width(),
        32
    );
    assert_eq!(world.counts().made, 0);
    // The same length, other bytes.
    for entry in fs::read_dir(world.dir.path().join("variants")).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if name.contains(".webp.") {
            fs::write(&path, vec![0; fs::read(&path).unwrap().len()]).unwrap();
        }
    }
    world.site = site(world.dir.path(), |_| {});
    let damaged = world.get("/photo.jpg", "image/webp");
    assert_eq!(
        value(&damaged, &CONTENT_TYPE),
        "image/jpeg",
        "not what is damaged"
    );
    assert_eq!(content(world.made("/photo.jpg", "image/webp")), sent);
}

#[test]
fn a_copy_of_the_same_content_is_not_made_anew() {
    let world = World::new(|images| images.formats = vec![Format::WebP]);
    world.made("/photo.jpg", "image/webp");
    let root = world.dir.path().join("root");
    write(&root.join("copy/photo.jpg"), &jpeg(100, 80));
    let answer = world.made("/copy/photo.jpg", "image/webp");
    assert_eq!(value(&answer, &CONTENT_TYPE), "image/webp");
    assert_eq!(world.counts().made, 1);
}

#[test]
fn the_room_is_bounded_and_too_many_wishes_are_dropped() {
    let world = World::new(|images| {
        images.size = 40 * 4_096;
        images.workers = NonZeroUsize::MIN;
    });
    let root = world.dir.path().join("root/many");
    for number in 0..400 {
        write(&root.join(format!("{number}.jpg")), &jpeg(40 + number, 40));
    }
    // One that takes its time.
    write(&root.join("slow.jpg"), &jpeg(160, 160));
    world.get("/many/slow.jpg", BOTH);
    for number in 0..400 {
        let answer = world.get(&format!("/many/{number}.jpg"), "image/webp");
        assert_eq!(value(&answer, &CONTENT_TYPE), "image/jpeg");
        assert!(world.counts().wanted <= 257, "{:?}", world.counts());
    }
    assert!(world.counts().dropped > 0, "{:?}", world.counts());
    world.until("nothing waits", |counts| counts.wanted == 0);
    let counts = world.counts();
    assert!(
        counts.made > 200 && counts.bytes <= 40 * 4_096,
        "{counts:?}"
    );
    let left = fs::read_dir(world.dir.path().join("variants"))
        .unwrap()
        .count();
    assert!(left as u64 <= counts.files + 1, "{left} files, {counts:?}");
}
