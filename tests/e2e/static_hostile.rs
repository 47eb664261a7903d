//! Paths that want out, files that are none, files that may not be read, and no descriptors left:
//! each gets its status, and the edge goes on.

use std::fs;
use std::io::Write;
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::sys::stat::{Mode, SFlag, mknod};
use nix::unistd::geteuid;

use crate::support::tools::tool;
use crate::support::{Ask, Edge, H2, Setup, wait};

const SITE: &str = "[static.site]\nroot = \"site\"\n[[route]]\nstatic = \"site\"\n";

/// A site of one page, with a secret beside it.
fn setup() -> Setup {
    Setup::new()
        .file("site/index.html", "home")
        .file("site/docs/page.html", "page")
        .file("secret.txt", "SECRET")
}

/// What is wrong with the answer to a path that is sent as it stands.
fn refused(edge: &Edge, target: &[u8], wrong: &mut Vec<String>) {
    let mut conn = edge.plain().patience(wait::secs(5));
    let head = [b"GET ", target, b" HTTP/1.1\r\nHost: shop.test\r\n\r\n"].concat();
    let shown = String::from_utf8_lossy(&target[..target.len().min(80)]).into_owned();
    match conn.send(head).read(false) {
        Ok(reply) if !matches!(reply.status, 400 | 404 | 414 | 431) => {
            wrong.push(format!("{shown}: {}", reply.status));
        }
        Ok(reply) if reply.text().contains("SECRET") || reply.text().contains("root:") => {
            wrong.push(format!("{shown}: {}", reply.text()));
        }
        Ok(_) => {}
        Err(broken) => wrong.push(format!("{shown}: {broken:?}")),
    }
}

#[test]
fn no_spelling_of_a_way_out_is_followed() {
    let edge = setup().start(SITE);
    let dots = [
        "..",
        "%2e%2e",
        ".%2e",
        "%2E.",
        "%252e%252e",
        "%c0%ae%c0%ae",
        "%c0%2e%c0%2e",
        "%e0%80%ae%e0%80%ae",
        "%f0%80%80%ae%f0%80%80%ae",
        "%u002e%u002e",
        "%uff0e%uff0e",
        "%ef%bc%8e%ef%bc%8e",
        "\u{2025}",
        "..;",
        "..;x=y",
        "...",
        "..%00",
        "..%20",
        "..%09",
        "..%0d%0a",
        "..%3f",
        "..%23",
    ];
    let slashes = [
        "/",
        "%2f",
        "%2F",
        "%252f",
        "\\",
        "%5c",
        "%255c",
        "%c0%af",
        "%c1%9c",
        "%e0%80%af",
        "%ef%bc%8f",
        "%u2215",
        "//",
        "/./",
    ];
    let mut wrong = Vec::new();
    let mut count = 0;
    for dots in dots {
        for slash in slashes {
            for target in [
                format!("/{dots}{slash}secret.txt"),
                format!("/docs{slash}{dots}{slash}{dots}{slash}secret.txt"),
            ] {
                count += 1;
                refused(&edge, target.as_bytes(), &mut wrong);
            }
        }
    }
    for target in [
        &b"/\xff\xfe"[..],
        b"/..\xc0\xafsecret.txt",
        b"/\x00",
        b"/index.html\x00.png",
        b"/index.html%00",
        b"/%00/index.html",
        b"http://shop.test/../secret.txt",
        b"http://shop.test/%2e%2e/secret.txt",
        b"file:///etc/passwd",
        b"/C:/secret.txt",
        b"/~root/secret.txt",
        b"/proc/self/environ",
    ] {
        count += 1;
        refused(&edge, target, &mut wrong);
    }
    assert!(count > 600, "only {count}");
    assert!(
        wrong.is_empty(),
        "{} wrong:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
    assert_eq!(edge.get("/").expect(200).text(), "home");
}

#[test]
fn a_name_of_ten_thousand_bytes_is_not_found() {
    let edge = setup().start(SITE);
    let mut wrong = Vec::new();
    for name in [
        "a".repeat(10_000),
        "a/".repeat(5_000),
        "%61".repeat(3_333),
        "../".repeat(3_333),
    ] {
        refused(&edge, format!("/{name}").as_bytes(), &mut wrong);
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    edge.get("/").expect(200);
}

/// Makes links that lead out, in circles, or to what is no file.
fn links(folder: &Path) {
    let site = folder.join("site");
    let secret = folder.join("secret.txt");
    for (name, target) in [
        ("out", PathBuf::from("../secret.txt")),
        ("far", secret),
        ("docs/further", PathBuf::from("../../secret.txt")),
        ("folder", PathBuf::from("..")),
        ("one", PathBuf::from("two")),
        ("two", PathBuf::from("one")),
        ("itself", PathBuf::from("itself/index.html")),
        ("magic", PathBuf::from("/proc/self/root/etc/passwd")),
        ("cwd", PathBuf::from("/proc/self/cwd/secret.txt")),
        ("fd", PathBuf::from("/proc/self/fd/0")),
        ("null", PathBuf::from("/dev/null")),
        ("zero", PathBuf::from("/dev/zero")),
        ("loop-out", PathBuf::from("docs/../../site/../secret.txt")),
    ] {
        symlink(target, site.join(name)).unwrap();
    }
    // Longer than the kernel follows (40).
    for at in 0..60 {
        let next = match at {
            59 => "index.html".to_owned(),
            _ => format!("chain-{}", at + 1),
        };
        symlink(next, site.join(format!("chain-{at}"))).unwrap();
    }
}

#[test]
fn links_that_lead_out_or_in_circles_are_not_found() {
    let setup = setup();
    links(setup.folder());
    let edge = setup.start(SITE);
    for target in [
        "/out",
        "/far",
        "/docs/further",
        "/folder/secret.txt",
        "/folder/",
        "/folder",
        "/one",
        "/itself",
        "/magic",
        "/cwd",
        "/fd",
        "/null",
        "/zero",
        "/loop-out",
        "/chain-0",
    ] {
        for reply in [
            edge.get(target),
            H2::plain(edge.http()).ask(&Ask::get(target)),
        ] {
            assert_eq!(reply.status, 404, "{target}: {reply:?}");
        }
    }
    assert_eq!(edge.get("/chain-50").expect(200).text(), "home");
}

#[test]
fn pipes_sockets_and_devices_are_not_found_and_hold_nobody_up() {
    let setup = setup();
    let site = setup.folder().join("site");
    let owner = Mode::S_IRUSR | Mode::S_IWUSR;
    mknod(&site.join("pipe"), SFlag::S_IFIFO, owner, 0).unwrap();
    let _socket = UnixListener::bind(site.join("socket")).unwrap();
    let mut names = vec!["pipe", "socket"];
    // /dev/zero, and a disk that is none.
    for (name, kind, number) in [
        ("zero", SFlag::S_IFCHR, nix::sys::stat::makedev(1, 5)),
        ("disk", SFlag::S_IFBLK, nix::sys::stat::makedev(7, 200)),
    ] {
        match mknod(&site.join(name), kind, owner, number) {
            Ok(()) => names.push(name),
            Err(error) => {
                let _ = writeln!(std::io::stderr(), "SKIPPED {name}: no device here: {error}");
            }
        }
    }
    let edge = setup.start(SITE);
    for name in names {
        for method in ["GET", "HEAD"] {
            let ask = Ask::new(method, &format!("/{name}"));
            let mut conn = edge.plain().patience(wait::secs(5));
            conn.send(ask.bytes());
            let reply = conn.read(method == "HEAD").unwrap();
            assert_eq!(reply.status, 404, "{method} {name}");
        }
    }
    edge.get("/").expect(200);
}

/// Gives `folder` and all in it to somebody.
fn give(folder: &Path, to: u32) {
    chown(folder, Some(to), Some(to)).unwrap();
    for entry in fs::read_dir(folder).unwrap().flatten() {
        match entry.file_type().unwrap().is_dir() {
            true => give(&entry.path(), to),
            false => chown(entry.path(), Some(to), Some(to)).unwrap(),
        }
    }
}

#[test]
fn what_may_not_be_read_is_forbidden_and_nothing_is_said_of_it() {
    const NOBODY: u32 = 65_534;
    let setpriv = tool!("setpriv", "util-linux");
    let mut setup = setup()
        .file("site/shut.html", "SECRET")
        .file("site/shut/page.html", "SECRET")
        .file("site/shut.css", "body {}")
        .file("site/shut.css.gz", "SECRET");
    let site = setup.folder().join("site");
    // Root may read everything, so that somebody else has to serve.
    if geteuid().is_root() {
        let setpriv = setpriv.display().to_string();
        let nobody = NOBODY.to_string();
        let user = ["--reuid", &nobody, "--regid", &nobody, "--clear-groups"];
        setup = setup.through(&[&[setpriv.as_str()][..], &user].concat());
        give(setup.folder(), NOBODY);
    }
    for shut in ["shut.html", "shut", "shut.css.gz"] {
        fs::set_permissions(site.join(shut), fs::Permissions::from_mode(0o000)).unwrap();
    }
    setup.write(SITE);
    if geteuid().is_root() {
        give(setup.folder(), NOBODY);
    }
    let edge = setup.start(&format!("{SITE}\n"));
    for target in ["/shut.html", "/shut/page.html"] {
        let reply = edge.get(target).expect(403);
        assert!(!reply.text().contains("shut"), "{reply:?}");
    }
    let css = Ask::get("/shut.css").field("Accept-Encoding", "gzip");
    let reply = edge.ask(&css).expect(200);
    assert_eq!(
        reply.text(),
        "body {}",
        "the file itself is as good as its copy"
    );
    assert_eq!(edge.get("/").expect(200).text(), "home");
    // So that the folder can be removed.
    fs::set_permissions(site.join("shut"), fs::Permissions::from_mode(0o755)).unwrap();
}

/// More than there can be descriptors.
const FILES: usize = 400;

#[test]
fn without_descriptors_a_file_is_unavailable_and_comes_back() {
    let mut setup = setup();
    for at in 0..FILES {
        setup = setup.file(&format!("site/file-{at}.txt"), "a file");
    }
    let sh = ["sh", "-c", "ulimit -n 120; exec \"$@\"", "sh"];
    let edge = setup.through(&sh).start(SITE);
    let mut conn = edge.plain();
    conn.ask(&Ask::get("/file-0.txt")).expect(200);

    // Each connection takes a descriptor, and each file that is not in memory needs one.
    let mut idle = Vec::new();
    wait::eventually("no descriptor to be left", wait::secs(20), || {
        idle.push(std::net::TcpStream::connect(edge.http()).unwrap());
        let at = idle.len();
        assert!(at < FILES, "there is always one left");
        let reply = conn.ask(&Ask::get(&format!("/file-{at}.txt")));
        assert!(matches!(reply.status, 200 | 503), "{reply:?}");
        if reply.status == 503 {
            assert_eq!(reply.field("retry-after"), Some("1"));
        }
        reply.status == 503
    });
    assert_eq!(
        conn.ask(&Ask::get("/file-0.txt")).status,
        200,
        "what is in memory is served"
    );

    drop(idle);
    wait::eventually("descriptors again", wait::secs(20), || {
        conn.ask(&Ask::get(&format!("/file-{}.txt", FILES - 1)))
            .status
            == 200
    });
    edge.get(&format!("/file-{}.txt", FILES - 2)).expect(200);
}

#[test]
fn a_hard_link_is_a_file_like_any_other() {
    let setup = setup();
    let (from, to) = (
        setup.folder().join("secret.txt"),
        setup.folder().join("site/hard.txt"),
    );
    fs::hard_link(from, to).unwrap();
    // The system knows no difference, so there is nothing to refuse by.
    setup.start(SITE).get("/hard.txt").expect(200);
}

#[test]
fn the_static_command_refuses_the_same() {
    let setup = setup();
    links(setup.folder());
    let address = crate::support::ports::free();
    let mut command = Command::new(crate::support::edge::binary());
    command.arg("static").arg(setup.folder().join("site"));
    command.arg("--listen").arg(address.to_string());
    let _server = crate::support::tools::Running::start(&mut command);
    wait::eventually("the listener", wait::SOON, || {
        std::net::TcpStream::connect(address).is_ok()
    });
    let shown = crate::support::client::once(address, &Ask::get("/").field("Accept", "x/y"));
    assert_eq!(shown.expect(200).text(), "home");
    for target in [
        "/out",
        "/far",
        "/folder/",
        "/magic",
        "/zero",
        "/one",
        "/%2e%2e/secret.txt",
    ] {
        let reply = crate::support::client::once(address, &Ask::get(target));
        assert!(matches!(reply.status, 400 | 404), "{target}: {reply:?}");
    }
}
