//! Many CONNECTs a second while others' messages run: all are answered, and the others wait no longer for it.

use std::time::Duration;

use anyhow::ensure;

use super::{Scale, median};
use crate::owed::Running;

const WAIT: Duration = Duration::from_secs(90);
/// Messages a second of the ten pairs, at QoS 1.
const TRAFFIC: u32 = 5_000;
/// The promise: the traffic's p99 is at most twice its own, or this.
const P99_MS: f64 = 5.0;

/// What is asked of one run.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// CONNECTs a second.
    pub rate: u32,
    pub seconds: u32,
    /// Runs of each kind; the medians count.
    pub rounds: u32,
}

pub fn run(scale: &Scale, plan: Plan) -> anyhow::Result<String> {
    let (mut quiet, mut stormy, mut late, mut cpu) = (vec![], vec![], vec![], vec![]);
    for _ in 0..plan.rounds.max(1) {
        let (setup, _) = scale.bench.setup("storm")?;
        let mut running = Running::start(setup)?;
        let pid = running.program.id()?;
        let seconds = plan.seconds;
        let words = format!("p2p --pairs 10 --qos 1 --rate {TRAFFIC} --warmup 1 --secs {seconds}");
        let alone = scale.load(&running, &words)?.figures(WAIT)?;
        let traffic = scale.load(&running, &words)?;
        // Into its measured time.
        std::thread::sleep(Duration::from_millis(1_200));
        let words = format!(
            "storm --rate {} --secs {} --pid {pid}",
            plan.rate,
            f64::from(seconds) - 0.5
        );
        let storm = scale.load(&running, &words)?.figures(WAIT)?;
        let beside = traffic.figures(WAIT)?;
        storm.none_of(&["refused", "unanswered", "lost"])?;
        for figures in [&alone, &beside] {
            figures.none_of(&["unacked", "gaps", "closed"])?;
        }
        quiet.push(alone.milliseconds("lat_p99_us")?);
        stormy.push(beside.milliseconds("lat_p99_us")?);
        late.push(storm.milliseconds("connect_p99_us")?);
        cpu.push(storm.number("cpu_s_per_1000_connects")?);
        running.program.stop()?;
    }
    let (quiet, stormy) = (median(quiet), median(stormy));
    ensure!(stormy.is_finite(), "nothing was measured");
    let line = format!(
        "{} CONNECTs a second for {} s, half of them leaving at once, all answered (p99 {:.1} ms); 10 pairs at {TRAFFIC} QoS 1 \
         messages a second beside it: p99 {stormy:.2} ms, {quiet:.2} ms without; {:.3} CPU seconds of the server a 1,000, the \
         messages' share included; medians of {}",
        plan.rate,
        f64::from(plan.seconds) - 0.5,
        median(late),
        median(cpu),
        plan.rounds,
    );
    scale.promise(stormy <= P99_MS.max(2.0 * quiet), line)
}
