//! Command lines as people type them.

use super::*;

static PROGRAM: Command = Command {
    flags: &[
        flag("debug", Kind::Bool, "more logs"),
        flag("addr", Kind::Text("unix:///x"), "address"),
        flag("timeout", Kind::Int(5), "seconds"),
    ],
    commands: &[
        Command {
            aliases: &["b"],
            flags: &[
                flag("output", Kind::List, "exports").short("o"),
                flag("no-cache", Kind::Bool, "again"),
                flag("keep-duration", Kind::Duration, "age"),
            ],
            ..Command::new("build", "builds")
        },
        Command {
            commands: &[Command::new("workers", "lists workers")],
            ..Command::new("debug", "debugging")
        },
    ],
    ..Command::new("prog", "a program")
};

fn run(line: &str) -> Parsed {
    match wish(line) {
        Wish::Run(parsed) => parsed,
        other => panic!("{line}: {other:?}"),
    }
}

fn wish(line: &str) -> Wish {
    parse(&PROGRAM, &line.split_whitespace().map(str::to_owned).collect::<Vec<_>>())
}

#[test]
fn flags_have_one_dash_or_two_and_a_value_beside_or_attached() {
    let parsed = run("-addr tcp://a b -o x --output=y=z -output w --no-cache PATH --debug=false");
    assert_eq!(parsed.command, ["build"]);
    assert_eq!(parsed.text("addr"), "tcp://a");
    assert_eq!(parsed.list("output"), ["x", "y=z", "w"]);
    assert!(parsed.on("no-cache") && !parsed.on("debug"));
    assert_eq!(parsed.arguments, ["PATH"]);
    assert_eq!(parsed.int("timeout"), 5);
    assert_eq!(run("build --addr unix:///y --keep-duration 1h").text("addr"), "unix:///y");
    assert_eq!(run("build -- --no-cache").arguments, ["--no-cache"]);
    assert_eq!(run("build -").arguments, ["-"]);
    assert_eq!(run("debug workers").command, ["debug", "workers"]);
}

#[test]
fn mistakes_are_told_in_the_words_that_scripts_know() {
    let told = |line: &str| match wish(line) {
        Wish::Mistake(message, help) => (message, help.is_some()),
        other => panic!("{line}: {other:?}"),
    };
    assert_eq!(told("--nope"), ("flag provided but not defined: -nope".into(), true));
    assert_eq!(told("build -nope"), ("flag provided but not defined: -nope".into(), false));
    assert_eq!(told("build --output"), ("flag needs an argument: --output".into(), false));
    assert_eq!(told("build --no-cache=x").0, r#"invalid value "x" for flag -no-cache: parse error"#);
    assert_eq!(
        told("--timeout x").0,
        r#"invalid value "x" for flag -timeout: strconv.ParseInt: parsing "x": invalid syntax"#
    );
    assert_eq!(
        told("build --keep-duration=x").0,
        r#"invalid value "x" for flag -keep-duration: time: invalid duration "x""#
    );
    assert!(matches!(wish("nope"), Wish::NoCommand(name) if name == "nope"));
    assert!(matches!(wish("debug nope"), Wish::NoCommand(_)));
    assert!(matches!(wish("--version"), Wish::Version));
}

#[test]
fn help_is_laid_out_in_columns() {
    let text = |line: &str| match wish(line) {
        Wish::Help(text) => text,
        other => panic!("{line}: {other:?}"),
    };
    assert_eq!(
        text("build --help"),
        "NAME:\n   prog build - builds\n\nUSAGE:\n   prog build [options]\n\nOPTIONS:\n   \
         --output string, -o string [ --output string, -o string ]  exports\n   \
         --no-cache                                                 again\n   \
         --keep-duration duration                                   age (default: 0s)\n   \
         --help, -h                                                 show help\n\nGLOBAL OPTIONS:\n   \
         --debug        more logs\n   --addr string  address (default: \"unix:///x\")\n   \
         --timeout int  seconds (default: 5)\n"
    );
    assert_eq!(text("help build"), text("build -h"));
    assert_eq!(text(""), text("--help"));
    assert!(text("").contains("COMMANDS:\n   build, b  builds\n   debug     debugging\n   help, h   Shows"));
    assert!(text("debug").starts_with(
        "NAME:\n   prog debug - debugging\n\nUSAGE:\n   prog debug [command [command options]]\n"
    ));
}
