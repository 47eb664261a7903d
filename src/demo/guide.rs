//! What the demo prints: where everything is, and what to try.

use std::path::Path;

use super::config::{self, Places};

/// The whole text, for a terminal of 100 columns. Plain: no colour, no box.
pub(crate) fn render(places: &Places, folder: &Path, process: u32) -> String {
    GUIDE
        .replace("@SHOP@", &format!("https://{}", places.https))
        .replace("@PLAIN@", &format!("http://{}", places.http))
        .replace("@ADMIN@", &format!("http://{}", places.admin))
        .replace(
            "@NODES@",
            &places.nodes.map(|node| node.to_string()).join(" "),
        )
        .replace("@FOLDER@", &folder.display().to_string())
        .replace("@FILE@", config::FILE)
        .replace("@CA@", config::CA)
        .replace("@LOG@", config::ACCESS_LOG)
        .replace("@STATIC@", config::STATIC_ROOT)
        .replace("@TOKEN@", config::TOKEN)
        .replace("@PID@", &process.to_string())
}

const GUIDE: &str = "\
Tidegate demo: ready. Ctrl-C ends it and removes its folder.

  shop        @SHOP@/  (a browser warns: the certificate was made a moment ago)
  redirect    @PLAIN@/  leads to the shop
  admin       @ADMIN@/  metrics, health, state
  app nodes   @NODES@
  folder      @FOLDER@
              @FILE@ (what the edge runs on), @CA@, @LOG@, @STATIC@/

In a browser, the bar at the foot of each page says which node rendered it and whether it came
from the cache; open it to see the nodes at work and to stop one.

In another terminal, let curl trust the demo's certificate first:

  export CURL_CA_BUNDLE=@FOLDER@/@CA@

Which node answers? Six requests, shared out over three nodes:

  for i in 1 2 3 4 5 6; do curl -s @SHOP@/api/time; done

A page from the cache: the second time cache-status says hit, and no node is asked:

  for i in 1 2; do curl -sI @SHOP@/ | grep -iE '^(cache-status|age|x-node)'; done

A visitor's cart stays on one node, because the edge hashes the session cookie:

  for i in 1 2 3; do curl -sI -b session=ada @SHOP@/cart | grep -i x-node; done

A part of an image: 206 with content-range.

  curl -s -r 0-99 -o /dev/null -D - @SHOP@/static/harbour.png

A file that the client has already: first 200, then 304 and no body.

  for i in 1 2; do curl -s -o /dev/null -w '%{http_code}, %{size_download} bytes\\n' \\
    --etag-save @FOLDER@/etag --etag-compare @FOLDER@/etag @SHOP@/static/shop.css; done

Kill a node: every request is answered (60 times 200), and its health is 0.

  curl -s -X POST @SHOP@/demo/nodes/2/stop
  for i in $(seq 60); do curl -s -o /dev/null -w '%{http_code}\\n' @SHOP@/api/time; done | sort | uniq -c
  curl -s @ADMIN@/metrics | grep 'endpoint_healthy{upstream=\"shop\"'
  curl -s -X POST @SHOP@/demo/nodes/2/start

From HTTP to HTTPS: 308 with location.

  curl -sI @PLAIN@/cart

Take the front page out of the cache, which wants the token:

  curl -s -X POST -H \"Authorization: Bearer $(cat @FOLDER@/@TOKEN@)\" '@ADMIN@/cache/purge?url=@SHOP@/'

What was counted, and what was logged:

  curl -s @ADMIN@/metrics | grep tidegate_cache_requests_total
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
