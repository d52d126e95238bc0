//! `debug`: what the daemon is and holds.

use super::{connect, control, print, print_bytes, print_formatted, template};
use crate::connection::{Address, Target};
use crate::definitions;
use crate::error::{ClientError, errno};
use crate::flags::Parsed;
use crate::sizes::Size;
use crate::tables::{Fill, align};
use crate::times;
use crate::values::{self, Value};
use crosskit_api::MAX_MESSAGE;
use crosskit_api::content::ReadContentRequest;
use crosskit_api::content::content_client::ContentClient;
use crosskit_api::control::{InfoRequest, ListWorkersRequest};
use crosskit_api::types::{BuildkitVersion, WorkerRecord};
use crosskit_platforms::Platform;
use std::io::{self, Read};
use std::ops::ControlFlow;
use std::path::Path;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpStream, UnixStream};

pub(super) async fn workers(flags: &Parsed) -> Result<(), ClientError> {
    const ACTION: &str = "failed to list workers";
    let channel = connect(flags, ACTION).await?;
    let request = ListWorkersRequest { filter: flags.list("filter").to_vec() };
    let answer = control(&channel).list_workers(request).await.map_err(|s| ClientError::call(ACTION, s))?;
    let workers = answer.into_inner().record;
    if let Some(template) = template(flags)? {
        return print_formatted(&template, &Value::List(workers.iter().map(values::worker).collect()));
    }
    let text = if flags.on("verbose") {
        workers.iter().map(verbose).collect::<String>()
    } else {
        let row = |w: &WorkerRecord| format!("{}\t{}\n", w.id, platforms(w));
        format!("ID\tPLATFORMS\n{}", workers.iter().map(row).collect::<String>())
    };
    print(&align(&text, Fill::Tabs))
}

fn platforms(worker: &WorkerRecord) -> String {
    let shown = worker
        .platforms
        .iter()
        .map(|p| Platform::new(&*p.os, &*p.architecture, &*p.variant).normalize().format());
    shown.collect::<Vec<_>>().join(",")
}

fn program(version: &BuildkitVersion) -> String {
    format!("{} {} {}", version.package, version.version, version.revision)
}

fn verbose(worker: &WorkerRecord) -> String {
    let mut out = format!("ID:\t{}\nPlatforms:\t{}\n", worker.id, platforms(worker));
    let version = worker.buildkit_version.clone().unwrap_or_default();
    out += &format!("BuildKit:\t{}\n", program(&version));
    if !version.dockerfile_version.is_empty() {
        out += &format!("Dockerfile:\t{}\n", version.dockerfile_version);
    }
    out += "Labels:\n";
    for (key, value) in &worker.labels {
        out += &format!("\t{key}:\t{value}\n");
    }
    if !worker.cdi_devices.is_empty() {
        out += "Devices:\n";
        for device in &worker.cdi_devices {
            out += &format!("\tName:\t{}\n", device.name);
            out += &match device.on_demand {
                true => "\tOnDemand:\ttrue\n".to_owned(),
                false => format!("\tAutoAllow:\t{}\n", device.auto_allow),
            };
            for (key, value) in &device.annotations {
                out += &format!("\tAnnotations:\t{key}:\t{value}\n");
            }
        }
        out += "\n";
    }
    for (number, rule) in worker.gc_policy.iter().enumerate() {
        out += &format!("GC Policy rule#{number}:\n\tAll:\t{}\n", rule.all);
        if !rule.filters.is_empty() {
            out += &format!("\tFilters:\t{}\n", rule.filters.join(" "));
        }
        if rule.keep_duration > 0 {
            out += &format!("\tKeep duration:\t{}\n", times::format_duration(rule.keep_duration));
        }
        let spaces = [
            ("Reserved space", rule.reserved_space),
            ("Minimum free space", rule.min_free_space),
            ("Maximum used space", rule.max_used_space),
        ];
        for (name, space) in spaces.into_iter().filter(|(_, space)| *space > 0) {
            out += &format!("\t{name}:\t{}\n", Size(space).exact());
        }
    }
    out + "\n"
}

pub(super) async fn info(flags: &Parsed) -> Result<(), ClientError> {
    const ACTION: &str = "failed to call info";
    let channel = connect(flags, ACTION).await?;
    let answer =
        control(&channel).info(InfoRequest {}).await.map_err(|s| ClientError::call(ACTION, s))?.into_inner();
    if let Some(template) = template(flags)? {
        return print_formatted(&template, &values::info(&answer));
    }
    let version = answer.buildkit_version.unwrap_or_default();
    let mut text = format!("BuildKit:\t{}\n", program(&version));
    if !version.dockerfile_version.is_empty() {
        text += &format!("Dockerfile:\t{}\n", version.dockerfile_version);
    }
    print(&align(&text, Fill::Spaces))
}

pub(super) fn dump_llb(flags: &Parsed) -> Result<(), ClientError> {
    let mut bytes = Vec::new();
    match flags.arguments.first().map(String::as_str) {
        None | Some("-" | "") => {
            io::stdin().read_to_end(&mut bytes).map_err(|e| ClientError::open("standard input", e))?;
        }
        Some(path) => bytes = std::fs::read(path).map_err(|e| ClientError::open(path, e))?,
    }
    let graph = definitions::read(&bytes)?;
    if flags.on("dot") {
        return print(&definitions::as_dot(&graph)?);
    }
    print_bytes(&definitions::as_json(&graph)?)
}

pub(super) async fn get(flags: &Parsed) -> Result<(), ClientError> {
    let digest = flags.first("blob digest must be specified")?;
    let hex = digest.split_once(':').map_or("", |(_, hex)| hex);
    if hex.len() < 32 || !hex.bytes().all(|b| b.is_ascii_hexdigit()) {
        return Err(ClientError::invalid("invalid checksum digest format"));
    }
    let channel = connect(flags, "").await?;
    let mut content = ContentClient::new(channel).max_decoding_message_size(MAX_MESSAGE);
    let request = ReadContentRequest { digest: digest.to_owned(), offset: 0, size: 0 };
    let failed = |status| ClientError::call(format!("read blob {digest}"), status);
    let mut parts = content.read(request).await.map_err(failed)?.into_inner();
    while let Some(part) = parts.message().await.map_err(failed)? {
        print_bytes(&part.data)?;
    }
    Ok(())
}

/// The tables of a daemon that is stopped, with all keys and values.
pub(super) fn dump_metadata(flags: &Parsed) -> Result<(), ClientError> {
    let file = Path::new(flags.text("root")).join("metadata.db");
    let mut table = None;
    let mut failed = None;
    let dumped = crosskit_metadata::dump(&file, |name, key, value| {
        let heading = match table.as_deref() == Some(name) {
            true => String::new(),
            false => format!("bucket {name:?}:\n"),
        };
        table = Some(name.to_string());
        let line = format!("{heading}  \"{}\": {}\n", key.escape_ascii(), readable(value));
        failed = print(&line).err();
        if failed.is_some() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    dumped.map_err(|e| ClientError::invalid(e.to_string()))?;
    failed.map_or(Ok(()), Err)
}

/// Text as it is, other bytes so that nothing is lost.
fn readable(value: &[u8]) -> String {
    match std::str::from_utf8(value) {
        Ok(text) if !text.chars().any(char::is_control) => text.to_string(),
        _ => format!("\"{}\"", value.escape_ascii()),
    }
}

/// Makes this program's standard input and output the connection, for tunnels through other ones.
pub(super) async fn dial_stdio(flags: &Parsed) -> Result<(), ClientError> {
    let target = Target::from_flags(flags)?;
    let failed = |e: io::Error| ClientError::invalid(target.address.failed(&e));
    match &target.address {
        Address::Unix(path) => carry(UnixStream::connect(path).await.map_err(failed)?).await,
        Address::Tcp(host) => carry(TcpStream::connect(host).await.map_err(failed)?).await,
        Address::Through(through) => carry(through.open().map_err(failed)?).await,
    }
    .map_err(|e| ClientError::invalid(format!("carry standard input and output: {}", errno(&e))))
}

/// Ends when the daemon has nothing more to say.
async fn carry(stream: impl AsyncRead + AsyncWrite) -> io::Result<()> {
    let (mut from, mut to) = tokio::io::split(stream);
    let upward = async {
        tokio::io::copy(&mut tokio::io::stdin(), &mut to).await?;
        to.shutdown().await?;
        // The other direction decides when it is over.
        std::future::pending::<io::Result<()>>().await
    };
    let downward = async {
        let mut out = tokio::io::stdout();
        tokio::io::copy(&mut from, &mut out).await?;
        out.flush().await
    };
    tokio::select! {
        end = upward => end,
        end = downward => end,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crosskit_api::pb;
    use crosskit_api::types::GcPolicy;

    #[test]
    fn a_worker_in_full() {
        let platform = |arch: &str, variant: &str| pb::Platform {
            os: "linux".into(),
            architecture: arch.into(),
            variant: variant.into(),
            ..Default::default()
        };
        let worker = WorkerRecord {
            id: "w1".into(),
            labels: [("a".to_owned(), "b".to_owned())].into(),
            platforms: vec![platform("amd64", ""), platform("arm64", "v8"), platform("arm", "v7")],
            gc_policy: vec![GcPolicy {
                all: true,
                keep_duration: 172_800_000_000_000,
                reserved_space: 10_000_000_000,
                ..Default::default()
            }],
            buildkit_version: Some(BuildkitVersion {
                package: "p".into(),
                version: "v".into(),
                revision: "r".into(),
                ..Default::default()
            }),
            ..Default::default()
        };
        assert_eq!(
            align(&verbose(&worker), Fill::Tabs),
            "ID:\t\tw1\nPlatforms:\tlinux/amd64,linux/arm64,linux/arm/v7\nBuildKit:\tp v r\nLabels:\n\ta:\tb\nGC Policy rule#0:\n\tAll:\t\ttrue\n\tKeep duration:\t48h0m0s\n\tReserved space:\t10GB\n\n"
        );
    }
}
