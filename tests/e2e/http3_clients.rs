//! HTTP/3 with clients that are not ours: aioquic, and a browser.

use std::collections::HashMap;
use std::process::Command;
use std::time::Duration;

use serde_json::Value;

use crate::support::edge::root;
use crate::support::tools::{self, tool};
use crate::support::{Answer, Edge, Origin, Setup, wait};

/// A browser, on a machine that has other things to do.
const PATIENCE: Duration = Duration::from_secs(90);

fn edge(app: &Origin) -> Edge {
    Setup::new().with("APP", app.address).start(
        r#"
        [log]
        access = { path = "access.log", format = "json" }
        [[listener]]
        name = "secure"
        address = "@HTTPS@"
        tls = true
        protocols = ["h1", "h2", "h3"]
        [upstream.app]
        endpoints = ["@APP@"]
        [[route]]
        upstream = "app"
        "#,
    )
}

fn log(edge: &Edge) -> Vec<Value> {
    let text = std::fs::read_to_string(edge.folder().join("access.log")).unwrap_or_default();
    text.lines()
        .filter_map(|line| serde_json::from_str(line).ok())
        .collect()
}

#[test]
fn aioquic_gets_what_it_asks_for_also_early_and_with_another_id() {
    let Some(python) = tools::python_with("aioquic.h3.connection", "aioquic") else {
        return;
    };
    let app = Origin::start(|seen| match seen.target.as_str() {
        "/sum" => Answer::ok(seen.body.len().to_string()),
        "/large" => Answer::ok(vec![b'x'; 2 * 1024 * 1024]),
        target => Answer::ok(format!(
            "{target} {}",
            seen.field("early-data").unwrap_or("-")
        )),
    });
    let edge = edge(&app);
    let mut command = Command::new(python);
    command
        .arg(root().join("tests/e2e/http3_client.py"))
        .args(["127.0.0.1", &edge.https().port().to_string()])
        .arg(edge.folder().join("ca.pem"));
    let said = tools::run(&mut command, PATIENCE);
    assert_eq!(said.code, Some(0), "{said:?}");
    let lines = said
        .stdout
        .lines()
        .filter_map(|line| serde_json::from_str(line).ok());
    let steps: HashMap<String, Value> = lines
        .map(|line: Value| (line["step"].as_str().unwrap().to_owned(), line))
        .collect();
    for (step, text) in [
        ("get", "/hello -"),
        ("again", "/hello -"),
        ("post", "300000"),
        ("other id", "/id -"),
        ("other key", "/key -"),
    ] {
        assert_eq!(
            (&steps[step]["status"], &steps[step]["text"]),
            (&200.into(), &text.into()),
            "{step}"
        );
    }
    assert_eq!(steps["large"]["length"], 2 * 1024 * 1024);
    let texts: Vec<Value> = (0..50).map(|n| format!("/{n} -").into()).collect();
    assert_eq!(steps["many"]["texts"], Value::Array(texts));
    // Where the handshake was faster than the app, it is no early request any more.
    let early = steps["early"]["text"].as_str().unwrap();
    assert!(["/early 1", "/early -"].contains(&early), "{early}");
    assert_eq!(steps["taken"]["early"], true);
    assert_eq!(app.broken(), Vec::<String>::new());
}

#[test]
fn pings_without_end_are_cut() {
    let Some(python) = tools::python_with("aioquic.h3.connection", "aioquic") else {
        return;
    };
    let app = Origin::named("app");
    let edge = edge(&app);
    let mut command = Command::new(python);
    command
        .arg(root().join("tests/e2e/http3_pings.py"))
        .args(["127.0.0.1", &edge.https().port().to_string()])
        .arg(edge.folder().join("ca.pem"));
    let said = tools::run(&mut command, PATIENCE);
    assert_eq!(said.code, Some(0), "{said:?}");
    let said: Value = serde_json::from_str(said.stdout.trim()).expect("JSON");
    assert_eq!(said["closed"], 0x107, "{said}");
    edge.await_metric(
        r#"tidegate_connections_refused_total{listener="secure",reason="h3_control_frames"}"#,
        1.0,
    );
}

#[test]
fn a_browser_loads_a_page_over_http3() {
    let chromium = tool!("chromium", "chromium");
    let openssl = tool!("openssl", "openssl");
    let app = Origin::start(|seen| match seen.target.as_str() {
        "/" => Answer::ok("<!doctype html><body><script src=/app.js></script>")
            .field("Content-Type", "text/html"),
        "/app.js" => Answer::ok("document.body.append('made by ' + 'script')")
            .field("Content-Type", "text/javascript"),
        _ => Answer::new(404, "no"),
    });
    let edge = edge(&app);
    let script = format!(
        "{0} x509 -in shop.pem -pubkey -noout | {0} pkey -pubin -outform der | {0} dgst -sha256 -binary | {0} base64",
        openssl.display()
    );
    let mut shell = Command::new("sh");
    let key = tools::run(
        shell.args(["-c", &script]).current_dir(edge.folder()),
        PATIENCE,
    );
    let port = edge.https().port();
    let mut browser = Command::new(chromium);
    browser
        .args([
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--dump-dom",
            "--enable-quic",
        ])
        .arg(format!(
            "--user-data-dir={}",
            edge.folder().join("profile").display()
        ))
        .arg(format!("--origin-to-force-quic-on=shop.test:{port}"))
        .arg("--host-resolver-rules=MAP shop.test 127.0.0.1")
        .arg(format!(
            "--ignore-certificate-errors-spki-list={}",
            key.stdout.trim()
        ))
        .arg(format!("https://shop.test:{port}/"))
        .env("HOME", edge.folder());
    let said = tools::run(&mut browser, PATIENCE);
    assert!(
        said.stdout.contains("made by script"),
        "{said:?}\n{:?}",
        log(&edge)
    );
    wait::eventually("page and script are logged", wait::SOON, || {
        log(&edge).len() >= 2
    });
    for line in log(&edge) {
        assert_eq!(line["protocol"], "HTTP/3.0", "{line}");
    }
}
