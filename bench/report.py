"""Tables of docs/performance.md from the results of bench/run."""

import json
import statistics

from servers import DESCRIPTIONS, HEADS, ROOT

DOCUMENT = ROOT / "docs" / "performance.md"
INSTRUCTIONS = ROOT / "bench" / "instructions.json"
BEGIN, END = "<!-- the figures, written by bench/run -->\n", "<!-- the end of the figures -->\n"
# A document with fewer rounds, or with more other work on the machine, says that it is a trial.
ENOUGH_ROUNDS = 5
MAX_BUSY = 0.05


def write(results):
    text = DOCUMENT.read_text()
    before, rest = text.split(BEGIN)
    _, after = rest.split(END)
    DOCUMENT.write_text(before + BEGIN + document(results) + END + after)


def document(results):
    machine, busy = results["machine"], max(results["busy"])
    text = (f"Measured on {machine['date']} at commit {machine['commit']}: {machine['cpu']}, {machine['cores']} cores, "
            f"Linux {machine['kernel']}.\nBuilt with {machine['rustc']}; {machine['python']}. Rounds: "
            f"{results['rounds']}, with {results['seconds']:g} seconds of load for each size of head.\n"
            f"Load average at the start: {machine['load']:.2f}. Other work used at most {busy:.0%} of the processors' "
            "time between rounds.\n")
    if results["rounds"] < ENOUGH_ROUNDS or busy > MAX_BUSY:
        text += "\n**This is a trial, not a measurement:** too few rounds, or other work on the machine.\n"
    text += "\n### Goals\n\n\"Holds\" compares the figure for 59-byte heads with \"must\".\n\n" + goals(results)
    text += "\n### All servers\n\n" + tables(results)
    text += "\n### Where this program loses\n\n" + losses(results)
    text += "\n### Microbenchmarks\n\nMedians, in nanoseconds per item.\n\n" + micro(results)
    return text


def tables(results):
    text = "".join(table(results, head) + "\n" for head in HEADS)
    return text + telemetry_table(results)


def table(results, head):
    """One size of head: rate, processor time, latency."""
    text = f"Heads of {head} bytes:\n\n| server | req/s | of its own off | CPU µs per request | added | p50 ms | p99 ms |\n"
    text += "|---|---|---|---|---|---|---|\n"
    for name in results["trials"]:
        m = Medians(results, head)
        off = off_of(name)
        is_base = off == name or off not in results["trials"]
        share = "" if is_base else f"{m.ratio(name, off, 'per_second'):.2f}"
        added = "" if is_base else f"{m.added(name, off):+.1f}"
        text += (f"| {DESCRIPTIONS[name]} | {m(name, 'per_second'):,.0f} | {share} | {m(name, 'cpu_us'):.1f} | {added} | "
                 f"{m(name, 'p50_us') / 1000:.2f} | {m(name, 'p99_us') / 1000:.2f} |\n")
    return text


def telemetry_table(results):
    """Memory and losses of whole runs, with both sizes of head."""
    text = "Both sizes of head in one run. Losses are summed over all rounds:\n\n"
    text += "| server | start ms | peak MB | bytes per span | lost, of those expected |\n|---|---|---|---|---|\n"
    for name, trials in results["trials"].items():
        median = lambda figure: statistics.median(figure(trial) for trial in trials)
        spans = median(lambda trial: trial["received"]["spans"])
        size = f"{median(lambda trial: trial['received']['span_bytes']) / spans:,.0f}" if spans else ""
        lost = ", ".join(f"{lost:,} of {expected:,} {kind.replace('_', ' ')}"
                         for kind, (lost, expected) in lost_of(trials).items())
        if drops := sum(trial["kernel_drops"] for trial in trials):
            lost += f"; {drops:,} of them at the receiver's socket"
        text += (f"| {DESCRIPTIONS[name]} | {median(lambda trial: trial['start_ms']):,.0f} | "
                 f"{median(lambda trial: trial['peak_mb']):.1f} | {size} | {lost} |\n")
    return text


def lost_of(trials):
    """Returns, for each kind of telemetry, the number that was lost and the number expected. A request
    that was answered after the load generator had given up makes a surplus."""
    kinds = {}
    for trial in trials:
        for kind, lost in trial["lost"].items():
            before = kinds.get(kind, (0, 0))
            kinds[kind] = (before[0] + max(lost, 0), before[1] + lost + trial["received"][kind])
    return kinds


def goals(results):
    rows = []

    def goal(what, measured, must, aim, is_most=True, unit="", digits=2):
        """`measured` is a figure, or one for each size of head. The first one counts."""
        figures = measured if isinstance(measured, list) else [measured]
        show = lambda figure: f"{figure:,.{digits}f}{unit}"
        holds = figures[0] <= must if is_most else figures[0] >= must
        browser = show(figures[1]) if len(figures) > 1 else ""
        sign = "≤" if is_most else "≥"
        rows.append(f"| {what} | {show(figures[0])} | {browser} | {sign} {must:g}{unit} | {sign} {aim:g}{unit} | "
                    f"{'yes' if holds else '**no**'} |\n")

    instructions = json.loads(INSTRUCTIONS.read_text())
    sha = lambda name: instructions[f"{name}, of it SHA-256"]
    off = instructions["off"]
    added = lambda name: (instructions[name] - sha(name) - off) / 1000
    goal("instructions per request, all off", off / 1000, 55, 50, unit=" k", digits=1)
    goal("instructions added by OTLP", added("honeycomb"), 12, 9, unit=" k", digits=1)
    goal("instructions added by X-Ray", added("xray"), 13, 9, unit=" k", digits=1)
    goal("instructions added by CloudWatch, without SHA-256", added("cloudwatch"), 9, 6, unit=" k", digits=1)
    goal("instructions added by all three without SHA-256, of those of off", added("all") * 1000 / off, 0.55, 0.30)

    heads = [Medians(results, head) for head in HEADS]
    both = lambda figure: [figure(medians) for medians in heads]
    goal("CPU added by OTLP", both(lambda m: m.added("ours-otlp", "ours-off")), 5.5, 4, unit=" µs", digits=1)
    goal("CPU added by all three", both(lambda m: m.added("ours-all", "ours-off")), 16, 12, unit=" µs", digits=1)
    goal("CPU added by OTLP, ours / axum + SDK http/proto",
         both(lambda m: m.added("ours-otlp", "ours-off") / m.added("axum-sdk-proto", "axum-off")), 0.45, 0.4)
    goal("req/s, OTLP / all off", both(lambda m: m.ratio("ours-otlp", "ours-off", "per_second")), 0.92, 0.95, False)
    goal("req/s, all three / all off", both(lambda m: m.ratio("ours-all", "ours-off", "per_second")), 0.80, 0.92, False)
    goal("req/s, all off / tiny_http", both(lambda m: m.ratio("ours-off", "tiny_http", "per_second")), 1.15, 1.3, False)
    trials = results["trials"]
    goal("peak memory under load, all three", statistics.median(trial["peak_mb"] for trial in trials["ours-all"]),
         16, 8, unit=" MB", digits=1)
    lost = [lost_of(trials[name]) for name in trials if name.startswith("ours")]
    datagrams = max(kinds["datagrams"][0] / kinds["datagrams"][1] for kinds in lost if "datagrams" in kinds)
    goal("X-Ray datagrams lost at saturation", datagrams * 100, 0.1, 0, unit=" %", digits=3)
    goal("spans lost at saturation", sum(kinds["spans"][0] for kinds in lost if "spans" in kinds), 0, 0, digits=0)
    goal("log events lost at saturation", sum(kinds["log_events"][0] for kinds in lost if "log_events" in kinds), 0, 0,
         digits=0)
    goal("req/s with all three, ours / Flask", both(lambda m: m.ratio("ours-all", "flask-all", "per_second")), 20, 30,
         False, digits=1)
    goal("CPU per request with all three, Flask / ours", both(lambda m: m.ratio("flask-all", "ours-all", "cpu_us")),
         20, 30, False, digits=1)

    micros = results["micro"]
    ns = {name: statistics.median(rounds) for name, rounds in micros.items()}
    for group, text, must, aim in (("child_span", "child span with 3 attributes", 0.6, 0.3),
                                   ("trace_of_two_spans", "trace of two spans", 0.7, 0.5)):
        for ending, words in (("", "calling thread"), ("_to_the_end", "all threads")):
            each = zip(micros[f"{group}/ours{ending}"], micros[f"{group}/fastrace{ending}"])
            goal(f"{text}, {words}: ours / fastrace", statistics.median(a / b for a, b in each), must, aim)
    goal("OTLP, one span", ns["encode/otlp_span"], 400, 300, unit=" ns", digits=0)
    goal("X-Ray, document of two spans", ns["encode/xray_document"], 450, 350, unit=" ns", digits=0)
    goal("SigV4, 1 KB", ns["sigv4_1_kb"] / 1000, 2, 1.8, unit=" µs")
    header = "| figure | 59-byte heads | 581-byte heads | must | aim | holds |\n|---|---|---|---|---|---|\n"
    return header + "".join(rows)


def losses(results):
    """Every figure in which a peer with the same kind of telemetry is better."""
    trials = results["trials"]
    peers = {"ours-off": ["tiny_http", "axum-off", "flask-off"],
             "ours-otlp": [name for name in trials if name.startswith("axum") and name != "axum-off"],
             "ours-all": ["flask-all"]}
    pairs = [(mine, peer) for mine, theirs in peers.items() for peer in theirs]

    def lost(ours, theirs, digits=1, more_is_better=False):
        is_lost = ours < theirs if more_is_better else ours > theirs
        return f"{ours:,.{digits}f} / {theirs:,.{digits}f}" if is_lost else ""

    def rows(title, header, cells):
        text = f"{title}:\n\n| ours | against | {' | '.join(header)} |\n|---|---|{'---|' * len(header)}\n"
        for mine, peer in pairs:
            values = cells(mine, peer)
            if any(values):
                text += f"| {DESCRIPTIONS[mine]} | {DESCRIPTIONS[peer]} | {' | '.join(values)} |\n"
        return text + "\n"

    def loaded(head):
        m = Medians(results, head)
        has_off = lambda name: off_of(name) != name
        return lambda mine, peer: [
            lost(m(mine, "per_second"), m(peer, "per_second"), 0, more_is_better=True),
            lost(m(mine, "cpu_us"), m(peer, "cpu_us")),
            lost(m.added(mine, off_of(mine)), m.added(peer, off_of(peer))) if has_off(mine) and has_off(peer) else "",
            lost(m(mine, "p50_us") / 1000, m(peer, "p50_us") / 1000, 2),
            lost(m(mine, "p99_us") / 1000, m(peer, "p99_us") / 1000, 2),
        ]

    def whole_run(mine, peer):
        pair = lambda figure: (statistics.median(figure(trial) for trial in trials[name]) for name in (mine, peer))
        size = lambda trial: trial["received"]["span_bytes"] / max(trial["received"]["spans"], 1)
        return [lost(*pair(lambda trial: trial["start_ms"]), 0), lost(*pair(lambda trial: trial["peak_mb"])),
                lost(*pair(size), 0)]

    text = "Only lost figures are shown, as ours / theirs.\n\n"
    for head in HEADS:
        header = ["req/s", "CPU µs per request", "CPU µs added", "p50 ms", "p99 ms"]
        text += rows(f"Heads of {head} bytes", header, loaded(head))
    text += rows("Whole runs", ["start ms", "peak MB", "bytes per span"], whole_run)
    for group in ("child_span", "trace_of_two_spans"):
        for ending in ("", "_to_the_end"):
            ours, theirs = (statistics.median(results["micro"][f"{group}/{name}{ending}"])
                            for name in ("ours", "fastrace"))
            if ours > theirs:
                text += f"- `{group}/ours{ending}`: {ours:,.0f} ns, fastrace {theirs:,.0f} ns\n"
    return text


def micro(results):
    rows = "".join(f"| `{name}` | {statistics.median(ns):,.0f} |\n" for name, ns in results["micro"].items())
    return "| benchmark | ns |\n|---|---|\n" + rows


def off_of(name):
    """The same server without telemetry."""
    return name if name == "tiny_http" else name.split("-")[0] + "-off"


class Medians:
    """Medians over the rounds, for one size of head. Ratios and differences are those of each round,
    because both servers met the same disturbances in it."""

    def __init__(self, results, head):
        self.trials, self.head = results["trials"], str(head)

    def __call__(self, name, figure):
        return statistics.median(self.each(name, figure))

    def each(self, name, figure):
        return [trial[self.head][figure] for trial in self.trials[name]]

    def ratio(self, name, base, figure):
        return statistics.median(a / b for a, b in zip(self.each(name, figure), self.each(base, figure)))

    def added(self, name, base):
        return statistics.median(a - b for a, b in zip(self.each(name, "cpu_us"), self.each(base, "cpu_us")))
