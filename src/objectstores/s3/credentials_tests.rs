//! Where credentials are found, in which order.

use super::credentials::CredentialSource;
use crate::answering::{Asked, answering, said};
use crate::environment::Environment;
use std::collections::HashMap;

/// Whatever AWS has that lends credentials, at one address.
fn services(asked: &Asked) -> String {
    let has = |text: &str| asked.headers.contains(text);
    let json = |id: &str| {
        said(
            "200 OK",
            &format!(
                r#"{{"AccessKeyId":"{id}","SecretAccessKey":"s","Token":"t","Expiration":"2999-01-01T00:00:00Z"}}"#
            ),
        )
    };
    let lent = |id: &str| {
        said(
            "200 OK",
            &format!(
                "<R><Credentials><AccessKeyId>{id}</AccessKeyId><SecretAccessKey>s</SecretAccessKey>\
             <SessionToken>a&amp;b</SessionToken><Expiration>2999-01-01T00:00:00Z</Expiration></Credentials></R>"
            ),
        )
    };
    match asked.line.as_str() {
        "POST /"
            if asked.body.contains("Action=AssumeRoleWithWebIdentity&")
                && asked.body.contains("WebIdentityToken=tok%2F1") =>
        {
            lent("WEB")
        }
        "POST /"
            if asked.body.contains("Action=AssumeRole&")
                && has("Credential=BASE/")
                && has("/us-east-1/sts/") =>
        {
            lent("ROLE")
        }
        "GET /container" if has("authorization:tok/1\n") => json("CONTAINER"),
        "PUT /latest/api/token" if has("x-aws-ec2-metadata-token-ttl-seconds:") => said("200 OK", "T"),
        "GET /latest/meta-data/iam/security-credentials/" if has("x-aws-ec2-metadata-token:T\n") => {
            said("200 OK", "who\n")
        }
        "GET /latest/meta-data/iam/security-credentials/who" if has("x-aws-ec2-metadata-token:T\n") => {
            json("INSTANCE")
        }
        _ => said("403 Forbidden", "<E><Code>AccessDenied</Code><Message>no.</Message></E>"),
    }
}

#[tokio::test]
async fn credentials_are_found_where_aws_looks_in_its_order() {
    let (address, _) = answering(services);
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        std::fs::write(folder.path().join(name), text).unwrap();
        folder.path().join(name).display().to_string()
    };
    let token = file("token", "tok/1\n");
    let config = format!(
        "[default]\nregion = x\n[profile role]\nrole_arn = arn:r\nsource_profile = base\nnested =\n  aws_access_key_id = NO\n\
         [profile web]\nrole_arn=arn:w\nweb_identity_token_file={token}\n[profile sso]\nsso_session=s\n\
         [profile program]\ncredential_process = echo '{{\"Version\":1,\"AccessKeyId\":\"PROGRAM\",\"SecretAccessKey\":\"s\"}}'\n\
         [profile broken]\ncredential_process = echo no >&2; exit 3\n[profile round]\nrole_arn=a\nsource_profile=trip\n\
         [profile trip]\nrole_arn=a\nsource_profile=round\n[profile here]\nrole_arn=a\ncredential_source=Ec2InstanceMetadata\n"
    );
    let config = file("config", &config);
    let credentials =
        file("credentials", "# ours\n[base]\naws_access_key_id = BASE # first\naws_secret_access_key = s\n");
    let files = [("AWS_CONFIG_FILE", config.as_str()), ("AWS_SHARED_CREDENTIALS_FILE", &credentials)];
    let container = format!("{address}/container");
    let keys = [("AWS_ACCESS_KEY_ID", "KEYS"), ("AWS_SECRET_ACCESS_KEY", "s")];
    let web = [("AWS_WEB_IDENTITY_TOKEN_FILE", token.as_str()), ("AWS_ROLE_ARN", "arn:r")];
    let profile = |name| [("AWS_PROFILE", name)];
    let service = [
        ("AWS_CONTAINER_CREDENTIALS_FULL_URI", container.as_str()),
        ("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", &token),
    ];
    let nobody = [("AWS_EC2_METADATA_DISABLED", "true")];
    type Case<'a> = (&'a [&'a [(&'a str, &'a str)]], Result<&'a str, &'a str>);
    let cases: [Case<'_>; 15] = [
        (&[&keys, &web, &files, &profile("base")], Ok("KEYS")),
        (&[&web, &files, &profile("base"), &service], Ok("WEB")),
        (&[&web[..1]], Err("AWS_ROLE_ARN")),
        (&[&files, &profile("base"), &service], Ok("BASE")),
        (&[&files, &profile("role"), &service], Ok("ROLE")),
        (&[&files, &profile("web"), &service], Ok("WEB")),
        (&[&files, &profile("program"), &service], Ok("PROGRAM")),
        (&[&files, &profile("broken")], Err("exit status: 3: no")),
        (&[&files, &profile("round")], Err("profiles stand on one another too deeply")),
        (&[&files, &profile("sso")], Err("AWS profile \"sso\": SSO needs a person to log in")),
        (&[&files, &profile("other")], Err("the AWS profile \"other\" is in no file")),
        (
            &[&files, &profile("here")],
            Err("take on the role a: 403 Forbidden: AccessDenied: no: check the credentials"),
        ),
        (&[&files, &service], Ok("CONTAINER")),
        (&[&files], Ok("INSTANCE")),
        (&[&files, &nobody], Err("no AWS credentials: give access_key_id and secret_access_key")),
    ];
    for (variables, expected) in cases {
        let mut all: HashMap<String, String> = variables
            .iter()
            .copied()
            .flatten()
            .map(|(name, value)| ((*name).into(), (*value).into()))
            .collect();
        for name in ["AWS_EC2_METADATA_SERVICE_ENDPOINT", "AWS_ENDPOINT_URL_STS"] {
            all.insert(name.into(), address.clone());
        }
        let source =
            CredentialSource::found(Environment::of(move |name| all.get(name).cloned()), "us-east-1");
        match (source.get().await, expected) {
            (Ok(found), Ok(expected)) => {
                assert_eq!(found.access_key_id, expected, "{variables:?}");
                if matches!(expected, "WEB" | "ROLE") {
                    assert_eq!(found.session_token.as_deref(), Some("a&b"));
                }
            }
            (Err(error), Err(expected)) => assert!(error.to_string().contains(expected), "{error}"),
            (found, expected) => panic!("{variables:?}: {found:?}, not {expected:?}"),
        }
    }
}

#[tokio::test]
async fn credentials_are_asked_for_once_and_only_near_or_with_tls() {
    let (address, log) = answering(services);
    let container = |url: String| {
        let variables = move |name: &str| match name {
            "AWS_CONTAINER_CREDENTIALS_FULL_URI" => Some(url.clone()),
            "AWS_CONTAINER_AUTHORIZATION_TOKEN" => Some("tok/1".to_owned()),
            _ => None,
        };
        CredentialSource::found(Environment::of(variables), "us-east-1")
    };
    let source = container(format!("{address}/container"));
    for _ in 0..3 {
        assert_eq!(source.clone().get().await.unwrap().access_key_id, "CONTAINER");
    }
    assert_eq!(log.lock().unwrap().len(), 1);
    let far = container("http://192.0.2.1/container".to_owned()).get().await.unwrap_err().to_string();
    assert!(far.contains("without TLS only this machine"), "{far}");
}
