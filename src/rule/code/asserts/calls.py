# Calls of the program's function with arguments that are JSON, as APPS, TACO and LiveCodeBench have them.
import json, math


def _same(got, wanted):
    if isinstance(got, (list, tuple)) and isinstance(wanted, list):
        return len(got) == len(wanted) and all(_same(*pair) for pair in zip(got, wanted))
    if isinstance(got, dict) and isinstance(wanted, dict):
        got = {str(key): value for key, value in got.items()}
        return got.keys() == wanted.keys() and all(_same(got[key], wanted[key]) for key in got)
    if isinstance(got, float) or isinstance(wanted, float):
        numbers = isinstance(got, (int, float)) and isinstance(wanted, (int, float))
        return numbers and math.isclose(got, wanted, rel_tol=1e-9, abs_tol=1e-9)
    return got == wanted


def _keyed(value):
    # JSON has no numbers as keys.
    if isinstance(value, dict) and value and all(key.lstrip("-").isdecimal() for key in value):
        return {int(key): item for key, item in value.items()}
    return value


def _check(name, args, wanted):
    args, wanted = [_keyed(each) for each in json.loads(args)], json.loads(wanted)
    found = __program__("Solution")
    call = getattr(found[1](), name, None) if len(found) == 2 else None
    if call is None:
        found = __program__(name)
        if len(found) != 2:
            raise NameError("the program has no function %s" % name)
        call = found[1]
    got = call(*args)
    # Many rows have what is wanted in a list of its own.
    wrapped = isinstance(wanted, list) and len(wanted) == 1
    assert _same(got, wanted) or wrapped and _same(got, wanted[0]), "%s(%s) is %r" % (name, str(args)[1:-1], got)
