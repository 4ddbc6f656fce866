//! A storm of CONNECTs at a fixed rate: how many are answered, how late, and what each costs the broker.
//!
//! Open loop: a connection is begun when it is due, whether or not those before it were answered. Every second one says
//! DISCONNECT and goes as soon as it is connected, the others stay to the end, which comes `--stay` seconds after the last
//! answer: what a load beside it sees until then is CONNECTs, not thousands of connections that end at one moment.

use crate::args::{Args, Json};
use crate::hist::Hist;
use crate::mqtt::{self, Login};
use crate::net::{now, source, Conn, Epoll, St, OUT};
use crate::procfs;

/// Sockets of one process, below a limit of 20,000 descriptors.
const OPEN_MAX: usize = 19_000;

struct Storm {
    ep: Epoll,
    conns: Vec<Conn>,
    buf: Vec<u8>,
    connected: Hist,
    answered: u64,
    refused: u64,
    /// Closed by the broker after CONNACK.
    lost: u64,
    pending: usize,
    open: usize,
}

impl Storm {
    fn end(&mut self, i: usize) {
        self.conns[i].close();
        self.open -= 1;
    }

    /// One event of a connection that is not closed; false when it is to be given up.
    fn event(&mut self, i: usize, events: u32) -> bool {
        let token = i as u64;
        let x = &mut self.conns[i];
        if x.st == St::Dialing {
            if !x.dialed() {
                return false;
            }
            x.st = St::Connack;
        }
        if events & OUT != 0 && x.flush(&self.ep, token).is_err() {
            return false;
        }
        if events & !OUT == 0 {
            return true;
        }
        let n = match x.fill(&mut self.buf) {
            Ok(None) => return true,
            Err(_) | Ok(Some(0)) => return false,
            Ok(Some(n)) => n,
        };
        let Ok(Some((first, s, end))) = mqtt::frame(&self.buf[..n]) else { return false };
        // The protocol's version changes the body behind the code, which stands at the same place.
        if x.st != St::Connack || first >> 4 != mqtt::CONNACK || self.buf[s..end].get(1) != Some(&0) {
            return false;
        }
        self.connected.add(now() - x.begun);
        (x.st, x.out) = (St::Ready, Vec::new());
        self.answered += 1;
        self.pending -= 1;
        if i % 2 == 0 {
            x.out.extend_from_slice(&[mqtt::DISCONNECT << 4, 0]);
            let _ = x.flush(&self.ep, token);
            self.end(i);
        }
        true
    }
}

pub fn run(a: &Args) -> Result<String, String> {
    let rate: f64 = a.num("rate", 5000.0)?;
    let secs: f64 = a.num("secs", 3.0)?;
    let drain: f64 = a.num("drain", 5.0)?;
    let stay: f64 = a.num("stay", 0.0)?;
    let pid: Option<u32> = a.opt("pid")?;
    let (v5, persist) = (a.flag("v5"), a.flag("persist"));
    let dst = crate::target(a)?;
    a.done()?;
    crate::raise_fd_limit();
    let total = (rate * secs) as usize;
    let tag = std::process::id();
    let mut storm = Storm {
        ep: Epoll::new(),
        conns: Vec::with_capacity(total),
        buf: vec![0u8; 64 * 1024],
        connected: Hist::new(),
        answered: 0,
        refused: 0,
        lost: 0,
        pending: 0,
        open: 0,
    };
    let mut lag = Hist::new();
    let (c0, own0, start) = (pid.and_then(procfs::cpu), procfs::own_cpu(), now());
    let due_of = |k: usize| start + (k as f64 * 1e9 / rate) as u64;
    let last_due = due_of(total);
    let mut over = None;
    loop {
        while storm.conns.len() < total && storm.open < OPEN_MAX && due_of(storm.conns.len()) <= now() {
            let i = storm.conns.len();
            let mut out = Vec::with_capacity(64);
            mqtt::connect(&mut out, &format!("st{tag}x{i}"), &Login { v5, clean: !persist, keepalive: 300, user: None, pass: None });
            let src = if dst.0[0] == 127 { Some(source(i)) } else { None };
            let due = due_of(i);
            lag.add(now() - due);
            let x = Conn::dial(&storm.ep, i as u64, dst, src, out, due).map_err(|e| format!("connection {i}: {e}"))?;
            storm.conns.push(x);
            storm.pending += 1;
            storm.open += 1;
        }
        let done = storm.conns.len() == total && storm.pending == 0;
        if over.is_none() && (done || now() > last_due + (drain * 1e9) as u64) {
            over = Some((now(), pid.and_then(procfs::cpu), procfs::own_cpu()));
        }
        if over.is_some_and(|(at, ..)| now() >= at + (stay * 1e9) as u64) {
            break;
        }
        let k = storm.ep.wait(200_000);
        for e in 0..k {
            let e = storm.ep.evs[e];
            let i = e.u64 as usize;
            if storm.conns[i].st == St::Closed || storm.event(i, e.events) {
                continue;
            }
            if storm.conns[i].st == St::Ready {
                storm.lost += 1;
            } else {
                storm.refused += 1;
                storm.pending -= 1;
            }
            storm.end(i);
        }
    }
    let (end, c1, own1) = over.unwrap_or_else(|| (now(), None, procfs::own_cpu()));
    let took = (end - start) as f64 / 1e9;
    let mut j = Json::new();
    j.s("mode", "storm");
    j.s("mqtt", if v5 { "5" } else { "3.1.1" });
    j.n("persist", persist);
    j.f("rate", rate, 0);
    j.n("asked", total);
    j.n("answered", storm.answered);
    j.n("refused", storm.refused);
    j.n("unanswered", total as u64 - storm.answered - storm.refused);
    j.n("lost", storm.lost);
    j.f("took_s", took, 3);
    j.us("connect_p50_us", storm.connected.q(0.5));
    j.us("connect_p99_us", storm.connected.q(0.99));
    j.us("connect_max_us", storm.connected.max);
    j.us("lag_p99_us", lag.q(0.99));
    j.f("gen_cpu_s", own1 - own0, 2);
    if let (Some(a), Some(b)) = (c0, c1) {
        j.f("cpu_s_per_1000_connects", (b.total() - a.total()) * 1000.0 / storm.answered.max(1) as f64, 4);
    }
    Ok(j.end())
}
