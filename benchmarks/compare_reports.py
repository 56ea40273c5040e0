"""Compare the numbers of two evaluations digit by digit, as a change of the code that should change none has to show.

python benchmarks/compare_reports.py BEFORE/metrics.json AFTER/metrics.json
"""

from __future__ import annotations

import argparse

from scldm.evaluation import EvaluationReport


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("before")
    parser.add_argument("after")
    arguments = parser.parse_args()
    reports = [EvaluationReport.load(path) for path in (arguments.before, arguments.after)]
    before, after = ({(r.metric, r.space, r.condition, r.system): r for r in report.records} for report in reports)
    differing = [key for key in before if key in after and before[key] != after[key]]
    print(f"{len(before)} values before, {len(after)} after; {len(before.keys() ^ after.keys())} are on one side only")
    print(f"values or intervals that differ: {len(differing)}; labels equal: {reports[0].labels == reports[1].labels}")
    for key in differing:
        print(*(part for part in key if part), before[key].value, after[key].value)


if __name__ == "__main__":
    main()
