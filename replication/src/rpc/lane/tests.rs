use bytes::BytesMut;
use proptest::prelude::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use uuid::Uuid;

use super::outbox::{Outbox, Rejected};
use super::wire::{self, Frame, HELLO_BYTES, Hello, Kind};
use super::{MAX_FRAME_BYTES, MAX_OUTBOX_BYTES};
use crate::rpc::handshake::Versions;

const HELLO: Hello =
    Hello { protocol: Versions { lowest: 6, highest: 7 }, cluster: Uuid::from_u128(5), from: 2, to: 9 };

#[tokio::test]
async fn a_hello_and_its_verdict_survive_the_wire() {
    assert_eq!(Hello::decode(&HELLO.encode()), Some(HELLO));
    let mut garbage = HELLO.encode();
    garbage[3] ^= 1;
    assert_eq!(Hello::decode(&garbage), None);
    for verdict in [Ok(()), Err("no, für immer".to_owned())] {
        let bytes = wire::encode_verdict(&verdict);
        assert_eq!(wire::read_verdict(&mut &bytes[..]).await.unwrap(), verdict);
    }
    let long = wire::encode_verdict(&Err("ä".repeat(10_000)));
    let read = wire::read_verdict(&mut &long[..]).await.unwrap().unwrap_err();
    assert!(read.starts_with("äää") && read.len() <= 1024);
}

proptest! {
    #[test]
    fn frames_come_out_as_they_went_in_however_the_bytes_are_cut(
        bodies in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..300), 1..20),
        cut in 1..400_usize,
    ) {
        let mut written = BytesMut::new();
        for (id, body) in bodies.iter().enumerate() {
            wire::put(&mut written, id as u64, Kind::Request, body);
        }
        let (mut read, mut frames) = (BytesMut::new(), Vec::new());
        for piece in written.chunks(cut) {
            read.extend_from_slice(piece);
            while let Some(frame) = wire::take(&mut read).unwrap() {
                frames.push(frame);
            }
        }
        prop_assert!(read.is_empty());
        prop_assert_eq!(frames.len(), bodies.len());
        for (id, (frame, body)) in frames.into_iter().zip(bodies).enumerate() {
            prop_assert_eq!(frame, Frame { id: id as u64, kind: Kind::Request, body: body.into() });
        }
    }

    #[test]
    fn any_bytes_are_frames_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let mut buffer = BytesMut::from(&bytes[..]);
        while let Ok(Some(_)) = wire::take(&mut buffer) {}
    }
}

#[test]
fn an_absurd_length_is_refused_before_it_is_waited_for() {
    let mut buffer = BytesMut::new();
    wire::put(&mut buffer, 1, Kind::Request, &[0; 4]);
    buffer[..4].copy_from_slice(&(MAX_FRAME_BYTES as u32 + 1).to_le_bytes());
    assert!(wire::take(&mut buffer).unwrap_err().contains("exceeds the limit"));
}

/// A socket whose other end reads only when it is told to.
#[tokio::test]
async fn an_outbox_keeps_the_order_and_its_limit_when_the_socket_is_full() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (socket, accepted) =
        tokio::join!(tokio::net::TcpStream::connect(listener.local_addr().unwrap()), listener.accept());
    let (mut peer, _) = accepted.unwrap();
    let (_reader, writer) = socket.unwrap().into_split();
    let outbox = std::sync::Arc::new(Outbox::new(writer));
    let draining = outbox.clone();
    let drain = tokio::spawn(async move { draining.drain().await });

    let body = vec![7; 64 << 10];
    let mut pushed = 0;
    loop {
        match outbox.push(pushed, Kind::Reply, &body) {
            Ok(()) => pushed += 1,
            Err(why) => break assert_eq!(why, Rejected::Full),
        }
        outbox.flush().unwrap();
    }
    assert!(pushed as usize * body.len() >= MAX_OUTBOX_BYTES / 2, "it takes what its limit allows");
    let (mut read, mut next) = (BytesMut::new(), 0);
    while next < pushed {
        peer.read_buf(&mut read).await.unwrap();
        while let Some(frame) = wire::take(&mut read).unwrap() {
            assert_eq!((frame.id, frame.body.len()), (next, body.len()));
            next += 1;
        }
    }
    outbox.push(pushed, Kind::Reply, &[1]).unwrap();
    outbox.flush().unwrap();
    peer.read_buf(&mut read).await.unwrap();
    assert_eq!(wire::take(&mut read).unwrap().unwrap().id, pushed);

    outbox.close();
    assert_eq!(outbox.push(0, Kind::Reply, &[]), Err(Rejected::Closed));
    assert_eq!(peer.read(&mut [0; 8]).await.unwrap(), 0, "the other side sees the end");
    drain.abort();
}

/// What is no hello is closed without a word; what is one, but of no member, is told why.
#[tokio::test]
async fn strangers_are_refused() {
    use crate::rpc::tests::{member, server};
    let (server, address) = server(Default::default()).await;
    let greet = async |hello: &[u8]| {
        let mut socket = tokio::net::TcpStream::connect(&address).await.unwrap();
        socket.write_all(hello).await.unwrap();
        wire::read_verdict(&mut socket).await
    };
    let known = Hello { protocol: Versions::OWN, cluster: member(2).cluster.unwrap(), from: 2, to: 1 };
    assert_eq!(greet(&known.encode()).await.unwrap(), Ok(()));
    let reason = greet(&Hello { from: 0, ..known }.encode()).await.unwrap().unwrap_err();
    assert_eq!(reason, "only a member of this cluster may ask that");
    let reason = greet(&Hello { cluster: Uuid::nil(), ..known }.encode()).await.unwrap().unwrap_err();
    assert!(reason.contains("another cluster"), "{reason}");
    let mut garbage = [b'A'; HELLO_BYTES];
    garbage[1..].fill(0xff);
    let reason = greet(&garbage).await.unwrap().unwrap_err();
    assert_eq!(reason, "it does not come from an Amphora node");
    greet(b"GET / HTTP/1.1\r\n\r\n").await.unwrap_err();

    // A member that sends what no caller sends is dropped; the others are served on.
    let mut socket = tokio::net::TcpStream::connect(&address).await.unwrap();
    socket.write_all(&known.encode()).await.unwrap();
    wire::read_verdict(&mut socket).await.unwrap().unwrap();
    socket.write_all(&[0xff; 64]).await.unwrap();
    assert_eq!(socket.read(&mut [0; 8]).await.unwrap_or(0), 0);
    assert_eq!(greet(&known.encode()).await.unwrap(), Ok(()));
    server.stop().await;
}
