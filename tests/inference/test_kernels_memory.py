"""The compiled kernels touch no memory that is not theirs, whatever they are given."""

from __future__ import annotations

import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parents[2]


@pytest.mark.thorough
def test_no_memory_is_touched_that_is_not_theirs(tmp_path: Path) -> None:
    """The kernels with the sanitizers of the compiler, fed with 200,000 bodies and matrices of many shapes."""
    gcc = shutil.which("gcc")
    if gcc is None:
        pytest.skip("there is no gcc here")
    sources = [str(path) for path in sorted((HERE / "src/kernels").glob("*.c"))]
    built = tmp_path / "_kernels.abi3.so"
    flags = ["-O1", "-g", "-std=c11", "-shared", "-fPIC", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
    command = [gcc, *flags, f"-I{sysconfig.get_path('include')}", *sources, "-o", str(built)]
    compiling = subprocess.run(command, capture_output=True, text=True, check=False)
    if "cannot find" in compiling.stderr and "san" in compiling.stderr:
        pytest.skip("this gcc has no sanitizers")
    assert compiling.returncode == 0, compiling.stderr
    script = tmp_path / "feed.py"
    script.write_text(FEED)
    runtime = subprocess.run([gcc, "-print-file-name=libasan.so"], check=True, capture_output=True, text=True)
    env = {
        "PATH": "/usr/bin:/bin",
        "LD_PRELOAD": runtime.stdout.strip(),
        "ASAN_OPTIONS": "detect_leaks=0",
        "PYTHONMALLOC": "malloc",
    }
    done = subprocess.run(
        [sys.executable, str(script), str(built)], env=env, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-4000:]
    taken, left, lifted, kept, whole, wrong = map(int, done.stdout.split())
    assert taken > 5_000
    assert left > 50_000
    assert lifted > 20_000
    assert kept > 20_000
    assert whole > 1_000
    assert wrong > 100


FEED = """
import importlib.util, random, sys
from array import array
spec = importlib.util.spec_from_file_location("_kernels", sys.argv[1])
kernels = importlib.util.module_from_spec(spec)
spec.loader.exec_module(kernels)
random.seed(7)
reader = kernels.Reader((("a", False, False), ("text", True, True), ("b", False, True), ("rows", True, False)))
bodies = [
    b'{"rows":[{"a":1.25,"text":"some","b":null,"rows":"x"},{"b":-3e5,"a":12345678901234567,"rows":"","text":null}]}',
    b'{"a":-1.2345,"text":"","b":1234567.25,"rows":""}',
    b' { "a" : 0.1 , "text" : "\\xc3\\xbc" , "b" : 17.000000000000001 , "rows" : "y" } ',
]
parts = [b'"', b"{", b"}", b"[", b"]", b",", b":", b"null", b"\\\\", b"\\x00", b"\\xff", b"9" * 30, b"e-27", b'"rows"']
tensors = [
    b'{"inputs":[{"name":"a","shape":[2,3],"datatype":"FP32","data":[[1.25,null,-3e5],[12345678901234567,0.1,7]]}]}',
    b'{"inputs":[{"data":["data","\\\\"],"name":"b"},{"data" : [ 1.5 , 2 ] }],"id":"x","data":[1]}',
    b'{"inputs":[%s]}' % b",".join([b'{"data":[0.123456789]}'] * 20),
]


def damaged(body):
    body = bytearray(body)
    for _ in range(random.choice((0, 1, 1, 2, 5))):
        where = random.randrange(len(body) + 1)
        kind = random.random()
        if kind < 0.4:
            body[where:where + random.randrange(3)] = random.choice(parts)
        elif kind < 0.7:
            del body[where:where + random.randrange(1, 9)]
        elif kind < 0.9:
            body[where:where] = body[:random.randrange(60)]
        else:
            body = body[:where] or bytearray(b"{")
    return bytes(body)


counts = [0, 0, 0, 0]
for at in range(100_000):
    counts[reader.read(damaged(random.choice(bodies))) is None] += 1
    counts[2 + (kernels.lift(damaged(random.choice(tensors))) is None)] += 1
print(*counts)


class Head:
    def __init__(self, length):
        self.length = length


heads = {b"GET / HTTP/1.1\\r\\nhost: x": Head(3), b"": Head(0), b"\\r": Head(1), b"odd": Head("x"), b"none": 7}
starts = [*heads, b"\\r\\n", b"\\r\\n\\r", b"GET", b"GET /\\r"]
found = [0, 0]
for at in range(20_000):
    some = [random.choice(bodies) for _ in range(random.randrange(6))]
    if some and random.random() < 0.3:
        some[random.randrange(len(some))] = damaged(random.choice(bodies))
    reader.read_alone(some)
    data = random.choice(starts) + random.choice((b"\\r\\n\\r\\n", b"\\r\\n\\r", b"")) + b"x" * random.randrange(5)
    try:
        found[kernels.find(heads, data) is None] += 1
    except (AttributeError, TypeError):
        pass
assert min(found) > 200, found

for at in range(5_000):
    many, width = random.randrange(5), random.randrange(3)
    form = (b"top", b"", b"gap", b"{", b":", (b"name",) * width, b"}")
    numbers = b"[%s]" % b",".join(random.choices([b"1", b"null", b"-1.5e-7"], k=many * width))
    cut = random.choice((0, 0, 1, 2, 9))
    try:
        kernels.letters(form, ["id" * at] * many, [b"label"] * many, numbers[:len(numbers) - cut])
    except ValueError:
        pass


def floats(many, kind="f"):
    return memoryview(array(kind, random.choices(VALUES, k=many)))


VALUES = [0.0, -0.0, 1.0, -1.5, float("nan"), float("inf"), -float("inf"), 3e38, 1e-45]
COUNTS = 1, 2, 7, 8, 9, 31, 32, 33, 130
counts = [0, 0]
for at in range(2_000):
    kernels.widen(at % 2)
    sizes = random.choices((0, 1, 2, 7, 16, 40, 300), k=random.randrange(1, 5))
    columns, rows = len(sizes), random.choice((1, 2, 8, 9, 300))
    trees, sums, word = (random.choice(of) for of in (COUNTS, (1, 3), "hiq"))
    leaves = random.choice((1, 7, 8 * array(word).itemsize - 1))
    shape = sum(sizes) + 2 * columns, trees
    words = array(word, random.randbytes(shape[0] * trees * array(word).itemsize))
    # All words have the last leaf, but for one in a table of twenty.
    for place in range(len(words)):
        words[place] |= 1 << (leaves - 1)
    if random.random() < 0.05:
        words[random.randrange(len(words))] &= ~(1 << (leaves - 1))
    table = memoryview(words).cast("B").cast(word, shape)
    starts = [sum(sizes[:c]) + 2 * c for c in range(columns)]
    gone = [start + size + 1 for start, size in zip(starts, sizes)]
    parts = [0, *sorted(random.choices(range(trees + 1), k=sums - 1)), trees]
    knots, values, numbers = floats(sum(sizes)), floats(trees * leaves), random.sample(range(columns), columns)
    # One place in twenty is wrong.
    for places in (starts, gone, numbers, parts):
        if random.random() < 0.05:
            places[random.randrange(len(places))] += random.choice((-1, 1, 2**40, -(2**62)))
    more = random.random() < 0.05
    matrix = floats(rows * columns).cast("B").cast("f", (rows, columns))
    try:
        forest = kernels.Forest(table, knots, sizes, starts, gone, numbers, values, leaves, parts, floats(sums))
        forest.sums(matrix, floats(rows * sums + more))
        tails = kernels.Tails(knots, sizes, floats(2 * (sum(sizes) + columns), "d"))
        tails.largest(matrix, floats(2 * rows + more, "d"))
        bounds = floats(columns, "d"), floats(columns, "d")
        kernels.narrow(bytes(floats(rows * columns, "d")), *bounds, floats(rows * columns))
        kernels.span(matrix, random.randrange(columns))
        kernels.exponents(floats(rows), 88.0)
        kernels.shares(floats(rows), floats(2 * rows + more))
        counts[0] += 1
    except ValueError:
        counts[1] += 1
print(*counts)
"""
