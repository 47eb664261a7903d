//! The shop's pages as HTML.
//!
//! They work without JavaScript; with it the bar at the foot also shows whether
//! the page came from the cache, and the nodes at work. Everything written into
//! them is the program's own text, so nothing needs escaping; whatever a
//! visitor sends is turned into numbers of products first.

use std::fmt::Write;
use std::time::SystemTime;

use super::catalogue::{PRODUCTS, Product, price};
use super::session::Cart;

/// Who rendered a page, and when.
#[derive(Debug, Clone)]
pub(crate) struct Stamp {
    /// The node's number.
    pub(crate) node: u8,
    /// `Sun, 06 Nov 1994 08:49:37 GMT` (RFC 9110 section 5.6.7).
    pub(crate) date: String,
}

impl Stamp {
    /// A stamp of node `node` at the time `now`.
    pub(crate) fn new(node: u8, now: SystemTime) -> Self {
        Self {
            node,
            date: httpdate::fmt_http_date(now),
        }
    }

    /// `08:49:37`, in UTC.
    fn clock(&self) -> &str {
        self.date.get(17..25).unwrap_or(&self.date)
    }
}

/// The front page: everything there is.
pub(crate) fn home(stamp: &Stamp) -> String {
    let mut grid = String::new();
    for product in PRODUCTS {
        let Product {
            number,
            name,
            line,
            picture,
            tint,
            ..
        } = product;
        // Writing to a String cannot fail, here and below.
        let _ = write!(
            grid,
            r#"
    <li><a class="card" href="/product/{number}">
      <span class="picture {tint}"><img src="/static/{picture}" alt="" width="320" height="240" loading="lazy"></span>
      <span class="name">{name}</span> <span class="price">€&nbsp;{price}</span>
      <span class="line">{line}</span>
    </a></li>"#,
            price = price(product.price),
        );
    }
    let main = format!(
        r#"<section class="hero">
  <img src="/static/harbour.png" alt="A small harbour at dusk" width="1600" height="640">
  <div class="words">
    <h1>Good things from the edge of the sea</h1>
    <p>Lanterns, wool, brass and rope. Made to be used, and to be out in any weather.</p>
  </div>
</section>
<section aria-labelledby="all">
  <h2 id="all">Everything we have</h2>
  <ul class="grid">{grid}
  </ul>
</section>"#
    );
    layout(stamp, "Low Tide Supply", Place::Shop, &main)
}

/// One product.
pub(crate) fn product(stamp: &Stamp, product: &Product) -> String {
    let Product {
        number,
        name,
        line,
        about,
        picture,
        tint,
        ..
    } = product;
    let main = format!(
        r#"<p class="back"><a href="/">All products</a></p>
<article class="product">
  <div class="picture {tint}"><img src="/static/{picture}" alt="{name}" width="320" height="240"></div>
  <div>
    <h1>{name}</h1>
    <p class="line">{line}</p>
    <p>{about}</p>
    <p class="price">€&nbsp;{price}</p>
    <form method="post" action="/cart"><button name="add" value="{number}">Put into the cart</button></form>
  </div>
</article>"#,
        price = price(product.price),
    );
    layout(stamp, name, Place::Shop, &main)
}

/// What the visitor wants to have.
pub(crate) fn cart(stamp: &Stamp, cart: &Cart) -> String {
    let lines = cart.lines();
    if lines.is_empty() {
        let main = r#"<h1>Your cart</h1>
<p>There is nothing in it yet. <a href="/">Look around</a>.</p>"#;
        return layout(stamp, "Your cart", Place::Cart, main);
    }
    let mut rows = String::new();
    let mut sum = 0;
    for (product, count) in lines {
        let Product {
            number,
            name,
            picture,
            tint,
            ..
        } = product;
        let total = product.price * u32::try_from(count).unwrap_or(u32::MAX);
        sum += total;
        let _ = write!(
            rows,
            r#"
  <li>
    <span class="picture {tint}"><img src="/static/{picture}" alt="" width="320" height="240"></span>
    <a class="name" href="/product/{number}">{name}</a>
    <form method="post" action="/cart">
      <button name="remove" value="{number}" aria-label="One less of {name}">&minus;</button>
      <span>{count}</span>
      <button name="add" value="{number}" aria-label="One more of {name}">+</button>
    </form>
    <span class="price">€&nbsp;{total}</span>
  </li>"#,
            total = price(total),
        );
    }
    let main = format!(
        r#"<h1>Your cart</h1>
<ul class="cart">{rows}
</ul>
<p class="sum">Together <b>€&nbsp;{sum}</b></p>
<p class="line">This is a demo: nothing can be bought, and nothing is kept.</p>"#,
        sum = price(sum),
    );
    layout(stamp, "Your cart", Place::Cart, &main)
}

/// There is no such page.
pub(crate) fn not_found(stamp: &Stamp) -> String {
    let main = r#"<h1>Washed away</h1>
<p>There is no such page. <a href="/">Back to the shop</a>.</p>"#;
    layout(stamp, "Not found", Place::Nowhere, main)
}

/// Which entry of the menu is current.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Shop,
    Cart,
    Nowhere,
}

fn layout(stamp: &Stamp, title: &str, place: Place, main: &str) -> String {
    let current = |own| {
        if place == own {
            r#" aria-current="page""#
        } else {
            ""
        }
    };
    format!(
        r#"<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<link rel="icon" href="/static/favicon.svg" type="image/svg+xml">
<link rel="stylesheet" href="/static/shop.css">
<script src="/static/shop.js" defer></script>
</head>
<body>
<header>
  <a class="logo" href="/"><img src="/static/logo.svg" alt="" width="40" height="40">Low Tide Supply</a>
  <nav><a href="/"{shop}>Shop</a> <a href="/cart"{cart}>Cart</a></nav>
</header>
<main>
{main}
</main>
{bar}
</body>
</html>
"#,
        shop = current(Place::Shop),
        cart = current(Place::Cart),
        bar = bar(stamp),
    )
}

/// The bar at the foot: how this page came about.
fn bar(stamp: &Stamp) -> String {
    format!(
        r#"<details class="edge">
<summary>
  <span>Rendered by <b>node {node}</b> at <time>{clock}</time> UTC</span>
  <span id="cache"></span>
</summary>
<div class="panel">
  <p>Three app nodes stand behind one edge. Shop pages may be kept by the edge for ten seconds;
  the cart never is.</p>
  <noscript><p>With JavaScript you would see the nodes at work here, and could stop one.</p></noscript>
  <ul id="nodes"></ul>
  <p id="tally"></p>
</div>
</details>"#,
        node = stamp.node,
        clock = stamp.clock(),
    )
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;

    #[test]
    fn a_page_says_which_node_rendered_it_and_when() {
        let now = UNIX_EPOCH + Duration::from_secs(784_111_777);
        let html = home(&Stamp::new(2, now));
        assert!(html.contains("<b>node 2</b>"), "{html}");
        assert!(html.contains("<time>08:49:37</time>"), "{html}");
    }

    #[test]
    fn every_product_is_on_the_front_page_and_has_its_picture() {
        let html = home(&Stamp::new(1, UNIX_EPOCH));
        for each in PRODUCTS {
            assert!(
                html.contains(&format!("href=\"/product/{}\"", each.number)),
                "{}",
                each.name
            );
            assert!(
                html.contains(&format!("/static/{}", each.picture)),
                "{}",
                each.name
            );
        }
    }
}
