"""Real clients over every transport: tcp, tls, ws and wss on their standard ports, with the development certificate and with
certificates of clients (issue 4, "It shows" 3). QUIC has its client in crates/server/tests."""

import pathlib
import subprocess
import tempfile

from harness import CACHE, HERE, Failure, check, output, python, running, server

CLIENTS = HERE / "clients"
PORTS = {"tcp": 1883, "tls": 8883, "ws": 8083, "wss": 8084}


def ca_of(headwater):
    return headwater.data / "tls" / "ca.pem"


def urls(scheme_of):
    """One a transport; `scheme_of` are a client's own names for tcp, tls, ws and wss."""
    return [f"{scheme}://localhost:{PORTS[door]}" + ("/mqtt" if door.startswith("ws") else "")
            for door, scheme in scheme_of.items()]


def oks(text, expected):
    lines = [line for line in text.splitlines() if line.startswith("ok ")]
    check(len(lines) == expected, f"{expected} round trips were asked for:\n{text}")


def test_paho_python_over_tcp_tls_ws_and_wss(binary):
    with server(binary) as headwater:
        for transport, port in PORTS.items():
            oks(output(python("paho2"), CLIENTS / "paho_transports.py", transport, port, ca_of(headwater)), 2)


def test_mqttjs_in_node_over_tcp_tls_ws_and_wss(binary):
    with server(binary) as headwater:
        names = {"tcp": "mqtt", "tls": "mqtts", "ws": "ws", "wss": "wss"}
        oks(output("node", CLIENTS / "mqttjs" / "roundtrip.js", ca_of(headwater), *urls(names)), 8)


def test_mqttjs_in_chromium_over_ws_and_wss(binary):
    with server(binary):
        folder = CLIENTS / "mqttjs"
        text = output("node", folder / "browser.js", "/usr/bin/chromium", folder, *urls({"ws": "ws", "wss": "wss"}))
        oks(text, 4)


def test_go_paho_over_tcp_tls_ws_and_wss(binary):
    with server(binary) as headwater:
        names = {"tcp": "tcp", "tls": "ssl", "ws": "ws", "wss": "wss"}
        oks(output(CACHE / "paho-go-roundtrip", ca_of(headwater), "", "", *urls(names)), 8)


def test_mosquitto_clients_over_tls_with_and_without_a_client_certificate(binary):
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        output(python("paho2"), CLIENTS / "make_certificates.py", folder)
        pair = ["--cert", folder / "client.pem", "--key", folder / "client.key"]
        optional = ["--set", f"listeners.tls.client_ca_file={folder / 'ca.pem'}", "--set", "listeners.tls.client_certificates=optional"]
        required = [*optional[:-1], "listeners.tls.client_certificates=required"]
        for options, certificates in (([], [[], pair]), (optional, [[], pair]), (required, [pair])):
            with server(binary, *options) as headwater:
                to = ["-h", "localhost", "-p", PORTS["tls"], "--cafile", ca_of(headwater)]
                for own in certificates:
                    with running("stdbuf", "-oL", "mosquitto_sub", *to, *own, "-t", "tls/#", "-q", "2", "-v", "-d") as subscriber:
                        subscriber.wait_for("Subscribed")
                        output("mosquitto_pub", *to, *own, "-t", "tls/door", "-q", "2", "-m", "open")
                        subscriber.wait_for("tls/door open")
                if options is required:
                    refused_without_a_certificate(to)


def refused_without_a_certificate(to):
    try:
        output("mosquitto_pub", *to, "-t", "tls/door", "-m", "open", "-q", "1", seconds=20)
    except Failure as failure:
        check("still runs" not in str(failure), f"refused at once, not left waiting: {failure}")
    else:
        raise Failure("a client without a certificate was let in")


def test_clients_do_not_take_a_certificate_of_nobody(binary):
    """The development CA is needed: without it a client refuses, so what the others show is TLS that is checked."""
    with server(binary):
        done = subprocess.run(["mosquitto_pub", "-h", "localhost", "-p", str(PORTS["tls"]), "--capath", "/etc/ssl/certs", "-t", "x", "-m", "x"],
                              capture_output=True, text=True, timeout=20)
        check(done.returncode != 0, "mosquitto_pub trusted the development certificate without its CA")
