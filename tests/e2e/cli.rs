//! The command line: exit codes, one readable line, helpful help.

use std::path::Path;
use std::process::Command;

use nix::sys::signal::Signal;

use crate::support::client::once;
use crate::support::edge::{binary, root};
use crate::support::tools::{Finished, Running, run};
use crate::support::{Ask, Origin, Setup, ports, wait};

const ONE_ROUTE: &str = "[[route]]\nrespond = { body = \"ok\" }\n";

fn tidegate(arguments: &[&str]) -> Finished {
    run(Command::new(binary()).args(arguments), wait::SOON)
}

fn check(file: &Path) -> Finished {
    run(Command::new(binary()).arg("check").arg(file), wait::SOON)
}

fn run_config(file: &Path) -> Finished {
    let mut command = Command::new(binary());
    run(command.arg("run").arg("--config").arg(file), wait::secs(5))
}

#[test]
fn the_version_is_the_packages() {
    let said = tidegate(&["--version"]);
    assert_eq!(said.code, Some(0));
    assert!(said.stdout.starts_with("tidegate "), "{said:?}");
    let version = env!("CARGO_PKG_VERSION");
    assert!(said.stdout.contains(version), "{said:?}");
}

#[test]
fn every_command_explains_itself_with_an_example() {
    for command in [
        "run", "check", "demo", "purge", "cache", "schema", "static", "compress",
    ] {
        let said = tidegate(&[command, "--help"]);
        assert_eq!(said.code, Some(0), "{command}: {said:?}");
        let example = format!("\n  tidegate {command}");
        for part in ["Usage:", &example] {
            assert!(said.stdout.contains(part), "no {part:?} in {}", said.stdout);
        }
    }
    assert_eq!(tidegate(&["--help"]).code, Some(0));
}

#[test]
fn wrong_use_exits_with_2() {
    for arguments in [
        &["fly"][..],
        &["run"],
        &["check"],
        &["run", "--konfig", "x"],
        &[],
    ] {
        let said = tidegate(arguments);
        assert_eq!(said.code, Some(2), "{arguments:?}: {said:?}");
        assert!(!said.stderr.is_empty(), "{arguments:?}");
    }
}

#[test]
fn a_good_file_passes_the_check_and_a_missing_one_does_not() {
    let setup = Setup::new();
    let said = check(&setup.write(ONE_ROUTE));
    assert_eq!(said.code, Some(0), "{said:?}");

    let missing = setup.folder().join("none.toml");
    for said in [check(&missing), run_config(&missing)] {
        assert_eq!(said.code, Some(2), "{said:?}");
        assert!(said.stderr.contains("none.toml"), "{said:?}");
    }
}

#[test]
fn all_errors_of_a_file_are_shown_at_once_with_their_places() {
    let setup = Setup::new();
    let file = setup.write(
        "[upstream.app]\nendpoints = [\"127.0.0.1:1\"]\nconect_timeout = \"1s\"\n\
         [[route]]\nupstream = \"ap\"\n",
    );
    let text = std::fs::read_to_string(&file).unwrap();
    let line = |part: &str| text.lines().position(|l| l.contains(part)).unwrap() + 1;
    for said in [check(&file), run_config(&file)] {
        assert_eq!(said.code, Some(2), "{said:?}");
        let errors = &said.stderr;
        for wanted in [
            format!("tidegate.toml:{}:", line("conect_timeout")),
            format!("tidegate.toml:{}:", line("upstream = \"ap\"")),
            "did you mean `connect_timeout`".into(),
            "did you mean \"app\"".into(),
            "^".into(),
        ] {
            assert!(errors.contains(&wanted), "no {wanted:?} in:\n{errors}");
        }
    }
}

#[test]
fn a_port_in_use_is_one_readable_line_and_exit_1_within_a_second() {
    let taken = Origin::named("first come");
    let setup = Setup::new().with("TAKEN", taken.address);
    let file = setup.write(&format!(
        "[[listener]]\nname = \"plain\"\naddress = \"@TAKEN@\"\n{ONE_ROUTE}"
    ));
    let started = wait::now();
    let said = run_config(&file);
    assert!(started.elapsed() < wait::secs(1), "{:?}", started.elapsed());
    assert_eq!(said.code, Some(1), "{said:?}");
    let line = said
        .stderr
        .lines()
        .find(|line| line.contains(&taken.address.to_string()))
        .unwrap_or_else(|| panic!("no line names the address: {said:?}"));
    assert!(line.to_lowercase().contains("in use"), "{line}");
    assert!(!said.stderr.contains("panicked"), "{said:?}");
}

#[test]
fn a_taken_admin_port_ends_the_start_too() {
    let taken = Origin::named("first come");
    let setup = Setup::new().with("TAKEN", taken.address);
    let file = setup.write(&format!("[admin]\naddress = \"@TAKEN@\"\n{ONE_ROUTE}"));
    let said = run_config(&file);
    assert_eq!(said.code, Some(1), "{said:?}");
    assert!(said.stderr.contains(&taken.address.to_string()), "{said:?}");
}

#[test]
fn an_unreadable_key_or_certificate_is_said_in_a_line() {
    let broken = "-----BEGIN PRIVATE KEY-----\nnonsense\n-----END PRIVATE KEY-----\n";
    let file_of = |toml: &str, setup: &Setup| setup.write(&format!("{toml}{ONE_ROUTE}"));
    let setup = Setup::new()
        .file("broken.key", broken)
        .file("empty.pem", "");
    let own = |cert: &str, key: &str| {
        format!("[tls]\ncertificates = [{{ cert = \"{cert}\", key = \"{key}\" }}]\n")
    };
    for (cert, key, named) in [
        ("shop.pem", "missing.key", "missing.key"),
        ("shop.pem", "broken.key", "broken.key"),
        ("empty.pem", "shop.key", "empty.pem"),
        ("missing.pem", "shop.key", "missing.pem"),
    ] {
        let said = run_config(&file_of(&own(cert, key), &setup));
        assert!(matches!(said.code, Some(1 | 2)), "{cert} {key}: {said:?}");
        assert!(said.stderr.contains(named), "{cert} {key}: {said:?}");
        assert!(!said.stderr.contains("panicked"), "{said:?}");
    }
}

#[test]
fn a_key_that_does_not_belong_to_its_certificate_is_refused() {
    let setup = Setup::new();
    crate::support::certs::write(setup.folder(), "other", &["other.test"]);
    let file = setup.write(&format!(
        "[tls]\ncertificates = [{{ cert = \"shop.pem\", key = \"other.key\" }}]\n{ONE_ROUTE}"
    ));
    let said = run_config(&file);
    assert!(matches!(said.code, Some(1 | 2)), "{said:?}");
    assert!(said.stderr.contains("other.key"), "{said:?}");
}

#[test]
fn the_check_looks_at_what_the_file_names_as_a_start_would() {
    const APP: &str = "[[listener]]\naddress = \"127.0.0.1:1\"\n[[route]]\nupstream = \"app\"\n";
    for (toml, word) in [
        (
            format!(
                "[server]\nuser = \"no-such-user-here\"\n{APP}[upstream.app]\nendpoints = [\"127.0.0.1:2\"]\n"
            ),
            "no-such-user-here",
        ),
        (
            format!("{APP}[upstream.app]\nendpoints = [\"no-such-host.invalid:80\"]\n"),
            "no-such-host.invalid",
        ),
        (
            format!(
                "{APP}[upstream.app]\nendpoints = [\"127.0.0.1:2\"]\ntls = {{ ca = \"ca.pem\", server_name = \"app.test\" }}\n"
            ),
            "ca.pem",
        ),
    ] {
        let setup = Setup::new().file("ca.pem", "no certificate");
        let said = check(&setup.write(&toml));
        assert_eq!(said.code, Some(2), "{toml}\n{said:?}");
        assert!(said.stderr.contains(word), "{toml}\n{said:?}");
        assert_eq!(said.stderr.lines().count(), 1, "{said:?}");
        assert!(!said.stderr.contains("panicked"), "{said:?}");
    }
}

#[test]
fn a_missing_root_directory_is_a_configuration_error() {
    let setup = Setup::new();
    let file =
        setup.write("[static.assets]\nroot = \"not-there\"\n[[route]]\nstatic = \"assets\"\n");
    for said in [check(&file), run_config(&file)] {
        assert_eq!(said.code, Some(2), "{said:?}");
        assert!(said.stderr.contains("not-there"), "{said:?}");
    }
}

#[test]
fn a_secret_never_reaches_standard_error() {
    let setup = Setup::new().env("TEST_TOKEN", "very-secret-value");
    let edge = setup.start(&format!(
        "[log]\nlevel = \"trace\"\n\
         [admin]\naddress = \"@ADMIN@\"\ntoken = {{ env = \"TEST_TOKEN\" }}\n{ONE_ROUTE}"
    ));
    let right = Ask::post("/cache/purge?url=http://shop.test/", "")
        .field("Authorization", "Bearer very-secret-value");
    assert_ne!(edge.admin_ask(&right).status, 401);
    assert!(!edge.stderr().contains("very-secret-value"));
}

#[test]
fn the_schema_is_json_schema_and_knows_every_section() {
    let said = tidegate(&["schema"]);
    assert_eq!(said.code, Some(0), "{said:?}");
    let schema: serde_json::Value = serde_json::from_str(&said.stdout).unwrap();
    let properties = &schema["properties"];
    for section in [
        "server", "admin", "log", "limits", "listener", "tls", "upstream", "static", "cache",
        "route", "filter", "include",
    ] {
        assert!(!properties[section].is_null(), "no {section} in the schema");
    }
}

#[test]
fn the_smallest_useful_file_runs() {
    let origin = Origin::named("app");
    let setup = Setup::new();
    let address = ports::free();
    let file = setup.folder().join("small.toml");
    let text = format!(
        "[[listener]]\naddress = \"{address}\"\n\n[upstream.app]\nendpoints = [\"{}\"]\n\n\
         [[route]]\nupstream = \"app\"\ncache = {{}}\n",
        origin.address
    );
    std::fs::write(&file, text).unwrap();
    let mut command = Command::new(binary());
    let mut edge = Running::start(command.arg("run").arg("--config").arg(&file));
    wait::eventually("the listener", wait::SOON, || {
        std::net::TcpStream::connect(address).is_ok()
    });
    assert_eq!(once(address, &Ask::get("/")).text(), "app");
    edge.signal(Signal::SIGTERM);
    assert_eq!(edge.wait(wait::SOON), Some(0));
}

#[test]
fn a_folder_is_served_by_the_static_command() {
    let setup = Setup::new().file("site/index.html", "<h1>hi</h1>");
    let address = ports::free();
    let mut command = Command::new(binary());
    command.arg("static").arg(setup.folder().join("site"));
    command.arg("--listen").arg(address.to_string());
    let mut server = Running::start(&mut command);
    wait::eventually("the listener", wait::SOON, || {
        std::net::TcpStream::connect(address).is_ok()
    });
    let reply = once(address, &Ask::get("/")).expect(200);
    assert_eq!(
        reply.field("content-type"),
        Some("text/html; charset=utf-8")
    );
    wait::eventually("the start line", wait::SOON, || {
        format!("{}{}", server.stdout(), server.stderr()).contains(&address.to_string())
    });
    server.signal(Signal::SIGTERM);
    assert_eq!(server.wait(wait::SOON), Some(0));
}

#[test]
fn every_example_passes_the_check() {
    let folder = root().join("examples");
    let mut checked = 0;
    for entry in std::fs::read_dir(&folder).expect("examples/").flatten() {
        let path = entry.path();
        if path.extension().is_some_and(|e| e == "toml") {
            let said = check(&path);
            assert_eq!(said.code, Some(0), "{}: {said:?}", path.display());
            assert!(
                !said.stderr.contains("warning"),
                "{}: {said:?}",
                path.display()
            );
            checked += 1;
        }
    }
    assert!(checked > 0, "no example in {}", folder.display());
}
