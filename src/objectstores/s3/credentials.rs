//! Who one is for AWS: told, or found where its tools look, in their order.

use super::profiles::{Base, Profile, Profiles};
use super::{machine, tokens};
use crate::environment::Environment;
use crate::error::{Result, StoreError};
use futures::future::BoxFuture;
use jiff::{SignedDuration, Timestamp};
use std::sync::Arc;

/// Credentials are fetched again when they end sooner than this.
const MARGIN: SignedDuration = SignedDuration::from_mins(5);

/// Profiles that stand on one another.
const MAX_DEPTH: usize = 5;

/// An identity that requests are signed with.
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    /// Its name.
    pub access_key_id: String,
    /// Its secret.
    pub secret_access_key: String,
    /// What shows that it was lent.
    pub session_token: Option<String>,
    /// Until when.
    pub expires: Option<Timestamp>,
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "Credentials({}, expires {:?})", self.access_key_id, self.expires)
    }
}

/// Where credentials come from. Cheap to clone.
#[derive(Clone)]
pub struct CredentialSource {
    inner: Arc<Inner>,
}

enum Inner {
    Told(Credentials),
    Found { environment: Environment, region: String, known: tokio::sync::Mutex<Option<Credentials>> },
}

impl CredentialSource {
    /// These and no others.
    pub fn told(credentials: Credentials) -> Self {
        CredentialSource { inner: Arc::new(Inner::Told(credentials)) }
    }

    /// Those that are found where AWS's tools look for them: the environment, a token of the platform's,
    /// files, the container's service, the machine's.
    pub fn found(environment: Environment, region: &str) -> Self {
        let region = region.to_owned();
        CredentialSource { inner: Arc::new(Inner::Found { environment, region, known: Default::default() }) }
    }

    /// Credentials that are good for a while.
    ///
    /// # Errors
    /// There are none, or whoever lends them refuses.
    pub async fn get(&self) -> Result<Credentials> {
        let (environment, region, known) = match &*self.inner {
            Inner::Told(credentials) => return Ok(credentials.clone()),
            Inner::Found { environment, region, known } => (environment, region, known),
        };
        let mut known = known.lock().await;
        let fresh = known.as_ref().filter(|known| {
            known.expires.is_none_or(|until| until.duration_since(Timestamp::now()) > MARGIN)
        });
        if let Some(fresh) = fresh {
            return Ok(fresh.clone());
        }
        let found = find(environment, region).await?;
        Ok(known.insert(found).clone())
    }
}

async fn find(environment: &Environment, region: &str) -> Result<Credentials> {
    if let Some(credentials) = of_environment(environment) {
        return Ok(credentials);
    }
    if let Some(file) = environment.get("AWS_WEB_IDENTITY_TOKEN_FILE") {
        let role = environment.get("AWS_ROLE_ARN").ok_or_else(|| {
            let text = "AWS_WEB_IDENTITY_TOKEN_FILE is set, but not AWS_ROLE_ARN";
            StoreError::Credentials(text.to_owned())
        })?;
        let session = environment.get("AWS_ROLE_SESSION_NAME");
        return tokens::with_web_identity(environment, region, &role, session.as_deref(), file.as_ref())
            .await;
    }
    let profiles = Profiles::read(environment).await?;
    if let Some(profile) = profiles.chosen(environment)?
        && let Some(credentials) = of_profile(environment, region, &profiles, &profile, 0).await?
    {
        return Ok(credentials);
    }
    if let Some(credentials) = machine::of_container(environment).await? {
        return Ok(credentials);
    }
    machine::of_instance(environment).await?.ok_or_else(|| {
        let text = "no AWS credentials: give access_key_id and secret_access_key, or set AWS_ACCESS_KEY_ID and \
                    AWS_SECRET_ACCESS_KEY, a profile, or a role for the daemon";
        StoreError::Credentials(text.to_owned())
    })
}

fn of_environment(environment: &Environment) -> Option<Credentials> {
    Some(Credentials {
        access_key_id: environment.first(&["AWS_ACCESS_KEY_ID", "AWS_ACCESS_KEY"])?,
        secret_access_key: environment.first(&["AWS_SECRET_ACCESS_KEY", "AWS_SECRET_KEY"])?,
        session_token: environment.get("AWS_SESSION_TOKEN"),
        expires: None,
    })
}

/// What a profile leads to; none if it says nothing of credentials.
fn of_profile<'a>(
    environment: &'a Environment,
    region: &'a str,
    profiles: &'a Profiles,
    profile: &'a Profile,
    depth: usize,
) -> BoxFuture<'a, Result<Option<Credentials>>> {
    Box::pin(async move {
        let failed =
            |text: String| StoreError::Credentials(format!("AWS profile {:?}: {text}", profile.name));
        if depth == MAX_DEPTH {
            return Err(failed("profiles stand on one another too deeply".to_owned()));
        }
        let base = match profile.base().map_err(failed)? {
            Base::Nothing => return Ok(None),
            Base::Keys(keys) => Some(keys),
            Base::Environment => of_environment(environment),
            Base::Instance => machine::of_instance(environment).await?,
            Base::Container => machine::of_container(environment).await?,
            Base::Process(command) => return Ok(Some(tokens::of_process(&command).await?)),
            Base::WebIdentity { file, role, session } => {
                let session = session.as_deref();
                let lent = tokens::with_web_identity(environment, region, &role, session, file.as_ref());
                return Ok(Some(lent.await?));
            }
            Base::Profile(name) if name == profile.name => profile.keys(),
            Base::Profile(name) => {
                let other = profiles.get(&name);
                let other =
                    other.ok_or_else(|| failed(format!("its source_profile {name:?} is not there")))?;
                of_profile(environment, region, profiles, other, depth + 1).await?
            }
        };
        let Some(role) = profile.role() else { return Ok(base) };
        let base = base.ok_or_else(|| failed("what its role stands on has no credentials".to_owned()))?;
        Ok(Some(tokens::with_role(environment, region, role, &base).await?))
    })
}
