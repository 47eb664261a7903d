//! Whole directories, compressed and looked at.

use std::os::unix::fs::MetadataExt;

use super::*;

fn settings(root: &Path) -> Settings {
    Settings {
        root: root.to_owned(),
        formats: Encoding::ALL.to_vec(),
        jobs: NonZeroUsize::new(2).unwrap(),
        min_size: DEFAULT_MIN_SIZE,
        level: Level::Fast,
        previous: Vec::new(),
        work: Work::Write,
        dry: false,
    }
}

fn done(settings: &Settings) -> Report {
    let report = run(settings, &|_| (), &AtomicBool::new(false)).unwrap();
    assert_eq!(report.troubles, [""; 0]);
    assert!(!report.stopped);
    report
}

fn write(root: &Path, name: &str, content: impl AsRef<[u8]>) {
    let path = root.join(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, content).unwrap();
}

fn script(lines: usize, first: &str) -> String {
    let line = |at: usize| format!("export const value{at} = {};\n", at * 7_919 % 1_013);
    let lines: String = (0..lines).map(line).collect();
    format!("{first}\n{lines}")
}

/// Bytes that no format packs.
fn noise(length: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_u32;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        state.to_le_bytes()[1]
    };
    (0..length).map(|_| next()).collect()
}

fn names(root: &Path) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(root)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[test]
fn what_pays_gets_its_copies_and_a_second_run_writes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), "app.js", script(500, "a"));
    write(dir.path(), "small.js", "let a;");
    write(dir.path(), "noise.bin", noise(5_000));
    write(dir.path(), "photo.png", script(500, "b"));
    let report = done(&settings(dir.path()));
    assert_eq!((report.files, report.written), (2, 3));
    assert_eq!((report.current, report.useless), (0, 3));
    assert_eq!(report.formats["br"].copies, 1);
    let all = [
        "app.js",
        "app.js.br",
        "app.js.gz",
        "app.js.zst",
        "noise.bin",
        "photo.png",
        "small.js",
    ];
    assert_eq!(names(dir.path()), all);

    let inodes = |_: &()| {
        ["br", "zst", "gz"].map(|e| {
            dir.path()
                .join(format!("app.js.{e}"))
                .metadata()
                .unwrap()
                .ino()
        })
    };
    let before = inodes(&());
    let again = done(&settings(dir.path()));
    assert_eq!((again.written, again.current), (0, 3));
    assert_eq!(again.formats, report.formats);
    assert_eq!(inodes(&()), before);
}

#[test]
fn a_copy_that_no_longer_pays_is_taken_away() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), "app.js", script(500, "a"));
    done(&settings(dir.path()));
    write(dir.path(), "app.js", noise(5_000));
    let report = done(&settings(dir.path()));
    assert_eq!((report.useless, report.removed), (3, 3));
    assert_eq!(names(dir.path()), ["app.js"]);
}

#[test]
fn a_dry_run_measures_and_leaves_all_as_it_is() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), "app.js", script(500, "a"));
    let dry = Settings {
        dry: true,
        ..settings(dir.path())
    };
    let report = done(&dry);
    assert_eq!(report.written, 3);
    assert!(report.formats["gzip"].after < report.formats["gzip"].before / 2);
    assert_eq!(names(dir.path()), ["app.js"]);

    done(&settings(dir.path()));
    let removal = Settings {
        work: Work::Remove,
        ..dry
    };
    assert_eq!(done(&removal).removed, 3);
    assert_eq!(names(dir.path()).len(), 4);
}

#[test]
fn only_what_has_its_original_beside_it_is_removed() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), "app.js", script(500, "a"));
    write(dir.path(), "backup.sql.gz", "an archive of its own");
    done(&settings(dir.path()));
    let removal = Settings {
        work: Work::Remove,
        formats: vec![Encoding::Brotli, Encoding::Gzip],
        ..settings(dir.path())
    };
    assert_eq!(done(&removal).removed, 2);
    assert_eq!(names(dir.path()), ["app.js", "app.js.zst", "backup.sql.gz"]);
}

#[test]
fn differences_to_a_former_release_are_made_where_they_are_smaller_than_any_copy() {
    let dir = tempfile::tempdir().unwrap();
    let (old, new) = (dir.path().join("old"), dir.path().join("new"));
    write(&old, "js/app-0b1c2d3e.js", script(2_000, "one"));
    write(&old, "js/odd-0b1c2d3e.js", noise(40_000));
    write(&new, "js/app-3f9a1c2b.js", script(2_000, "two"));
    write(&new, "js/odd-3f9a1c2b.js", script(2_000, "odd"));
    write(&new, "js/app.js", script(2_000, "no hash"));
    let settings = Settings {
        previous: vec![old],
        ..settings(&new)
    };
    let report = done(&settings);
    let hash = Hash::of(script(2_000, "one").as_bytes());
    let deltas: Vec<_> = names(&new.join("js"))
        .into_iter()
        .filter(|n| n.contains(".dc"))
        .collect();
    let of_app = |delta| hash.sibling("app-3f9a1c2b.js", delta);
    assert_eq!(deltas, [of_app(Delta::Brotli), of_app(Delta::Zstd)]);
    for name in ["dcb", "dcz"] {
        let sum = report.formats[name];
        assert!(sum.copies == 1 && sum.after < 300, "{name}: {sum:?}");
    }
    assert_eq!(done(&settings).written, 0);
    let removal = Settings {
        work: Work::Remove,
        ..settings
    };
    done(&removal);
    assert_eq!(names(&new.join("js")).len(), 3);
}

#[test]
fn whoever_is_stopped_at_once_does_nothing() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), "app.js", script(500, "a"));
    let report = run(&settings(dir.path()), &|_| (), &AtomicBool::new(true)).unwrap();
    assert!(report.stopped && report.written == 0);
    assert_eq!(names(dir.path()), ["app.js"]);
}

#[test]
fn progress_ends_where_it_was_said_to() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), "app.js", script(500, "a"));
    write(dir.path(), "noise.bin", noise(5_000));
    let sums = Mutex::new((0, 0));
    let note = |progress| {
        let mut sums = sums.lock().unwrap();
        match progress {
            Progress::Begun(bytes) => sums.0 += bytes,
            Progress::Done(bytes) => sums.1 += bytes,
        }
    };
    run(&settings(dir.path()), &note, &AtomicBool::new(false)).unwrap();
    let (begun, done) = sums.into_inner().unwrap();
    assert!(begun > 0 && begun == done, "{begun} {done}");
}

#[test]
fn what_is_no_directory_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), "file", "x");
    for name in ["file", "none"] {
        let wrong = settings(&dir.path().join(name));
        assert!(
            run(&wrong, &|_| (), &AtomicBool::new(false)).is_err(),
            "{name}"
        );
    }
}
