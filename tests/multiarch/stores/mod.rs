//! Stores that caches are kept in: Amazon's and Azure's as others have rebuilt them, and GitHub's as its
//! protocol is known. Each stands behind a server of our own, which writes down what is asked of it.

mod azurite;
mod endless;
mod github;
mod moto;
mod served;

pub use azurite::AzureStore;
pub use endless::Endless;
pub use github::GithubStore;
pub use moto::S3Store;
pub use served::{Asked, Served};

use crate::http::{Response, request};
use crate::running::Running;
use crate::wait::until;
use std::process::Command;
use std::time::Duration;

/// How often another port is tried when somebody was quicker to take the one that was free.
const PORT_TRIES: usize = 5;

/// How long a store may take until it answers: it is somebody's interpreter that reads all of its files first.
const START_LIMIT: Duration = Duration::from_secs(120);

/// Starts a server on a free port; gives its address.
fn start(what: &str, mut command: impl FnMut(u16) -> Command) -> (String, Running) {
    for _ in 0..PORT_TRIES {
        let port = crate::registry::free_port();
        let address = format!("127.0.0.1:{port}");
        let mut server = Running::start(&mut command(port));
        let up = until(what, START_LIMIT, || {
            if server.has_ended() {
                return Some(false);
            }
            request(&address, "GET", "/", &[], b"").is_ok().then_some(true)
        });
        if up {
            return (address, server);
        }
        let said = server.said().to_lowercase();
        assert!(said.contains("in use"), "{what} ended:\n{said}");
    }
    panic!("no free port for {what} in {PORT_TRIES} tries");
}

/// A server of our own before another one.
pub(crate) fn before(address: &str) -> Served {
    let address = address.to_owned();
    Served::start(move |asked| {
        let own = ["host", "content-length", "connection", "transfer-encoding", "expect"];
        let headers: Vec<(&str, &str)> = asked
            .headers
            .iter()
            .filter(|(name, _)| !own.contains(&name.as_str()))
            .map(|(name, value)| (name.as_str(), value.as_str()))
            .collect();
        let answer = request(&address, &asked.method, &asked.path, &headers, &asked.body);
        answer.unwrap_or_else(|error| Response {
            status: 502,
            headers: Vec::new(),
            body: error.to_string().into_bytes(),
        })
    })
}
