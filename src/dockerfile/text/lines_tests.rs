use std::fmt::Write as _;

use proptest::prelude::*;

use crate::error::Lines;
use crate::instruction;
use crate::lint::Linter;
use crate::text::lines::{Statement, Text, read};

fn keywords(file: &str) -> Vec<(String, u32, u32)> {
    let text = read(file.as_bytes()).unwrap();
    text.statements.into_iter().map(|s| (s.code.trim().to_owned(), s.lines.first, s.lines.last)).collect()
}

fn one(code: &str, first: u32, last: u32) -> (String, u32, u32) {
    (code.to_owned(), first, last)
}

#[test]
fn lines_are_joined() {
    assert_eq!(
        keywords("\u{feff}# hi\r\nFROM a\r\nRUN a \\  \n  # not this\n\n  b\\\n c\n\nRUN \"x\\\\\nCMD"),
        [one("FROM a", 2, 2), one("RUN a   b c", 3, 7), one("RUN \"x\\\\", 9, 9), one("CMD", 10, 10)]
    );
    assert_eq!(keywords("# escape=`\nFROM a\nRUN a `\nb"), [one("FROM a", 2, 2), one("RUN a b", 3, 4)]);
    assert_eq!(
        keywords("RUN <<A <<-'B' cat\na\nA\n\tb\n\tB\nCMD x"),
        [one("RUN <<A <<-'B' cat", 1, 5), one("CMD x", 6, 6)]
    );
}

#[test]
fn a_file_that_ends_behind_an_escape_character_ends_its_line_there() {
    assert_eq!(keywords("FROM a\nRUN b \\"), [one("FROM a", 1, 1), one("RUN b", 2, 2)]);
    assert_eq!(keywords("FROM a\n\\"), [one("FROM a", 1, 1), one("", 2, 2)]);
    assert_eq!(keywords("FROM a\n\\\u{2028}"), [one("FROM a", 1, 1), one("\\", 2, 2)]);
    let text = read(b"FROM a\n\\").unwrap();
    let error = instruction::parse::dockerfile(text, &Linter::silent()).unwrap_err();
    assert_eq!(
        (error.to_string().as_str(), error.locations[0].first),
        ("dockerfile parse error on line 2: unknown instruction: ", 2)
    );
}

#[test]
fn mistakes_have_their_lines() {
    for (file, want, first, last) in [
        ("", "file with no instructions", 0, 0),
        ("# a\n# b\n", "file with no instructions", 2, 2),
        ("FROM a\nRUN <<E\nx\n", "unterminated heredoc", 2, 3),
        ("FROM a\nENV a\n", "ENV must have two arguments", 2, 2),
        (
            "FROM a\nENV a=b c\n",
            "Syntax error - can't find = in \"c\". Must be of the form: name=value",
            2,
            2,
        ),
        (
            "FROM a\nRUN [\"a\", 1]\n",
            "when using JSON array syntax, arrays must be comprised of strings only",
            2,
            2,
        ),
        ("# escape=x\nFROM a", "invalid escape token 'x' does not match ` or \\", 0, 0),
        ("# syntax=a\n# syntax=b\nFROM a", "only one syntax parser directive can be used", 1, 1),
    ] {
        let error = read(file.as_bytes()).unwrap_err();
        assert_eq!(
            (error.to_string().as_str(), error.locations.as_slice()),
            (want, [Lines { first, last }].as_slice())
        );
    }
    let long = format!("FROM a\nRUN {}\n", "x".repeat(70_000));
    let error = read(long.as_bytes()).unwrap_err().to_string();
    assert_eq!(error, "dockerfile line greater than max allowed size of 65535");
}

/// Writes statements out again, each on one line but for its here-documents.
fn print(text: &Text) -> String {
    let mut out = format!("# escape={}\n", text.escape);
    for Statement { comments, code, heredocs, .. } in &text.statements {
        for comment in comments {
            writeln!(out, "# {comment}").unwrap();
        }
        writeln!(out, "{code}").unwrap();
        for heredoc in heredocs {
            writeln!(out, "{}{}", heredoc.content, heredoc.name).unwrap();
        }
    }
    out
}

/// Whether every statement can be written on a line of its own. One that the file's end cut off behind an escape character
/// may be empty, and one whose escape character stood before a space other than blank and tab would go on into the next.
fn has_lines(text: &Text) -> bool {
    text.statements.iter().all(|Statement { code, .. }| !code.is_empty() && !code.ends_with(text.escape))
}

/// Statements without the places that printing changes.
fn bare(text: Text) -> Vec<Statement> {
    let bare = |statement| Statement { lines: Lines::default(), ..statement };
    text.statements.into_iter().map(bare).collect()
}

/// Pieces that Dockerfiles are made of, so that random ones mean something.
fn piece() -> impl Strategy<Value = String> {
    let fixed = prop::sample::select(vec![
        "FROM ",
        "RUN ",
        "COPY ",
        "ADD ",
        "ENV ",
        "ARG ",
        "LABEL ",
        "EXPOSE ",
        "HEALTHCHECK ",
        "ONBUILD ",
        "CMD ",
        "SHELL ",
        "VOLUME ",
        "--from=",
        "--mount=type=",
        "--chmod=",
        "a",
        "b=c",
        "$A",
        "${A:-",
        "${A#",
        "}",
        "'",
        "\"",
        "\\",
        "`",
        "\n",
        "\\\n",
        " ",
        "\t",
        "# x\n",
        "# escape=`\n",
        "<<E",
        "<<-'E' ",
        "E\n",
        "[\"a\", \"b\"]",
        "[",
        "]",
        ",",
        "/",
        "é",
        "\u{2028}",
        "scratch",
        " AS x",
        "0",
        "=",
        ":",
        "~",
        "\r\n",
    ]);
    prop_oneof![4 => fixed.prop_map(str::to_owned), 1 => any::<String>()]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn no_text_panics(pieces in prop::collection::vec(piece(), 0..40)) {
        if let Ok(text) = read(pieces.concat().as_bytes()) {
            let _ = instruction::parse::dockerfile(text, &Linter::silent());
        }
    }

    #[test]
    fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = read(&bytes);
        let _ = crate::detect_syntax(&bytes);
    }

    #[test]
    fn printing_and_reading_is_stable(pieces in prop::collection::vec(piece(), 0..20)) {
        let file = format!("FROM scratch\n{}", pieces.concat());
        let Ok(text) = read(file.as_bytes()) else {
            return Ok(());
        };
        prop_assume!(has_lines(&text));
        // What is printed is read once more, as a comment may then be a directive or belong to another line.
        let Ok(again) = read(print(&text).as_bytes()) else {
            return Err(TestCaseError::fail(format!("{file:?} cannot be read again:\n{}", print(&text))));
        };
        let printed = print(&again);
        prop_assume!(has_lines(&again));
        prop_assert_eq!(bare(again), bare(read(printed.as_bytes()).unwrap()));
    }
}
