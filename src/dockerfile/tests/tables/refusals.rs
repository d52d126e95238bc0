//! What is said of files and options that are wrong in several ways or in rare ones, and which lines are shown.

use super::outcome;

/// Options, in which more than one thing may be wrong, and what is told.
const OPTIONS: [(&[(&str, &str)], &str); 9] = [
    (&[("image-resolve-mode", "x"), ("multi-platform", "x")], "invalid image-resolve-mode: x"),
    (
        &[("ulimit", "none"), ("build-arg:BUILDKIT_DOCKERFILE_CHECK", "what")],
        "failed to parse ulimit: invalid ulimit argument: none",
    ),
    (
        &[("add-hosts", "a"), ("force-network-mode", "x")],
        "failed to parse additional hosts: invalid key-value pair a",
    ),
    (
        &[("cpushares", "-1")],
        "failed to parse resource limits: invalid cpushares value: -1: strconv.ParseUint: parsing \"-1\": invalid syntax",
    ),
    (
        &[("cpuperiod", "99999999999999999999")],
        "failed to parse resource limits: invalid cpuperiod value: 99999999999999999999: strconv.ParseUint: parsing \"99999999999999999999\": value out of range",
    ),
    (&[("cpushares", "0")], "failed to parse resource limits: invalid cpushares value: 0: must be > 0"),
    (
        &[("cpusetcpus", "3-1")],
        "failed to parse resource limits: invalid cpusetcpus value: 3-1: invalid cpuset range \"3-1\"",
    ),
    (
        &[("cpusetmems", "0, 9000")],
        "failed to parse resource limits: invalid cpusetmems value: 0, 9000: cpuset element \"9000\" exceeds maximum 8192",
    ),
    (
        &[("cpusetmems", "0,a")],
        "failed to parse resource limits: invalid cpusetmems value: 0,a: invalid cpuset element \"a\"",
    ),
];

/// Instructions of a stage, what is told of them, and the lines shown, counted with the FROM in front.
const INSTRUCTIONS: [(&str, &str, &[[u32; 2]]); 19] = [
    ("RUN --mount= x", "dockerfile parse error on line 2: failed to parse csv mounts: EOF", &[[2, 2]]),
    ("RUN --device= x", "dockerfile parse error on line 2: failed to parse csv devices: EOF", &[[2, 2]]),
    (
        "RUN --mount=type=bind,a\\\"b x",
        "dockerfile parse error on line 2: failed to parse csv mounts: parse error on line 1, column 12: bare \" in non-quoted-field",
        &[[2, 2]],
    ),
    (
        "RUN --security=x --device=a,b x",
        "dockerfile parse error on line 2: invalid field 'b' must be a key=value pair",
        &[[2, 2]],
    ),
    (
        "HEALTHCHECK --retries=x --start-interval=1x CMD a",
        "dockerfile parse error on line 2: time: unknown unit \"x\" in duration \"1x\"",
        &[[2, 2]],
    ),
    (
        "ONBUILD ONBUILD ONBUILD LABEL a=b c",
        "Syntax error - can't find = in \"c\". Must be of the form: name=value",
        &[[2, 2]],
    ),
    (
        "VOLUME $A ${B:=x}",
        "failed to process \"${B:=x}\": unsupported modifier (:=) in substitution",
        &[[2, 2]],
    ),
    (
        "COPY ${A%%\\$} /",
        "failed to process \"${A%%\\\\$}\": invalid pattern (\\$) in substitution: invalid escape '\\$'",
        &[[2, 2]],
    ),
    ("COPY --chmod=u a /", "invalid syntax", &[[2, 2]]),
    (
        "EXPOSE 127.0.0.1:80:80 ${A/b}",
        "failed to process \"${A/b}\": syntax error: missing '/' in ${}",
        &[[2, 2]],
    ),
    ("EXPOSE [::1:80:80", "invalid IP address [::1: address [::1:: missing ']' in address", &[[2, 2]]),
    ("RUN []\nSTOPSIGNAL nothing", "invalid signal: nothing", &[[3, 3]]),
    ("RUN []", "failed to marshal LLB definition: arguments are required", &[[2, 2]]),
    ("ADD https://x/y.git?checksum=abcdef1 http://x/z /", "invalid checksum digest format", &[[2, 2]]),
    (
        "ADD https://x/y.git?keep-git-dir=true https://x/z.git?keep-git-dir=false /",
        "inconsistent keep-git-dir configuration",
        &[[2, 2]],
    ),
    (
        "COPY --from=b x /\nCOPY --from=b y /\nFROM scratch AS b\nCOPY --from=a x /",
        "circular dependency detected on stage: a",
        &[[3, 3], [5, 5]],
    ),
    (
        "FROM busybox@sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
        "failed to parse stage name \"busybox@sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\": invalid checksum digest length",
        &[[2, 2]],
    ),
    (
        "FROM b@MD5:aa",
        "failed to parse stage name \"b@MD5:aa\": invalid reference format: repository name (library/b@MD5) must be lowercase",
        &[[2, 2]],
    ),
    (
        "RUN --mount=type=bind,from=a@b,target=/x y",
        "failed to parse stage name \"a@b\": invalid reference format",
        &[],
    ),
];

#[test]
fn the_same_mistake_is_told_as_elsewhere() {
    for (options, message) in OPTIONS {
        let (built, _) = outcome("FROM scratch\n", options);
        assert_eq!(built.unwrap_err().to_string(), message, "{options:?}");
    }
    for (instructions, message, lines) in INSTRUCTIONS {
        let (built, _) = outcome(&format!("FROM scratch AS a\n{instructions}\n"), &[]);
        let error = built.unwrap_err();
        assert_eq!(error.to_string(), message, "{instructions}");
        let mut shown = Vec::new();
        for place in error.locations {
            let ranges = place.to_ranges();
            let line = |at: Option<&crosskit_api::pb::Range>| at.and_then(|r| r.start).map(|p| p.line as u32);
            shown.extend(line(ranges.first()).zip(line(ranges.last())).map(|(first, last)| [first, last]));
        }
        assert_eq!(shown, lines, "{instructions}");
    }
}

#[test]
fn variables_that_nothing_sets_are_told_even_where_the_word_is_wrong() {
    let (built, found) = outcome("FROM scratch\nVOLUME $A ${B:=x}\n", &[]);
    built.unwrap_err();
    let found: Vec<_> = found.iter().map(|found| found.warning.message.as_str()).collect();
    assert_eq!(found, ["Usage of undefined variable '$A'", "Usage of undefined variable '$B'"]);
}

#[test]
fn questions_fail_as_builds_do_and_are_answered_where_they_can_be() {
    let lint = [("requestid", "frontend.lint")];
    let outline = [("requestid", "frontend.outline")];
    let json = |file: &str, options: &[(&str, &str)]| {
        let answer = outcome(file, options).0.unwrap();
        serde_json::from_str::<serde_json::Value>(answer["answer"]["result.json"].as_str().unwrap()).unwrap()
    };
    // Of a file without stages there are no targets; of one without a step that can be made there is an outline.
    assert!(json("ARG A=1\n", &[("requestid", "frontend.targets")])["targets"].is_null());
    json("FROM scratch\nRUN []\n", &outline);
    let choice = "failed to parse check options: invalid check option \"what\"";
    let file = "# check=what=1\n# escape=x\nFROM scratch\n";
    assert_eq!(json(file, &lint)["buildError"]["message"], choice);
    assert_eq!(outcome(file, &outline).0.unwrap_err().to_string(), choice);
    let (built, found) = outcome("# check=error=true\nFROM scratch as a\n", &outline);
    assert_eq!(built.unwrap_err().to_string(), "lint violation found for rules: FromAsCasing");
    assert_eq!(found.len(), 1);
}
