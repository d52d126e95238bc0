//! Times of certificates and witnesses: fixed ones of the past, so that no clock matters.

/// From when until when a certificate is valid: years, months and days.
pub(crate) type Span = ((i32, u8, u8), (i32, u8, u8));

/// Whatever lasts.
pub(crate) const ALWAYS: Span = ((2020, 1, 1), (2040, 1, 1));

/// The day on which keys of signers are good.
pub(crate) const DAY: Span = ((2025, 5, 5), (2025, 5, 6));

/// That day at noon, in seconds since 1970.
pub const NOON: i64 = 1_746_446_400;

/// Seconds of a day.
pub const A_DAY: i64 = 86_400;

/// A time of those days as ASN.1 writes it.
pub(crate) fn text(seconds: i64) -> String {
    let (days, of_day) = ((seconds - NOON).div_euclid(A_DAY), (seconds - NOON).rem_euclid(A_DAY));
    assert!((0..20).contains(&days) && of_day < A_DAY / 2, "a time of May 2025, after noon");
    let (hours, minutes) = (12 + of_day / 3600, of_day / 60 % 60);
    format!("202505{:02}{hours:02}{minutes:02}{:02}Z", 5 + days, of_day % 60)
}
