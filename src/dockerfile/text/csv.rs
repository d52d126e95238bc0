//! One record of comma-separated values, as flags and options hold them.

/// The fields of a record. `"…"` keeps commas, `""` in it is one quote.
pub fn fields(record: &str) -> Result<Vec<String>, &'static str> {
    let mut all = Vec::new();
    let mut rest = record;
    loop {
        let Some(quoted) = rest.strip_prefix('"') else {
            let (field, tail) = match rest.split_once(',') {
                Some((field, tail)) => (field, Some(tail)),
                None => (rest, None),
            };
            if field.contains('"') {
                return Err("bare \" in non-quoted-field");
            }
            all.push(field.to_owned());
            match tail {
                Some(tail) => rest = tail,
                None => return Ok(all),
            }
            continue;
        };
        let mut field = String::new();
        let mut inside = quoted;
        loop {
            let Some((part, tail)) = inside.split_once('"') else {
                return Err("extraneous or missing \" in quoted-field");
            };
            field.push_str(part);
            if let Some(tail) = tail.strip_prefix('"') {
                field.push('"');
                inside = tail;
                continue;
            }
            all.push(field);
            match tail.strip_prefix(',') {
                Some(tail) => rest = tail,
                None if tail.is_empty() => return Ok(all),
                None => return Err("extraneous or missing \" in quoted-field"),
            }
            break;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_split() {
        assert_eq!(fields("a,b=c,").unwrap(), ["a", "b=c", ""]);
        assert_eq!(fields("\"a,\"\"b\",c").unwrap(), ["a,\"b", "c"]);
        assert!(fields("a\"b").is_err());
        assert!(fields("\"a").is_err());
        assert!(fields("\"a\"b").is_err());
    }
}
