#!/usr/bin/env python3
"""The systemd units of deploy/ are sound and hardened: `systemd-analyze verify` finds nothing, and what it calls the
exposure of a system unit is at most 2 of 10. Usage: units.py ISTHMUS"""

import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
EXPOSURE_MOST = 2.0


def analyze(*arguments, folder):
    environment = os.environ | {"XDG_RUNTIME_DIR": str(folder), "SYSTEMD_COLORS": "0"}
    done = subprocess.run(
        ["systemd-analyze", *arguments], capture_output=True, text=True, env=environment, check=False
    )
    return done.returncode, done.stdout + done.stderr


def main():
    program = sys.argv[1]
    if not shutil.which("systemd-analyze"):
        print("systemd-analyze is not here; the Debian package is systemd")
        return 77
    wrong = []
    units = sorted((ROOT / "deploy").rglob("*.service"))
    assert units, "deploy/ has no units"
    for unit in units:
        text = unit.read_text()
        with tempfile.TemporaryDirectory() as folder:
            # As it is once somebody has installed the program, and named the run.
            copy = Path(folder) / unit.name.replace("@.", "@demo.")
            copy.write_text(text.replace("/usr/local/bin/isthmus", program))
            scope = ["--user"] if "%h" in text else []
            code, said = analyze("verify", "--man=no", *scope, str(copy), folder=folder)
            if code or said.strip():
                wrong.append(f"{unit.name}: {said}")
            if not scope:
                _, said = analyze("security", "--offline=yes", str(copy), folder=folder)
                found = re.search(r"exposure level for \S+ ([\d.]+)", said)
                if not found or float(found[1]) > EXPOSURE_MOST:
                    wrong.append(f"{unit.name}: exposure {found[1] if found else said}, above {EXPOSURE_MOST}")
    print("\n".join(wrong) or f"{len(units)} units are sound")
    return bool(wrong)


if __name__ == "__main__":
    sys.exit(main())
