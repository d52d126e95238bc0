//! Snapshots made of others: merges and differences.

use crate::node::{Node, Parents};
use crate::record::{Origin, Record};
use crate::{About, Ref, Result, Snapshots, ids};
use std::sync::Arc;

impl Snapshots {
    /// Snapshots one over the other, the last on top: their layers in this order. Costs nothing
    /// until it is mounted, and then only the mount.
    pub fn merge(&self, parents: &[Ref], about: About) -> Result<Option<Ref>> {
        match parents {
            [] => Ok(None),
            [only] => Ok(Some(only.clone())),
            _ => {
                let origin = Origin::Merge { parents: parents.iter().map(|p| p.id().to_string()).collect() };
                let nodes = parents.iter().map(|p| p.node().clone()).collect();
                self.join(Parents::Merge(nodes), origin, about).map(Some)
            }
        }
    }

    /// What `upper` has over `lower`: its last layer if it was made from it, else a layer with
    /// what differs, removals included, which is made when it is needed.
    pub fn diff(&self, lower: Option<&Ref>, upper: Option<&Ref>, about: About) -> Result<Ref> {
        let id = |side: Option<&Ref>| side.map(|r| r.id().to_string());
        let node = |side: Option<&Ref>| side.map(|r| r.node().clone());
        let origin = Origin::Diff { lower: id(lower), upper: id(upper) };
        self.join(Parents::Diff { lower: node(lower), upper: node(upper) }, origin, about)
    }

    fn join(&self, parents: Parents, origin: Origin, about: About) -> Result<Ref> {
        let node: Arc<Node> = self.0.enter(ids::new_id(), parents, Record::new(origin, about))?;
        Ok(Ref::new(node))
    }
}
