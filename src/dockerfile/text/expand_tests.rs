use std::borrow::Cow;

use crate::text::expand::{Lexer, NoVariables, Variables};

struct Few;

impl Variables for Few {
    fn get(&self, name: &str) -> Option<Cow<'_, str>> {
        match name {
            "A" => Some("a/b/c.txt".into()),
            "E" => Some("".into()),
            "W" => Some("x  y".into()),
            _ => None,
        }
    }
}

fn expand(word: &str) -> Result<String, String> {
    let found = Lexer::new('\\').expand(word, &Few);
    found.map(|found| found.text).map_err(|error| error.to_string())
}

#[test]
fn variables_and_modifiers() {
    for (word, want) in [
        ("plain", "plain"),
        ("$A", "a/b/c.txt"),
        ("${A}x", "a/b/c.txtx"),
        ("'$A'", "$A"),
        ("\"$A\"", "a/b/c.txt"),
        ("\\$A", "$A"),
        ("\"\\$A\\n\"", "$A\\n"),
        ("$", "$"),
        ("$U.", "."),
        ("${U:-d}", "d"),
        ("${E:-d}", "d"),
        ("${E-d}", ""),
        ("${E:+d}", ""),
        ("${E+d}", "d"),
        ("${A:+d}", "d"),
        ("${U:-${E:-in}}", "in"),
        ("${A#*/}", "b/c.txt"),
        ("${A##*/}", "c.txt"),
        ("${A%/*}", "a/b"),
        ("${A%%/*}", "a"),
        ("${A%.???}", "a/b/c"),
        ("${A/b/X}", "a/X/c.txt"),
        ("${A//\\//-}", "a-b-c.txt"),
        ("${A?gone}", "a/b/c.txt"),
        ("a << b", "a << b"),
    ] {
        assert_eq!(expand(word).as_deref(), Ok(want), "{word}");
    }
}

#[test]
fn mistakes_are_named() {
    for (word, want) in [
        ("${", "syntax error: missing '}'"),
        ("${}", "syntax error: bad substitution"),
        ("${A", "unsupported modifier (\u{fffd}) in substitution"),
        ("${A:-x", "syntax error: missing '}'"),
        ("${A!x}", "unsupported modifier (!) in substitution"),
        ("${A:#x}", "unsupported modifier (:#) in substitution"),
        ("${A:z}", "unsupported modifier (:z) in substitution"),
        ("${U:?gone}", "U: gone"),
        ("${U?}", "U: is not allowed to be unset"),
        ("${E:?}", "E: is not allowed to be empty"),
        ("${A/x", "syntax error: missing '/' in ${}"),
        ("${A#\\a}", "invalid pattern (\\a) in substitution: invalid escape '\\a'"),
        ("'x", "unexpected end of statement while looking for matching single-quote"),
        ("\"x", "unexpected end of statement while looking for matching double-quote"),
    ] {
        let error = expand(word).unwrap_err();
        assert_eq!(error.split_once(": ").unwrap().1, want, "{word}");
    }
    assert_eq!(expand("${U:?gone}").unwrap_err(), "failed to process \"${U:?gone}\": U: gone");
    let deep = format!("{}{}", "${U:-".repeat(20_000), "}".repeat(20_000));
    assert!(expand(&deep).unwrap_err().contains("nested more than"));
}

#[test]
fn words_are_split_after_replacement() {
    let words = |text| Lexer::new('\\').words(text, &Few).unwrap();
    assert_eq!(words("a $W \"$W\" 'b c'"), ["a", "x", "y", "x  y", "b c"]);
    let raw = Lexer { skip_unset: true, raw_quotes: true, ..Lexer::new('\\') };
    assert_eq!(raw.expand("a \"$U\" ${U} $A", &Few).unwrap().text, "a \"$U\" ${U} a/b/c.txt");
    let plain = Lexer { no_quotes: true, ..Lexer::new('\\') };
    assert_eq!(plain.expand("it's $A\n", &Few).unwrap().text, "it's a/b/c.txt\n");
    assert_eq!(Lexer::new('`').expand("a\\b`$", &NoVariables).unwrap().text, "a\\b$");
    let found = Lexer::new('\\').expand("$A $U", &Few).unwrap();
    assert!(found.matched.contains("A") && found.unmatched.contains("U"));
    let found = Lexer::new('\\').expand("$Z $A $U $Z $B", &Few).unwrap();
    assert!(found.unmatched.iter().eq(["Z", "U", "B"]), "as they come: {:?}", found.unmatched);
}

/// One variable of a megabyte.
struct Large(String);

impl Variables for Large {
    fn get(&self, name: &str) -> Option<Cow<'_, str>> {
        (name == "L").then_some(Cow::Borrowed(&self.0))
    }
}

#[test]
fn texts_do_not_grow_without_bound() {
    let large = Large("x".repeat(1 << 20));
    let whole = "$L".repeat(16);
    let found = Lexer::new('\\').expand(&whole, &large).expect("not too long");
    assert_eq!(found.text.len(), 16 << 20);
    for word in
        ["$L".repeat(17), format!("\"{}\"", "$L".repeat(17)), "${L//x/$L}".into(), "${L//x/\\$0}".into()]
    {
        let error = Lexer::new('\\').expand(&word, &large).expect_err("too long").to_string();
        assert!(error.contains("with its variables it has more than 16777216 bytes"), "{error}");
    }
}
