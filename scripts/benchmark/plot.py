"""Draws growth: what operations and memory cost, the more files there are.

Arguments: the JSON of `scripts/bench -files`, and the SVG to write. Run it with scripts/plot.
"""

import json
import statistics
import sys

import matplotlib

matplotlib.use("svg")
matplotlib.rcParams["svg.hashsalt"] = "kmsfs"  # the same picture is the same file
matplotlib.rcParams["svg.fonttype"] = "none"
import matplotlib.pyplot as plt  # noqa: E402

TIMES = [("create_us", "create"), ("lookup_us", "look up, cold"), ("readdir_us", "list, an entry"), ("unlink_us", "unlink")]


def medians(points, value):
    """The counts of files in order, and the median of all rounds for each."""
    counts = sorted({p["files"] for p in points})
    return counts, [statistics.median(value(p) for p in points if p["files"] == n) for n in counts]


def draw(results, out):
    subjects = list(dict.fromkeys(p["subject"] for p in results["points"]))
    panels = list(plt.subplots(2, 3, figsize=(12, 6.5), layout="constrained")[1].flat)
    for subject in subjects:
        points = [p for p in results["points"] if p["subject"] == subject]
        for panel, (key, name) in zip(panels, TIMES):
            panel.plot(*medians(points, lambda p: p[key]), marker="o", label=subject)
            panel.set_title(name + " (µs)")
        if any(p["known_kib"] for p in points):
            panels[4].plot(*medians(points, lambda p: (p["known_kib"] - p["mounted_kib"]) * 1024 / p["files"]), marker="o", label=subject)
            panels[5].plot(*medians(points, lambda p: p["known_kib"] / 1024), marker="o", label=f"{subject}: all known")
        if any(p["forgotten_kib"] for p in points):
            panels[5].plot(*medians(points, lambda p: p["forgotten_kib"] / 1024), marker="o", ls="--", label=f"{subject}: forgotten")
    panels[4].set_title("resident memory for an inode (bytes)")
    panels[5].set_title("resident memory (MiB)")
    for panel in panels:
        panel.set_xscale("log")
        panel.set_xlabel("files in the directory")
        panel.set_ylim(bottom=0)
        panel.grid(alpha=0.3)
        if panel.lines:
            panel.legend(fontsize="small")
    machine = results["machine"]
    plt.gcf().suptitle(
        f"{machine['processors']} × {machine['processor']}, Linux {machine['kernel']}, backing on {machine['backing']}; "
        f"medians of {results['rounds']} rounds",
        fontsize="small",
    )
    plt.savefig(out, metadata={"Date": None})


if __name__ == "__main__":
    with open(sys.argv[1], encoding="utf-8") as f:
        draw(json.load(f), sys.argv[2])
