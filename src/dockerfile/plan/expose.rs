//! EXPOSE.

use std::net::IpAddr;

use crate::error::{DockerfileError, Result};
use crate::image::Empty;
use crate::lint::rules;
use crate::plan::Plan;
use crate::plan::dispatch::At;
use crate::text::quote::go_quote;

fn fail<T>(message: String) -> Result<T> {
    Err(DockerfileError::user(message))
}

impl Plan {
    pub(super) fn expose(&mut self, at: &At<'_>, ports: &[String]) -> Result<()> {
        let mut exposed = Vec::new();
        let mut specs = Vec::with_capacity(ports.len());
        for port in ports {
            specs.extend(self.lexer.words(port, &self.stages[at.stage].fs.env)?);
        }
        for spec in specs {
            self.expose_port(at, &spec, &mut exposed)?;
        }
        let said = format!("EXPOSE [{}]", exposed.join(" "));
        let ports = exposed.into_iter().map(|port| (port, Empty));
        self.image_mut(at.stage).config.exposed_ports.extend(ports);
        self.commit(at.stage, said, false);
        Ok(())
    }

    /// Reads `[[ip:]host:]port[-port][/protocol]`.
    fn expose_port(&self, at: &At<'_>, spec: &str, exposed: &mut Vec<String>) -> Result<()> {
        let mut parts = spec.rsplitn(3, ':');
        let container = parts.next().unwrap_or_default();
        let host = parts.next().unwrap_or_default();
        let ip = parts.next().unwrap_or_default();
        let invalid = |why: String| fail(format!("invalid port: {}: {why}", go_quote(spec)));
        let (container, protocol) = container.split_once('/').unwrap_or((container, ""));
        if container.is_empty() {
            return invalid("no port specified".to_owned());
        }
        let lower = match protocol.to_lowercase() {
            empty if empty.is_empty() => "tcp".to_owned(),
            known if matches!(known.as_str(), "tcp" | "udp" | "sctp") => known,
            _ => return invalid(format!("invalid proto: {protocol}")),
        };
        if protocol != protocol.to_lowercase() {
            at.lint.warn(&rules::EXPOSE_PROTO_CASING, at.lines(), rules::expose_proto_casing(spec));
        }
        if !ip.is_empty() || !host.is_empty() {
            at.lint.warn(&rules::EXPOSE_INVALID_FORMAT, at.lines(), rules::expose_invalid_format(spec));
        }
        let bare = match ip.strip_prefix('[').map(|inside| inside.split_once(']')) {
            None => ip,
            Some(Some((inside, ""))) => inside,
            Some(other) => {
                let wrong =
                    if other.is_none() { "missing ']' in address" } else { "missing port in address" };
                return fail(format!("invalid IP address {ip}: address {ip}:: {wrong}"));
            }
        };
        if !bare.is_empty() && bare.parse::<IpAddr>().is_err() {
            return fail(format!("invalid IP address: {bare}"));
        }
        let Some((first, last)) = range(container) else {
            return fail(format!("invalid containerPort: {container}"));
        };
        if !host.is_empty() {
            let Some((host_first, host_last)) = range(host) else {
                return fail(format!("invalid hostPort: {host}"));
            };
            if last - first != host_last - host_first && first != last {
                return fail(format!(
                    "invalid ranges specified for container and host Ports: {container} and {host}"
                ));
            }
        }
        exposed.extend((first..=last).map(|port| format!("{port}/{lower}")));
        Ok(())
    }
}

/// A port, or the first and last of a range.
fn range(text: &str) -> Option<(u16, u16)> {
    let port = |text: &str| text.strip_prefix('+').unwrap_or(text).parse::<u16>().ok();
    match text.split_once('-') {
        None => port(text).map(|port| (port, port)),
        Some((first, last)) => {
            let (first, last) = (port(first)?, port(last)?);
            (first <= last).then_some((first, last))
        }
    }
}
