//! Reads the Prometheus text format as far as the tests ask.

/// The sum of the series with this name and (at least) these labels; `None`: there is none.
pub(crate) fn sum(text: &str, series: &str) -> Option<f64> {
    let (name, labels) = split(series);
    let mut total = None;
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let Some((key, value)) = line.rsplit_once(' ') else {
            continue;
        };
        let (its_name, its_labels) = split(key);
        if its_name == name && labels.iter().all(|label| its_labels.contains(label)) {
            let value: f64 = value.parse().unwrap_or(f64::NAN);
            total = Some(total.unwrap_or(0.0) + value);
        }
    }
    total
}

/// `name{a="1",b="2"}` in parts; label values here hold no comma.
fn split(series: &str) -> (&str, Vec<&str>) {
    match series.split_once('{') {
        None => (series.trim(), Vec::new()),
        Some((name, rest)) => {
            let labels = rest.trim_end_matches('}').split(',').map(str::trim);
            (name, labels.filter(|label| !label.is_empty()).collect())
        }
    }
}

#[test]
fn series_are_found_by_some_of_their_labels() {
    let text = "# HELP a x\na{x=\"1\",y=\"2\"} 3\na{x=\"1\",y=\"3\"} 4\nab 9\n";
    assert_eq!(sum(text, "a{x=\"1\"}"), Some(7.0));
    assert_eq!(sum(text, "a{y=\"3\",x=\"1\"}"), Some(4.0));
    assert_eq!(sum(text, "a{x=\"9\"}"), None);
    assert_eq!(sum(text, "ab"), Some(9.0));
}
