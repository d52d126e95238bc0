//! Who has to have signed.

use crate::{SignatureError, Signer};
use std::collections::BTreeMap;

/// Who has to have signed, and how many have to have witnessed it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Policy {
    /// Witnesses of the time, logs and timestamp authorities together.
    pub timestamps: usize,
    /// Logs among them.
    pub logs: usize,
    /// What the certificate has to say, by the names of [`FIELDS`](crate::FIELDS): with `*` at its beginning or its end for whatever
    /// there is. An empty one asks nothing.
    pub fields: BTreeMap<String, String>,
}

impl Policy {
    /// Whether a signer is one of those.
    ///
    /// # Errors
    /// What is not as it has to be.
    pub fn admits(&self, signer: &Signer) -> Result<(), SignatureError> {
        let have = signer.logs + signer.stamps;
        if have < self.timestamps {
            return Err(SignatureError::Timestamps { have, need: self.timestamps });
        }
        if signer.logs < self.logs {
            return Err(SignatureError::Logs { have: signer.logs, need: self.logs });
        }
        for (name, wanted) in self.fields.iter().filter(|(_, wanted)| !wanted.is_empty()) {
            let found = signer.fields.get(name.as_str()).map_or("", String::as_str);
            if !matches(wanted, found) {
                let (name, found, wanted) = (name.clone(), found.to_owned(), wanted.clone());
                return Err(SignatureError::Field { name, found, wanted });
            }
        }
        Ok(())
    }
}

/// A star stands for anything at the beginning, at the end, or at both; elsewhere it is a star.
fn matches(wanted: &str, found: &str) -> bool {
    match (wanted.strip_prefix('*'), wanted.strip_suffix('*')) {
        (Some(""), _) => true,
        (Some(end), Some(_)) => found.contains(&end[..end.len() - 1]),
        (Some(end), None) => found.ends_with(end),
        (None, Some(start)) => found.starts_with(start),
        (None, None) => wanted == found,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stars_stand_for_anything_at_either_end_only() {
        for (wanted, found, expected) in [
            ("*", "", true),
            ("**", "anything", true),
            ("https://example.com/*", "https://example.com/a", true),
            ("https://example.com/*", "https://example.org/a", false),
            ("*@refs/heads/main", "a@refs/heads/main", true),
            ("*@refs/heads/main", "a@refs/heads/main2", false),
            ("*/builder/*", "https://example.com/builder/x", true),
            ("*/builder/*", "https://example.com/builders/x", false),
            ("a*c", "abc", false),
            ("a*c", "a*c", true),
            ("github-hosted", "github-hosted", true),
            ("github-hosted", "GitHub-hosted", false),
            ("a", "", false),
        ] {
            assert_eq!(matches(wanted, found), expected, "{wanted} {found}");
        }
    }

    #[test]
    fn a_policy_counts_witnesses_and_compares_what_it_names() {
        let fields = [("issuer", "https://token.example.com".to_owned())].into();
        let signer = Signer { fields, logs: 1, stamps: 1 };
        let told = |policy: Policy| policy.admits(&signer).map_err(|e| e.to_string());
        let wanted = |name: &str, value: &str| Policy {
            fields: [(name.to_owned(), value.to_owned())].into(),
            ..Policy::default()
        };
        assert_eq!(told(Policy::default()), Ok(()));
        assert_eq!(told(Policy { timestamps: 2, logs: 1, ..Policy::default() }), Ok(()));
        let few = Policy { timestamps: 3, ..Policy::default() };
        assert_eq!(told(few), Err("not enough timestamp authorities: have 2, need 3".into()));
        let few = Policy { logs: 2, ..Policy::default() };
        assert_eq!(told(few), Err("not enough tlog authorities: have 1, need 2".into()));
        assert_eq!(told(wanted("issuer", "https://*")), Ok(()));
        assert_eq!(told(wanted("runnerEnvironment", "")), Ok(()));
        let why = r#"certificate field "runnerEnvironment" does not match policy ("" != "self-hosted")"#;
        assert_eq!(told(wanted("runnerEnvironment", "self-hosted")), Err(why.into()));
    }
}
