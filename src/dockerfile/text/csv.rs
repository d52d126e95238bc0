//! One record of comma-separated values, as flags and options hold them.

/// The fields of a record. `"…"` keeps commas, `""` in it is one quote. Errors are the texts that Go programs have.
pub fn fields(record: &str) -> Result<Vec<String>, String> {
    let mut all = Vec::new();
    let record = record.strip_suffix('\n').map_or(record, |line| line.strip_suffix('\r').unwrap_or(line));
    if record.is_empty() {
        return Err("EOF".to_owned());
    }
    let wrong = |tail: usize| {
        let column = record.len() - tail + 1;
        format!("parse error on line 1, column {column}: extraneous or missing \" in quoted-field")
    };
    let mut rest = record;
    loop {
        let Some(quoted) = rest.strip_prefix('"') else {
            let (field, tail) = match rest.split_once(',') {
                Some((field, tail)) => (field, Some(tail)),
                None => (rest, None),
            };
            if let Some(quote) = field.find('"') {
                let column = record.len() - rest.len() + quote + 1;
                return Err(format!("parse error on line 1, column {column}: bare \" in non-quoted-field"));
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
                return Err(wrong(inside.len()));
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
                None => return Err(wrong(tail.len() + 1)),
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
        assert_eq!(fields("a,b\r\n").unwrap(), ["a", "b"]);
        let at = |column, what: &str| format!("parse error on line 1, column {column}: {what}");
        for (record, why) in [
            ("", "EOF".to_owned()),
            ("a,b\"c", at(4, "bare \" in non-quoted-field")),
            ("a,\"b", at(4, "extraneous or missing \" in quoted-field")),
            ("\"a\"b", at(3, "extraneous or missing \" in quoted-field")),
        ] {
            assert_eq!(fields(record).unwrap_err(), why, "{record}");
        }
    }
}
