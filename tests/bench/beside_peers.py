#!/usr/bin/env python3
"""Headwater beside other brokers in one run: mqttload's eight saturated and two paced cases, CPU and latency.

  tests/bench/beside_peers.py --peer 'mosquitto 2.1.2' 1884 'mosquitto -c mosquitto.conf' [--peer NAME PORT COMMAND]...
                              [--results results.jsonl] [--binary target/release/headwater] [--base OTHER_BINARY]
                              [--secs 3] [--warmup 1] [--runs 3] [--latency-runs 7] [--only p2p_q1_64,paced_5000] [--table]

Each run starts a broker, loads it with one case and ends it, so that none is measured beside another's idle threads; a round
takes every broker through a case before the next case begins. A peer is a command that listens on PORT of 127.0.0.1 until
SIGTERM. Each run is a line of --results and is not done again: what was interrupted goes on with the same command; only a
new file begins anew. Then comes the table of medians, with --table alone. --base runs a second build of Headwater beside the
first. Compare only what stands in one table, from a machine that does nothing else (other_cpu_s in the results)."""
import argparse, json, os, pathlib, platform, shlex, statistics, sys, tempfile, time

import brokers

SIZES = (64, 1024)
SATURATED = {f'p2p_q{qos}_{size}': ('p2p', '--pairs', 10, '--qos', qos, '--size', size) for qos in (0, 1, 2) for size in SIZES} | {
    'fanin': ('fanin', '--pubs', 100, '--subs', 1, '--qos', 1, '--size', 64),
    'fanout': ('fanout', '--pubs', 1, '--subs', 1000, '--qos', 0, '--size', 64)}
PACED = {f'paced_{rate}': ('p2p', '--pairs', 10, '--qos', 1, '--size', 64, '--rate', rate) for rate in (5000, 20000)}
CASES = SATURATED | PACED
OWN, BASE = 'Headwater', 'Headwater, base'


def read(results):
    """The results so far, by case and broker."""
    found = {}
    if results.exists():
        for line in results.read_text().splitlines():
            one = json.loads(line)
            found.setdefault((one['case'], one['broker']), []).append(one)
    return found


def start(name, chosen, folder):
    if name in (OWN, BASE):
        return brokers.headwater(chosen.binary if name == OWN else chosen.base, name, folder, 'default_flows=false')
    _, port, command = next(peer for peer in chosen.peer if peer[0] == name)
    return brokers.Broker(name, shlex.split(command), int(port), folder)


def measure(name, case, chosen):
    with tempfile.TemporaryDirectory() as folder:
        broker = start(name, chosen, pathlib.Path(folder))
        try:
            result = brokers.load(broker, *CASES[case], '--secs', chosen.secs, '--warmup', chosen.warmup)
        finally:
            broker.stop()
    line = json.dumps({'case': case, 'broker': name, 'load1': round(os.getloadavg()[0], 1)} | result)
    with open(chosen.results, 'a') as out:
        out.write(line + '\n')


def median(runs, key):
    return statistics.median(one[key] for one in runs)


def flags(runs):
    """What spoils a figure."""
    wrong = set().union(*(brokers.wrong(one) for one in runs))
    return ''.join(sorted(f' ({key})' for key in wrong)) + ('*' if any(one.get('gen_bound') for one in runs) else '')


def table(found, title, cases, key, show, allowed):
    """A row a broker; then Headwater's figure by the best peer's, which is to be at most `allowed`."""
    cases = [case for case in cases if any(case == one for one, _ in found)]
    names = list(dict.fromkeys(name for case, name in found if case in cases))
    if not cases:
        return
    print(f'| {title} | ' + ' | '.join(cases) + ' |\n|' + ' --- |' * (len(cases) + 1))
    for name in names:
        row = [show(found[case, name]) + flags(found[case, name]) if (case, name) in found else '–' for case in cases]
        print(f'| {name} | ' + ' | '.join(row) + ' |')
    row = []
    for case in cases:
        peers = [median(found[case, name], key) for name in names if name not in (OWN, BASE) and (case, name) in found]
        own = found.get((case, OWN))
        if not (peers and own):
            row.append('–')
            continue
        holds = allowed(median(own, key), min(peers))
        row.append(f'{median(own, key) / max(min(peers), 1e-9):.2f}' + ('' if holds else ', too much'))
    print('| Headwater by the best peer | ' + ' | '.join(row) + ' |\n')


def tables(found):
    cpu = 'cpu_s_per_million'
    table(found, 'CPU seconds a million (messages a second)', SATURATED, cpu,
          lambda runs: f'{median(runs, cpu):.2f} ({brokers.rate(median(runs, "recv_per_s"))})', lambda own, best: own < best)
    table(found, 'CPU seconds a million, paced', PACED, cpu,
          lambda runs: f'{median(runs, cpu):.1f}', lambda own, best: own <= 1.25 * best)
    for key, allowed in (('lat_p50_us', lambda own, best: own <= 1.5 * best), ('lat_p99_us', lambda own, best: own <= max(2 * best, 1000))):
        table(found, key.removeprefix('lat_').removesuffix('_us') + ' ms, paced', PACED, key,
              lambda runs: f'{median(runs, key) / 1000:.3f}', allowed)
    print('A name in brackets: messages that went wrong so in a run. * the load, not the broker, was the limit.')


def main():
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument('--peer', nargs=3, action='append', default=[], metavar=('NAME', 'PORT', 'COMMAND'))
    options.add_argument('--results', type=pathlib.Path, default=pathlib.Path('results.jsonl'))
    options.add_argument('--binary', type=pathlib.Path, default=brokers.ROOT / 'target/release/headwater')
    options.add_argument('--base', type=pathlib.Path)
    options.add_argument('--secs', type=int, default=3)
    options.add_argument('--warmup', type=int, default=1)
    options.add_argument('--runs', type=int, default=3)
    options.add_argument('--latency-runs', type=int, default=7)
    options.add_argument('--only', help='cases, by their names or beginnings of them')
    options.add_argument('--table', action='store_true', help='what --results has, nothing new')
    chosen = options.parse_args()
    if not chosen.table:
        brokers.build_tool()
        cases = [case for case in CASES if not chosen.only or case.startswith(tuple(chosen.only.split(',')))]
        names = [OWN] + [BASE] * bool(chosen.base) + [name for name, _, _ in chosen.peer]
        for turn in range(max(chosen.runs, chosen.latency_runs)):
            for case in cases:
                if turn >= (chosen.latency_runs if case in PACED else chosen.runs):
                    continue
                # Each is first in its turn.
                for name in names[turn % len(names):] + names[:turn % len(names)]:
                    if len(read(chosen.results).get((case, name), [])) <= turn:
                        measure(name, case, chosen)
    print(f'{time.strftime("%Y-%m-%d %H:%M", time.gmtime())} UTC, {os.cpu_count()} cores, Linux {platform.release()}, '
          f'load {os.getloadavg()[0]:.1f}; {brokers.first_line(chosen.binary, "--version")}\n')
    tables(read(chosen.results))


sys.exit(main())
