//! Provenance as SLSA v0.2 has it.

use crate::build_config::Steps;
use crate::predicate::{Builder, Definition, Dependency, Metadata, More, Places, RunDetails};
use crate::request::Parameters;
use crate::statement::Digests;
use serde::Serialize;
use serde_json::{Map, Value};
use std::collections::BTreeMap;

/// What kind of build it was.
const BUILD_TYPE: &str = "https://mobyproject.org/buildkit@v1";

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Written<'a> {
    builder: &'a Builder,
    build_type: &'static str,
    #[serde(skip_serializing_if = "<[Dependency]>::is_empty")]
    materials: &'a [Dependency],
    invocation: Invocation<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    build_config: Option<&'a Steps>,
    metadata: Told<'a>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Invocation<'a> {
    config_source: ConfigSource<'a>,
    parameters: &'a Parameters,
    environment: Environment<'a>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ConfigSource<'a> {
    #[serde(skip_serializing_if = "str::is_empty")]
    uri: &'a str,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    digest: &'a Digests,
    #[serde(skip_serializing_if = "str::is_empty")]
    entry_point: &'a str,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Environment<'a> {
    platform: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    dockerfile_version: Option<&'a String>,
    #[serde(flatten)]
    more: &'a Map<String, Value>,
}

#[derive(Serialize)]
struct Told<'a> {
    #[serde(rename = "buildInvocationID")]
    invocation: &'a str,
    #[serde(rename = "buildStartedOn")]
    started: &'a str,
    #[serde(rename = "buildFinishedOn")]
    finished: &'a str,
    completeness: Completeness,
    reproducible: bool,
    #[serde(rename = "https://mobyproject.org/buildkit@v1#metadata")]
    more: &'a More,
    #[serde(rename = "crosskit_metadata", skip_serializing_if = "Places::is_empty")]
    places: &'a Places,
    #[serde(
        rename = "https://mobyproject.org/buildkit@v1#hermetic",
        skip_serializing_if = "std::ops::Not::not"
    )]
    hermetic: bool,
}

#[derive(Serialize)]
struct Completeness {
    parameters: bool,
    environment: bool,
    materials: bool,
}

impl<'a> Written<'a> {
    /// The same facts in this form.
    pub(crate) fn of(definition: &'a Definition, details: &'a RunDetails) -> Self {
        let (external, internal) = (&definition.external_parameters, &definition.internal_parameters);
        let Metadata { invocation, started, finished, more, places, hermetic, completeness, reproducible } =
            &details.metadata;
        Written {
            builder: &details.builder,
            build_type: BUILD_TYPE,
            materials: &definition.resolved_dependencies,
            invocation: Invocation {
                config_source: ConfigSource {
                    uri: &external.config_source.uri,
                    digest: &external.config_source.digest,
                    entry_point: &external.config_source.path,
                },
                parameters: &external.request,
                environment: Environment {
                    platform: &internal.builder_platform,
                    dockerfile_version: internal.dockerfile_version.as_ref(),
                    more: &internal.environment,
                },
            },
            build_config: internal.build_config.as_ref(),
            metadata: Told {
                invocation,
                started,
                finished,
                completeness: Completeness {
                    parameters: completeness.request,
                    environment: true,
                    materials: completeness.resolved_dependencies,
                },
                reproducible: *reproducible,
                more,
                places,
                hermetic: *hermetic,
            },
        }
    }
}
