//! Azure's blobs as azurite has rebuilt them.

use super::{Served, before, start};
use crate::parts::Parts;
use crate::running::Running;
use crosskit_objectstores::azure::{Address, Container, Permission, SharedKey};
use crosskit_objectstores::{Objects, read_all};
use std::path::Path;
use std::process::Command;

/// A store of Azure's with an account.
pub struct AzureStore {
    /// What stands before it.
    pub front: Served,
    address: String,
    _server: Running,
}

impl AzureStore {
    /// The account.
    pub const ACCOUNT: &str = "builder";
    /// Its key.
    pub const KEY: &str = "c2VjcmV0";

    /// Starts one with its blobs in `folder`.
    pub fn start(parts: &Parts, folder: &Path) -> AzureStore {
        let azurite = parts.azurite();
        let node = parts.on_machine("node");
        let (address, server) = start("azurite", |port| {
            let mut command = Command::new(&node);
            command.arg(&azurite).arg("--location").arg(folder).args(["--blobPort", &port.to_string()]);
            command.args(["--skipApiVersionCheck", "--disableProductStyleUrl", "--disableTelemetry"]);
            command.env("AZURITE_ACCOUNTS", format!("{}:{}", AzureStore::ACCOUNT, AzureStore::KEY));
            command
        });
        AzureStore { front: before(&address), address, _server: server }
    }

    /// The keys of a cache in a container here, for `--export-cache` and `--import-cache`.
    pub fn keys(&self, container: &str) -> String {
        let (account, key, front) = (AzureStore::ACCOUNT, AzureStore::KEY, self.front.address());
        format!(
            "type=azblob,account_url=http://{front}/{account},account_name={account},secret_access_key={key},\
             container={container}"
        )
    }

    fn container(&self, name: &str) -> Container {
        let account = Address::parse(&format!("http://{}/{}", self.address, AzureStore::ACCOUNT));
        let key = SharedKey::new(AzureStore::ACCOUNT, AzureStore::KEY).expect("a key");
        Container::new(&account.expect("an address"), name, Permission::Key(key)).expect("a container")
    }

    /// What is under a key in a container.
    pub fn get(&self, container: &str, key: &str) -> Option<Vec<u8>> {
        let container = self.container(container);
        run(async {
            let stream = container.read(key, 0).await.expect("ask azurite")?;
            Some(read_all(key, stream, u64::MAX).await.expect("read of azurite"))
        })
    }

    /// Puts something under a key in a container.
    pub fn put(&self, container: &str, key: &str, content: &[u8]) {
        let container = self.container(container);
        run(container.write(key, content.to_vec().into())).expect("give azurite something");
    }
}

fn run<T>(work: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.expect("a runtime").block_on(work)
}
