use super::*;

fn list(patterns: &[&str]) -> Patterns {
    Patterns::new(patterns).unwrap()
}

#[test]
fn single_patterns_match_as_the_field_does() {
    // (pattern, path, matched); checked against moby/patternmatcher.
    let table = [
        ("**", "file", true),
        ("**", "dir/file", true),
        ("**/", "dir/file", true),
        ("**/**", "dir/file", true),
        ("dir/**", "dir/file", true),
        ("dir/**", "dir", false),
        ("dir/**", "dir/dir2/file", true),
        ("**/file", "file", true),
        ("**/file", "dir/dir/file", true),
        ("**/file", "dir/profile", false),
        ("**file", "dir/profile", true),
        ("**/file*", "dir/dir/file.txt", true),
        ("**/file*txt", "dir/dir/file.txt", true),
        ("**/**/*.txt", "dir/dir/file.txt", true),
        ("**/**/*.txt2", "dir/dir/file.txt", false),
        ("**/*.txt", "file.txt", true),
        ("a**/*.txt", "a/file.txt", true),
        ("a**/*.txt", "a/dir/dir/file.txt", true),
        ("a/*.txt", "a/dir/file.txt", false),
        ("a/**/*.txt", "a/file.txt", true),
        ("a[b-d]e", "ace", true),
        ("a[b-d]e", "aae", false),
        ("a[^b-d]e", "a/e", true),
        ("a[\\^b-d]", "a^", true),
        ("[\\]a]", "]", true),
        ("a\\*b", "a*b", true),
        ("a\\*b", "axb", false),
        ("[a-ζ]*", "α", true),
        ("*[a-ζ]", "A", false),
        ("a?b", "a☺b", true),
        ("a???b", "a☺b", false),
        ("a?b", "a/b", false),
        ("abc.def", "abcdef", false),
        ("abc.def", "abcZdef", false),
        ("abc?def", "abcdef", false),
        ("**/foo/bar", "foo/bar", true),
        ("**/foo/bar", "dir/dir2/foo/bar", true),
        ("abc/**", "abc/def/ghi", true),
        ("**/.foo", "bar.foo", false),
        ("**/.foo", ".foo", true),
        ("a(b)c/def", "a(b)c/def", true),
        ("a|b", "a|b", true),
        ("a^b", "a^b", true),
        ("a*^b", "ax^b", false),
        ("./bar.*", "bar.txt", true),
        ("bar/../foo", "foo", true),
        ("**/x/**", "a/x/b", true),
        ("**/x/**", "a/x", false),
        // What only a regular expression can tell.
        ("a|b/*", "axx", true),
        ("a|b/*", "x/b/y", true),
        ("a|b/*", "x/by", false),
        ("a|b", "axx", false),
        ("app/(group)/*", "app/(group)/x", true),
        ("v{2}/*", "vv/x", true),
        ("v{2}/*", "v{2}/x", false),
        ("v{1,2}/*", "v/x", true),
        ("*.{js,ts}", "a.js", false),
        ("*.{js,ts}", "a.{js,ts}", true),
        ("bin\\debug/*", "bin5ebug/x", true),
        ("bin\\debug/*", "bin\\debug/x", false),
        ("src\\bin", "srcbin", false),
        ("[[:digit:]]/*", "7/x", true),
        ("[\\w]/*", "_/x", true),
        ("**/^a/*", "a/x", true),
        ("**/^a/*", "b/a/x", false),
        ("x*/[]a]", "xx/]", true),
        ("x*/[a-]", "x/-", true),
        ("x[a*]/y", "xbc/y", false),
    ];
    for (pattern, path, want) in table {
        assert_eq!(list(&[pattern]).matches(path), want, "{pattern:?} on {path:?}");
    }
}

#[test]
fn a_folder_holds_for_its_entries_and_later_patterns_win() {
    let table: [(&[&str], &str, bool); 8] = [
        (&["docs"], "docs/a/b", true),
        (&["docs", "!docs/README.md"], "docs/README.md", false),
        (&["docs", "!docs/README.md"], "docs/other.md", true),
        (&["docs", "!docs/*.md", "docs/a.md"], "docs/a.md", true),
        (&["**", "!src"], "src/main.rs", false),
        (&["**", "!src", "src/gen"], "src/gen/x.rs", true),
        (&["*.go", "!a.go"], "a.go", false),
        (&["!a.go", "*.go"], "a.go", true),
    ];
    for (patterns, path, want) in table {
        assert_eq!(list(patterns).matches(path), want, "{patterns:?} on {path:?}");
        let patterns = list(patterns);
        let (mut folder, mut got) = (Inherited::default(), false);
        for (at, _) in path.match_indices('/').chain([(path.len(), "")]) {
            (got, folder) = patterns.matches_within(&path[..at], &folder);
        }
        assert_eq!(got, want, "by folders: {path:?}");
    }
}

#[test]
fn walks_pass_by_what_cannot_match() {
    let includes = list(&["src/lib/*.rs", "docs"]);
    assert!(includes.may_match_inside("target"), "a star inside may reach anywhere");
    let includes = list(&["src/lib/*", "docs/a/**"]);
    assert!(includes.may_match_inside("src"));
    assert!(includes.may_match_inside("src/lib"));
    assert!(!includes.may_match_inside("sr"));
    assert!(!includes.may_match_inside("target"));
    let excludes = list(&["*", "!src/main.rs"]);
    assert!(excludes.may_except_inside("src"));
    assert!(!excludes.may_except_inside("docs"));
    assert!(!list(&["*"]).may_except_inside("src"));
}

#[test]
fn bad_patterns_are_refused() {
    for bad in [
        "[",
        "a[",
        "[]a]",
        "[-]",
        "[x-]",
        "[-x]",
        "[a-b-c]",
        "a\\",
        "**[",
        "x*/[",
        "*{2}",
        "a{2}{3}*",
        "|{2}*",
        "a{2,1}*",
        "a{1001}*",
        "x*/\\q",
        "x*/[b-a]",
        "x*/[[:no:]]",
    ] {
        let error = Patterns::new([bad]).unwrap_err();
        assert_eq!(error.to_string(), "syntax error in pattern", "{bad}");
    }
    assert_eq!(Patterns::new(["!"]).unwrap_err().to_string(), "illegal exclusion pattern: \"!\"");
    assert!(Patterns::new(["", "  "]).unwrap().is_empty());
}

#[test]
fn many_stars_take_no_longer() {
    let pattern = "a*".repeat(200) + "b";
    let path = "a".repeat(5_000);
    let started = std::time::Instant::now();
    assert!(!Glob::new(&pattern).unwrap().matches(&path));
    assert!(Glob::new(&pattern).unwrap().matches(path + "b"));
    assert!(started.elapsed().as_secs() < 2);
}

#[test]
fn bytes_that_are_no_text_are_matched() {
    assert!(Glob::new("a?b").unwrap().matches(b"a\xffb"));
    assert!(Glob::new("a*b").unwrap().matches(b"a\xff\xfeb"));
}

#[test]
fn ignore_files_are_read() {
    let text = b"\xef\xbb\xbf# comment\n/abs/path\r\n  spaced  \n\n!/kept\n! spaced/../out\n #not a comment\n./a//b/\n!\n/\n";
    assert_eq!(
        parse_ignore_file(text),
        ["abs/path", "spaced", "!kept", "!out", "#not a comment", "a/b", "!", "/"]
    );
}
