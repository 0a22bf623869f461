# SPDX-License-Identifier: PostgreSQL
"""Makes tables out of records: what was to be reached and what was, and every contender's medians."""

import statistics

from parts import PATIENCE
from rig import UNSEEN

TITLES = {
    ("points", "a"): "points (a): one UPDATE",
    ("points", "b"): "points (b): commits every 10,000 rows",
    ("points", "c"): "points (c): the ORM way",
    ("full pages", "a"): "points, full pages (a): one UPDATE",
    ("full pages", "b"): "points, full pages (b): commits every 10,000 rows",
    ("uuid", "a"): "points, uuid keys (a): one UPDATE",
    ("cancel", "a"): "cancel (a): one order, one round trip, one commit",
    ("cancel", "b"): "cancel (b): procedure, a commit an order",
    ("cancel", "c"): "cancel (c): outer transaction",
    ("cancel", "d"): "cancel (d): one statement for all",
}

NOTES = """
- Durability is PostgreSQL's default; server settings are the same for all contenders; the server does not vacuum by
  itself.
- Each contender under traffic has a fresh file copy of the same shop, three periods old and vacuumed (so that updates
  find the room they leave behind, and nobody meets virgin pages or another's bloat), wholly in shared_buffers, after
  a CHECKPOINT. The order of contenders rotates from round to round; live traffic has the same random numbers in a
  round.
- Full pages are those of a table with the default fillfactor that was just loaded: there is no room for new versions of rows, and
  every index gets an entry for each. All else was measured on the reference schema, whose pages are half empty.
- Every contender also sets last_modified_at, and the sums of points and stock are checked after each of them.
- Times of roundsman are those of the process, from its start to its end; those of SQL contenders begin when they are
  connected. Cancel (a) is sent by pgbench, which need not look for the orders; (c) by psycopg, two round trips an
  order. (a) and (b) cancel all orders, or what they come to in {patience} seconds.
- Waits for locks are those that the server logged, from {unseen:.0f} ms on, for a lock of the contender's or behind
  somebody who waited for one. Shorter ones count as {unseen:.0f} ms. The longest flush is the longest COMMIT of a
  live transaction meanwhile.
- Figures are ratios of medians; waits are the longest of all rounds. The idle figure is of the seconds before each
  contender.
"""


def seconds(record):
    return record["end"] - record["begin"]


def rows(record):
    return record["rows"]


class Records:
    """Records of one storage."""

    def __init__(self, records):
        self.records = records

    def of(self, part, contender, **more):
        return [r for r in self.records if r["part"] == part and r["contender"] == contender
                and all(r.get(name) == value for name, value in more.items())]

    def median(self, value, part, contender, **more):
        """None where nothing was measured."""
        values = [value(r) for r in self.of(part, contender, **more)]
        values = [v for v in values if v is not None]
        return statistics.median(values) if values else None

    def rate(self, part, contender, **more):
        return self.median(lambda r: r["rows"] / seconds(r), part, contender, **more)

    def paces(self):
        return [pace for pace in ("full", "normal", "gentle") if self.of("points", pace)]

    def sizes(self, contender):
        return sorted({r["size"] for r in self.records if r["part"] == "growth" and r["contender"] == contender})


def ratio(a, b):
    return a / b if a is not None and b else None


def say(value, met, digits=2, unit=""):
    """A cell: the value, and whether it is what was to be reached."""
    if value is None:
        return "not measured"
    return f"{value:,.{digits}f}{unit}" + ("" if met else " (missed)")


def at_most(limit, value, **more):
    return say(value, value is not None and value <= limit, **more)


def at_least(limit, value, **more):
    return say(value, value is not None and value >= limit, **more)


def wall(r, contender, part="points"):
    return r.median(seconds, part, contender)


def p99(r, contender):
    return r.median(lambda record: record["live"]["p99"], "points", contender)


def idle_p99(r):
    values = [record["idle"]["p99"] for record in r.records if record["part"] == "points"]
    values = [value for value in values if value is not None]
    return statistics.median(values) if values else None


def lock_wait(r, storage):
    found = [record for pace in r.paces() for record in r.of("points", pace)]
    if not found:
        return "not measured"
    over = max(record["lock_wait_ms"] - (record["flush_ms"] if storage == "disk" else 0) for record in found)
    text = f"{max(record['lock_wait_ms'] for record in found):,.0f} ms"
    if storage == "disk":
        text += f", {over:+,.0f} ms against the longest flush"
    text += "" if over <= 50 else " (missed)"
    theirs = r.of("points", "a")
    return text + (f"; (a): {max(record['lock_wait_ms'] for record in theirs):,.0f} ms" if theirs else "")


def normal(r):
    latency, time = ratio(p99(r, "normal"), p99(r, "b")), ratio(wall(r, "normal"), wall(r, "a"))
    if latency is None or time is None:
        return "not measured"
    return f"{at_most(0.5, latency)}, wall time {at_most(1, time)}"


def payment_wait(r):
    """(c) holds its locks for as long as it runs, so its wait is scaled to as many orders."""
    ours, theirs = r.of("cancel", "full"), r.of("cancel", "c")
    if not ours or not theirs:
        return "not measured"
    scale = r.median(rows, "cancel", "full") / r.median(rows, "cancel", "c")
    wait, other = (max(record["payment_wait_ms"] for record in found) for found in (ours, theirs))
    text = f"1/{other * scale / wait:,.0f}" + ("" if other * scale / wait >= 100 else " (missed)")
    return f"{text}: {wait:,.0f} ms against {other:,.0f} ms" + (f" × {scale:.0f}" if scale > 1.05 else "")


def growing(r):
    sizes = r.sizes("points")
    if len(sizes) < 2:
        return "not measured"
    rates = [r.rate("growth", "points", size=size) for size in sizes]
    return at_least(0.85, rates[-1] / rates[-2]) + ": " + ", ".join(
        f"{rate / 1000:,.0f} k/s at {size:,}" for size, rate in zip(sizes, rates))


def backlog(r):
    sizes = r.sizes("cancel")
    if len(sizes) < 2:
        return "not measured"

    def values(name):
        return [r.median(lambda record: record[name], "growth", "cancel", size=size) for size in sizes]
    times = [r.median(seconds, "growth", "cancel", size=size) for size in sizes]
    # A table scan of the small one may be the right plan. Of rows, only those are touched that the indexes lead to.
    scanned = max(record["scanned"] for record in r.of("growth", "cancel", size=sizes[-1]))
    touched = zip(values("index_buffers"), values("heap_buffers"))
    return (f"{at_most(2, times[-1] / times[0])}: {', '.join(f'{time * 1000:.0f} ms' for time in times)}; buffers "
            + " and ".join(f"{index:.0f} of indexes + {heap:.0f} of rows" for index, heap in touched)
            + (f"; {scanned:,} rows read by table scans (missed)" if scanned else "; no table scan"))


def wal(r):
    def bytes_a_row(contender):
        values = [record["bytes"] / record["rows"] for record in r.of("wal", contender) if record["round"] >= 4]
        return statistics.median(values) if values else None
    ours, theirs = bytes_a_row("full"), bytes_a_row("a")
    value = ratio(ours, theirs)
    return at_most(1.05, value) + (f": {ours:.0f} against {theirs:.0f} bytes" if value else "")


def peak(r):
    """Apart for what was made: jobs differ, sizes must not."""
    found = {}
    for record in r.records:
        if "peak_kib" in record:
            label = f"{record['part']} {record['contender']}" + (f" {record['size']:,}" if "size" in record else "")
            found[label] = max(found.get(label, 0), record["peak_kib"] / 1024)
    if not found:
        return "not measured"
    sizes = [f"{found[label]:.1f} at {label.split()[-1]} users" for label in found if label.startswith("growth points")]
    most = max(found.values())
    return "; ".join([at_most(24, most, digits=1, unit=" MiB") + f" ({max(found, key=found.get)})", *sizes])


FIGURES = [
    ("points, `full`: wall time against (a)", "≤ 0.35",
     lambda r, _: at_most(0.35, ratio(wall(r, "full"), wall(r, "a")))),
    ("points, `full`: wall time against (b)", "≤ 0.85",
     lambda r, _: at_most(0.85, ratio(wall(r, "full"), wall(r, "b")))),
    ("points, `full`, random uuid keys: wall time against (a)", "≤ 0.7",
     lambda r, _: at_most(0.7, ratio(wall(r, "full", "uuid"), wall(r, "a", "uuid")))),
    ("points, `full`, full pages (fillfactor 100, the first round): wall time against (a), (b)", "not asked",
     lambda r, _: ", ".join(say(ratio(wall(r, "full", "full pages"), wall(r, other, "full pages")), True) for other in "ab")),
    ("points, any pace: longest wait of a live transaction for a lock of ours",
     "≤ 50 ms; on disk beyond the longest flush", lock_wait),
    ("points, `normal`: live p99 against (b)'s, and wall time against (a)", "≤ 0.5, ≤ 1", lambda r, _: normal(r)),
    ("points, `gentle`: live p99 against no round running", "≤ 2",
     lambda r, _: at_most(2, ratio(p99(r, "gentle"), idle_p99(r)))),
    ("points, `full`: rows/s against (c)", "≥ 30",
     lambda r, _: at_least(30, ratio(r.rate("points", "full"), r.rate("points", "c")), digits=1)),
    ("cancel: orders/s against (a)", "≥ 4.5",
     lambda r, _: at_least(4.5, ratio(r.rate("cancel", "full"), r.rate("cancel", "a")))),
    ("cancel: orders/s against (b)", "≥ 1.35",
     lambda r, _: at_least(1.35, ratio(r.rate("cancel", "full"), r.rate("cancel", "b")))),
    ("cancel: orders/s against (d)", "≥ 0.3",
     lambda r, _: at_least(0.3, ratio(r.rate("cancel", "full"), r.rate("cancel", "d")))),
    ("cancel: longest wait of a payment approval against (c)'s", "≤ 1/100", lambda r, _: payment_wait(r)),
    ("rows/s at the most users against a tenth", "≥ 0.85", lambda r, _: growing(r)),
    ("cancel of 100 among the most orders against a hundredth", "≤ 2, index pages only", lambda r, _: backlog(r)),
    ("WAL written per row, against (a), fourth period on", "≤ 1.05", lambda r, _: wal(r)),
    ("peak memory of a run", "< 24 MiB, the same at every size", lambda r, _: peak(r)),
    ("points with 1 % of the rows locked: time against undisturbed", "next to nothing",
     lambda r, _: say(ratio(wall(r, "locked", "stuck"), wall(r, "undisturbed", "stuck")), True)),
    ("points with 1,000 failing rows: time against undisturbed", "next to nothing",
     lambda r, _: say(ratio(wall(r, "failing", "stuck"), wall(r, "undisturbed", "stuck")), True)),
]


def table(lines):
    return "\n".join("| " + " | ".join(line) + " |" for line in [lines[0], ["---"] * len(lines[0]), *lines[1:]])


def cell(value):
    return "" if value is None else f"{value:,.1f}"


HEAD = ["contender", "seconds (fastest to slowest)", "rows/s", "live p50 ms", "p99 ms", "longest ms", "idle p99 ms",
        "longest wait for a lock of its ms", "of a payment ms", "longest flush ms", "peak MiB"]


def details(r):
    """A row for each contender under traffic."""
    lines = [HEAD]
    for part in ("points", "uuid", "full pages", "cancel"):
        for contender in ("a", "b", "c", "d", "full", "normal", "gentle"):
            if found := r.of(part, contender):
                lines.append(detail(r, part, contender, found))
    return table(lines) if len(lines) > 1 else ""


def detail(r, part, contender, found):
    def median(moment, name):
        return cell(r.median(lambda record: record[moment][name], part, contender))

    def most(value):
        values = [value(record) for record in found]
        return cell(max((v for v in values if v is not None), default=None))
    job = {"uuid": "points, uuid keys", "full pages": "points, full pages"}.get(part, part)
    times = sorted(map(seconds, found))
    return [TITLES.get((part, contender)) or f"{job}: roundsman, `{contender}`",
            f"{statistics.median(times):.2f} ({times[0]:.2f} to {times[-1]:.2f})", f"{r.rate(part, contender):,.0f}",
            median("live", "p50"), median("live", "p99"), most(lambda x: x["live"]["max"]), median("idle", "p99"),
            most(lambda x: x["lock_wait_ms"]), most(lambda x: x.get("payment_wait_ms")), most(lambda x: x["flush_ms"]),
            most(lambda x: x["peak_kib"] / 1024 if "peak_kib" in x else None)]


def report(machine, records):
    """The whole, in Markdown."""
    storages = [name for name in ("disk", "tmpfs") if any(r["storage"] == name for r in records)]
    by = {name: Records([r for r in records if r["storage"] == name]) for name in storages}
    lines = [["what", "to reach", *storages]]
    lines += [[what, reach, *(figure(by[name], name) for name in storages)] for what, reach, figure in FIGURES]
    text = [" · ".join(f"{name} {value}" for name, value in machine.items()), table(lines)]
    if failed := sum(r[kind]["failed"] for r in records for kind in ("live", "idle", "payments") if kind in r):
        text.append(f"{failed} live transactions failed (deadlocks).")
    text += [f"**{name}**\n\n{found}" for name in storages if (found := details(by[name]))]
    text.append(NOTES.format(unseen=UNSEEN, patience=PATIENCE).strip())
    return "\n\n".join(text) + "\n"
