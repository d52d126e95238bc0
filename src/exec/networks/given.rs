//! What one process gets of networks.

use std::{fs, path::Path, sync::Arc};

use crosskit_proxynet::Proxy;

use super::{Lease, proxied::Proxied};
use crate::{Result, usage::Interfaces};

/// The network of one process.
#[derive(Debug)]
pub(crate) enum Given {
    /// That of its mode: this machine's, or a new one without interfaces.
    Plain,
    /// A furnished one.
    Lent(Box<Lease>),
    /// None but its proxy.
    Proxied(Box<Proxied>),
}

impl Given {
    /// The file of a namespace that it has to join.
    pub(crate) fn path(&self) -> Option<&Path> {
        match self {
            Given::Plain => None,
            Given::Lent(lease) => Some(lease.path()),
            Given::Proxied(proxied) => Some(proxied.path()),
        }
    }

    /// This file, open.
    pub(crate) fn open(&self) -> Result<Option<Arc<fs::File>>> {
        match self {
            Given::Plain => Ok(None),
            Given::Lent(lease) => lease.open().map(Some),
            Given::Proxied(proxied) => proxied.open().map(Some),
        }
    }

    /// The counters of the interfaces that are the process's alone. Those behind a proxy are not its own.
    pub(crate) fn interfaces(&self) -> Option<Interfaces> {
        match self {
            Given::Lent(lease) => lease.interfaces().cloned(),
            _ => None,
        }
    }

    /// The proxy, where there is one.
    pub(crate) fn proxy(&self) -> Option<&Proxy> {
        match self {
            Given::Proxied(proxied) => Some(proxied.proxy()),
            _ => None,
        }
    }

    /// Gives it back. Nothing of the process may run any more.
    pub(crate) async fn end(self) {
        if let Given::Proxied(proxied) = self {
            proxied.end().await;
        }
    }
}
