//! The network of steps that ask for none in particular, from the file and from flags.

use super::Settings;
use crosskit_exec::networks::{NetworkMode, NetworkOptions};
use crosskit_rootless::Folders;
use std::net::IpAddr;
use std::path::PathBuf;

/// The longest name that an interface may have, in bytes (include/uapi/linux/if.h, IFNAMSIZ).
const INTERFACE_NAME: usize = 15;

/// What counts where nothing is said.
pub(super) fn usual() -> NetworkOptions {
    let mut network = NetworkOptions { mode: NetworkMode::Auto, ..NetworkOptions::default() };
    if let Some(folder) = Folders::usual().and_then(|folders| folders.config) {
        network.config = folder.join("cni.json");
    }
    network
}

/// Takes what the file says.
pub(super) fn apply(network: &mut NetworkOptions, s: &Settings) -> Result<(), (String, String)> {
    let text = |key: &str| s.text(&format!("worker/oci/{key}")).filter(|text| !text.is_empty());
    let wrong = |key: &str| {
        let key = format!("worker.oci.{key}");
        move |why| (key, why)
    };
    if let Some(mode) = text("networkMode") {
        network.mode = mode.parse().map_err(wrong("networkMode"))?;
    }
    if let Some(path) = text("cniConfigPath") {
        network.config = PathBuf::from(path);
    }
    if let Some(path) = text("cniBinaryPath") {
        network.plugins = Some(PathBuf::from(path));
    }
    if let Some(size) = s.int("worker/oci/cniPoolSize") {
        let negative = |_| wrong("cniPoolSize")("must not be negative".to_string());
        network.pool_size = usize::try_from(size).map_err(negative)?;
    }
    if let Some(name) = text("bridgeName") {
        network.bridge = bridge_name(name).map_err(wrong("bridgeName"))?;
    }
    if let Some(given) = text("bridgeSubnet") {
        network.subnet = subnet(given).map_err(wrong("bridgeSubnet"))?;
    }
    Ok(())
}

/// Takes what the flags say, by their names without `oci-`.
pub(super) fn apply_flags<'a>(
    network: &mut NetworkOptions,
    flag: impl Fn(&str) -> Option<&'a str>,
) -> Result<(), String> {
    if let Some(mode) = flag("worker-net") {
        network.mode = mode.parse().map_err(|e| format!("--oci-worker-net: {e}"))?;
    }
    if let Some(path) = flag("cni-config-path").filter(|path| !path.is_empty()) {
        network.config = PathBuf::from(path);
    }
    if let Some(path) = flag("cni-binary-dir").filter(|path| !path.is_empty()) {
        network.plugins = Some(PathBuf::from(path));
    }
    if let Some(size) = flag("cni-pool-size") {
        network.pool_size =
            size.parse().map_err(|_| format!("--oci-cni-pool-size takes a number, not {size:?}"))?;
    }
    Ok(())
}

fn bridge_name(name: &str) -> Result<String, String> {
    let plain = |c: char| c.is_ascii_graphic() && !matches!(c, '/' | ':' | '%');
    match name.len() <= INTERFACE_NAME && name.chars().all(plain) && !matches!(name, "." | "..") {
        true => Ok(name.to_string()),
        false => Err(format!(
            "{name:?} is no name of an interface: at most {INTERFACE_NAME} letters, digits, - and _"
        )),
    }
}

fn subnet(text: &str) -> Result<String, String> {
    let whole = text.split_once('/').and_then(|(address, bits)| {
        let most = if address.parse::<IpAddr>().ok()?.is_ipv4() { 32 } else { 128 };
        bits.parse::<u8>().ok().filter(|bits| *bits <= most)
    });
    match whole {
        Some(_) => Ok(text.to_string()),
        None => {
            Err(format!("{text:?} is no subnet; it takes an address and a length, as in \"10.10.0.0/16\""))
        }
    }
}
