//! Older habits of BuildKit that a build may ask for, so that its results stay what they were.

use crosskit_api::control::SolveRequest;
use crosskit_gateway::GatewayError;

/// The versions that there are (BuildKit `solver/llbsolver/compat`): 0.13, 0.15, and the current one since 0.31.
const KNOWN: [u32; 3] = [10, 20, 30];

/// The version that a build asks for, or the current one.
///
/// # Errors
/// A version that there is none of.
pub fn version(request: &SolveRequest) -> Result<u32, GatewayError> {
    let [.., current] = KNOWN;
    let asked = request.compatibility_version;
    match u32::try_from(asked) {
        Ok(0) => Ok(current),
        Ok(version) if KNOWN.contains(&version) => Ok(version),
        _ if asked > i64::from(current) => Err(GatewayError::invalid(format!(
            "unsupported compatibility-version {asked}: upgrade buildkit (max supported: {current})"
        ))),
        _ => {
            let known = KNOWN.map(|version| version.to_string()).join(" ");
            Err(GatewayError::invalid(format!(
                "unsupported compatibility-version {asked} (supported: [{known}])"
            )))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_that_there_are_none_of_are_refused() {
        let asked = |compatibility_version| {
            version(&SolveRequest { compatibility_version, ..SolveRequest::default() })
                .map_err(|error| error.to_string())
        };
        assert_eq!((asked(0), asked(10), asked(30)), (Ok(30), Ok(10), Ok(30)));
        assert!(asked(40).unwrap_err().contains("upgrade buildkit (max supported: 30)"));
        assert!(asked(15).unwrap_err().contains("(supported: [10 20 30])"));
        assert!(asked(-1).is_err());
    }
}
