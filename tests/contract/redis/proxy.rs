//! Stands between a worker and its server, and loses what it is told to lose.

use crate::harness::redis::Server;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex};

/// A proxy to one server.
pub struct Proxy {
    port: u16,
    state: Arc<State>,
}

#[derive(Default)]
struct State {
    orders: Mutex<Orders>,
    changed: Condvar,
}

#[derive(Default)]
struct Orders {
    /// A connection ends at the first answer on it.
    cut: bool,
    /// Connections up to this number are not heard by the server.
    held: usize,
    /// How many there were.
    count: usize,
    /// What the server answered on held connections since they were let go.
    late: Vec<u8>,
    /// The connections there were.
    clients: Vec<TcpStream>,
}

impl Proxy {
    /// In front of `server`.
    pub fn start(server: &Server) -> Proxy {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let target = server.port();
        let state = Arc::new(State::default());
        let shared = state.clone();
        std::thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                let Ok(server) = TcpStream::connect(("127.0.0.1", target)) else { continue };
                let number = {
                    let mut orders = shared.orders.lock().unwrap();
                    orders.count += 1;
                    orders.clients.push(client.try_clone().unwrap());
                    orders.count
                };
                let (asks, answers) = (shared.clone(), shared.clone());
                let (from, to) = (client.try_clone().unwrap(), server.try_clone().unwrap());
                std::thread::spawn(move || asks.requests(number, from, to));
                std::thread::spawn(move || answers.answers(number, server, client));
            }
        });
        Proxy { port, state }
    }

    /// Its address, as if it were the server.
    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}/0", self.port)
    }

    /// From now on a connection ends before the first answer on it, or not any more.
    pub fn cut(&self, cut: bool) {
        self.state.orders.lock().unwrap().cut = cut;
    }

    /// All connections end now.
    pub fn end(&self) {
        for client in self.state.orders.lock().unwrap().clients.drain(..) {
            let _ = client.shutdown(Shutdown::Both);
        }
    }

    /// What is asked on the connections there are stays on its way; on later ones it does not.
    pub fn hold(&self) {
        let mut orders = self.state.orders.lock().unwrap();
        orders.held = orders.count;
    }

    /// What was held arrives at last.
    pub fn let_go(&self) {
        self.state.orders.lock().unwrap().held = 0;
        self.state.changed.notify_all();
    }

    /// What the server has answered to what came late.
    pub fn late(&self) -> String {
        String::from_utf8_lossy(&self.state.orders.lock().unwrap().late).into_owned()
    }
}

impl State {
    fn requests(&self, number: usize, mut client: TcpStream, mut server: TcpStream) {
        let mut bytes = [0; 65536];
        let mut was_held = false;
        while let Ok(count) = client.read(&mut bytes) {
            let mut orders = self.orders.lock().unwrap();
            while orders.held >= number {
                was_held = true;
                orders = self.changed.wait(orders).unwrap();
            }
            drop(orders);
            if count == 0 || server.write_all(&bytes[..count]).is_err() {
                break;
            }
        }
        // The answer to what was late is still of interest.
        let how = if was_held { Shutdown::Write } else { Shutdown::Both };
        let _ = server.shutdown(how);
    }

    fn answers(&self, number: usize, mut server: TcpStream, mut client: TcpStream) {
        let mut bytes = [0; 65536];
        while let Ok(count) = server.read(&mut bytes) {
            let mut orders = self.orders.lock().unwrap();
            if count == 0 || orders.cut {
                break;
            }
            orders.late.extend_from_slice(&bytes[..count]);
            let keep = orders.late.len().saturating_sub(10_000);
            orders.late.drain(..keep);
            drop(orders);
            let _ = number;
            // The client may have given up.
            let _ = client.write_all(&bytes[..count]);
        }
        let _ = client.shutdown(Shutdown::Both);
        let _ = server.shutdown(Shutdown::Both);
    }
}
