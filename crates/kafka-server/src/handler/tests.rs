//! What a request leaves behind while its answer waits: the tests look at the frame's own buffer.

use std::pin::pin;
use std::task::{Context, Waker};
use std::time::Duration;

use headwater_commitlog::fs::RealFs;

use tokio::sync::watch;
use tokio::time::timeout;

use super::*;
use crate::api::{ApiKey, Frame};
use crate::connection::settling;
use crate::host::Alone;
use crate::message::{JoinGroupProtocol, JoinGroupRequest};
use crate::server::KafkaServer;
use crate::wire::allowance;

const DEADLINE: Duration = Duration::from_secs(20);
const KIB: usize = 1 << 10;
const JOIN_GROUP: u8 = 11;
const SYNC_GROUP: u8 = 14;

fn start() -> (tempfile::TempDir, Arc<KafkaServer>) {
    let dir = tempfile::tempdir().unwrap();
    let options = headwater_commitlog::Options::new(dir.path());
    let log = Log::open(Arc::new(RealFs), options).unwrap();
    let mut options = Options::default();
    options.groups.initial_rebalance_delay_ms = 0;
    let host = Arc::new(Alone(log.clone()));
    let server = KafkaServer::new(log, options, host).unwrap();
    (dir, server)
}

fn client() -> Client {
    let nobody = SocketAddr::from(([127, 0, 0, 1], 1));
    Client {
        peer: nobody,
        reached_at: nobody,
        principal: Principal::anonymous(),
        sasl: Sasl::default(),
    }
}

fn text(text: &str) -> Vec<u8> {
    let length = u16::try_from(text.len()).unwrap();
    [&length.to_be_bytes()[..], text.as_bytes()].concat()
}

/// An array of one pair of a name and much else.
fn one_long(name: &str) -> Vec<u8> {
    let length = u32::try_from(100 * KIB).unwrap().to_be_bytes();
    [&[0, 0, 0, 1][..], &text(name), &length, &[7; 100 * KIB]].concat()
}

/// A request of version `version` from client "x", with the buffer that it lies in.
fn request(key: u8, version: u8, body: &[u8]) -> (Bytes, Header, Request) {
    let head = [0, key, 0, version, 0, 0, 0, 9, 0, 1, b'x'];
    let frame = Bytes::from([&head, body].concat());
    let (decoded, _) = Frame::decode(frame.clone(), allowance(frame.len())).unwrap();
    let Frame::Request(header, request) = decoded else {
        panic!("it is a request")
    };
    assert!(!frame.is_unique(), "the request is made of slices");
    (frame, header, *request)
}

/// Asks for an answer once: whether it waits, or is there at once.
fn begin(server: &KafkaServer, key: u8, body: &[u8]) -> bool {
    let (frame, mut header, request) = request(key, 0, body);
    header.client_id = None;
    let (shared, mut client) = (server.shared(), client());
    let mut call = Call {
        shared,
        client: &mut client,
        header: &header,
    };
    let answer = pin!(call.answer(request, shared.requests.charge(frame.len())));
    drop(answer.poll(&mut Context::from_waker(Waker::noop())));
    frame.is_unique()
}

#[tokio::test]
async fn what_waits_in_a_group_holds_nothing_of_its_frame() {
    let (_dir, server) = start();
    let header = Header {
        key: ApiKey::JoinGroup,
        version: 0,
        correlation_id: 9,
        client_id: None,
    };
    let protocol = JoinGroupProtocol {
        name: Text::from("p"),
        metadata: Bytes::new(),
    };
    let join = JoinGroupRequest {
        group_id: Text::from("g"),
        session_timeout_ms: 1_800_000,
        protocol_type: Text::from("c"),
        protocols: vec![protocol],
        ..JoinGroupRequest::default()
    };
    let call = Call {
        shared: server.shared(),
        client: &mut client(),
        header: &header,
    };
    let (_stop, stopped) = watch::channel(false);
    let shared = Arc::clone(server.shared());
    tokio::spawn(async move { shared.groups.drive(stopped).await });
    let mut charge = server.shared().requests.charge(0);
    let leader = timeout(DEADLINE, call.join_group(join, &mut charge))
        .await
        .unwrap();
    assert_eq!(leader.error, ErrorCode::None);
    // What the leader assigns is synced before it is answered.
    let generation = leader.generation.to_be_bytes();
    let member = text(&leader.member_id);
    let sync = [&text("g"), &generation[..], &member, &one_long("m")].concat();
    assert!(begin(&server, SYNC_GROUP, &sync));
    // A second member waits until the first has joined again.
    let session = 1_800_000_u32.to_be_bytes();
    let join = [&text("g"), &session[..], &text(""), &text("c")].concat();
    let join = [join, one_long("p")].concat();
    assert!(begin(&server, JOIN_GROUP, &join));
}

#[tokio::test]
async fn produce_that_waits_for_its_turn_holds_its_answer_alone_and_is_charged_for_it() {
    let (_dir, server) = start();
    let requests = &server.shared().requests;
    // acks all, 10 s, "t", which is not there, with so many partitions without records.
    let partitions = 1_000_u32;
    let mut body = vec![0xff, 0xff, 0xff, 0xff, 0, 0, 0x27, 0x10, 0, 0, 0, 1];
    body.extend(text("t"));
    body.extend(partitions.to_be_bytes());
    body.extend([0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff].repeat(1_000));
    let (frame, header, request) = request(0, 8, &body);
    let Request::Produce(request) = request else {
        panic!("it is a Produce")
    };
    let mut charge = requests.charge(frame.len());
    charge.cover(frame.len() + request.answer_bytes()).await;
    let call = Call {
        shared: server.shared(),
        client: &mut client(),
        header: &header,
    };
    let produced = call.produce(request, charge);
    let waiting = settling(header, produced);
    assert!(frame.is_unique());
    let held = waiting.charge.bytes();
    assert_eq!(requests.held(), held, "nothing for the request");
    let encoded = waiting.frame.await.iter().map(Bytes::len).sum::<usize>();
    assert!(encoded > 30_000, "{encoded}");
    assert!(held > encoded, "{held} for {encoded}");
}
