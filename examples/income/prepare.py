"""Put the census file where modelyard.yaml looks for it: `python prepare.py [FOLDER]`.

FOLDER holds `adult.data` (UCI machine learning repository, "Adult"). Without it, `$MODELYARD_DATA/adult` and the
folder `shared/data/adult` beside the checkout are tried.
"""

import os
import shutil
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent


def main(name: str = "adult", file: str = "adult.data") -> int:
    """Copy the file into `data/`."""
    places = [Path(a) for a in sys.argv[1:2]]
    if not places:
        places = [Path(os.environ.get("MODELYARD_DATA", HERE / "../../../shared/data")) / name]
    source = next((p / file if p.is_dir() else p for p in places if (p / file).is_file() or p.is_file()), None)
    if source is None:
        print(f"{file} is not in {places[0]}; give its folder: python prepare.py FOLDER", file=sys.stderr)
        return 2
    target = HERE / "data" / file
    target.parent.mkdir(exist_ok=True)
    shutil.copyfile(source, target)
    print(f"{target} is ready; now: modelyard run")
    return 0


if __name__ == "__main__":
    sys.exit(main())
