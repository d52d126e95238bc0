//! Credentials that AWS's token service lends, and those that a program tells.

use super::credentials::Credentials;
use super::profiles::Role;
use super::sign::{Scope, Target, sign};
use crate::encoding::query;
use crate::environment::Environment;
use crate::error::{Result, StoreError};
use crate::http::{Http, Method, Request, Retries};
use crate::{pieces, xml};
use serde::Deserialize;
use std::path::Path;

/// The version of the service's protocol.
const VERSION: (&str, &str) = ("Version", "2011-06-15");

/// What a role's session is called if nobody says: it is in AWS's records.
const SESSION: &str = "crosskit";

fn endpoint(environment: &Environment, region: &str) -> String {
    let told = environment.first(&["AWS_ENDPOINT_URL_STS", "AWS_ENDPOINT_URL"]);
    told.unwrap_or_else(|| format!("https://sts.{region}.{}", super::domain(region)))
        .trim_end_matches('/')
        .to_owned()
}

/// A role, for a token that the platform puts into a file.
pub(super) async fn with_web_identity(
    environment: &Environment,
    region: &str,
    role: &str,
    session: Option<&str>,
    file: &Path,
) -> Result<Credentials> {
    let token = tokio::fs::read_to_string(file).await;
    let token = token.map_err(|source| StoreError::File {
        doing: format!("read the web identity token {}", file.display()),
        source,
    })?;
    let form = query(&[
        ("Action", "AssumeRoleWithWebIdentity"),
        VERSION,
        ("RoleArn", role),
        ("RoleSessionName", session.unwrap_or(SESSION)),
        ("WebIdentityToken", token.trim()),
    ]);
    let base = endpoint(environment, region);
    let doing = format!("take on the role {role} with the token in {}", file.display());
    let http = Http::new(&base, Retries::default())?;
    let answer = http.send(&doing, |_| post(format!("{base}/"), &form)).await?;
    lent(&doing, &answer.text().await?)
}

/// A role, for other credentials.
pub(super) async fn with_role(
    environment: &Environment,
    region: &str,
    role: Role<'_>,
    credentials: &Credentials,
) -> Result<Credentials> {
    let session = role.session.unwrap_or(SESSION);
    let mut form =
        vec![("Action", "AssumeRole"), VERSION, ("RoleArn", role.arn), ("RoleSessionName", session)];
    form.extend(role.external_id.map(|id| ("ExternalId", id)));
    let form = query(&form);
    let payload = pieces::sha256(form.as_bytes());
    let base = endpoint(environment, region);
    let doing = format!("take on the role {}", role.arn);
    let http = Http::new(&base, Retries::default())?;
    let make = |at| {
        let target = Target { base: &base, path: "/", query: &[] };
        let scope = Scope { region, service: "sts" };
        sign(post(target.url(), &form), target, &payload, scope, credentials, at)
    };
    let answer = http.send(&doing, make).await?;
    lent(&doing, &answer.text().await?)
}

fn post(url: String, form: &str) -> Request {
    let request = Request::new(Method::POST, url);
    request.header("content-type", "application/x-www-form-urlencoded").body(form.to_owned().into())
}

fn lent(doing: &str, answer: &str) -> Result<Credentials> {
    let part = |name| {
        xml::text(answer, name).ok_or_else(|| StoreError::answer(doing, format!("the answer has no {name}")))
    };
    Ok(Credentials {
        access_key_id: part("AccessKeyId")?,
        secret_access_key: part("SecretAccessKey")?,
        session_token: Some(part("SessionToken")?),
        expires: part("Expiration")?.parse().ok(),
    })
}

/// Credentials as AWS's services and programs tell them in JSON.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Told {
    access_key_id: String,
    secret_access_key: String,
    #[serde(alias = "SessionToken")]
    token: Option<String>,
    expiration: Option<String>,
}

impl From<Told> for Credentials {
    fn from(told: Told) -> Self {
        Credentials {
            access_key_id: told.access_key_id,
            secret_access_key: told.secret_access_key,
            session_token: told.token.filter(|token| !token.is_empty()),
            expires: told.expiration.and_then(|text| text.parse().ok()),
        }
    }
}

/// Credentials that a program tells, as a profile's `credential_process` says.
pub(super) async fn of_process(command: &str) -> Result<Credentials> {
    let failed = |why: String| StoreError::Credentials(format!("credential_process {command:?}: {why}"));
    let ran = tokio::process::Command::new("sh").arg("-c").arg(command).kill_on_drop(true).output().await;
    let ran = ran.map_err(|e| failed(e.to_string()))?;
    if !ran.status.success() {
        let said = String::from_utf8_lossy(&ran.stderr);
        return Err(failed(format!("{}: {}", ran.status, said.trim())));
    }
    let told: Told = serde_json::from_slice(&ran.stdout).map_err(|e| failed(e.to_string()))?;
    Ok(told.into())
}
