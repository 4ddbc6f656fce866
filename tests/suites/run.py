#!/usr/bin/env python3
"""Runs outside MQTT suites against a built server: run.py --binary PATH --suites DIR [--only SUITE] [WORD...]

DIR holds their checkouts: paho.mqtt.testing, mosquitto, mqtt-lib. WORDs select tests by a part of their names. Every
suite prints its own "RESULT N passed, M failed"; what it gets wrong stands here with the specification's statement.
"""

import argparse
import pathlib
import sys
import time

import conformance
import headwater
import paho
import scripts
import sequences

CACHE = pathlib.Path(__file__).resolve().parent.parent.parent / ".cache" / "suites"


def run_paho(options):
    checkout = headwater.suite(options.suites, "paho.mqtt.testing", "interoperability")
    return paho.run(checkout, options.binary, options.words)


def run_sequences(options):
    checkout = headwater.suite(options.suites, "mosquitto", "test/broker/data")
    with headwater.server(options.binary, "default_flows = false\n") as running:
        return sequences.run(checkout, running.ports["tcp"], options.words)


def run_scripts(options):
    checkout = headwater.suite(options.suites, "mosquitto", "test/broker/test.py")
    return scripts.run(checkout, options.binary, options.words)


def run_conformance(options):
    checkout = headwater.suite(options.suites, "mqtt-lib", "crates/mqtt5-conformance")
    CACHE.mkdir(parents=True, exist_ok=True)
    return conformance.run(checkout, options.binary, CACHE, options.words)


SUITES = {"paho": run_paho, "sequences": run_sequences, "scripts": run_scripts, "conformance": run_conformance}


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--binary", required=True, type=lambda path: str(pathlib.Path(path).resolve(strict=True)))
    parser.add_argument("--suites", required=True)
    parser.add_argument("--only", choices=SUITES)
    parser.add_argument("words", nargs="*")
    options = parser.parse_args()
    ok = True
    for name in [options.only] if options.only else SUITES:
        begun = time.monotonic()
        try:
            passed, failed = SUITES[name](options)
        except headwater.Trouble as trouble:
            sys.exit(f"{name}: {trouble}")
        print(f"{name}: {time.monotonic() - begun:.0f} s\nRESULT {passed} passed, {failed} failed", flush=True)
        ok = ok and failed == 0 and passed > 0
    sys.exit(0 if ok else 1)


if __name__ == "__main__":
    main()
