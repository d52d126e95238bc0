//! The `--device` flag of `RUN`.

use crate::error::{DockerfileError, Result};
use crate::text::csv;
use crate::text::units::go_bool;

/// A device that a step gets.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DeviceFlag {
    /// A full name, a kind, or a class.
    pub name: String,
    /// Whether the step fails without it.
    pub required: bool,
}

impl DeviceFlag {
    /// Reads a flag's value: a name, also behind `name=`, and `required`.
    ///
    /// # Errors
    /// A field that is none.
    pub fn parse(value: &str) -> Result<DeviceFlag> {
        let fail = |message: String| Err(DockerfileError::user(message));
        let fields = csv::fields(value)
            .map_err(|error| DockerfileError::user(format!("failed to parse csv devices: {error}")))?;
        let mut device = DeviceFlag::default();
        for field in fields {
            let (key, value) = match field.split_once('=') {
                Some((key, value)) => (key.to_lowercase(), Some(value)),
                None => (field.to_lowercase(), None),
            };
            match (key.as_str(), value) {
                ("required", None) => device.required = true,
                ("required", Some(value)) => {
                    device.required = match go_bool(value) {
                        Some(required) => required,
                        None => return fail(format!("invalid value for {key}: {value}")),
                    }
                }
                ("name", Some(_)) if !device.name.is_empty() => {
                    return fail(format!("device name already set to {}", device.name));
                }
                ("name", Some(value)) => value.clone_into(&mut device.name),
                // A full name has a `=` of its own.
                _ if device.name.is_empty() => device.name = field,
                (_, None) => return fail(format!("invalid field '{field}' must be a key=value pair")),
                (_, Some(_)) => {
                    let error = DockerfileError::user(format!("unexpected key '{key}' in '{field}'"));
                    return Err(error.suggest(&key, ["name", "required"]));
                }
            }
        }
        Ok(device)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_stands_alone_or_behind_its_key() {
        let parse = |text| DeviceFlag::parse(text).map(|d| (d.name, d.required)).map_err(|e| e.to_string());
        assert_eq!(parse("acme.com/gpu=a,required"), Ok(("acme.com/gpu=a".into(), true)));
        assert_eq!(parse("name=acme.com/gpu=a,required=false"), Ok(("acme.com/gpu=a".into(), false)));
        assert_eq!(parse("class1"), Ok(("class1".into(), false)));
        assert!(parse("a,name=b").unwrap_err().contains("device name already set to a"));
        assert!(parse("a,b").unwrap_err().contains("invalid field 'b' must be a key=value pair"));
        assert!(parse("a,requird=1").unwrap_err().contains("unexpected key 'requird' in 'requird=1'"));
        assert!(parse("a,required=maybe").unwrap_err().contains("invalid value for required: maybe"));
    }
}
