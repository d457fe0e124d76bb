"""Write a small data set, tiny models, and configurations that learn from them, into the folder this is run in."""

from pathlib import Path

import yaml

from tests.tiny import CONFIG, write_imagefolder, write_models


def main():
    write_imagefolder(Path("data"))
    vision, text = write_models(Path("models").absolute())
    base = {**CONFIG, "backbone": {**CONFIG["backbone"], "vision": str(vision), "text": str(text)}}
    Path("train.yaml").write_text(yaml.safe_dump(base))
    del base["recipe"], base["max_bytes"]
    tradeoff = {
        "data": {"own": "data"},
        "recipes": ["half_jpeg"],
        "budgets": ["20kB"],
        "kinds": ["probe"],
        "base": base,
    }
    Path("tradeoff.yaml").write_text(yaml.safe_dump(tradeoff))


if __name__ == "__main__":
    main()
