//! Which ids a user may give away: `/etc/subuid` and `/etc/subgid` (subuid(5)).

/// A range of ids.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Range {
    /// The first.
    pub start: u32,
    /// How many.
    pub count: u32,
}

/// The ranges that a file's text gives a user, known by name or by number. Lines that make no sense are left out, as
/// newuidmap does.
pub fn ranges_of(text: &str, name: &str, id: u32) -> Vec<Range> {
    let id = id.to_string();
    let range = |line: &str| {
        let mut fields = line.trim().split(':');
        let owner = fields.next()?;
        let (start, count) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
        ((owner == name || owner == id) && count > 0).then_some(Range { start, count })
    };
    text.lines().filter_map(range).collect()
}

/// The arguments by which newuidmap maps 0 to a user, and what follows to the ranges one after the other.
pub(crate) fn mapping(own: u32, ranges: &[Range]) -> Vec<String> {
    let mut next = 1;
    let mut words = vec![0, own, 1];
    for range in ranges {
        words.extend([next, range.start, range.count]);
        next = next.saturating_add(range.count);
    }
    words.iter().map(u32::to_string).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_belong_to_a_name_or_a_number() {
        let text = "other:5:6\na:100000:65536\n1000:200000:10\n# a:1:2\na:x:1\na:300000:0\na:7\n";
        let ranges = ranges_of(text, "a", 1000);
        assert_eq!(ranges, [Range { start: 100_000, count: 65_536 }, Range { start: 200_000, count: 10 }]);
        assert_eq!(mapping(1000, &ranges).join(" "), "0 1000 1 1 100000 65536 65537 200000 10");
        assert_eq!(ranges_of(text, "b", 1), []);
    }
}
