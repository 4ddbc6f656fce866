"""Asks the document store and a server of MongoDB's protocol the same, and reports each difference.

Documents, filters and sorts are drawn at random from few names and values, so that they meet often.
The server is FerretDB 1.24, which is not MongoDB: where the two are known to differ (see `known`) we
keep to MongoDB, and such differences are counted apart.

    python filters.py --uri mongodb://127.0.0.1:PORT/ --answer target/debug/examples/answer [--seed N]

Needs pymongo; `cargo build -p headwater-docstore --example answer` makes the other side.
"""

import argparse
import json
import random
import subprocess
import sys

import pymongo
from pymongo.errors import OperationFailure

SCALARS = [
    None, True, False, 0, 1, 1.0, 2, 2.5, -1, 0.1, 0.3, 1e300, 9007199254740992, 9007199254740993,
    9007199254740993.0, 9223372036854775807, "", "a", "b", "[", "1", "\u00e4", {}, [],
]
NAMES = ["a", "b", "0", "1"]


def value(draw, depth=3, in_array=False):
    """No array directly in an array: FerretDB 1.24 cannot store it."""
    kind = draw.random()
    if depth == 0 or kind < 0.5:
        return draw.choice([s for s in SCALARS if not (in_array and s == [])])
    if kind < 0.75 and not in_array:
        return [value(draw, depth - 1, True) for _ in range(draw.randrange(3))]
    return {draw.choice(NAMES): value(draw, depth - 1) for _ in range(draw.randrange(3))}


def path(draw):
    return ".".join(["payload"] + [draw.choice(NAMES) for _ in range(draw.randrange(1, 4))])


def test(draw):
    if draw.random() < 0.2:
        return {"$exists": draw.random() < 0.5}
    if draw.random() < 0.3:
        listed = [value(draw, 1, True) for _ in range(draw.randrange(4))]
        return {draw.choice(["$in", "$nin"]): listed}
    one = {draw.choice(["$eq", "$ne", "$gt", "$gte", "$lt", "$lte"]): value(draw, 2)}
    return {"$not": one} if draw.random() < 0.2 else one


def query(draw, depth=2):
    if depth and draw.random() < 0.3:
        operator = draw.choice(["$and", "$or", "$nor"])
        return {operator: [query(draw, depth - 1) for _ in range(draw.randrange(1, 4))]}
    wanted = value(draw, 2) if draw.random() < 0.3 else test(draw)
    if isinstance(wanted, dict) and not wanted:
        wanted = {"$exists": True}
    return {path(draw): wanted}


def known(document, question, is_sort=False):
    """Why FerretDB judges this document otherwise than MongoDB does, or None.

    MongoDB's side of it: jstests/core/null_query_semantics.js for the first, the tests named
    ArrayIndex in path_test.cpp for the second, the manual's "query an array" for the third.
    """
    arrays = list(arrays_in(document))
    objects = [item for array in arrays for item in array if isinstance(item, dict)]
    if any(not any(isinstance(item, dict) for item in array) for array in arrays):
        return "a path beyond an array without objects leads nowhere; FerretDB says missing"
    if objects and any(f".{number}" in json.dumps(question) for number in "01"):
        return "a number in a path is also a field's name inside an array; not for FerretDB"
    if objects and (is_sort or "null" in json.dumps(question)):
        return "arrays of objects: FerretDB does not sort by their fields, nor sees one missing"
    if {} in objects:
        return "an empty object in an array is equal to {}; not for FerretDB"
    return None


def arrays_in(value):
    inside = []
    if isinstance(value, list):
        yield value
        inside = value
    elif isinstance(value, dict):
        inside = value.values()
    for item in inside:
        yield from arrays_in(item)


def theirs(collection, question, by=None):
    """The ids a server finds, or what it says instead."""
    try:
        cursor = collection.find(question, {"_id": 1})
        if by:
            return [d["_id"] for d in cursor.sort(by)]
        return sorted(d["_id"] for d in cursor)
    except OperationFailure as error:
        return f"error {error.details.get('errmsg', error)}"


def main():
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--uri", required=True)
    options.add_argument("--answer", required=True)
    options.add_argument("--seed", type=int, default=1)
    options.add_argument("--documents", type=int, default=150)
    options.add_argument("--queries", type=int, default=500)
    options.add_argument("--differences", type=int, default=20, help="how many to print")
    options = options.parse_args()
    draw = random.Random(options.seed)

    documents = [value(draw) for _ in range(options.documents)]
    collection = pymongo.MongoClient(options.uri)["docs"]["answers"]
    collection.drop()
    collection.insert_many({"_id": n, "payload": d} for n, d in enumerate(documents))

    filters = [query(draw) for _ in range(options.queries)]
    sorts = [{path(draw): draw.choice([1, -1])} for _ in range(options.queries // 10)]
    asked = [("insert", d) for d in documents] + [("filter", f) for f in filters]
    asked += [("sort", {**s, "offset": 1}) for s in sorts]
    text = "".join(f"{verb} {json.dumps(what)}\n" for verb, what in asked)
    run = subprocess.run([options.answer], input=text, capture_output=True, text=True, check=True)
    answers = run.stdout.splitlines()

    refused, reasons, unknown = 0, {}, 0
    for n, (what, ours) in enumerate(zip(filters + sorts, answers, strict=True)):
        is_sort = n >= len(filters)
        by = [*what.items(), ("_id", 1)] if is_sort else None
        expected = theirs(collection, {} if is_sort else what, by)
        if isinstance(expected, str):
            refused += 1
            continue
        if ours.startswith("error"):
            unknown += 1
            print(f"{json.dumps(what)}\n  ours: {ours}")
            continue
        ours = json.loads(ours)
        if is_sort:
            plain = [[d for d in ids if not known(documents[d], what, True)] for ids in (ours, expected)]
            differ = [(a, b) for a, b in zip(*plain) if a != b][:1]
            if differ:
                unknown += 1
                print(f"{json.dumps(what)} sorted")
                print(*(f"  {json.dumps(documents[d])}" for d in differ[0]), sep="\n")
            continue
        for d in sorted(set(ours) ^ set(expected)):
            reason = known(documents[d], what)
            if reason:
                reasons[reason] = reasons.get(reason, 0) + 1
                continue
            unknown += 1
            if unknown <= options.differences:
                who = "ours" if d in ours else "theirs"
                print(f"{json.dumps(what)}\n  only {who}: {json.dumps(documents[d])}")
    for reason, count in reasons.items():
        print(f"known, {count} times: {reason}")
    total = len(filters) + len(sorts)
    print(f"{total} asked, {refused} refused by the server, {unknown} unknown differences")
    return 1 if unknown else 0


if __name__ == "__main__":
    sys.exit(main())
