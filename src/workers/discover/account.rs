//! Who a program in a Kubernetes cluster is, and where the cluster's API is.

use super::whole;
use reqwest::Certificate;
use std::path::PathBuf;
use std::time::Duration;

/// Where a pod finds its service account.
const FOLDER: &str = "/var/run/secrets/kubernetes.io/serviceaccount";

/// How long connecting may take.
const CONNECT: Duration = Duration::from_secs(5);

/// The account of the pod that the daemon runs in.
pub(super) struct Account {
    server: String,
    folder: PathBuf,
}

impl Account {
    /// Of this process.
    ///
    /// # Errors
    /// It is in no cluster.
    pub(super) fn of_this_pod() -> Result<Self, String> {
        let var = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        let (Some(host), Some(port)) = (var("KUBERNETES_SERVICE_HOST"), var("KUBERNETES_SERVICE_PORT"))
        else {
            return Err("this daemon is in no Kubernetes cluster: KUBERNETES_SERVICE_HOST and \
                        KUBERNETES_SERVICE_PORT are not set; run it in a pod, or use dns-srv"
                .to_string());
        };
        let host = if host.contains(':') { format!("[{host}]") } else { host };
        Ok(Account { server: format!("https://{host}:{port}"), folder: FOLDER.into() })
    }

    /// Where the API is.
    pub(super) fn server(&self) -> &str {
        &self.server
    }

    /// The namespace of the pod.
    pub(super) fn namespace(&self) -> Result<String, String> {
        Ok(self.file("namespace")?.trim().to_string())
    }

    /// What shows who we are. It is renewed while the pod runs.
    pub(super) fn token(&self) -> Result<String, String> {
        Ok(self.file("token")?.trim().to_string())
    }

    /// A client that trusts the cluster's own authority and no other.
    pub(super) fn client(&self) -> Result<reqwest::Client, String> {
        let authority = Certificate::from_pem_bundle(self.file("ca.crt")?.as_bytes()).map_err(|e| {
            format!("the cluster's certificate authority, {}/ca.crt: {e}", self.folder.display())
        })?;
        reqwest::Client::builder()
            .tls_certs_only(authority)
            .no_proxy()
            .connect_timeout(CONNECT)
            .redirect(reqwest::redirect::Policy::none())
            .build()
            .map_err(|e| format!("setting up TLS for {}: {}", self.server, whole(&e)))
    }

    fn file(&self, name: &str) -> Result<String, String> {
        let path = self.folder.join(name);
        std::fs::read_to_string(&path).map_err(|e| {
            format!(
                "the pod has no service account: {}: {e}; set automountServiceAccountToken: true",
                path.display()
            )
        })
    }
}
