//! Names that builders write, names that people write, and how many random hashes are known.

use proptest::prelude::*;

use super::*;

const HEX: &[u8] = b"0123456789abcdef";
const BASE64: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
const BASE32: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";

#[track_caller]
fn parts(name: &str) -> (&str, &str, &str) {
    let found = of(name).unwrap_or_else(|| panic!("{name} is not known"));
    (found.before(), found.hash(), found.after())
}

#[test]
fn what_builders_write_is_taken_apart() {
    const LONG: &str = "0f1e2d3c4b5a69788796a5b4c3d2e1f00f1e2d3c4b5a69788796a5b4c3d2e1f0";
    let cases = [
        ("app.", "3f9a1c", ".js"),
        ("app-", "3f9a1c2b", ".css"),
        ("main.", "3f9a1c2b4d5e6f708192", ".js"),
        ("123.", "3f9a1c2b", ".chunk.js"),
        ("main.", "3f9a1c2b", ".chunk.css"),
        ("app.", "3f9a1c2b", ".min.css"),
        ("app-", "3f9a1c2b", ".js.map"),
        ("x.", "3f9a1c2b", ".js.LICENSE.txt"),
        ("application-", LONG, ".css"),
        ("main.min.", LONG, ".css"),
        ("base.", "27e20196a850", ".js"),
        ("main-app-", "3f9a1c2b4d5e6f70", ".js"),
        ("inter.p.", "3f9a1c2b", ".woff2"),
        ("", "e4af272ccee01ff0", "-s.p.woff2"),
        ("", "3f9a1c2b4d5e6f70", ".css"),
        ("app_page_tsx_", "3f9a1c2b", "._.js"),
        ("index-", "BxVsQZ3k", ".js"),
        ("index-", "-x_sQZ3k", ".js"),
        ("start.", "BxVsQZ3k", ".js"),
        ("hero-", "Bx3sQZ7k", ".png"),
        ("chunk-", "3NFQZ5WK", ".js"),
        ("styles-", "FFHMD2TL", ".css"),
        ("logo.", "3f9a1c2b", ".svg"),
        ("react-18.3.1-canary-", "3f9a1c2b", ".js"),
    ];
    for (before, hash, after) in cases {
        let name = format!("{before}{hash}{after}");
        assert_eq!(parts(&name), (before, hash, after), "{name}");
    }
}

#[test]
fn what_people_write_is_left_alone() {
    let names = "
        app.js style.css index.html app.3f9a1c2b.html app.3f9a1c2b.htm app-3f9a1c2b 3f9a1c2b
        report-20240102.pdf report-2024-01-02.pdf photo-20240102a.jpg notes-2024feb.css
        theme-01dec2024.css theme-2024dec01.js app-15feb2024.js theme-20240102b.css
        jquery-3.7.1.min.js app-1.2.3.js react-18.3.1.production.min.js lib-2.0.0-beta1.js
        app-v1.2.3.js vue.3.4.21.global.js d3.v7.min.js three.r128.js backup-20240102123456.zip
        app-Settings.js page-UserMenu.js hero-iPhone15.png app.facade.js chapter-Chapter1.js
        SETTINGS README-TEMPLATE.md README-TEMPLATE.js app-decade90.js app-face2face.js
        app-cafe2024.css icon-facade.svg color-ff8800.png swatch-1da1f2.svg bg-3f9a1c.png
        page-OsStrExt.js item-PtrToPtr.js KmsKeyId.js lib-KmsKeyId.js x-iD4-0003.css
        x-TopAndL2.jpg spec-V1alpha1.json win-ad2012R2.png mics-HiFi-MM1.png lang-en-US-v2.js
        list-A-Z-List.js my-app-2.js page-my-app-2.js doc-part-one.js icons-pt-BR-v2.css
        image-DSC01234.jpg IMG-20240102-WA0001.jpg sku-A1B2C3D4.jpg product-MQ8T3AMA.jpg
        part-GX7900XT.png card-RTX4090Ti.png app-SETTINGS.js app-SUMMER24.css app-B2BSALES.js
        app-MP3FILES.js app-WEB2READ.js app-HTML5CSS.js doc-RFC72345.css doc-ISO27001.js
        avatar-550e8400-e29b-41d4-a716-446655440000.png 550e8400-e29b-41d4-a716-446655440000.js
        avatar-550e8400e29b41d4a716446655440000.png photo-507f1f77bcf86cd799439011.jpg
        3f9a1c2b4d5e6f70.jpg 550e8400e29b41d4a716446655440000.jpg photo-a1234567.jpg
        item-b07123456.png service-worker.js manifest.json robots.txt favicon.ico sitemap.xml
        sw.js main.bundle.js vendors~main.js deadbeef.js app.deadbeef.js app.12345678.js
        app-3f9a1c2b-debug.js app3f9a1c2b.js 3f9a1c2b.js style-640x480.css photo-1024x768.jpg
        hero@2x.png hero-1080p.mp4 model-3d.glb intro-4k60fps.mp4 font-400italic.woff2
        roboto-v30-latin-regular.woff2 opensans-v40-latin-700.woff2 fa-solid-900.woff2
        bootstrap.bundle.min.js moment-with-locales.min.js app.2024.js file.3f9a1c2b
        invoice-10000001.pdf order-2024b.pdf a.b .js - . ..js -.js
    ";
    let names: Vec<&str> = names.split_whitespace().collect();
    assert!(names.len() > 100);
    let wrong: Vec<&str> = names
        .into_iter()
        .filter(|name| of(name).is_some())
        .collect();
    assert!(wrong.is_empty(), "{wrong:?}");
}

/// Names of eight letters and digits that could stand where a hash stands, and all that could be
/// read as hexadecimal.
fn ordinary() -> Vec<String> {
    let words = "
        about account action active admin alert all and app apple archive array article asset
        audio auth avatar back badge banner bar base basket blog body book border bottom box
        brand bread build button buy cache card cart case cat chart chat check city class clean
        click client clock close cloud code color column common config contact content core count
        cover create cross css currency custom dark data date day deal default delete demo design
        desktop detail dialog docs dog down draft drag drawer drop edit editor email empty error
        event export face fade feed field file filter find first flag flash flex float fold font
        footer form frame free full game gift global good graph grid group guest hash head help
        hero hide home hook host hour icon image img import index info init inner input item job
        key label lang large last layout left legal level light like line link list load local
        lock log login logo main map mark mask media menu meta mini mobile modal mode model money
        month more mouse move music name nav new next node note null offer office open option
        order other page panel part past path pay phone photo play plus point pop post prev price
        print promo proxy push query quick quote radio range rate read red reset retry review
        right role root route row rule sale save scroll search select sell send series server
        session set share shop show side sign size slide small snap social sort source space
        speed split stack star start state step stock stop store style submit sum svg switch sync
        tab table tag task team test text theme thumb time tip title todo toggle token tool top
        total touch track tree type under undo unit up upload url user utils value video view
        visit wait wall web week wide width window wish word work world wrap xml year zoom";
    let words: Vec<&str> = words.split_whitespace().collect();
    let capital = |word: &str| {
        let (first, rest) = word.split_at(1);
        format!("{}{rest}", first.to_ascii_uppercase())
    };
    let mut names = Vec::new();
    for one in &words {
        names.push((*one).to_owned());
        for number in ["1", "2", "12", "24", "99", "365", "1080", "2024", "20240"] {
            names.push(format!("{one}{number}"));
            names.push(format!("{number}{one}"));
            names.push(format!("{}{number}", capital(one)));
            names.push(format!("i{}{number}", capital(one)));
            names.push(format!("{}{number}", one.to_ascii_uppercase()));
            names.push(format!("{number}{}", one.to_ascii_uppercase()));
        }
        let fits = |two: &&&str| (4..=8).contains(&(one.len() + two.len()));
        for two in words.iter().filter(fits) {
            names.push(format!("{one}{}", capital(two)));
            names.push(format!("{}{}", capital(one), capital(two)));
            names.push(format!("{}-{}", capital(one), capital(two)));
            names.push(format!("{one}_{two}"));
            names.push(format!(
                "{}{}",
                one.to_ascii_uppercase(),
                two.to_ascii_uppercase()
            ));
            names.push(format!(
                "{}2{}",
                one.to_ascii_uppercase(),
                two.to_ascii_uppercase()
            ));
            for number in ["2", "15"] {
                names.push(format!("{}{}{number}", capital(one), capital(two)));
                names.push(format!("{}{number}{}", capital(one), capital(two)));
                names.push(format!("{one}{number}{two}"));
                names.push(format!("{}-{number}-{two}", capital(one)));
            }
            if one.len() + two.len() == 6 {
                for three in ["Up", "My", "Go", "To", "Ui", "ID", "UI", "JS"] {
                    names.push(format!("{}{three}{}", capital(one), capital(two)));
                    names.push(format!("{three}{}{}", capital(one), capital(two)));
                }
            }
        }
    }
    // All others are too short or too long for what could be mistaken.
    let hex = |name: &str| name.bytes().all(|byte| byte.is_ascii_hexdigit());
    names.retain(|name| name.len() == SHORT || hex(name));
    names
}

#[test]
fn no_words_in_any_case_and_no_numbers_are_taken_for_a_hash() {
    let ordinary = ordinary();
    assert!(ordinary.len() > 20_000, "only {}", ordinary.len());
    let mut wrong = Vec::new();
    for name in ordinary {
        for (before, after) in [("app-", ".js"), ("my.", ".png"), ("x_", ".css.map")] {
            let name = format!("{before}{name}{after}");
            if of(&name).is_some() {
                wrong.push(name);
            }
        }
    }
    assert!(
        wrong.is_empty(),
        "{} such as {:?}",
        wrong.len(),
        wrong.get(..40.min(wrong.len()))
    );
}

#[test]
fn no_date_is_taken_for_a_hash() {
    const MONTHS: [&str; 12] = [
        "jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec",
    ];
    for year in 2000..2040 {
        for (month, name) in (1..).zip(MONTHS) {
            for day in 1..=31 {
                for date in [
                    format!("{year}{month:02}{day:02}"),
                    format!("{year}{month:02}{day:02}b"),
                    format!("{year}-{month:02}-{day:02}"),
                    format!("{day:02}{name}{year}"),
                    format!("{day}{name}{year}"),
                    format!("{year}{name}{day:02}"),
                    format!("{name}{year}"),
                    format!("{year}{name}"),
                    format!("{year}{month:02}{day:02}T120000"),
                    format!("{year}{month:02}{day:02}120000"),
                ] {
                    for ending in ["js", "png"] {
                        let name = format!("theme-{date}.{ending}");
                        assert_eq!(of(&name), None, "{name}");
                    }
                }
            }
        }
    }
}

/// The share of random hashes that are known, of those that `fit`.
fn known(alphabet: &[u8], length: usize, around: (&str, &str), fit: fn(&str) -> bool) -> f64 {
    let (before, after) = around;
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        usize::try_from(state >> 33).unwrap() % alphabet.len()
    };
    let (mut all, mut found) = (0_u32, 0_u32);
    for _ in 0..20_000 {
        let hash: String = (0..length).map(|_| char::from(alphabet[next()])).collect();
        if !fit(&hash) {
            continue;
        }
        all += 1;
        let name = format!("{before}{hash}{after}");
        found += u32::from(of(&name).is_some_and(|found| found.hash() == hash));
    }
    assert!(all > 1_000);
    f64::from(found) / f64::from(all)
}

fn both(hash: &str) -> bool {
    has(hash, u8::is_ascii_digit) && has(hash, u8::is_ascii_lowercase)
}

#[test]
fn most_random_hashes_of_scripts_are_known() {
    const JS: (&str, &str) = ("index-", ".js");
    const CSS: (&str, &str) = ("main.", ".chunk.css");
    const PNG: (&str, &str) = ("hero-", ".png");
    let shares = [
        ("base64url", known(BASE64, 8, JS, |_| true), 0.85),
        ("8 hex", known(HEX, 8, JS, |_| true), 0.95),
        ("6 hex", known(HEX, 6, JS, |_| true), 0.75),
        ("10 hex", known(HEX, 10, JS, |_| true), 0.95),
        ("12 hex", known(HEX, 12, JS, both), 1.0),
        ("20 hex", known(HEX, 20, JS, both), 1.0),
        ("32 hex", known(HEX, 32, CSS, both), 1.0),
        ("64 hex", known(HEX, 64, CSS, both), 1.0),
        ("base32", known(BASE32, 8, JS, |_| true), 0.45),
        (
            "base32 of esbuild",
            known(BASE32, 8, ("chunk-", ".js"), |_| true),
            0.65,
        ),
        (
            "base64url of pictures",
            known(BASE64, 8, PNG, |_| true),
            0.7,
        ),
        ("8 hex of pictures", known(HEX, 8, PNG, |_| true), 0.65),
        ("12 hex of pictures", known(HEX, 12, PNG, both), 1.0),
    ];
    println!("{shares:?}");
    for (form, share, least) in shares {
        assert!(share >= least, "{form}: {share}");
    }
}

#[test]
fn releases_of_a_file_are_told_by_the_rest_of_the_name() {
    let one = of("app-3f9a1c2b.js").unwrap();
    assert!(one.same_file(&of("app-0b1c2d3e.js").unwrap()));
    for other in ["app-0b1c2d3e.js.map", "App-0b1c2d3e.js", "app.0b1c2d3e.js"] {
        assert!(!one.same_file(&of(other).unwrap()), "{other}");
    }
    assert_eq!(one.pattern().to_string(), "app-*.js");
    // Of two that are hashes alone nothing says that they belong together.
    let bare = of("3f9a1c2b4d5e6f70.css").unwrap();
    assert!(!bare.same_file(&bare));
}

proptest! {
    #[test]
    fn the_parts_are_the_name(name in "[a-zA-Z0-9._\u{e4}-]{0,40}") {
        if let Some(found) = of(&name) {
            prop_assert_eq!(format!("{}{}{}", found.before(), found.hash(), found.after()), &*name);
            prop_assert!(found.hash().len() >= 6 && found.after().len() >= 2);
        }
    }

    #[test]
    fn whatever_is_written_in_lower_case_words_is_left_alone(name in "[g-z]{1,12}([-._][g-z]{1,12}){0,4}") {
        prop_assert_eq!(of(&name), None);
    }

    #[test]
    fn a_page_is_never_taken_for_a_file_that_does_not_change(name in "[a-z]{1,5}[-.][0-9a-f]{6,64}") {
        for ending in ["", ".html", ".HTM", ".php"] {
            let name = format!("{name}{ending}");
            let known = of(&name);
            prop_assert!(ending.is_empty() || known.is_none());
        }
    }

    #[test]
    fn versions_are_left_alone(name in "[a-z]{1,9}[-.]v?[0-9]{1,3}(\\.[0-9]{1,3}){1,3}(-(alpha|beta|rc)\\.?[0-9]{1,2})?(\\.min)?\\.(js|css|png)") {
        prop_assert_eq!(of(&name), None);
    }
}
