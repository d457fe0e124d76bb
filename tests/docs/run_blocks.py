"""Runs the blocks of a page in the folder it is started in, as its reader would; prints a JSON list of what they print.

The page's path is the first argument, its blocks come as JSON on stdin: language, line and code of each.
"""

import contextlib
import io
import json
import subprocess
import sys
import types


def run(page, blocks):
    """The python blocks share `__main__`, an empty one; each sh block is a bash of its own that ends at an error."""
    main = sys.modules["__main__"] = types.ModuleType("__main__")
    for language, line, code in blocks:
        if language == "sh":
            done = subprocess.run(["bash", "-euo", "pipefail", "-c", code], stdout=subprocess.PIPE, text=True)
            if done.returncode:
                sys.exit(f"{page}:{line}: exit code {done.returncode} of\n{code}{done.stdout}")
            yield done.stdout
        else:
            with contextlib.redirect_stdout(io.StringIO()) as out:
                exec(compile("\n" * (line - 1) + code, page, "exec"), vars(main))
            yield out.getvalue()


if __name__ == "__main__":
    sys.path[0] = ""  # modules that the page has written are found, those beside this file are not
    json.dump(list(run(sys.argv[1], json.load(sys.stdin))), sys.stdout)
