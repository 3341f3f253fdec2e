//! A host with two addresses, of which the first swallows packets.

use crate::servers::Server;
use crate::sessions::{REQWEST, UREQ, child, has_namespaces, is_child, options};
use core::time::Duration;
use std::net::{TcpListener, TcpStream, ToSocketAddrs as _};

/// In a network of its own: `two.test` has two addresses, and queues of connections that wait to be accepted are short.
const SCRIPT: &str = "
set -e
ip link set lo up
echo 1 > /proc/sys/net/core/somaxconn
hosts=$(mktemp)
printf '::1 two.test\n127.0.0.1 two.test\n' > $hosts
mount --bind $hosts /etc/hosts
rm $hosts
exec \"$0\" \"$@\"
";

/// A listener whose queue is full: it swallows packets.
fn swallowing() -> (TcpListener, Vec<TcpStream>) {
    let listener = TcpListener::bind("[::1]:0").expect("a port");
    let address = listener.local_addr().expect("an address");
    let timeout = Duration::from_millis(300);
    let mut waiting = Vec::new();
    while let Ok(stream) = TcpStream::connect_timeout(&address, timeout) {
        waiting.push(stream);
        assert!(waiting.len() < 1000, "the queue has no end");
    }
    (listener, waiting)
}

#[test]
fn a_first_address_that_swallows_packets_leaves_time_for_the_second() {
    if is_child() {
        let addresses: Vec<_> = ("two.test", 1).to_socket_addrs().expect("two").collect();
        assert!(
            addresses[0].is_ipv6() && addresses[1].is_ipv4(),
            "{addresses:?}"
        );
        for (name, start) in UREQ.into_iter().chain(REQWEST) {
            let (swallowing, _waiting) = swallowing();
            let port = swallowing.local_addr().expect("an address").port();
            let server = Server::on(&format!("127.0.0.1:{port}"), |asked| {
                asked.read_body();
                asked.say("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n");
                true
            });
            let mut options = options();
            // The first attempt delivers, or none does.
            options.max_retries = 0;
            options.http_timeout = Duration::from_secs(2);
            let session = start(&format!("http://two.test:{port}"), options);
            assert!(session.drain().all_delivered(), "{name}");
            assert_eq!(server.requests(), 1, "{name}");
        }
        println!("done in a network of its own");
        return;
    }
    if !has_namespaces() {
        return;
    }
    let own_network = [
        "unshare",
        "--map-root-user",
        "--net",
        "--mount",
        "sh",
        "-c",
        SCRIPT,
    ];
    let name = "addresses::a_first_address_that_swallows_packets_leaves_time_for_the_second";
    let printed = child(&own_network, name, &[]);
    assert!(
        printed.contains("done in a network of its own"),
        "{printed}"
    );
}
