use std::fmt::Write as _;
use std::sync::Arc;

use proptest::prelude::*;

use crate::error::{DockerfileError, Lines};
use crate::instruction::{self, Dockerfile, Instruction, Stage};
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
    let fits = |code: &str| !code.trim().is_empty() && !code.ends_with(text.escape);
    text.statements.iter().all(|statement| fits(&statement.code))
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

/// All instructions with all of their flags, and holes for words.
const INSTRUCTIONS: [&str; 38] = [
    "ADD --chown=~ --chmod=~ --link --exclude=~ --exclude=~ ~ ~",
    "ADD --checksum=sha256:~ --keep-git-dir=true --unpack=false https://~/x.git#~ ~",
    "ADD <<E ~\n~ $A\nE",
    "ARG A B=~ C=~",
    "# B is ~\nARG B=~",
    "CMD [\"~\", \"~\"]",
    "CMD ~ ~",
    "COPY --from=~ --chown=~:~ --chmod=~ --link=false --parents --exclude=~ ~ ~ ~",
    "COPY <<'E' <<-F ~ ~\n~\nE\n\t~\n\tF",
    "COPY [\"~\", \"~\"]",
    "ENTRYPOINT [\"~\"]",
    "entrypoint ~",
    "ENV A=~ B=\"~\" C='~'",
    "ENV A ~ ~",
    "EXPOSE 80 ~/udp",
    "FROM ~",
    "FROM --platform=~ ~ AS stage",
    "from ~ as other",
    "HEALTHCHECK --interval=1s --timeout=2m --start-period=3h --start-interval=4ms --retries=5 CMD ~",
    "HEALTHCHECK CMD [\"~\"]",
    "HEALTHCHECK NONE",
    "LABEL a=~ \"b c\"=~ ~=d",
    "MAINTAINER ~",
    "ONBUILD COPY --from=~ ~ ~",
    "ONBUILD RUN <<E\n~\nE",
    "RUN ~ ~",
    "RUN [\"~\", \"~\"]",
    "RUN --mount=type=bind,from=~,source=~,target=~,rw --mount=target=~ ~",
    "RUN --mount=type=cache,id=~,target=~,sharing=locked,mode=0755,uid=1,gid=2,from=~,source=~,ro ~",
    "RUN --mount=type=tmpfs,target=~,size=1m --network=none --security=insecure ~",
    "RUN --mount=type=secret,id=~,env=~,required --mount=type=ssh,id=~,mode=0600 --network=host ~",
    "RUN --device=vendor.com/class=~ --device=name=vendor.com/~,required ~",
    "RUN <<E cat - <<-\"F\" && ~\n~\nE\n\t~\n\tF",
    "SHELL [\"~\", \"-c\"]",
    "STOPSIGNAL ~",
    "USER ~:~",
    "VOLUME [\"~\"] ~",
    "WORKDIR ~",
];

/// An instruction with words in its holes, perhaps continued on other lines.
fn instruction() -> impl Strategy<Value = String> {
    let words = ["a", "b.c", "/d/", "$A", "${B:-x}", "${C%.*}", "é漢", "1", "k=v", "*", "x\\ y", "<&>"];
    let word = prop::sample::select(words.to_vec());
    let gap = prop::sample::select(vec![" ", "  ", "\t", " \\\n  ", " \\\n# why\n", " \\\n\n"]);
    let line = prop::sample::select(INSTRUCTIONS.to_vec());
    (line, prop::collection::vec(word, 6), prop::option::weighted(0.3, gap)).prop_map(|(line, words, gap)| {
        let line = words.into_iter().fold(line.to_owned(), |line, word| line.replacen('~', word, 1));
        match gap {
            Some(gap) if !line.contains('\n') => line.replacen(' ', gap, 1),
            _ => line,
        }
    })
}

/// A file without the places that printing changes.
fn placeless(file: Dockerfile) -> Dockerfile {
    let nowhere = |instruction: &Instruction| Instruction { lines: Lines::default(), ..instruction.clone() };
    Dockerfile {
        global_args: file.global_args.iter().map(nowhere).collect(),
        stages: file
            .stages
            .into_iter()
            .map(|stage| Stage {
                lines: Lines::default(),
                instructions: stage.instructions.iter().map(|one| Arc::new(nowhere(one))).collect(),
                ..stage
            })
            .collect(),
        ..file
    }
}

#[test]
fn each_kind_of_instruction_is_among_those_that_are_printed() {
    let mut keywords: Vec<_> = instruction::parse::KEYWORDS.to_vec();
    for line in INSTRUCTIONS {
        let file = format!("FROM x\n{}\n", line.replace('~', "a"));
        let text = read(file.as_bytes()).unwrap();
        keywords.retain(|keyword| !text.statements[1].keyword.eq_ignore_ascii_case(keyword));
        if let Err(error) = instruction::parse::dockerfile(text, &Linter::silent()) {
            panic!("{line}: {error}");
        }
    }
    assert!(keywords.is_empty(), "no line for {keywords:?}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn instructions_survive_being_printed(lines in prop::collection::vec(instruction(), 1..8)) {
        let file = format!("ARG A=1\nFROM scratch\n{}\n", lines.join("\n"));
        let understand = |file: &str| {
            let text = read(file.as_bytes())?;
            let printed = print(&text);
            Ok::<_, DockerfileError>((placeless(instruction::parse::dockerfile(text, &Linter::silent())?), printed))
        };
        let Ok((first, printed)) = understand(&file) else {
            return Ok(());
        };
        let (second, again) = understand(&printed).map_err(|error| TestCaseError::fail(format!("{error}:\n{printed}")))?;
        prop_assert_eq!(first, second);
        prop_assert_eq!(printed, again);
    }

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
