//! Differences between releases (RFC 9842): through the real binary, by hand and by a browser.

use std::fs;
use std::io::Read as _;
use std::path::Path;
use std::process::Command;

use crate::compress::{compress, script};
use crate::support::tools::{Running, tool};
use crate::support::{Answer, Ask, Edge, Origin, Setup, wait};

const OLD: &str = "app-0b1c2d3e.js";
const NEW: &str = "app-3f9a1c2b.js";

fn old() -> String {
    format!("window.release = 1;\n{}", script(2_000, 1))
}

fn new() -> String {
    format!("window.release = 2;\n{}", script(2_000, 1))
}

/// A site whose current release has differences to the one before, which still answers.
fn site(setup: Setup, more: &str, arguments: &[&str]) -> Edge {
    let setup = setup
        .file("releases/1/app-0b1c2d3e.js", old())
        .file("releases/2/app-3f9a1c2b.js", new())
        .file("releases/2/plain.js", new());
    let releases = setup.folder().join("releases");
    std::os::unix::fs::symlink("2", releases.join("current")).unwrap();
    let previous = releases.join("1").display().to_string();
    let said = compress(
        &releases.join("2"),
        &[&["--previous", &previous], arguments].concat(),
    );
    assert_eq!(said.code, Some(0), "{said:?}");
    setup.start(&format!(
        "[static.site]\nroot = \"releases/current\"\nreleases = {{ keep = 1 }}\n\
         dictionaries = true\n{more}\n[[route]]\nstatic = \"site\"\n"
    ))
}

/// `Available-Dictionary` for a content.
fn offer(content: &str) -> String {
    let hash = static_server::dictionary::Hash::of(content.as_bytes());
    format!(":{}:", base64(hash.bytes()))
}

fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for chunk in bytes.chunks(3) {
        let at = |index: usize| u32::from(chunk.get(index).copied().unwrap_or(0));
        let bits = at(0) << 16 | at(1) << 8 | at(2);
        for digit in 0..4 {
            let index = usize::try_from(bits >> (18 - 6 * digit) & 63).unwrap();
            let letter = char::from(ALPHABET[index]);
            text.push(if digit > chunk.len() { '=' } else { letter });
        }
    }
    text
}

fn ask(target: &str, dictionary: &str, accept: &str) -> Ask {
    Ask::get(target)
        .field("Available-Dictionary", dictionary)
        .field("Accept-Encoding", accept)
}

#[test]
fn a_client_with_the_former_release_gets_the_difference() {
    let edge = site(Setup::new(), "", &[]);
    let first = edge.get(&format!("/{OLD}")).expect(200);
    assert_eq!(first.text(), old());
    assert_eq!(first.field("use-as-dictionary"), Some("match=\"app-*.js\""));
    assert_eq!(
        first.field("vary"),
        Some("accept-encoding, available-dictionary")
    );

    let target = format!("/{NEW}");
    // Twice: read anew, then from memory.
    for _ in 0..2 {
        let reply = edge
            .ask(&ask(&target, &offer(&old()), "gzip, br, dcz"))
            .expect(200);
        assert_eq!(reply.field("content-encoding"), Some("dcz"), "{reply:?}");
        assert_eq!(
            reply.field("content-type"),
            Some("text/javascript; charset=utf-8")
        );
        assert_eq!(
            reply.field("vary"),
            Some("accept-encoding, available-dictionary")
        );
        assert_eq!(reply.field("use-as-dictionary"), Some("match=\"app-*.js\""));
        assert!(
            reply
                .field("cache-control")
                .is_some_and(|value| value.contains("immutable"))
        );
        assert!(reply.body.len() < 300, "{} bytes", reply.body.len());
        let (head, stream) = reply.body.split_at(40);
        assert_eq!(head[..8], [0x5e, 0x2a, 0x4d, 0x18, 0x20, 0, 0, 0]);
        assert_eq!(base64(&head[8..]), offer(&old()).trim_matches(':'));
        let dictionary = old();
        let mut decoder = zstd::Decoder::with_ref_prefix(stream, dictionary.as_bytes()).unwrap();
        let mut read = String::new();
        decoder.read_to_string(&mut read).unwrap();
        assert_eq!(read, new());

        let tag = reply.field("etag").unwrap();
        let condition = ask(&target, &offer(&old()), "dcz").field("If-None-Match", tag);
        edge.ask(&condition).expect(304);
        let plain = edge
            .ask(&Ask::get(&target).field("Accept-Encoding", "br"))
            .expect(200);
        assert_ne!(plain.field("etag"), Some(tag));
    }
    let brotli = edge
        .ask(&ask(&target, &offer(&old()), "gzip, br, zstd, dcb, dcz"))
        .expect(200);
    assert_eq!(brotli.field("content-encoding"), Some("dcb"));
}

#[test]
fn whoever_has_another_dictionary_or_takes_none_gets_a_plain_copy() {
    let edge = site(Setup::new(), "", &[]);
    let target = format!("/{NEW}");
    for (dictionary, accept) in [
        (offer("another"), "br, dcb, dcz"),
        (offer(&old()), "br"),
        (offer(&old()), "br, dcz;q=0"),
        (":nonsense:".to_owned(), "br, dcz"),
    ] {
        let reply = edge.ask(&ask(&target, &dictionary, accept)).expect(200);
        assert_eq!(
            reply.field("content-encoding"),
            Some("br"),
            "{dictionary} {accept}"
        );
        assert_eq!(
            reply.field("vary"),
            Some("accept-encoding, available-dictionary")
        );
    }
    // Without a hash in its name a file is no dictionary, and there is no difference to it.
    let plain = edge
        .ask(&ask("/plain.js", &offer(&old()), "br, dcz"))
        .expect(200);
    assert_eq!(plain.field("content-encoding"), Some("br"));
    assert_eq!(plain.field("use-as-dictionary"), None);
    assert_eq!(plain.field("vary"), Some("accept-encoding"));
}

#[test]
fn nothing_is_said_of_dictionaries_unless_they_are_asked_for() {
    let edge = site(Setup::new(), "", &[]);
    edge.rewrite("[static.site]\nroot = \"releases/current\"\n[[route]]\nstatic = \"site\"\n");
    edge.reload(true);
    let reply = edge
        .ask(&ask(&format!("/{NEW}"), &offer(&old()), "br, dcz"))
        .expect(200);
    assert_eq!(reply.field("content-encoding"), Some("br"));
    assert_eq!(reply.field("use-as-dictionary"), None);
    assert_eq!(reply.field("vary"), Some("accept-encoding"));
}

/// A page that loads the old script, then asks for the new one until it came as a difference, or
/// it gives up; and tells the origin which.
const PAGE: &str = r#"<!doctype html><script>
const sleep = ms => new Promise(done => setTimeout(done, ms));
(async () => {
  await (await fetch('/app-0b1c2d3e.js')).text();
  let size = 0, text = '';
  for (let round = 0; round < 40; round++) {
    await sleep(250);
    const url = '/app-3f9a1c2b.js?' + round;
    text = await (await fetch(url)).text();
    size = performance.getEntriesByName(location.origin + url)[0].encodedBodySize;
    if (size < 1000) break;
  }
  const right = text.startsWith('window.release = 2;');
  await fetch(`/done?size=${size}&length=${text.length}&right=${right}`);
})().catch(error => fetch('/done?error=' + encodeURIComponent(error)));
</script>"#;

#[test]
fn a_browser_takes_the_difference_in_zstandard() {
    browse("dcz", "dcb");
}

#[test]
fn a_browser_takes_the_difference_in_brotli() {
    browse("dcb", "dcz");
}

/// Lets a browser go from one release to the next where only one kind of difference is there.
fn browse(kept: &str, removed: &str) {
    let chromium = tool!("chromium", "chromium");
    let origin = Origin::start(|_| Answer::ok("thanks"));
    let setup = Setup::new()
        .with("APP", origin.address)
        .file("releases/2/index.html", PAGE);
    let more = "[upstream.app]\nendpoints = [\"@APP@\"]\n\
                [[route]]\nmatch = { path_prefix = \"/done\" }\nupstream = \"app\"";
    let edge = site(setup, more, &[]);
    drop_differences(&edge.folder().join("releases/2"), removed);
    let mut command = Command::new(&chromium);
    command.args([
        "--headless=new",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-dev-shm-usage",
        "--no-first-run",
    ]);
    command.arg(format!(
        "--user-data-dir={}",
        edge.folder().join("profile").display()
    ));
    // Its crash reporter writes beside the profile, into the home folder.
    command.env("HOME", edge.folder());
    // A browser takes dictionaries from safe places alone; this machine is one.
    command.arg(format!("http://localhost:{}/", edge.http().port()));
    let _browser = Running::start(&mut command);
    let told = wait::until("the browser's word", wait::secs(90), || {
        origin.seen().pop().map(|seen| seen.target)
    });
    let length = new().len();
    assert!(
        told.ends_with(&format!("&length={length}&right=true")),
        "{kept}: {told}"
    );
    let size = told
        .strip_prefix("/done?size=")
        .and_then(|rest| rest.split('&').next());
    let size: usize = size.and_then(|size| size.parse().ok()).expect("a size");
    assert!(size < 1_000, "it got the whole script, no {kept}: {told}");
}

fn drop_differences(folder: &Path, ending: &str) {
    let mut removed = 0;
    for entry in fs::read_dir(folder).unwrap().flatten() {
        if entry.path().extension().is_some_and(|its| its == ending) {
            fs::remove_file(entry.path()).unwrap();
            removed += 1;
        }
    }
    assert_eq!(removed, 1);
}
