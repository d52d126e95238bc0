//! Keys of processes.

use super::{InputKey, InvalidOp, Selector, without_nested};
use crosskit_api::pb;
use crosskit_cache::KeyDigest;
use crosskit_llb::json;
use crosskit_platforms::Platform;

/// The digest of a process: what it runs, on which platform, and its mounts but for where they
/// come from. Proxies, addresses of extra hosts and, with one exception, ids of cache mounts
/// don't count.
pub fn exec_digest(op: &pb::ExecOp, platform: &Platform) -> KeyDigest {
    let mut op = op.clone();
    if let Some(meta) = &mut op.meta {
        meta.proxy_env = None;
        for host in &mut meta.extra_hosts {
            host.ip.clear();
        }
    }
    for mount in &mut op.mounts {
        mount.selector.clear();
        let named_by_place = names_its_place(mount);
        if let Some(cache) = mount.cache_opt.as_mut().filter(|_| !named_by_place) {
            cache.id.clear();
            cache.sharing = 0;
        }
    }
    if let [only] = op.mounts.as_slice()
        && is_plain_root(only)
    {
        // BuildKit's first versions left mounts out; for the plain RUN they still are.
        op.mounts.clear();
    }
    let mut text = format!("{{\"Type\":\"buildkit.exec.v0\",\"Exec\":{}", json::to_string(&op));
    let mut field = |name: &str, value: &str| {
        text.push_str(",\"");
        text.push_str(name);
        text.push_str("\":");
        json::write_string(&mut text, value);
    };
    field("OS", &platform.os);
    field("Arch", &platform.architecture);
    if !platform.variant.is_empty() {
        field("Variant", &platform.variant);
    }
    if !platform.os_version.is_empty() {
        field("OSVersion", &platform.os_version);
    }
    if !platform.os_features.is_empty() {
        text.push_str(",\"OSFeatures\":");
        text.push_str(&json::strings(&platform.os_features));
    }
    text.push('}');
    KeyDigest::of(text.as_bytes())
}

/// A cache mount whose id is its place, with or without a namespace before it: what a
/// Dockerfile makes where nothing else is said.
fn names_its_place(mount: &pb::Mount) -> bool {
    let Some(cache) = &mount.cache_opt else { return false };
    let by_place =
        cache.id == mount.dest || cache.id.split_once('/').is_some_and(|(_, rest)| rest == mount.dest);
    cache.sharing == 0 && by_place
}

fn is_plain_root(mount: &pb::Mount) -> bool {
    mount.dest == "/"
        && mount.selector.is_empty()
        && !mount.readonly
        && mount.mount_type() == pb::MountType::Bind
        && mount.cache_opt.is_none()
        && mount.ssh_opt.is_none()
        && mount.secret_opt.is_none()
        && mount.result_id.is_empty()
}

/// How the inputs of a process take part. Content counts only where it is safe: where the mount
/// leaves no result behind, can't be written, or is the whole input; and for the root only if
/// asked, as it is large.
///
/// # Errors
/// A mount of an input that isn't there, and content asked for where it isn't safe.
pub fn exec_inputs(op: &pb::ExecOp, inputs: usize) -> Result<Vec<InputKey>, InvalidOp> {
    let mut selectors = vec![Vec::<String>::new(); inputs];
    let mut by_content = vec![false; inputs];
    for mount in &op.mounts {
        let lends_input = matches!(mount.mount_type(), pb::MountType::Bind | pb::MountType::Cache);
        if !lends_input || mount.input == -1 {
            continue;
        }
        let input = usize::try_from(mount.input)
            .ok()
            .filter(|i| *i < inputs)
            .ok_or_else(|| InvalidOp(format!("invalid mountinput {} of {}", mount.input, mount.dest)))?;
        let selector = crosskit_llb::paths::clean(&format!("/{}", mount.selector));
        let safe = mount.output == -1 || mount.readonly || selector == "/";
        by_content[input] = match mount.content_cache() {
            pb::MountContentCache::Off => false,
            pb::MountContentCache::On if !safe => {
                return Err(InvalidOp(format!("invalid mount cache content {}", mount.dest)));
            }
            pb::MountContentCache::On => true,
            pb::MountContentCache::Default => safe && mount.dest != "/",
        };
        selectors[input].push(selector);
    }
    Ok(selectors
        .into_iter()
        .zip(by_content)
        .map(|(paths, content)| InputKey {
            selector: (!paths.is_empty()).then(|| KeyDigest::of(paths.join("\0").as_bytes())),
            content: content.then(|| content_selectors(paths)),
        })
        .collect())
}

fn content_selectors(paths: Vec<String>) -> Vec<Selector> {
    if paths.iter().any(|p| p.is_empty() || p == "/") {
        return Vec::new();
    }
    without_nested(paths)
        .into_iter()
        .map(|path| Selector { path, follow_links: true, ..Selector::default() })
        .collect()
}
