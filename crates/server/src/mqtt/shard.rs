//! One MQTT thread: its shard of the broker, its connections, and the pump between them and the rest.
//!
//! For: carrying out what the shard decides: flushing, closing, committing, loading, telling other
//! shards; and handing it what arrives, in order.
//! Not for: MQTT's rules (`headwater_mqtt_broker`), the log's units (`commits`).
//! Calls: `inbox`, `handshake`, `connection`, `commits`, `loader`; `injections` and `retire` for their answers.
//! Called by: `mqtt`, which starts the thread; `connection` (`step`) and `handshake`
//! (`serve`); whoever has `Mail` for it.
//! Holds: a socket never leaves its thread. What one turn of the thread causes leaves as one
//! submission to the log and one batch to each other shard.

use std::cell::{Cell, RefCell, RefMut};
use std::collections::{BTreeMap, HashMap};
use std::future::poll_fn;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::SyncSender;
use std::sync::{Arc, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::BytesMut;
use foldhash::fast::FixedState;
use headwater_mqtt_broker::{
    Commit, ConnectionId, Effect, Input, Output, Peer, Shard, ShardMessage,
};
use headwater_mqtt_codec::DisconnectReason;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::runtime::{Handle, LocalOptions};
use tokio::task::{AbortHandle, JoinError, spawn_local};
use tokio::time::{Instant, Sleep, sleep, sleep_until};
use tracing::{debug, error};

use super::Counters;
use super::clock::{Clock, Timeline};
use super::commits::Committer;
use super::connection::drive;
use super::doors::{Accepted, Carrier};
use super::guests::Guest;
use super::handshake::Arrival;
use super::inbox::{Inbox, Weigh};
use super::injections::Injections;
use super::loader::Loader;
use super::retire::Retirements;

/// Room that a read may fill; one for all connections of the thread.
const SCRATCH_BYTES: usize = 64 << 10;
/// A deadline further away than this is looked at again then.
const IDLE_TICK: Duration = Duration::from_secs(1);
/// How long the thread stays for QUIC connections that say they end.
const GOODBYE: Duration = Duration::from_millis(200);
const GOODBYE_STEP: Duration = Duration::from_millis(5);

/// What reaches a shard from outside its thread.
pub(crate) enum Mail {
    /// From the committer, in commit order, or for the broker as it stands.
    Input(Input),
    /// From another shard.
    Peer(ShardMessage),
    /// A connection to serve from now on.
    Accepted(Accepted),
    /// Every other shard may read again: this thread's full inbox has been emptied.
    Relieved,
    /// Says goodbye to every client; the thread ends once all have gone and all is committed.
    Stop,
}

impl Weigh for Mail {
    fn bytes(&self) -> usize {
        match self {
            Self::Input(input) => input.memory(),
            Self::Peer(message) => message.memory(),
            Self::Accepted(_) | Self::Relieved | Self::Stop => 0,
        }
    }
}

/// Whether a connection may read.
pub(crate) enum ReadGate {
    Open,
    /// Woken when it may go on.
    Paused,
    /// Only what is put out is still to be written.
    Closing,
}

/// What the thread holds for a connection besides the shard's own state.
struct Link {
    /// Its place at the door.
    _guest: Guest,
    waker: Option<Waker>,
    paused: bool,
    /// The socket did not take all of the output.
    blocked: bool,
    /// What is still to be written before the close.
    last: Option<Box<Output>>,
}

/// What one turn of the thread gathers for others.
#[expect(
    clippy::vec_box,
    reason = "boxed by the broker; moved on, never rebuilt"
)]
struct Round {
    commits: Vec<Box<Commit>>,
    peers: Vec<Vec<Mail>>,
    pump: Option<Waker>,
}

/// What all shard threads share.
pub(crate) struct Common {
    /// The same for all shards: deadlines move between them with sessions.
    pub(crate) timeline: Arc<Timeline>,
    pub(crate) inboxes: Arc<[Inbox<Mail>]>,
    pub(crate) committer: Arc<Committer>,
    pub(crate) loader: Loader,
    pub(crate) injections: Arc<Injections>,
    pub(crate) retirements: Arc<Retirements>,
    pub(crate) counters: Arc<Counters>,
    pub(crate) limits: Limits,
}

/// What the threads keep of connections that are no MQTT yet.
#[derive(Clone, Copy)]
pub(crate) struct Limits {
    /// Handshakes that one thread has in progress; the oldest makes room for one more.
    pub(crate) handshakes_max: usize,
}

/// One shard's thread.
pub(crate) struct ShardThread {
    index: usize,
    common: Arc<Common>,
    core: RefCell<Shard>,
    links: RefCell<HashMap<ConnectionId, Link, FixedState>>,
    scratch: RefCell<BytesMut>,
    effects: RefCell<Vec<Effect>>,
    round: RefCell<Round>,
    clock: Clock,
    next_connection: Cell<u64>,
    /// Those that are not over, oldest first.
    handshakes: RefCell<BTreeMap<ConnectionId, AbortHandle>>,
    /// Whether connections wait because another shard's inbox is congested.
    held: Cell<bool>,
    stopping: Cell<bool>,
    /// Commits handed to the log and not answered.
    pending: Cell<usize>,
}

impl ShardThread {
    /// Runs the shard on this thread until it was stopped and everything has ended. Says first
    /// whether it can: the runtime needs files.
    pub(crate) fn run(
        index: usize,
        core: Shard,
        common: Arc<Common>,
        built: &SyncSender<io::Result<()>>,
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build_local(LocalOptions::default());
        let runtime = match runtime {
            Ok(runtime) => runtime,
            Err(error) => {
                // Another one may have said so first.
                built.send(Err(error)).ok();
                return;
            }
        };
        built.send(Ok(())).ok();
        let shard = Rc::new(Self::new(index, core, common));
        // A task like the connections', in one queue with them: its turn comes behind those that woke
        // it and before those it wakes, without a look at the sockets in between.
        let pump = runtime.spawn_local(shard.pump());
        let ended = runtime.block_on(pump);
        runtime.block_on(say_goodbye());
        if let Err(Ok(panic)) = ended.map_err(JoinError::try_into_panic) {
            resume_unwind(panic);
        }
    }

    pub(super) fn new(index: usize, core: Shard, common: Arc<Common>) -> Self {
        let peers = common.inboxes.iter().map(|_| Vec::new()).collect();
        Self {
            index,
            core: RefCell::new(core),
            links: RefCell::default(),
            scratch: RefCell::new(BytesMut::with_capacity(SCRATCH_BYTES)),
            effects: RefCell::default(),
            round: RefCell::new(Round {
                commits: Vec::new(),
                peers,
                pump: None,
            }),
            clock: Clock::new(Arc::clone(&common.timeline)),
            next_connection: Cell::new(first_connection(index)),
            handshakes: RefCell::default(),
            held: Cell::new(false),
            stopping: Cell::new(false),
            pending: Cell::new(0),
            common,
        }
    }

    /// Tells the shard one input and carries out what it causes at once; what it gathers is
    /// settled at the end of this turn.
    pub(crate) fn step(&self, input: Input) {
        let connection = match &input {
            Input::Received { connection, .. }
            | Input::Blocked { connection }
            | Input::Drained { connection } => Some(*connection),
            _ => None,
        };
        let now = self.clock.now();
        if !self.guarded(|core, effects| core.step(now, input, effects)) {
            // What one connection sent ends that connection. A bug in anything else leaves others'
            // state in doubt: the restart knows all of it exactly.
            let Some(connection) = connection else {
                std::process::abort()
            };
            let reason = DisconnectReason::UnspecifiedError;
            let ended = self.guarded(|core, effects| {
                core.step(now, Input::Disconnect { connection, reason }, effects);
            });
            if !ended {
                // A connection half taken apart is others' state too.
                std::process::abort();
            }
        }
        self.gather(|_| {});
    }

    fn settle(&self) {
        let now = self.clock.now();
        if !self.guarded(|core, effects| core.settle(now, effects)) {
            std::process::abort();
        }
    }

    /// Lets the shard work and carries out the effects. False when a bug ended the work.
    fn guarded(&self, work: impl FnOnce(&mut Shard, &mut Vec<Effect>)) -> bool {
        let mut effects = self.effects.take();
        let done = catch_unwind(AssertUnwindSafe(|| {
            work(&mut self.core.borrow_mut(), &mut effects);
        }));
        for effect in effects.drain(..) {
            self.carry_out(effect);
        }
        self.effects.replace(effects);
        if done.is_err() {
            self.common.counters.panics.fetch_add(1, Ordering::Relaxed);
            error!(shard = self.index, "a bug ended the handling of one input");
        }
        done.is_ok()
    }

    fn carry_out(&self, effect: Effect) {
        match effect {
            Effect::Flush(connection) => self.wake(connection),
            Effect::Close(connection) => self.close(connection),
            Effect::Pause(connection) => self.with_link(connection, |link| link.paused = true),
            Effect::Resume(connection) => {
                self.with_link(connection, |link| link.paused = false);
                self.wake(connection);
            }
            Effect::Commit(commit) => self.gather(|round| round.commits.push(commit)),
            Effect::ToShard(shard, message) => self.gather(|round| {
                if let Some(peer) = round.peers.get_mut(shard) {
                    peer.push(Mail::Peer(message));
                }
            }),
            Effect::Load {
                request,
                positions,
                bytes_max,
            } => {
                self.common
                    .loader
                    .load(self.index, request, positions, bytes_max);
            }
            Effect::Injected { ticket, outcome } => {
                self.common.injections.answered(ticket, outcome);
            }
            Effect::Owes {
                going,
                references,
                complete,
            } => self.common.retirements.owes(going, references, complete),
            Effect::Needs {
                survey,
                sequence,
                kept,
            } => self.common.retirements.needs(survey, sequence, kept),
        }
    }

    /// Adds to what leaves at the end of this turn.
    fn gather(&self, add: impl FnOnce(&mut Round)) {
        let mut round = self.round.borrow_mut();
        add(&mut round);
        if let Some(pump) = round.pump.take() {
            pump.wake();
        }
    }

    fn with_link(&self, connection: ConnectionId, change: impl FnOnce(&mut Link)) {
        if let Some(link) = self.links.borrow_mut().get_mut(&connection) {
            change(link);
        }
    }

    fn wake(&self, connection: ConnectionId) {
        if let Some(waker) = self
            .links
            .borrow()
            .get(&connection)
            .and_then(|link| link.waker.as_ref())
        {
            waker.wake_by_ref();
        }
    }

    fn close(&self, connection: ConnectionId) {
        let output = self.core().take_output(connection).unwrap_or_default();
        self.with_link(connection, |link| link.last = Some(Box::new(output)));
        self.wake(connection);
    }

    /// Lets the connection's task be woken.
    pub(crate) fn register(&self, connection: ConnectionId, waker: &Waker) {
        self.with_link(connection, |link| match &mut link.waker {
            Some(known) if known.will_wake(waker) => {}
            slot => *slot = Some(waker.clone()),
        });
    }

    /// Whether the connection may read now.
    pub(crate) fn read_gate(&self, connection: ConnectionId) -> ReadGate {
        let links = self.links.borrow();
        let Some(link) = links.get(&connection) else {
            return ReadGate::Closing;
        };
        if link.last.is_some() {
            return ReadGate::Closing;
        }
        if link.paused || self.held.get() {
            return ReadGate::Paused;
        }
        ReadGate::Open
    }

    /// Remembers whether the socket has not taken all of the output; whether it had not before.
    pub(crate) fn set_blocked(&self, connection: ConnectionId, blocked: bool) -> bool {
        let mut links = self.links.borrow_mut();
        links
            .get_mut(&connection)
            .is_some_and(|link| std::mem::replace(&mut link.blocked, blocked))
    }

    /// What the broker wanted to say last to a connection that it closes.
    pub(crate) fn take_last(&self, connection: ConnectionId) -> Option<Output> {
        self.links
            .borrow_mut()
            .get_mut(&connection)?
            .last
            .take()
            .map(|last| *last)
    }

    /// Drops what the thread holds for a connection that has ended.
    pub(crate) fn forget(&self, connection: ConnectionId) {
        self.links.borrow_mut().remove(&connection);
        self.discount();
        if self.stopping.get() {
            self.gather(|_| {});
        }
    }

    pub(crate) fn core(&self) -> RefMut<'_, Shard> {
        self.core.borrow_mut()
    }

    /// The buffer that the next read fills. What earlier reads left to others is not in it.
    pub(crate) fn scratch(&self) -> RefMut<'_, BytesMut> {
        let mut scratch = self.scratch.borrow_mut();
        if scratch.capacity() < SCRATCH_BYTES / 4 {
            scratch.reserve(SCRATCH_BYTES);
        }
        scratch
    }

    async fn pump(self: Rc<Self>) {
        let mut timer = Box::pin(sleep_until(Instant::now()));
        let mut mail = Vec::new();
        poll_fn(|cx| self.poll_pump(cx, &mut mail, timer.as_mut())).await;
    }

    fn poll_pump(
        self: &Rc<Self>,
        cx: &mut Context<'_>,
        mail: &mut Vec<Mail>,
        mut timer: Pin<&mut Sleep>,
    ) -> Poll<()> {
        let Some(inbox) = self.common.inboxes.get(self.index) else {
            return Poll::Ready(());
        };
        // Until this turn's round is sent, what joins it needs no further wake-up.
        self.round.borrow_mut().pump = None;
        if let Poll::Ready(was_congested) = inbox.poll_take(cx, mail) {
            for item in mail.drain(..) {
                self.open_mail(item);
            }
            // What came meanwhile waits until the connections had their turn.
            cx.waker().wake_by_ref();
            if was_congested {
                self.relieve_others();
            }
        }
        if timer.as_mut().poll_fire(cx) {
            self.step(Input::Tick);
            self.count();
        }
        self.settle();
        self.send_round(cx);
        self.hold_while_congested();
        self.arm(timer, cx);
        if self.stopping.get() && self.is_idle() {
            return Poll::Ready(());
        }
        Poll::Pending
    }

    /// Nobody is connected and nothing waits for the log.
    pub(super) fn is_idle(&self) -> bool {
        self.links.borrow().is_empty() && self.pending.get() == 0
    }

    fn open_mail(self: &Rc<Self>, mail: Mail) {
        match mail {
            Mail::Input(input) => {
                if matches!(input, Input::Committed { .. }) {
                    self.pending.set(self.pending.get().saturating_sub(1));
                }
                self.step(input);
            }
            Mail::Peer(message) => self.step(Input::FromShard(message)),
            Mail::Accepted(accepted) => self.accept(accepted),
            Mail::Relieved => self.release(),
            Mail::Stop => {
                self.stopping.set(true);
                for handshake in self.handshakes.take().values() {
                    handshake.abort();
                }
                self.step(Input::Stop);
            }
        }
    }

    fn accept(self: &Rc<Self>, accepted: Accepted) {
        let Accepted {
            carrier,
            peer,
            entrance,
            guest,
        } = accepted;
        if self.stopping.get() {
            return self.discount();
        }
        let connection = ConnectionId(self.next_connection.get());
        self.next_connection.set(connection.0 + 1);
        let socket = match carrier {
            Carrier::Socket(socket) => socket,
            Carrier::Quic(call) => {
                let arrival = Arrival::new(Rc::clone(self), connection, peer, entrance, guest);
                return self.shake(connection, arrival.enter_quic(*call));
            }
        };
        let stream = match TcpStream::from_std(socket) {
            Ok(stream) => stream,
            Err(error) => {
                debug!(%error, "an accepted socket could not be watched");
                return self.discount();
            }
        };
        if entrance.is_open_for(&peer) {
            return self.serve(connection, peer, guest, 0, stream);
        }
        let arrival = Arrival::new(Rc::clone(self), connection, peer, entrance, guest);
        self.shake(connection, arrival.enter(stream));
    }

    /// Starts a handshake. Beyond their number the oldest ends: who makes haste gets in, however
    /// many do not.
    fn shake(&self, connection: ConnectionId, handshake: impl Future<Output = ()> + 'static) {
        let mut handshakes = self.handshakes.borrow_mut();
        if handshakes.len() >= self.common.limits.handshakes_max
            && let Some((_, oldest)) = handshakes.pop_first()
        {
            oldest.abort();
        }
        handshakes.insert(connection, spawn_local(handshake).abort_handle());
    }

    /// Serves `stream` as MQTT from now on; its handshake has taken so long.
    pub(crate) fn serve<S>(
        self: &Rc<Self>,
        connection: ConnectionId,
        peer: Peer,
        guest: Guest,
        handshake_ms: u64,
        stream: S,
    ) where
        S: AsyncRead + AsyncWrite + Unpin + 'static,
    {
        let limits = Arc::clone(guest.limits());
        let link = Link {
            _guest: guest,
            waker: None,
            paused: false,
            blocked: false,
            last: None,
        };
        self.links.borrow_mut().insert(connection, link);
        self.step(Input::Opened {
            connection,
            peer,
            limits,
            handshake_ms,
        });
        // A task of its own: it is as large as this transport needs, and no larger.
        spawn_local(drive(Rc::clone(self), connection, stream));
    }

    /// A handshake is over, well or not.
    pub(crate) fn shaken(&self, connection: ConnectionId) {
        self.handshakes.borrow_mut().remove(&connection);
    }

    pub(crate) fn counters(&self) -> &Counters {
        &self.common.counters
    }

    /// One connection less.
    pub(crate) fn discount(&self) {
        self.common.counters.places.give_back();
    }

    /// Sends what this turn gathered: one submission to the log, one batch to each other shard.
    fn send_round(&self, cx: &Context<'_>) {
        let commits = {
            let mut round = self.round.borrow_mut();
            for (peer, inbox) in round.peers.iter_mut().zip(self.common.inboxes.iter()) {
                if !peer.is_empty() {
                    inbox.put(peer.drain(..));
                }
            }
            round.pump = Some(cx.waker().clone());
            std::mem::take(&mut round.commits)
        };
        if !commits.is_empty() {
            self.pending.set(self.pending.get() + commits.len());
            self.common.committer.submit(self.index, commits);
        }
    }

    /// Stops reading while another shard does not keep up with what comes from here.
    fn hold_while_congested(&self) {
        let congested = (self.common.inboxes.iter().enumerate())
            .any(|(index, inbox)| index != self.index && inbox.congested());
        if congested {
            if !self.held.replace(true) {
                self.step(Input::Held);
            }
        } else if self.held.get() {
            self.release();
        }
    }

    /// Shows the shard's numbers to the metrics.
    fn count(&self) {
        let counts = self.core().counts();
        let mut all = self
            .common
            .counters
            .broker
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(own) = all.get_mut(self.index) {
            *own = counts;
        }
    }

    fn release(&self) {
        if self.held.replace(false) {
            self.step(Input::Released);
            for link in self.links.borrow().values() {
                if let Some(waker) = &link.waker {
                    waker.wake_by_ref();
                }
            }
        }
    }

    fn relieve_others(&self) {
        for (index, inbox) in self.common.inboxes.iter().enumerate() {
            if index != self.index {
                inbox.put([Mail::Relieved]);
            }
        }
    }

    fn arm(&self, mut timer: Pin<&mut Sleep>, cx: &mut Context<'_>) {
        let latest = Instant::now() + IDLE_TICK;
        let wanted = self
            .core()
            .deadline()
            .map_or(latest, |at| self.clock.instant(at).min(latest));
        if timer.is_elapsed() || wanted < timer.deadline() {
            timer.as_mut().reset(wanted);
            // A timer wakes only those who have asked it since it was set.
            if timer.poll_fire(cx) {
                cx.waker().wake_by_ref();
            }
        }
    }
}

/// The name of a thread's first connection: no thread gets as far as to the next one's, and so no
/// name is used twice in the process.
fn first_connection(index: usize) -> u64 {
    (index as u64) << 40
}

/// Lets the tasks of QUIC connections send that they end. They wait longer, for what is still on its
/// way to them, and nobody needs that any more.
async fn say_goodbye() {
    let until = Instant::now() + GOODBYE;
    while Handle::current().metrics().num_alive_tasks() > 0 && Instant::now() < until {
        sleep(GOODBYE_STEP).await;
    }
}

/// `poll` under a name that says what is asked.
trait PollFire {
    fn poll_fire(self, cx: &mut Context<'_>) -> bool;
}

impl PollFire for Pin<&mut Sleep> {
    fn poll_fire(self, cx: &mut Context<'_>) -> bool {
        Future::poll(self, cx).is_ready()
    }
}

#[cfg(test)]
mod tests {
    use super::first_connection;

    #[test]
    fn no_two_threads_name_connections_alike() {
        // A million connections a second for ten days.
        let last = |index| first_connection(index) + 864_000_000_000;
        assert!((0..1_000).all(|index| last(index) < first_connection(index + 1)));
    }
}
