//! Guesses at what a misspelt word was meant to be.

/// A guess may be this many edits away, one less.
const TOO_FAR: usize = 3;

/// The option that is nearest to `word`; none when nothing is near, or when `word` is one of them and so not misspelt.
pub fn nearest<'a>(word: &str, options: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let mut best = None;
    let mut best_distance = TOO_FAR;
    for option in options {
        if option == word {
            return None;
        }
        let distance = distance(word, option, best_distance);
        if distance < best_distance {
            best_distance = distance;
            best = Some(option);
        }
    }
    best.filter(|best| !best.is_empty())
}

/// As [`nearest`], whatever the case of letters. The guess is written in the case of `word`.
pub fn nearest_ignoring_case<'a>(word: &str, options: impl IntoIterator<Item = &'a str>) -> Option<String> {
    let small = word.to_lowercase();
    let mut lower: Vec<String> = options.into_iter().map(str::to_lowercase).collect();
    // Of several that are equally near, rather one that begins alike.
    lower.sort_by_key(|option| option.chars().next() != small.chars().next());
    let found = nearest(&small, lower.iter().map(String::as_str))?;
    Some(match word == word.to_uppercase() && word != word.to_lowercase() {
        true => found.to_uppercase(),
        false => found.to_owned(),
    })
}

/// How many characters have to be added, removed or replaced; anything from `limit` on is as far as that.
fn distance(a: &str, b: &str, limit: usize) -> usize {
    let a: Vec<char> = a.chars().collect();
    let b: Vec<char> = b.chars().collect();
    if a.len().abs_diff(b.len()) >= limit {
        return limit;
    }
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.iter().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, to) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(from != to);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn near_words_are_found() {
        assert_eq!(nearest("buidler", ["base", "builder"]), Some("builder"));
        assert_eq!(nearest("builder", ["builder", "bilder"]), None);
        assert_eq!(nearest("xyz", ["builder"]), None);
        assert_eq!(nearest("x", [""]), None);
        assert_eq!(nearest_ignoring_case("FORM", ["FROM", "RUN"]).as_deref(), Some("FROM"));
        assert_eq!(nearest_ignoring_case("Form", ["FROM"]).as_deref(), Some("from"));
        assert_eq!(nearest_ignoring_case("RNU", ["ENV", "RUN"]).as_deref(), Some("RUN"));
    }
}
