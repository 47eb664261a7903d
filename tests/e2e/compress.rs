//! `tidegate compress`: what it writes decodes to what it read, and is what a site serves.

use std::fs;
use std::io::Read as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::Command;

use nix::sys::signal::Signal;
use tempfile::TempDir;

use crate::cache_disk::Tmpfs;
use crate::support::edge::binary;
use crate::support::tools::{Finished, Running, run};
use crate::support::{Ask, Setup, wait};

/// A script that packs well, and is another for each `seed`.
pub(crate) fn script(lines: usize, seed: usize) -> String {
    let line = |at: usize| format!("export const value{at} = {};\n", at * 7_919 % (seed + 997));
    (0..lines).map(line).collect()
}

/// Bytes that nothing packs.
fn noise(length: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()[3]
    };
    (0..length).map(|_| next()).collect()
}

pub(crate) fn compress(folder: &Path, arguments: &[&str]) -> Finished {
    let mut command = Command::new(binary());
    run(
        command.arg("compress").arg(folder).args(arguments),
        wait::secs(120),
    )
}

fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).unwrap();
    let name = |entry: Result<fs::DirEntry, _>| entry.unwrap().file_name().into_string().unwrap();
    let mut names: Vec<String> = entries.map(name).collect();
    names.sort();
    names
}

fn unpacked(ending: &str, packed: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    match ending {
        "br" => brotli::BrotliDecompress(&mut &*packed, &mut out).unwrap(),
        "zst" => zstd::stream::copy_decode(packed, &mut out).unwrap(),
        _ => {
            flate2::read::GzDecoder::new(packed)
                .read_to_end(&mut out)
                .unwrap();
        }
    }
    out
}

fn folder(files: &[(&str, Vec<u8>)]) -> TempDir {
    let folder = TempDir::with_prefix("tidegate-test-").unwrap();
    for (path, content) in files {
        let path = folder.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }
    folder
}

#[test]
fn copies_decode_to_their_original_and_a_second_run_writes_nothing() {
    let dir = folder(&[
        ("app.js", script(400, 1).into_bytes()),
        ("css/site.css", script(300, 2).into_bytes()),
        ("noise.bin", noise(20_000)),
        ("photo.png", script(300, 3).into_bytes()),
        ("tiny.js", b"let a;".to_vec()),
    ]);
    let said = compress(dir.path(), &["--jobs", "2"]);
    assert_eq!(said.code, Some(0), "{said:?}");
    let wanted = "3 files: 6 copies written, 0 up to date, 3 not worth it; br ";
    assert!(said.stdout.starts_with(wanted), "{said:?}");
    assert_eq!(said.stdout.lines().count(), 1, "{said:?}");
    assert_eq!(said.stderr, "", "nobody looks on");
    for original in ["app.js", "css/site.css"] {
        let original = dir.path().join(original);
        for ending in ["br", "zst", "gz"] {
            let copy = format!("{}.{ending}", original.display());
            let (packed, content) = (fs::read(&copy).unwrap(), fs::read(&original).unwrap());
            assert!(packed.len() * 2 < content.len(), "{copy}");
            assert!(unpacked(ending, &packed) == content, "{copy}");
        }
    }
    let there = ["app.js", "app.js.br", "app.js.gz", "app.js.zst", "css"];
    assert_eq!(names(dir.path())[..5], there);
    assert_eq!(names(dir.path()).len(), 8);

    let again = compress(dir.path(), &[]);
    let wanted = "3 files: 0 copies written, 6 up to date, 3 not worth it; br ";
    assert!(again.stdout.starts_with(wanted), "{again:?}");

    fs::write(dir.path().join("app.js"), script(500, 9)).unwrap();
    let changed = compress(dir.path(), &["--formats", "br,gz"]);
    let wanted = "3 files: 2 copies written, 2 up to date, 2 not worth it; br ";
    assert!(changed.stdout.starts_with(wanted), "{changed:?}");
    let copy = fs::read(dir.path().join("app.js.br")).unwrap();
    assert_eq!(unpacked("br", &copy), script(500, 9).as_bytes());

    let removed = compress(dir.path(), &["--remove"]);
    assert_eq!(removed.stdout, "6 copies removed\n");
    assert_eq!(
        names(dir.path()),
        ["app.js", "css", "noise.bin", "photo.png", "tiny.js"]
    );
}

#[test]
fn what_was_compressed_ahead_is_what_a_client_gets() {
    let content = script(400, 1);
    let setup = Setup::new().file("site/app.js", &content);
    let said = compress(&setup.folder().join("site"), &[]);
    assert_eq!(said.code, Some(0), "{said:?}");
    let edge = setup.start("[static.site]\nroot = \"site\"\n[[route]]\nstatic = \"site\"\n");
    for (accept, coding, ending) in [
        ("br, zstd, gzip", "br", "br"),
        ("zstd, gzip", "zstd", "zst"),
        ("gzip", "gzip", "gz"),
    ] {
        let ask = Ask::get("/app.js").field("Accept-Encoding", accept);
        let reply = edge.ask(&ask).expect(200);
        assert_eq!(reply.field("content-encoding"), Some(coding));
        assert_eq!(
            unpacked(ending, &reply.body),
            content.as_bytes(),
            "{accept}"
        );
    }
}

/// Runs as somebody who may not read everything, where the tests run as root.
fn compress_as_nobody(folder: &Path) -> Finished {
    const NOBODY: u32 = 65_534;
    fs::set_permissions(folder, fs::Permissions::from_mode(0o777)).unwrap();
    let mut command = Command::new(binary());
    command.arg("compress").arg(folder);
    if fs::metadata("/proc/self").is_ok_and(|process| process.uid() == 0) {
        command.uid(NOBODY).gid(NOBODY);
    }
    run(&mut command, wait::secs(60))
}

#[test]
fn a_file_that_cannot_be_read_is_named_and_the_others_go_on() {
    let dir = folder(&[
        ("secret.js", script(200, 1).into_bytes()),
        ("app.js", script(200, 2).into_bytes()),
    ]);
    let secret = dir.path().join("secret.js");
    fs::set_permissions(&secret, fs::Permissions::from_mode(0o000)).unwrap();
    let said = compress_as_nobody(dir.path());
    assert_eq!(said.code, Some(1), "{said:?}");
    let wanted = "secret.js: Permission denied (os error 13)\n";
    assert_eq!(said.stderr.matches(wanted).count(), 1, "once: {said:?}");
    assert!(said.stderr.ends_with("error: 1 thing failed\n"), "{said:?}");
    assert_eq!(
        names(dir.path()),
        [
            "app.js",
            "app.js.br",
            "app.js.gz",
            "app.js.zst",
            "secret.js"
        ]
    );
}

#[test]
fn a_full_disk_is_named_and_leaves_nothing_half_written() {
    let Some(disk) = Tmpfs::mount() else {
        return;
    };
    // Packs to two thirds: the copies have no room beside it.
    let hex = noise(700_000)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect::<String>();
    fs::write(disk.path().join("a.js"), &hex).unwrap();
    fs::write(disk.path().join("b.js"), script(100, 1)).unwrap();
    let said = compress(disk.path(), &["--level", "fast", "--jobs", "1"]);
    assert_eq!(said.code, Some(1), "{said:?}");
    assert!(
        said.stderr.contains("a.js: No space left on device"),
        "{said:?}"
    );
    let names = names(disk.path());
    for name in ["b.js.br", "b.js.gz", "b.js.zst"] {
        assert!(names.iter().any(|there| there == name), "{names:?}");
    }
    assert!(!names.iter().any(|name| name.starts_with('.')), "{names:?}");
    for (name, ending) in names
        .iter()
        .filter_map(|n| Some((n, n.strip_prefix("a.js.")?)))
    {
        let packed = fs::read(disk.path().join(name)).unwrap();
        assert!(
            unpacked(ending, &packed) == hex.as_bytes(),
            "{name} is not whole"
        );
    }
}

#[test]
fn whoever_interrupts_finds_nothing_half_written() {
    let hex = noise(3_000_000)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect::<String>();
    let dir = folder(&[
        ("a.js", hex.clone().into_bytes()),
        ("b.js", hex.into_bytes()),
    ]);
    let mut command = Command::new(binary());
    let mut running = Running::start(command.arg("compress").arg(dir.path()));
    wait::eventually("a copy is being written", wait::secs(30), || {
        names(dir.path()).iter().any(|name| name.starts_with('.'))
    });
    running.signal(Signal::SIGINT);
    assert_eq!(
        running.wait(wait::secs(60)),
        Some(1),
        "{}",
        running.stderr()
    );
    running.await_stderr("stopped before the end");
    let names = names(dir.path());
    assert!(!names.iter().any(|name| name.starts_with('.')), "{names:?}");
}

#[test]
fn wrong_use_is_told_before_anything_is_done() {
    let dir = folder(&[("file", b"x".to_vec())]);
    for (folder, arguments) in [
        (dir.path().join("none"), &[][..]),
        (dir.path().join("file"), &[]),
        (dir.path().to_owned(), &["--previous", "/none"]),
        (dir.path().to_owned(), &["--min-size", "256"]),
    ] {
        let said = compress(&folder, arguments);
        assert_eq!(said.code, Some(2), "{said:?}");
        assert!(said.stderr.contains("error: "), "{said:?}");
    }
}
