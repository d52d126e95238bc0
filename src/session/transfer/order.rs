//! The order in which entries come, and which paths may come at all.

use crate::SessionError;
use std::cmp::Ordering;

/// Compares paths part by part: a folder comes right before what is in it.
pub fn compare_paths(a: &str, b: &str) -> Ordering {
    a.split('/').map(str::as_bytes).cmp(b.split('/').map(str::as_bytes))
}

/// Watches over a walk: every path plain and relative, every folder before its entries, every
/// entry after its smaller siblings, and so none twice.
#[derive(Debug)]
pub struct Order {
    /// The folders that the walk is in, the root first.
    open: Vec<Level>,
}

#[derive(Debug, Default)]
struct Level {
    path: String,
    last: String,
}

impl Default for Order {
    fn default() -> Self {
        Self { open: vec![Level::default()] }
    }
}

impl Order {
    /// Takes the next path of the walk. Returns how many folders deep it is: 0 for the root's own
    /// entries.
    pub fn next(&mut self, path: &str, is_dir: bool) -> Result<usize, SessionError> {
        let bad = |what: &str| Err(SessionError::Protocol(format!("{what} {path:?}: invalid argument")));
        if path.starts_with('/') {
            return bad("absolute path");
        }
        if path.split('/').any(|part| part == "..") {
            return bad("escape check");
        }
        if path.split('/').any(|part| part.is_empty() || part == ".") || path.contains('\0') {
            return bad("unclean path");
        }
        let (dir, base) = path.rsplit_once('/').unwrap_or(("", path));
        while self.open.len() > 1 && self.open[self.open.len() - 1].path != dir {
            self.open.pop();
        }
        let depth = self.open.len() - 1;
        let level = &mut self.open[depth];
        if level.path != dir || level.last.as_str() >= base {
            return Err(SessionError::Protocol(format!(
                "changes out of order: {path:?} {:?}",
                format!("{}/{}", level.path, level.last).trim_matches('/'),
            )));
        }
        level.last.clear();
        level.last.push_str(base);
        if is_dir {
            self.open.push(Level { path: path.to_string(), last: String::new() });
        }
        Ok(depth)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn walk(paths: &[&str]) -> Result<Vec<usize>, String> {
        let mut order = Order::default();
        // A path that ends in a slash is a folder.
        let step = |p: &&str| order.next(p.trim_end_matches('/'), p.ends_with('/'));
        paths.iter().map(step).collect::<Result<_, _>>().map_err(|e| e.to_string())
    }

    #[test]
    fn a_walk_in_order_passes() {
        assert_eq!(walk(&["a/", "a/b/", "a/b/c", "a/d", "a.b", "b/", "c"]), Ok(vec![0, 1, 2, 1, 0, 0, 0]));
    }

    #[test]
    fn anything_else_does_not() {
        for (paths, text) in [
            (vec!["/a"], "absolute path \"/a\""),
            (vec![".."], "escape check"),
            (vec!["a/", "a/../b"], "escape check"),
            (vec!["a/", "a/./b"], "unclean path"),
            (vec!["a/", "a//b"], "unclean path"),
            (vec![""], "unclean path"),
            (vec!["."], "unclean path"),
            (vec!["a\0b"], "unclean path"),
            (vec!["b", "a"], "changes out of order: \"a\" \"b\""),
            (vec!["a", "a"], "changes out of order"),
            (vec!["a/", "a/b", "a/b"], "changes out of order"),
            (vec!["a/b"], "changes out of order"),
            (vec!["a", "a/b"], "changes out of order"),
            (vec!["a/", "b/", "a/c"], "changes out of order"),
        ] {
            let err = walk(&paths).unwrap_err();
            assert!(err.contains(text), "{paths:?}: {err}");
        }
    }

    #[test]
    fn folders_come_before_names_that_only_begin_alike() {
        assert_eq!(compare_paths("a/z", "a.b"), Ordering::Less);
        assert_eq!(compare_paths("a", "a/b"), Ordering::Less);
        assert_eq!(compare_paths("ab", "a/b"), Ordering::Greater);
    }
}
