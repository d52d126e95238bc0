//! Who the daemon is for Azure.

use super::identity::Identity;
use crate::answering::{Asked, answering, said};
use crate::environment::Environment;
use std::collections::HashMap;

/// Whatever Azure has that gives tokens, at one address.
fn services(asked: &Asked) -> String {
    let storage = "resource=https%3A%2F%2Fstorage.azure.com%2F";
    let form = asked.body.contains("scope=https%3A%2F%2Fstorage.azure.com%2F.default");
    match asked.line.as_str() {
        "POST /tenant/oauth2/v2.0/token" if form && asked.body.contains("client_secret=se%26cret") => {
            said("200 OK", r#"{"access_token":"SECRET","expires_in":3600}"#)
        }
        "POST /tenant/oauth2/v2.0/token" if form && asked.body.contains("client_assertion=tok%2F1&") => {
            said("200 OK", r#"{"access_token":"ASSERTION","expires_in":3600}"#)
        }
        line if line.starts_with("GET /service?")
            && line.contains(storage)
            && asked.headers.contains("x-identity-header:h\n") =>
        {
            said("200 OK", r#"{"access_token":"SERVICE","expires_on":"32503680000"}"#)
        }
        line if line.starts_with("GET /metadata/identity/oauth2/token?")
            && asked.headers.contains("metadata:true\n") =>
        {
            said("200 OK", r#"{"access_token":"MACHINE","expires_on":"32503680000","expires_in":"3600"}"#)
        }
        _ => said(
            "400 Bad Request",
            r#"{"error":"invalid_client","error_description":"no such secret.\r\nTrace: 1"}"#,
        ),
    }
}

#[tokio::test]
async fn tokens_are_got_as_the_environment_says_and_kept() {
    let (address, log) = answering(services);
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("token").display().to_string();
    std::fs::write(&file, "tok/1\n").unwrap();
    let service = format!("{address}/service");
    let who = [("AZURE_TENANT_ID", "tenant"), ("AZURE_CLIENT_ID", "client")];
    let secret = |secret| [("AZURE_CLIENT_SECRET", secret)];
    let federated = [("AZURE_FEDERATED_TOKEN_FILE", file.as_str())];
    let platform = [("IDENTITY_ENDPOINT", service.as_str()), ("IDENTITY_HEADER", "h")];
    type Case<'a> = (&'a [&'a [(&'a str, &'a str)]], Result<&'a str, &'a str>);
    let cases: [Case<'_>; 6] = [
        (&[&who, &secret("se&cret"), &federated], Ok("SECRET")),
        (&[&who, &secret("wrong")], Err("400 Bad Request: invalid_client: no such secret")),
        (&[&who, &federated, &platform], Ok("ASSERTION")),
        (&[&who, &[("AZURE_CLIENT_CERTIFICATE_PATH", "/c")]], Err("certificates are not taken here")),
        (&[&platform], Ok("SERVICE")),
        (&[], Ok("MACHINE")),
    ];
    for (variables, expected) in cases {
        let mut all: HashMap<String, String> = variables
            .iter()
            .copied()
            .flatten()
            .map(|(name, value)| ((*name).into(), (*value).into()))
            .collect();
        for name in ["AZURE_AUTHORITY_HOST", "AZURE_POD_IDENTITY_AUTHORITY_HOST"] {
            all.insert(name.into(), address.clone());
        }
        let identity = Identity::of(Environment::of(move |name| all.get(name).cloned()));
        log.lock().unwrap().clear();
        match (identity.token().await, expected) {
            (Ok(token), Ok(expected)) => {
                assert_eq!((token.as_str(), identity.token().await.unwrap().as_str()), (expected, expected));
                assert_eq!(log.lock().unwrap().len(), 1, "{variables:?}");
            }
            (Err(error), Err(expected)) => assert!(error.to_string().contains(expected), "{error}"),
            (found, expected) => panic!("{variables:?}: {found:?}, not {expected:?}"),
        }
    }
}
