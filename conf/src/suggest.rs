//! "Did you mean": the nearest known word.

/// The candidate that `word` is most likely a slip of; `None`: none is near.
pub(crate) fn nearest<'a>(
    word: &str,
    candidates: impl IntoIterator<Item = &'a str>,
) -> Option<&'a str> {
    let typed = fold(word);
    let allowed = (typed.chars().count() / 3).clamp(1, 3);
    candidates
        .into_iter()
        .filter_map(|candidate| {
            let known = fold(candidate);
            let steps = distance(&typed, &known);
            let near = steps <= allowed || contained(&typed, &known);
            near.then_some((steps, candidate))
        })
        .min_by_key(|(steps, _)| *steps)
        .map(|(_, candidate)| candidate)
}

/// Lower case, and one spelling for what joins words.
fn fold(word: &str) -> String {
    word.to_lowercase().replace(['-', ' '], "_")
}

/// `body_size` for `max_body_size`; too short a word is contained in too much.
fn contained(typed: &str, known: &str) -> bool {
    let (short, long) = if typed.len() < known.len() {
        (typed, known)
    } else {
        (known, typed)
    };
    short.len() >= 4 && long.contains(short)
}

/// Optimal string alignment: insertions, deletions, substitutions and swaps of neighbours.
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let mut before: Vec<usize> = Vec::new();
    let mut last: Vec<usize> = (0..=b.len()).collect();
    for i in 1..=a.len() {
        let mut row = vec![i];
        for j in 1..=b.len() {
            let same = usize::from(a[i - 1] != b[j - 1]);
            let mut least = (last[j] + 1).min(row[j - 1] + 1).min(last[j - 1] + same);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                least = least.min(before[j - 2] + 1);
            }
            row.push(least);
        }
        before = std::mem::replace(&mut last, row);
    }
    last[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_slip_finds_its_word() {
        let keys = ["address", "name", "tls", "protocols", "max_body_size"];
        let near = |word| nearest(word, keys);
        assert_eq!(near("adress"), Some("address"));
        assert_eq!(near("addresss"), Some("address"));
        assert_eq!(near("Name"), Some("name"));
        assert_eq!(near("lts"), Some("tls"), "two neighbours swapped");
        assert_eq!(near("max-body-size"), Some("max_body_size"));
        assert_eq!(near("body_size"), Some("max_body_size"));
        assert_eq!(near("proxy_pass"), None);
    }

    proptest! {
        #[test]
        fn distance_is_symmetric_and_zero_only_for_the_same(a in "[a-d]{0,6}", b in "[a-d]{0,6}") {
            prop_assert_eq!(distance(&a, &b), distance(&b, &a));
            prop_assert_eq!(distance(&a, &b) == 0, a == b);
        }
    }
}
