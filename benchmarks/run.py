"""Run the benchmark scripts one after the other and collect what they measured.

``python benchmarks/run.py [NAME ...]`` runs ``benchmarks/NAME.py --json out/benchmarks/NAME.json``
for each name, or for every script that is not a figure's; `make bench` calls it. The scripts share
nothing, so each has a process of its own and the machine to itself.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).parent


def scripts() -> dict[str, Path]:
    """Return the benchmark scripts by name; those that draw a figure are called by hand."""
    found = {path.stem: path for path in sorted(HERE.glob("*.py"))}
    return {
        name: path
        for name, path in found.items()
        if path != Path(__file__) and not name.startswith(("figure_", "_"))
    }


def run(script: Path, out: Path) -> dict[str, object]:
    """Run one script, its lines shown as they come, and return its result with the time."""
    path = out / f"{script.stem}.json"
    path.unlink(missing_ok=True)
    start = time.perf_counter()
    done = subprocess.run([sys.executable, str(script), "--json", str(path)], check=False)
    seconds = round(time.perf_counter() - start, 1)
    result = json.loads(path.read_text(encoding="utf-8")) if path.exists() else None
    ok = done.returncode == 0 and result is not None
    return {"ok": ok, "returncode": done.returncode, "seconds": seconds, "result": result}


def main() -> int:
    """Run what the command line names; return 1 if a script failed or wrote nothing."""
    known = scripts()
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(known)}")
    parser.add_argument("--out", type=Path, default=HERE.parent / "out" / "benchmarks")
    args = parser.parse_args()
    if unknown := set(args.names) - set(known):
        parser.error(f"no script {sorted(unknown)}; there are {sorted(known)}")
    args.out.mkdir(parents=True, exist_ok=True)

    results = {}
    for name in args.names or known:
        print(f"\n== {name}", flush=True)
        results[name] = run(known[name], args.out)
        state = "done" if results[name]["ok"] else "FAILED"
        print(f"== {name}: {state} in {results[name]['seconds']} s", flush=True)
    collected = {
        "date": time.strftime("%Y-%m-%d"),
        "system": f"{platform.system()} {platform.machine()}",
        "cores": os.cpu_count(),
        "results": results,
    }
    text = json.dumps(collected, indent=1) + "\n"
    (args.out / "all.json").write_text(text, encoding="utf-8")
    print(f"\n{len(results)} results in {args.out / 'all.json'}")
    return int(not all(result["ok"] for result in results.values()))


if __name__ == "__main__":
    sys.exit(main())
