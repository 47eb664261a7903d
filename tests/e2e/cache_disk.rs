//! The disk tier through the real binary: restarts, kills, damage, a full disk.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use nix::sys::signal::Signal;

use crate::cache::counting;
use crate::support::{Answer, Ask, Edge, Origin, Setup, wait};

/// An edge whose disk tier is the folder `cache` beside its configuration.
fn with_disk(origin: &Origin, disk: &str) -> Edge {
    with_memory(origin, "8MiB", disk)
}

fn with_memory(origin: &Origin, memory: &str, disk: &str) -> Edge {
    Setup::new().with("APP", origin.address).start(&format!(
        r#"
        [upstream.app]
        endpoints = ["@APP@"]
        outlier_detection = false
        [cache]
        memory = "{memory}"
        disk = {{ path = "{disk}", size = "64MiB" }}
        [[route]]
        name = "pages"
        upstream = "app"
        cache = {{}}
        "#
    ))
}

/// A body that only this target can have, of a length of its own.
fn body_of(target: &str) -> Vec<u8> {
    let seed = target.bytes().fold(7_usize, |sum, byte| {
        sum.wrapping_mul(31).wrapping_add(usize::from(byte))
    });
    let line = format!("{target} {seed}\n");
    line.repeat(1 + seed % 4000).into_bytes()
}

fn pages() -> Origin {
    Origin::start(|seen| {
        Answer::fresh(3600, body_of(&seen.target)).field("Surrogate-Key", &seen.target[1..])
    })
}

fn written(edge: &Edge, least: f64) {
    edge.await_metric("tidegate_cache_disk_writes_total", least);
}

#[test]
fn a_restart_comes_back_warm_and_says_that_the_page_is_from_the_disk() {
    let origin = pages();
    let mut edge = with_disk(&origin, "cache");
    for number in 0..20 {
        edge.get(&format!("/{number}")).expect(200);
    }
    for signal in [Signal::SIGTERM, Signal::SIGKILL] {
        edge.restart(signal);
        for number in 0..20 {
            let target = format!("/{number}");
            let reply = edge.get(&target).expect(200);
            assert!(reply.is_hit(), "{signal}: {reply:?}");
            assert!(reply.cache_status().contains("detail=disk"), "{reply:?}");
            assert_eq!(reply.body, body_of(&target));
            let again = edge.get(&target).expect(200);
            assert!(!again.cache_status().contains("detail=disk"), "{again:?}");
        }
        assert_eq!(edge.metric("tidegate_cache_disk_objects"), 20.0);
    }
    assert_eq!(origin.count(), 20);
    let found = edge.json("/cache/inspect?url=http://shop.test/3");
    assert_eq!(found["stored"][0]["tier"], "memory");
    assert_eq!(found["stored"][0]["tags"][0], "3");
}

#[test]
fn a_purge_outlives_a_kill() {
    let origin = pages();
    let mut edge = with_disk(&origin, "cache");
    for target in ["/url", "/tagged", "/prefix/a", "/posted", "/kept"] {
        edge.get(target).expect(200);
    }
    written(&edge, 5.0);
    edge.ask(&Ask::new("POST", "/posted")).expect(200);
    for (query, objects) in [
        ("url=http://shop.test/url", 1),
        ("tag=tagged", 1),
        ("prefix=http://shop.test/prefix/", 1),
    ] {
        let reply = edge.command(&format!("/cache/purge?{query}")).expect(200);
        let said = format!("\"purged\": {objects}");
        assert!(reply.text().contains(&said), "{query}: {}", reply.text());
    }
    // The notes are written by the same thread, after what came before.
    edge.get("/last").expect(200);
    written(&edge, 6.0);
    edge.restart(Signal::SIGKILL);
    for (target, hit) in [
        ("/url", false),
        ("/tagged", false),
        ("/prefix/a", false),
        ("/posted", false),
        ("/kept", true),
        ("/last", true),
    ] {
        assert_eq!(edge.get(target).expect(200).is_hit(), hit, "{target}");
    }
}

#[test]
fn two_hundred_kills_in_the_middle_of_writes_leave_only_whole_pages() {
    const ROUNDS: usize = 200;
    const PAGES: u64 = 400;
    let origin = pages();
    let mut edge = with_memory(&origin, "1MiB", "cache");
    let from_disk = Arc::new(AtomicUsize::new(0));
    for round in 0..ROUNDS {
        let address = edge.http();
        let clients: Vec<_> = (0..3)
            .map(|client| {
                let from_disk = Arc::clone(&from_disk);
                let mut conn = edge.plain();
                std::thread::spawn(move || {
                    let mut nth = (round * 7919 + client * 131) as u64;
                    loop {
                        nth = nth
                            .wrapping_mul(6_364_136_223_846_793_005)
                            .wrapping_add(1_442_695);
                        let target = format!("/{}", (nth >> 33) % PAGES);
                        conn.send(Ask::get(&target).bytes());
                        // Killed in between, which must not show in what came whole.
                        let Ok(reply) = conn.read(false) else { return };
                        assert_eq!(reply.status, 200);
                        assert_eq!(reply.body, body_of(&target), "round {round} at {address}");
                        if reply.cache_status().contains("detail=disk") {
                            from_disk.fetch_add(1, Ordering::Relaxed);
                        }
                    }
                })
            })
            .collect();
        // From a few writes to some hundreds.
        wait::hold(wait::millis(5 + (round as u64 * 37) % 60));
        edge.restart(Signal::SIGKILL);
        for client in clients {
            client.join().expect("only whole pages");
        }
    }
    let from_disk = from_disk.load(Ordering::Relaxed);
    assert!(
        from_disk > ROUNDS,
        "only {from_disk} pages came from the disk"
    );
}

#[test]
fn flipped_bytes_are_misses_that_are_counted() {
    let origin = pages();
    let mut edge = with_disk(&origin, "cache");
    for number in 0..30 {
        edge.get(&format!("/{number}")).expect(200);
    }
    written(&edge, 30.0);
    edge.signal(Signal::SIGKILL);
    edge.wait(wait::SOON);
    for file in files(&edge.folder().join("cache")) {
        let mut bytes = fs::read(&file).unwrap();
        for at in (500..bytes.len()).step_by(300_000) {
            bytes[at] ^= 1;
        }
        fs::write(&file, bytes).unwrap();
    }
    edge.restart(Signal::SIGKILL);
    let mut hits = 0;
    for number in 0..30 {
        let target = format!("/{number}");
        let reply = edge.get(&target).expect(200);
        assert_eq!(reply.body, body_of(&target));
        hits += usize::from(reply.is_hit());
    }
    assert!(hits < 30, "some were damaged");
    assert!(edge.metric("tidegate_cache_disk_damaged_total") > 0.0);
}

#[test]
fn a_removed_folder_and_a_full_disk_fail_no_request() {
    let origin = pages();
    let edge = with_disk(&origin, "cache");
    edge.get("/a").expect(200);
    written(&edge, 1.0);
    fs::remove_dir_all(edge.folder().join("cache")).unwrap();
    for number in 0..10 {
        let target = format!("/{number}");
        assert_eq!(edge.get(&target).expect(200).body, body_of(&target));
    }
    written(&edge, 11.0);
    let Some(full) = Tmpfs::mount() else { return };
    let edge = with_memory(&origin, "1MiB", full.0.to_str().unwrap());
    let all = || {
        for number in 0..200 {
            let target = format!("/full/{number}");
            assert_eq!(edge.get(&target).expect(200).body, body_of(&target));
        }
    };
    all();
    written(&edge, 100.0);
    assert!(edge.metric("tidegate_cache_disk_objects") < 100.0);
    assert_eq!(
        edge.metric("tidegate_cache_disk_write_errors_total"),
        0.0,
        "the oldest makes way"
    );
    // Others take all there is, and what is given up for a write.
    let mut hog = fs::File::create(full.0.join("hog")).unwrap();
    let mut number = 0;
    wait::eventually("a write that cannot be", wait::SOON, || {
        while hog.write_all(&[0; 4096]).is_ok() {}
        let target = format!("/full/{}", number % 200);
        assert_eq!(edge.get(&target).expect(200).body, body_of(&target));
        number += 1;
        edge.metric("tidegate_cache_disk_write_errors_total") > 0.0
    });
    edge.await_stderr("disk tier cannot be written");
}

#[test]
fn many_clients_for_one_page_on_the_disk_read_it_once() {
    let origin = pages();
    let mut edge = with_disk(&origin, "cache");
    edge.get("/a").expect(200);
    edge.restart(Signal::SIGTERM);
    let mut conns: Vec<_> = (0..50).map(|_| edge.plain()).collect();
    for conn in &mut conns {
        conn.send(Ask::get("/a").bytes());
    }
    for conn in &mut conns {
        assert_eq!(conn.reply().expect(200).body, body_of("/a"));
    }
    assert_eq!(edge.metric("tidegate_cache_disk_reads_total"), 1.0);
    assert_eq!(origin.count(), 1);
}

#[test]
fn what_the_disk_alone_has_is_refreshed_behind_the_scenes() {
    let origin = Origin::start(|seen| {
        let control = match seen.nth {
            0 => "max-age=0, stale-while-revalidate=600",
            _ => "max-age=600",
        };
        // More than an eighth of the memory.
        let body = seen.nth.to_string().repeat(300_000);
        Answer::ok(body).field("Cache-Control", control)
    });
    let edge = with_memory(&origin, "1MiB", "cache");
    edge.get("/a").expect(200);
    written(&edge, 1.0);
    let stale = edge.get("/a").expect(200);
    assert_eq!(&stale.text()[..1], "0", "{}", stale.cache_status());
    wait::eventually("the new page", wait::SOON, || {
        let reply = edge.get("/a").expect(200);
        reply.text().starts_with('1') && reply.cache_status().contains("detail=disk")
    });
    assert_eq!(origin.count(), 2);
}

#[test]
fn a_change_of_the_disk_wants_a_restart_and_another_process_is_refused() {
    let origin = counting(|_, a| a.field("Cache-Control", "max-age=60"));
    let edge = with_disk(&origin, "cache");
    let text = fs::read_to_string(edge.folder().join("tidegate.toml")).unwrap();
    fs::write(
        edge.folder().join("tidegate.toml"),
        text.replace("64MiB", "128MiB"),
    )
    .unwrap();
    edge.reload(false);
    edge.await_stderr("needs a restart");
    let folder = edge.folder().join("cache");
    let setup = Setup::new().with("APP", origin.address);
    let file = setup.write(&format!(
        "[upstream.app]\nendpoints = [\"@APP@\"]\n[cache]\n\
         disk = {{ path = \"{}\", size = \"64MiB\" }}\n[[route]]\nupstream = \"app\"\ncache = {{}}\n",
        folder.display()
    ));
    let mut command = Command::new(crate::support::edge::binary());
    command.arg("run").arg("--config").arg(file);
    let said = crate::support::tools::run(&mut command, wait::SOON);
    assert_ne!(said.code, Some(0));
    assert!(said.stderr.contains("another process"), "{said:?}");
}

fn files(folder: &Path) -> Vec<PathBuf> {
    fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.metadata().is_ok_and(|facts| facts.len() > 1000))
        .collect()
}

/// A disk of two megabytes; `None` where this account may not mount one.
pub(crate) struct Tmpfs(PathBuf, tempfile::TempDir);

impl Tmpfs {
    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    pub(crate) fn mount() -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("disk");
        fs::create_dir(&path).unwrap();
        let done = Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=2m", "tmpfs"])
            .arg(&path)
            .status();
        done.is_ok_and(|status| status.success())
            .then(|| Self(path, folder))
    }
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
        let _ = &self.1;
    }
}
