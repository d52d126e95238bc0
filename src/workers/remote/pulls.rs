//! Whether a worker gets on with the images that it pulls.

use crosskit_api::control::StatusResponse;
use std::collections::{HashMap, HashSet};
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::Instant;

/// How long a pull may show no progress before the image is sent from here.
pub(super) const PATIENCE: Duration = Duration::from_secs(30);

/// What people are told of a layer that is being unpacked begins so, at BuildKit's as at ours. How far it is nobody
/// tells.
const UNPACKING: &str = "extracting";

/// The pulls of a build, as its reports tell of them.
pub(super) struct Pulls {
    /// The vertices that pull.
    vertices: HashSet<String>,
    running: HashSet<String>,
    /// How far each thing is, and whether it is done.
    parts: HashMap<(String, String), (i64, bool)>,
    /// When patience ends; none while nothing is pulled.
    end: watch::Sender<Option<Instant>>,
}

impl Pulls {
    /// In these vertices. What is returned besides is for [`stalled`].
    pub(super) fn new(vertices: HashSet<String>) -> (Pulls, watch::Receiver<Option<Instant>>) {
        let (end, stall) = watch::channel(None);
        let (running, parts) = Default::default();
        (Pulls { vertices, running, parts, end }, stall)
    }

    /// Takes a report in.
    pub(super) fn note(&mut self, report: &StatusResponse) {
        let mut news = false;
        for vertex in report.vertexes.iter().filter(|vertex| self.vertices.contains(&vertex.digest)) {
            news |= match vertex.started.is_some() && vertex.completed.is_none() {
                true => self.running.insert(vertex.digest.clone()),
                false => self.running.remove(&vertex.digest),
            };
        }
        for status in report.statuses.iter().filter(|status| self.vertices.contains(&status.vertex)) {
            let now = (status.current, status.completed.is_some());
            let key = (status.vertex.clone(), status.id.clone());
            news |= self.parts.insert(key, now) != Some(now);
        }
        let unpacks =
            |((_, id), (_, done)): (&(String, String), &(i64, bool))| id.starts_with(UNPACKING) && !done;
        if self.running.is_empty() || self.parts.iter().any(unpacks) {
            self.end.send_replace(None);
        } else if news {
            self.end.send_replace(Some(Instant::now() + PATIENCE));
        }
    }
}

/// Waits until a pull has shown no progress for too long; forever if none does.
pub(super) async fn stalled(mut stall: watch::Receiver<Option<Instant>>) {
    loop {
        let end = *stall.borrow_and_update();
        let over = async {
            match end {
                Some(end) => tokio::time::sleep_until(end).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = over => return,
            changed = stall.changed() => {
                if changed.is_err() {
                    std::future::pending::<()>().await;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crosskit_api::control::{Vertex, VertexStatus};

    fn vertex(done: bool) -> StatusResponse {
        let time = Some(prost_types::Timestamp::default());
        let vertex = Vertex {
            digest: "pull".into(),
            started: time,
            completed: time.filter(|_| done),
            ..Vertex::default()
        };
        StatusResponse { vertexes: vec![vertex], ..StatusResponse::default() }
    }

    fn part(id: &str, current: i64) -> StatusResponse {
        let status =
            VertexStatus { vertex: "pull".into(), id: id.into(), current, ..VertexStatus::default() };
        StatusResponse { statuses: vec![status], ..StatusResponse::default() }
    }

    #[tokio::test(start_paused = true)]
    async fn a_pull_stalls_when_it_gets_no_further_and_is_not_unpacking() {
        let (mut pulls, stall) = Pulls::new(HashSet::from(["pull".to_string()]));
        let stalls = async || tokio::time::timeout(PATIENCE * 3, stalled(stall.clone())).await.is_ok();
        assert!(!stalls().await);
        pulls.note(&vertex(false));
        let begun = Instant::now();
        assert!(stalls().await);
        assert_eq!(begun.elapsed().as_secs(), PATIENCE.as_secs());
        // Each byte is a sign of life, and the same report again is none.
        pulls.note(&part("sha256:ab", 5));
        let begun = Instant::now();
        tokio::time::sleep(PATIENCE / 2).await;
        pulls.note(&part("sha256:ab", 5));
        assert!(stalls().await);
        assert_eq!(begun.elapsed().as_secs(), PATIENCE.as_secs());
        pulls.note(&part("extracting sha256:ab", 0));
        assert!(!stalls().await);
        pulls.note(&vertex(true));
        assert!(!stalls().await);
    }
}
