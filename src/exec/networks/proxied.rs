//! Steps behind a proxy: a namespace with nothing but a loopback interface, a proxy that answers there, and the way that
//! its requests leave by.

use std::{
    fs, io,
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
    sync::Arc,
};

use crosskit_proxynet::{Dial, Outside, Proxy, Rules, Trust};
use futures::future::{BoxFuture, FutureExt};
use tokio::net::{TcpSocket, TcpStream};

use super::{Lease, blocking, namespaces, setup};
use crate::{ExtraHost, Result, bundle::new_id, error::file_error};

/// Where the proxy of a step answers, in the step's namespace; the kernel chooses the port.
const ADDRESS: &str = "127.0.0.1:0";

/// A step's namespace and its proxy.
#[derive(Debug)]
pub(crate) struct Proxied {
    proxy: Proxy,
    namespace: Namespace,
    /// What requests leave by; None for this machine's network.
    _way: Option<Lease>,
}

/// A namespace of one step; it goes when this is dropped.
#[derive(Debug)]
struct Namespace(PathBuf);

impl Drop for Namespace {
    fn drop(&mut self) {
        if let Err(error) = namespaces::remove(&self.0) {
            tracing::warn!(path = %self.0.display(), %error, "a network namespace could not be removed");
        }
    }
}

impl Proxied {
    /// Makes a namespace, and starts the proxy in it. `way` is the network that requests leave by, None for this
    /// machine's; `hosts` are names that the step was given.
    pub(crate) async fn start(
        folder: PathBuf,
        way: Option<Lease>,
        hosts: Vec<ExtraHost>,
        trust: Trust,
        rules: Rules,
    ) -> Result<Self> {
        let path = folder.join(new_id());
        let made = blocking(move || {
            namespaces::make(&path).map_err(file_error("making the namespace", &path))?;
            let namespace = Namespace(path);
            let file = open(&namespace.0)?;
            let listen = move || std::net::TcpListener::bind(ADDRESS);
            let heard = namespaces::within(file, listen);
            let listener =
                heard.map_err(|e| setup("listening for a step in", &namespace.0, e.to_string()))?;
            Ok((namespace, listener))
        });
        let (namespace, listener) = made.await?;
        let entered = way.as_ref().map(Lease::open).transpose()?;
        let outside = Outside { dial: Arc::new(Way { entered, hosts }), trust };
        let proxy = Proxy::start(listener, outside, rules)
            .map_err(|e| setup("starting the proxy of", &namespace.0, e.to_string()))?;
        Ok(Self { proxy, namespace, _way: way })
    }

    /// The file that stands for the namespace.
    pub(crate) fn path(&self) -> &Path {
        &self.namespace.0
    }

    /// This file, open.
    pub(crate) fn open(&self) -> Result<Arc<fs::File>> {
        open(self.path())
    }

    /// The proxy.
    pub(crate) fn proxy(&self) -> &Proxy {
        &self.proxy
    }

    /// Ends the proxy; then the namespace goes.
    pub(crate) async fn end(self) {
        let Self { proxy, namespace, _way } = self;
        proxy.end().await;
        let _ = blocking(move || {
            drop((namespace, _way));
            Ok(())
        })
        .await;
    }
}

fn open(path: &Path) -> Result<Arc<fs::File>> {
    fs::File::open(path).map(Arc::new).map_err(file_error("opening the namespace", path))
}

/// How requests leave.
#[derive(Debug)]
struct Way {
    /// The namespace; None for this machine's network.
    entered: Option<Arc<fs::File>>,
    hosts: Vec<ExtraHost>,
}

impl Dial for Way {
    fn dial(&self, host: String, port: u16) -> BoxFuture<'static, io::Result<TcpStream>> {
        let given: Vec<IpAddr> =
            self.hosts.iter().filter(|h| h.host.eq_ignore_ascii_case(&host)).map(|h| h.ip).collect();
        let entered = self.entered.clone();
        async move {
            // Names are those that this machine knows, where its name servers can be reached.
            let addresses: Vec<SocketAddr> = match given.is_empty() {
                true => tokio::net::lookup_host((host.as_str(), port)).await?.collect(),
                false => given.into_iter().map(|ip| SocketAddr::new(ip, port)).collect(),
            };
            let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
            for address in addresses {
                let connected = match &entered {
                    None => TcpStream::connect(address).await,
                    Some(namespace) => connect_within(Arc::clone(namespace), address).await,
                };
                match connected {
                    Ok(stream) => return Ok(stream),
                    Err(error) => last = error,
                }
            }
            Err(last)
        }
        .boxed()
    }
}

/// Connects from a namespace: a socket belongs to the one that it was made in.
async fn connect_within(namespace: Arc<fs::File>, address: SocketAddr) -> io::Result<TcpStream> {
    let make = move || if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() };
    let making = tokio::task::spawn_blocking(move || namespaces::within(namespace, make));
    making.await.map_err(io::Error::other)??.connect(address).await
}
