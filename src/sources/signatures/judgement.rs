//! What counts as a good signature of OpenPGP: read from what `gpg` writes for programs (GnuPG doc/DETAILS).

use super::ssh::SHORTEST_RSA;

/// In front of each line about a signature.
const STATUS: &str = "[GNUPG:] ";

/// Hashes that are safe: SHA-256, SHA-384 and SHA-512 (RFC 9580 §9.5).
const HASHES: [u32; 3] = [8, 9, 10];

/// Algorithms of keys: RSA, RSA for signatures alone, ECDSA, EdDSA (RFC 9580 §9.1).
const ALGORITHMS: [u32; 4] = [1, 3, 19, 22];

/// Algorithms whose keys are a modulus.
const RSA: [u32; 3] = [1, 2, 3];

/// Signatures of files as they are, and of texts whatever their line ends are (RFC 9580 §5.2.1).
const OF_DOCUMENTS: [&str; 2] = ["00", "01"];

/// How far the signer's clock may be ahead, in seconds.
const CLOCKS: i64 = 5 * 60;

/// A code of `gpg`: there is no such key.
const NO_KEY: &str = "9";

/// A key that was given: a primary one, or one that it vouches for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Signer {
    fingerprint: String,
    bits: usize,
    algorithm: u32,
    /// Seconds since 1970.
    expires: Option<i64>,
    revoked: bool,
    /// Whether it is vouched for.
    valid: bool,
}

impl Signer {
    /// All keys of a listing.
    pub(super) fn listed(listing: &str) -> Vec<Self> {
        let mut keys: Vec<Self> = Vec::new();
        for line in listing.lines() {
            let fields: Vec<&str> = line.split(':').collect();
            let field = |at: usize| fields.get(at).copied().unwrap_or_default();
            match field(0) {
                "pub" | "sub" => keys.push(Self {
                    fingerprint: String::new(),
                    bits: field(2).parse().unwrap_or(0),
                    algorithm: field(3).parse().unwrap_or(0),
                    expires: field(6).parse().ok(),
                    revoked: field(1).contains('r'),
                    valid: !field(1).contains('i'),
                }),
                "fpr" => {
                    if let Some(key) = keys.last_mut().filter(|key| key.fingerprint.is_empty()) {
                        key.fingerprint = field(9).to_string();
                    }
                }
                _ => {}
            }
        }
        keys
    }
}

/// One signature as it was found.
#[derive(Debug, Default)]
struct Found<'a> {
    /// The key that it says it was made with.
    by: &'a str,
    /// The line that says that it cannot be verified, without its mark.
    wrong: Option<&'a str>,
    /// The words of the line that says that it fits.
    fits: Option<Vec<&'a str>>,
}

impl<'a> Found<'a> {
    fn all(output: &'a str) -> Vec<Self> {
        let mut all: Vec<Self> = Vec::new();
        for line in output.lines().filter_map(|line| line.strip_prefix(STATUS)) {
            let mut words = line.split(' ');
            let (kind, first) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
            if kind == "NEWSIG" {
                all.push(Self::default());
                continue;
            }
            if !matches!(
                kind,
                "GOODSIG"
                    | "EXPSIG"
                    | "EXPKEYSIG"
                    | "REVKEYSIG"
                    | "BADSIG"
                    | "ERRSIG"
                    | "NO_PUBKEY"
                    | "VALIDSIG"
            ) {
                continue;
            }
            if all.is_empty() {
                all.push(Self::default());
            }
            let Some(found) = all.last_mut() else { continue };
            match kind {
                "VALIDSIG" => found.fits = Some(line.split(' ').collect()),
                "BADSIG" | "ERRSIG" => (found.by, found.wrong) = (first, Some(line)),
                _ => found.by = first,
            }
        }
        all
    }
}

/// Says which signatures count.
pub(super) struct Judge {
    pub(super) keys: Vec<Signer>,
    /// Seconds since 1970.
    pub(super) now: i64,
    pub(super) reject_expired: bool,
    /// Where the keys come from.
    pub(super) attribute: &'static str,
}

impl Judge {
    /// An error unless one of the signatures counts. What was said to people is told where there is nothing else.
    pub(super) fn any(&self, output: &str, said: &str) -> Result<(), String> {
        let mut reasons = Vec::new();
        for found in Found::all(output) {
            match self.one(&found) {
                Ok(()) => return Ok(()),
                Err(reason) => reasons.push(match found.by {
                    "" => reason,
                    by => format!("signature by {by}: {reason}"),
                }),
            }
        }
        match reasons.is_empty() {
            true => Err(format!("gpg finds no signature: {said}")),
            false => Err(reasons.join("; ")),
        }
    }

    fn one(&self, found: &Found<'_>) -> Result<(), String> {
        if let Some(line) = found.wrong {
            let words: Vec<&str> = line.split(' ').collect();
            return Err(match (words[0], words.get(6)) {
                ("BADSIG", _) => "it does not belong to this content: one of them was changed".into(),
                ("ERRSIG", Some(&NO_KEY)) => {
                    format!("signature made by unknown entity: no key of {} is this one", self.attribute)
                }
                _ => format!("gpg cannot verify it ({line})"),
            });
        }
        let words = found.fits.as_deref().ok_or("gpg does not say whether it is good")?;
        self.policy(words)
            .unwrap_or_else(|| Err(format!("gpg says too little about it ({})", words.join(" "))))
    }

    /// Judges a signature that fits. None if a word is missing.
    fn policy(&self, words: &[&str]) -> Option<Result<(), String>> {
        let number = |at: usize| words.get(at)?.parse::<i64>().ok();
        let (made, expires) = (number(3)?, number(4)?);
        let (algorithm, hash) = (u32::try_from(number(7)?).ok()?, u32::try_from(number(8)?).ok()?);
        let class = *words.get(9)?;
        let primary = words.get(10).or(words.get(1))?;
        Some((|| {
            if !HASHES.contains(&hash) {
                return Err(format!("rejecting weak/unknown hash: {}", hash_name(hash)));
            }
            if !ALGORITHMS.contains(&algorithm) {
                return Err(format!("rejecting unsupported pubkey algorithm: {algorithm}"));
            }
            if !OF_DOCUMENTS.contains(&class) {
                return Err(format!("it is a signature of another kind (0x{class})"));
            }
            for fingerprint in [words[1], *primary] {
                let known = self.keys.iter().find(|key| key.fingerprint == fingerprint);
                self.key(known.ok_or_else(|| format!("key {fingerprint} is not listed"))?, made)?;
            }
            if self.reject_expired && expires != 0 && self.now >= expires {
                return Err(format!("signature expired at {}", time(expires)));
            }
            if made > self.now + CLOCKS {
                return Err(format!("signature creation time is in the future: {}", time(made)));
            }
            Ok(())
        })())
    }

    /// Judges a key that a signature was made with.
    fn key(&self, key: &Signer, made: i64) -> Result<(), String> {
        let name = &key.fingerprint;
        if key.revoked {
            return Err(format!("key revoked: {name}"));
        }
        if !key.valid {
            return Err(format!("key {name} is not vouched for by its primary key"));
        }
        if RSA.contains(&key.algorithm) && key.bits < SHORTEST_RSA {
            return Err(format!("RSA key too short: {} bits, {SHORTEST_RSA} are the least", key.bits));
        }
        let Some(expires) = key.expires else { return Ok(()) };
        if made >= expires {
            return Err(format!("key expired at {}, before the signature was made: {name}", time(expires)));
        }
        if self.reject_expired && self.now >= expires {
            return Err(format!("key expired at {}: {name}", time(expires)));
        }
        Ok(())
    }
}

fn hash_name(hash: u32) -> String {
    match hash {
        1 => "MD5".into(),
        2 => "SHA1".into(),
        3 => "RIPEMD160".into(),
        11 => "SHA224".into(),
        other => format!("number {other}"),
    }
}

fn time(seconds: i64) -> String {
    jiff::Timestamp::from_second(seconds).map_or_else(|_| seconds.to_string(), |time| time.to_string())
}

#[cfg(test)]
#[path = "judgement_tests.rs"]
mod tests;
