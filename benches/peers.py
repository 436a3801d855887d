#!/usr/bin/env python3
"""gristmill's math rule on the cases that peers test themselves with.

    pip download --no-deps --no-binary math-verify math-verify==0.9.0     # its archive has tests/
    python benches/peers.py --math-verify UNPACKED/tests --nemo-skills test_math_equal.py [--gristmill BINARY]

Their texts are no part of this repository. A case is what they call it with and what they expect; prediction in,
verdict out, `last_number = true`. Cases that call for an error or a setting of theirs have no counterpart and are
not counted. Prints how many agree, and each that does not.
"""

import argparse
import importlib.util
import json
import pathlib
import subprocess
import sys
import tempfile
import types

RULES = 'reward = "accuracy"\n\n[rules.accuracy]\nkind = "math"\nlast_number = true\n'


def parametrized(path, package):
    """Each (function, arguments by name) that the file hands to pytest, without pytest or what it tests."""
    cases = []

    def parametrize(names, values, **_):
        names = [name.strip() for name in names.split(",")] if isinstance(names, str) else names
        single = len(names) == 1
        return lambda test: cases.extend((test.__name__, dict(zip(names, [v] if single else v))) for v in values) or test

    pytest = types.ModuleType("pytest")
    pytest.mark = types.SimpleNamespace(parametrize=parametrize)
    sys.modules["pytest"] = pytest
    name = f"{package}.{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return cases


class Anything(types.ModuleType):
    """Stands for a module that a test file imports and whose functions are not called."""

    __path__ = []

    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        return lambda *args, **kwargs: None


def stand_in(*names):
    for name in names:
        sys.modules.setdefault(name, Anything(name))


def math_verify(folder):
    stand_in("sympy", "math_verify", "math_verify.grader", "math_verify.parser", "latex2sympy2_extended", "tests")
    for path in sorted(folder.glob("test_*.py")):
        for _, case in parametrized(path, "tests"):
            want = case.get("expected", case.get("result"))
            if want in (0, 1) and {"gold", "pred"} <= case.keys():
                yield case["gold"], case["pred"], bool(want)


def nemo_skills(path):
    stand_in("nemo_skills", "nemo_skills.evaluation", "nemo_skills.evaluation.math_grader")
    for test, case in parametrized(path, "nemo"):
        a, b = case["output_pair"]
        if a is not None and b is not None:
            for gold, pred in ((a, b), (b, a)):
                yield str(gold), str(pred), test == "test_correct_examples"


def judge(cases, binary):
    with tempfile.TemporaryDirectory() as folder:
        rules = pathlib.Path(folder) / "peers.toml"
        rules.write_text(RULES)
        rows = "".join(json.dumps({"completion": pred, "gold": gold}) + "\n" for gold, pred, _ in cases)
        command = [binary, "score", "--rules", str(rules), "-"]
        out = subprocess.run(command, input=rows, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True).stdout
    return [json.loads(line)["verdicts"]["accuracy"] for line in out.split("\n") if line]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--math-verify", type=pathlib.Path, help="the folder tests/ of Math-Verify's source archive")
    parser.add_argument("--nemo-skills", type=pathlib.Path, help="NeMo-Skills' tests/test_math_equal.py")
    root = pathlib.Path(__file__).resolve().parent.parent
    parser.add_argument("--gristmill", default=str(root / "target" / "release" / "gristmill"))
    args = parser.parse_args()
    # Their modules are imported by name: this folder has files of the same names.
    sys.path[:] = [p for p in sys.path if pathlib.Path(p or ".").resolve() != root / "benches"]
    suites = [("Math-Verify", math_verify, args.math_verify), ("NeMo-Skills", nemo_skills, args.nemo_skills)]
    if not any(path for _, _, path in suites):
        parser.error("nothing to measure: pass --math-verify or --nemo-skills")
    for name, collect, path in suites:
        if path is None:
            continue
        cases = list(collect(path))
        if not cases:
            sys.exit(f"{path}: no cases\nhint: --math-verify takes a folder of test_*.py, --nemo-skills a file")
        verdicts = judge(cases, args.gristmill)
        apart = [(c, v) for c, v in zip(cases, verdicts, strict=True) if (v["outcome"] == "correct") != c[2]]
        print(f"{name}: agrees with {len(cases) - len(apart)} of {len(cases)}")
        for (gold, pred, want), verdict in apart:
            print(f"  {'accepts' if want else 'rejects'}  gold {gold[:70]!r}  prediction {pred[-70:]!r}  here {verdict['reason']}")


if __name__ == "__main__":
    main()
