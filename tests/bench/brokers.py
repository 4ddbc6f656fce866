"""Brokers of a benchmark: started on free ports, loaded with mqttload, ended by their own ids."""
import contextlib, json, os, pathlib, signal, socket, subprocess, sys, time, urllib.request

ROOT = pathlib.Path(__file__).resolve().parents[2]
TOOL = ROOT / 'tests/mqttload/target/release/mqttload'


def free_port():
    with socket.socket() as s:
        s.bind(('127.0.0.1', 0))
        return s.getsockname()[1]


def wait_for(what, look, seconds=60):
    deadline = time.monotonic() + seconds
    while not look():
        if time.monotonic() > deadline:
            sys.exit(f'after {seconds} s: not {what}')
        time.sleep(0.02)


def answers(port):
    with contextlib.suppress(OSError):
        socket.create_connection(('127.0.0.1', port), 1).close()
        return True
    return False


class Broker:
    """One running broker; ended by its own id."""

    def __init__(self, name, command, port, folder, http=None):
        self.name, self.port, self.http = name, port, http
        if answers(port):
            sys.exit(f'{name}: something else listens on {port}')
        with open(folder / f'{name}.log', 'w') as log:
            self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        wait_for(f'{name} up', lambda: self.alive() and answers(port))

    def alive(self):
        if self.process.poll() is not None:
            sys.exit(f'{self.name} ended with {self.process.returncode}')
        return True

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(30)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def cpu_seconds(self):
        """User and system time of all its threads so far."""
        fields = pathlib.Path(f'/proc/{self.process.pid}/stat').read_text().rsplit(')', 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf('SC_CLK_TCK')

    def metric(self, sample):
        text = urllib.request.urlopen(f'http://127.0.0.1:{self.http}/metrics', timeout=10).read().decode()
        return int(next(line.rsplit(' ', 1)[1] for line in text.splitlines() if line.startswith(sample + ' ')))


def headwater(binary, name, folder, *settings):
    port, kafka, http = free_port(), free_port(), free_port()
    command = [str(binary), '--data-dir', str(folder / name)]
    doors = [f'listeners.{door}.bind=127.0.0.1:{at}' for door, at in (('tcp', port), ('kafka', kafka), ('http', http))]
    doors += [f'listeners.{door}.enabled=false' for door in ('tls', 'ws', 'wss', 'quic', 'https')]
    for setting in doors + list(settings):
        command += ['--set', setting]
    return Broker(name, command, port, folder, http)


def build_tool():
    subprocess.run(['cargo', 'build', '--release', '--quiet', '--manifest-path', str(ROOT / 'tests/mqttload/Cargo.toml')], check=True)


def load(broker, *case):
    """One run of mqttload against the broker; what it found, whether messages went wrong included."""
    command = [str(TOOL), *map(str, case), '--port', str(broker.port), '--cpu-pid', str(broker.process.pid)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    if done.returncode != 0:
        sys.exit(f'mqttload: {done.stderr}')
    result = json.loads(done.stdout)
    broker.alive()
    print(f'{broker.name} {" ".join(map(str, case))}: ' + ' '.join(
        f'{key}={result[key]}' for key in ('recv_per_s', 'cpu_s_per_million', 'lat_p50_us', 'lat_p99_us', 'other_cpu_s')), file=sys.stderr)
    return result


def wrong(result):
    """What a clean run has none of."""
    return {key: result[key] for key in ('lost', 'reordered', 'repeated', 'unacked', 'closed') if result.get(key)}


def rate(value):
    return f'{value / 1e6:.1f} M/s' if value >= 1e6 else f'{value / 1e3:.0f} k/s'


def first_line(*command):
    done = subprocess.run(command, capture_output=True, text=True)
    return (done.stdout + done.stderr).strip().splitlines()[0]
