//! What counts is read from recorded and made up words of `gpg`.
#![allow(clippy::unwrap_used, reason = "a test ends where something is missing")]

use super::*;

const DAY: i64 = 86_400;
const MADE: i64 = 1_600_000_000;
const PRIMARY: &str = "1111111111111111111111111111111111111111";
const SUBKEY: &str = "2222222222222222222222222222222222222222";

/// A listing of a primary key and a subkey.
fn listing(primary: (&str, &str, &str), subkey: (&str, &str, &str)) -> String {
    let line = |kind: &str, (state, bits, expires): (&str, &str, &str), fingerprint: &str| {
        format!(
            "{kind}:{state}:{bits}:1:AAAAAAAAAAAAAAAA:1500000000:{expires}::-:::sc::::::23::0:\nfpr:::::::::{fingerprint}:\n"
        )
    };
    let user = "uid:-::::1500000000::BB::revoked:e::::::::::0:\n";
    ["tru:t:0:0:0:0:0:0\n", &line("pub", primary, PRIMARY), user, &line("sub", subkey, SUBKEY)].concat()
}

/// What is said of a signature by the subkey.
fn said(state: &str, made: i64, expires: i64, algorithm: u32, hash: u32, class: &str) -> String {
    format!(
        "[GNUPG:] NEWSIG a@b\n[GNUPG:] KEY_CONSIDERED {PRIMARY} 0\n[GNUPG:] {state} 2222222222222222 VALIDSIG [GNUPG:] name\n\
         [GNUPG:] VALIDSIG {SUBKEY} 2020-09-13 {made} {expires} 4 0 {algorithm} {hash} {class} {PRIMARY}\n"
    )
}

fn judge(listing: &str, reject_expired: bool, now: i64) -> Judge {
    Judge { keys: Signer::listed(listing), now, reject_expired, attribute: "git.sig.pubkey" }
}

#[test]
fn a_signature_counts_while_keys_and_algorithms_do() {
    let good = ("-", "3072", "");
    let good_words = said("GOODSIG", MADE, 0, 1, 10, "00");
    let expired = (MADE + DAY).to_string();
    let expired = ("e", "3072", expired.as_str());
    let before = (MADE - DAY).to_string();
    let (revoked, short, foreign) = (("r", "3072", ""), ("-", "2047", ""), ("i", "3072", ""));
    for (primary, subkey, words, reject, reason) in [
        (good, good, good_words.clone(), true, ""),
        (good, good, said("GOODSIG", MADE, 0, 22, 8, "01"), true, ""),
        (good, good, said("GOODSIG", MADE, 0, 1, 2, "00"), false, "rejecting weak/unknown hash: SHA1"),
        (good, good, said("GOODSIG", MADE, 0, 1, 11, "00"), false, "rejecting weak/unknown hash: SHA224"),
        (good, good, said("GOODSIG", MADE, 0, 17, 8, "00"), false, "unsupported pubkey algorithm: 17"),
        (good, good, said("GOODSIG", MADE, 0, 1, 8, "10"), false, "another kind (0x10)"),
        (good, revoked, good_words.clone(), false, "key revoked: 2222"),
        (revoked, good, good_words.clone(), false, "key revoked: 1111"),
        // Gpg says first that the signature has expired.
        (revoked, good, said("EXPSIG", MADE, MADE + DAY, 1, 8, "00"), false, "key revoked"),
        (good, foreign, good_words.clone(), false, "not vouched for"),
        (short, good, good_words.clone(), false, "RSA key too short: 2047 bits"),
        (good, short, good_words.clone(), false, "RSA key too short: 2047 bits"),
        (expired, good, said("EXPKEYSIG", MADE, 0, 1, 8, "00"), false, ""),
        (
            expired,
            good,
            said("EXPKEYSIG", MADE, 0, 1, 8, "00"),
            true,
            "key expired at 2020-09-14T12:26:40Z: 1111",
        ),
        (
            good,
            expired,
            said("EXPKEYSIG", MADE, 0, 1, 8, "00"),
            true,
            "key expired at 2020-09-14T12:26:40Z: 2222",
        ),
        (good, ("e", "3072", &before), good_words.clone(), false, "before the signature was made"),
        (good, good, said("EXPSIG", MADE, MADE + DAY, 1, 8, "00"), false, ""),
        (good, good, said("EXPSIG", MADE, MADE + DAY, 1, 8, "00"), true, "signature expired at 2020-09-14"),
        (good, good, said("GOODSIG", MADE + 3 * DAY, 0, 1, 8, "00"), false, "creation time is in the future"),
        (good, good, said("GOODSIG", MADE + 2 * DAY + 299, 0, 1, 8, "00"), false, ""),
    ] {
        let judged = judge(&listing(primary, subkey), reject, MADE + 2 * DAY).any(&words, "");
        match reason {
            "" => assert_eq!(judged, Ok(()), "{words}"),
            reason => {
                let err = judged.unwrap_err();
                assert!(
                    err.contains(reason) && err.contains("signature by 2222222222222222: "),
                    "{words}: {err}"
                );
            }
        }
    }
    let none = judge("", false, MADE).any(&good_words, "").unwrap_err();
    assert!(none.contains("is not listed"), "{none}");
}

#[test]
fn one_good_signature_among_others_is_enough() {
    let judge = judge(&listing(("-", "3072", ""), ("-", "3072", "")), false, MADE + DAY);
    let good = said("GOODSIG", MADE, 0, 1, 10, "00");
    let unknown = "[GNUPG:] NEWSIG\n[GNUPG:] ERRSIG 3333333333333333 1 10 00 1600000000 9 33\n[GNUPG:] NO_PUBKEY 3333333333333333\n";
    let bad = "[GNUPG:] NEWSIG\n[GNUPG:] BADSIG 2222222222222222 GOODSIG name\n";
    let strange = "[GNUPG:] NEWSIG\n[GNUPG:] ERRSIG 4444444444444444 99 10 00 1600000000 4 -\n";
    for words in [[unknown, &good], [&good, bad], [bad, &good]] {
        assert_eq!(judge.any(&words.concat(), ""), Ok(()), "{words:?}");
    }
    for (words, reason) in [
        (
            unknown,
            "signature by 3333333333333333: signature made by unknown entity: no key of git.sig.pubkey",
        ),
        (bad, "signature by 2222222222222222: it does not belong to this content"),
        (strange, "signature by 4444444444444444: gpg cannot verify it (ERRSIG "),
        ("", "gpg finds no signature: what it said"),
        ("[GNUPG:] NEWSIG\n", "gpg does not say whether it is good"),
        ("[GNUPG:] GOODSIG 2222222222222222 name\n", "gpg does not say whether it is good"),
        ("[GNUPG:] VALIDSIG 22 2020-09-13 1600000000\n", "gpg says too little"),
        ("GOODSIG 2\nVALIDSIG", "gpg finds no signature"),
    ] {
        let err = judge.any(words, "what it said").unwrap_err();
        assert!(err.contains(reason), "{words}: {err}");
    }
}
