//! Credentials that a container's service or a machine of AWS's gives to what runs there.

use super::credentials::Credentials;
use super::tokens::Told;
use crate::environment::Environment;
use crate::error::{Result, StoreError};
use crate::http::{Http, Method, Request, Retries};
use std::time::Duration;

/// Where the service of AWS's containers is.
const CONTAINER: &str = "http://169.254.170.2";

/// Who may be asked without TLS, besides this machine: the services of AWS's containers.
const PLAIN: [&str; 3] = ["169.254.170.2", "169.254.170.23", "fd00:ec2::23"];

/// Where the service of AWS's machines is.
const INSTANCE: &str = "http://169.254.169.254";

/// How long that service may take. Elsewhere nobody answers at all.
const INSTANCE_LIMIT: Duration = Duration::from_secs(1);

/// How long the token for that service is good, in seconds: just for now.
const TOKEN_AGE: &str = "300";

const ONCE: Retries = Retries { tries: 1, together: false, patience: Duration::ZERO };

/// Those of the container that the daemon runs in; none if it runs in none of AWS's.
pub(super) async fn of_container(environment: &Environment) -> Result<Option<Credentials>> {
    let relative = environment.get("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI");
    let full = environment.get("AWS_CONTAINER_CREDENTIALS_FULL_URI");
    let Some(url) = relative.map(|path| format!("{CONTAINER}{path}")).or(full) else { return Ok(None) };
    check(&url)?;
    let token = match environment.get("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE") {
        Some(file) => {
            let read = tokio::fs::read_to_string(&file).await;
            let read =
                read.map_err(|source| StoreError::File { doing: format!("read the token {file}"), source })?;
            Some(read.trim().to_owned())
        }
        None => environment.get("AWS_CONTAINER_AUTHORIZATION_TOKEN"),
    };
    let doing = format!("get the container's AWS credentials from {url}");
    let http = Http::new(&url, Retries::default())?;
    let make = |_| {
        let request = Request::new(Method::GET, &*url);
        match &token {
            Some(token) => request.header("authorization", &**token),
            None => request,
        }
    };
    let told: Told = http.send(&doing, make).await?.json().await?;
    Ok(Some(told.into()))
}

/// Credentials are asked for with TLS, or not far away.
fn check(url: &str) -> Result<()> {
    let refused = |why: &str| {
        Err(StoreError::Credentials(format!("AWS_CONTAINER_CREDENTIALS_FULL_URI {url:?}: {why}")))
    };
    let Ok(parsed) = reqwest::Url::parse(url) else { return refused("it is no URL") };
    let host = parsed.host_str().unwrap_or_default().trim_matches(['[', ']']);
    let near = host == "localhost"
        || PLAIN.contains(&host)
        || host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback());
    match parsed.scheme() == "https" || near {
        true => Ok(()),
        false => refused("without TLS only this machine and the service of AWS's containers may be asked"),
    }
}

/// Those of the machine that the daemon runs on; none if it is none of AWS's, or has no role.
pub(super) async fn of_instance(environment: &Environment) -> Result<Option<Credentials>> {
    let disabled = environment.get("AWS_EC2_METADATA_DISABLED");
    if disabled.is_some_and(|text| text.eq_ignore_ascii_case("true")) {
        return Ok(None);
    }
    let base = environment.get("AWS_EC2_METADATA_SERVICE_ENDPOINT").unwrap_or_else(|| INSTANCE.to_owned());
    let base = base.trim_end_matches('/');
    let http = Http::new(base, ONCE)?;
    let doing = "ask the machine for its AWS role";
    let url = format!("{base}/latest/api/token");
    let ask = |_| Request::new(Method::PUT, &*url).header("x-aws-ec2-metadata-token-ttl-seconds", TOKEN_AGE);
    // Whatever answers otherwise is not a machine of AWS's.
    let Ok(Ok(answer)) = tokio::time::timeout(INSTANCE_LIMIT, http.send(doing, ask)).await else {
        return Ok(None);
    };
    let token = answer.text().await?;
    let get = async |path: &str| {
        let url = format!("{base}/latest/meta-data/iam/security-credentials/{path}");
        let ask = |_| Request::new(Method::GET, &*url).header("x-aws-ec2-metadata-token", token.trim());
        http.send(doing, ask).await
    };
    let roles = match get("").await {
        Ok(answer) => answer.text().await?,
        Err(error) if error.status() == Some(http::StatusCode::NOT_FOUND) => return Ok(None),
        Err(error) => return Err(error),
    };
    let Some(role) = roles.lines().map(str::trim).find(|line| !line.is_empty()) else { return Ok(None) };
    let told: Told = get(role).await?.json().await?;
    Ok(Some(told.into()))
}
