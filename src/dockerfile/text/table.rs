//! Columns for people to read.

/// A heading and rows; each column but the last is as wide as its widest cell and `gap` more.
pub fn table(heading: &[&str], rows: impl IntoIterator<Item = Vec<String>>, gap: usize) -> String {
    let mut all: Vec<Vec<String>> = vec![heading.iter().map(|cell| (*cell).to_owned()).collect()];
    all.extend(rows);
    let columns = heading.len();
    let width = |column: usize| {
        all.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..columns.saturating_sub(1)).map(|column| width(column) + gap).collect();
    let mut out = String::new();
    for row in &all {
        for (column, cell) in row.iter().enumerate() {
            let width = widths.get(column).copied().unwrap_or(0);
            out.push_str(&format!("{cell:width$}"));
        }
        out.push('\n');
    }
    out
}
