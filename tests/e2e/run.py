#!/usr/bin/env python3
"""Runs the end-to-end tests against a built server: run.py --binary PATH [WORD...]

Every function test_* of the files test_*.py beside this one, in the order of the files' lines; WORDs select by name.
"""

import argparse
import importlib
import pathlib
import sys
import time
import traceback

from harness import Failure, taken_ports


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--binary", required=True, type=pathlib.Path)
    parser.add_argument("words", nargs="*")
    options = parser.parse_args()
    binary = options.binary.resolve(strict=True)
    tests = []
    for path in sorted(pathlib.Path(__file__).parent.glob("test_*.py")):
        module = importlib.import_module(path.stem)
        found = [value for name, value in vars(module).items() if name.startswith("test_") and callable(value)]
        tests += sorted(found, key=lambda test: test.__code__.co_firstlineno)
    if options.words:
        tests = [test for test in tests if any(word in test.__name__ for word in options.words)]
    passed, failed = 0, []
    for test in tests:
        taken = taken_ports()
        if taken:
            sys.exit(f"port {', '.join(taken)} is taken: these tests use the standard ports, stop what listens there")
        begun = time.monotonic()
        try:
            test(str(binary))
            passed += 1
            print(f"ok      {test.__name__} {time.monotonic() - begun:.1f} s", flush=True)
        except Exception as error:
            failed.append(test.__name__)
            print(f"FAILED  {test.__name__} {time.monotonic() - begun:.1f} s", flush=True)
            if isinstance(error, Failure):
                print("    " + str(error).replace("\n", "\n    "), flush=True)
            else:
                traceback.print_exc(file=sys.stdout)
    print(f"RESULT {passed} passed, {len(failed)} failed")
    sys.exit(1 if failed or not tests else 0)


if __name__ == "__main__":
    main()
