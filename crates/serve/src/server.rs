//! Listens, answers connections, and stops.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{sleep, timeout};

use crate::app::App;
use crate::error::{Error, Result};
use crate::routes::router;
use crate::timed_io::TimedIo;
use crate::{Models, Options};

/// Time in which the head of a request must arrive, also on a connection that is kept.
const HEAD_TIME: Duration = Duration::from_secs(15);
/// Bytes of the head of a request.
const MAX_HEAD: usize = 64 << 10;
/// Time after which a reader that takes nothing is disconnected.
const WRITE_TIME: Duration = Duration::from_secs(30);
/// Connections beyond those of `max_clients`: pages, metrics, refusals and silent ones.
const MORE_CONNECTIONS: usize = 128;
/// Time that answers have to finish when the server stops.
const GRACE: Duration = Duration::from_secs(10);
/// Threads that read requests. Each keeps the memory of the largest text that it has tokenized.
const READERS: usize = 2;
/// Time between two looks at signals and failures.
const TICK: Duration = Duration::from_millis(100);

/// A socket that listens.
#[derive(Debug)]
pub struct Listener {
    socket: TcpListener,
    is_local: bool,
}

impl Listener {
    /// Listens at a host and port; port 0 is any free one. A host beyond this machine needs a key.
    pub fn bind(host: &str, port: u16, has_key: bool) -> Result<Self> {
        let addresses: Vec<SocketAddr> = match host.parse::<IpAddr>() {
            Ok(address) => vec![(address, port).into()],
            // No name server is asked.
            Err(_) if host.eq_ignore_ascii_case("localhost") => {
                vec![(Ipv4Addr::LOCALHOST, port).into()]
            }
            Err(_) => return Err(Error::UnknownHost { host: host.to_owned() }),
        };
        let is_local = addresses.iter().all(|address| address.ip().is_loopback());
        if !is_local && !has_key {
            return Err(Error::NoKey { host: host.to_owned() });
        }
        let failed = |source| Error::Listen { host: host.to_owned(), port, source };
        let socket = TcpListener::bind(addresses.as_slice()).map_err(failed)?;
        socket.set_nonblocking(true).map_err(failed)?;
        Ok(Self { socket, is_local })
    }

    /// The address that it listens at.
    pub fn address(&self) -> Result<SocketAddr> {
        self.socket.local_addr().map_err(|source| Error::Runtime { source })
    }
}

/// Serves the models until `is_stopping` is true; answers then have some seconds to finish.
pub fn run(
    listener: Listener,
    models: Models,
    options: Options,
    is_stopping: &dyn Fn() -> bool,
) -> Result<()> {
    let app = Arc::new(App::start(models, options, listener.is_local)?);
    let failed = |source| Error::Runtime { source };
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = runtime.enable_all().max_blocking_threads(READERS).build().map_err(failed)?;
    let outcome = runtime.block_on(serve(listener.socket, &app, is_stopping));
    // Requests that are still being answered are dropped, and their completions given up.
    runtime.shutdown_timeout(TICK);
    outcome
}

async fn serve(socket: TcpListener, app: &Arc<App>, is_stopping: &dyn Fn() -> bool) -> Result<()> {
    let socket = tokio::net::TcpListener::from_std(socket);
    let socket = socket.map_err(|source| Error::Runtime { source })?;
    let router = router(Arc::clone(app));
    let open = Arc::new(Semaphore::new(app.options.max_clients + MORE_CONNECTIONS));
    let graceful = GracefulShutdown::new();
    while !is_stopping() {
        if let Some(failure) = app.failure() {
            // Clients get the error before their connection ends.
            let _ = timeout(GRACE, graceful.shutdown()).await;
            return Err(failure);
        }
        let Ok(Ok(place)) = timeout(TICK, Arc::clone(&open).acquire_owned()).await else {
            continue;
        };
        match timeout(TICK, socket.accept()).await {
            Ok(Ok((connection, _))) => {
                // Without it, small parts of a stream are delayed.
                let _ = connection.set_nodelay(true);
                tokio::spawn(converse(connection, router.clone(), graceful.watcher(), place));
            }
            // Too many open files, or a connection that ended at once.
            Ok(Err(_)) => sleep(TICK).await,
            Err(_) => {}
        }
    }
    app.stop();
    drop(socket);
    let _ = timeout(GRACE, graceful.shutdown()).await;
    Ok(())
}

/// Answers the requests of a connection.
async fn converse(
    connection: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    router: Router,
    watcher: Watcher,
    place: OwnedSemaphorePermit,
) {
    let io = TokioIo::new(TimedIo::new(connection, WRITE_TIME));
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIME)
        .max_buf_size(MAX_HEAD)
        .serve_connection(io, TowerToHyperService::new(router));
    // A client that disconnects or sends no HTTP is no failure of the server.
    let _ = watcher.watch(connection).await;
    drop(place);
}
