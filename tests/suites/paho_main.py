"""Runs one test file of eclipse/paho.mqtt.testing as its authors do, with the options that its unittest would not take.

usage: paho_main.py FILE HOST PORT [TEST...]

Its client of MQTT 5.0 ends a connection whose SUBACK has a Reason Code other than 0, 1, 2 and 0x80, and a test wants 0x80
of a refusal. The specification has nine codes for refusals and names 0x87 for this one (3.9.3), so each is shown to
that client as 0x80.
"""

import functools
import os
import runpy
import sys
import unittest

file, host, port, *tests = sys.argv[1:]
sys.path.insert(0, os.getcwd())


def show_refusals_as_0x80():
    import mqtt.formats.MQTTV5 as formats

    unpack = formats.Subacks.unpack

    def unpack_suback(self, buffer, **options):
        # Fixed header, Packet Identifier, properties; the rest is Reason Codes, which are no other byte's value here.
        at = 1 + next(place for place in range(1, 5) if buffer[place] < 128) + 2
        at += 1 + buffer[at]
        codes = bytes(0x80 if code > 0x80 else code for code in buffer[at:])
        return unpack(self, buffer[:at] + codes, **options)

    formats.Subacks.unpack = unpack_suback


if "5" in file:
    show_refusals_as_0x80()
unittest.main = functools.partial(unittest.main, argv=[file, *(f"Test.{name}" for name in tests)])
sys.argv = [file, "--hostname", host, "--port", port]
runpy.run_path(file, run_name="__main__")
