//! A loopback TCP server with one thread per connection. Dropping it ends all connections.

use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};

/// The connections to one listener.
pub(crate) struct Connections {
    addr: SocketAddr,
    open: Arc<Mutex<Open>>,
    acceptor: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Open {
    /// Second handles to the connections, because they must be shut down, not only dropped.
    streams: Vec<TcpStream>,
    workers: Vec<JoinHandle<()>>,
    stopped: bool,
}

impl Connections {
    /// Calls `serve` for each connection.
    pub(crate) fn serve(listener: TcpListener, serve: impl Fn(&TcpStream) + Send + Sync + 'static) -> Self {
        let addr = listener.local_addr().expect("a bound socket");
        let open = Arc::<Mutex<Open>>::default();
        let for_acceptor = Arc::clone(&open);
        let acceptor = thread::spawn(move || accept(&listener, &for_acceptor, &Arc::new(serve)));
        Self { addr, open, acceptor: Some(acceptor) }
    }

    /// Address of the listener.
    pub(crate) fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Closes all open connections. New ones are still accepted.
    pub(crate) fn hang_up(&self) {
        lock(&self.open).hang_up();
    }
}

impl Drop for Connections {
    fn drop(&mut self) {
        {
            let mut open = lock(&self.open);
            open.stopped = true;
            open.hang_up();
        }
        // Wakes the acceptor, which then sees `stopped`.
        let _ = TcpStream::connect(self.addr);
        if let Some(acceptor) = self.acceptor.take() {
            let _ = acceptor.join();
        }
        let workers = std::mem::take(&mut lock(&self.open).workers);
        for worker in workers {
            let _ = worker.join();
        }
    }
}

impl Open {
    fn hang_up(&mut self) {
        for stream in self.streams.drain(..) {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}

fn accept(listener: &TcpListener, open: &Mutex<Open>, serve: &Arc<impl Fn(&TcpStream) + Send + Sync + 'static>) {
    while let Ok((stream, _)) = listener.accept() {
        let mut open = lock(open);
        if open.stopped {
            return;
        }
        let Ok(to_close) = stream.try_clone() else { continue };
        open.streams.push(to_close);
        let serve = Arc::clone(serve);
        open.workers.push(thread::spawn(move || {
            let _ = stream.set_nodelay(true);
            serve(&stream);
            let _ = stream.shutdown(Shutdown::Both);
        }));
    }
}

fn lock(open: &Mutex<Open>) -> MutexGuard<'_, Open> {
    open.lock().unwrap_or_else(PoisonError::into_inner)
}
