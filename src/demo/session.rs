//! What a visitor carries along: a session name and the things in the cart.
//!
//! Both live in cookies, so that any node can show any cart; a real shop keeps
//! the cart on the server. Cookies come from anybody: whatever is not exactly
//! as it was set counts as absent.

use hyper::HeaderMap;
use hyper::header::COOKIE;

use super::catalogue::{self, Product};

/// Names the visitor; the edge picks the cart's node by it.
pub(crate) const SESSION: &str = "session";
/// What is in the cart.
pub(crate) const CART: &str = "cart";

/// More of everything does not fit into a cart.
const MOST: usize = 24;
/// Path and scope of both cookies.
const SCOPE: &str = "Path=/; HttpOnly; Secure; SameSite=Lax";

/// The session's name, if the visitor has one that could be ours.
pub(crate) fn session(fields: &HeaderMap) -> Option<&str> {
    let name = cookie(fields, SESSION)?;
    let ours = name.len() == 32 && name.bytes().all(|byte| byte.is_ascii_hexdigit());
    ours.then_some(name)
}

/// `Set-Cookie` for either cookie; the value must be plain letters, digits and dots.
pub(crate) fn set_cookie(name: &str, value: &str) -> String {
    format!("{name}={value}; {SCOPE}")
}

/// Product numbers in the order in which they were put in.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Cart(Vec<u8>);

impl Cart {
    /// The visitor's cart; an empty one if there is none.
    pub(crate) fn of(fields: &HeaderMap) -> Self {
        cookie(fields, CART)
            .and_then(Self::parse)
            .unwrap_or_default()
    }

    fn parse(text: &str) -> Option<Self> {
        let numbers: Option<Vec<u8>> = text
            .split('.')
            .map(|number| {
                number
                    .parse()
                    .ok()
                    .filter(|number| catalogue::find(*number).is_some())
            })
            .collect();
        numbers.filter(|numbers| numbers.len() <= MOST).map(Self)
    }

    /// The cookie's value.
    pub(crate) fn to_value(&self) -> String {
        let numbers: Vec<String> = self.0.iter().map(u8::to_string).collect();
        numbers.join(".")
    }

    /// Puts one in, unless the cart is full.
    pub(crate) fn add(&mut self, product: &Product) {
        if self.0.len() < MOST {
            self.0.push(product.number);
        }
    }

    /// Takes one out, if it is there.
    pub(crate) fn remove(&mut self, product: &Product) {
        if let Some(at) = self.0.iter().position(|number| *number == product.number) {
            self.0.remove(at);
        }
    }

    /// Each product once, with how many of it.
    pub(crate) fn lines(&self) -> Vec<(&'static Product, usize)> {
        let count = |product: &Product| self.0.iter().filter(|n| **n == product.number).count();
        catalogue::PRODUCTS
            .iter()
            .map(|product| (product, count(product)))
            .filter(|(_, count)| *count > 0)
            .collect()
    }
}

/// The first cookie of that name (RFC 6265 section 4.2.1).
fn cookie<'a>(fields: &'a HeaderMap, name: &str) -> Option<&'a str> {
    fields
        .get_all(COOKIE)
        .iter()
        .filter_map(|field| field.to_str().ok())
        .flat_map(|field| field.split(';'))
        .filter_map(|pair| pair.trim().split_once('='))
        .find(|(key, _)| *key == name)
        .map(|(_, value)| value)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(cookies: &str) -> HeaderMap {
        let mut fields = HeaderMap::new();
        fields.insert(COOKIE, cookies.parse().expect("a header value"));
        fields
    }

    #[test]
    fn a_cart_comes_back_as_it_was_put_away() {
        let mut cart = Cart::default();
        for number in [3, 1, 3] {
            cart.add(catalogue::find(number).expect("a product"));
        }
        let again = Cart::of(&fields(&format!("a=b; {CART}={}", cart.to_value())));
        assert_eq!(again, cart);
        let lines: Vec<(u8, usize)> = again
            .lines()
            .iter()
            .map(|(product, count)| (product.number, *count))
            .collect();
        assert_eq!(lines, [(1, 1), (3, 2)]);
    }

    #[test]
    fn a_cart_that_was_tampered_with_is_an_empty_one() {
        let long = ["1"; MOST + 1].join(".");
        for value in ["", "0", "999", "1..2", "1.x", "-1", "<b>", &long] {
            let cart = Cart::of(&fields(&format!("{CART}={value}")));
            assert_eq!(cart, Cart::default(), "{value}");
        }
    }

    #[test]
    fn a_cart_never_holds_more_than_its_cookie_may_carry() {
        let mut cart = Cart::default();
        let product = catalogue::find(1).expect("a product");
        for _ in 0..MOST * 2 {
            cart.add(product);
        }
        assert_eq!(cart.lines(), [(product, MOST)]);
    }

    #[test]
    fn a_session_that_is_not_ours_is_none() {
        let good = "0123456789abcdef0123456789abcdef";
        assert_eq!(session(&fields(&format!("{SESSION}={good}"))), Some(good));
        for value in ["", "x", "0123456789abcdef0123456789abcdeg"] {
            assert_eq!(
                session(&fields(&format!("{SESSION}={value}"))),
                None,
                "{value}"
            );
        }
    }
}
