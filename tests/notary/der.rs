//! As much of DER as certificates and stamps of time need.

/// `SEQUENCE`.
pub(crate) const SEQUENCE: u8 = 0x30;
/// `SET`.
pub(crate) const SET: u8 = 0x31;
/// `INTEGER`.
pub(crate) const INTEGER: u8 = 0x02;
/// `OCTET STRING`.
pub(crate) const OCTETS: u8 = 0x04;
/// `UTF8String`.
pub(crate) const TEXT: u8 = 0x0c;
/// `GeneralizedTime`.
pub(crate) const TIME: u8 = 0x18;
/// `[0]` around something.
pub(crate) const FIRST: u8 = 0xa0;

/// A value with its tag and its length.
pub(crate) fn value(tag: u8, content: &[u8]) -> Vec<u8> {
    let length = content.len().to_be_bytes();
    let length = &length[length.iter().position(|byte| *byte != 0).unwrap_or(length.len() - 1)..];
    let mut bytes = vec![tag];
    if content.len() >= 0x80 {
        bytes.push(0x80 | u8::try_from(length.len()).expect("a length of few bytes"));
    }
    bytes.extend_from_slice(length);
    bytes.extend_from_slice(content);
    bytes
}

/// Several values in one.
pub(crate) fn all(tag: u8, parts: &[&[u8]]) -> Vec<u8> {
    value(tag, &parts.concat())
}

/// An object identifier: `1.2.840.…`.
pub(crate) fn id(dotted: &str) -> Vec<u8> {
    let numbers: Vec<u64> = dotted.split('.').map(|part| part.parse().expect("a number")).collect();
    let mut content = vec![u8::try_from(numbers[0] * 40 + numbers[1]).expect("a small number")];
    for number in &numbers[2..] {
        let digits = (0..).take_while(|digit| *digit == 0 || number >> (7 * digit) != 0).count();
        for digit in (0..digits).rev() {
            let more = if digit > 0 { 0x80 } else { 0 };
            content.push(u8::try_from((number >> (7 * digit)) & 0x7f).expect("seven bits") | more);
        }
    }
    value(0x06, &content)
}
