//! What the shop sells.

/// One product.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Product {
    /// Its address is `/product/<number>`.
    pub(crate) number: u8,
    /// What it is called.
    pub(crate) name: &'static str,
    /// One line for the grid.
    pub(crate) line: &'static str,
    /// A few sentences for its own page.
    pub(crate) about: &'static str,
    /// In cents.
    pub(crate) price: u32,
    /// Picture below `/static/`.
    pub(crate) picture: &'static str,
    /// Background of the picture: a class of the style sheet.
    pub(crate) tint: &'static str,
}

/// Everything there is, by number.
pub(crate) const PRODUCTS: &[Product] = &[
    Product {
        number: 1,
        name: "Storm lantern",
        line: "Burns through a gale, glows through a power cut",
        about: "A brass lantern with a thick glass chimney. Fill it with lamp oil or put a candle in; the vented crown keeps the flame steady when the door blows open.",
        price: 64_00,
        picture: "lantern.svg",
        tint: "dusk",
    },
    Product {
        number: 2,
        name: "Quay mug",
        line: "Enamelled steel, holds what a morning needs",
        about: "Two coats of enamel over steel, with a rim that forgives a fall onto the pier. Holds 40 cl and keeps its colour in any dishwasher.",
        price: 14_50,
        picture: "mug.svg",
        tint: "sand",
    },
    Product {
        number: 3,
        name: "Coil of rope",
        line: "Twelve metres of three-strand hemp",
        about: "Laid on a long walk and whipped at both ends by hand. Ties up a dinghy, hangs a swing, or just looks right on a hook by the door.",
        price: 22_00,
        picture: "rope.svg",
        tint: "mist",
    },
    Product {
        number: 4,
        name: "Tide clock",
        line: "One hand, two tides, no hurry",
        about: "Turns once in twelve hours and twenty-five minutes, the time from one high water to the next. Set it by the table at your harbour, then leave it alone.",
        price: 89_00,
        picture: "clock.svg",
        tint: "foam",
    },
    Product {
        number: 5,
        name: "Pocket compass",
        line: "Knows the way when you do not",
        about: "A dry-card compass in a brass case that closes with a click. The needle settles in under three seconds and does not mind being carried upside down.",
        price: 38_00,
        picture: "compass.svg",
        tint: "sand",
    },
    Product {
        number: 6,
        name: "Watch blanket",
        line: "Heavy wool for light sleepers",
        about: "Woven from undyed and sea-blue wool, 140 by 200 centimetres, fringed at the short ends. Warm when it is dry and still warm when it is not.",
        price: 11_800,
        picture: "blanket.svg",
        tint: "dusk",
    },
    Product {
        number: 7,
        name: "Deck boots",
        line: "Natural rubber, quiet soles",
        about: "Cut short enough to kick off in a hurry. The sole grips a wet deck and leaves no mark on it. Sizes run large, for thick socks.",
        price: 72_00,
        picture: "boots.svg",
        tint: "foam",
    },
    Product {
        number: 8,
        name: "Message bottle",
        line: "Cork, glass, patience",
        about: "Hand-blown bottle with a natural cork, a sheet of cotton paper and a length of twine. Delivery times are up to the sea.",
        price: 9_80,
        picture: "bottle.svg",
        tint: "mist",
    },
];

/// The product of that number.
pub(crate) fn find(number: u8) -> Option<&'static Product> {
    PRODUCTS.iter().find(|product| product.number == number)
}

/// `64.00` for 6400 cents.
pub(crate) fn price(cents: u32) -> String {
    format!("{}.{:02}", cents / 100, cents % 100)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_places_in_the_list() {
        for (at, product) in PRODUCTS.iter().enumerate() {
            assert_eq!(usize::from(product.number), at + 1, "{}", product.name);
        }
    }

    #[test]
    fn cents_are_always_two_digits() {
        assert_eq!(price(9_80), "9.80");
        assert_eq!(price(64_05), "64.05");
    }
}
