#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use tokio::net::TcpListener;
use uuid::Uuid;

use super::*;
use crate::NodeId;
use crate::strong::{Member, Reply, Request};

const DEADLINE: Duration = Duration::from_secs(2);
const CLUSTER: Uuid = Uuid::from_u128(0xa);

/// Answers as a Raft group that has no leader, and as a cluster that anyone may join.
struct Node;

#[async_trait]
impl Handler for Node {
    async fn handle(&self, from: NodeId, request: RpcRequest) -> RpcResponse {
        match request {
            RpcRequest::Strong(Request::ReadIndex) => RpcResponse::Strong(Reply::NotLeader(Some(from))),
            RpcRequest::Join(JoinRequest::Allocate { .. }) => {
                RpcResponse::Join(JoinReply::Allocated { cluster: CLUSTER, node: 9 })
            }
            RpcRequest::Join(JoinRequest::Announce { member, .. }) => {
                RpcResponse::Join(JoinReply::Later(member.region))
            }
            RpcRequest::Status => panic!("a bug in a handler"),
            _ => {
                tokio::time::sleep(Duration::from_secs(60)).await;
                RpcResponse::Failed("late".to_owned())
            }
        }
    }
}

pub(super) fn member(node: NodeId) -> Identity {
    Identity::of(CLUSTER, node)
}

pub(super) async fn server(faults: Arc<Faults>) -> (Server, String) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    (Server::start(listener, member(1), Box::new(Node), faults), address)
}

fn client(identity: Identity) -> Client {
    Client::new(identity, Arc::default())
}

const READ_INDEX: RpcRequest = RpcRequest::Strong(Request::ReadIndex);

async fn refusal(client: &Client, target: NodeId, address: &str, request: &RpcRequest) -> String {
    match client.call(target, address, request, DEADLINE).await {
        Err(RpcError::Refused(reason)) => reason,
        other => panic!("not refused: {other:?}"),
    }
}

#[tokio::test]
async fn a_call_is_answered_and_the_caller_is_known() {
    let (server, address) = server(Arc::default()).await;
    let reply = client(member(2)).call(1, &address, &READ_INDEX, DEADLINE).await.unwrap();
    assert!(matches!(reply, RpcResponse::Strong(Reply::NotLeader(Some(2)))));
    server.stop().await;
}

#[tokio::test]
async fn a_peer_that_is_far_away_answers_later() {
    let (server, address) = server(Arc::default()).await;
    let faults = Arc::<Faults>::default();
    let client = Client::new(member(2), faults.clone());
    let far = Duration::from_millis(200);
    faults.delay([(1, far)].into());
    let start = Instant::now();
    client.call(1, &address, &READ_INDEX, DEADLINE).await.unwrap();
    assert!(start.elapsed() >= far);
    // The delay counts against the deadline, as a slow network's does.
    let hasty = client.call(1, &address, &READ_INDEX, far / 4).await;
    assert!(matches!(hasty, Err(RpcError::Lost(_))), "{hasty:?}");
    server.stop().await;
}

#[tokio::test]
async fn other_clusters_and_protocols_and_addressees_are_refused_with_words() {
    let (server, address) = server(Arc::default()).await;

    let stranger = client(Identity::of(Uuid::from_u128(0xb), 2));
    let reason = refusal(&stranger, 1, &address, &READ_INDEX).await;
    assert!(reason.contains("another cluster") && reason.contains(&CLUSTER.to_string()), "{reason}");

    let newer = Client::with_protocol(member(2), Arc::default(), {
        let next = PROTOCOL_VERSION + 1;
        handshake::Versions { lowest: next, highest: next }
    });
    let reason = refusal(&newer, 1, &address, &READ_INDEX).await;
    for version in [PROTOCOL_VERSION, PROTOCOL_VERSION + 1] {
        assert!(reason.contains(&format!("version {version}")), "{reason}");
    }
    // One that can still speak as this one does is let in.
    let rolling = handshake::Versions { highest: PROTOCOL_VERSION + 1, ..handshake::Versions::OWN };
    let rolling = Client::with_protocol(member(2), Arc::default(), rolling);
    rolling.call(1, &address, &READ_INDEX, DEADLINE).await.unwrap();

    let reason = refusal(&client(member(2)), 3, &address, &READ_INDEX).await;
    assert_eq!(reason, "this address belongs to node 1, not to node 3");

    // A node without an identity may ask for one, and for nothing else.
    let newcomer = client(Identity::JOINING);
    let allocate = RpcRequest::Join(JoinRequest::Allocate { token: Uuid::nil() });
    let reply = newcomer.call(0, &address, &allocate, DEADLINE).await.unwrap();
    assert!(matches!(reply, RpcResponse::Join(JoinReply::Allocated { node: 9, .. })));
    let reason = refusal(&newcomer, 0, &address, &READ_INDEX).await;
    assert_eq!(reason, "only a member of this cluster may ask that");
    server.stop().await;
}

#[tokio::test]
async fn malformed_input_and_a_panicking_handler_leave_the_server_serving() {
    let (server, address) = server(Arc::default()).await;
    let client = client(member(2));

    // Not HTTP/2 at all.
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let mut socket = tokio::net::TcpStream::connect(&address).await.unwrap();
    socket.write_all(&[0xff; 4096]).await.unwrap();
    let _ = tokio::time::timeout(DEADLINE, socket.read(&mut [0; 64])).await.unwrap();

    // HTTP/2, but bytes that are no message; and a frame that no header announces.
    let channel = tonic::transport::Endpoint::from_shared(format!("http://{address}")).unwrap();
    let mut grpc = tonic::client::Grpc::new(channel.connect().await.unwrap());
    for introduced in [true, false] {
        grpc.ready().await.unwrap();
        let mut request = tonic::Request::new(bytes::Bytes::from_static(&[0xfe; 100]));
        if introduced {
            let headers = handshake::Headers::new(member(2), handshake::Versions::OWN);
            headers.write(&handshake::addressee(1), request.metadata_mut().as_mut());
        }
        let path = http::uri::PathAndQuery::from_static(METHOD);
        let status = grpc.unary(request, path, frame::FrameCodec).await.unwrap_err();
        assert!(handshake::is_refusal(&status), "{status:?}");
    }

    let lost = client.call(1, &address, &RpcRequest::Status, DEADLINE).await.unwrap_err();
    assert_eq!(lost, RpcError::Lost("the call ended abnormally".to_owned()));
    client.call(1, &address, &READ_INDEX, DEADLINE).await.unwrap();
    server.stop().await;
}

#[tokio::test]
async fn every_call_ends_by_its_deadline_and_nobody_home_is_known_at_once() {
    let (server, address) = server(Arc::default()).await;
    let client = client(member(2));
    let began = Instant::now();
    let slow = RpcRequest::Strong(Request::Release(Vec::new()));
    let error = client.call(1, &address, &slow, Duration::from_millis(50)).await.unwrap_err();
    assert!(matches!(error, RpcError::Lost(_)) && began.elapsed() < DEADLINE);
    server.stop().await;

    let free = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().to_string();
    let error = client.call(3, &free, &READ_INDEX, DEADLINE).await.unwrap_err();
    assert!(matches!(error, RpcError::Unreachable(_)), "{error:?}");
}

#[tokio::test]
async fn a_client_finds_a_server_that_comes_back() {
    let (first, address) = server(Arc::default()).await;
    let client = client(member(2));
    client.call(1, &address, &READ_INDEX, DEADLINE).await.unwrap();
    first.stop().await;
    assert!(client.call(1, &address, &READ_INDEX, DEADLINE).await.is_err());

    let listener = TcpListener::bind(&address).await.unwrap();
    let second = Server::start(listener, member(1), Box::new(Node), Arc::default());
    let began = Instant::now();
    while client.call(1, &address, &READ_INDEX, DEADLINE).await.is_err() {
        assert!(began.elapsed() < Duration::from_secs(3));
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    second.stop().await;
}

#[tokio::test]
async fn a_cut_stops_both_directions_until_it_is_healed() {
    let (there, here) = (Arc::new(Faults::new()), Arc::new(Faults::new()));
    let (server, address) = server(there.clone()).await;
    let client = Client::new(member(2), here.clone());
    for faults in [(&here, 1), (&there, 2)] {
        faults.0.cut(faults.1);
        assert!(client.call(1, &address, &READ_INDEX, DEADLINE).await.is_err());
        faults.0.heal(faults.1);
        client.call(1, &address, &READ_INDEX, DEADLINE).await.unwrap();
    }
    server.stop().await;
}

#[tokio::test]
async fn a_message_over_the_limit_is_not_sent() {
    let (server, address) = server(Arc::default()).await;
    let region = "x".repeat(MAX_MESSAGE_BYTES);
    let member_data = Member { region, ..Member::default() };
    let request = RpcRequest::Join(JoinRequest::Announce { node: 2, member: member_data, was_member: false });
    let error = client(member(2)).call(1, &address, &request, DEADLINE).await.unwrap_err();
    assert!(matches!(&error, RpcError::Unreachable(r) if r.contains("exceeds the limit")), "{error:?}");
    let region = "x".repeat(MAX_MESSAGE_BYTES / 4);
    let member_data = Member { region, ..Member::default() };
    let request = RpcRequest::Join(JoinRequest::Announce { node: 2, member: member_data, was_member: false });
    client(member(2)).call(1, &address, &request, Duration::from_secs(20)).await.unwrap();
    server.stop().await;
}

/// Not an assertion about time, but the way to measure it:
/// `cargo nextest run -p amphora-replication --run-ignored only latency --no-capture`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "measures"]
async fn latency_of_a_call_on_loopback() {
    let (server, address) = server(Arc::default()).await;
    let client = Arc::new(client(member(2)));
    const CALLS: u32 = 20_000;
    for concurrency in [1, 16] {
        let began = Instant::now();
        let tasks: Vec<_> = (0..concurrency)
            .map(|_| {
                let (client, address) = (client.clone(), address.clone());
                tokio::spawn(async move {
                    for _ in 0..CALLS / concurrency {
                        client.call(1, &address, &READ_INDEX, DEADLINE).await.unwrap();
                    }
                })
            })
            .collect();
        for task in tasks {
            task.await.unwrap();
        }
        let each = began.elapsed() / CALLS;
        println!("{concurrency} callers: {:?} a call, {:?} of wall clock each", each * concurrency, each);
    }
    server.stop().await;
}
