//! Who the daemon is for Azure, as its environment says: a secret, a token of the platform's, or the machine.

use crate::encoding::query;
use crate::environment::Environment;
use crate::error::{Result, StoreError};
use crate::http::{Answer, Http, Method, Request, Retries};
use jiff::{SignedDuration, Timestamp};
use serde::Deserialize;
use serde_json::Value;
use std::time::Duration;

/// What the tokens are for.
const RESOURCE: &str = "https://storage.azure.com/";

/// Where tokens are given, unless `AZURE_AUTHORITY_HOST` says otherwise.
const AUTHORITY: &str = "https://login.microsoftonline.com";

/// Where the service of Azure's machines is.
const MACHINE: &str = "http://169.254.169.254";

/// How long that service may take. Elsewhere nobody answers at all.
const MACHINE_LIMIT: Duration = Duration::from_secs(2);

/// Tokens are fetched again when they end sooner than this.
const MARGIN: SignedDuration = SignedDuration::from_mins(5);

/// Somebody that Azure gives tokens to.
pub struct Identity {
    environment: Environment,
    known: tokio::sync::Mutex<Option<(String, Timestamp)>>,
}

/// How a token is asked for.
#[derive(Debug, PartialEq, Eq)]
enum Way {
    Secret { tenant: String, client: String, secret: String },
    Assertion { tenant: String, client: String, file: String },
    AppService { endpoint: String, header: String, client: Option<String> },
    Machine { client: Option<String> },
}

#[derive(Deserialize)]
struct Told {
    access_token: String,
    /// Seconds, as a number or as text.
    expires_in: Option<Value>,
    /// Seconds since 1970, likewise.
    expires_on: Option<Value>,
}

impl Identity {
    /// Whoever the environment says, as Azure's libraries take it: `AZURE_CLIENT_SECRET`, else
    /// `AZURE_FEDERATED_TOKEN_FILE`, else the service of the platform or the machine.
    pub fn of(environment: Environment) -> Self {
        Identity { environment, known: Default::default() }
    }

    /// A token that is good for a while.
    pub(super) async fn token(&self) -> Result<String> {
        let mut known = self.known.lock().await;
        if let Some((token, until)) = &*known
            && until.duration_since(Timestamp::now()) > MARGIN
        {
            return Ok(token.clone());
        }
        let (told, at) = (self.ask().await?, Timestamp::now().as_second());
        let number = |value: &Option<Value>| match value {
            Some(Value::Number(number)) => number.as_i64(),
            Some(Value::String(text)) => text.parse::<i64>().ok(),
            _ => None,
        };
        let until = number(&told.expires_on).or_else(|| Some(at + number(&told.expires_in)?)).unwrap_or(at);
        let until = Timestamp::from_second(until).unwrap_or_default();
        Ok(known.insert((told.access_token, until)).0.clone())
    }

    fn way(&self) -> Result<Way> {
        let get = |name| self.environment.get(name);
        let client = get("AZURE_CLIENT_ID");
        if let (Some(tenant), Some(client)) = (get("AZURE_TENANT_ID"), client.clone()) {
            if let Some(secret) = get("AZURE_CLIENT_SECRET") {
                return Ok(Way::Secret { tenant, client, secret });
            }
            if get("AZURE_CLIENT_CERTIFICATE_PATH").is_some() {
                let text = "AZURE_CLIENT_CERTIFICATE_PATH: certificates are not taken here; use \
                            AZURE_CLIENT_SECRET or AZURE_FEDERATED_TOKEN_FILE";
                return Err(StoreError::Credentials(text.to_owned()));
            }
            if let Some(file) = get("AZURE_FEDERATED_TOKEN_FILE") {
                return Ok(Way::Assertion { tenant, client, file });
            }
        }
        Ok(match (get("IDENTITY_ENDPOINT"), get("IDENTITY_HEADER")) {
            (Some(endpoint), Some(header)) => Way::AppService { endpoint, header, client },
            _ => Way::Machine { client },
        })
    }

    async fn ask(&self) -> Result<Told> {
        let doing = "get a token of Azure's";
        match self.way()? {
            Way::Secret { tenant, client, secret } => {
                self.exchange(&tenant, &[("client_id", &client), ("client_secret", &secret)]).await
            }
            Way::Assertion { tenant, client, file } => {
                let read = tokio::fs::read_to_string(&file).await;
                let assertion = read
                    .map_err(|source| StoreError::File { doing: format!("read the token {file}"), source })?;
                let kind = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";
                let form = [
                    ("client_id", client.as_str()),
                    ("client_assertion_type", kind),
                    ("client_assertion", assertion.trim()),
                ];
                self.exchange(&tenant, &form).await
            }
            Way::AppService { endpoint, header, client } => {
                let url = address(&endpoint, "2019-08-01", client.as_deref());
                let http = Http::new(&url, Retries::default())?;
                let ask = |_| Request::new(Method::GET, &*url).header("x-identity-header", &*header);
                http.send(doing, ask).await?.json().await
            }
            Way::Machine { client } => machine(&self.environment, client.as_deref()).await?.json().await,
        }
    }

    /// Asks who gives tokens for one.
    async fn exchange(&self, tenant: &str, who: &[(&str, &str)]) -> Result<Told> {
        let authority = self.environment.get("AZURE_AUTHORITY_HOST").unwrap_or_else(|| AUTHORITY.to_owned());
        let url = format!("{}/{tenant}/oauth2/v2.0/token", authority.trim_end_matches('/'));
        let scope = format!("{RESOURCE}.default");
        let mut form = vec![("grant_type", "client_credentials"), ("scope", scope.as_str())];
        form.extend_from_slice(who);
        let form = query(&form);
        let http = Http::new(&url, Retries::default())?;
        let ask = |_| {
            let request = Request::new(Method::POST, &*url);
            request.header("content-type", "application/x-www-form-urlencoded").body(form.clone().into())
        };
        http.send(&format!("get a token of Azure's for tenant {tenant}"), ask).await?.json().await
    }
}

fn address(endpoint: &str, version: &str, client: Option<&str>) -> String {
    let mut pairs = vec![("api-version", version), ("resource", RESOURCE)];
    pairs.extend(client.map(|client| ("client_id", client)));
    format!("{endpoint}?{}", query(&pairs))
}

/// Asks the machine.
async fn machine(environment: &Environment, client: Option<&str>) -> Result<Answer> {
    let base = environment.get("AZURE_POD_IDENTITY_AUTHORITY_HOST").unwrap_or_else(|| MACHINE.to_owned());
    let endpoint = format!("{}/metadata/identity/oauth2/token", base.trim_end_matches('/'));
    let url = address(&endpoint, "2018-02-01", client);
    let http = Http::new(&url, Retries { tries: 1, ..Retries::default() })?;
    let ask = |_| Request::new(Method::GET, &*url).header("metadata", "true");
    let asked = tokio::time::timeout(MACHINE_LIMIT, http.send("get a token of this machine's", ask)).await;
    let why = match asked {
        Ok(Ok(answer)) => return Ok(answer),
        Ok(Err(error)) => error.to_string(),
        Err(_) => format!("the machine's service gave no answer in {} s", MACHINE_LIMIT.as_secs()),
    };
    Err(StoreError::Credentials(format!(
        "no Azure credentials: give secret_access_key, or set AZURE_TENANT_ID, AZURE_CLIENT_ID and \
         AZURE_CLIENT_SECRET or AZURE_FEDERATED_TOKEN_FILE ({why})"
    )))
}
