//! Where results go: `--output type=…` values.

use crate::csv;
use crate::error::{ClientError, errno};
use crate::flags::parse_bool;
use std::collections::BTreeMap;
use std::io::{self, IsTerminal};
use std::path::{Path, PathBuf};

/// One wanted result.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Export {
    /// The exporter's name, as in `image`.
    pub(crate) kind: String,
    pub(crate) attrs: BTreeMap<String, String>,
    pub(crate) to: Destination,
}

/// Who takes a result.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Destination {
    /// The daemon keeps or pushes it.
    Daemon,
    /// This program's standard output.
    Stdout,
    /// A file of this machine.
    File(PathBuf),
    /// A folder of this machine; with what isn't in the result removed, if so asked.
    Folder(PathBuf, Leftovers),
    /// An OCI layout folder of this machine.
    Layout(PathBuf),
}

/// What happens to other files in a folder that takes a result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Leftovers {
    Keep,
    Remove,
}

/// Reads `type=…,key=value`.
///
/// # Errors
/// A form that can't be read, or a destination that doesn't fit the type.
pub(crate) fn parse(text: &str) -> Result<Export, ClientError> {
    let (kind, mut attrs) = csv::typed(text)?;
    if kind.is_empty() {
        return Err(ClientError::invalid("--output requires type=<type>"));
    }
    if let Some(value) = attrs.get("output") {
        return Err(ClientError::invalid(format!(
            "output={value} not supported for --output, you meant dest={value}?"
        )));
    }
    let to = destination(&kind, &attrs).map_err(crate::attrs::about("invalid output option: output"))?;
    if to != Destination::Daemon {
        attrs.remove("dest");
    }
    Ok(Export { kind, attrs, to })
}

fn destination(kind: &str, attrs: &BTreeMap<String, String>) -> Result<Destination, ClientError> {
    let dest = attrs.get("dest").map_or("", String::as_str);
    let layout = attrs.get("tar").and_then(|tar| parse_bool(tar)) == Some(false);
    match kind {
        "local" | "oci" | "docker" if dest.is_empty() && (kind == "local" || layout) => {
            Err(ClientError::invalid(format!("output directory is required for {kind} exporter")))
        }
        "local" => match attrs.get("mode").map_or("", String::as_str) {
            "" | "copy" => Ok(Destination::Folder(dest.into(), Leftovers::Keep)),
            "delete" => Ok(Destination::Folder(dest.into(), Leftovers::Remove)),
            mode => {
                Err(ClientError::invalid(format!("invalid local exporter mode {mode:?}; use copy or delete")))
            }
        },
        "oci" | "docker" if layout => Ok(Destination::Layout(dest.into())),
        "tar" | "oci" | "docker" => file(kind, dest),
        _ if dest.is_empty() => Ok(Destination::Daemon),
        _ => Err(ClientError::invalid(format!("output {dest} is not supported by {kind} exporter"))),
    }
}

fn file(kind: &str, dest: &str) -> Result<Destination, ClientError> {
    if dest.is_empty() || dest == "-" {
        if io::stdout().is_terminal() {
            return Err(ClientError::invalid(format!(
                "output file is required for {kind} exporter. refusing to write to console"
            )));
        }
        return Ok(Destination::Stdout);
    }
    match std::fs::metadata(dest) {
        Ok(found) if found.is_dir() => Err(ClientError::invalid("destination file is a directory")),
        Ok(_) => Ok(Destination::File(dest.into())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => match Path::new(dest).parent() {
            // Found out now rather than after the build.
            Some(folder) if !folder.as_os_str().is_empty() && !folder.is_dir() => {
                Err(ClientError::invalid(format!("open {dest}: no such file or directory")))
            }
            _ => Ok(Destination::File(dest.into())),
        },
        Err(error) => {
            Err(ClientError::invalid(format!("invalid destination file: {dest}: {}", errno(&error))))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_type_has_its_destination() {
        let to = |text: &str| parse(text).unwrap().to;
        assert_eq!(to("type=image,name=a"), Destination::Daemon);
        assert_eq!(to("type=local,dest=out"), Destination::Folder("out".into(), Leftovers::Keep));
        assert_eq!(
            to("type=local,dest=out,mode=delete"),
            Destination::Folder("out".into(), Leftovers::Remove)
        );
        assert_eq!(to("type=oci,dest=/tmp/x.tar"), Destination::File("/tmp/x.tar".into()));
        assert_eq!(to("type=oci,tar=false,dest=d"), Destination::Layout("d".into()));
        assert_eq!(to("type=tar,dest=x,".trim_end_matches(',')), Destination::File("x".into()));
        let export = parse(r#"type=image,"name=a,b",Push=true"#).unwrap();
        assert_eq!(
            export.attrs,
            BTreeMap::from([("name".into(), "a,b".into()), ("push".into(), "true".into())])
        );
        assert!(!parse("type=local,dest=out").unwrap().attrs.contains_key("dest"));
    }

    #[test]
    fn mistakes_are_told() {
        let told = |text: &str| parse(text).unwrap_err().to_string();
        assert_eq!(told("local"), "invalid value local");
        assert_eq!(told("dest=x"), "--output requires type=<type>");
        assert_eq!(
            told("type=local"),
            "invalid output option: output: output directory is required for local exporter"
        );
        assert_eq!(
            told("type=oci,tar=false"),
            "invalid output option: output: output directory is required for oci exporter"
        );
        assert_eq!(
            told("type=image,dest=x"),
            "invalid output option: output: output x is not supported by image exporter"
        );
        assert_eq!(
            told("type=tar,dest=/tmp"),
            "invalid output option: output: destination file is a directory"
        );
        assert_eq!(told("type=tar,output=x"), "output=x not supported for --output, you meant dest=x?");
    }
}
