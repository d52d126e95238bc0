//! Paragraphs of `key: value` lines, as Debian, Alpine and Python write down what is installed.

/// One paragraph: lines of a key and a value, in order. Lines that go on are left to the value before them.
#[derive(Debug, Default)]
pub(crate) struct Stanza<'a> {
    lines: Vec<(&'a str, &'a str)>,
}

impl<'a> Stanza<'a> {
    /// The first value of a key, without the lines that it goes on with; empty if there is none.
    pub(crate) fn get(&self, key: &str) -> &'a str {
        let found = self.lines.iter().find(|(known, _)| known.eq_ignore_ascii_case(key));
        found.map_or("", |(_, value)| value)
    }

    /// Every line.
    pub(crate) fn lines(&self) -> impl Iterator<Item = (&'a str, &'a str)> + '_ {
        self.lines.iter().copied()
    }
}

/// The paragraphs of a file.
pub(crate) fn stanzas(file: &str) -> impl Iterator<Item = Stanza<'_>> {
    let mut lines = file.lines();
    std::iter::from_fn(move || {
        let mut stanza = Stanza::default();
        for line in lines.by_ref() {
            if line.trim().is_empty() {
                if stanza.lines.is_empty() {
                    continue;
                }
                return Some(stanza);
            }
            if line.starts_with([' ', '\t']) {
                continue;
            }
            if let Some((key, value)) = line.split_once(':') {
                stanza.lines.push((key, value.trim()));
            }
        }
        (!stanza.lines.is_empty()).then_some(stanza)
    })
}
