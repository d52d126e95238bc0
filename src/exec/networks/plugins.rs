//! Plugins: programs that are told by their environment and standard input what to do (CNI spec 1.0 §2).

use std::{
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use serde_json::Value;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    process::Command,
    time::timeout,
};

use super::lists::{NetworkList, kind};
use crate::{Error, Result};

/// How long one plugin may take: those that ask a DHCP server wait for tens of seconds.
const TIME_LIMIT: Duration = Duration::from_secs(60);
/// What one plugin may say, in bytes.
const SAY_LIMIT: u64 = 1 << 20;
/// Interface that a sandbox gets.
const INTERFACE: &str = "eth0";
/// Where the programs are that plugins call (iptables) and that an ordinary user's PATH lacks.
const MORE_FOLDERS: &str = "/usr/local/sbin:/usr/sbin:/sbin";
/// What a service manager told the daemon alone.
const PRIVATE: [&str; 4] = ["NOTIFY_SOCKET", "LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES"];

/// A sandbox as plugins see it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Target<'a> {
    /// Its name.
    pub(crate) id: &'a str,
    /// Its namespace; None if that is gone.
    pub(crate) namespace: Option<&'a Path>,
    /// `NAME=value;…`
    pub(crate) arguments: &'a str,
    /// Where plugins are.
    pub(crate) folders: &'a [PathBuf],
}

/// Calls all plugins of a list in order; gives what the last one says came of it.
pub(crate) async fn add(list: &NetworkList, target: Target<'_>) -> Result<Value> {
    let mut previous = None;
    for plugin in &list.plugins {
        let said = call("ADD", kind(plugin), target, &list.given(plugin, previous.as_ref())).await?;
        let result = serde_json::from_slice(&said).map_err(|error| Error::Plugin {
            plugin: kind(plugin).to_owned(),
            command: "ADD",
            why: format!("its answer makes no sense: {error}"),
        })?;
        previous = Some(result);
    }
    Ok(previous.unwrap_or_default())
}

/// Calls all plugins of a list in reverse order to undo what they did; goes on after an error and gives the first.
pub(crate) async fn delete(list: &NetworkList, target: Target<'_>, result: Option<&Value>) -> Result<()> {
    let result = result.filter(|_| list.tells_results());
    let mut outcome = Ok(());
    for plugin in list.plugins.iter().rev() {
        let done = call("DEL", kind(plugin), target, &list.given(plugin, result)).await;
        outcome = outcome.and(done.map(drop));
    }
    outcome
}

/// Calls a plugin; gives what it says.
async fn call(command: &'static str, plugin: &str, target: Target<'_>, given: &Value) -> Result<Vec<u8>> {
    let failed = |why: String| Error::Plugin { plugin: plugin.to_owned(), command, why };
    let program = target.folders.iter().map(|folder| folder.join(plugin)).find(|program| program.is_file());
    let program = program.ok_or_else(|| {
        let folders: Vec<_> = target.folders.iter().map(|folder| folder.to_string_lossy()).collect();
        failed(format!("it is not in {}; install the CNI plugins or name their folder", folders.join(", ")))
    })?;
    let folders = std::env::join_paths(target.folders).map_err(|error| failed(error.to_string()))?;
    let mut path = std::env::var_os("PATH").unwrap_or_default();
    path.push(":");
    path.push(MORE_FOLDERS);
    let mut process = Command::new(program);
    PRIVATE.iter().for_each(|name| _ = process.env_remove(name));
    process
        .env("PATH", path)
        .env("CNI_COMMAND", command)
        .env("CNI_CONTAINERID", target.id)
        .env("CNI_NETNS", target.namespace.unwrap_or(Path::new("")))
        .env("CNI_IFNAME", INTERFACE)
        .env("CNI_ARGS", target.arguments)
        .env("CNI_PATH", folders)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .kill_on_drop(true);
    let mut child = process.spawn().map_err(|error| failed(error.to_string()))?;
    let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    let text = given.to_string();
    let feed = async {
        if let Some(mut stdin) = stdin {
            // One that does not care what it is given says so by its end.
            let _ = stdin.write_all(text.as_bytes()).await;
        }
    };
    let (mut said, mut complained) = (Vec::new(), Vec::new());
    let listen = async {
        if let Some(stdout) = stdout {
            let _ = stdout.take(SAY_LIMIT).read_to_end(&mut said).await;
        }
    };
    let listen_too = async {
        if let Some(stderr) = stderr {
            let _ = stderr.take(SAY_LIMIT).read_to_end(&mut complained).await;
        }
    };
    let whole = async { tokio::join!(feed, listen, listen_too, child.wait()).3 };
    let status = timeout(TIME_LIMIT, whole)
        .await
        .map_err(|_| failed(format!("it did not end within {TIME_LIMIT:?}")))?
        .map_err(|error| failed(error.to_string()))?;
    if status.success() {
        return Ok(said);
    }
    Err(failed(reason(&said, &complained).unwrap_or_else(|| status.to_string())))
}

/// Why a plugin failed, as it says itself (CNI spec 1.0 §5 Error).
fn reason(said: &[u8], complained: &[u8]) -> Option<String> {
    let answer: Value = serde_json::from_slice(said).unwrap_or_default();
    let text = |key: &str| answer.get(key).and_then(Value::as_str).filter(|text| !text.is_empty());
    match (text("msg"), text("details")) {
        (Some(message), Some(details)) => Some(format!("{message}: {details}")),
        (Some(text), None) | (None, Some(text)) => Some(text.to_owned()),
        (None, None) => {
            let text = String::from_utf8_lossy(complained).trim().to_owned();
            (!text.is_empty()).then_some(text)
        }
    }
}
