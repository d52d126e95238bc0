//! `[cache.gha]`: how caches with GitHub's runners are signed, and whose signatures are believed.

use super::Settings;
use super::flags::usual_file;
use crosskit_remotecache::{FIELDS, Policy};
use std::path::PathBuf;

/// Whom to believe where the file doesn't say: beside the usual config file.
const TRUSTED_ROOT: &str = "trusted_root.json";

/// The section whose keys are those of a policy.
const POLICY: &str = "cache/gha/verify/policy";

/// Signatures of caches with GitHub.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SignedCaches {
    /// The command that makes them; empty for none.
    pub sign: Vec<String>,
    /// What is needed of those that are found; none if they aren't looked at.
    pub verify: Option<Verify>,
}

/// Whose signatures are believed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verify {
    /// The file with authorities and logs.
    pub trusted_root: PathBuf,
    /// Who has to have signed.
    pub policy: Policy,
}

impl SignedCaches {
    pub(super) fn read(s: &Settings) -> Result<SignedCaches, (String, String)> {
        let mut policy = Policy {
            timestamps: count(s, "timestampThreshold")?,
            logs: count(s, "tlogThreshold")?,
            ..Policy::default()
        };
        for name in s.names(POLICY) {
            let Some(wanted) = s.text(&format!("{POLICY}/{name}")) else { continue };
            if !FIELDS.contains(&name.as_str()) {
                let near = FIELDS.iter().min_by_key(|field| strsim::levenshtein(field, &name));
                let hint = near.map_or(String::new(), |near| format!("; did you mean {near:?}?"));
                return Err((dotted(&name), format!("certificates have no such field{hint}")));
            }
            policy.fields.insert(name, wanted.to_owned());
        }
        let required = s.bool("cache/gha/verify/required") == Some(true);
        let trusted_root = s.text("cache/gha/verify/trustedRoot").filter(|path| !path.is_empty());
        let trusted_root =
            trusted_root.map_or_else(|| usual_file().with_file_name(TRUSTED_ROOT), PathBuf::from);
        let verify = required.then_some(Verify { trusted_root, policy });
        Ok(SignedCaches { sign: s.list("cache/gha/sign/command"), verify })
    }
}

fn dotted(name: &str) -> String {
    format!("{POLICY}/{name}").replace('/', ".")
}

fn count(s: &Settings, name: &str) -> Result<usize, (String, String)> {
    let count = s.int(&format!("{POLICY}/{name}")).unwrap_or(0);
    usize::try_from(count).map_err(|_| (dotted(name), "must not be negative".to_string()))
}
