//! What a build may take from this machine: the session that goes with it.

use crate::error::ClientError;
use crate::folder_caches;
use crate::layouts::{self, Name};
use crate::lent_values::SecretFrom;
use crate::outputs::{Destination, Leftovers};
use crate::plan::Plan;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use crosskit_api::control::SolveResponse;
use crosskit_session::{
    ContentStores, DockerAuth, LocalDirs, Output, Outputs, SecretSource, Secrets, SessionServer, SshAgents,
};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The store into which an OCI layout is written.
const EXPORT_STORE: &str = "export";

/// A session to be served, and what has to be done when the build is over.
pub(crate) struct Lent {
    pub(crate) session: SessionServer,
    pub(crate) after: After,
}

/// Index files that get a new entry when the build has succeeded.
#[derive(Debug, Default)]
pub(crate) struct After {
    results: Option<PathBuf>,
    caches: Vec<(PathBuf, String, Option<Duration>)>,
    loading: Option<std::process::Child>,
}

/// Prepares the session. Imports of local caches that are not there are taken out of the plan, as
/// a first build has none.
pub(crate) async fn lend(plan: &mut Plan) -> Result<Lent, ClientError> {
    let mut after = After::default();
    let mut session = SessionServer::new(plan.shared_key.clone());
    session = session.with_auth(DockerAuth::default().with_tls(plan.registry_tls.clone()));
    let mut folders = LocalDirs::default();
    for (name, path) in &plan.folders {
        folders.add(name, path);
    }
    if !folders.is_empty() {
        session = session.with_dirs(folders);
    }
    let mut secrets = Secrets::default();
    for (id, from) in &plan.secrets {
        let source = match from {
            SecretFrom::File(path) => SecretSource::File(path.clone()),
            SecretFrom::Variable(name) => SecretSource::Env(name.clone()),
        };
        secrets.add(id, Some(source)).map_err(lending)?;
    }
    if !secrets.is_empty() {
        session = session.with_secrets(secrets);
    }
    let mut agents = SshAgents::default();
    for agent in &plan.agents {
        agents.add(&agent.id, &agent.paths, agent.raw).await.map_err(lending)?;
    }
    if !agents.is_empty() {
        session = session.with_ssh(agents);
    }
    let mut stores = ContentStores::default();
    lend_caches(plan, &mut stores, &mut after)?;
    for (name, path) in &plan.layouts {
        stores.add(format!("oci:{name}"), path, false);
    }
    let mut outputs = Outputs::default();
    for (number, export) in plan.exports.iter().enumerate() {
        match &export.to {
            Destination::Daemon => {}
            Destination::Stdout if plan.load => outputs.add(number, Output::writer(after.docker_load()?)),
            Destination::Stdout => outputs.add(number, Output::writer(io::stdout())),
            Destination::File(path) => outputs.add(number, Output::file(path)),
            Destination::Folder(path, leftovers) => {
                outputs
                    .add(number, Output::Dir { path: path.clone(), delete: *leftovers == Leftovers::Remove });
            }
            Destination::Layout(path) => {
                if after.results.is_some() {
                    return Err(ClientError::invalid(format!(
                        "oci store key {EXPORT_STORE:?} already exists: only one output can be a layout folder"
                    )));
                }
                make_folder(path)?;
                stores.add(EXPORT_STORE, path, true);
                after.results = Some(path.clone());
            }
        }
    }
    if !stores.is_empty() {
        session = session.with_content(stores);
    }
    if !outputs.is_empty() {
        session = session.with_outputs(outputs);
    }
    Ok(Lent { session, after })
}

fn lending(error: crosskit_session::SessionError) -> ClientError {
    ClientError::Lending(error.to_string())
}

fn make_folder(path: &Path) -> Result<(), ClientError> {
    fs::create_dir_all(path).map_err(|source| ClientError::File {
        doing: "mkdir".into(),
        path: path.into(),
        source,
    })
}

fn lend_caches(plan: &mut Plan, stores: &mut ContentStores, after: &mut After) -> Result<(), ClientError> {
    for export in plan.cache_exports.iter().filter(|e| e.r#type == "local") {
        let Some(dest) = export.attrs.get("dest") else { continue };
        if export.attrs.get("reset").is_some_and(|reset| crate::flags::parse_bool(reset) != Some(false)) {
            return Err(ClientError::invalid(
                "--export-cache type=local,reset=true is not supported yet; empty the folder before the build instead",
            ));
        }
        make_folder(Path::new(dest))?;
        stores.add(format!("local:{dest}"), dest, true);
        let tag = export.attrs.get("tag").cloned().unwrap_or_else(|| "latest".into());
        let max_age = folder_caches::merging(&export.attrs)?;
        after.caches.push((dest.into(), tag, max_age));
    }
    let mut usable = Vec::with_capacity(plan.cache_imports.len());
    for mut import in std::mem::take(&mut plan.cache_imports) {
        if import.r#type == "local" {
            let Some(src) = import.attrs.get("src").cloned() else { continue };
            match local_cache(&src, &import.attrs) {
                Ok(digest) => {
                    import.attrs.insert("digest".into(), digest);
                    stores.add(format!("local:{src}"), &src, false);
                }
                Err(why) => {
                    tracing::warn!("local cache import at {src} skipped: {why}");
                    continue;
                }
            }
        }
        usable.push(import);
    }
    plan.cache_imports = usable;
    Ok(())
}

/// The digest of the cache in a folder.
fn local_cache(src: &str, attrs: &std::collections::BTreeMap<String, String>) -> Result<String, String> {
    let digest = match attrs.get("digest").filter(|d| !d.is_empty()) {
        Some(digest) => digest.clone(),
        None => {
            let tag = attrs.get("tag").map_or("latest", String::as_str);
            let found = layouts::find(Path::new(src), tag).map_err(|e| e.to_string())?;
            found.ok_or_else(|| format!("no digest found for tag {tag}"))?
        }
    };
    let blob = Path::new(src).join("blobs").join(digest.replacen(':', "/", 1));
    if blob.is_file() {
        Ok(digest)
    } else {
        Err(format!("digest {digest} unavailable: {} is not there", blob.display()))
    }
}

impl After {
    /// Starts `docker load` and returns its input.
    fn docker_load(&mut self) -> Result<std::process::ChildStdin, ClientError> {
        let mut child = std::process::Command::new("docker")
            .arg("load")
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::inherit())
            .spawn()
            .map_err(|source| ClientError::File {
                doing: "start".into(),
                path: "docker load".into(),
                source,
            })?;
        let input = child.stdin.take();
        self.loading = Some(child);
        input.ok_or_else(|| ClientError::invalid("docker load takes no input"))
    }

    /// Enters results and caches into the index files of their folders.
    pub(crate) fn finish(mut self, response: &SolveResponse) -> Result<(), ClientError> {
        let answer = &response.exporter_response;
        if let Some(manifest) = answer.get("cache.manifest").filter(|m| !m.is_empty()) {
            let descriptor = parse_descriptor(manifest.as_bytes())?;
            for (folder, tag, max_age) in &self.caches {
                folder_caches::enter(folder, tag, &descriptor, *max_age)?;
            }
        }
        if let (Some(folder), Some(encoded)) = (&self.results, answer.get("containerimage.descriptor")) {
            let decoded = STANDARD
                .decode(encoded)
                .map_err(|e| ClientError::invalid(format!("descriptor of the result: {e}")))?;
            let names = match answer.get("image.name").filter(|n| !n.is_empty()) {
                Some(names) => names.split(',').map(|n| Name::Full(n.to_owned())).collect(),
                None => vec![Name::Tag("latest".into())],
            };
            layouts::put(folder, &parse_descriptor(&decoded)?, &names)?;
        }
        if let Some(mut child) = self.loading.take() {
            let failed =
                |source| ClientError::File { doing: "wait for".into(), path: "docker load".into(), source };
            let status = child.wait().map_err(failed)?;
            if !status.success() {
                return Err(ClientError::invalid(format!(
                    "docker load failed ({status}); is dockerd running?"
                )));
            }
        }
        Ok(())
    }
}

impl Drop for After {
    fn drop(&mut self) {
        // A build that failed leaves no process behind.
        if let Some(child) = &mut self.loading {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn parse_descriptor(json: &[u8]) -> Result<serde_json::Map<String, serde_json::Value>, ClientError> {
    serde_json::from_slice(json).map_err(|e| ClientError::invalid(format!("descriptor of the result: {e}")))
}
