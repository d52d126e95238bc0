//! Is the result for the platforms that were asked for? A frontend may not care; whoever asked is told.

use crosskit_exporters::Export;
use crosskit_platforms::Platform;
use std::collections::BTreeSet;

/// What is to be said of a result, by the options that the frontend was asked with (BuildKit `exporter/verifier`).
pub fn warnings(platforms: Option<&str>, export: &Export) -> Vec<String> {
    if !export.metadata.contains_key("refs.platforms") && (export.is_map || export.single.is_none()) {
        return Vec::new();
    }
    // What makes no sense is the exporters' to refuse.
    let Ok(made) = export.platforms() else { return Vec::new() };
    let native = crosskit_platforms::native().normalize().format();
    let asked: Vec<&str> = platforms.unwrap_or(&native).split(',').collect();
    let mut wanted = BTreeSet::new();
    let mut wrong = Vec::new();
    for text in &asked {
        match Platform::parse(text) {
            Err(e) => wrong.push(format!("Invalid platform result requested {text:?}: {e}")),
            Ok(platform) if !wanted.insert(platform.normalize().format()) => {
                wrong.push(format!("Duplicate platform result requested {text:?}"));
            }
            Ok(_) => {}
        }
    }
    if !wrong.is_empty() {
        return wrong;
    }
    let made: BTreeSet<String> = made.iter().map(|one| without_release(&one.platform, &wanted)).collect();
    if made == wanted {
        return Vec::new();
    }
    let list = |all: &BTreeSet<String>| all.iter().map(String::as_str).collect::<Vec<_>>().join(",");
    let said = match (asked.as_slice(), made.len()) {
        ([one], 1) => format!("Requested platform {one:?} does not match result platform {:?}", list(&made)),
        ([_, _, ..], _) if !export.is_map => {
            "Multiple platforms requested but result is not multi-platform".to_string()
        }
        _ => format!("Requested platforms {} do not match result platforms {}", list(&wanted), list(&made)),
    };
    vec![said]
}

/// A platform's name, without the release of its system where nobody asked for one.
fn without_release(platform: &Platform, wanted: &BTreeSet<String>) -> String {
    let full = platform.clone().normalize();
    let bare = Platform { os_version: String::new(), ..full.clone() }.format();
    if wanted.contains(&bare) { bare } else { full.format() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn export(ids: &[&str]) -> Export {
        let platform = |id: &&str| {
            let (os, architecture) = id.split_once('/').unwrap();
            serde_json::json!({"ID": id, "Platform": {"os": os, "architecture": architecture}})
        };
        let listed = serde_json::json!({"Platforms": ids.iter().map(platform).collect::<Vec<_>>()});
        let mut export = Export { is_map: ids.len() > 1, ..Export::default() };
        export.metadata.insert("refs.platforms".to_string(), listed.to_string().into_bytes());
        export
    }

    #[test]
    fn what_was_asked_for_is_compared_with_what_came() {
        let said = |asked: &str, made: &[&str]| warnings(Some(asked), &export(made)).join("; ");
        assert_eq!(said("linux/amd64,linux/arm64", &["linux/arm64", "linux/amd64"]), "");
        assert_eq!(said("linux/arm64/v8", &["linux/arm64"]), "");
        assert_eq!(
            said("linux/amd64,linux/arm64", &["linux/amd64"]),
            "Multiple platforms requested but result is not multi-platform"
        );
        assert_eq!(
            said("linux/s390x", &["linux/amd64"]),
            "Requested platform \"linux/s390x\" does not match result platform \"linux/amd64\""
        );
        assert_eq!(
            said("linux/amd64", &["linux/amd64", "linux/arm64"]),
            "Requested platforms linux/amd64 do not match result platforms linux/amd64,linux/arm64"
        );
        assert_eq!(
            said("linux/amd64,linux/amd64", &["linux/amd64"]),
            "Duplicate platform result requested \"linux/amd64\""
        );
        // Nothing came, so nothing is wrong with it.
        assert_eq!(warnings(Some("linux/amd64,linux/arm64"), &Export::default()), Vec::<String>::new());
    }
}
