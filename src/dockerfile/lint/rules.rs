//! The rules, with the names and texts that Docker documents.

use crate::lint::Rule;
use crate::text::quote::go_quote;

macro_rules! rules {
    ($($constant:ident $name:literal $url:literal $description:literal;)*) => {
        $(
            #[doc = $description]
            pub static $constant: Rule = Rule {
                name: $name,
                description: $description,
                url: concat!("https://docs.docker.com/go/dockerfile/rule/", $url, "/"),
                experimental: false,
            };
        )*
    };
}

rules! {
    STAGE_NAME_CASING "StageNameCasing" "stage-name-casing"
        "Stage names should be lowercase";
    FROM_AS_CASING "FromAsCasing" "from-as-casing"
        "The 'as' keyword should match the case of the 'from' keyword";
    NO_EMPTY_CONTINUATION "NoEmptyContinuation" "no-empty-continuation"
        "Empty continuation lines will become errors in a future release";
    CONSISTENT_INSTRUCTION_CASING "ConsistentInstructionCasing" "consistent-instruction-casing"
        "All commands within the Dockerfile should use the same casing (either upper or lower)";
    DUPLICATE_STAGE_NAME "DuplicateStageName" "duplicate-stage-name"
        "Stage names should be unique";
    RESERVED_STAGE_NAME "ReservedStageName" "reserved-stage-name"
        "Reserved words should not be used as stage names";
    JSON_ARGS_RECOMMENDED "JSONArgsRecommended" "json-args-recommended"
        "JSON arguments recommended for ENTRYPOINT/CMD to prevent unintended behavior related to OS signals";
    MAINTAINER_DEPRECATED "MaintainerDeprecated" "maintainer-deprecated"
        "The MAINTAINER instruction is deprecated, use a label instead to define an image author";
    UNDEFINED_ARG_IN_FROM "UndefinedArgInFrom" "undefined-arg-in-from"
        "FROM command must use declared ARGs";
    WORKDIR_RELATIVE_PATH "WorkdirRelativePath" "workdir-relative-path"
        "Relative workdir without an absolute workdir declared within the build can have unexpected results if the base image changes";
    UNDEFINED_VAR "UndefinedVar" "undefined-var"
        "Variables should be defined before their use";
    MULTIPLE_INSTRUCTIONS_DISALLOWED "MultipleInstructionsDisallowed" "multiple-instructions-disallowed"
        "Multiple instructions of the same type should not be used in the same stage";
    LEGACY_KEY_VALUE_FORMAT "LegacyKeyValueFormat" "legacy-key-value-format"
        "Legacy key/value format with whitespace separator should not be used";
    REDUNDANT_TARGET_PLATFORM "RedundantTargetPlatform" "redundant-target-platform"
        "Setting platform to predefined $TARGETPLATFORM in FROM is redundant as this is the default behavior";
    SECRETS_USED_IN_ARG_OR_ENV "SecretsUsedInArgOrEnv" "secrets-used-in-arg-or-env"
        "Sensitive data should not be used in the ARG or ENV commands";
    INVALID_DEFAULT_ARG_IN_FROM "InvalidDefaultArgInFrom" "invalid-default-arg-in-from"
        "Default value for global ARG results in an empty or invalid base image name";
    FROM_PLATFORM_FLAG_CONST_DISALLOWED "FromPlatformFlagConstDisallowed" "from-platform-flag-const-disallowed"
        "FROM --platform flag should not use a constant value";
    COPY_IGNORED_FILE "CopyIgnoredFile" "copy-ignored-file"
        "Attempting to Copy file that is excluded by .dockerignore";
    EXPOSE_PROTO_CASING "ExposeProtoCasing" "expose-proto-casing"
        "Protocol in EXPOSE instruction should be lowercase";
    EXPOSE_INVALID_FORMAT "ExposeInvalidFormat" "expose-invalid-format"
        "IP address and host-port mapping should not be used in EXPOSE instruction. This will become an error in a future release";
}

/// Base image platform does not match expected target platform
pub static INVALID_BASE_IMAGE_PLATFORM: Rule = Rule {
    name: "InvalidBaseImagePlatform",
    description: "Base image platform does not match expected target platform",
    url: "",
    experimental: false,
};

/// Comments that are taken for descriptions
pub static INVALID_DEFINITION_DESCRIPTION: Rule = Rule {
    name: "InvalidDefinitionDescription",
    description: "Comment for build stage or argument should follow the format: `# <arg/stage name> <description>`. If this is not intended to be a description comment, add an empty line or comment between the instruction and the comment.",
    url: "https://docs.docker.com/go/dockerfile/rule/invalid-definition-description/",
    experimental: true,
};

fn guess(guess: Option<&str>, sign: &str) -> String {
    guess.map(|guess| format!(" (did you mean {sign}{guess}?)")).unwrap_or_default()
}

pub fn stage_name_casing(name: &str) -> String {
    format!("Stage name '{name}' should be lowercase")
}

pub fn from_as_casing(from: &str, keyword: &str) -> String {
    format!("'{keyword}' and '{from}' keywords' casing do not match")
}

pub fn no_empty_continuation() -> String {
    "Empty continuation line".to_owned()
}

pub fn consistent_instruction_casing(keyword: &str, casing: &str) -> String {
    format!("Command '{keyword}' should match the case of the command majority ({casing})")
}

pub fn duplicate_stage_name(name: &str) -> String {
    format!("Duplicate stage name {}, stage names should be unique", go_quote(name))
}

pub fn reserved_stage_name(name: &str) -> String {
    format!("Stage name should not use the same name as reserved stage {}", go_quote(name))
}

pub fn json_args_recommended(keyword: &str) -> String {
    format!("JSON arguments recommended for {keyword} to prevent unintended behavior related to OS signals")
}

pub fn maintainer_deprecated() -> String {
    "Maintainer instruction is deprecated in favor of using label".to_owned()
}

pub fn undefined_arg_in_from(name: &str, near: Option<&str>) -> String {
    format!("FROM argument '{name}' is not declared{}", guess(near, ""))
}

pub fn workdir_relative_path(path: &str) -> String {
    format!("Relative workdir {} can have unexpected results if the base image changes", go_quote(path))
}

pub fn undefined_var(name: &str, near: Option<&str>) -> String {
    format!("Usage of undefined variable '${name}'{}", guess(near, "$"))
}

pub fn multiple_instructions_disallowed(keyword: &str) -> String {
    format!(
        "Multiple {keyword} instructions should not be used in the same stage because only the last one will be used"
    )
}

pub fn legacy_key_value_format(keyword: &str) -> String {
    format!("\"{keyword} key=value\" should be used instead of legacy \"{keyword} key value\" format")
}

pub fn invalid_base_image_platform(image: &str, expected: &str, actual: &str) -> String {
    format!(
        "Base image {image} was pulled with platform {}, expected {} for current build",
        go_quote(actual),
        go_quote(expected)
    )
}

pub fn redundant_target_platform(expression: &str) -> String {
    format!(
        "Setting platform to predefined {expression} in FROM is redundant as this is the default behavior"
    )
}

pub fn secrets_used_in_arg_or_env(keyword: &str, name: &str) -> String {
    format!("Do not use ARG or ENV instructions for sensitive data ({keyword} {})", go_quote(name))
}

pub fn invalid_default_arg_in_from(base: &str) -> String {
    format!("Default value for ARG {base} results in empty or invalid base image name")
}

pub fn from_platform_flag_const_disallowed(platform: &str) -> String {
    format!("FROM --platform flag should not use constant value {}", go_quote(platform))
}

pub fn copy_ignored_file(verb: &str, file: &str) -> String {
    format!("Attempting to {verb} file {} that is excluded by .dockerignore", go_quote(file))
}

pub fn invalid_definition_description(keyword: &str, name: &str) -> String {
    format!("Comment for {keyword} should follow the format: `# {name} <description>`")
}

pub fn expose_proto_casing(port: &str) -> String {
    format!("Defined protocol '{port}' in EXPOSE instruction should be lowercase")
}

pub fn expose_invalid_format(port: &str) -> String {
    format!("EXPOSE instruction should not define an IP address or host-port mapping, found '{port}'")
}

/// Words that make a variable look like a secret, unless one of [`HARMLESS`] is there too.
const SECRETS: [&str; 10] =
    ["apikey", "auth", "credential", "credentials", "key", "password", "pword", "passwd", "secret", "token"];
const HARMLESS: [&str; 3] = ["public", "file", "version"];

/// Whether a variable's name says that its value is a secret.
pub fn looks_secret(name: &str) -> bool {
    let has =
        |words: &[&str]| name.split('_').any(|part| words.iter().any(|word| word.eq_ignore_ascii_case(part)));
    has(&SECRETS) && !has(&HARMLESS)
}
