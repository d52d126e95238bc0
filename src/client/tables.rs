//! Text in columns, aligned by tabs as BuildKit's tables are.

/// How columns are filled up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fill {
    /// With tabs, each column a multiple of eight characters wide.
    Tabs,
    /// With spaces.
    Spaces,
}

/// The width that a tab reaches to a multiple of.
const TAB: usize = 8;

/// Aligns the cells of lines, which end at tabs. What stands behind the last tab of a line is
/// not part of a column. A column is as wide as its widest cell in neighbouring lines.
pub(crate) fn align(text: &str, fill: Fill) -> String {
    let lines: Vec<Vec<&str>> = text.lines().map(|line| line.split('\t').collect()).collect();
    let columns = lines.iter().map(|cells| cells.len() - 1).max().unwrap_or(0);
    let mut widths: Vec<Vec<usize>> = lines.iter().map(|cells| vec![0; cells.len() - 1]).collect();
    for column in 0..columns {
        let mut from = 0;
        while from < lines.len() {
            let run = lines[from..].iter().take_while(|cells| cells.len() > column + 1).count();
            let widest = lines[from..from + run]
                .iter()
                .map(|cells| cells[column].chars().count() + 1)
                .max()
                .unwrap_or(0);
            for line in &mut widths[from..from + run] {
                line[column] = widest;
            }
            from += run.max(1);
        }
    }
    let mut out = String::with_capacity(text.len() * 2);
    for (cells, widths) in lines.iter().zip(&widths) {
        for (at, cell) in cells.iter().enumerate() {
            out.push_str(cell);
            let Some(width) = widths.get(at) else { continue };
            let used = cell.chars().count();
            match fill {
                Fill::Spaces => out.extend(std::iter::repeat_n(' ', width - used)),
                Fill::Tabs => {
                    let missing = width.next_multiple_of(TAB) - used;
                    out.extend(std::iter::repeat_n('\t', missing.div_ceil(TAB)));
                }
            }
        }
        out.push('\n');
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_reach_to_tab_stops() {
        assert_eq!(
            align("ID\tPLATFORMS\nmbuq8tk8go00jsa2zrqhgvqk1\tx\n", Fill::Tabs),
            "ID\t\t\t\tPLATFORMS\nmbuq8tk8go00jsa2zrqhgvqk1\tx\n"
        );
        assert_eq!(
            align("ID:\tx\nUsage count:\t0\n\nID:\ty\n", Fill::Tabs),
            "ID:\t\tx\nUsage count:\t0\n\nID:\ty\n"
        );
        assert_eq!(
            align("Labels:\n\ta:\tb\n\tlonglonglong:\tc\n", Fill::Tabs),
            "Labels:\n\ta:\t\tb\n\tlonglonglong:\tc\n"
        );
    }

    #[test]
    fn or_are_filled_with_spaces() {
        assert_eq!(align("BuildKit:\ta\nDockerfile:\tb\n", Fill::Spaces), "BuildKit:   a\nDockerfile: b\n");
    }
}
