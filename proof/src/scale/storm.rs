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
/// How late the last answer may be, and how late the generator 1 in 100 CONNECTs, or it was not that many a second.
const LATE: Duration = Duration::from_millis(500);
const LAG_MS: f64 = 50.0;
/// Those who are connected stay until the traffic was measured: that they all go at one moment is another matter.
const STAY: Duration = Duration::from_secs(2);

/// What is asked of one run.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// CONNECTs a second.
    pub rate: u32,
    pub seconds: u32,
    /// Runs of each kind; the medians count.
    pub rounds: u32,
}

/// Once where messages go from memory to memory, once where the default flows bring each to disk first.
pub fn run(scale: &Scale, plan: Plan) -> impl Iterator<Item = anyhow::Result<String>> {
    let kinds = [false, true].into_iter();
    kinds.map(move |flows| beside(scale, plan, flows))
}

fn beside(scale: &Scale, plan: Plan, flows: bool) -> anyhow::Result<String> {
    let (mut quiet, mut stormy, mut late, mut cpu) = (vec![], vec![], vec![], vec![]);
    let seconds = f64::from(plan.seconds) - 0.5;
    for _ in 0..plan.rounds.max(1) {
        let (mut setup, _) = scale.bench.setup("storm")?;
        setup.settings = vec![format!("default_flows={flows}")];
        let mut running = Running::start(setup)?;
        let pid = running.program.id()?;
        let words = format!(
            "p2p --pairs 10 --qos 1 --rate {TRAFFIC} --warmup 1 --secs {}",
            plan.seconds
        );
        let alone = scale.load(&running, &words)?.figures(WAIT)?;
        let traffic = scale.load(&running, &words)?;
        // Into its measured time.
        std::thread::sleep(Duration::from_millis(1_200));
        let words = format!(
            "storm --rate {} --secs {seconds} --stay {} --pid {pid}",
            plan.rate,
            STAY.as_secs()
        );
        let storm = scale.load(&running, &words)?;
        let beside = traffic.figures(WAIT)?;
        let storm = storm.figures(WAIT)?;
        storm.none_of(&["refused", "unanswered", "lost"])?;
        for figures in [&alone, &beside] {
            figures.none_of(&["unacked", "gaps", "closed"])?;
        }
        if scale.strict {
            let took = storm.number("took_s")?;
            ensure!(
                took <= seconds + LATE.as_secs_f64() && storm.milliseconds("lag_p99_us")? <= LAG_MS,
                "not {} CONNECTs a second: {took} s for {seconds} s",
                plan.rate
            );
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
        "{} CONNECTs a second for {seconds} s, half of them leaving at once, all answered (p99 {:.1} ms); 10 pairs at {TRAFFIC} QoS 1 \
         messages a second beside it, {} flows: p99 {stormy:.2} ms, {quiet:.2} ms without; {:.3} CPU seconds of the server a \
         1,000, the messages' share included; medians of {}",
        plan.rate,
        median(late),
        if flows { "with the default" } else { "without" },
        median(cpu),
        plan.rounds,
    );
    scale.promise(stormy <= P99_MS.max(2.0 * quiet), line)
}
