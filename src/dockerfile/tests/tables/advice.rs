//! The rules of the checks, each with a file that breaks it and one that does not.

use super::outcome;

/// A rule and its page; a file that breaks it, the message and the lines; a file that does not.
type Row = (&'static str, &'static str, &'static str, &'static str, [u32; 2], &'static str);

const RULES: [Row; 22] = [
    (
        "StageNameCasing",
        "stage-name-casing",
        "FROM scratch AS Build\n",
        "Stage name 'Build' should be lowercase",
        [1, 1],
        "FROM scratch AS build\n",
    ),
    (
        "FromAsCasing",
        "from-as-casing",
        "FROM scratch as build\n",
        "'as' and 'FROM' keywords' casing do not match",
        [1, 1],
        "from scratch as build\n",
    ),
    (
        "NoEmptyContinuation",
        "no-empty-continuation",
        "FROM scratch\nENV A=b \\\n\n  C=d\n",
        "Empty continuation line",
        [4, 4],
        "FROM scratch\nENV A=b \\\n# more\n  C=d\n",
    ),
    (
        "ConsistentInstructionCasing",
        "consistent-instruction-casing",
        "FROM scratch\nenv A=b\nLABEL c=d\n",
        "Command 'env' should match the case of the command majority (uppercase)",
        [2, 2],
        "from scratch\nenv A=b\nlabel c=d\n",
    ),
    (
        "DuplicateStageName",
        "duplicate-stage-name",
        "FROM scratch AS a\nFROM scratch AS a\n",
        "Duplicate stage name \"a\", stage names should be unique",
        [2, 2],
        "FROM scratch AS a\nFROM scratch AS b\n",
    ),
    (
        "ReservedStageName",
        "reserved-stage-name",
        "FROM scratch AS context\n",
        "Stage name should not use the same name as reserved stage \"context\"",
        [1, 1],
        "FROM scratch AS contexts\n",
    ),
    (
        "JSONArgsRecommended",
        "json-args-recommended",
        "FROM scratch\nENTRYPOINT run me\n",
        "JSON arguments recommended for ENTRYPOINT to prevent unintended behavior related to OS signals",
        [2, 2],
        "FROM scratch\nSHELL [\"/sh\"]\nENTRYPOINT run me\nCMD [\"a\"]\n",
    ),
    (
        "MaintainerDeprecated",
        "maintainer-deprecated",
        "FROM scratch\nMAINTAINER me\n",
        "Maintainer instruction is deprecated in favor of using label",
        [2, 2],
        "FROM scratch\nLABEL maintainer=me\n",
    ),
    (
        "UndefinedArgInFrom",
        "undefined-arg-in-from",
        "ARG VERSION=1\nFROM busybox:1${VERSOIN}\n",
        "FROM argument 'VERSOIN' is not declared (did you mean VERSION?)",
        [2, 2],
        "ARG VERSION=1\nFROM busybox:1${VERSION}\n",
    ),
    (
        "WorkdirRelativePath",
        "workdir-relative-path",
        "FROM scratch\nWORKDIR a\nWORKDIR b\n",
        "Relative workdir \"a\" can have unexpected results if the base image changes",
        [2, 2],
        "FROM scratch\nWORKDIR /a\nWORKDIR b\n",
    ),
    (
        "UndefinedVar",
        "undefined-var",
        "FROM scratch\nENV PATHS=/x\nLABEL a=$PATHZ \\\n  b=c\n",
        "Usage of undefined variable '$PATHZ' (did you mean $PATH?)",
        [3, 4],
        "FROM scratch\nARG UNSET\nLABEL a=$UNSET\n",
    ),
    (
        "MultipleInstructionsDisallowed",
        "multiple-instructions-disallowed",
        "FROM scratch\nCMD [\"a\"]\nCMD [\"b\"]\n",
        "Multiple CMD instructions should not be used in the same stage because only the last one will be used",
        [2, 2],
        "FROM scratch AS a\nCMD [\"a\"]\nFROM a\nCMD [\"b\"]\n",
    ),
    (
        "LegacyKeyValueFormat",
        "legacy-key-value-format",
        "FROM scratch\nENV a b\n",
        "\"ENV key=value\" should be used instead of legacy \"ENV key value\" format",
        [2, 2],
        "FROM scratch\nENV a=b\n",
    ),
    (
        "InvalidBaseImagePlatform",
        "",
        "FROM other\n",
        "Base image other was pulled with platform \"linux/arm64\", expected \"linux/amd64\" for current build",
        [1, 1],
        "FROM busybox\n",
    ),
    (
        "RedundantTargetPlatform",
        "redundant-target-platform",
        "FROM --platform=$TARGETPLATFORM scratch\n",
        "Setting platform to predefined $TARGETPLATFORM in FROM is redundant as this is the default behavior",
        [1, 1],
        "FROM --platform=$BUILDPLATFORM scratch\n",
    ),
    (
        "SecretsUsedInArgOrEnv",
        "secrets-used-in-arg-or-env",
        "FROM scratch\nARG GIT_TOKEN\n",
        "Do not use ARG or ENV instructions for sensitive data (ARG \"GIT_TOKEN\")",
        [2, 2],
        "FROM scratch\nARG GIT_TOKEN_FILE\nENV PUBLIC_KEY=a\n",
    ),
    (
        "InvalidDefaultArgInFrom",
        "invalid-default-arg-in-from",
        "ARG TAG\nFROM busybox:$TAG\n",
        "Default value for ARG busybox:$TAG results in empty or invalid base image name",
        [2, 2],
        "ARG TAG=1\nFROM busybox:$TAG\n",
    ),
    (
        "FromPlatformFlagConstDisallowed",
        "from-platform-flag-const-disallowed",
        "FROM --platform=linux/arm64 scratch\n",
        "FROM --platform flag should not use constant value \"linux/arm64\"",
        [1, 1],
        "FROM --platform=linux/arm64 scratch AS build-arm64\n",
    ),
    (
        "CopyIgnoredFile",
        "copy-ignored-file",
        "FROM scratch\nADD ignored.txt /\n",
        "Attempting to Add file \"ignored.txt\" that is excluded by .dockerignore",
        [2, 2],
        "FROM scratch\nADD other.md /\n",
    ),
    (
        "InvalidDefinitionDescription",
        "invalid-definition-description",
        "# check=experimental=all\n# the version\nARG VERSION=1\nFROM scratch\n",
        "Comment for ARG should follow the format: `# VERSION <description>`",
        [3, 3],
        "# check=experimental=all\n# VERSION of it\nARG VERSION=1\n# a remark\n\nFROM scratch\n",
    ),
    (
        "ExposeProtoCasing",
        "expose-proto-casing",
        "FROM scratch\nEXPOSE 80/TCP\n",
        "Defined protocol '80/TCP' in EXPOSE instruction should be lowercase",
        [2, 2],
        "FROM scratch\nEXPOSE 80/tcp\n",
    ),
    (
        "ExposeInvalidFormat",
        "expose-invalid-format",
        "FROM scratch\nEXPOSE 127.0.0.1:80:80\n",
        "EXPOSE instruction should not define an IP address or host-port mapping, found '127.0.0.1:80:80'",
        [2, 2],
        "FROM scratch\nEXPOSE 80\n",
    ),
];

#[test]
fn each_rule_is_told_where_it_is_broken_and_nowhere_else() {
    let options = [("build-arg:TAG", "2"), ("platform", "linux/amd64")];
    for (rule, page, broken, message, [first, last], kept) in RULES {
        let (built, found) = outcome(broken, &options);
        built.unwrap();
        let [found] = found.as_slice() else { panic!("{rule}: {found:?}") };
        let warning = &found.warning;
        assert_eq!((warning.rule.name, warning.message.as_str()), (rule, message));
        assert_eq!((warning.lines.first, warning.lines.last), (first, last), "{rule}");
        assert_eq!(warning.short(), format!("{rule}: {message} (line {first})"));
        let url = match page {
            "" => String::new(),
            page => format!("https://docs.docker.com/go/dockerfile/rule/{page}/"),
        };
        assert_eq!(warning.rule.url, url);
        let (built, found) = outcome(kept, &options[1..]);
        built.unwrap();
        assert!(found.is_empty(), "{rule}: {found:?}");
    }
}

/// A directive, the build argument, which rules are then told, and what the build fails with.
type Choice = (&'static str, Option<&'static str>, &'static [&'static str], &'static str);

const CHOICES: [Choice; 19] = [
    ("", None, &["FromAsCasing", "JSONArgsRecommended"], ""),
    ("# check=skip=all", None, &[], ""),
    ("# check=skip=JSONArgsRecommended", None, &["FromAsCasing"], ""),
    ("# check=skip=FromAsCasing,JSONArgsRecommended", None, &[], ""),
    // A blank ends what the directive says.
    ("# check=skip=FromAsCasing, JSONArgsRecommended", None, &["JSONArgsRecommended"], ""),
    ("# check=skip = all", None, &[], "failed to parse check options: invalid check option \"skip\""),
    (
        "#check = error=true",
        None,
        &["FromAsCasing", "JSONArgsRecommended"],
        "lint violation found for rules: FromAsCasing, JSONArgsRecommended",
    ),
    (
        "# check=error=true;skip=FromAsCasing more",
        None,
        &["JSONArgsRecommended"],
        "lint violation found for rules: JSONArgsRecommended",
    ),
    ("# check=skip=all;error=true", None, &[], ""),
    (
        "# check=error=maybe",
        None,
        &[],
        "failed to parse check options: failed to parse check option \"error=maybe\": strconv.ParseBool: parsing \"maybe\": invalid syntax",
    ),
    ("# check=skip", None, &[], "failed to parse check options: invalid check option \"skip\""),
    ("# check=what=1", None, &[], "failed to parse check options: invalid check option \"what\""),
    // The argument counts instead of the directive, even if it says nothing.
    ("# check=error=true", Some("skip=all"), &[], ""),
    ("# check=skip=all", Some(""), &["FromAsCasing", "JSONArgsRecommended"], ""),
    ("", Some("skip= FromAsCasing ,JSONArgsRecommended"), &[], ""),
    (
        "# check=error=x",
        Some("error=1"),
        &["FromAsCasing", "JSONArgsRecommended"],
        "lint violation found for rules: FromAsCasing, JSONArgsRecommended",
    ),
    (
        "",
        Some("what=1"),
        &[],
        "failed to parse build-arg:BUILDKIT_DOCKERFILE_CHECK: invalid check option \"what\"",
    ),
    (
        "",
        Some("experimental=InvalidDefinitionDescription"),
        &["FromAsCasing", "InvalidDefinitionDescription", "JSONArgsRecommended"],
        "",
    ),
    (
        "",
        Some("experimental=all;skip=all;error=true"),
        &["InvalidDefinitionDescription"],
        "lint violation found for rules: InvalidDefinitionDescription",
    ),
];

#[test]
fn directive_and_argument_choose_the_rules() {
    for (directive, argument, rules, failure) in CHOICES {
        let head = if directive.is_empty() { String::new() } else { format!("{directive}\n") };
        let file = format!("{head}# the remark\nFROM scratch as a\nCMD x\n");
        let argument: Vec<_> =
            argument.into_iter().map(|text| ("build-arg:BUILDKIT_DOCKERFILE_CHECK", text)).collect();
        let (built, found) = outcome(&file, &argument);
        let found: Vec<_> = found.iter().map(|found| found.warning.rule.name).collect();
        assert_eq!(found, rules, "{directive} {argument:?}");
        assert_eq!(
            built.err().map(|e| e.to_string()).unwrap_or_default(),
            failure,
            "{directive} {argument:?}"
        );
    }
}
