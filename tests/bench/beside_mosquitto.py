#!/usr/bin/env python3
"""Headwater beside mosquitto in one run: latency at a fixed rate, CPU seconds a million messages, an idle connection.

  tests/bench/beside_mosquitto.py [--binary target/release/headwater] [--secs 4] [--runs 7] [--only latency,cpu,flows,idle]

Both brokers run all the time and are loaded in turn, so that what else the machine does meets both. Each figure is the
median of its runs; the latency has --runs of them, the CPU three. Needs mosquitto, and cargo for tests/mqttload.
Compare only what stands in one table."""
import argparse, contextlib, json, os, pathlib, platform, statistics, subprocess, sys, tempfile, time

from brokers import ROOT, TOOL, Broker, build_tool, first_line, free_port, headwater, load, rate, wait_for, wrong

PAIRS, SIZE, RATE = 10, 64, 5000
MOSQUITTO = """listener {port} 127.0.0.1
allow_anonymous true
persistence false
max_inflight_messages 1000
max_queued_messages 0
set_tcp_nodelay true
"""


def mosquitto(folder):
    port, conf = free_port(), folder / 'mosquitto.conf'
    conf.write_text(MOSQUITTO.format(port=port))
    return Broker('mosquitto', ['mosquitto', '-c', str(conf)], port, folder)


def loaded(broker, qos, secs, *more):
    result = load(broker, 'p2p', '--pairs', PAIRS, '--qos', qos, '--size', SIZE, '--secs', secs, '--warmup', 1, *more)
    if wrong(result):
        sys.exit(f'{broker.name} at QoS {qos}: {wrong(result)}')
    return result


def median(results, key):
    return statistics.median(result[key] for result in results)


def cpu_table(brokers, secs):
    found = {broker.name: {qos: [] for qos in (0, 1, 2)} for broker in brokers}
    for _ in range(3):
        for qos in (0, 1, 2):
            for broker in brokers:
                found[broker.name][qos].append(loaded(broker, qos, secs))
    print('| CPU seconds a million delivered messages | QoS 0 | QoS 1 | QoS 2 |\n| --- | --- | --- | --- |')
    for broker in brokers:
        row = [f'{median(one, "cpu_s_per_million"):.2f} ({rate(median(one, "recv_per_s"))})' for one in found[broker.name].values()]
        print(f'| {broker.name} | ' + ' | '.join(row) + ' |')
    print()


def flows_line(broker, secs):
    """The default flows: each message is a synced record, and a document somewhat later."""
    records = lambda: broker.metric('headwater_log_records_total')
    documents = lambda: broker.metric('headwater_sink_documents_total{result="written"}')
    runs, whole = [], []
    for _ in range(3):
        before, cpu, written = records(), broker.cpu_seconds(), documents()
        runs.append(loaded(broker, 1, secs))
        new = records() - before
        wait_for('every record a document', lambda: documents() - written >= new, 300)
        whole.append((broker.cpu_seconds() - cpu) / new * 1e6)
    print(f'Default flows, QoS 1: {median(runs, "cpu_s_per_million"):.2f} CPU seconds a million while it ran '
          f'({rate(median(runs, "recv_per_s"))}), {statistics.median(whole):.2f} a million records with the documents that were '
          'written after it.\n')


def latency_table(brokers, secs, runs):
    found = {broker.name: [] for broker in brokers}
    for _ in range(runs):
        for broker in brokers:
            found[broker.name].append(loaded(broker, 1, secs, '--rate', str(RATE)))
    print(f'| latency at {RATE:,} messages a second, QoS 1, ms | p50 | p99 |\n| --- | --- | --- |')
    for broker in brokers:
        row = [f'{median(found[broker.name], key) / 1000:.3f}' for key in ('lat_p50_us', 'lat_p99_us')]
        print(f'| {broker.name} | ' + ' | '.join(row) + ' |')
    print()


def idle_line(broker):
    command = [str(TOOL), 'conn', '--port', str(broker.port), '--n', '10000', '--rate', '2000', '--hold', '5', '--settle', '3',
               '--parallel', '200', '--pid', str(broker.process.pid)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    if done.returncode != 0:
        sys.exit(f'mqttload: {done.stderr}')
    result = json.loads(done.stdout)
    print(f'{broker.name}: {result["rss_per_conn_b"]:,} bytes of resident memory an idle connection at {result["connected"]:,}.\n')


def main():
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument('--binary', type=pathlib.Path, default=ROOT / 'target/release/headwater')
    options.add_argument('--secs', type=int, default=4)
    options.add_argument('--runs', type=int, default=7)
    options.add_argument('--only', default='latency,cpu,flows,idle')
    chosen = options.parse_args()
    cases = chosen.only.split(',')
    os.environ['PATH'] += ':/usr/sbin'
    build_tool()
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as ending:
        folder = pathlib.Path(folder)

        def started(broker):
            ending.callback(broker.stop)
            return broker
        print(f'{time.strftime("%Y-%m-%d %H:%M", time.gmtime())} UTC, {os.cpu_count()} cores, Linux {platform.release()}, '
              f'load {os.getloadavg()[0]:.1f}; {first_line(chosen.binary, "--version")}; {first_line("mosquitto", "-h")}\n')
        brokers = [started(mosquitto(folder)), started(headwater(chosen.binary, 'Headwater, no flows', folder, 'default_flows=false'))]
        if 'latency' in cases:
            latency_table(brokers, chosen.secs, chosen.runs)
        if 'cpu' in cases:
            cpu_table(brokers, chosen.secs)
        if 'flows' in cases:
            flows_line(started(headwater(chosen.binary, 'Headwater, default flows', folder)), chosen.secs)
        if 'idle' in cases:
            idle_line(started(headwater(chosen.binary, 'Headwater', folder, 'default_flows=false')))


main()
