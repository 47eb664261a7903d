//! What the demo prints: where everything is, and what to try.

use std::path::Path;

use super::config::{self, Places};

/// The whole text, for a terminal of 100 columns. Plain: no colour, no box.
pub(crate) fn render(places: &Places, folder: &Path, process: u32) -> String {
    GUIDE
        .replace("@SHOP@", &format!("https://{}", places.https))
        .replace("@PLAIN@", &format!("http://{}", places.http))
        .replace("@ADMIN@", &format!("http://{}", places.admin))
        .replace("@NODES@", &places.nodes.map(|node| node.to_string()).join(" "))
        .replace("@FOLDER@", &folder.display().to_string())
        .replace("@FILE@", config::FILE)
        .replace("@CA@", config::CA)
        .replace("@LOG@", config::ACCESS_LOG)
        .replace("@PID@", &process.to_string())
}

const GUIDE: &str = "\
Tidegate demo: ready. Ctrl-C ends it and removes its folder.

  shop        @SHOP@/  (the browser warns: the certificate was made a moment ago)
  redirect    @PLAIN@/  to the shop
  admin       @ADMIN@/  metrics, health, state
  app nodes   @NODES@
  folder      @FOLDER@
              @FILE@ (what the edge runs on), @CA@, @LOG@, static/

To try in another terminal. First let curl trust the demo's certificate:

  export CURL_CA_BUNDLE=@FOLDER@/@CA@

Which node answers? Six requests, shared out over three nodes:

  for i in 1 2 3 4 5 6; do curl -s @SHOP@/api/time; done

A page from the cache: the second time cache-status says hit, with its age, and no node is asked:

  for i in 1 2; do curl -sI @SHOP@/ | grep -iE '^(cache-status|age|x-node)'; echo; done

One visitor's cart stays on one node (the edge hashes the session cookie):

  for i in 1 2 3; do curl -sI -b session=0123456789abcdef0123456789abcdef @SHOP@/cart | grep -i x-node; done

A part of an image, 206 with content-range:

  curl -si -r 0-99 -o /dev/null -D - @SHOP@/static/harbour.png

A file that the client has already, first 200 and then 304 with no body:

  for i in 1 2; do curl -s -o /dev/null -w '%{http_code} %{size_download} bytes\\n' \\
    --etag-save @FOLDER@/etag --etag-compare @FOLDER@/etag @SHOP@/static/shop.css; done

Kill node 2, and see that no request fails; then bring it back:

  curl -X POST @SHOP@/demo/nodes/2/stop
  for i in $(seq 60); do curl -s -o /dev/null -w '%{http_code}\\n' @SHOP@/api/time; done | sort | uniq -c
  curl -s @ADMIN@/upstreams
  curl -X POST @SHOP@/demo/nodes/2/start

The redirect from HTTP to HTTPS, and HTTP/2:

  curl -sI @PLAIN@/cart
  curl -s -o /dev/null -w '%{http_version}\\n' @SHOP@/

The metrics, and the last requests:

  curl -s @ADMIN@/metrics | grep tidegate_upstream_requests_total
  tail -n 3 @FOLDER@/@LOG@

Change @FILE@ and load it anew; a mistake in it leaves the running state:

  kill -HUP @PID@
";

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use super::*;

    fn at(port: u16) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], port))
    }

    #[test]
    fn every_place_is_named_and_nothing_is_left_to_fill_in() {
        let places = Places {
            https: at(8443),
            http: at(8080),
            admin: at(9901),
            nodes: [at(1), at(2), at(3)],
            control: at(4),
        };
        let text = render(&places, Path::new("/tmp/tidegate-demo-x"), 77);
        assert!(!text.contains('@'), "{text}");
        for part in [
            "https://127.0.0.1:8443/",
            "http://127.0.0.1:8080/",
            "http://127.0.0.1:9901/",
            "127.0.0.1:1 127.0.0.1:2 127.0.0.1:3",
            "export CURL_CA_BUNDLE=/tmp/tidegate-demo-x/ca.pem",
            "kill -HUP 77",
        ] {
            assert!(text.contains(part), "{part} is missing in:\n{text}");
        }
    }
}
