//! Pictures in smaller forms, through the real binary: what clients get before and after, bombs,
//! crowds, a full disk, a restart.

use std::fs::{self, File};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, SystemTime};

use image::codecs::jpeg::JpegEncoder;
use image::codecs::png::PngEncoder;
use image::{ExtendedColorType, ImageEncoder, RgbImage};
use nix::sys::signal::Signal;

use crate::support::{Ask, Edge, Reply, Setup, wait};

const BOTH: &str = "image/avif,image/webp,image/apng,image/*,*/*;q=0.8";

/// An AVIF in a debug build, on a machine that has other things to do.
const PATIENCE: Duration = Duration::from_secs(120);

fn scene(width: u32, height: u32) -> RgbImage {
    let mut noise = 1_u32;
    RgbImage::from_fn(width, height, |x, y| {
        noise = noise.wrapping_mul(0x0019_660D).wrapping_add(0x3C6E_F35F);
        let value = |number: u32| u8::try_from(number / 2 % 200 + (noise >> 28)).unwrap();
        image::Rgb([value(x), value(y), value(x + y)])
    })
}

fn jpeg(width: u32, height: u32) -> Vec<u8> {
    let mut bytes = Vec::new();
    JpegEncoder::new_with_quality(&mut bytes, 92)
        .write_image(
            &scene(width, height),
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
            &scene(width, height),
            width,
            height,
            ExtendedColorType::Rgb8,
        )
        .unwrap();
    bytes
}

/// A PNG that claims to be so large.
fn claiming(width: u32, height: u32) -> Vec<u8> {
    let mut bytes = png(8, 8);
    bytes[16..20].copy_from_slice(&width.to_be_bytes());
    bytes[20..24].copy_from_slice(&height.to_be_bytes());
    let mut sum = u32::MAX;
    for byte in &bytes[12..29] {
        sum ^= u32::from(*byte);
        for _ in 0..8 {
            sum = (sum >> 1) ^ (0xEDB8_8320 & (sum & 1).wrapping_neg());
        }
    }
    bytes[29..33].copy_from_slice(&(!sum).to_be_bytes());
    bytes
}

/// Files younger than two seconds may still be being written, and are left alone.
fn age(path: &Path) {
    let old = SystemTime::UNIX_EPOCH + Duration::from_secs(1_600_000_000);
    let file = File::options().append(true).open(path).unwrap();
    file.set_modified(old).unwrap();
}

fn start(files: &[(&str, Vec<u8>)], images: &str) -> Edge {
    let setup = files.iter().fold(Setup::new(), |setup, (name, bytes)| {
        setup.file(&format!("site/{name}"), bytes)
    });
    for (name, _) in files {
        age(&setup.folder().join("site").join(name));
    }
    setup.start(&format!(
        "[static.site]\nroot = \"site\"\nimages = {{ {images} }}\n[[route]]\nstatic = \"site\"\n"
    ))
}

fn get(edge: &Edge, target: &str, accept: &str) -> Reply {
    edge.ask(&Ask::get(target).field("accept", accept))
        .expect(200)
}

/// Asks until the answer is of this type.
#[track_caller]
fn await_type(edge: &Edge, target: &str, accept: &str, wanted: &str) -> Reply {
    wait::until(&format!("{target} as {wanted}"), PATIENCE, || {
        Some(get(edge, target, accept)).filter(|reply| reply.field("content-type") == Some(wanted))
    })
}

#[track_caller]
fn await_idle(edge: &Edge) {
    wait::eventually("nothing waits", PATIENCE, || {
        edge.metric("tidegate_images_wanted") == 0.0
    });
}

/// Width and height of an AVIF, from its `ispe` box.
fn avif_size(bytes: &[u8]) -> (u32, u32) {
    assert_eq!(&bytes[4..12], b"ftypavif");
    let at = bytes.windows(4).position(|name| name == b"ispe").unwrap();
    let number = |at: usize| u32::from_be_bytes(bytes[at..at + 4].try_into().unwrap());
    (number(at + 8), number(at + 12))
}

#[test]
fn browsers_get_avif_once_it_is_made_and_old_clients_the_file() {
    let photo = jpeg(160, 120);
    let edge = start(
        &[("photo.jpg", photo.clone()), ("drawing.png", png(80, 60))],
        "cache = \"variants\", widths = [40, 80]",
    );
    let first = get(&edge, "/photo.jpg", BOTH);
    assert_eq!(first.body, photo);
    assert_eq!(
        first.field("cache-control"),
        Some("public, max-age=0, must-revalidate")
    );
    let avif = await_type(&edge, "/photo.jpg", BOTH, "image/avif");
    assert_eq!(avif_size(&avif.body), (160, 120));
    assert_eq!(avif.field("vary"), Some("accept"));
    assert_eq!(avif.field("cache-control"), Some("public, max-age=60"));
    assert!(avif.body.len() < photo.len());
    for accept in ["*/*", "image/*", "image/avif;q=0"] {
        let reply = get(&edge, "/photo.jpg", accept);
        assert_eq!(reply.body, photo, "{accept}");
        assert_eq!(reply.field("vary"), Some("accept"), "{accept}");
    }
    // The same rules as for any file.
    let etag = avif.field("etag").unwrap().to_owned();
    let ask = |ask: Ask| edge.ask(&ask.field("accept", BOTH));
    ask(Ask::get("/photo.jpg").field("if-none-match", &etag)).expect(304);
    let part = ask(Ask::get("/photo.jpg").field("range", "bytes=4-11")).expect(206);
    assert_eq!(part.body, b"ftypavif");
    let head = ask(Ask::head("/photo.jpg")).expect(200);
    assert_eq!(
        head.field("content-length"),
        Some(avif.body.len().to_string().as_str())
    );
    // Widths.
    let narrow = await_type(&edge, "/drawing.png?w=41", "image/webp", "image/webp");
    let decoded = image::load_from_memory(&narrow.body).unwrap();
    assert_eq!(
        (decoded.width(), decoded.height()),
        (80, 60),
        "no wider than it is"
    );
    wait::eventually("40 pixels wide", PATIENCE, || {
        let reply = get(&edge, "/drawing.png?w=1", "*/*");
        image::load_from_memory(&reply.body).unwrap().width() == 40
    });
    assert!(edge.metric("tidegate_images_total{result=\"made\"}") >= 3.0);
}

#[test]
fn a_restart_finds_the_variants_again() {
    let mut edge = start(
        &[("photo.jpg", jpeg(160, 120))],
        "cache = \"variants\", formats = [\"webp\"]",
    );
    let made = await_type(&edge, "/photo.jpg", "image/webp", "image/webp");
    for signal in [Signal::SIGTERM, Signal::SIGKILL] {
        edge.restart(signal);
        let again = get(&edge, "/photo.jpg", "image/webp");
        assert_eq!(again.body, made.body, "{signal}: at once");
        assert_eq!(again.field("etag"), made.field("etag"));
    }
    assert_eq!(edge.metric("tidegate_images_total{result=\"made\"}"), 0.0);
}

#[test]
fn bombs_and_giants_are_served_as_they_are_and_cost_no_memory() {
    let files = [
        ("bomb.png", claiming(50_000, 50_000)),
        ("giant.png", claiming(8_200, 5_000)),
        ("lying.png", claiming(4_000, 4_000)),
        ("text.jpg", b"no picture".to_vec()),
    ];
    let edge = start(&files, "cache = \"variants\", widths = [100]");
    let before = edge.peak_memory();
    for (name, bytes) in &files {
        let target = format!("/{name}");
        for _ in 0..2 {
            assert_eq!(&get(&edge, &target, BOTH).body, bytes, "{name}");
            await_idle(&edge);
        }
        let reply = get(&edge, &target, BOTH);
        assert_eq!(&reply.body, bytes, "{name}");
        assert_eq!(
            reply.field("cache-control"),
            Some("public, max-age=60"),
            "{name}: for good"
        );
    }
    assert_eq!(
        edge.metric("tidegate_images_total{result=\"failed\"}"),
        4.0,
        "once each"
    );
    let grown = edge.peak_memory().saturating_sub(before);
    assert!(grown < 200 << 20, "{grown} bytes");
}

#[test]
fn a_crowd_of_new_pictures_is_answered_and_the_queue_is_bounded() {
    let pictures: Vec<_> = (0..300)
        .map(|n| (format!("{n}.jpg"), jpeg(64 + n, 64)))
        .collect();
    let mut files: Vec<_> = pictures
        .iter()
        .map(|(n, b)| (n.as_str(), b.clone()))
        .collect();
    files.push(("slow.jpg", jpeg(200, 200)));
    let edge = start(&files, "cache = \"variants\", workers = 1");
    get(&edge, "/slow.jpg", BOTH);
    std::thread::scope(|scope| {
        for crowd in pictures.chunks(30) {
            let edge = &edge;
            scope.spawn(move || {
                for (name, bytes) in crowd {
                    let reply = get(edge, &format!("/{name}"), "image/webp");
                    assert_eq!(&reply.body, bytes, "{name}");
                    assert!(edge.metric("tidegate_images_wanted") <= 257.0);
                }
            });
        }
    });
    await_idle(&edge);
    for (name, _) in &pictures {
        get(&edge, &format!("/{name}"), "image/webp");
    }
    await_idle(&edge);
    let (name, _) = &pictures[299];
    await_type(&edge, &format!("/{name}"), "image/webp", "image/webp");
}

/// A disk of two megabytes; `None` where this account may not mount one.
fn mount(folder: &Path) -> Option<Mounted<'_>> {
    let mut command = Command::new("mount");
    command
        .args(["-t", "tmpfs", "-o", "size=2m", "tmpfs"])
        .arg(folder);
    let done = command.status().is_ok_and(|status| status.success());
    done.then_some(Mounted(folder))
}

struct Mounted<'a>(&'a Path);

impl Drop for Mounted<'_> {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.0).status();
    }
}

#[test]
fn on_a_full_disk_the_files_are_served_and_one_line_says_why() {
    let folder = tempfile::tempdir().unwrap();
    let Some(_mounted) = mount(folder.path()) else {
        eprintln!("skipped: this account may not mount");
        return;
    };
    let filled = fs::write(folder.path().join("filler"), vec![1_u8; 3 << 20]);
    assert!(filled.is_err(), "the disk is full");
    let files = [("a.jpg", jpeg(120, 90)), ("b.jpg", jpeg(130, 90))];
    let images = format!("cache = \"{}\"", folder.path().display());
    let setup = files.iter().fold(Setup::new(), |setup, (name, bytes)| {
        setup.file(&format!("site/{name}"), bytes)
    });
    for (name, _) in &files {
        age(&setup.folder().join("site").join(name));
    }
    let edge = setup.start(&format!(
        "[static.site]\nroot = \"site\"\nimages = {{ {images} }}\n[[route]]\nstatic = \"site\"\n"
    ));
    for _ in 0..3 {
        for (name, bytes) in &files {
            assert_eq!(&get(&edge, &format!("/{name}"), "image/webp").body, bytes);
            await_idle(&edge);
        }
    }
    let said = edge.stderr();
    let lines = said.lines().filter(|line| line.contains("cannot be kept"));
    assert_eq!(lines.count(), 1, "{said}");
    assert_eq!(edge.metric("tidegate_images_total{result=\"made\"}"), 0.0);
}
