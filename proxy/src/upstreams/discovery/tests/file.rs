//! Lists in files: what is seen of changes, and what of mistakes.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::time::Duration;

use conf::Discovery;
use tempfile::TempDir;

use super::super::{MOST, Part, Source, Trouble};
use super::{ids, listed, until, until_ids};

fn watched(folder: &TempDir, name: &str, text: &str) -> (std::path::PathBuf, Source) {
    let path = folder.path().join(name);
    fs::write(&path, text).expect("written");
    let source = listed(Discovery::File(path.clone()), &[]);
    (path, source)
}

fn replace(path: &Path, text: &str) {
    let new = path.with_extension("new");
    fs::write(&new, text).expect("written");
    fs::rename(new, path).expect("renamed");
}

#[tokio::test]
async fn a_file_is_followed_through_replacement_and_mistakes() {
    let folder = tempfile::tempdir().expect("a folder");
    let (path, mut source) = watched(&folder, "app.toml", "endpoints = [\"10.0.0.1:80\"]\n");
    assert!(!source.is_fixed());
    let found = source.look_up().await.expect("the list");
    assert_eq!(ids(&found), ["10.0.0.1:80"]);
    let again = found.again_in;
    assert!(again > Duration::from_millis(500) && again <= Duration::from_secs(1));

    replace(&path, "endpoints = [\"10.0.0.2:80\"]\n");
    until_ids(&mut source, &["10.0.0.2:80"]).await;

    // The same length in the same moment as the last change: the time alone tells nothing.
    fs::write(&path, "endpoints = [\"10.0.0.3:80\"]\n").expect("written");
    until_ids(&mut source, &["10.0.0.3:80"]).await;

    fs::write(&path, "endpoints = [\n\"10.0.0.4:80\",\n").expect("half");
    let failed = until(&mut source, "an error", |looked| {
        looked
            .as_ref()
            .is_ok_and(|found| !found.failures.is_empty())
    });
    let found = failed.await.expect("the last known");
    assert_eq!(ids(&found), ["10.0.0.3:80"]);
    let failure = &found.failures[0];
    assert_eq!(failure.kind(), Trouble::BadDocument);
    assert_eq!(failure.part(), &Part::File(path.clone()));
    let text = failure.to_string();
    assert!(text.contains("line 3") || text.contains("line 2"), "{text}");
    assert!(text.contains("column"), "{text}");

    fs::write(&path, "endpoints = [\n\"10.0.0.4:80\",\n]\n").expect("whole");
    let found = until_ids(&mut source, &["10.0.0.4:80"]).await;
    assert!(found.failures.is_empty());

    fs::remove_file(&path).expect("removed");
    let failed = until(&mut source, "an error", |looked| {
        looked
            .as_ref()
            .is_ok_and(|found| !found.failures.is_empty())
    });
    let found = failed.await.expect("the last known");
    assert_eq!(ids(&found), ["10.0.0.4:80"]);
    assert_eq!(found.failures[0].kind(), Trouble::NotFound);

    replace(&path, "endpoints = []\n");
    let failed = until(&mut source, "an error", |looked| {
        looked.as_ref().is_ok_and(|found| {
            let mut failures = found.failures.iter();
            failures.any(|failure| failure.to_string().contains("no endpoint"))
        })
    });
    assert_eq!(ids(&failed.await.expect("the last known")), ["10.0.0.4:80"]);
}

#[tokio::test]
async fn a_mistake_that_stays_in_a_file_is_reported_as_no_news() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("app.json");
    let real = folder.path().join("real.json");
    fs::write(&real, "[\"10.0.0.1\"]").expect("written");
    let long_ago = std::time::SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000);
    let open = fs::File::options().write(true).open(&real).expect("open");
    open.set_modified(long_ago).expect("set");
    // As Kubernetes mounts its ConfigMaps.
    symlink(&real, &path).expect("linked");
    let mut source = listed(Discovery::File(path.clone()), &["10.9.9.9:80"]);
    let first = source.look_up().await.expect("the configured one");
    assert_eq!(ids(&first), ["10.9.9.9:80"]);
    assert!(!first.failures[0].is_repeated() && first.failures[0].is_definite());
    let second = until(&mut source, "tried again", |looked| {
        looked
            .as_ref()
            .is_ok_and(|found| !found.failures.is_empty())
    });
    assert!(second.await.expect("as before").failures[0].is_repeated());

    fs::write(&real, "[\"10.0.0.2:80\"]").expect("written");
    until_ids(&mut source, &["10.9.9.9:80", "10.0.0.2:80"]).await;

    // An empty list is the writer's word where there are endpoints beside it.
    replace(&path, "[]");
    until_ids(&mut source, &["10.9.9.9:80"]).await;
}

#[tokio::test]
async fn names_in_a_file_are_looked_up_and_duplicates_taken_once() {
    let folder = tempfile::tempdir().expect("a folder");
    let text = "[{\"address\": \"localhost:81\", \"weight\": 7}, \"127.0.0.1:80\"]";
    let path = folder.path().join("app.json");
    fs::write(&path, text).expect("written");
    let mut source = listed(Discovery::File(path), &["127.0.0.1:80"]);
    let found = source.look_up().await.expect("both");
    assert_eq!(ids(&found), ["127.0.0.1:80", "127.0.0.1:81"]);
    assert_eq!(found.endpoints[1].name, "localhost:81");
    assert_eq!(found.endpoints[1].weight.get(), 7);
}

#[tokio::test]
async fn more_endpoints_than_are_taken_are_reported() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("app.json");
    let many: Vec<String> = (0..MOST)
        .map(|n| format!("\"10.1.{}.{}:80\"", n / 256, n % 256))
        .collect();
    fs::write(&path, format!("[{}]", many.join(","))).expect("written");
    let mut source = listed(Discovery::File(path.clone()), &["10.0.0.1:80"]);
    let found = source.look_up().await.expect("the first of them");
    assert_eq!(found.endpoints.len(), MOST);
    assert_eq!(found.failures[0].kind(), Trouble::TooMany);
    let mut source = listed(Discovery::File(path), &[]);
    let found = source.look_up().await.expect("all of them");
    assert_eq!(found.endpoints.len(), MOST);
    assert!(found.failures.is_empty());
}

#[tokio::test]
async fn what_is_no_file_is_refused_and_does_not_block() {
    let folder = tempfile::tempdir().expect("a folder");
    let pipe = folder.path().join("pipe.json");
    nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).expect("a pipe");
    let mut source = listed(Discovery::File(pipe), &[]);
    let error = source.look_up().await.expect_err("a pipe");
    assert!(error.to_string().contains("not a regular file"), "{error}");
    let missing = folder.path().join("missing.json");
    let mut source = listed(Discovery::File(missing), &[]);
    let error = source.look_up().await.expect_err("nothing there");
    assert_eq!(error.kind(), Trouble::NotFound);
    assert!(error.is_definite(), "{error}");
}
